//! How far the primary's log reached, and when: whoever has come past one of these ends is no later
//! than its time. Bounded; what is forgotten only makes the bound wider.

use super::elapsed;
use crate::lsn::Lsn;
use jiff::Timestamp;
use std::collections::VecDeque;
use std::time::Duration;

/// Ends of the log, each with the last time at which it was there.
#[derive(Debug, Default)]
pub(super) struct Trail {
    seen: VecDeque<(Timestamp, Lsn)>,
}

/// Four hours at a look every 15 s.
const TRAIL_MAX: usize = 960;

impl Trail {
    /// The log ended here at this time.
    pub(super) fn add(&mut self, at: Timestamp, end: Lsn) {
        match self.seen.back_mut() {
            Some((last_at, last)) if *last == end => *last_at = at,
            // Another primary, or a timeline that was left: what was seen says nothing any more.
            Some((_, last)) if *last > end => {
                self.seen.clear();
                self.seen.push_back((at, end));
            }
            _ => self.seen.push_back((at, end)),
        }
        if self.seen.len() > TRAIL_MAX {
            self.seen.pop_front();
        }
    }

    /// How late at most a standby is that has come to here.
    pub(super) fn bound(&self, reached: Lsn, now: Timestamp) -> Option<Duration> {
        let (at, _) = self.seen.iter().rev().find(|(_, end)| *end <= reached)?;
        elapsed(*at, now)
    }
}
