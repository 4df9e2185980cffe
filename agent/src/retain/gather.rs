//! Collects what a plan is made from: a listing of all versions, the catalog and the histories,
//! and the locks of those versions on which the plan depends.
//!
//! There is one listing, and what it shows of the catalog is read; the catalog is listed once more
//! after it: of a backup that ends meanwhile, the entry is then seen, and never its parts without
//! it. One object that can't be had is a problem and never the end: what protects goes on. Where an entry
//! vanishes between the two, another run is at work, and all is looked at again.

use super::{Progress, RetainError, RetainOptions, RunTime, clock_check};
use crate::explain::chain;
use crate::inventory::{self, Inventory, Names};
use crate::repository::Repository;
use crate::store::{PendingUpload, Store, StoreError, VersionId, VersionKind as StoredKind};
use futures::{StreamExt, TryStreamExt, stream};
use std::collections::BTreeSet;
use wald_core::backup_id::BackupId;
use wald_core::catalog::CATALOG_BYTES_MAX;
use wald_core::object_key::ObjectKey;
use wald_core::quantity::Count;
use wald_core::recovery_plan::Holdings;
use wald_core::retention::{
    Basis, Inputs, ListedUpload, ListedVersion, LockState, Needed, ObjectName, Plan, Refusal, Survey,
    Unsound, VersionKind, locks_wanted, needed, plan,
};

/// Locks that could not be read are told one by one up to this number.
const LOCK_FAILURES_TOLD_MAX: u64 = 10;

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
}

/// Lists, reads and plans.
pub(super) async fn gather(
    repository: &Repository,
    options: &RetainOptions,
    time: &RunTime,
    progress: &Progress,
) -> Result<Gathered, RetainError> {
    let store = repository.store();
    let looked = inventory::settled(|| look(repository, progress), |looked| &looked.inventory);
    let Looked { versions, inventory, late, mut problems } = looked.await?;
    let survey = Survey::of(&versions);
    let damaged = &inventory.unreadable;
    problems
        .extend(damaged.iter().map(|found| Problem { key: found.key.clone(), reason: found.reason.clone() }));
    let unreadable: Vec<String> = problems.iter().map(|problem| problem.key.clone()).collect();
    let needed = find_needed(repository, &inventory, &survey, &unreadable, options, time);
    problems.extend(unsound(&needed, &late));
    let uploads = store.pending_uploads("").await.unwrap_or_else(|error| {
        problems.push(Problem { key: "uploads".to_owned(), reason: chain(&error) });
        Vec::new()
    });
    let locks = ask_locks(store, &versions, &needed, options, progress, &mut problems).await;
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
    Ok(Gathered { time: time.clone(), versions, uploads, needed, plan, problems })
}

/// One listing, and what was read by it.
struct Looked {
    versions: Vec<ListedVersion<VersionId>>,
    inventory: Inventory,
    late: BTreeSet<BackupId>,
    problems: Vec<Problem>,
}

async fn look(repository: &Repository, progress: &Progress) -> Result<Looked, RetainError> {
    let store = repository.store();
    let versions = list(store, progress).await?;
    let survey = Survey::of(&versions);
    let mut problems = contradictions(store, &versions, &survey.contested()).await;
    let hides = |key: &String| Problem { key: key.clone(), reason: "a delete marker hides it".to_owned() };
    problems.extend(survey.hidden().iter().map(hides));
    let (names, late) = names(repository, &versions, &mut problems).await;
    let inventory = inventory::read_what_can_be_had(repository, names).await?;
    Ok(Looked { versions, inventory, late, problems })
}

/// What the listing of versions shows to a plain read, and what the catalog shows later: of a
/// backup that ends meanwhile, the entry must not be missed. Those entries are named too.
async fn names(
    repository: &Repository,
    versions: &[ListedVersion<VersionId>],
    problems: &mut Vec<Problem>,
) -> (Names, BTreeSet<BackupId>) {
    let mut names = Names::new(repository.segment_size());
    let mut entries = BTreeSet::new();
    for version in versions.iter().filter(|v| v.is_latest && v.kind == VersionKind::Object) {
        names.add(&version.name, version.size_bytes, version.stored_at);
        if version.name.starts_with(ObjectKey::CATALOG_PREFIX) {
            entries.insert(version.name.as_str());
        }
    }
    let mut late = BTreeSet::new();
    let mut listed = repository.store().list(ObjectKey::CATALOG_PREFIX);
    loop {
        match listed.try_next().await {
            Ok(Some(object)) if entries.contains(object.name.as_str()) => {}
            Ok(Some(object)) => {
                names.add(&object.name, object.stat.size_bytes, object.stat.modified);
                if let Some(ObjectName::Catalog(id)) = ObjectName::parse(&object.name) {
                    late.insert(id);
                }
            }
            Ok(None) => break,
            Err(error) => {
                let key = ObjectKey::CATALOG_PREFIX.to_owned();
                problems.push(Problem { key, reason: chain(&error) });
                break;
            }
        }
    }
    (names, late)
}

/// Backups that are kept and can't be relied on, but for those of which too little was listed.
fn unsound(needed: &Needed, late: &BTreeSet<BackupId>) -> Vec<Problem> {
    let kept: BTreeSet<&BackupId> =
        needed.backups().filter(|(_, kept)| kept.is_some()).map(|(id, _)| id).collect();
    let told = needed.unsound().iter().filter(|(id, _)| kept.contains(id) && !late.contains(id));
    let problem = |(id, why): &(BackupId, Unsound)| {
        match why {
        Unsound::Missing(object) => Problem {
            key: format!("{}{object}", ObjectKey::backup_prefix(id)),
            reason: "it is not there, or not of the size that its catalog entry says: the backup can't be restored, \
                     and stands in for no other"
                .to_owned(),
        },
        Unsound::OfTheFuture => Problem {
            key: ObjectKey::catalog(id).to_string(),
            reason: "it ended in the future, so the database's clock was wrong: the backup stands in for no other"
                .to_owned(),
        },
    }
    };
    told.map(problem).collect()
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
    inventory: &Inventory,
    survey: &Survey<'_>,
    unreadable: &[String],
    options: &RetainOptions,
    time: &RunTime,
) -> Needed {
    // What is hidden is stored all the same, so the listing of versions says what there is.
    let coverage = survey.coverage(repository.segment_size());
    let holdings = Holdings { coverage: &coverage, ..inventory.holdings() };
    needed(Basis { holdings, unreadable, seen: &survey.seen() }, options.policy, time.now)
}

/// Of what was stored more than once, that which does not say the same each time.
async fn contradictions(
    store: &Store,
    versions: &[ListedVersion<VersionId>],
    contested: &[String],
) -> Vec<Problem> {
    let mut found = Vec::new();
    for name in contested {
        let objects = versions.iter().filter(|v| v.name == *name && v.kind == VersionKind::Object);
        let mut first = None;
        for version in objects {
            let content = match store.get_version(name, &version.id, CATALOG_BYTES_MAX).await {
                Ok(content) => blake3::hash(&content),
                // Gone meanwhile: there is one less to disagree.
                Err(error) if error.is_absent() => continue,
                Err(error) => {
                    found.push(Problem { key: name.clone(), reason: chain(&error) });
                    break;
                }
            };
            if *first.get_or_insert(content) != content {
                let reason = "it was stored more than once, with different content".to_owned();
                found.push(Problem { key: name.clone(), reason });
                break;
            }
        }
    }
    found
}

async fn ask_locks(
    store: &Store,
    versions: &[ListedVersion<VersionId>],
    needed: &Needed,
    options: &RetainOptions,
    progress: &Progress,
    problems: &mut Vec<Problem>,
) -> Vec<LockState> {
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
                if failures <= LOCK_FAILURES_TOLD_MAX {
                    problems.push(Problem { key: version.name.clone(), reason: chain(&error) });
                }
                LockState::NotKnown
            }
        };
        if let Some(lock) = locks.get_mut(index) {
            *lock = state;
        }
    }
    if let Some(untold) = failures.checked_sub(LOCK_FAILURES_TOLD_MAX).filter(|untold| *untold > 0) {
        let reason = format!("the locks of {} could not be read either", Count(untold, "version"));
        problems.push(Problem { key: "locks".to_owned(), reason });
    }
    locks
}

/// Why nothing should be deleted at this time.
fn doubt(time: &RunTime, versions: &[ListedVersion<VersionId>], options: &RetainOptions) -> Option<String> {
    if time.is_checked {
        return time.doubt.clone();
    }
    clock_check::doubt_of_silence(versions, time.now, options.policy)
}
