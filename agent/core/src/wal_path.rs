//! How far recovery can read along a history without missing a segment.
//!
//! PostgreSQL asks `restore_command` for a segment on the newest timeline of the history that
//! can have it (`XLogFileReadAnyTLI` in `xlogrecovery.c`). The segment in which a timeline
//! begins holds a copy of its parent's part, so from there on the child's file is the one that
//! is needed; the parent's would end recovery at the switch point.

use crate::coverage::{SegmentRange, WalCoverage};
use crate::history::{Stretch, TimelineHistory};
use crate::lsn::Lsn;
use crate::segment::SegmentName;
use crate::timeline::TimelineId;
use jiff::Timestamp;

/// The WAL from a starting point on, as far as nothing is missing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WalPath {
    /// The segments, in the order in which they are replayed.
    pub ranges: Vec<SegmentRange>,
    /// The end of the last byte that can be replayed; none if the very first segment is missing.
    pub end: Option<Lsn>,
    /// Whether all that was asked for is there, or what is missing first.
    pub ending: PathEnding,
}

/// Why a path ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PathEnding {
    /// At the end that was asked for.
    Complete,
    /// At a segment that is not stored.
    Missing {
        /// That segment.
        segment: SegmentName,
        /// The first stored segment behind it on the same history: then it is a gap. None:
        /// it is the end of what was archived.
        resumes: Option<SegmentName>,
    },
}

impl WalPath {
    /// When the last of the segments was stored.
    pub fn last_stored_at(&self) -> Option<Timestamp> {
        self.ranges.iter().map(|range| range.last_stored_at).max()
    }

    /// Whether the byte before `end` can be replayed.
    pub fn reaches(&self, end: Lsn) -> bool {
        self.end.is_some_and(|reached| reached >= end)
    }

    /// Number of segments.
    pub fn segments(&self) -> u64 {
        self.ranges.iter().map(|range| range.segments).sum()
    }

    /// Size of their objects.
    pub fn stored_bytes(&self) -> u64 {
        self.ranges.iter().fold(0, |sum, range| sum.saturating_add(range.stored_bytes))
    }

    /// The path up to the first segment that was stored at or after `time`: about what is
    /// replayed to reach that time.
    pub fn up_to_time(mut self, coverage: &WalCoverage, time: Timestamp) -> Self {
        let size = coverage.segment_size();
        let mut kept = Vec::new();
        for range in std::mem::take(&mut self.ranges) {
            let timeline = range.first.timeline();
            let numbers = range.first.number(size).zip(range.last.number(size));
            let (first, last) = numbers.unwrap_or_default();
            let stop = coverage.between(timeline, first, last).iter().find(|s| s.stored_at >= time);
            match stop.and_then(|stop| range_of(coverage, timeline, first, stop.number)) {
                Some(part) => {
                    kept.push(part);
                    break;
                }
                None => kept.push(range),
            }
        }
        self.ranges = kept;
        self
    }
}

/// One timeline's segments of a history.
struct Leg {
    timeline: TimelineId,
    first: u64,
    /// None: without end.
    last: Option<u64>,
    /// Where the timeline begins inside its first segment, and the parent whose file of that
    /// segment leads up to there.
    parent: Option<(TimelineId, Lsn)>,
}

/// Follows `history` from the segment that holds `start` to the byte before `end`, or as far as
/// there is WAL.
pub fn follow(coverage: &WalCoverage, history: &TimelineHistory, start: Lsn, end: Option<Lsn>) -> WalPath {
    let size = u64::from(coverage.segment_size().bytes());
    let stretches = history.stretches();
    let mut path = WalPath { ranges: Vec::new(), end: None, ending: PathEnding::Complete };
    let mut next = start.get() / size;
    let legs = legs(&stretches, size, end);
    for (index, leg) in legs.iter().enumerate() {
        if leg.last.is_some_and(|last| last < next) {
            continue;
        }
        let wanted = next.max(leg.first);
        let reached = coverage.reach(leg.timeline, wanted).map(|reach| leg.last.unwrap_or(reach).min(reach));
        if let Some(reached) = reached {
            path.push(coverage, leg.timeline, wanted, reached);
            next = reached + 1;
        }
        if leg.last.is_some_and(|last| last < next) {
            continue;
        }
        if let Some(newer) = newer_copy(coverage, &stretches, leg, next, size) {
            path.push(coverage, newer, next, next);
            next += 1;
            continue;
        }
        let at_branch = leg.parent.filter(|_| next == leg.first);
        if let Some((parent, switch_point)) = at_branch.filter(|(p, _)| coverage.segment(*p, next).is_some())
        {
            path.push(coverage, parent, next, next);
            path.end = Some(switch_point);
        }
        path.ending = missing(coverage, legs.get(index..).unwrap_or_default(), leg.timeline, next);
        break;
    }
    path
}

/// The segments that each timeline has to provide. All but the last provide whole segments
/// only: the one in which the next timeline begins is the next one's.
fn legs(stretches: &[Stretch], size: u64, end: Option<Lsn>) -> Vec<Leg> {
    let within = |stretch: &&Stretch| match (stretch.begin, end) {
        (Some(begin), Some(end)) => begin < end,
        _ => true,
    };
    let used: Vec<&Stretch> = stretches.iter().filter(within).collect();
    let mut legs = Vec::with_capacity(used.len());
    for (index, stretch) in used.iter().enumerate() {
        let first = stretch.begin.map_or(0, |begin| begin.get() / size);
        let next_begin = used.get(index + 1).and_then(|next| next.begin);
        let last = match (next_begin, end) {
            (Some(begin), _) => match (begin.get() / size).checked_sub(1) {
                Some(last) => Some(last),
                None => continue,
            },
            (None, Some(end)) => Some((end.get() - 1) / size),
            (None, None) => None,
        };
        let parent = index.checked_sub(1).and_then(|before| used.get(before)).zip(stretch.begin);
        let parent = parent
            .filter(|(_, begin)| !begin.get().is_multiple_of(size))
            .map(|(parent, begin)| (parent.timeline, begin));
        legs.push(Leg { timeline: stretch.timeline, first, last, parent });
    }
    legs
}

/// A newer timeline that begins in this very segment, behind the end that was asked for, and
/// whose file therefore holds all of the older one's part too.
fn newer_copy(
    coverage: &WalCoverage,
    stretches: &[Stretch],
    leg: &Leg,
    number: u64,
    size: u64,
) -> Option<TimelineId> {
    leg.last.filter(|last| *last == number)?;
    let begins_here = |stretch: &&Stretch| {
        stretch.timeline > leg.timeline && stretch.begin.is_some_and(|begin| begin.get() / size == number)
    };
    let newer = stretches.iter().rev().filter(begins_here);
    newer.map(|stretch| stretch.timeline).find(|timeline| coverage.segment(*timeline, number).is_some())
}

fn missing(coverage: &WalCoverage, legs: &[Leg], timeline: TimelineId, number: u64) -> PathEnding {
    let size = coverage.segment_size();
    let stored = |leg: &Leg| {
        let first = leg.first.max(number);
        let found = coverage.between(leg.timeline, first, leg.last.unwrap_or(u64::MAX)).first()?;
        SegmentName::from_number(leg.timeline, found.number, size)
    };
    let resumes = legs.iter().find_map(stored);
    match SegmentName::from_number(timeline, number, size) {
        Some(segment) => PathEnding::Missing { segment, resumes },
        // Behind the last name of all, nothing can be missing.
        None => PathEnding::Complete,
    }
}

impl WalPath {
    fn push(&mut self, coverage: &WalCoverage, timeline: TimelineId, first: u64, last: u64) {
        self.ranges.extend(range_of(coverage, timeline, first, last));
        let size = u64::from(coverage.segment_size().bytes());
        self.end = last.checked_add(1).and_then(|next| next.checked_mul(size)).and_then(Lsn::new);
    }
}

/// Consecutive stored segments as a range.
fn range_of(coverage: &WalCoverage, timeline: TimelineId, first: u64, last: u64) -> Option<SegmentRange> {
    let size = coverage.segment_size();
    let run = coverage.between(timeline, first, last);
    Some(SegmentRange {
        first: SegmentName::from_number(timeline, first, size)?,
        last: SegmentName::from_number(timeline, last, size)?,
        segments: last.checked_sub(first)? + 1,
        stored_bytes: run.iter().fold(0, |sum, segment| sum.saturating_add(segment.stored_bytes)),
        first_stored_at: run.first()?.stored_at,
        last_stored_at: run.last()?.stored_at,
    })
}

#[cfg(test)]
mod tests;
