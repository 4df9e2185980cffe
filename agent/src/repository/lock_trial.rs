//! Whether a lock that is asked for is there, and holds; and the clean-up at the end.
//!
//! The trial objects are locked in the configured mode for [`TRIAL_LOCK`]: the lock is counted from
//! a clock that is set back by its usual duration. After that they are removed like the others.

use super::check::{Purpose, Run};
use super::object_trial::{body, upload};
use super::report::Verdict;
use crate::clock::Clock;
use crate::explain::chain;
use crate::store::{Created, Deletion, Guarantees, ObjectVersion, Store, StoreError, VersionId, VersionKind};
use futures::TryStreamExt;
use jiff::{SignedDuration, Timestamp};
use std::time::Duration;
use wald_core::object_key::{ObjectKey, ObjectKeyError};
use wald_core::object_lock::ObjectLock;

/// How long an object of the trial stays locked: longer than the trial's requests take, short
/// enough to be waited for.
const TRIAL_LOCK: SignedDuration = SignedDuration::from_secs(5);
/// By so much it is made longer.
const EXTENSION: SignedDuration = SignedDuration::from_secs(1);

/// Locks on single objects and uploads, and whether they hold.
pub(super) async fn locks(run: &mut Run<'_>) -> Result<(), ObjectKeyError> {
    let Some(policy) = run.store.lock_policy() else { return Ok(()) };
    // Counted from the server's clock, so that a wrong one here does not spoil the trial.
    let now = match run.store.server_time().await {
        Ok(Some(now)) => now,
        _ => Timestamp::now(),
    };
    let until = now + TRIAL_LOCK;
    run.locked_until = Some(Timestamp::now() + TRIAL_LOCK + EXTENSION);
    let wanted = ObjectLock { mode: policy.mode, until };
    let clock = Clock::Fixed(until.saturating_sub(policy.duration()).unwrap_or(now));
    let store = run.store.with_guarantees(Guarantees::all()).with_clock(clock);
    let (on_put, on_upload) = (run.names.key("locked")?, run.names.key("locked-parts")?);

    let stored = match store.create(&on_put, body(4).into()).await {
        Ok(Created::Stored) => only_version(&store, &on_put).await,
        Ok(Created::Exists) => Ok(None),
        Err(error) => {
            let what =
                "can't store an object under lock (s3:PutObjectRetention, and a bucket with object lock)";
            run.report.failed(what, &error);
            return Ok(());
        }
    };
    let found = read_lock(run, &store, &on_put, stored, wanted, "on objects").await;
    run.seen.lock_on_put = found.as_ref().map(|found| found.holds);
    if let Some(Found { version, holds }) = found {
        // A store that drops the header may still take the second request.
        let held = extend(run, &store, &on_put, &version, wanted).await || holds;
        if held {
            enforced(run, &store, &on_put, &version, until).await;
        }
    }
    let stored = match upload(&store, &on_upload, body(5)).await {
        Ok(_) => only_version(&store, &on_upload).await,
        Err(error) => {
            run.report.failed("can't upload under lock", &error);
            return Ok(());
        }
    };
    let found = read_lock(run, &store, &on_upload, stored, wanted, "on what is uploaded in parts").await;
    run.seen.lock_on_upload = found.map(|found| found.holds);
    Ok(())
}

struct Found {
    version: VersionId,
    holds: bool,
}

async fn only_version(store: &Store, key: &ObjectKey) -> Result<Option<VersionId>, StoreError> {
    let versions: Vec<ObjectVersion> = store.versions(key.as_str()).try_collect().await?;
    Ok(versions.into_iter().find(|version| version.name == key.as_str()).map(|version| version.version))
}

async fn read_lock(
    run: &mut Run<'_>,
    store: &Store,
    key: &ObjectKey,
    version: Result<Option<VersionId>, StoreError>,
    wanted: ObjectLock,
    what: &str,
) -> Option<Found> {
    let version = match version {
        Ok(Some(version)) => version,
        Ok(None) => {
            run.report.add(Verdict::Bad, format!("has no version of {key}, which was just stored"));
            return None;
        }
        // Told where versions are listed.
        Err(_) => return None,
    };
    match store.lock_of(key.as_str(), &version).await {
        Ok(Some(found)) if found.covers(&wanted) => {
            run.report.add(Verdict::Good, format!("locks are there {what}"));
            Some(Found { version, holds: true })
        }
        Ok(_) => {
            run.report.add(Verdict::Note, format!("the lock that was asked for is missing {what}"));
            Some(Found { version, holds: false })
        }
        Err(error) => {
            run.report.failed("can't read back a lock (s3:GetObjectRetention)", &error);
            None
        }
    }
}

/// Whether a lock can be set on what is stored. Retention needs it, and so does wald where the
/// server drops a lock.
async fn extend(
    run: &mut Run<'_>,
    store: &Store,
    key: &ObjectKey,
    version: &VersionId,
    lock: ObjectLock,
) -> bool {
    let longer = ObjectLock { until: lock.until + EXTENSION, ..lock };
    match store.extend_lock(key.as_str(), version, longer).await {
        Ok(_) => {
            run.report.add(Verdict::Good, "locks can be made longer");
            true
        }
        Err(error @ StoreError::Refused { .. })
            if run.purpose == Purpose::Archive && run.seen.lock_on_put == Some(true) =>
        {
            let text = "can't make a lock longer (s3:PutObjectRetention), which `wald expire` needs to";
            run.report.unknown(text, &error);
            false
        }
        Err(error) => {
            run.report.failed("can't make a lock longer (s3:PutObjectRetention)", &error);
            false
        }
    }
}

/// Whether a version under lock can be deleted.
async fn enforced(run: &mut Run<'_>, store: &Store, key: &ObjectKey, version: &VersionId, until: Timestamp) {
    let deleted = store.delete_version(key.as_str(), version).await;
    let lapsed = !matches!(store.server_time().await, Ok(Some(now)) if now < until);
    match deleted {
        Ok(Deletion::Locked) => run.report.add(Verdict::Good, "refuses to delete what is locked"),
        Ok(Deletion::Deleted) if lapsed => run
            .report
            .add(Verdict::Note, "was too slow to try whether locks hold; check again when it is less busy"),
        Ok(Deletion::Deleted) => run.report.add(
            Verdict::Bad,
            "deletes what is locked: a lock is not worth anything here, or these keys may bypass it \
             (s3:BypassGovernanceRetention)",
        ),
        Err(error @ StoreError::Refused { .. }) => run.report.unknown(
            "whether locks hold can't be tried, since these keys may not delete versions \
             (s3:DeleteObjectVersion), as is right for archiving",
            &error,
        ),
        Err(error) => run.report.failed("can't be tried with deleting what is locked", &error),
    }
}

/// Whether the answer for a deleted object says so.
pub(super) async fn delete_marker(run: &mut Run<'_>) -> Result<(), ObjectKeyError> {
    let (store, key) = (run.bare(), run.names.key("deleted")?);
    let made = store.create(&key, body(6).into()).await;
    if !matches!(made, Ok(Created::Stored)) || store.delete(&key).await.is_err() {
        // A missing right to delete is told at the end.
        return Ok(());
    }
    match store.get(&key, 1).await {
        Err(StoreError::Deleted { .. }) => {
            run.seen.tells_delete_markers = Some(true);
            run.report.add(Verdict::Good, "tells a deleted object from one that never was");
        }
        // Where no versions are kept that is the truth.
        Err(error) if error.is_absent() => {
            let versions: Result<Vec<ObjectVersion>, _> = store.versions(key.as_str()).try_collect().await;
            if versions.is_ok_and(|all| all.iter().any(|one| one.kind == VersionKind::DeleteMarker)) {
                run.seen.tells_delete_markers = Some(false);
                run.report.add(Verdict::Note, "says of a deleted object that it never was");
            }
        }
        Err(error) => run.report.failed("can't be asked for a deleted object", &error),
        Ok(_) => run.report.add(Verdict::Bad, "returns an object that was deleted"),
    }
    Ok(())
}

/// Removes every version of what this run has stored, as far as rights and locks allow.
pub(super) async fn removal(run: &mut Run<'_>) {
    let store = run.bare();
    let mut left = remove(&store, &run.names.prefix).await;
    // Our own locks of a few seconds; a bucket's default lock is longer, and is not waited for.
    if let (Ok(Left::Locked), Some(until)) = (&left, run.locked_until) {
        // The end of the second in which they lapse.
        let wait = until.duration_since(Timestamp::now()) + SignedDuration::from_secs(1);
        tokio::time::sleep(Duration::try_from(wait).unwrap_or_default()).await;
        left = remove(&store, &run.names.prefix).await;
    }
    let below = ObjectKey::CHECK_PREFIX;
    match left {
        Ok(Left::Nothing) => run.report.add(Verdict::Good, "removed what was stored for this check"),
        Ok(Left::Locked) => run.report.add(
            Verdict::Note,
            format!("what was stored for this check stays below {below} until the bucket's own lock ends"),
        ),
        Err(error @ StoreError::Refused { .. }) if run.purpose == Purpose::Expire => {
            run.report.failed("can't remove versions (s3:DeleteObjectVersion)", &error);
        }
        Err(error) => run.report.add(
            Verdict::Note,
            format!(
                "what was stored for this check stays below {below}; only `wald expire` needs to remove objects: {}",
                chain(&error)
            ),
        ),
    }
}

enum Left {
    Nothing,
    Locked,
}

async fn remove(store: &Store, prefix: &str) -> Result<Left, StoreError> {
    let versions: Result<Vec<ObjectVersion>, StoreError> = store.versions(prefix).try_collect().await;
    let Ok(versions) = versions else {
        // Who may not list versions may still delete by name.
        let names: Vec<String> = store.list(prefix).map_ok(|object| object.name).try_collect().await?;
        for name in names.iter().filter_map(|name| name.strip_prefix(ObjectKey::CHECK_PREFIX)) {
            if let Ok(key) = ObjectKey::check(name) {
                store.delete(&key).await?;
            }
        }
        return Ok(Left::Nothing);
    };
    let mut left = Left::Nothing;
    for version in versions {
        match store.delete_version(&version.name, &version.version).await? {
            Deletion::Deleted => {}
            Deletion::Locked => left = Left::Locked,
        }
    }
    Ok(left)
}
