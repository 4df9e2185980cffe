//! Which recovery targets are lost when something in a repository is damaged: the recovery
//! windows with it, less those without it. The windows are those of `wald list`, so what
//! is called lost here is what `wald restore` refuses.

use crate::backup_id::BackupId;
use crate::catalog::CatalogEntry;
use crate::coverage::WalCoverage;
use crate::history::TimelineHistory;
use crate::lsn::Lsn;
use crate::recovery_window::{RecoveryWindow, recovery_windows};
use crate::timeline::TimelineId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A stretch of targets on one timeline, from its first position up to the last.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LostTargets {
    /// The timeline.
    pub timeline: TimelineId,
    /// Where it begins.
    pub from_lsn: Lsn,
    /// Where it ends.
    pub until_lsn: Lsn,
    /// About when that was: when the last WAL before it was stored, or the end of a backup.
    pub from_time: Timestamp,
    /// About when that was.
    pub until_time: Timestamp,
}

/// What can't be used.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Unusable {
    /// Segments, by timeline and number.
    pub segments: BTreeSet<(TimelineId, u64)>,
    /// Backups.
    pub backups: BTreeSet<BackupId>,
    /// Histories of timelines.
    pub histories: BTreeSet<TimelineId>,
}

impl Unusable {
    /// Whether nothing is unusable.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty() && self.backups.is_empty() && self.histories.is_empty()
    }

    /// Adds what another one has.
    pub fn add(&mut self, other: &Unusable) {
        self.segments.extend(&other.segments);
        self.backups.extend(other.backups.iter().cloned());
        self.histories.extend(&other.histories);
    }
}

/// A repository as it would be if nothing in it were damaged or missing.
#[derive(Clone, Debug)]
pub struct Undamaged {
    /// The backups.
    pub catalog: Vec<CatalogEntry>,
    /// The histories.
    pub histories: BTreeMap<TimelineId, TimelineHistory>,
    /// The WAL, with what is missing filled in.
    pub coverage: WalCoverage,
}

impl Undamaged {
    /// What can be recovered to without `unusable`.
    pub fn windows_without(&self, unusable: &Unusable) -> Vec<RecoveryWindow> {
        let usable = |entry: &&CatalogEntry| !unusable.backups.contains(entry.id());
        let catalog: Vec<CatalogEntry> = self.catalog.iter().filter(usable).cloned().collect();
        let mut histories = self.histories.clone();
        histories.retain(|timeline, _| !unusable.histories.contains(timeline));
        let mut windows = recovery_windows(&catalog, &histories, &self.coverage.without(&unusable.segments));
        // Without its history a timeline is not found by a recovery to it, unless a backup is on it.
        windows.retain(|window| {
            !unusable.histories.contains(&window.timeline)
                || catalog.iter().any(|entry| entry.timeline() == window.timeline)
        });
        windows
    }

    /// The targets that are lost by `unusable`, by timeline and position.
    pub fn lost(&self, unusable: &Unusable) -> Vec<LostTargets> {
        if unusable.is_empty() {
            return Vec::new();
        }
        let left = self.windows_without(unusable);
        let whole = self.windows_without(&Unusable::default());
        whole.iter().flat_map(|window| less(window, &left)).collect()
    }
}

/// `window` less what is left of it. Windows of one timeline are disjoint and in order.
fn less(window: &RecoveryWindow, left: &[RecoveryWindow]) -> Vec<LostTargets> {
    let mut lost = Vec::new();
    let (mut lsn, mut time) = (window.from_lsn, window.from_time);
    let mut gap = |from: (Lsn, Timestamp), until: (Lsn, Timestamp)| {
        if from.0 < until.0 {
            lost.push(LostTargets {
                timeline: window.timeline,
                from_lsn: from.0,
                until_lsn: until.0,
                from_time: from.1.min(until.1),
                until_time: until.1,
            });
        }
    };
    let rest = left.iter().filter(|rest| {
        rest.timeline == window.timeline
            && rest.from_lsn < window.until_lsn
            && window.from_lsn <= rest.until_lsn
    });
    for rest in rest {
        gap((lsn, time), (rest.from_lsn, rest.from_time));
        if rest.until_lsn >= lsn {
            (lsn, time) = (rest.until_lsn, rest.until_time);
        }
    }
    gap((lsn, time), (window.until_lsn, window.until_time));
    lost
}

#[cfg(test)]
mod tests;
