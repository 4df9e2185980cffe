//! How fast things went on this host: one small file for each phase of a recovery below
//! `agent.state_dir`, for the estimate of how long the next one takes.
//!
//! Invariant: only a measurement that means something replaces another. A file that can't be read is
//! no measurement, and the estimate says that it reckons with a default.

use crate::control::state_file::StateFile;
use crate::fs::FsError;
use std::path::Path;
use wald_core::rto::MeasuredRate;

/// What was measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// A base backup into a data directory, by `wald restore`.
    Restore,
    /// WAL through `restore_command`, by the agent.
    Replay,
}

impl Phase {
    /// Its file's name, and its label in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Phase::Restore => "restore",
            Phase::Replay => "replay",
        }
    }
}

/// Remembers a measurement.
pub fn record(state_dir: &Path, phase: Phase, rate: &MeasuredRate) -> Result<(), FsError> {
    file(state_dir, phase).replace(rate)
}

/// The last measurement; `None` if there was none yet.
pub fn read(state_dir: &Path, phase: Phase) -> Result<Option<MeasuredRate>, FsError> {
    file(state_dir, phase).read()
}

fn file(state_dir: &Path, phase: Phase) -> StateFile {
    StateFile::below(state_dir, &format!("rates/{}.json", phase.name()))
}
