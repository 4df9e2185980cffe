//! What the repository must hold for a promotion to cost no recovery target: no gap on the
//! standby's timeline, and no sign that the next timeline is taken.
//!
//! The last segments may be missing: the old primary archives them while it is stopped, or its
//! successor's operator does afterwards. That is told apart from a gap.

use crate::catalog::CatalogEntry;
use crate::coverage::WalCoverage;
use crate::history::TimelineHistory;
use crate::lsn::Lsn;
use crate::segment::SegmentName;
use crate::timeline::TimelineId;
use jiff::Timestamp;
use std::collections::BTreeMap;

/// So many of the newest segments may be on their way without being a gap: what an archiver
/// that works well has in flight, with room to spare.
pub const TAIL_SEGMENTS_MAX: u64 = 16;

/// What there is to look at.
#[derive(Clone, Copy, Debug)]
pub struct Archive<'a> {
    /// The WAL.
    pub coverage: &'a WalCoverage,
    /// The histories.
    pub histories: &'a BTreeMap<TimelineId, TimelineHistory>,
    /// The backups, oldest first.
    pub catalog: &'a [CatalogEntry],
}

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ArchiveState {
    /// Segments missing between others, as "first to last".
    pub gaps: Vec<String>,
    /// Whole segments before the position that are not there yet, at the end.
    pub tail: Vec<SegmentName>,
    /// How many those are; `tail` names the first of them only.
    pub tail_count: u64,
    /// When the last segment of the timeline was stored, by the repository's clock.
    pub last_stored_at: Option<Timestamp>,
    /// The first byte after the last archived segment.
    pub end: Option<Lsn>,
    /// Timelines later than the standby's.
    pub later_timelines: Vec<TimelineId>,
}

/// Looks at the archive for a standby that has replayed `timeline` up to `position`.
pub fn look(archive: Archive<'_>, timeline: TimelineId, position: Lsn) -> ArchiveState {
    let Archive { coverage, histories, catalog } = archive;
    let size = coverage.segment_size();
    let number_of = |lsn: Lsn| lsn.get() / u64::from(size.bytes());
    // What is needed begins with the newest backup, or else with what there is.
    let backup = catalog.iter().rev().find(|entry| entry.timeline() == timeline);
    let begin = backup.map(|entry| number_of(entry.start_lsn()));
    let branched = histories
        .get(&timeline)
        .and_then(|history| history.ancestors().last())
        .map(|ancestor| number_of(ancestor.switch_point));
    let stored_first = coverage.ranges(timeline).first().and_then(|range| range.first.number(size));
    // The segment that the position lies in is not whole yet.
    let whole_end = number_of(position);
    let name = |number| SegmentName::from_number(timeline, number, size);
    let last = coverage.last(timeline);
    let mut state = ArchiveState {
        last_stored_at: last.map(|segment| segment.stored_at),
        end: last.and_then(|segment| {
            Lsn::new(segment.number.checked_add(1)?.checked_mul(u64::from(size.bytes()))?)
        }),
        later_timelines: later(coverage, histories, timeline),
        ..ArchiveState::default()
    };
    let Some(first) = begin.or(branched).or(stored_first) else {
        // Nothing is stored and nothing says where it should begin.
        state.tail_count = whole_end;
        return state;
    };
    let mut next = first;
    while next < whole_end {
        if let Some(reached) = coverage.reach(timeline, next) {
            next = reached.saturating_add(1);
            continue;
        }
        // Missing from here on, up to the next stored segment or the end.
        let following = coverage.between(timeline, next, whole_end.saturating_sub(1)).first();
        match following {
            Some(segment) => {
                let (from, to) = (name(next), name(segment.number.saturating_sub(1)));
                if let (Some(from), Some(to)) = (from, to) {
                    state.gaps.push(if from == to { from.to_string() } else { format!("{from} to {to}") });
                }
                next = segment.number;
            }
            None => {
                state.tail_count = whole_end - next;
                state.tail = (next..whole_end).take(32).filter_map(name).collect();
                break;
            }
        }
    }
    state
}

fn later(
    coverage: &WalCoverage,
    histories: &BTreeMap<TimelineId, TimelineHistory>,
    timeline: TimelineId,
) -> Vec<TimelineId> {
    let mut later: Vec<TimelineId> =
        histories.keys().copied().chain(coverage.timelines()).filter(|found| *found > timeline).collect();
    later.sort();
    later.dedup();
    later
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coverage::CoverageBuilder;
    use crate::segment::SegmentSize;
    use crate::wal_file::WalFile;

    fn tl(number: u32) -> TimelineId {
        TimelineId::new(number).unwrap()
    }

    fn coverage(stored: &[(u32, u64)]) -> WalCoverage {
        let mut builder = CoverageBuilder::new(SegmentSize::DEFAULT);
        for (timeline, number) in stored {
            let name = SegmentName::from_number(tl(*timeline), *number, SegmentSize::DEFAULT).unwrap();
            builder.add(WalFile::Segment(name), 1, Timestamp::from_second(100).unwrap());
        }
        builder.finish()
    }

    fn state(stored: &[(u32, u64)], position_segment: u64) -> ArchiveState {
        let coverage = coverage(stored);
        let archive = Archive { coverage: &coverage, histories: &BTreeMap::new(), catalog: &[] };
        let position = Lsn::new(position_segment * u64::from(SegmentSize::DEFAULT.bytes()) + 40).unwrap();
        look(archive, tl(1), position)
    }

    #[test]
    fn an_archive_that_holds_all_whole_segments_has_neither_gap_nor_tail() {
        let state = state(&[(1, 3), (1, 4), (1, 5)], 6);
        assert_eq!((state.gaps.len(), state.tail_count), (0, 0));
        assert_eq!(state.end, Lsn::new(6 * (16 << 20)));
        assert!(state.later_timelines.is_empty());
    }

    #[test]
    fn a_missing_segment_between_others_is_a_gap_and_one_at_the_end_is_the_tail() {
        let state = state(&[(1, 3), (1, 4), (1, 7)], 10);
        assert_eq!(state.gaps, ["000000010000000000000005 to 000000010000000000000006"]);
        assert_eq!(state.tail_count, 2);
        assert_eq!(state.tail.first().map(ToString::to_string).as_deref(), Some("000000010000000000000008"));
    }

    #[test]
    fn segments_beyond_the_position_are_told_by_the_end_of_the_archive() {
        let state = state(&[(1, 3), (1, 4), (1, 5)], 5);
        assert_eq!((state.gaps.len(), state.tail_count), (0, 0));
        assert!(state.end > Lsn::new(5 * (16 << 20) + 40));
    }

    #[test]
    fn a_later_timeline_is_seen_by_its_segments_too() {
        assert_eq!(state(&[(1, 3), (2, 3)], 4).later_timelines, [tl(2)]);
    }

    #[test]
    fn an_empty_archive_lacks_everything() {
        assert_eq!(state(&[], 40).tail_count, 40);
    }
}
