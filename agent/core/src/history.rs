//! The ancestry of a timeline: PostgreSQL's `NNNNNNNN.history` files.
//!
//! Each line that is not blank and not a `#` comment gives an ancestor, the position where
//! the next timeline branched off, and a reason, separated by tabs, oldest first. The rules
//! are those of `readTimeLineHistory` in PostgreSQL 15's `timeline.c`: the numbers increase
//! and stay below the timeline's own. Positions need *not* increase: a recovery that aims at
//! timeline 2 and stops before 2 began writes timeline 3 as a child of 2 that branches off
//! before 2 does. Then 2 has no part in the history of 3, as in `tliOfPointInHistory`.

use crate::lsn::Lsn;
use crate::timeline::TimelineId;
use std::fmt;

/// An ancestor of a timeline.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ancestor {
    /// The ancestor.
    pub timeline: TimelineId,
    /// The end of the ancestor's log: from here on the next timeline writes.
    pub switch_point: Lsn,
    /// Why the timeline was left, in PostgreSQL's words.
    pub reason: String,
}

/// A stretch of the log that one timeline contributes to a history.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stretch {
    /// The timeline that wrote it.
    pub timeline: TimelineId,
    /// Its first byte; none for the beginning of the log.
    pub begin: Option<Lsn>,
    /// The byte after its last; none for the history's own timeline, which goes on.
    pub end: Option<Lsn>,
}

/// A timeline with all its ancestors.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TimelineHistory {
    timeline: TimelineId,
    ancestors: Vec<Ancestor>,
}

/// Text that is not the history of the timeline it should be of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// A line without a timeline and a position.
    #[error(
        "line {line} of the history of timeline {timeline} is damaged: expected a timeline, \
         a tab and a position such as 0/3000000"
    )]
    Line {
        /// The timeline.
        timeline: TimelineId,
        /// Counted from 1.
        line: usize,
    },
    /// Numbers out of order.
    #[error(
        "line {line} of the history of timeline {timeline} names timeline {found}: numbers must increase \
         and stay below {timeline}"
    )]
    Order {
        /// The timeline.
        timeline: TimelineId,
        /// Counted from 1.
        line: usize,
        /// The number that is out of order.
        found: TimelineId,
    },
}

impl TimelineHistory {
    /// The history of a timeline without known ancestors, such as the first one.
    pub fn without_ancestors(timeline: TimelineId) -> Self {
        Self { timeline, ancestors: Vec::new() }
    }

    /// Reads the history file of `timeline`.
    pub fn parse(timeline: TimelineId, text: &[u8]) -> Result<Self, HistoryError> {
        // The reason at a line's end may quote a restore point's name in the database's encoding.
        let text = String::from_utf8_lossy(text);
        let mut ancestors: Vec<Ancestor> = Vec::new();
        for (index, content) in text.lines().enumerate() {
            let line = index + 1;
            let content = content.trim();
            if content.is_empty() || content.starts_with('#') {
                continue;
            }
            let ancestor = parse_line(content).ok_or(HistoryError::Line { timeline, line })?;
            let found = ancestor.timeline;
            let increases = ancestors.last().is_none_or(|last| last.timeline < found);
            if !increases || found >= timeline {
                return Err(HistoryError::Order { timeline, line, found });
            }
            ancestors.push(ancestor);
        }
        Ok(Self { timeline, ancestors })
    }

    /// The timeline whose history this is.
    pub fn timeline(&self) -> TimelineId {
        self.timeline
    }

    /// The ancestors, oldest first.
    pub fn ancestors(&self) -> &[Ancestor] {
        &self.ancestors
    }

    /// Where `parent` was left, if it is an ancestor.
    pub fn switch_point(&self, parent: TimelineId) -> Option<Lsn> {
        self.ancestors.iter().find(|ancestor| ancestor.timeline == parent).map(|a| a.switch_point)
    }

    /// What each timeline contributes, oldest first; timelines that contribute nothing are
    /// left out, so the stretches join without overlap.
    pub fn stretches(&self) -> Vec<Stretch> {
        let mut stretches = Vec::with_capacity(self.ancestors.len() + 1);
        let begins = std::iter::once(None).chain(self.ancestors.iter().map(|a| Some(a.switch_point)));
        let ends = self.ancestors.iter().map(|a| (a.timeline, Some(a.switch_point)));
        let own = std::iter::once((self.timeline, None));
        let all: Vec<_> = begins.zip(ends.chain(own)).collect();
        // Newest first, as `tliOfPointInHistory` searches: what a newer timeline covers is its own.
        let mut covered_from: Option<Lsn> = None;
        for (begin, (timeline, end)) in all.into_iter().rev() {
            let end = match (end, covered_from) {
                (Some(end), Some(covered)) => Some(end.min(covered)),
                (end, covered) => end.or(covered),
            };
            let empty = matches!((begin, end), (Some(begin), Some(end)) if begin >= end);
            if !empty {
                stretches.push(Stretch { timeline, begin, end });
                covered_from = begin;
            }
            if begin.is_none() {
                break;
            }
        }
        stretches.reverse();
        stretches
    }

    /// The timeline that wrote the byte at `lsn` (`tliOfPointInHistory`).
    pub fn timeline_at(&self, lsn: Lsn) -> TimelineId {
        let begins_before = |stretch: &Stretch| stretch.begin.is_none_or(|begin| begin <= lsn);
        let stretches = self.stretches();
        stretches.iter().rev().find(|s| begins_before(s)).map_or(self.timeline, |s| s.timeline)
    }

    /// Whether the log of `timeline` up to, not including, `end` belongs to this history: what
    /// PostgreSQL demands of a backup's end before it starts recovery.
    pub fn contains(&self, timeline: TimelineId, end: Lsn) -> bool {
        let last_byte = Lsn::new(end.get() - 1).unwrap_or(end);
        self.timeline_at(last_byte) == timeline
    }
}

/// One ancestor. `sscanf(line, "%u\t%X/%X")` takes any white space for the tab, and so does this.
fn parse_line(content: &str) -> Option<Ancestor> {
    let mut fields = content.splitn(2, char::is_whitespace);
    let number = fields.next()?;
    let plain = number.bytes().all(|b| b.is_ascii_digit());
    let timeline = if plain { TimelineId::new(number.parse().ok()?)? } else { return None };
    let mut rest = fields.next()?.trim_start().splitn(2, char::is_whitespace);
    let switch_point = rest.next()?.parse().ok()?;
    let reason = rest.next().unwrap_or_default().trim().to_owned();
    Some(Ancestor { timeline, switch_point, reason })
}

/// As `writeTimeLineHistory` writes it: an empty line before each ancestor but the first.
impl fmt::Display for TimelineHistory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, ancestor) in self.ancestors.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            writeln!(f, "{separator}{}\t{}\t{}", ancestor.timeline, ancestor.switch_point, ancestor.reason)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tl(number: u32) -> TimelineId {
        TimelineId::new(number).unwrap()
    }

    fn lsn(text: &str) -> Lsn {
        text.parse().unwrap()
    }

    fn parse(number: u32, text: &str) -> Result<TimelineHistory, HistoryError> {
        TimelineHistory::parse(tl(number), text.as_bytes())
    }

    const THREE: &str =
        "1\t0/3000000\tno recovery target specified\n\n2\t0/5000100\tbefore 2026-11-22 18:00:00+00\n";

    #[test]
    fn postgresqls_own_files_read_and_print_back() {
        let history = parse(3, THREE).unwrap();
        assert_eq!(history.to_string(), THREE);
        assert_eq!(history.switch_point(tl(2)), Some(lsn("0/5000100")));
        assert_eq!(history.switch_point(tl(3)), None);
        assert_eq!(history.ancestors()[1].reason, "before 2026-11-22 18:00:00+00");
    }

    #[test]
    fn a_point_belongs_to_the_timeline_that_wrote_it() {
        let history = parse(3, THREE).unwrap();
        assert_eq!(history.timeline_at(lsn("0/2FFFFFF")), tl(1));
        assert_eq!(history.timeline_at(lsn("0/3000000")), tl(2));
        assert_eq!(history.timeline_at(lsn("0/50000FF")), tl(2));
        assert_eq!(history.timeline_at(lsn("0/5000100")), tl(3));
        assert!(history.contains(tl(1), lsn("0/3000000")));
        assert!(!history.contains(tl(1), lsn("0/3000001")));
        assert!(!history.contains(tl(4), lsn("0/9000000")));
    }

    #[test]
    fn comments_and_blank_lines_are_skipped_and_reasons_may_be_missing() {
        let history = parse(2, "# made by hand\n\n  # more\n1\t0/3000000\n").unwrap();
        assert_eq!(history.ancestors().len(), 1);
        assert_eq!(parse(1, "").unwrap(), TimelineHistory::without_ancestors(tl(1)));
    }

    #[test]
    fn numbers_out_of_order_are_refused() {
        for text in ["2\t0/3000000\t\n1\t0/4000000\t\n", "1\t0/3\t\n1\t0/4\t\n", "3\t0/3\t\n", "4\t0/3\t\n"] {
            assert!(matches!(parse(3, text), Err(HistoryError::Order { .. })), "{text:?}");
        }
    }

    #[test]
    fn damaged_lines_are_named() {
        for text in ["x\t0/3\n", "1\n", "1\t\n", "1\t0-3\n", "0\t0/3\n", "-1\t0/3\n", "1\t0/0\n"] {
            assert_eq!(parse(3, text), Err(HistoryError::Line { timeline: tl(3), line: 1 }), "{text:?}");
        }
        assert!(TimelineHistory::parse(tl(2), b"1\t\xff").is_err());
        // A restore point called "après" in a LATIN1 database.
        let latin1 = b"1\t0/5000000\tat restore point \"apr\xe8s\"\n";
        assert_eq!(TimelineHistory::parse(tl(2), latin1).unwrap().ancestors().len(), 1);
    }

    #[test]
    fn a_timeline_that_was_left_before_it_began_has_no_part() {
        let history = parse(3, "1\t0/5000000\t\n2\t0/4000000\t\n").unwrap();
        let timelines: Vec<_> = history.stretches().iter().map(|s| s.timeline).collect();
        assert_eq!(timelines, [tl(1), tl(3)]);
        assert_eq!(history.stretches()[0].end, Some(lsn("0/4000000")));
        assert_eq!(history.timeline_at(lsn("0/4800000")), tl(3));
        assert_eq!(history.timeline_at(lsn("0/3FFFFFF")), tl(1));
    }

    fn any_history() -> impl Strategy<Value = TimelineHistory> {
        proptest::collection::vec((1u32..5, 1u64..1000, "[ -~]{0,20}"), 0..8).prop_map(|steps| {
            let mut number = 0;
            let mut ancestors = Vec::new();
            for (step, position, reason) in steps {
                number += step;
                let reason = reason.trim().to_owned();
                ancestors.push(Ancestor {
                    timeline: tl(number),
                    switch_point: Lsn::new(position).unwrap(),
                    reason,
                });
            }
            TimelineHistory { timeline: tl(number + 1), ancestors }
        })
    }

    /// `tliOfPointInHistory` of PostgreSQL 15, line by line.
    fn postgresqls_answer(history: &TimelineHistory, position: Lsn) -> TimelineId {
        let mut begin = None;
        let mut entries = Vec::new();
        for ancestor in &history.ancestors {
            entries.push((ancestor.timeline, begin, Some(ancestor.switch_point)));
            begin = Some(ancestor.switch_point);
        }
        entries.push((history.timeline, begin, None));
        entries
            .into_iter()
            .rev()
            .find(|(_, begin, end)| begin.is_none_or(|b| b <= position) && end.is_none_or(|e| position < e))
            .unwrap()
            .0
    }

    proptest! {
        #[test]
        fn histories_round_trip(history in any_history()) {
            let text = history.to_string();
            prop_assert_eq!(TimelineHistory::parse(history.timeline, text.as_bytes()).unwrap(), history);
        }

        #[test]
        fn points_are_found_as_postgresql_finds_them(history in any_history(), position in 1u64..1100) {
            let position = Lsn::new(position).unwrap();
            prop_assert_eq!(history.timeline_at(position), postgresqls_answer(&history, position));
        }

        #[test]
        fn stretches_join_without_overlap(history in any_history()) {
            let stretches = history.stretches();
            prop_assert_eq!(stretches[0].begin, None);
            prop_assert_eq!(stretches[stretches.len() - 1].end, None);
            for pair in stretches.windows(2) {
                prop_assert_eq!(pair[0].end, pair[1].begin);
            }
        }

        #[test]
        fn any_bytes_parse_or_fail_without_panic(bytes: Vec<u8>, text in "[0-9A-F/\t\n# ]{0,60}") {
            let _ = TimelineHistory::parse(tl(7), &bytes);
            let _ = parse(7, &text);
        }
    }
}
