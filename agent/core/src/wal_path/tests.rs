//! Tests of the way through the WAL: across timelines, and where it ends.

use super::*;
use crate::coverage::CoverageBuilder;
use crate::segment::SegmentSize;
use crate::wal_file::WalFile;
use proptest::prelude::*;
use std::collections::BTreeSet;

const MIB: u64 = 1 << 20;

fn tl(number: u32) -> TimelineId {
    TimelineId::new(number).unwrap()
}

fn lsn(bytes: u64) -> Lsn {
    Lsn::new(bytes).unwrap()
}

fn size() -> SegmentSize {
    SegmentSize::new(1 << 20).unwrap()
}

fn coverage(segments: &[(u32, u64)]) -> WalCoverage {
    let mut builder = CoverageBuilder::new(size());
    for (timeline, number) in segments {
        let name = SegmentName::from_number(tl(*timeline), *number, size()).unwrap();
        let stored_at = Timestamp::from_second(i64::try_from(*number).unwrap() * 60).unwrap();
        builder.add(WalFile::Segment(name), 10, stored_at);
    }
    builder.finish()
}

/// 1, left for 2 in the middle of segment 5, left for 3 at the border of 8 and 9.
fn history() -> TimelineHistory {
    let text = format!("1\t{}\tx\n2\t{}\tx\n", lsn(5 * MIB + 100), lsn(9 * MIB));
    TimelineHistory::parse(tl(3), text.as_bytes()).unwrap()
}

fn names(path: &WalPath) -> Vec<(u32, u64, u64)> {
    let number = |name: SegmentName| name.number(size()).unwrap();
    path.ranges.iter().map(|r| (r.first.timeline().get(), number(r.first), number(r.last))).collect()
}

fn segments(timeline: u32, numbers: std::ops::RangeInclusive<u64>) -> Vec<(u32, u64)> {
    numbers.map(|number| (timeline, number)).collect()
}

#[test]
fn the_segment_of_the_switch_comes_from_the_child() {
    let all = [segments(1, 1..=5), segments(2, 5..=8), segments(3, 9..=11)].concat();
    let path = follow(&coverage(&all), &history(), lsn(2 * MIB + 40), None);
    assert_eq!(names(&path), [(1, 2, 4), (2, 5, 8), (3, 9, 11)]);
    assert_eq!(path.end, Some(lsn(12 * MIB)));
    assert_eq!(path.segments(), 10);
    assert_eq!(path.stored_bytes(), 100);
    assert!(matches!(path.ending, PathEnding::Missing { resumes: None, .. }));
}

#[test]
fn a_path_ends_where_it_was_asked_to() {
    let all = [segments(1, 1..=5), segments(2, 5..=8), segments(3, 9..=11)].concat();
    let path = follow(&coverage(&all), &history(), lsn(2 * MIB), Some(lsn(7 * MIB)));
    assert_eq!(names(&path), [(1, 2, 4), (2, 5, 6)]);
    assert_eq!(path.ending, PathEnding::Complete);
}

#[test]
fn an_end_before_the_switch_is_reached_through_either_timelines_file() {
    let end = Some(lsn(5 * MIB + 50));
    let parent = follow(&coverage(&segments(1, 1..=5)), &history(), lsn(4 * MIB), end);
    assert_eq!(names(&parent), [(1, 4, 5)]);
    let both = [segments(1, 1..=4), segments(2, 5..=5)].concat();
    let child = follow(&coverage(&both), &history(), lsn(4 * MIB), end);
    assert_eq!(names(&child), [(1, 4, 4), (2, 5, 5)]);
    assert_eq!((parent.ending, child.ending), (PathEnding::Complete, PathEnding::Complete));
}

#[test]
fn without_the_childs_first_segment_the_parents_leads_to_the_switch_point_only() {
    let all = [segments(1, 1..=7), segments(2, 6..=8)].concat();
    let path = follow(&coverage(&all), &history(), lsn(4 * MIB), None);
    assert_eq!(names(&path), [(1, 4, 4), (1, 5, 5)]);
    assert_eq!(path.end, Some(lsn(5 * MIB + 100)));
    let PathEnding::Missing { segment, resumes } = path.ending else { panic!("{path:?}") };
    assert_eq!((segment.timeline(), segment.number(size())), (tl(2), Some(5)));
    assert_eq!(resumes.unwrap().number(size()), Some(6));
}

#[test]
fn a_gap_is_told_from_the_end() {
    let all = [segments(1, 1..=3), segments(2, 5..=8)].concat();
    let path = follow(&coverage(&all), &history(), lsn(2 * MIB), None);
    let PathEnding::Missing { segment, resumes } = path.ending else { panic!("{path:?}") };
    assert_eq!((segment.timeline(), segment.number(size())), (tl(1), Some(4)));
    assert_eq!(resumes.unwrap().timeline(), tl(2));
    assert!(path.reaches(lsn(4 * MIB)) && !path.reaches(lsn(4 * MIB + 1)));
    let nothing = follow(&coverage(&[]), &history(), lsn(2 * MIB), None);
    assert_eq!((nothing.end, nothing.segments()), (None, 0));
}

#[test]
fn two_switches_in_one_segment_need_the_newest_timelines_file_only() {
    let text = format!("1\t{}\tx\n2\t{}\tx\n", lsn(5 * MIB + 100), lsn(5 * MIB + 900));
    let history = TimelineHistory::parse(tl(3), text.as_bytes()).unwrap();
    let all = [segments(1, 1..=4), segments(3, 5..=6)].concat();
    let path = follow(&coverage(&all), &history, lsn(2 * MIB), None);
    assert_eq!(names(&path), [(1, 2, 4), (3, 5, 6)]);
}

#[test]
fn a_path_can_be_cut_at_the_time_it_is_needed_for() {
    let all = [segments(1, 1..=5), segments(2, 5..=8), segments(3, 9..=11)].concat();
    let coverage = coverage(&all);
    let path = follow(&coverage, &history(), lsn(2 * MIB), None);
    let cut = path.up_to_time(&coverage, Timestamp::from_second(6 * 60 - 1).unwrap());
    assert_eq!(names(&cut), [(1, 2, 4), (2, 5, 6)]);
}

/// What PostgreSQL's `XLogFileReadAnyTLI` would be given for a segment.
fn postgresql_reads(stored: &BTreeSet<(u32, u64)>, history: &TimelineHistory, number: u64) -> Option<u32> {
    let mut begins: Vec<(u32, u64)> = Vec::new();
    let mut begin = 0;
    for ancestor in history.ancestors() {
        begins.push((ancestor.timeline.get(), begin));
        begin = ancestor.switch_point.get() / MIB;
    }
    begins.push((history.timeline().get(), begin));
    begins
        .into_iter()
        .rev()
        .find(|(t, begin)| *begin <= number && stored.contains(&(*t, number)))
        .map(|(t, _)| t)
}

proptest! {
    /// Replays byte by kibibyte: each byte must come from a file that holds it.
    #[test]
    fn a_complete_path_is_one_that_postgresql_can_replay(
        first in 1u64..6000, second in 1u64..4000,
        start in 0u64..8000, length in 1u64..9000,
        missing in proptest::collection::btree_set((1u32..=3, 0u64..18), 0..8),
    ) {
        let every = (1u32..=3).flat_map(|timeline| (0u64..18).map(move |number| (timeline, number)));
        let stored: BTreeSet<(u32, u64)> = every.filter(|segment| !missing.contains(segment)).collect();
        let (first, second) = (first * 1024, (first + second) * 1024);
        let text = format!("1\t{}\tx\n2\t{}\tx\n", lsn(first), lsn(second));
        let history = TimelineHistory::parse(tl(3), text.as_bytes()).unwrap();
        let coverage = coverage(&stored.iter().copied().collect::<Vec<_>>());
        let (start, end) = (start * 1024 + 1, (start + length) * 1024);
        let path = follow(&coverage, &history, lsn(start), Some(lsn(end)));
        // Never a segment that is not stored.
        for (timeline, from, to) in names(&path) {
            for number in from..=to {
                prop_assert!(stored.contains(&(timeline, number)));
            }
        }
        let mut replayed = true;
        for number in start / MIB..=(end - 1) / MIB {
            // The file that PostgreSQL reads holds the bytes of its own timeline and, up to
            // where that begins, those of its ancestors.
            let last_needed = ((number + 1) * MIB).min(end) - 1;
            let needed = history.timeline_at(lsn(last_needed));
            let read = postgresql_reads(&stored, &history, number);
            replayed &= read.is_some_and(|read| read >= needed.get());
        }
        prop_assert_eq!(path.ending == PathEnding::Complete, replayed, "{:?}", path);
        if replayed {
            prop_assert!(path.reaches(lsn(end)));
        }
    }
}
