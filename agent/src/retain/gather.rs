//! Collects what a plan is made from: a listing of all versions, the catalog and the histories,
//! and the locks of those versions on which the plan depends.
//!
//! The listing comes first and the catalog after it: of a backup that ends meanwhile, the entry
//! is then seen, and never its parts without it.

use super::{Progress, RetainError, RetainOptions, RunTime, clock_check};
use crate::explain::chain;
use crate::inventory::{self, Inventory};
use crate::repository::Repository;
use crate::store::{PendingUpload, Store, StoreError, VersionId, VersionKind as StoredKind};
use futures::{StreamExt, TryStreamExt, stream};
use std::collections::BTreeMap;
use wald_core::catalog::CATALOG_BYTES_MAX;
use wald_core::recovery_plan::Holdings;
use wald_core::retention::{
    Basis, Inputs, ListedUpload, ListedVersion, LockState, Needed, Plan, Refusal, Survey, VersionKind,
    locks_wanted, needed, plan,
};

/// Locks that may stay unknown before it is said that the repository does not tell them.
const LOCK_FAILURES_MAX: usize = 10;

/// Something that can't be understood.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Problem {
    /// The object.
    pub key: String,
    /// What is wrong with it.
    pub reason: String,
}

/// The basis of a run, and its plan.
pub(super) struct Gathered {
    pub time: RunTime,
    pub versions: Vec<ListedVersion<VersionId>>,
    pub uploads: Vec<PendingUpload>,
    pub needed: Needed,
    pub plan: Plan,
    /// Entries and histories that can't be understood, and locks that were not told.
    pub problems: Vec<Problem>,
    /// Whether an entry or a history is hidden, so that another plan is due once it is not.
    pub was_blind: bool,
}

/// Lists, reads and plans.
pub(super) async fn gather(
    repository: &Repository,
    options: &RetainOptions,
    time: &RunTime,
    progress: &Progress,
) -> Result<Gathered, RetainError> {
    let store = repository.store();
    let versions = list(store, progress).await?;
    let uploads = store.pending_uploads("").await?;
    let survey = Survey::of(&versions);
    let hidden = survey.hidden();
    let mut problems = contradictions(store, &versions, &survey.contested()).await?;
    let hides = |key: &String| Problem { key: key.clone(), reason: "a delete marker hides it".to_owned() };
    problems.extend(hidden.iter().map(hides));
    let inventory = match inventory::read(repository).await {
        Ok(inventory) => Some(inventory),
        // What is hidden may be what it stumbled over; that is brought to light first.
        Err(error) if !hidden.is_empty() => {
            problems.push(Problem { key: "catalog/".to_owned(), reason: chain(&error) });
            None
        }
        Err(error) => return Err(error.into()),
    };
    let damaged = inventory.iter().flat_map(|inventory| &inventory.unreadable);
    problems.extend(damaged.map(|found| Problem { key: found.key.clone(), reason: found.reason.clone() }));
    let unreadable: Vec<String> = problems.iter().map(|problem| problem.key.clone()).collect();
    let needed = find_needed(repository, inventory.as_ref(), &survey, &unreadable, options, time);
    let locks = ask_locks(store, &versions, &needed, options, progress, &mut problems).await?;
    let listed: Vec<ListedUpload> = uploads
        .iter()
        .map(|upload| ListedUpload { name: upload.name.clone(), begun: upload.begun })
        .collect();
    let (lock, now) = (options.lock, time.now);
    let mut plan =
        plan(Inputs { needed: &needed, versions: &versions, locks: &locks, uploads: &listed, lock, now });
    if let (None, Some(reason)) = (&plan.refusal, doubt(time, &versions, options)) {
        plan.refuse(Refusal::Doubtful { reason });
    }
    let was_blind = !hidden.is_empty();
    Ok(Gathered { time: time.clone(), versions, uploads, needed, plan, problems, was_blind })
}

async fn list(store: &Store, progress: &Progress) -> Result<Vec<ListedVersion<VersionId>>, StoreError> {
    progress.begin("listing", None);
    let mut versions = Vec::new();
    let mut listed = store.versions("");
    while let Some(found) = listed.try_next().await? {
        let (kind, size_bytes) = match found.kind {
            StoredKind::Object { size_bytes } => (VersionKind::Object, size_bytes),
            StoredKind::DeleteMarker => (VersionKind::DeleteMarker, 0),
        };
        let (name, id, is_latest, stored_at) = (found.name, found.version, found.is_latest, found.modified);
        versions.push(ListedVersion { name, id, is_latest, kind, size_bytes, stored_at });
        progress.advance();
    }
    Ok(versions)
}

fn find_needed(
    repository: &Repository,
    inventory: Option<&Inventory>,
    survey: &Survey<'_>,
    unreadable: &[String],
    options: &RetainOptions,
    time: &RunTime,
) -> Needed {
    // What is hidden is stored all the same, so the listing of versions says what there is.
    let coverage = survey.coverage(repository.segment_size());
    let none = BTreeMap::new();
    let holdings = Holdings {
        system_id: repository.system_id(),
        catalog: inventory.map(|inventory| inventory.catalog.as_slice()).unwrap_or_default(),
        histories: inventory.map_or(&none, |inventory| &inventory.histories),
        coverage: &coverage,
    };
    needed(Basis { holdings, unreadable, seen: &survey.seen() }, options.policy, time.now)
}

/// Of what was stored more than once, that which does not say the same each time.
async fn contradictions(
    store: &Store,
    versions: &[ListedVersion<VersionId>],
    contested: &[String],
) -> Result<Vec<Problem>, StoreError> {
    let mut found = Vec::new();
    for name in contested {
        let objects = versions.iter().filter(|v| v.name == *name && v.kind == VersionKind::Object);
        let mut first = None;
        for version in objects {
            let content = match store.get_version(name, &version.id, CATALOG_BYTES_MAX).await {
                Ok(content) => blake3::hash(&content),
                // Gone meanwhile: there is one less to disagree.
                Err(error) if error.is_absent() => continue,
                Err(error) => return Err(error),
            };
            if *first.get_or_insert(content) != content {
                let reason = "it was stored more than once, with different content".to_owned();
                found.push(Problem { key: name.clone(), reason });
                break;
            }
        }
    }
    Ok(found)
}

async fn ask_locks(
    store: &Store,
    versions: &[ListedVersion<VersionId>],
    needed: &Needed,
    options: &RetainOptions,
    progress: &Progress,
    problems: &mut Vec<Problem>,
) -> Result<Vec<LockState>, StoreError> {
    let wanted = locks_wanted(needed, versions, options.lock);
    let mut locks = vec![LockState::NotKnown; versions.len()];
    progress.begin("reading locks", Some(wanted.len()));
    let asked = wanted.into_iter().filter_map(|index| Some((index, versions.get(index)?)));
    let asked = stream::iter(asked).map(|(index, version)| async move {
        (index, version, store.lock_of(&version.name, &version.id).await)
    });
    let mut answers = asked.buffer_unordered(options.requests.get());
    let mut failures = 0;
    while let Some((index, version, answer)) = answers.next().await {
        progress.advance();
        let state = match answer {
            Ok(Some(lock)) => LockState::Held(lock),
            Ok(None) => LockState::Free,
            // Another run was quicker.
            Err(error) if error.is_absent() => LockState::Free,
            Err(error) => {
                failures += 1;
                if failures > LOCK_FAILURES_MAX {
                    return Err(error);
                }
                problems.push(Problem { key: version.name.clone(), reason: chain(&error) });
                LockState::NotKnown
            }
        };
        if let Some(lock) = locks.get_mut(index) {
            *lock = state;
        }
    }
    Ok(locks)
}

/// Why nothing should be deleted at this time.
fn doubt(time: &RunTime, versions: &[ListedVersion<VersionId>], options: &RetainOptions) -> Option<String> {
    if time.is_checked {
        return time.doubt.clone();
    }
    clock_check::doubt_of_silence(versions, time.now, options.policy)
}
