//! The boost that is in force: `<agent.state_dir>/controls/boost.json`.
//!
//! Invariants: it is durable before the first setting is changed, and is removed only after every
//! setting was taken back, or was found changed by somebody else. As long as it is there, a boost
//! may be in force.

use crate::control::state_file::StateFile;
use crate::fs::FsError;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// A boost.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Boost {
    /// Whose settings these are.
    pub system_id: String,
    /// When it began.
    pub since: Timestamp,
    /// When it is taken back.
    pub until: Timestamp,
    /// Who asked for it.
    pub by: String,
    /// What it changes.
    pub settings: Vec<BoostedSetting>,
}

/// One setting.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct BoostedSetting {
    /// Its name.
    pub name: String,
    /// What `postgresql.auto.conf` said before; absent where it did not name it.
    pub before: Option<String>,
    /// What wald writes there.
    pub ours: String,
    /// What was in force before, as `pg_settings.setting` shows it.
    pub in_force_before: f64,
    /// What is in force with the boost, likewise.
    pub in_force_ours: f64,
}

/// The file.
#[derive(Clone, Debug)]
pub struct BoostJournal {
    file: StateFile,
}

impl BoostJournal {
    /// The one below a state directory.
    pub fn below(state_dir: &Path) -> Self {
        Self { file: StateFile::below(state_dir, "controls/boost.json") }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// The boost that may be in force.
    pub fn read(&self) -> Result<Option<Boost>, FsError> {
        self.file.read()
    }

    /// Puts it on record, durably.
    pub fn write(&self, boost: &Boost) -> Result<(), FsError> {
        self.file.replace(boost)
    }

    /// Everything is taken back.
    pub fn remove(&self) -> Result<(), FsError> {
        self.file.remove()
    }
}
