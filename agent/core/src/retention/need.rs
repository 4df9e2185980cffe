//! The answers: why an object is needed and until when, or why it is not.

use crate::backup_id::BackupId;
use crate::timeline::TimelineId;
use jiff::Timestamp;
use serde::Serialize;
use std::fmt;

/// What is known about the use of an object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Need {
    /// Some target, or wald itself, needs it.
    Needed {
        /// For what.
        reason: Reason,
        /// At least until then, by what is known now. While nothing newer takes its place this
        /// moves on with the time.
        until: Timestamp,
    },
    /// Nothing needs it by what is stored, but it may belong to something that is under way:
    /// it is left alone until then.
    Pending {
        /// What may be under way.
        pending: Pending,
        /// Until when, at least.
        until: Timestamp,
    },
    /// Nothing needs it.
    NotNeeded(Unneeded),
    /// Its name is not one that wald writes: it is never touched.
    Unknown,
}

/// What an object is needed for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Reason {
    /// It says whose the repository is.
    Identity,
    /// It is part of a backup that is kept.
    Backup {
        /// The backup.
        backup: BackupId,
        /// Why that is kept.
        because: BackupReason,
    },
    /// A recovery reads it.
    Wal {
        /// The oldest backup that it leads on from.
        backup: BackupId,
        /// The timeline whose targets need it.
        timeline: TimelineId,
    },
    /// A history file: PostgreSQL asks for all of them to find the latest timeline and the
    /// number of the next (`findNewestTimeLine` in `timeline.c`), so none may ever be missing.
    History,
    /// WAL of a timeline that is newer than all with a history or a backup: they may still come.
    LoneTimeline {
        /// The timeline.
        timeline: TimelineId,
    },
    /// WAL that was given up, in a stretch that is kept.
    Gap,
    /// The newest record of its kind, or one that is young enough to be asked for.
    Record,
    /// There is no whole backup, so nothing is known to be superfluous.
    NoBackup,
    /// Something can't be understood, so nothing is known to be superfluous.
    Unreadable {
        /// The object that can't be understood.
        key: String,
    },
}

/// Why a backup is kept.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum BackupReason {
    /// It ended inside the window.
    InWindow,
    /// It ended shortly before the window: a restore that began when it was inside may be running.
    AtEdge,
    /// It is the newest whole one that ended before the window began: the earliest targets start
    /// from it.
    Anchor {
        /// The timeline whose targets those are.
        timeline: TimelineId,
    },
    /// It ended before the window began, and no whole backup from before the window is newer.
    NoneNewer {
        /// The timeline whose targets may need it.
        timeline: TimelineId,
    },
    /// It is one of the newest whole ones, which are kept whatever their age.
    Minimum {
        /// How many are kept.
        count: u32,
    },
}

/// What may be under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Pending {
    /// An object of a backup without a catalog entry, which may be running.
    UncommittedBackup,
    /// WAL that a backup which may be running could need.
    WalOfUncommittedBackup,
    /// WAL that was stored in the window and can't be reached: what is missing may still come.
    RecentWal,
    /// A trial of `wald repo check`.
    Trial,
}

/// Why an object is not needed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Unneeded {
    /// It is part of a backup that no target in the window needs.
    ExpiredBackup {
        /// The backup.
        backup: BackupId,
    },
    /// It is part of a backup that never got a catalog entry.
    Leftover {
        /// The backup's name.
        backup: BackupId,
    },
    /// No backup that is kept needs this WAL.
    ExpiredWal,
    /// The record of a gap below the oldest WAL that is kept.
    ExpiredGap,
    /// What `wald repo check` tried out.
    Trial,
    /// A record that is too old to be asked for.
    OldRecord,
    /// A delete marker that hides nothing.
    StrayMarker,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Identity => f.write_str("it says whose the repository is"),
            Reason::Backup { backup, because } => write!(f, "backup {backup} {because}"),
            Reason::Wal { backup, timeline } => {
                write!(f, "targets on timeline {timeline} are reached through it from backup {backup} on")
            }
            Reason::History => f.write_str("PostgreSQL asks for every history, so all are kept for ever"),
            Reason::LoneTimeline { timeline } => {
                write!(
                    f,
                    "timeline {timeline} is newer than every history and backup, and they may still come"
                )
            }
            Reason::Gap => f.write_str("it tells why WAL is missing in a stretch that is kept"),
            Reason::Record => f.write_str("it is a record that is young, or the newest of its kind"),
            Reason::NoBackup => f.write_str("there is no whole backup, so everything is kept"),
            Reason::Unreadable { key } => {
                write!(f, "{key} can't be understood, so everything that it could speak of is kept")
            }
        }
    }
}

impl fmt::Display for BackupReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BackupReason::InWindow => f.write_str("ended inside the window"),
            BackupReason::AtEdge => {
                f.write_str("ended shortly before the window: a restore of it may be running")
            }
            BackupReason::Anchor { timeline } => write!(
                f,
                "is the newest whole one from before the window: its first targets on timeline {timeline} start \
                 from it"
            ),
            BackupReason::NoneNewer { timeline } => write!(
                f,
                "is from before the window, and on timeline {timeline} no newer whole one from before it is there"
            ),
            BackupReason::Minimum { count: 1 } => f.write_str("is the newest whole one"),
            BackupReason::Minimum { count } => write!(f, "is one of the newest {count} whole ones"),
        }
    }
}

impl fmt::Display for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Pending::UncommittedBackup => {
                "it belongs to a backup without a catalog entry that may be running"
            }
            Pending::WalOfUncommittedBackup => "a backup that may be running could need it",
            Pending::RecentWal => "it was stored in the window, and the WAL that leads to it may still come",
            Pending::Trial => "a check of the repository may be running",
        })
    }
}

impl fmt::Display for Unneeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unneeded::ExpiredBackup { backup } => {
                write!(f, "no target in the window needs backup {backup} any more")
            }
            Unneeded::Leftover { backup } => {
                write!(f, "backup {backup} was never finished: it has no catalog entry")
            }
            Unneeded::ExpiredWal => f.write_str("no backup that is kept needs this WAL"),
            Unneeded::ExpiredGap => f.write_str("it tells of WAL that is not kept any more"),
            Unneeded::Trial => f.write_str("wald repo check left it"),
            Unneeded::StrayMarker => f.write_str("it is a delete marker that hides nothing"),
            Unneeded::OldRecord => f.write_str("it is an old record, and a newer one is there"),
        }
    }
}
