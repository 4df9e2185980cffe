//! Why there can be no plan, and what to do instead.

use crate::backup_id::BackupId;
use crate::lsn::Lsn;
use crate::segment::SegmentName;
use crate::system_id::SystemId;
use crate::target::{RecoveryTarget, print_second, print_time};
use crate::timeline::TimelineId;
use jiff::Timestamp;
use std::fmt;

/// A restore that can't be done. Nothing has been read but lists, and nothing written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// An empty catalog.
    #[error("the repository holds no backup: take one with wald backup")]
    NoBackup,
    /// A backup that is not there.
    #[error("there is no backup {id}: the repository holds {}", Listed(known))]
    UnknownBackup {
        /// What was asked for.
        id: BackupId,
        /// The backups, newest first.
        known: Vec<BackupId>,
    },
    /// A backup of another cluster.
    #[error(
        "backup {id} is of the cluster with system identifier {backup}, but the repository belongs to \
         {repository}: one of them stands in the wrong place, and wald restores neither into the other"
    )]
    OtherSystem {
        /// The backup.
        id: BackupId,
        /// Its cluster.
        backup: SystemId,
        /// The repository's cluster.
        repository: SystemId,
    },
    /// A backup with other segments than the repository's.
    #[error(
        "backup {id} was taken with WAL segments of {backup} bytes, but the repository's have {repository}: \
         its WAL can't be read from here"
    )]
    OtherSegmentSize {
        /// The backup.
        id: BackupId,
        /// Bytes.
        backup: u32,
        /// Bytes.
        repository: u32,
    },
    /// A timeline that is not there.
    #[error("the repository knows no timeline {timeline}: it knows {}", Listed(known))]
    UnknownTimeline {
        /// What was asked for.
        timeline: TimelineId,
        /// The timelines.
        known: Vec<TimelineId>,
    },
    /// A timeline that branched off before the backup ended, or elsewhere.
    #[error(
        "timeline {timeline} does not contain backup {id}, which ends at {stop_lsn} on timeline \
         {backup_timeline}{}: choose --target-timeline from {}, or another --backup",
        Left(*backup_timeline, *switch_point),
        Listed(possible)
    )]
    NotOnTimeline {
        /// The backup.
        id: BackupId,
        /// The timeline that was to be followed.
        timeline: TimelineId,
        /// The backup's own.
        backup_timeline: TimelineId,
        /// Where the backup ends.
        stop_lsn: Lsn,
        /// Where the backup's timeline was left on the way to `timeline`, if it was.
        switch_point: Option<Lsn>,
        /// The timelines that do contain the backup.
        possible: Vec<TimelineId>,
    },
    /// A target before the backup's end.
    #[error(
        "{target} lies before the end of backup {id}, which can be recovered to {} (LSN {stop_lsn}) at the \
         earliest: {}",
        print_time(*stopped_at),
        Older(older.as_ref())
    )]
    BeforeBackupEnd {
        /// The backup.
        id: BackupId,
        /// The target.
        target: RecoveryTarget,
        /// When the backup ended.
        stopped_at: Timestamp,
        /// Where the backup ended.
        stop_lsn: Lsn,
        /// A backup that would do.
        older: Option<BackupId>,
    },
    /// A time that has not come.
    #[error("time {} lies in the future: it is {} on this host", print_time(*target), print_second(*now))]
    InFuture {
        /// The target.
        target: Timestamp,
        /// This host's clock.
        now: Timestamp,
    },
    /// A time at which the old timeline may still have been the only one.
    #[error(
        "time {} may lie on timeline {abandoned}, which went on behind {switch_point}, where timeline {next} leaves \
         it{}: choose --target-timeline {abandoned} for what was committed there until then, or \
         --target-timeline {followed} for the new line, on which nothing of that is (before {switch_point} \
         they are the same)",
        print_time(*target),
        Begun(*next, *begun)
    )]
    AbandonedTimeline {
        /// The target.
        target: Timestamp,
        /// The timeline that was left.
        abandoned: TimelineId,
        /// The one that would be followed, the latest.
        followed: TimelineId,
        /// The one that begins where `abandoned` is left.
        next: TimelineId,
        /// Where that is.
        switch_point: Lsn,
        /// When the first segment of `next` was stored, if one was.
        begun: Option<Timestamp>,
    },
    /// A target that the archive has not reached.
    #[error(
        "{target} lies after the last WAL of timeline {timeline}, which ends at LSN {reached} and was stored at {}: \
         choose an earlier target, or none to recover to the end of WAL",
        print_second(*stored_until)
    )]
    AfterLastWal {
        /// The target.
        target: RecoveryTarget,
        /// The timeline that was to be followed.
        timeline: TimelineId,
        /// The end of the last segment.
        reached: Lsn,
        /// When it was stored.
        stored_until: Timestamp,
    },
    /// Segments that are missing before the target.
    #[error(
        "WAL is missing before {target}: {missing} is not in the repository, though {resumes} is; recovery is \
         possible up to LSN {reached}, stored at {}: choose a target time before that, or --target-lsn {last_start}",
        print_second(*stored_until)
    )]
    Gap {
        /// The target.
        target: RecoveryTarget,
        /// The first missing segment.
        missing: SegmentName,
        /// The first stored segment behind the gap.
        resumes: SegmentName,
        /// The end of the last WAL before the gap.
        reached: Lsn,
        /// When that was stored.
        stored_until: Timestamp,
        /// A position that surely can be recovered to.
        last_start: Lsn,
    },
    /// Segments that are missing inside a backup.
    #[error(
        "backup {id} can't be made consistent: its WAL segment {missing} is not in the repository; \
         choose an older backup and a target before the gap, or a newer backup (see wald list)"
    )]
    BackupWalMissing {
        /// The backup.
        id: BackupId,
        /// The first missing segment.
        missing: SegmentName,
    },
}

struct Listed<'a, T>(&'a [T]);

impl<T: fmt::Display> fmt::Display for Listed<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN_MAX: usize = 10;
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (index, item) in self.0.iter().take(SHOWN_MAX).enumerate() {
            write!(f, "{}{item}", if index == 0 { "" } else { ", " })?;
        }
        match self.0.len().checked_sub(SHOWN_MAX) {
            None | Some(0) => Ok(()),
            Some(more) => write!(f, " and {more} more"),
        }
    }
}

struct Left(TimelineId, Option<Lsn>);

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            Some(lsn) => write!(f, " (it leaves timeline {} at {lsn})", self.0),
            None => Ok(()),
        }
    }
}

struct Begun(TimelineId, Option<Timestamp>);

impl fmt::Display for Begun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            Some(time) => {
                write!(f, ", and nothing of timeline {} was stored before {}", self.0, print_second(time))
            }
            None => write!(f, ", and nothing of timeline {} is stored", self.0),
        }
    }
}

struct Older<'a>(Option<&'a BackupId>);

impl fmt::Display for Older<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(id) => write!(f, "choose --backup {id}"),
            None => f.write_str("no older backup of this history reaches it, so choose a later target"),
        }
    }
}
