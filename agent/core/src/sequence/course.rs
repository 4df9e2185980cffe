//! The course of a recovery through timelines: which segment comes after which.
//!
//! A segment in which a timeline begins is read under the newest timeline that begins in it or before
//! it (`XLogFileReadAnyTLI` in PostgreSQL 15's `xlogrecovery.c`). A course is a guess of what PostgreSQL
//! asks for next, never an answer: without a history, or where PostgreSQL asks for something else,
//! the next segment of the same timeline is guessed.

use crate::history::TimelineHistory;
use crate::segment::{SegmentName, SegmentSize};
use crate::timeline::TimelineId;

/// A course; the empty one knows of no other timelines.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Course {
    /// The number of the first segment that is read under a timeline; oldest first.
    turns: Vec<(u64, TimelineId)>,
}

impl Course {
    /// The course to the end of `history`'s own timeline.
    pub(super) fn of(history: &TimelineHistory, size: SegmentSize) -> Self {
        let stretches = history.stretches().into_iter();
        let first = |(timeline, begin)| SegmentName::containing(timeline, begin, size).number(size);
        let turns = stretches.map(|stretch| {
            let first = stretch.begin.and_then(|begin| first((stretch.timeline, begin)));
            (first.unwrap_or(0), stretch.timeline)
        });
        Self { turns: turns.collect() }
    }

    fn timeline_of(&self, number: u64) -> Option<TimelineId> {
        self.turns.iter().rev().find(|(first, _)| *first <= number).map(|(_, timeline)| *timeline)
    }

    fn holds(&self, name: SegmentName, size: SegmentSize) -> bool {
        name.number(size).and_then(|number| self.timeline_of(number)) == Some(name.timeline())
    }

    /// What is read after `name`.
    pub(super) fn after(&self, name: SegmentName, size: SegmentSize) -> Option<SegmentName> {
        let next = name.next(size)?;
        if !self.holds(name, size) {
            return Some(next);
        }
        let number = next.number(size)?;
        SegmentName::from_number(self.timeline_of(number)?, number, size)
    }

    /// How many segments after `from` it is that `to` is read; none if it is not.
    pub(super) fn distance(&self, from: SegmentName, to: SegmentName, size: SegmentSize) -> Option<u64> {
        let on_course =
            if self.holds(from, size) { self.holds(to, size) } else { from.timeline() == to.timeline() };
        to.number(size)?.checked_sub(from.number(size)?).filter(|_| on_course)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: SegmentSize = SegmentSize::DEFAULT;

    fn segment(timeline: u32, number: u64) -> SegmentName {
        SegmentName::from_number(TimelineId::new(timeline).unwrap(), number, SIZE).unwrap()
    }

    /// 2 begins in segment 5, 3 in segment 7.
    fn course() -> Course {
        let text = "1\t0/5000100\tx\n2\t0/7000000\ty\n";
        Course::of(&TimelineHistory::parse(TimelineId::new(3).unwrap(), text.as_bytes()).unwrap(), SIZE)
    }

    #[test]
    fn the_segment_in_which_a_timeline_begins_is_read_under_it() {
        let mut way = vec![segment(1, 3)];
        for _ in 0..5 {
            way.push(course().after(*way.last().unwrap(), SIZE).unwrap());
        }
        let expected = [(1, 3), (1, 4), (2, 5), (2, 6), (3, 7), (3, 8)];
        assert_eq!(way, expected.map(|(timeline, number)| segment(timeline, number)));
    }

    #[test]
    fn off_the_course_a_timeline_goes_on_by_itself() {
        assert_eq!(course().after(segment(1, 6), SIZE), Some(segment(1, 7)));
        assert_eq!(course().distance(segment(1, 6), segment(1, 8), SIZE), Some(2));
        assert_eq!(course().distance(segment(1, 4), segment(3, 8), SIZE), Some(4));
        assert_eq!(course().distance(segment(1, 4), segment(1, 5), SIZE), None);
        assert_eq!(course().distance(segment(1, 4), segment(1, 3), SIZE), None);
        assert_eq!(Course::default().after(segment(1, 4), SIZE), Some(segment(1, 5)));
    }
}
