//! The journal: what was begun and done, and what is needed to go on or back after a crash.
//!
//! Invariant: it is on disk before the first effect of a step. It stays after the end, with the
//! end in it, until the next promotion begins.

use super::error::PromoteError;
use crate::control::audit::who;
use crate::control::claim::owned;
use crate::control::state_file::StateFile;
use crate::fs::FsError;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use wald_core::lsn::Lsn;
use wald_core::promotion::condition::{Condition, Finding};
use wald_core::promotion::fence::Evidence;
use wald_core::promotion::{Act, Progress};
use wald_core::timeline::TimelineId;

/// The file, below the state directory.
pub(super) const FILE: &str = "controls/promotion.json";
const LOCK: &str = "controls/promotion.lock";

/// A promotion from its first step on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Journal {
    /// Of this file.
    pub format: u32,
    /// Its name: when it began.
    pub id: String,
    /// Who began it.
    pub who: String,
    /// When.
    pub started_at: Timestamp,
    /// When and how it ended; none while it is open.
    pub ended: Option<JournalEnd>,
    /// The conditions that it may go on without.
    pub forced: Vec<Condition>,
    /// How far it has come.
    pub progress: Progress,
    /// The conditions, as they were found last.
    pub findings: Vec<Finding>,
    /// What was done, in order.
    pub steps: Vec<StepRecord>,
    /// What was learned on the way.
    pub facts: Facts,
    /// A hook that may be running.
    pub hook: Option<RunningHook>,
}

/// The end of a promotion.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JournalEnd {
    /// When.
    pub at: Timestamp,
    /// Whether this server was promoted; else all was taken back.
    pub promoted: bool,
}

/// One step that was begun.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StepRecord {
    /// Which.
    pub act: Act,
    /// When.
    pub began_at: Timestamp,
    /// When it ended; none if the run was killed within it, or is in it.
    pub ended_at: Option<Timestamp>,
    /// Why it failed, if it did.
    pub failed: Option<String>,
    /// What is worth knowing.
    pub notes: Vec<String>,
}

/// What was learned on the way.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Facts {
    /// The timeline of the standby.
    pub timeline_before: Option<TimelineId>,
    /// The new one.
    pub timeline_after: Option<TimelineId>,
    /// Whether the old primary took writes before it was fenced: whether there is anything to take
    /// back.
    #[serde(default)]
    pub old_took_writes: bool,
    /// How far the old primary had written when it was last asked before the fence.
    pub primary_lsn: Option<Lsn>,
    /// What the standby had received when it was promoted.
    pub received_lsn: Option<Lsn>,
    /// What it had replayed then.
    pub replayed_lsn: Option<Lsn>,
    /// Where the new timeline begins, by its history.
    pub switch_lsn: Option<Lsn>,
    /// Where the new primary was when it was first asked.
    pub promoted_lsn: Option<Lsn>,
    /// The lag as it was measured before the first step, in milliseconds; none if it was too long.
    pub lag_millis: Option<u64>,
    /// What speaks for the fence.
    pub evidence: Option<Evidence>,
    /// How the old primary is fenced, in words.
    pub fenced: Option<String>,
    /// When the old primary's data directory was last told, where it is.
    pub old_data_directory: Option<String>,
    /// When this server's postmaster had been started, as of the moment before the promotion was
    /// asked for.
    pub postmaster_started: Option<String>,
    /// From here on clients could not write.
    pub writes_stopped_at: Option<Timestamp>,
    /// From here on they could again.
    pub writes_back_at: Option<Timestamp>,
    /// Routers that were passed over because that was forced.
    pub routers_skipped: Vec<String>,
    /// HAProxy's servers that were in maintenance before.
    pub in_maintenance_before: Vec<String>,
    /// PgBouncer's files as they were before they were changed.
    pub files_before: BTreeMap<PathBuf, String>,
    /// Whole segments that the repository lacks at the end of the old timeline.
    pub segments_to_archive: Vec<String>,
}

/// A hook's process, told apart from a later one with the same id by when it began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningHook {
    /// Its process id, and its group's.
    pub pid: u32,
    /// Field 22 of `/proc/<pid>/stat`.
    pub started_ticks: u64,
}

impl Journal {
    /// A new one.
    pub fn new(now: Timestamp, forced: Vec<Condition>, findings: Vec<Finding>, facts: Facts) -> Self {
        Self {
            format: 1,
            id: now.strftime("%Y%m%dT%H%M%SZ").to_string(),
            who: who(),
            started_at: now,
            ended: None,
            forced,
            progress: Progress::default(),
            findings,
            steps: Vec::new(),
            facts,
            hook: None,
        }
    }

    /// Adds a note to the step that is under way.
    pub fn note(&mut self, note: impl Into<String>) {
        if let Some(step) = self.steps.last_mut() {
            step.notes.push(note.into());
        }
    }

    /// Whether a router takes part.
    pub fn takes_part(&self, router: &str) -> bool {
        !self.facts.routers_skipped.iter().any(|skipped| skipped == router)
    }
}

/// The lock of the one run on this host; released when it is dropped, or with the process.
#[derive(Debug)]
pub struct RunLock {
    _file: File,
}

/// Takes the lock, or says that another run has it. Whoever takes it leaves files behind that the agent
/// has to be able to replace.
pub(super) fn lock(state_dir: &Path) -> Result<RunLock, PromoteError> {
    owned(state_dir)?;
    let path = state_dir.join(LOCK);
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(|error| FsError::new("create", dir, error))?;
    }
    let file = File::create(&path).map_err(|error| FsError::new("open", &path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(RunLock { _file: file }),
        Err(std::fs::TryLockError::WouldBlock) => Err(PromoteError::Locked { path }),
        Err(std::fs::TryLockError::Error(error)) => Err(FsError::new("lock", &path, error).into()),
    }
}

/// The journal's file.
pub(super) fn file(state_dir: &Path) -> StateFile {
    StateFile::below(state_dir, FILE)
}
