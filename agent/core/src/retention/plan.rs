//! What `wald expire` will do, decided before it does anything.
//!
//! Invariants: what is needed is neither deleted nor less locked than before; a version whose
//! lock has not lapsed, or may not have, is not deleted; a backup goes as a whole, its entry
//! first, and the WAL that leads on from it only after that. So a run may end anywhere, and two
//! may run at once: what is left is a repository in which every backup of the catalog is whole,
//! and another run does the rest. Everything here is named by its index in the listing.

use super::locked::{Locked, WaitsFor};
use super::need::{Need, Pending, Reason, Unneeded};
use super::needed::Needed;
use super::sort::Groups;
use super::survey::Survey;
use super::version::{ListedUpload, ListedVersion, LockState, VersionKind};
use super::{LOCK_SLACK, ObjectName, UPLOAD_AGE_MIN};
use crate::backup_id::BackupId;
use crate::object_lock::{LockPolicy, ObjectLock};
use jiff::Timestamp;
use std::collections::BTreeMap;

/// What a plan is made from.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a, V> {
    /// What is needed.
    pub needed: &'a Needed,
    /// Every version of every object.
    pub versions: &'a [ListedVersion<V>],
    /// The lock of each version, in the same order.
    pub locks: &'a [LockState],
    /// Uploads that never ended.
    pub uploads: &'a [ListedUpload],
    /// How objects shall be locked; not at all, if absent.
    pub lock: Option<LockPolicy>,
    /// The time.
    pub now: Timestamp,
}

/// What will be done, and what stays and why.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    /// Why nothing is deleted, if so.
    pub refusal: Option<Refusal>,
    /// What is needed.
    pub keep: Vec<Kept>,
    /// Locks that end before their object is free to go.
    pub extend: Vec<Extension>,
    /// Delete markers that hide what is needed.
    pub heal: Vec<usize>,
    /// What goes.
    pub delete: Deletions,
    /// What is not needed, and can't go yet.
    pub later: Vec<Later>,
    /// What may belong to something that is under way.
    pub pending: Vec<LeftAlone>,
    /// Uploads to end.
    pub abort: Vec<usize>,
    /// Versions of objects that wald does not know, which are never touched.
    pub unknown: Vec<usize>,
}

/// Deletions, in the order in which they are safe.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Deletions {
    /// Catalog entries: with them the backups cease to exist. Oldest first.
    pub entries: Vec<Removal>,
    /// The other objects of those backups.
    pub objects: Vec<Removal>,
    /// WAL and records of gaps, oldest first; only once every one of `entries` is gone.
    pub wal: Vec<Removal>,
    /// What never belonged to anything that exists: leftovers, trials, old records.
    pub rest: Vec<Removal>,
}

/// A version that is needed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kept {
    /// The version.
    pub version: usize,
    /// What for.
    pub reason: Reason,
    /// Until when, by what is known now.
    pub until: Timestamp,
}

/// A lock to be made longer or stronger.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extension {
    /// The version.
    pub version: usize,
    /// The lock that it has, if one is known.
    pub from: Option<ObjectLock>,
    /// The lock that it gets.
    pub to: ObjectLock,
}

/// A version that goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Removal {
    /// The version.
    pub version: usize,
    /// Why.
    pub why: Unneeded,
}

/// A version that would go if it could.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Later {
    /// The version.
    pub version: usize,
    /// Why it is not needed.
    pub why: Unneeded,
    /// What keeps it.
    pub waits: WaitsFor,
}

/// A version that is left alone for now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeftAlone {
    /// The version.
    pub version: usize,
    /// What may be under way.
    pub pending: Pending,
    /// Until when.
    pub until: Timestamp,
}

/// Why nothing is deleted.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// A catalog entry or a history that can't be understood.
    #[error(
        "{key} can't be understood, so nothing is deleted (locks are extended all the same): \
         see what `wald list` says of it; a newer wald, or another copy of the object, may help"
    )]
    Unreadable {
        /// The object.
        key: String,
    },
    /// Somebody deleted what is needed, by name.
    #[error(
        "{count} delete markers hid what is needed: they are removed, and nothing else is deleted in this run; find \
         out who set them, then run wald expire again"
    )]
    Hidden {
        /// How many.
        count: usize,
    },
    /// What the plan was made from is open to doubt.
    #[error("{reason}")]
    Doubtful {
        /// What is open to doubt, and what to do.
        reason: String,
    },
}

/// The versions whose locks a plan depends on.
pub fn locks_wanted<V>(
    needed: &Needed,
    versions: &[ListedVersion<V>],
    lock: Option<LockPolicy>,
) -> Vec<usize> {
    let survey = Survey::of(versions);
    let depends = |version: &ListedVersion<V>| match need(needed, &survey, version) {
        _ if version.kind == VersionKind::DeleteMarker => false,
        Need::Needed { .. } => lock.is_some(),
        Need::NotNeeded(_) => true,
        Need::Pending { .. } | Need::Unknown => false,
    };
    versions.iter().enumerate().filter(|(_, version)| depends(version)).map(|(index, _)| index).collect()
}

/// The use of a version, which is that of its name: where somebody wrote over an object, the
/// first version is the true one, so all stay or all go.
fn need<V>(needed: &Needed, survey: &Survey<'_>, version: &ListedVersion<V>) -> Need {
    needed.of(&version.name, survey.stored_at(&version.name).unwrap_or(version.stored_at))
}

/// Makes the plan.
pub fn plan<V>(inputs: Inputs<'_, V>) -> Plan {
    let mut plan = Plan::default();
    let mut unneeded = Groups::default();
    let survey = Survey::of(inputs.versions);
    for (index, version) in inputs.versions.iter().enumerate() {
        let marker = version.kind == VersionKind::DeleteMarker;
        match need(inputs.needed, &survey, version) {
            Need::Unknown => plan.unknown.push(index),
            Need::Pending { pending, until } => {
                plan.pending.push(LeftAlone { version: index, pending, until })
            }
            Need::NotNeeded(why) => unneeded.add(index, version, why),
            Need::Needed { .. } if marker && version.is_latest && survey.has_object(&version.name) => {
                plan.heal.push(index);
            }
            Need::Needed { .. } if marker => unneeded.add(index, version, Unneeded::StrayMarker),
            Need::Needed { reason, until } => {
                // What was written over an object that decides is kept, and not for longer than it must.
                if !inputs.needed.is_unreadable(&version.name)
                    || survey.is_first(&version.name, version.stored_at)
                {
                    plan.extend.extend(extension(&inputs, index, until));
                }
                plan.keep.push(Kept { version: index, reason, until });
            }
        }
    }
    // A run may end early: what protects most goes first, and of that what lapses soonest.
    plan.extend.sort_by_key(|extension| {
        let name = inputs.versions.get(extension.version).map(|version| version.name.as_str());
        let is_record = name.and_then(ObjectName::parse).is_some_and(|name| name.is_record());
        (is_record, extension.from.map(|lock| lock.until))
    });
    if let Some(Reason::Unreadable { key }) = inputs.needed.everything() {
        plan.refusal = Some(Refusal::Unreadable { key: key.clone() });
        return plan;
    }
    if !plan.heal.is_empty() {
        plan.refusal = Some(Refusal::Hidden { count: plan.heal.len() });
        return plan;
    }
    plan.abort = aborts(&inputs);
    plan.remove(&inputs, unneeded);
    plan
}

/// The lock that a needed version is to get, if it has less than it needs.
fn extension<V>(inputs: &Inputs<'_, V>, version: usize, until: Timestamp) -> Option<Extension> {
    let until = until.min(inputs.needed.lock_end_max());
    let wanted = ObjectLock { mode: inputs.lock?.mode, until };
    let from = match inputs.locks.get(version) {
        Some(LockState::Held(lock)) if lock.covers(&wanted) => return None,
        Some(LockState::Held(lock)) => Some(*lock),
        Some(LockState::Free | LockState::NotKnown) | None => None,
    };
    let longer = until.saturating_add(LOCK_SLACK).unwrap_or(Timestamp::MAX);
    // S3 keeps whole milliseconds at best; whole seconds read back as they were written.
    let whole = Timestamp::from_second(longer.as_second().saturating_add(1)).unwrap_or(Timestamp::MAX);
    let wanted = ObjectLock { until: whole, ..wanted };
    Some(Extension { version, from, to: from.map_or(wanted, |from| from.joined(wanted)) })
}

fn aborts<V>(inputs: &Inputs<'_, V>) -> Vec<usize> {
    let old = |upload: &ListedUpload| {
        let until = upload.begun.saturating_add(UPLOAD_AGE_MIN).unwrap_or(Timestamp::MAX);
        until <= inputs.now && ObjectName::parse(&upload.name).is_some()
    };
    inputs.uploads.iter().enumerate().filter(|(_, upload)| old(upload)).map(|(index, _)| index).collect()
}

impl Plan {
    /// Takes all deletions out of the plan.
    pub fn refuse(&mut self, refusal: Refusal) {
        self.refusal = Some(refusal);
        self.delete = Deletions::default();
        self.abort.clear();
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.extend.is_empty() && self.heal.is_empty() && self.abort.is_empty() && self.delete.len() == 0
    }

    fn remove<V>(&mut self, inputs: &Inputs<'_, V>, mut unneeded: Groups) {
        let locks: Vec<Locked> = inputs
            .versions
            .iter()
            .zip(inputs.locks)
            .map(|(version, lock)| Locked::of(version.kind, *lock, inputs.now))
            .collect();
        let locked = |index: usize| locks.get(index).copied().unwrap_or(Locked::Unknown);
        unneeded.sort(inputs.versions);
        let mut waiting: BTreeMap<BackupId, Option<Timestamp>> = BTreeMap::new();
        for (backup, group) in unneeded.backups {
            match group.iter().map(|removal| locked(removal.version)).max() {
                None | Some(Locked::No) => self.remove_backup(inputs, group),
                Some(lock) => {
                    let waits = WaitsFor::Backup(backup.clone(), lock.until());
                    self.later.extend(group.into_iter().map(|Removal { version, why }| {
                        let waits = locked(version).waits().unwrap_or_else(|| waits.clone());
                        Later { version, why, waits }
                    }));
                    waiting.insert(backup, lock.until());
                }
            }
        }
        let guards = inputs.needed.guards(&waiting.keys().collect());
        let guarded = |segment| {
            let backup = guards.backup_for(segment)?;
            Some(WaitsFor::Backup(backup.clone(), waiting.get(backup).copied().flatten()))
        };
        for (segment, Removal { version, why }) in unneeded.wal {
            match locked(version).waits().or_else(|| guarded(segment)) {
                Some(waits) => self.later.push(Later { version, why, waits }),
                None => self.delete.wal.push(Removal { version, why }),
            }
        }
        for Removal { version, why } in unneeded.rest {
            match locked(version).waits() {
                Some(waits) => self.later.push(Later { version, why, waits }),
                None => self.delete.rest.push(Removal { version, why }),
            }
        }
    }

    fn remove_backup<V>(&mut self, inputs: &Inputs<'_, V>, group: Vec<Removal>) {
        let is_entry = |removal: &Removal| {
            let name = inputs.versions.get(removal.version).map(|version| version.name.as_str());
            matches!(name.and_then(ObjectName::parse), Some(ObjectName::Catalog(_)))
        };
        let (entries, objects): (Vec<_>, Vec<_>) = group.into_iter().partition(is_entry);
        self.delete.entries.extend(entries);
        self.delete.objects.extend(objects);
    }
}

impl Deletions {
    /// Number of versions that go.
    pub fn len(&self) -> usize {
        self.entries.len() + self.objects.len() + self.wal.len() + self.rest.len()
    }

    /// Whether nothing goes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of them, in their order.
    pub fn iter(&self) -> impl Iterator<Item = &Removal> {
        self.entries.iter().chain(&self.objects).chain(&self.wal).chain(&self.rest)
    }
}
