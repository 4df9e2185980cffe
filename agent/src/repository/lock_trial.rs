//! Whether a lock that is asked for is there, and holds; and the clean-up at the end.
//!
//! The trial objects are locked in the configured mode for [`Run::trial_lock`]: the lock is counted
//! from a clock that is set back by its usual duration, anew for each object. After that they are
//! removed like the others. Invariant: a refusal to delete is taken for the lock's doing only where
//! the same keys have deleted something that was not locked.

use super::check::{Purpose, Run};
use super::object_trial::{body, large_body, upload};
use super::report::Verdict;
use crate::clock::Clock;
use crate::explain::chain;
use crate::store::{Created, Deletion, Guarantees, ObjectVersion, Store, StoreError, VersionId, VersionKind};
use futures::TryStreamExt;
use jiff::{SignedDuration, Timestamp};
use std::time::{Duration, Instant};
use wald_core::object_key::{ObjectKey, ObjectKeyError};
use wald_core::object_lock::ObjectLock;

/// An object of the trial stays locked for so long, and [`REQUESTS`] times what one took: long enough
/// for the trial's requests, short enough to be waited for.
const LOCK_MIN: Duration = Duration::from_secs(3);
/// So many requests fit in, among them those of many at the same time.
const REQUESTS: u32 = 20;
/// No server is waited for longer.
const LOCK_MAX: Duration = Duration::from_secs(120);
/// By so much it is made longer.
const EXTENSION: SignedDuration = SignedDuration::from_secs(1);

/// How long a lock lasts on a server that took so long to store one object.
fn lock_for(request: Duration) -> SignedDuration {
    let lock = LOCK_MIN.saturating_add(request.saturating_mul(REQUESTS)).min(LOCK_MAX);
    SignedDuration::try_from(lock).unwrap_or(SignedDuration::MAX)
}

impl Run<'_> {
    /// The store as it answers by itself, locking what it writes for a short while from now.
    /// `None` without a policy.
    pub(super) async fn briefly_locking(&mut self) -> Option<(Store, ObjectLock)> {
        let policy = self.store.lock_policy()?;
        let lasts = lock_for(self.request_time);
        // Counted from the server's clock, so that a wrong one here does not spoil the trial.
        let now = match self.store.server_time().await {
            Ok(Some(now)) => now,
            _ => Timestamp::now(),
        };
        let until = now.saturating_add(lasts).unwrap_or(now);
        let lapses = Timestamp::now().saturating_add(lasts + EXTENSION).ok();
        self.locked_until = self.locked_until.max(lapses);
        let clock = Clock::Fixed(until.saturating_sub(policy.duration()).unwrap_or(now));
        let store = self.store.with_guarantees(Guarantees::all()).with_clock(clock);
        Some((store, ObjectLock { mode: policy.mode, until }))
    }
}

/// Locks on single objects and uploads, and whether they hold.
pub(super) async fn locks(run: &mut Run<'_>) -> Result<(), ObjectKeyError> {
    if run.store.lock_policy().is_none() {
        return Ok(());
    }
    let deletes = deletes_unlocked(run).await?;
    let Some((store, wanted)) = run.briefly_locking().await else { return Ok(()) };
    let (on_put, on_upload) = (run.names.key("locked")?, run.names.key("locked-parts")?);
    let stored = match store.create(&on_put, body(4).into()).await {
        Ok(Created::Stored) => only_version(&store, &on_put).await,
        Ok(Created::Exists) => Ok(None),
        Err(error) => {
            // Without a lock objects were stored a moment ago, or this would not be tried.
            let what = "storing under lock is refused, and without a lock it works: s3:PutObjectRetention is \
                        missing, or a condition on it is below repository.lock.days, or the bucket has no \
                        object lock";
            run.report.failed(what, &error);
            return Ok(());
        }
    };
    let found = read_lock(run, &store, &on_put, stored, wanted, "on objects").await;
    run.seen.lock_on_put = found.as_ref().map(|found| found.holds);
    if let Some(Found { version, holds }) = found {
        // A store that drops the header may still take the second request.
        let held = extend(run, &store, &on_put, &version, wanted).await || holds;
        match deletes {
            Ok(()) if held => enforced(run, &store, &on_put, &version, wanted.until).await,
            Err(why) if held => run.report.add(Verdict::Note, why),
            _ => {}
        }
    }
    let Some((store, wanted)) = run.briefly_locking().await else { return Ok(()) };
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

/// Whether these keys may delete a version that is not locked; else why that says nothing. Measures
/// on the way what a request takes.
async fn deletes_unlocked(run: &mut Run<'_>) -> Result<Result<(), String>, ObjectKeyError> {
    const UNTRIED: &str = "whether locks hold can't be tried";
    let (store, key) = (run.bare(), run.names.key("unlocked")?);
    let begun = Instant::now();
    let made = store.create(&key, large_body(7).into()).await;
    run.request_time = begun.elapsed();
    let version = match made {
        Ok(_) => only_version(&store, &key).await,
        Err(error) => Err(error),
    };
    let deleted = match version {
        Ok(Some(version)) => store.delete_version(key.as_str(), &version).await,
        Ok(None) => return Ok(Err(format!("{UNTRIED}, since {key} is not listed"))),
        Err(error) => Err(error),
    };
    Ok(match deleted {
        Ok(Deletion::Deleted) => Ok(()),
        Ok(Deletion::Locked) => Err(format!("{UNTRIED}, since the bucket locks what asks for no lock")),
        Err(error @ StoreError::Refused { .. }) => Err(format!(
            "{UNTRIED}, since these keys may not delete versions (s3:DeleteObjectVersion), as is right for \
             archiving: {}",
            chain(&error)
        )),
        Err(error) => Err(format!("{UNTRIED} with deleting: {}", chain(&error))),
    })
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
        // What is not locked was deleted by the same keys.
        Err(StoreError::Refused { .. }) => run.report.add(Verdict::Good, "refuses to delete what is locked"),
        Err(error) => run.report.failed("can't be tried with deleting what is locked", &error),
    }
}

/// Whether the answer for a deleted object says so.
pub(super) async fn delete_marker(run: &mut Run<'_>) -> Result<(), ObjectKeyError> {
    let (store, key) = (run.bare(), run.names.key("deleted")?);
    let made = store.create(&key, body(6).into()).await;
    if !matches!(made, Ok(Created::Stored)) {
        return Ok(());
    }
    if let Err(error) = store.delete(&key).await {
        run.report.unknown(
            "whether it tells a deleted object from one that never was can't be tried, since these keys may \
             not delete; wald lists versions instead unless a check with other keys has found it out",
            &error,
        );
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_server_gets_longer_locks_and_a_quick_one_is_not_waited_for() {
        assert_eq!(lock_for(Duration::from_millis(50)).as_secs(), 4);
        assert_eq!(lock_for(Duration::from_secs(2)).as_secs(), 43);
        assert_eq!(lock_for(Duration::MAX).as_secs(), 120);
    }
}
