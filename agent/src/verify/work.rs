//! What is read, cut into jobs.

use super::backup_job::BackupJob;
use super::lanes::Job;
use super::ledgers::Known;
use super::presence::{backup_objects, stored_at};
use super::wal_run::WalRun;
use crate::inventory::Inventory;
use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use wald_core::backup_id::BackupId;
use wald_core::catalog::CatalogEntry;
use wald_core::ledger::{Object, Objects};
use wald_core::object_key::{ObjectKey, WalObject};
use wald_core::recovery_window::history_of;
use wald_core::retention::{Need, Needed};
use wald_core::segment::SegmentName;
use wald_core::timeline::TimelineId;
use wald_core::wal_file::WalFile;

/// Segments in one job: enough that the few that are read twice between two jobs don't count, few
/// enough that all lanes have work.
const RUN_SEGMENTS_MAX: usize = 64;

/// The objects that content can be proven of: WAL that is needed or may be, and what belongs to
/// backups that are kept. With `only`, those of one backup.
pub(super) fn candidates<'a>(
    objects: &'a Objects,
    needed: &Needed,
    kept: &[&CatalogEntry],
    only: Option<&CatalogEntry>,
    size: wald_core::segment::SegmentSize,
) -> Vec<&'a Object> {
    let backups = kept.iter().filter(|entry| only.is_none_or(|only| only.id() == entry.id()));
    let listed: HashSet<(String, u64)> = backups.flat_map(|entry| backup_objects(entry)).collect();
    let of_only = |file: WalFile| {
        let Some(only) = only else { return true };
        let ends = [only.start_lsn(), only.stop_lsn()].map(|lsn| lsn.get() / u64::from(size.bytes()));
        let number = file.segment().and_then(|segment| segment.number(size));
        let [first, last] = ends;
        file.timeline() == only.timeline() && number.is_some_and(|number| (first..=last).contains(&number))
    };
    let proven = |object: &&Object| match WalObject::parse(&object.name) {
        Some(WalObject::File(file)) => {
            of_only(file)
                && matches!(
                    needed.of(&object.name, stored_at(object)),
                    Need::Needed { .. } | Need::Pending { .. }
                )
        }
        // Read together with what it proves.
        Some(WalObject::Proof(_)) => false,
        // An object of another size is a finding already.
        None => listed.contains(&(object.name.to_string(), object.bytes)),
    };
    objects.iter().filter(proven).collect()
}

/// Makes jobs of the chosen objects.
pub(super) struct Work<'a> {
    pub objects: &'a Objects,
    pub inventory: &'a Inventory,
    pub known: &'a Known,
    pub needed: &'a Needed,
}

impl Work<'_> {
    /// Backups first, the newest first and their largest parts first: those take longest.
    pub fn jobs(&self, chosen: &[&Object]) -> VecDeque<Job> {
        let names: HashSet<&str> = chosen.iter().map(|object| &*object.name).collect();
        let mut jobs = VecDeque::new();
        for entry in self.inventory.catalog.iter().rev() {
            self.backup(entry, &names, &mut jobs);
        }
        let mut segments: BTreeMap<TimelineId, BTreeSet<u64>> = BTreeMap::new();
        let mut others = Vec::new();
        for object in chosen {
            match WalObject::parse(&object.name) {
                Some(WalObject::File(WalFile::Segment(name))) => {
                    let number = name.number(self.inventory.coverage.segment_size());
                    segments.entry(name.timeline()).or_default().extend(number);
                }
                Some(WalObject::File(file @ WalFile::Partial(_))) => others.push(Job::Partial(file)),
                Some(WalObject::File(file)) => others.push(Job::Bare(file)),
                Some(WalObject::Proof(_)) | None => {}
            }
        }
        for (timeline, numbers) in segments {
            self.wal(timeline, &numbers.into_iter().collect::<Vec<_>>(), &mut jobs);
        }
        jobs.extend(others);
        jobs
    }

    fn backup(&self, entry: &CatalogEntry, names: &HashSet<&str>, jobs: &mut VecDeque<Job>) {
        let chosen =
            |name: &str| names.contains(format!("{}{name}", ObjectKey::backup_prefix(entry.id())).as_str());
        let facts = entry.facts();
        let mut parts: Vec<_> =
            facts.parts.iter().enumerate().filter(|(_, part)| chosen(&part.name)).collect();
        let lists = chosen(&facts.manifest.name) || chosen(&facts.file_list.name);
        if parts.is_empty() && !lists {
            return;
        }
        let job = BackupJob::new(entry.clone());
        parts.sort_by_key(|(_, part)| std::cmp::Reverse(part.stored_bytes));
        jobs.push_back(Job::Lists(job.clone()));
        jobs.extend(parts.into_iter().map(|(index, _)| Job::Part(job.clone(), index)));
    }

    fn wal(&self, timeline: TimelineId, numbers: &[u64], jobs: &mut VecDeque<Job>) {
        let size = self.inventory.coverage.segment_size();
        for run in numbers.chunk_by(|a, b| a + 1 == *b) {
            for (index, numbers) in run.chunks(RUN_SEGMENTS_MAX).enumerate() {
                let name = |number: &u64| SegmentName::from_number(timeline, *number, size);
                let segments: Vec<SegmentName> = numbers.iter().filter_map(name).collect();
                let (Some(first), Some(last)) = (numbers.first(), numbers.last()) else { continue };
                let tail_until = self.inventory.coverage.reach(timeline, *last).unwrap_or(*last);
                // The job before reads on into this one; but only here the first record's pointer back is seen.
                let (carry, lead_in) = match first.checked_sub(1).filter(|_| index > 0) {
                    None => self.before(timeline, *first),
                    Some(before) => (None, SegmentName::from_number(timeline, before, size)),
                };
                let keep_end = tail_until == *last;
                jobs.push_back(Job::Wal(WalRun { carry, lead_in, segments, tail_until, keep_end }));
            }
        }
    }

    /// What is known of the end of the segment before, or else that segment.
    fn before(
        &self,
        timeline: TimelineId,
        number: u64,
    ) -> (Option<wald_core::wal_record::Carry>, Option<SegmentName>) {
        let coverage = &self.inventory.coverage;
        let size = coverage.segment_size();
        let Some(before) = number.checked_sub(1) else { return (None, None) };
        let history = history_of(timeline, &self.inventory.histories);
        let begin = history.stretches().last().and_then(|own| own.begin);
        let begins_here = begin.is_some_and(|begin| begin.get() / u64::from(size.bytes()) == number);
        let parent = history.ancestors().last().map(|parent| parent.timeline);
        let on = if begins_here { parent.unwrap_or(timeline) } else { timeline };
        let Some(segment) = SegmentName::from_number(on, before, size) else { return (None, None) };
        let object = ObjectKey::wal(WalFile::Segment(segment)).to_string();
        let walk = self.known.walks.get(object.as_str());
        let same =
            |version: &str| self.objects.get(&object).is_some_and(|object| *object.version == *version);
        let carry = walk.filter(|walk| same(&walk.version));
        let carry = carry.and_then(|walk| serde_json::from_value(walk.carry.clone()).ok());
        // What is not needed is not read: its damage is none of anybody's business.
        let used = |object: &Object| {
            matches!(
                self.needed.of(&object.name, stored_at(object)),
                Need::Needed { .. } | Need::Pending { .. }
            )
        };
        let stored = coverage.segment(on, before).is_some() && self.objects.get(&object).is_some_and(used);
        let lead_in = (carry.is_none() && stored).then_some(segment);
        (carry, lead_in)
    }
}

/// The entry of the backup that alone is asked for.
pub(super) fn entry_of<'a>(inventory: &'a Inventory, id: &BackupId) -> Option<&'a CatalogEntry> {
    inventory.catalog.iter().find(|entry| entry.id() == id)
}
