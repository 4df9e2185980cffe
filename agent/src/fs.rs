//! The local file system as wald needs it: files opened beneath a directory without following
//! links, mapped WAL, and files that appear whole or not at all.
//!
//! Invariant: nothing here decides; every function does one thing and names the path that it
//! failed on.

pub mod demand;
pub mod map;
pub mod place;

use std::path::{Path, PathBuf};

/// An operation on a path that failed.
#[derive(Debug, thiserror::Error)]
#[error("can't {action} {}", path.display())]
pub struct FsError {
    action: &'static str,
    path: PathBuf,
    #[source]
    source: std::io::Error,
}

impl FsError {
    /// `action` reads as in "can't {action} {path}".
    pub fn new(action: &'static str, path: impl AsRef<Path>, source: impl Into<std::io::Error>) -> Self {
        Self { action, path: path.as_ref().to_owned(), source: source.into() }
    }

    /// The kind of failure.
    pub fn kind(&self) -> std::io::ErrorKind {
        self.source.kind()
    }
}
