//! One timeline with its ancestors, as retention sees it: its backups, which of them are kept, and
//! from where on its WAL is.

use super::{CLOCK_MARGIN, Policy};
use crate::backup_id::BackupId;
use crate::catalog::CatalogEntry;
use crate::history::TimelineHistory;
use crate::recovery_plan::Holdings;
use crate::recovery_window::{Restorable, history_of, restorable};
use crate::timeline::TimelineId;
use jiff::Timestamp;
use std::collections::BTreeSet;

/// The window at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub begin: Timestamp,
    pub now: Timestamp,
    pub policy: Policy,
}

impl Window {
    pub fn at(now: Timestamp, policy: Policy) -> Self {
        Self { begin: now.saturating_sub(policy.window).unwrap_or(Timestamp::MIN), now, policy }
    }

    /// When a target at `time` leaves the window.
    pub fn leaves(&self, time: Timestamp) -> Timestamp {
        time.saturating_add(self.policy.window).unwrap_or(Timestamp::MAX)
    }
}

/// A backup that the line contains.
pub(super) struct Member<'a> {
    pub entry: &'a CatalogEntry,
    /// The number of the segment that it starts in.
    pub start: u64,
    /// How far it can be recovered along the line; none if its own WAL is not whole.
    reach: Option<Timestamp>,
}

/// A timeline with its ancestors.
pub(super) struct Line<'a> {
    pub timeline: TimelineId,
    pub history: TimelineHistory,
    /// In the order in which the planner goes through them, oldest first.
    pub members: Vec<Member<'a>>,
}

impl<'a> Line<'a> {
    /// Finds the backups of a line; none if it has no backup, so that nothing can be recovered.
    pub fn of(timeline: TimelineId, holdings: Holdings<'a>) -> Option<Self> {
        let history = history_of(timeline, holdings.histories);
        let size = u64::from(holdings.coverage.segment_size().bytes());
        let contained = |entry: &&CatalogEntry| history.contains(entry.timeline(), entry.stop_lsn());
        let mut members: Vec<Member<'a>> = holdings
            .catalog
            .iter()
            .filter(contained)
            .map(|entry| Member {
                entry,
                start: entry.start_lsn().get() / size,
                reach: match restorable(entry, holdings.coverage, &history) {
                    Restorable::Until { time, .. } => Some(time),
                    Restorable::No => None,
                },
            })
            .collect();
        members.sort_by_key(|member| (member.entry.stopped_at(), member.entry.stop_lsn()));
        (!members.is_empty()).then_some(Self { timeline, history, members })
    }

    /// Whether a target in the window can lie on it: one of its backups is of the window, or
    /// can be recovered into it. Backups older than the anchor say nothing: their WAL ends where
    /// the anchor's does, or before the anchor.
    pub fn has_targets(&self, window: &Window) -> bool {
        let early = window.begin.saturating_sub(CLOCK_MARGIN).unwrap_or(Timestamp::MIN);
        self.members.iter().skip(self.anchor(window).unwrap_or(0)).any(|member| {
            member.entry.stopped_at() >= early || member.reach.is_some_and(|reach| reach >= early)
        })
    }

    /// Where its newest whole backup from before the window stands among the members.
    pub fn anchor(&self, window: &Window) -> Option<usize> {
        let before = |member: &Member<'_>| member.entry.stopped_at() <= window.begin;
        self.members.iter().rposition(|member| before(member) && member.is_whole())
    }

    /// What the kept backups of this line need; those of `counted` are kept whatever their age.
    pub fn holding(
        &self,
        window: &Window,
        kept: &BTreeSet<&BackupId>,
        counted: &BTreeSet<&BackupId>,
        horizon: Timestamp,
    ) -> Option<Holding> {
        let kept: Vec<&Member<'a>> =
            self.members.iter().filter(|member| kept.contains(member.entry.id())).collect();
        let first = kept.iter().min_by_key(|member| member.start)?;
        let mut frees = Vec::new();
        let mut lowest = u64::MAX;
        // From the newest on: what starts last of all that a moment still has to keep.
        for member in kept.iter().rev() {
            lowest = lowest.min(member.start);
            if member.is_whole() {
                frees.push((lowest, window.leaves(member.entry.stopped_at())));
            }
        }
        frees.reverse();
        let counted = kept.iter().filter(|member| counted.contains(member.entry.id()));
        Some(Holding {
            timeline: self.timeline,
            floor: first.start,
            floor_backup: first.entry.id().clone(),
            frees,
            counted_from: counted.map(|member| member.start).min().unwrap_or(u64::MAX),
            horizon,
            now_on: window.leaves(window.now),
        })
    }

    /// When the last target of this line, by what is stored now, leaves the window.
    pub fn last_target_leaves(&self, window: &Window) -> Timestamp {
        let reach = self.members.iter().filter_map(|member| member.reach).max();
        let stopped = self.members.iter().map(|member| member.entry.stopped_at()).max();
        let last = reach.max(stopped).unwrap_or(window.now);
        window.leaves(last.saturating_add(CLOCK_MARGIN).unwrap_or(Timestamp::MAX))
    }

    /// When the member at `index` is not needed any more on this line: when a newer whole one
    /// is from before the window.
    pub fn freed(&self, index: usize, window: &Window) -> Option<Timestamp> {
        let newer = self.members.get(index + 1..).unwrap_or_default();
        newer.iter().find(|member| member.is_whole()).map(|member| window.leaves(member.entry.stopped_at()))
    }
}

impl Member<'_> {
    pub fn is_whole(&self) -> bool {
        self.reach.is_some()
    }
}

/// The WAL that a line keeps: from the floor on.
#[derive(Clone, Debug)]
pub(super) struct Holding {
    pub timeline: TimelineId,
    /// The first segment.
    pub floor: u64,
    /// The backup that starts in it.
    pub floor_backup: BackupId,
    /// For each whole kept backup, oldest first: once the window begins at its end, at that
    /// time, only segments from this number on are needed. Neither ever decreases.
    frees: Vec<(u64, Timestamp)>,
    /// From this segment on, backups that are kept for their number need it.
    counted_from: u64,
    /// Until when what no newer backup frees is needed.
    horizon: Timestamp,
    /// When a target at this moment leaves the window.
    now_on: Timestamp,
}

impl Holding {
    /// Until when a segment is needed.
    pub fn until(&self, number: u64) -> Timestamp {
        if number >= self.counted_from {
            return self.now_on;
        }
        let first = self.frees.partition_point(|(floor, _)| *floor <= number);
        // A line that has ended frees all that it has, however many backups are on it.
        self.frees.get(first).map_or(self.horizon, |(_, free)| (*free).min(self.horizon))
    }
}
