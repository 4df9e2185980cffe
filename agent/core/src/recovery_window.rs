//! Which points in time can be recovered to: from the end of each backup as far as its WAL
//! reaches, timeline by timeline. A gap splits the window in two. Its tests stand with those of
//! the recovery plan: a target inside a window must have a plan.

use crate::backup_id::BackupId;
use crate::catalog::CatalogEntry;
use crate::coverage::WalCoverage;
use crate::history::TimelineHistory;
use crate::lsn::Lsn;
use crate::timeline::TimelineId;
use crate::wal_path::{WalPath, follow};
use jiff::Timestamp;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// An unbroken stretch of possible targets on one timeline.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct RecoveryWindow {
    /// The timeline to be followed, `--target-timeline`.
    pub timeline: TimelineId,
    /// The earliest target: where the oldest backup ends.
    pub from_lsn: Lsn,
    /// The same as a time.
    pub from_time: Timestamp,
    /// The end of the last WAL that can be replayed.
    pub until_lsn: Lsn,
    /// When that was stored: the newest that a target time can be. The backup's own end
    /// where no later WAL is stored.
    pub until_time: Timestamp,
    /// The backups inside, oldest first.
    pub backups: Vec<BackupId>,
}

/// What the WAL of a backup allows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Restorable {
    /// The backup can be made consistent, and replayed so far.
    Until {
        /// The end of the last WAL that can be replayed.
        lsn: Lsn,
        /// When that was stored.
        time: Timestamp,
    },
    /// WAL that the backup can't do without is missing.
    No,
}

/// The timelines that could be followed: those that have a history or a backup.
pub fn timelines(
    catalog: &[CatalogEntry],
    histories: &BTreeMap<TimelineId, TimelineHistory>,
) -> BTreeSet<TimelineId> {
    catalog.iter().map(CatalogEntry::timeline).chain(histories.keys().copied()).collect()
}

/// The history of a timeline. A timeline without a history file has no known ancestors: the
/// first one never has any, and of another the file may be older than the archive.
pub fn history_of(
    timeline: TimelineId,
    histories: &BTreeMap<TimelineId, TimelineHistory>,
) -> TimelineHistory {
    let known = histories.get(&timeline).cloned();
    known.unwrap_or_else(|| TimelineHistory::without_ancestors(timeline))
}

/// How far a backup can be recovered along a history that contains it.
pub fn restorable(entry: &CatalogEntry, coverage: &WalCoverage, history: &TimelineHistory) -> Restorable {
    let path = follow(coverage, history, entry.start_lsn(), None);
    match path.end {
        Some(lsn) if lsn >= entry.stop_lsn() => {
            Restorable::Until { lsn, time: reached_time(&path, entry.stopped_at()) }
        }
        _ => Restorable::No,
    }
}

/// A backup's end is proven possible by its own WAL, whatever the repository's clock says.
fn reached_time(path: &WalPath, stopped_at: Timestamp) -> Timestamp {
    path.last_stored_at().map_or(stopped_at, |stored| stored.max(stopped_at))
}

/// All windows, by timeline and then by position.
pub fn recovery_windows(
    catalog: &[CatalogEntry],
    histories: &BTreeMap<TimelineId, TimelineHistory>,
    coverage: &WalCoverage,
) -> Vec<RecoveryWindow> {
    let mut windows: Vec<RecoveryWindow> = Vec::new();
    for timeline in timelines(catalog, histories) {
        let history = history_of(timeline, histories);
        let mut backups: Vec<&CatalogEntry> =
            catalog.iter().filter(|entry| history.contains(entry.timeline(), entry.stop_lsn())).collect();
        backups.sort_by_key(|entry| entry.stop_lsn());
        for entry in backups {
            let Restorable::Until { lsn, time } = restorable(entry, coverage, &history) else { continue };
            let joined = windows
                .last_mut()
                .filter(|window| window.timeline == timeline && window.until_lsn >= entry.stop_lsn());
            if let Some(window) = joined {
                window.backups.push(entry.id().clone());
                window.until_lsn = window.until_lsn.max(lsn);
                window.until_time = window.until_time.max(time);
                continue;
            }
            windows.push(RecoveryWindow {
                timeline,
                from_lsn: entry.stop_lsn(),
                from_time: entry.stopped_at(),
                until_lsn: lsn,
                until_time: time,
                backups: vec![entry.id().clone()],
            });
        }
    }
    windows
}
