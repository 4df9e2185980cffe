//! What a tool has to be able to do to be compared, and who they are.
//!
//! A tool that lacks something answers `None`: it is left out of that table and not failed. Each
//! run gets a new repository; replay and restore use the one that the tool itself filled.

use crate::stage::{Endpoint, Stage};
use anyhow::Result;
use std::path::{Path, PathBuf};
use std::process::Command;
use wald_integration::postgres::Cluster;

/// Where a tool keeps what it stores.
#[derive(Debug, Clone)]
pub enum Repository {
    /// A bucket of the S3 server.
    Bucket(String),
    /// A directory.
    Directory(PathBuf),
}

/// What a tool is to work on.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// A name for its files, not used before.
    pub name: &'a str,
    /// The cluster; it need not run.
    pub cluster: &'a Cluster,
    /// The repository.
    pub repository: &'a Repository,
    /// Whether that is new, and has to be made known first.
    pub state: RepositoryState,
    /// How many files or parts are worked on at the same time.
    pub workers: u32,
    /// The way to the S3 server.
    pub endpoint: Endpoint,
}

/// Whether a repository was used before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepositoryState {
    /// Empty.
    New,
    /// Filled by the same tool from the same cluster.
    Filled,
}

/// One of those that are compared.
pub trait Tool {
    /// What it is called in tables and on the command line.
    fn name(&self) -> &'static str;

    /// Its version and the settings that it runs with, a sentence or so each; an error says why it
    /// can't take part.
    fn about(&self) -> Result<Vec<String>>;

    /// Whether it can be asked to do all that the others do.
    fn pace(&self) -> Pace {
        Pace::Full
    }

    /// The tool whose repository it restores from, for one that does not archive.
    fn reads_from(&self) -> &'static str {
        self.name()
    }

    /// Makes an empty repository.
    fn make_repository(&self, stage: &Stage, name: &str) -> Result<Repository>;

    /// Installs it for a cluster, and starts its daemon if it has one.
    fn install(&self, stage: &Stage, job: &Job) -> Result<Box<dyn Installed>>;
}

/// A tool that is ready to work; dropped, it stops.
pub trait Installed {
    /// What PostgreSQL is started with.
    fn environment(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    /// For `archive_command`.
    fn archive_command(&self) -> Option<String>;

    /// For `restore_command`.
    fn restore_command(&self) -> Option<String> {
        None
    }

    /// Takes a full backup of the running cluster.
    fn backup(&self) -> Option<Command> {
        None
    }

    /// Restores the newest backup.
    fn restore(&self, _to: &Path, _how: Restore) -> Option<Command> {
        None
    }

    /// What it has stored: names and sizes.
    fn stored(&self) -> Result<Vec<(String, u64)>>;

    /// Whether a name among those is WAL.
    fn is_wal(&self, name: &str) -> bool;
}

/// How much a tool is given to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Everything, in every round.
    Full,
    /// A few segments, once: it would take most of the time of the whole comparison.
    Slow,
}

/// Into what a backup is restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restore {
    /// An empty directory.
    Whole,
    /// What is left of the cluster, whose good files are kept.
    Delta,
}

/// Stored bytes that are WAL, and those that are not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoredBytes {
    /// WAL and what belongs to it.
    pub wal: u64,
    /// How many whole segments.
    pub segments: usize,
    /// The rest.
    pub other: u64,
}

/// Sums up what a tool has stored.
pub fn stored_bytes(installed: &dyn Installed) -> Result<StoredBytes> {
    let mut sum = StoredBytes::default();
    for (name, bytes) in installed.stored()? {
        if installed.is_wal(&name) {
            sum.wal += bytes;
            sum.segments += usize::from(is_a_segment(&name));
        } else {
            sum.other += bytes;
        }
    }
    Ok(sum)
}

/// Whether a file is a whole segment, whatever the tool has appended to its name.
fn is_a_segment(name: &str) -> bool {
    let file = name.rsplit('/').next().unwrap_or_default();
    let hex = file.chars().take_while(char::is_ascii_hexdigit).count();
    let rest = file.get(24..).unwrap_or_default();
    hex == 24 && !rest.contains(".backup") && !rest.contains(".partial") && !rest.contains(".b3")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_told_from_what_stands_beside_it() {
        for name in [
            "wald/wal/000000010000000000000003.zst",
            "archive/main/15-1/0000000100000000/000000010000000000000003-0123abcd.zst",
            "000000010000000000000003",
        ] {
            assert!(is_a_segment(name), "{name}");
        }
        for name in ["wal/000000010000000000000003.00000028.backup", "wal/00000002.history", "archive.info"] {
            assert!(!is_a_segment(name), "{name}");
        }
    }
}
