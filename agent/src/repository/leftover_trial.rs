//! The rights of retention, tried by keys that may not store objects: with what an earlier check
//! has left below `check/`, by keys that may not delete.
//!
//! Invariant: only an object below `check/` is touched, and never a record of guarantees.

use super::check::Run;
use super::report::Verdict;
use crate::store::{Deletion, ObjectVersion, StoreError, VersionKind};
use futures::TryStreamExt;
use jiff::{SignedDuration, Timestamp};
use std::time::Duration;
use wald_core::object_key::ObjectKey;
use wald_core::object_lock::ObjectLock;

/// How long the leftover is locked for the trial.
const TRIAL_LOCK: SignedDuration = SignedDuration::from_secs(3);

/// Lists versions, reads and extends a lock, and deletes a version.
pub(super) async fn all(run: &mut Run<'_>) {
    let versions: Result<Vec<ObjectVersion>, StoreError> =
        run.store.versions(ObjectKey::CHECK_PREFIX).try_collect().await;
    let versions = match versions {
        Ok(versions) => versions,
        Err(error) => {
            run.report.failed("can't list versions (s3:ListBucketVersions)", &error);
            return;
        }
    };
    run.report.add(Verdict::Good, "lists the versions of what is stored");
    // The oldest: a check that runs at this moment has younger ones.
    let ours = |version: &&ObjectVersion| {
        matches!(version.kind, VersionKind::Object { .. })
            && !version.name.starts_with(ObjectKey::GUARANTEES_PREFIX)
    };
    let Some(leftover) = versions.iter().filter(ours).min_by_key(|version| version.modified) else {
        run.report.add(
            Verdict::Note,
            "has nothing below check/ to try the other rights with: run `wald repo check` with the keys \
             that archive, then this again",
        );
        return;
    };
    if let Some(policy) = run.store.lock_policy() {
        let until = Timestamp::now() + TRIAL_LOCK;
        let lock = ObjectLock { mode: policy.mode, until };
        match run.store.extend_lock(&leftover.name, &leftover.version, lock).await {
            Ok(_) => run.report.add(Verdict::Good, "locks can be read and made longer"),
            Err(error) => {
                run.report.failed(
                    "can't make a lock longer (s3:PutObjectRetention, s3:GetObjectRetention)",
                    &error,
                );
            }
        }
        let wait = TRIAL_LOCK + SignedDuration::from_secs(2);
        tokio::time::sleep(Duration::try_from(wait).unwrap_or_default()).await;
    }
    match run.store.delete_version(&leftover.name, &leftover.version).await {
        Ok(Deletion::Deleted) => run.report.add(Verdict::Good, "removes versions whose lock has lapsed"),
        Ok(Deletion::Locked) => run.report.add(
            Verdict::Note,
            "still locks what an earlier check has left, so that removing can't be tried today",
        ),
        Err(error) => run.report.failed("can't remove versions (s3:DeleteObjectVersion)", &error),
    }
}
