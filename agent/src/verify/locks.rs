//! Whether what is needed can't be deleted.
//!
//! A compliance lock never becomes shorter, so an object whose last known lock is long enough is not
//! asked for again; a read may have told the lock on the way. Only for the rest is there a request each.

use super::presence::{Found, stored_at};
use super::survey::Odd;
use crate::explain;
use crate::store::{Store, StoreError, VersionId};
use futures::{StreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use wald_core::ledger::{Damage, KnownLock, Objects};
use wald_core::object_lock::{LockMode, LockPolicy, ObjectLock};
use wald_core::retention::{Need, Needed};

/// Requests at the same time.
const REQUESTS_IN_FLIGHT: usize = 16;
/// A healthy nightly expire leaves no lock shorter than this.
const MARGIN_MAX: SignedDuration = SignedDuration::from_hours(48);

/// What asking gave.
#[derive(Debug, Default)]
pub(super) struct Locks {
    pub findings: Vec<Found>,
    /// Objects whose lock could not be learnt, with the reason.
    pub unread: Vec<(String, String)>,
    /// Requests that were made.
    pub asked: u64,
}

/// Checks the locks of everything that is needed; what was learnt is noted in `objects`.
pub(super) async fn check(
    store: &Store,
    policy: LockPolicy,
    objects: &mut Objects,
    odd: &[Odd],
    needed: &Needed,
    now: Timestamp,
) -> Locks {
    let margin = MARGIN_MAX.min(policy.duration() / 2);
    let least = now.saturating_add(margin).unwrap_or(Timestamp::MAX);
    let wanted = |name: &str, stored| match needed.of(name, stored) {
        Need::Needed { until, .. } => Some(ObjectLock { mode: policy.mode, until: until.min(least) }),
        Need::Pending { .. } | Need::NotNeeded(_) | Need::Unknown => None,
    };
    let mut questions: Vec<(String, VersionId, ObjectLock)> = Vec::new();
    for object in objects.iter() {
        let Some(wanted) = wanted(&object.name, stored_at(object)) else { continue };
        // Whoever may bypass governance can also shorten it.
        let sure = object.lock.filter(|known| known.mode == LockMode::Compliance).map(ObjectLock::from);
        if !sure.is_some_and(|known| known.covers(&whole_seconds(wanted))) {
            questions.push((object.name.to_string(), VersionId::new(&*object.version), wanted));
        }
    }
    for odd in odd {
        let Some(object) = objects.get(&odd.name) else { continue };
        let Some(wanted) = wanted(&odd.name, stored_at(object)) else { continue };
        let others = odd.versions.iter().filter(|version| **version != object.version);
        questions.extend(others.map(|version| (odd.name.to_string(), VersionId::new(&**version), wanted)));
    }
    ask(store, questions, objects).await
}

/// Ledgers keep whole seconds, cut off.
fn whole_seconds(lock: ObjectLock) -> ObjectLock {
    KnownLock::from(lock).into()
}

async fn ask(store: &Store, questions: Vec<(String, VersionId, ObjectLock)>, objects: &mut Objects) -> Locks {
    let mut locks = Locks { asked: u64::try_from(questions.len()).unwrap_or(u64::MAX), ..Locks::default() };
    let answers = stream::iter(questions).map(|(name, version, wanted)| async move {
        let found = store.lock_of(&name, &version).await;
        (name, version, wanted, found)
    });
    let mut answers = answers.buffer_unordered(REQUESTS_IN_FLIGHT);
    while let Some((name, version, wanted, found)) = answers.next().await {
        let found = match found {
            Ok(found) => found,
            // It went away meanwhile, which expire may do with what was needed until today.
            Err(StoreError::Absent { .. }) => continue,
            Err(error) => {
                locks.unread.push((name, explain::chain(&error)));
                continue;
            }
        };
        if let Some(object) = objects.get_mut(&name).filter(|object| *object.version == *version.as_str()) {
            object.lock = found.map(KnownLock::from);
        }
        if !found.is_some_and(|found| found.covers(&wanted)) {
            locks.findings.push(Found { object: name, damage: Damage::LockTooShort { found, wanted } });
        }
    }
    locks
}
