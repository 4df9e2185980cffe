//! What should be there and is not, or is not as it should be, by the listing alone.
//!
//! What is needed is said by `core::retention`, as for `wald expire`; so nothing that expire may
//! delete is ever missed here.

use super::survey::Odd;
use crate::inventory::Inventory;
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeSet;
use wald_core::catalog::CatalogEntry;
use wald_core::ledger::{Damage, Object, Objects};
use wald_core::lsn::Lsn;
use wald_core::object_key::{ObjectKey, WalObject};
use wald_core::recovery_window::{Restorable, history_of, restorable};
use wald_core::retention::{Need, Needed, ObjectName};
use wald_core::segment::SegmentName;
use wald_core::timeline::TimelineId;
use wald_core::wal_file::WalFile;
use wald_core::wal_path::follow;

/// What was written so long before is stored by now, or nobody is going to store it.
const ON_ITS_WAY: SignedDuration = SignedDuration::from_hours(24);

/// Something is wrong with an object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Found {
    pub object: String,
    pub damage: Damage,
}

/// Segments of a timeline that a recovery needs and that are not stored, by number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Hole {
    pub timeline: TimelineId,
    pub first: u64,
    pub last: u64,
}

/// What presence is judged by.
pub(super) struct Presence<'a> {
    pub objects: &'a Objects,
    pub odd: &'a [Odd],
    pub inventory: &'a Inventory,
    pub needed: &'a Needed,
    /// Objects that an earlier ledger knows, and that are not there now.
    pub gone: &'a std::collections::BTreeMap<Box<str>, Object>,
    pub now: Timestamp,
}

impl<'a> Presence<'a> {
    /// Everything that is wrong, by name.
    pub fn findings(&self) -> Vec<Found> {
        let mut found = Vec::new();
        self.odd_ones(&mut found);
        self.unreadable(&mut found);
        self.wal(&mut found);
        self.histories(&mut found);
        self.proofs(&mut found);
        for entry in self.kept_backups() {
            self.backup(entry, &mut found);
            self.astray(entry, &mut found);
        }
        if self.inventory.catalog.is_empty() && self.inventory.unreadable.is_empty() {
            let needed_by = "every recovery, for there is no backup,".to_owned();
            found.push(Found {
                object: ObjectKey::CATALOG_PREFIX.to_owned(),
                damage: Damage::Missing { needed_by },
            });
        }
        self.gone(&mut found);
        found.sort_by(|a, b| a.object.cmp(&b.object));
        // The first word counts: that it was deleted says more than that it is not there.
        found.dedup_by(|later, first| later.object == first.object && is_absence(&later.damage));
        found
    }

    /// The backups that are not about to be removed.
    pub fn kept_backups(&self) -> impl Iterator<Item = &'a CatalogEntry> {
        let kept: BTreeSet<_> = match self.needed.everything() {
            Some(_) => self.needed.backups().map(|(id, _)| id.clone()).collect(),
            None => {
                self.needed.backups().filter(|(_, kept)| kept.is_some()).map(|(id, _)| id.clone()).collect()
            }
        };
        self.inventory.catalog.iter().filter(move |entry| kept.contains(entry.id()))
    }

    fn odd_ones(&self, found: &mut Vec<Found>) {
        for Odd { name, versions, hidden } in self.odd {
            let stored_at = self.objects.get(name).map_or(self.now, stored_at);
            // A hidden entry is not in the catalog, so its backup does not seem to be needed.
            let entry = matches!(ObjectName::parse(name), Some(ObjectName::Catalog(_)));
            let counts = match self.needed.of(name, stored_at) {
                Need::Needed { .. } | Need::Pending { .. } => true,
                Need::NotNeeded(_) => entry && *hidden,
                Need::Unknown => false,
            };
            if !counts {
                continue;
            }
            let count = u64::try_from(versions.len()).unwrap_or(u64::MAX);
            let damage = if *hidden { Damage::Deleted } else { Damage::Overwritten { versions: count } };
            found.push(Found { object: name.to_string(), damage });
        }
    }

    fn unreadable(&self, found: &mut Vec<Found>) {
        for unreadable in &self.inventory.unreadable {
            let damage = Damage::Unreadable { problem: unreadable.reason.clone() };
            found.push(Found { object: unreadable.key.clone(), damage });
        }
    }

    fn wal(&self, found: &mut Vec<Found>) {
        let size = self.inventory.coverage.segment_size();
        let object = |timeline, number| {
            let name = SegmentName::from_number(timeline, number, size)?;
            Some(ObjectKey::wal(WalFile::Segment(name)).to_string())
        };
        for Hole { timeline, first, last } in self.holes() {
            let names = object(timeline, first).zip(object(timeline, last));
            let Some((first_object, last_object)) = names else { continue };
            let damage = Damage::MissingWal { last: last_object, segments: last - first + 1 };
            found.push(Found { object: first_object, damage });
        }
    }

    /// What is missing on the way from a kept backup to the end of its line, in order and disjoint.
    pub fn holes(&self) -> BTreeSet<Hole> {
        let mut holes = BTreeSet::new();
        for entry in self.kept_backups() {
            self.holes_of(entry, &mut holes);
        }
        let coverage = &self.inventory.coverage;
        let size = u64::from(coverage.segment_size().bytes());
        for (line, floor, _) in self.needed.lines() {
            let history = history_of(line, &self.inventory.histories);
            let stretches = history.stretches();
            for (index, stretch) in stretches.iter().enumerate() {
                let first = stretch.begin.map_or(0, |begin| begin.get() / size).max(floor);
                let next_begin = stretches.get(index + 1).and_then(|next| next.begin);
                let last = match next_begin {
                    // The segment in which the next timeline begins is the next one's.
                    Some(begin) if self.has_wal_after(&stretches, index) || self.has_settled(line) => {
                        (begin.get() / size).checked_sub(1)
                    }
                    _ => coverage.last(stretch.timeline).map(|last| last.number),
                };
                if let Some(last) = last {
                    self.holes_between(stretch.timeline, first, last, &mut holes);
                }
            }
        }
        merged(holes)
    }

    /// A backup was committed only after its own WAL was stored. So that is required to the backup's end,
    /// whatever else is stored of the timeline or is not.
    fn holes_of(&self, entry: &CatalogEntry, holes: &mut BTreeSet<Hole>) {
        let coverage = &self.inventory.coverage;
        let history = history_of(entry.timeline(), &self.inventory.histories);
        if follow(coverage, &history, entry.start_lsn(), Some(entry.stop_lsn())).reaches(entry.stop_lsn()) {
            return;
        }
        let size = u64::from(coverage.segment_size().bytes());
        let number = |lsn: Lsn| lsn.get() / size;
        let end = entry.stop_lsn().get().saturating_sub(1) / size;
        let stretches = history.stretches();
        for (index, stretch) in stretches.iter().enumerate() {
            let first = stretch.begin.map_or(0, number).max(number(entry.start_lsn()));
            let next_begin = stretches.get(index + 1).and_then(|next| next.begin);
            let last = next_begin.map_or(Some(end), |begin| number(begin).checked_sub(1));
            if let Some(last) = last.map(|last| last.min(end)).filter(|last| first <= *last) {
                self.holes_between(stretch.timeline, first, last, holes);
            }
        }
    }

    /// The WAL of a backup is all there, and yet its history does not lead from its start to its end.
    fn astray(&self, entry: &CatalogEntry, found: &mut Vec<Found>) {
        let (coverage, histories) = (&self.inventory.coverage, &self.inventory.histories);
        let history = history_of(entry.timeline(), histories);
        let mut holes = BTreeSet::new();
        self.holes_of(entry, &mut holes);
        if holes.is_empty() && restorable(entry, coverage, &history) == Restorable::No {
            let (start, stop, timeline) = (entry.start_lsn(), entry.stop_lsn(), entry.timeline());
            let problem =
                format!("no WAL leads from its start {start} to its end {stop} on timeline {timeline}");
            let object = ObjectKey::catalog(entry.id()).to_string();
            found.push(Found { object, damage: Damage::Unreadable { problem } });
        }
    }

    /// Whether the line's last timeline began so long ago that nothing from before can be on its way still.
    fn has_settled(&self, line: TimelineId) -> bool {
        let history = self.objects.get(ObjectKey::wal(WalFile::History(line)).as_str());
        history.is_some_and(|object| self.now.duration_since(stored_at(object)) >= ON_ITS_WAY)
    }

    /// Whether a later timeline of the line has WAL. Until then what is not stored of this one may
    /// still be on its way.
    fn has_wal_after(&self, stretches: &[wald_core::history::Stretch], index: usize) -> bool {
        let later = stretches.iter().skip(index + 1);
        later.into_iter().any(|stretch| self.inventory.coverage.last(stretch.timeline).is_some())
    }

    fn holes_between(&self, timeline: TimelineId, first: u64, last: u64, holes: &mut BTreeSet<Hole>) {
        let mut next = first;
        for segment in self.inventory.coverage.between(timeline, first, last) {
            if segment.number > next {
                holes.insert(Hole { timeline, first: next, last: segment.number - 1 });
            }
            next = segment.number + 1;
        }
        if next <= last {
            holes.insert(Hole { timeline, first: next, last });
        }
    }

    /// A timeline that branched off within what is stored must have its history.
    fn histories(&self, found: &mut Vec<Found>) {
        let inventory = self.inventory;
        let mut used: BTreeSet<TimelineId> = inventory.coverage.timelines().collect();
        used.extend(inventory.catalog.iter().map(CatalogEntry::timeline));
        // Of the oldest one the history may be older than the repository.
        for timeline in used.into_iter().skip(1) {
            let object = ObjectKey::wal(WalFile::History(timeline)).to_string();
            if self.objects.get(&object).is_none() {
                let needed_by = format!("a recovery to timeline {timeline}");
                found.push(Found { object, damage: Damage::Missing { needed_by } });
            }
        }
    }

    /// A proof is stored before its file: long after it the file must be there, and a file must
    /// always have its proof.
    fn proofs(&self, found: &mut Vec<Found>) {
        for object in self.objects.iter() {
            let needed = || matches!(self.needed.of(&object.name, stored_at(object)), Need::Needed { .. });
            let other = match WalObject::parse(&object.name) {
                Some(WalObject::File(file @ (WalFile::History(_) | WalFile::BackupLabel(..)))) => {
                    ObjectKey::wal_proof(file)
                }
                Some(WalObject::Proof(file @ WalFile::History(_)))
                    if self.now.duration_since(stored_at(object)).as_hours() >= 24 =>
                {
                    ObjectKey::wal(file)
                }
                _ => continue,
            };
            if self.objects.get(other.as_str()).is_none() && needed() {
                let damage = Damage::Missing { needed_by: object.name.to_string() };
                found.push(Found { object: other.to_string(), damage });
            }
        }
    }

    fn backup(&self, entry: &CatalogEntry, found: &mut Vec<Found>) {
        for (object, expected) in backup_objects(entry) {
            let damage = match self.objects.get(&object) {
                None => Damage::Missing { needed_by: format!("backup {}", entry.id()) },
                Some(stored) if stored.bytes != expected => Damage::Size { found: stored.bytes, expected },
                Some(_) => continue,
            };
            found.push(Found { object, damage });
        }
    }

    /// What a ledger knows and the listing does not have was deleted. Expire may, in its time.
    fn gone(&self, found: &mut Vec<Found>) {
        let holes = self.holes();
        for object in self.gone.values() {
            // A segment that is part of a hole is told with the hole.
            if is_missed(object, self.needed) && !self.is_in_one(&holes, &object.name) {
                let needed_by = "the recovery window".to_owned();
                found.push(Found { object: object.name.to_string(), damage: Damage::Missing { needed_by } });
            }
        }
    }

    /// Whether an object is a segment in one of these holes.
    pub fn is_in_one(&self, holes: &BTreeSet<Hole>, name: &str) -> bool {
        let Some(WalObject::File(WalFile::Segment(segment))) = WalObject::parse(name) else { return false };
        let Some(number) = segment.number(self.inventory.coverage.segment_size()) else { return false };
        let covers =
            |hole: &Hole| hole.timeline == segment.timeline() && (hole.first..=hole.last).contains(&number);
        holes.iter().any(covers)
    }
}

/// Whether an object that was there and is not there now is needed still.
pub(super) fn is_missed(gone: &Object, needed: &Needed) -> bool {
    match ObjectName::parse(&gone.name) {
        // Without its entry a backup does not seem to be needed; but none leaves inside the window.
        Some(ObjectName::Catalog(id)) => id.began() >= needed.window_begin(),
        Some(ObjectName::Trial | ObjectName::Guarantees | ObjectName::Ledger | ObjectName::Run) | None => {
            false
        }
        Some(_) => matches!(needed.of(&gone.name, stored_at(gone)), Need::Needed { .. }),
    }
}

/// Joins holes that overlap or touch.
fn merged(holes: BTreeSet<Hole>) -> BTreeSet<Hole> {
    let mut joined: Vec<Hole> = Vec::new();
    for hole in holes {
        match joined.last_mut() {
            Some(last) if last.timeline == hole.timeline && hole.first <= last.last.saturating_add(1) => {
                last.last = last.last.max(hole.last);
            }
            _ => joined.push(hole),
        }
    }
    joined.into_iter().collect()
}

fn is_absence(damage: &Damage) -> bool {
    matches!(damage, Damage::Missing { .. })
}

/// When an object was stored.
pub(super) fn stored_at(object: &Object) -> Timestamp {
    Timestamp::from_second(object.stored).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// The objects of a backup that are proven by its catalog entry, with their sizes.
pub(super) fn backup_objects(entry: &CatalogEntry) -> impl Iterator<Item = (String, u64)> {
    let facts = entry.facts();
    let parts = facts.parts.iter().map(|part| (&part.name, part.stored_bytes));
    let lists = [&facts.manifest, &facts.file_list].map(|list| (&list.name, list.stored_bytes));
    let prefix = ObjectKey::backup_prefix(entry.id());
    parts.chain(lists).map(move |(name, bytes)| (format!("{prefix}{name}"), bytes))
}
