//! A repository with versions and locks, in which a [`World`] is archived and expired.

use super::world::{World, object_bytes, size, system};
use crate::catalog::CatalogEntry;
use crate::object_key::ObjectKey;
use crate::object_lock::{LockPolicy, ObjectLock};
use crate::recovery_plan::Holdings;
use crate::retention::{
    Basis, Deletions, Inputs, ListedVersion, LockState, ObjectName, Plan, Policy, Removal, Survey, Unneeded,
    VersionKind, needed, plan,
};
use crate::segment::SegmentName;
use crate::wal_file::WalFile;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stored {
    pub name: String,
    pub id: u64,
    pub marker: bool,
    pub stored_at: Timestamp,
    pub lock: Option<ObjectLock>,
    /// Bytes of it were lost.
    pub truncated: bool,
}

#[derive(Clone, Debug)]
pub struct Repository {
    /// In the order in which they were stored.
    pub versions: Vec<Stored>,
    archived: BTreeSet<String>,
    next: u64,
    pub lock: Option<LockPolicy>,
}

/// One request of a run.
#[derive(Clone, Debug)]
pub enum Step {
    Extend(u64, ObjectLock),
    Heal(u64),
    Entry(Removal, u64),
    Object(Removal, u64),
    Wal(u64),
    Rest(u64),
}

/// A run of expire that has been planned and is being carried out.
#[derive(Clone, Debug)]
pub struct Run {
    pub plan: Plan,
    pub steps: VecDeque<Step>,
    /// Backups whose entries could not be deleted.
    stuck: BTreeSet<String>,
}

impl Repository {
    pub fn new(lock: Option<LockPolicy>) -> Self {
        Self { versions: Vec::new(), archived: BTreeSet::new(), next: 0, lock }
    }

    pub fn put(&mut self, name: &str, stored_at: Timestamp, marker: bool) {
        let lock = self.lock.filter(|_| !marker).map(|policy| policy.lock_at(stored_at));
        self.versions.push(Stored {
            name: name.to_owned(),
            id: self.next,
            marker,
            stored_at,
            lock,
            truncated: false,
        });
        self.next += 1;
    }

    fn put_once(&mut self, key: &ObjectKey, stored_at: Timestamp) {
        if self.archived.insert(key.to_string()) {
            self.put(key.as_str(), stored_at, false);
        }
    }

    /// Stores what the cluster has stored by now.
    pub fn archive(&mut self, world: &World) {
        for (timeline, history) in &world.histories {
            let file = WalFile::History(*timeline);
            assert_eq!(history.timeline(), *timeline);
            self.put_once(&ObjectKey::wal_proof(file), world.now);
            self.put_once(&ObjectKey::wal(file), world.now);
        }
        let name = |timeline: u32, number| {
            SegmentName::from_number(super::world::tl(timeline), number, size()).unwrap()
        };
        for ((timeline, number), at) in world.segments.iter().filter(|(_, at)| **at <= world.now) {
            self.put_once(&ObjectKey::wal(WalFile::Segment(name(*timeline, *number))), *at);
        }
        for ((timeline, number), at) in &world.partials {
            self.put_once(&ObjectKey::wal(WalFile::Partial(name(*timeline, *number))), *at);
        }
        for (id, at) in world.claimed() {
            self.put_once(&ObjectKey::backup_object(&id, "claim.json").unwrap(), at);
        }
        for entry in &world.catalog {
            for object in ["claim.json", "base-0001.tar.zst", "backup_manifest", "files.json.zst"] {
                self.put_once(&entry.object_key(object).unwrap(), entry.stopped_at());
            }
            let start = SegmentName::containing(entry.timeline(), entry.start_lsn(), size());
            let label = WalFile::BackupLabel(start, 0x28);
            self.put_once(&ObjectKey::wal_proof(label), entry.stopped_at());
            self.put_once(&ObjectKey::wal(label), entry.stopped_at());
            self.put_once(&ObjectKey::catalog(entry.id()), entry.stopped_at());
        }
    }

    fn latest(&self) -> BTreeMap<&str, &Stored> {
        self.versions.iter().map(|version| (version.name.as_str(), version)).collect()
    }

    /// When an object that a plain read finds was stored.
    fn visible(&self) -> BTreeMap<&str, Timestamp> {
        let latest = self.latest().into_iter().filter(|(_, version)| !version.marker);
        latest.map(|(name, version)| (name, version.stored_at)).collect()
    }

    pub fn names(&self) -> BTreeSet<(String, bool)> {
        self.versions.iter().map(|version| (version.name.clone(), version.marker)).collect()
    }

    /// The same without what hides anything.
    pub fn uncovered(&self) -> Self {
        let mut uncovered = self.clone();
        uncovered.versions.retain(|version| !version.marker);
        uncovered
    }

    /// The cluster as `wald restore` sees it.
    pub fn seen_by_restore(&self, world: &World) -> World {
        let visible = self.visible();
        let mut seen = world.clone();
        let stored = |key: ObjectKey| visible.get(key.as_str()).copied();
        seen.catalog.retain(|entry| stored(ObjectKey::catalog(entry.id())).is_some());
        seen.histories.retain(|timeline, _| stored(ObjectKey::wal(WalFile::History(*timeline))).is_some());
        let name = |timeline: u32, number| {
            SegmentName::from_number(super::world::tl(timeline), number, size()).unwrap()
        };
        seen.segments = world
            .segments
            .keys()
            .filter_map(|(timeline, number)| {
                let key = ObjectKey::wal(WalFile::Segment(name(*timeline, *number)));
                Some(((*timeline, *number), stored(key)?))
            })
            .collect();
        seen
    }

    /// The cluster as `wald restore` would really bring it back: without damaged backups.
    pub fn restorable(&self, world: &World) -> World {
        let mut seen = self.seen_by_restore(world);
        let latest = self.latest();
        seen.catalog.retain(|entry| {
            ["base-0001.tar.zst", "backup_manifest", "files.json.zst"].iter().all(|object| {
                let key = entry.object_key(object).unwrap();
                latest.get(key.as_str()).is_some_and(|version| !version.marker && !version.truncated)
            })
        });
        seen
    }

    pub fn listing(&self) -> Vec<ListedVersion<u64>> {
        let latest = self.latest();
        let listed = |version: &Stored| ListedVersion {
            name: version.name.clone(),
            id: version.id,
            is_latest: latest[version.name.as_str()].id == version.id,
            kind: if version.marker { VersionKind::DeleteMarker } else { VersionKind::Object },
            size_bytes: object_bytes(&version.name) - u64::from(version.truncated),
            stored_at: version.stored_at,
        };
        self.versions.iter().map(listed).collect()
    }

    /// What `wald expire` would do.
    pub fn plan(&self, world: &World, policy: Policy) -> Run {
        let versions = self.listing();
        let survey = Survey::of(&versions);
        let (coverage, seen, hidden) = (survey.coverage(size()), survey.seen(), survey.hidden());
        let readable = self.seen_by_restore(world);
        let holdings = Holdings {
            system_id: system(),
            catalog: &readable.catalog,
            histories: &readable.histories,
            coverage: &coverage,
        };
        let found = needed(Basis { holdings, unreadable: &hidden, seen: &seen }, policy, world.now);
        let state = |version: &Stored| version.lock.map_or(LockState::Free, LockState::Held);
        let locks: Vec<LockState> = self.versions.iter().map(state).collect();
        let (lock, now) = (self.lock, world.now);
        let plan =
            plan(Inputs { needed: &found, versions: &versions, locks: &locks, uploads: &[], lock, now });
        let id = |index: usize| versions[index].id;
        let Deletions { entries, objects, wal, rest } = plan.delete.clone();
        let steps = plan
            .extend
            .iter()
            .map(|extension| Step::Extend(id(extension.version), extension.to))
            .chain(plan.heal.iter().map(|index| Step::Heal(id(*index))))
            .chain(entries.into_iter().map(|removal| Step::Entry(removal.clone(), id(removal.version))))
            .chain(objects.into_iter().map(|removal| Step::Object(removal.clone(), id(removal.version))))
            .chain(wal.into_iter().map(|removal| Step::Wal(id(removal.version))))
            .chain(rest.into_iter().map(|removal| Step::Rest(id(removal.version))))
            .collect();
        Run { plan, steps, stuck: BTreeSet::new() }
    }

    fn delete(&mut self, id: u64, now: Timestamp) -> bool {
        let held = |version: &Stored| version.lock.is_some_and(|lock| lock.until > now);
        match self.versions.iter().position(|version| version.id == id) {
            Some(index) if held(&self.versions[index]) => false,
            Some(index) => {
                self.versions.remove(index);
                true
            }
            None => true,
        }
    }

    /// Carries out the next request of a run; false after the last.
    pub fn step(&mut self, run: &mut Run, now: Timestamp) -> bool {
        let backup = |removal: &Removal| match &removal.why {
            Unneeded::ExpiredBackup { backup } => backup.to_string(),
            other => panic!("{other:?}"),
        };
        match run.steps.pop_front() {
            None => return false,
            Some(Step::Extend(id, to)) => {
                if let Some(version) = self.versions.iter_mut().find(|version| version.id == id) {
                    assert!(!version.marker);
                    // The repository itself never makes a lock weaker or shorter.
                    version.lock = Some(version.lock.map_or(to, |lock| lock.joined(to)));
                }
            }
            Some(Step::Heal(id) | Step::Rest(id)) => {
                self.delete(id, now);
            }
            Some(Step::Entry(removal, id)) => {
                if !self.delete(id, now) {
                    run.stuck.insert(backup(&removal));
                }
            }
            Some(Step::Object(removal, id)) => {
                if !run.stuck.contains(&backup(&removal)) {
                    self.delete(id, now);
                }
            }
            Some(Step::Wal(id)) => {
                if run.stuck.is_empty() {
                    self.delete(id, now);
                }
            }
        }
        true
    }

    /// Plans and carries out as the program does: once more after hidden entries came to light.
    pub fn expire(&mut self, world: &World, policy: Policy) -> Plan {
        let mut run = self.plan(world, policy);
        while self.step(&mut run, world.now) {}
        if run.plan.refusal.is_some() && !run.plan.heal.is_empty() {
            run = self.plan(world, policy);
            while self.step(&mut run, world.now) {}
        }
        run.plan
    }

    /// The name of some object that a reader could miss.
    pub fn pick(&self, number: u16) -> Option<String> {
        let known = |name: &&str| ObjectName::parse(name).is_some_and(|name| name != ObjectName::Identity);
        let names: Vec<&str> = self.visible().into_keys().filter(known).collect();
        let index = usize::from(number).checked_rem(names.len())?;
        Some(names[index].to_owned())
    }
}

/// Whether each backup of the catalog can be made consistent.
pub fn whole_backups(world: &World) -> BTreeSet<String> {
    use crate::target::{RecoveryTarget, TimelineChoice};
    let coverage = world.coverage();
    let whole = |entry: &&CatalogEntry| {
        let (backup, now) = (Some(entry.id().clone()), world.now);
        let holdings = world.holdings(&coverage);
        super::world::restore(holdings, RecoveryTarget::Immediate, TimelineChoice::Current, backup, now)
            .is_ok()
    };
    world.catalog.iter().filter(whole).map(|entry| entry.id().to_string()).collect()
}
