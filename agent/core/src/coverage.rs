//! Which WAL segments the repository holds: ranges without gaps, timeline by timeline.
//!
//! Invariants: only full segments count, never a `.partial`; a name that a cluster with this
//! segment size can't have is counted apart and never used. Made from a listing, in memory of
//! a fixed size per segment, so that 100,000 objects (1.5 TiB of WAL) take milliseconds.
//! A listing says what is stored, not that it is sound: that is proven when it is read.

use crate::segment::{SegmentName, SegmentSize};
use crate::timeline::TimelineId;
use crate::wal_file::WalFile;
use jiff::Timestamp;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// A stored segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoredSegment {
    /// Its number in the log.
    pub number: u64,
    /// Size of the object.
    pub stored_bytes: u64,
    /// When it was stored, by the repository's clock. All that is in the segment was written
    /// before, give or take the difference of two clocks.
    pub stored_at: Timestamp,
}

/// Consecutive segments of one timeline.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct SegmentRange {
    /// The first segment.
    pub first: SegmentName,
    /// The last segment.
    pub last: SegmentName,
    /// How many there are.
    pub segments: u64,
    /// Size of their objects.
    pub stored_bytes: u64,
    /// When the first one was stored.
    pub first_stored_at: Timestamp,
    /// When the last one was stored.
    pub last_stored_at: Timestamp,
}

/// Segments that are missing between two ranges.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Gap {
    /// The first missing segment.
    pub first: SegmentName,
    /// The last missing segment.
    pub last: SegmentName,
    /// How many are missing.
    pub segments: u64,
}

#[derive(Clone, Debug, Default)]
struct TimelineWal {
    /// By number, without repetition.
    segments: Vec<StoredSegment>,
    /// Indexes into `segments`: first and last of each run of consecutive numbers.
    runs: Vec<(usize, usize)>,
}

/// Collects a listing.
#[derive(Clone, Debug)]
pub struct CoverageBuilder {
    size: SegmentSize,
    timelines: BTreeMap<TimelineId, TimelineWal>,
    foreign: u64,
}

/// What the repository holds.
#[derive(Clone, Debug)]
pub struct WalCoverage {
    size: SegmentSize,
    timelines: BTreeMap<TimelineId, TimelineWal>,
    foreign: u64,
}

impl CoverageBuilder {
    /// An empty listing of a cluster whose segments have this size.
    pub fn new(size: SegmentSize) -> Self {
        Self { size, timelines: BTreeMap::new(), foreign: 0 }
    }

    /// Takes one listed object, in any order. Anything but a full segment is passed over.
    pub fn add(&mut self, file: WalFile, stored_bytes: u64, stored_at: Timestamp) {
        let WalFile::Segment(name) = file else { return };
        match name.number(self.size) {
            Some(number) => {
                let wal = self.timelines.entry(name.timeline()).or_default();
                wal.segments.push(StoredSegment { number, stored_bytes, stored_at });
            }
            None => self.foreign += 1,
        }
    }

    /// Sorts the listing into ranges.
    pub fn finish(mut self) -> WalCoverage {
        for wal in self.timelines.values_mut() {
            // Stores list in order of names, which for one timeline is the order of numbers:
            // sorting what is sorted already takes one pass.
            wal.segments.sort_by_key(|segment| segment.number);
            wal.segments.dedup_by_key(|segment| segment.number);
            let mut begin = 0;
            for (index, segment) in wal.segments.iter().enumerate() {
                let next = wal.segments.get(index + 1).map(|next| next.number);
                if next != segment.number.checked_add(1) || next.is_none() {
                    wal.runs.push((begin, index));
                    begin = index + 1;
                }
            }
        }
        WalCoverage { size: self.size, timelines: self.timelines, foreign: self.foreign }
    }
}

impl WalCoverage {
    /// The size of the cluster's segments.
    pub fn segment_size(&self) -> SegmentSize {
        self.size
    }

    /// The timelines of which a segment is stored, oldest first.
    pub fn timelines(&self) -> impl Iterator<Item = TimelineId> {
        self.timelines.keys().copied()
    }

    /// Objects whose name no segment of this size can have: they belong to another cluster.
    pub fn foreign_segments(&self) -> u64 {
        self.foreign
    }

    /// The ranges of a timeline, in the order of the log.
    pub fn ranges(&self, timeline: TimelineId) -> Vec<SegmentRange> {
        let Some(wal) = self.timelines.get(&timeline) else { return Vec::new() };
        wal.runs.iter().filter_map(|(first, last)| self.range(timeline, wal, *first, *last)).collect()
    }

    fn range(
        &self,
        timeline: TimelineId,
        wal: &TimelineWal,
        first: usize,
        last: usize,
    ) -> Option<SegmentRange> {
        let run = wal.segments.get(first..=last)?;
        let (head, tail) = (run.first()?, run.last()?);
        Some(SegmentRange {
            first: SegmentName::from_number(timeline, head.number, self.size)?,
            last: SegmentName::from_number(timeline, tail.number, self.size)?,
            segments: tail.number - head.number + 1,
            stored_bytes: run.iter().fold(0, |sum, segment| sum.saturating_add(segment.stored_bytes)),
            first_stored_at: head.stored_at,
            last_stored_at: tail.stored_at,
        })
    }

    /// What is missing between the ranges of a timeline.
    pub fn gaps(&self, timeline: TimelineId) -> Vec<Gap> {
        let Some(wal) = self.timelines.get(&timeline) else { return Vec::new() };
        let number = |index: usize| wal.segments.get(index).map(|segment| segment.number);
        let pairs = wal.runs.iter().zip(wal.runs.iter().skip(1));
        pairs
            .filter_map(|((_, before), (after, _))| {
                let (first, last) = (number(*before)? + 1, number(*after)? - 1);
                Some(Gap {
                    first: SegmentName::from_number(timeline, first, self.size)?,
                    last: SegmentName::from_number(timeline, last, self.size)?,
                    segments: last - first + 1,
                })
            })
            .collect()
    }

    /// The same WAL without some segments.
    pub fn without(&self, unusable: &BTreeSet<(TimelineId, u64)>) -> Self {
        let mut builder = CoverageBuilder::new(self.size);
        builder.foreign = self.foreign;
        for (timeline, wal) in &self.timelines {
            let usable =
                wal.segments.iter().filter(|segment| !unusable.contains(&(*timeline, segment.number)));
            builder.timelines.entry(*timeline).or_default().segments.extend(usable.copied());
        }
        builder.finish()
    }

    /// The same WAL with segments that are not there, as if each had been stored at this time.
    pub fn with(&self, missing: impl IntoIterator<Item = (TimelineId, u64, Timestamp)>) -> Self {
        let mut builder =
            CoverageBuilder { size: self.size, timelines: self.timelines.clone(), foreign: self.foreign };
        for wal in builder.timelines.values_mut() {
            wal.runs.clear();
        }
        for (timeline, number, stored_at) in missing {
            let segments = &mut builder.timelines.entry(timeline).or_default().segments;
            segments.push(StoredSegment { number, stored_bytes: 0, stored_at });
        }
        builder.finish()
    }

    /// A stored segment by its number.
    pub fn segment(&self, timeline: TimelineId, number: u64) -> Option<&StoredSegment> {
        let wal = self.timelines.get(&timeline)?;
        wal.segments.get(wal.segments.binary_search_by_key(&number, |segment| segment.number).ok()?)
    }

    /// The last segment of a timeline, before or after whatever gaps.
    pub fn last(&self, timeline: TimelineId) -> Option<&StoredSegment> {
        self.timelines.get(&timeline)?.segments.last()
    }

    /// The number of the last segment that can be reached from `number` without a gap; none
    /// if that segment itself is missing.
    pub fn reach(&self, timeline: TimelineId, number: u64) -> Option<u64> {
        let wal = self.timelines.get(&timeline)?;
        let index = wal.segments.binary_search_by_key(&number, |segment| segment.number).ok()?;
        let run = wal.runs.partition_point(|(_, last)| *last < index);
        let (_, last) = wal.runs.get(run)?;
        wal.segments.get(*last).map(|segment| segment.number)
    }

    /// The stored segments with numbers from `first` to `last`.
    pub fn between(&self, timeline: TimelineId, first: u64, last: u64) -> &[StoredSegment] {
        let Some(wal) = self.timelines.get(&timeline) else { return &[] };
        let begin = wal.segments.partition_point(|segment| segment.number < first);
        let end = wal.segments.partition_point(|segment| segment.number <= last);
        wal.segments.get(begin..end).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn tl(number: u32) -> TimelineId {
        TimelineId::new(number).unwrap()
    }

    fn at(second: u64) -> Timestamp {
        Timestamp::from_second(i64::try_from(second).unwrap()).unwrap()
    }

    fn coverage(numbers: impl IntoIterator<Item = u64>) -> WalCoverage {
        let mut builder = CoverageBuilder::new(SegmentSize::DEFAULT);
        for number in numbers {
            let name = SegmentName::from_number(tl(1), number, SegmentSize::DEFAULT).unwrap();
            builder.add(WalFile::Segment(name), 100, at(number));
        }
        builder.finish()
    }

    #[test]
    fn ranges_and_gaps_stand_in_the_order_of_the_log() {
        let coverage = coverage([0xFF, 0x100, 3, 2, 5, 0xFE]);
        let shown: Vec<_> = coverage
            .ranges(tl(1))
            .iter()
            .map(|r| (r.first.to_string(), r.segments, r.stored_bytes))
            .collect();
        assert_eq!(
            shown,
            [
                ("000000010000000000000002".to_owned(), 2, 200),
                ("000000010000000000000005".to_owned(), 1, 100),
                ("0000000100000000000000FE".to_owned(), 3, 300),
            ]
        );
        let last = coverage.ranges(tl(1)).pop().unwrap();
        assert_eq!(last.last.to_string(), "000000010000000100000000");
        assert_eq!(last.last_stored_at, at(0x100));
        let gaps: Vec<_> =
            coverage.gaps(tl(1)).iter().map(|gap| (gap.first.to_string(), gap.segments)).collect();
        assert_eq!(gaps[0], ("000000010000000000000004".to_owned(), 1));
        assert_eq!(gaps[1], ("000000010000000000000006".to_owned(), 0xFE - 6));
        assert!(coverage.ranges(tl(2)).is_empty());
    }

    #[test]
    fn a_partial_is_no_segment_and_a_foreign_name_is_counted_apart() {
        let mut builder = CoverageBuilder::new(SegmentSize::DEFAULT);
        let name = SegmentName::parse("000000010000000000000005").unwrap();
        builder.add(WalFile::Partial(name), 100, at(1));
        builder.add(WalFile::Segment(SegmentName::parse("000000010000000000000100").unwrap()), 100, at(1));
        let coverage = builder.finish();
        assert_eq!(coverage.segment(tl(1), 5), None);
        assert_eq!(coverage.timelines().count(), 0);
        assert_eq!(coverage.foreign_segments(), 1);
    }

    #[test]
    fn a_hundred_thousand_segments_are_no_burden() {
        let began = std::time::Instant::now();
        let coverage = coverage((0..100_000).filter(|number| number % 1000 != 999));
        assert_eq!(coverage.ranges(tl(1)).len(), 100);
        for number in 0..100_000 {
            std::hint::black_box(coverage.reach(tl(1), number));
        }
        assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());
    }

    proptest! {
        #[test]
        fn coverage_agrees_with_a_set(numbers in proptest::collection::vec(0u64..60, 0..60)) {
            let set: BTreeSet<u64> = numbers.iter().copied().collect();
            let coverage = coverage(numbers);
            for number in 0..61 {
                prop_assert_eq!(coverage.segment(tl(1), number).is_some(), set.contains(&number));
                let reach = (number..).take_while(|n| set.contains(n)).last();
                prop_assert_eq!(coverage.reach(tl(1), number), reach);
            }
            let in_ranges: u64 = coverage.ranges(tl(1)).iter().map(|range| range.segments).sum();
            let in_gaps: u64 = coverage.gaps(tl(1)).iter().map(|gap| gap.segments).sum();
            prop_assert_eq!(usize::try_from(in_ranges).unwrap(), set.len());
            let span = set.last().map_or(0, |last| last - set.first().unwrap() + 1);
            prop_assert_eq!(in_ranges + in_gaps, span);
            prop_assert_eq!(coverage.between(tl(1), 10, 20).len(), set.range(10..=20).count());
        }
    }
}
