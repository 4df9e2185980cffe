//! Which recovery targets each finding costs.

use super::presence::Hole;
use crate::inventory::Inventory;
use jiff::Timestamp;
use std::collections::BTreeMap;
use wald_core::coverage::WalCoverage;
use wald_core::ledger::{Damage, Finding};
use wald_core::lost_targets::{LostTargets, Undamaged, Unusable};
use wald_core::lsn::Lsn;
use wald_core::object_key::WalObject;
use wald_core::retention::ObjectName;
use wald_core::segment::SegmentSize;
use wald_core::timeline::TimelineId;
use wald_core::wal_file::WalFile;

/// Segments that are filled in at most: a hole beyond that is told as such.
const FILLED_MAX: u64 = 1_000_000;
/// Findings whose losses are worked out one by one; beyond them only all together.
const WORKED_OUT_MAX: usize = 200;

/// Works out losses.
pub(super) struct Losses {
    undamaged: Undamaged,
    size: SegmentSize,
}

impl Losses {
    /// Of a repository as it would be without `holes`.
    pub fn new<'h>(inventory: &Inventory, holes: impl IntoIterator<Item = &'h Hole>) -> Self {
        let coverage = &inventory.coverage;
        let missing = holes.into_iter().flat_map(|hole| {
            let stored_at = stored_about(coverage, hole);
            let last = hole.last.min(hole.first.saturating_add(FILLED_MAX));
            (hole.first..=last).map(move |number| (hole.timeline, number, stored_at))
        });
        let undamaged = Undamaged {
            catalog: inventory.catalog.clone(),
            histories: inventory.histories.clone(),
            coverage: coverage.with(missing),
        };
        Self { undamaged, size: coverage.segment_size() }
    }

    /// Fills in what each finding costs by itself; gives what all of them cost together.
    pub fn work_out(&self, findings: &mut [Finding]) -> Vec<LostTargets> {
        let mut all = Unusable::default();
        let mut lone: BTreeMap<TimelineId, Vec<LostTargets>> = BTreeMap::new();
        for (index, finding) in findings.iter_mut().enumerate() {
            let unusable =
                if finding.damage.is_loss() { self.unusable(finding) } else { Unusable::default() };
            all.add(&unusable);
            finding.lost = if index < WORKED_OUT_MAX { self.undamaged.lost(&unusable) } else { Vec::new() };
            for timeline in &unusable.histories {
                if !self.undamaged.histories.contains_key(timeline) {
                    let lost = self.without_history(*timeline);
                    finding.lost.clone_from(&lost);
                    lone.insert(*timeline, lost);
                }
            }
        }
        let mut together = self.undamaged.lost(&all);
        together.extend(lone.into_values().flatten());
        together
    }

    fn unusable(&self, finding: &Finding) -> Unusable {
        let mut unusable = Unusable::default();
        match ObjectName::parse(&finding.object) {
            Some(ObjectName::Wal(WalObject::File(WalFile::Segment(first)))) => {
                let count = match &finding.damage {
                    Damage::MissingWal { segments, .. } => (*segments).min(FILLED_MAX),
                    _ => 1,
                };
                if let Some(number) = first.number(self.size) {
                    let numbers = number..number.saturating_add(count);
                    unusable.segments.extend(numbers.map(|number| (first.timeline(), number)));
                }
            }
            Some(ObjectName::Wal(
                WalObject::File(WalFile::History(timeline)) | WalObject::Proof(WalFile::History(timeline)),
            )) => {
                unusable.histories.insert(timeline);
            }
            Some(ObjectName::Catalog(id) | ObjectName::BackupObject(id)) => {
                unusable.backups.insert(id);
            }
            _ => {}
        }
        unusable
    }

    /// The history that leads to a timeline is not known: its own WAL is what is lost, as far as no backup
    /// of the timeline itself leads to it.
    fn without_history(&self, timeline: TimelineId) -> Vec<LostTargets> {
        let own = |lost: &LostTargets| {
            let backups = self.undamaged.catalog.iter().filter(|entry| entry.timeline() == timeline);
            !backups.into_iter().any(|entry| entry.stop_lsn() <= lost.from_lsn)
        };
        let ranges = self.undamaged.coverage.ranges(timeline).into_iter();
        let lost = ranges.filter_map(|range| {
            Some(LostTargets {
                timeline,
                from_lsn: range.first.start(self.size).unwrap_or(Lsn::MIN),
                until_lsn: range.last.next(self.size)?.start(self.size)?,
                from_time: range.first_stored_at,
                until_time: range.last_stored_at,
            })
        });
        lost.filter(own).collect()
    }
}

/// When the missing segments were likely stored, had they been: with the one after them.
fn stored_about(coverage: &WalCoverage, hole: &Hole) -> Timestamp {
    let after = hole.last.checked_add(1).and_then(|number| coverage.segment(hole.timeline, number));
    let before = hole.first.checked_sub(1).and_then(|number| coverage.segment(hole.timeline, number));
    after.or(before).map_or(Timestamp::UNIX_EPOCH, |segment| segment.stored_at)
}
