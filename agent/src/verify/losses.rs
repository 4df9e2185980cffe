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
    /// Of a repository as it would be without `holes`, and with the WAL that `findings` miss.
    pub fn new<'h>(
        inventory: &Inventory,
        holes: impl IntoIterator<Item = &'h Hole>,
        findings: &[Finding],
    ) -> Self {
        let coverage = &inventory.coverage;
        let gone = findings.iter().filter_map(|finding| gone_segment(finding, coverage));
        let gone: Vec<Hole> = gone.collect();
        let missing = holes.into_iter().copied().chain(gone).flat_map(|hole| {
            let stored_at = stored_about(coverage, &hole);
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
        let mut worked_out = 0;
        for finding in findings.iter_mut() {
            if !finding.damage.is_loss() {
                finding.lost = Some(Vec::new());
                continue;
            }
            let Some(unusable) = self.unusable(finding) else {
                finding.lost = None;
                continue;
            };
            all.add(&unusable);
            let lone_history =
                unusable.histories.iter().find(|timeline| !self.undamaged.histories.contains_key(timeline));
            worked_out += 1;
            finding.lost = match lone_history {
                Some(timeline) => {
                    let lost = self.without_history(*timeline);
                    lone.insert(*timeline, lost.clone());
                    Some(lost)
                }
                None => (worked_out <= WORKED_OUT_MAX).then(|| self.undamaged.lost(&unusable)),
            };
        }
        let mut together = self.undamaged.lost(&all);
        together.extend(lone.into_values().flatten());
        together
    }

    /// What can't be used for it; none where the rest does not tell what would be lost by that.
    fn unusable(&self, finding: &Finding) -> Option<Unusable> {
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
                // Of a backup whose entry is gone or can't be read nothing is known.
                if !self.undamaged.catalog.iter().any(|entry| *entry.id() == id) {
                    return None;
                }
                unusable.backups.insert(id);
            }
            // Recovery never reads it.
            Some(ObjectName::Wal(
                WalObject::File(WalFile::BackupLabel(..)) | WalObject::Proof(WalFile::BackupLabel(..)),
            )) => {}
            // The end of a timeline, or the only backup: more than the listing says.
            _ => return None,
        }
        Some(unusable)
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

/// The segment that a finding is about, if it is not stored and not in a hole by the listing: the last of a
/// timeline, or one that a delete marker hides.
fn gone_segment(finding: &Finding, coverage: &WalCoverage) -> Option<Hole> {
    let gone = matches!(finding.damage, Damage::Missing { .. } | Damage::Deleted);
    match ObjectName::parse(&finding.object).filter(|_| gone)? {
        ObjectName::Wal(WalObject::File(WalFile::Segment(segment))) => {
            let (timeline, number) = (segment.timeline(), segment.number(coverage.segment_size())?);
            coverage.segment(timeline, number).is_none().then_some(Hole {
                timeline,
                first: number,
                last: number,
            })
        }
        _ => None,
    }
}

/// When the missing segments were likely stored, had they been: with the one after them.
fn stored_about(coverage: &WalCoverage, hole: &Hole) -> Timestamp {
    let after = hole.last.checked_add(1).and_then(|number| coverage.segment(hole.timeline, number));
    let before = hole.first.checked_sub(1).and_then(|number| coverage.segment(hole.timeline, number));
    // At the end of a timeline the one before it may be missing too.
    let last = coverage.last(hole.timeline);
    after.or(before).or(last).map_or(Timestamp::UNIX_EPOCH, |segment| segment.stored_at)
}
