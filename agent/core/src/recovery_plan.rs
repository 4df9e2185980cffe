//! What a restore will do, decided before it does anything.
//!
//! Invariants of every plan that is returned: its backup ends at or before the target and
//! lies in the history of the timeline that is followed; every segment from the backup's start
//! to the target is stored. What can't be known without reading WAL (where a transaction or
//! a named point stands, whether anything was committed after a time) is said in a note; then
//! PostgreSQL itself stops with an error rather than open short of the target.

mod abandoned;
mod choice;
mod error;
mod print;

pub use error::PlanError;

use crate::backup_id::BackupId;
use crate::catalog::CatalogEntry;
use crate::coverage::{SegmentRange, WalCoverage};
use crate::history::TimelineHistory;
use crate::lsn::Lsn;
use crate::segment::SegmentName;
use crate::system_id::SystemId;
use crate::target::{RecoveryGoal, RecoveryTarget, Setting, TimelineSetting};
use crate::timeline::TimelineId;
use crate::wal_path::{PathEnding, WalPath, follow};
use choice::Choice;
use jiff::{SignedDuration, Timestamp};
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;

/// How long before its true moment a segment may seem to have been stored where another one is
/// missing behind it: S3 lists whole seconds, cut off.
const STORED_AT_TOLERANCE: SignedDuration = SignedDuration::from_secs(2);

/// The same where nothing is missing: the repository's clock may be behind the database's. Taking
/// a target that is a little too late is harmless, because PostgreSQL ends with an error where
/// it does not find it; refusing one that could be reached is not.
const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_mins(5);

/// Settings of a standby or of an earlier recovery, and the values that switch them off. They
/// are always written, because they may also stand in `postgresql.conf`, which a restore does
/// not change: a delayed standby's would make recovery wait for hours, another server's
/// clean-up command would remove what that server needs, and a connection to the old primary
/// would bring WAL from behind the target.
const LEFT_BEHIND: [(&str, &str); 5] = [
    ("recovery_min_apply_delay", "0"),
    ("recovery_end_command", ""),
    ("archive_cleanup_command", ""),
    ("primary_conninfo", ""),
    ("primary_slot_name", ""),
];

/// What is in the repository.
#[derive(Clone, Copy, Debug)]
pub struct Holdings<'a> {
    /// The cluster that the repository belongs to.
    pub system_id: SystemId,
    /// Its backups, in any order.
    pub catalog: &'a [CatalogEntry],
    /// The history files.
    pub histories: &'a BTreeMap<TimelineId, TimelineHistory>,
    /// The WAL.
    pub coverage: &'a WalCoverage,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct PlanRequest {
    /// Where recovery shall end.
    pub goal: RecoveryGoal,
    /// The backup to begin with; none: the newest that can reach the target.
    pub backup: Option<BackupId>,
    /// The command by which the restored server fetches WAL.
    pub restore_command: String,
    /// What becomes of `archive_mode`.
    pub archive_mode: ArchiveMode,
}

/// Whether the restored server archives. Two servers that archive into one repository
/// disagree as soon as one of them writes, so a copy does not unless it is told to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ArchiveMode {
    /// `archive_mode = off`.
    #[default]
    Off,
    /// As the configuration in the backup says: this server takes the old one's place.
    Keep,
}

/// A restore that can be done.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct RecoveryPlan {
    /// The cluster.
    pub system_id: SystemId,
    /// The backup.
    pub backup: PlannedBackup,
    /// Where recovery ends.
    pub target: RecoveryTarget,
    /// Whether the record at the target is replayed.
    pub inclusive: bool,
    /// The timeline that is followed.
    pub timeline: TimelineId,
    /// The way there, from the backup's timeline on.
    pub path: Vec<PathStep>,
    /// The WAL that is replayed; for a time, about; for a transaction, a name, or the end of
    /// WAL, all that can be.
    pub wal: Vec<SegmentRange>,
    /// The end of the last WAL that can be replayed.
    pub wal_end: Lsn,
    /// Number of those segments.
    pub wal_segments: u64,
    /// Size of their objects.
    pub wal_bytes: u64,
    /// Size of the backup's parts and of that WAL.
    pub download_bytes: u64,
    /// What is written to `postgresql.auto.conf`, in this order.
    pub settings: Vec<Setting>,
    /// What the operator should know.
    pub notes: Vec<PlanNote>,
}

/// What a plan says about its backup.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct PlannedBackup {
    /// Its name.
    pub id: BackupId,
    /// The timeline it was taken on.
    pub timeline: TimelineId,
    /// Where replay begins.
    pub start_lsn: Lsn,
    /// Where the data is consistent.
    pub stop_lsn: Lsn,
    /// When that was.
    pub stopped_at: Timestamp,
    /// The server's version, as 150018.
    pub pg_version_num: u32,
    /// Number of its files.
    pub files: u64,
    /// Their size.
    pub raw_bytes: u64,
    /// Size of its parts as stored.
    pub stored_bytes: u64,
}

/// A timeline on the way, and where it is left.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct PathStep {
    /// The timeline.
    pub timeline: TimelineId,
    /// Where the next one begins; none for the last.
    pub until: Option<Lsn>,
}

/// Something that the operator should know, though it is no obstacle.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PlanNote {
    /// The target may lie before this backup.
    TargetMayBeOlder {
        /// The target.
        target: RecoveryTarget,
        /// Where the backup ends.
        stopped_at: Timestamp,
        /// The next older backup that could be named.
        older: Option<BackupId>,
    },
    /// WAL is missing further on.
    GapAhead {
        /// The first missing segment.
        missing: SegmentName,
    },
    /// The last segment was stored after the target, but nothing may have been committed since.
    NothingMayFollow,
    /// The target is later than the last segment was stored, by a little.
    AfterLastStored {
        /// When the last segment was stored.
        stored_until: Timestamp,
    },
    /// The plan was made without something that can't be understood.
    MadeWithout {
        /// The object.
        key: String,
        /// Why.
        reason: String,
    },
    /// The cluster's own pages were damaged when the backup was taken.
    BadPages {
        /// How many.
        count: usize,
    },
    /// The restored server does not archive.
    ArchivingOff,
}

impl Serialize for PlanNote {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Makes the plan, or says why there can be none. `now` is this host's clock.
pub fn plan(
    holdings: Holdings<'_>,
    request: &PlanRequest,
    now: Timestamp,
) -> Result<RecoveryPlan, PlanError> {
    let target = request.goal.target();
    if let RecoveryTarget::Time(time) = target
        && *time > now
    {
        return Err(PlanError::InFuture { target: *time, now });
    }
    let choice = choice::choose(holdings, request)?;
    abandoned::refuse_ambiguous_time(holdings, request, &choice)?;
    let path = usable_wal(holdings, &choice, target)?;
    Ok(compose(holdings, request, choice, path))
}

/// The WAL from the backup's start to the target, if nothing of it is missing.
fn usable_wal(
    holdings: Holdings<'_>,
    choice: &Choice<'_>,
    target: &RecoveryTarget,
) -> Result<WalPath, PlanError> {
    let entry = choice.entry;
    if entry.segment_size() != holdings.coverage.segment_size() {
        return Err(PlanError::OtherSegmentSize {
            id: entry.id().clone(),
            backup: entry.segment_size().bytes(),
            repository: holdings.coverage.segment_size().bytes(),
        });
    }
    let end = match target {
        // The record at the target must be there too, so the byte at it is needed.
        RecoveryTarget::Lsn(lsn) => Some(lsn.checked_add(1).unwrap_or(*lsn)),
        RecoveryTarget::Immediate => Some(entry.stop_lsn()),
        _ => None,
    };
    let path = follow(holdings.coverage, &choice.history, entry.start_lsn(), end);
    if !path.reaches(entry.stop_lsn()) {
        return Err(PlanError::BackupWalMissing {
            id: entry.id().clone(),
            missing: first_missing(&path, entry, holdings.coverage),
        });
    }
    let stored_until = stored_until(&path, entry);
    let covered = match target {
        RecoveryTarget::Time(time) => {
            let gap = matches!(path.ending, PathEnding::Missing { resumes: Some(_), .. });
            let tolerance = if gap { STORED_AT_TOLERANCE } else { CLOCK_TOLERANCE };
            time.duration_since(stored_until) <= tolerance
        }
        RecoveryTarget::Lsn(_) | RecoveryTarget::Immediate => path.ending == PathEnding::Complete,
        // Not reached at a gap, PostgreSQL stops with an error: the note says so.
        RecoveryTarget::Xid(_) | RecoveryTarget::Name(_) => true,
        // A gap would pass for the end: everything behind it would be lost in silence.
        RecoveryTarget::EndOfWal => !matches!(path.ending, PathEnding::Missing { resumes: Some(_), .. }),
    };
    let reached = path.end.unwrap_or(entry.stop_lsn());
    match path.ending {
        _ if covered => Ok(path),
        PathEnding::Missing { segment, resumes: Some(resumes) } => Err(PlanError::Gap {
            target: target.clone(),
            missing: segment,
            resumes,
            reached,
            stored_until,
            last_start: last_start(&path, entry, holdings.coverage),
        }),
        _ => Err(PlanError::AfterLastWal {
            target: target.clone(),
            timeline: choice.history.timeline(),
            reached,
            stored_until,
        }),
    }
}

/// When the last WAL of the path was stored.
fn stored_until(path: &WalPath, entry: &CatalogEntry) -> Timestamp {
    path.last_stored_at().unwrap_or(entry.stopped_at()).max(entry.stopped_at())
}

fn first_missing(path: &WalPath, entry: &CatalogEntry, coverage: &WalCoverage) -> SegmentName {
    match path.ending {
        PathEnding::Missing { segment, .. } => segment,
        PathEnding::Complete => {
            SegmentName::containing(entry.timeline(), entry.start_lsn(), coverage.segment_size())
        }
    }
}

/// A position that surely can be recovered to: the beginning of the last segment, or the
/// backup's end where that is later.
fn last_start(path: &WalPath, entry: &CatalogEntry, coverage: &WalCoverage) -> Lsn {
    let start = path.ranges.last().and_then(|range| range.last.start(coverage.segment_size()));
    start.unwrap_or(entry.stop_lsn()).max(entry.stop_lsn())
}

fn compose(holdings: Holdings<'_>, request: &PlanRequest, choice: Choice<'_>, path: WalPath) -> RecoveryPlan {
    let Choice { entry, history, older } = choice;
    let goal = &request.goal;
    let notes = notes(request, entry, older, &path, holdings.coverage);
    let wal_end = path.end.unwrap_or(entry.stop_lsn());
    let path = match goal.target() {
        RecoveryTarget::Time(time) => path.up_to_time(holdings.coverage, *time),
        _ => path,
    };
    let timeline = history.timeline();
    let timeline_setting =
        if timeline == entry.timeline() { TimelineSetting::Current } else { TimelineSetting::Id(timeline) };
    let mut settings = vec![Setting::new("restore_command", &*request.restore_command)];
    settings.extend(LEFT_BEHIND.map(|(name, nothing)| Setting::new(name, nothing)));
    settings.extend(goal.settings(timeline_setting));
    if request.archive_mode == ArchiveMode::Off {
        settings.push(Setting::new("archive_mode", "off"));
    }
    RecoveryPlan {
        system_id: entry.system_id(),
        backup: PlannedBackup {
            id: entry.id().clone(),
            timeline: entry.timeline(),
            start_lsn: entry.start_lsn(),
            stop_lsn: entry.stop_lsn(),
            stopped_at: entry.stopped_at(),
            pg_version_num: entry.facts().pg_version_num,
            files: entry.files(),
            raw_bytes: entry.raw_bytes(),
            stored_bytes: entry.stored_bytes(),
        },
        target: goal.target().clone(),
        inclusive: goal.inclusion() == crate::target::Inclusion::Inclusive,
        timeline,
        path: steps(&history, entry),
        wal_end,
        wal_segments: path.segments(),
        wal_bytes: path.stored_bytes(),
        download_bytes: entry.stored_bytes().saturating_add(path.stored_bytes()),
        wal: path.ranges,
        settings,
        notes,
    }
}

fn steps(history: &TimelineHistory, entry: &CatalogEntry) -> Vec<PathStep> {
    let stretches = history.stretches();
    let after = stretches.iter().skip_while(|stretch| stretch.timeline != entry.timeline());
    after.map(|stretch| PathStep { timeline: stretch.timeline, until: stretch.end }).collect()
}

fn notes(
    request: &PlanRequest,
    entry: &CatalogEntry,
    older: Option<BackupId>,
    path: &WalPath,
    coverage: &WalCoverage,
) -> Vec<PlanNote> {
    let mut notes = Vec::new();
    let target = request.goal.target();
    let somewhere = matches!(target, RecoveryTarget::Xid(_) | RecoveryTarget::Name(_));
    if somewhere {
        let (target, stopped_at) = (target.clone(), entry.stopped_at());
        notes.push(PlanNote::TargetMayBeOlder { target, stopped_at, older });
    }
    if let PathEnding::Missing { segment: missing, resumes: Some(_) } = path.ending
        && (somewhere || matches!(target, RecoveryTarget::Time(_)))
    {
        notes.push(PlanNote::GapAhead { missing });
    }
    if let RecoveryTarget::Time(time) = target {
        // With a segment before the last one stored after the target, most likely something was
        // committed after it. (Not surely: an archiver that was behind stores old segments late.)
        let whole = path.clone().up_to_time(coverage, *time);
        let stored_until = stored_until(path, entry);
        if time.duration_since(stored_until) > STORED_AT_TOLERANCE {
            notes.push(PlanNote::AfterLastStored { stored_until });
        } else if whole.segments() == path.segments() {
            notes.push(PlanNote::NothingMayFollow);
        }
    }
    if !entry.facts().bad_pages.is_empty() {
        notes.push(PlanNote::BadPages { count: entry.facts().bad_pages.len() });
    }
    if request.archive_mode == ArchiveMode::Off {
        notes.push(PlanNote::ArchivingOff);
    }
    notes
}

#[cfg(test)]
mod tests;
