//! What the nightly runs did: one small file for each kind below `agent.state_dir`, so that
//! `wald status` and the agent's metrics can say when the last good one was.
//!
//! Invariants: a file is replaced whole and fsynced; the last good run is remembered through any
//! number of bad ones. These files are for people and alerts: nothing that restores, expires or
//! verifies reads them. What a run proved or removed stands in the repository as well.

use crate::fs::FsError;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// What runs by itself, every night.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunKind {
    /// `wald backup`, and the agent's own after WAL was given up.
    Backup,
    /// `wald verify`.
    Verify,
    /// `wald expire`.
    Expire,
}

impl RunKind {
    /// All of them.
    pub const ALL: [RunKind; 3] = [RunKind::Backup, RunKind::Verify, RunKind::Expire];

    /// The command's name, which is the file's too.
    pub const fn name(self) -> &'static str {
        match self {
            RunKind::Backup => "backup",
            RunKind::Verify => "verify",
            RunKind::Expire => "expire",
        }
    }
}

impl fmt::Display for RunKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How a run ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunEnd {
    /// All of it was done, and nothing was found.
    Good,
    /// All of it was done, and somebody must look at what it found.
    Findings,
    /// It could not be done, or not all of it.
    Failed,
}

/// One run.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Run {
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Timestamp,
    /// How.
    pub end: RunEnd,
    /// What it did, found or failed with; one line.
    pub summary: String,
}

/// The runs of one kind that matter.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LastRuns {
    /// The last one.
    pub last: Run,
    /// The last good one, if there ever was one.
    pub last_good: Option<Run>,
}

/// Longest summary that is kept, in bytes.
const SUMMARY_BYTES_MAX: usize = 2000;
/// No file of these is larger.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Remembers a run on this host.
pub fn record(state_dir: &Path, kind: RunKind, mut run: Run) -> Result<(), FsError> {
    let dir = state_dir.join("runs");
    fs::create_dir_all(&dir).map_err(|error| FsError::new("create", &dir, error))?;
    // Two runs may end at the same time: neither must lose what the other wrote.
    let lock_path = dir.join("lock");
    let lock = File::create(&lock_path).map_err(|error| FsError::new("open", &lock_path, error))?;
    lock.lock().map_err(|error| FsError::new("lock", &lock_path, error))?;
    run.summary = run.summary.chars().take(SUMMARY_BYTES_MAX / 4).collect();
    // A file that can't be read holds nothing worth keeping.
    let before = read(state_dir, kind).ok().flatten();
    let last_good =
        if run.end == RunEnd::Good { Some(run.clone()) } else { before.and_then(|b| b.last_good) };
    replace(&file(state_dir, kind), &LastRuns { last: run, last_good })
}

/// The runs of this kind on this host; `None` if there was none yet.
pub fn read(state_dir: &Path, kind: RunKind) -> Result<Option<LastRuns>, FsError> {
    let path = file(state_dir, kind);
    let failed = |error: std::io::Error| FsError::new("read", &path, error);
    match fs::metadata(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
        Ok(found) if found.len() > FILE_BYTES_MAX => return Err(failed(ErrorKind::FileTooLarge.into())),
        Ok(_) => {}
    }
    let text = fs::read(&path).map_err(failed)?;
    serde_json::from_slice(&text).map(Some).map_err(|error| failed(error.into()))
}

fn file(state_dir: &Path, kind: RunKind) -> PathBuf {
    state_dir.join("runs").join(format!("{kind}.json"))
}

fn replace(path: &Path, runs: &LastRuns) -> Result<(), FsError> {
    let temporary = path.with_extension("new");
    let text = serde_json::to_vec(runs).map_err(|error| FsError::new("write", path, error))?;
    let written = File::create(&temporary).and_then(|mut file| {
        file.write_all(&text)?;
        file.sync_all()
    });
    written.map_err(|error| FsError::new("write", &temporary, error))?;
    fs::rename(&temporary, path).map_err(|error| FsError::new("replace", path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(second: i64, end: RunEnd) -> Run {
        let at = |second| Timestamp::from_second(second).unwrap();
        Run { started_at: at(second), ended_at: at(second + 1), end, summary: format!("{end:?}") }
    }

    #[test]
    fn the_last_good_run_is_remembered_through_bad_ones() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path(), RunKind::Verify).unwrap(), None);
        for (second, end) in [(1, RunEnd::Good), (2, RunEnd::Findings), (3, RunEnd::Failed)] {
            record(dir.path(), RunKind::Verify, run(second, end)).unwrap();
        }
        let runs = read(dir.path(), RunKind::Verify).unwrap().unwrap();
        assert_eq!((runs.last, runs.last_good), (run(3, RunEnd::Failed), Some(run(1, RunEnd::Good))));
        assert_eq!(read(dir.path(), RunKind::Expire).unwrap(), None);
    }

    #[test]
    fn runs_that_end_at_the_same_time_lose_nothing() {
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for second in 0..8 {
                let dir = dir.path();
                let end = if second == 3 { RunEnd::Good } else { RunEnd::Failed };
                scope.spawn(move || record(dir, RunKind::Backup, run(second, end)).unwrap());
            }
        });
        let runs = read(dir.path(), RunKind::Backup).unwrap().unwrap();
        assert_eq!(runs.last_good, Some(run(3, RunEnd::Good)));
    }

    #[test]
    fn a_damaged_file_is_an_error_to_read_and_no_obstacle_to_the_next_run() {
        let dir = tempfile::tempdir().unwrap();
        record(dir.path(), RunKind::Backup, run(1, RunEnd::Good)).unwrap();
        fs::write(dir.path().join("runs/backup.json"), b"{").unwrap();
        assert!(read(dir.path(), RunKind::Backup).unwrap_err().to_string().contains("backup.json"));
        record(dir.path(), RunKind::Backup, run(2, RunEnd::Good)).unwrap();
        assert!(read(dir.path(), RunKind::Backup).unwrap().is_some());
    }

    #[test]
    fn a_long_summary_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let mut long = run(1, RunEnd::Failed);
        long.summary = "\u{1F600}".repeat(100_000);
        record(dir.path(), RunKind::Backup, long).unwrap();
        let runs = read(dir.path(), RunKind::Backup).unwrap().unwrap();
        assert!(runs.last.summary.len() <= SUMMARY_BYTES_MAX);
    }
}
