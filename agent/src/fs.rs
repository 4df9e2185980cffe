//! The local file system as wald needs it: files opened beneath a directory without following
//! links, mapped WAL, and files that appear whole or not at all.
//!
//! Invariant: nothing here decides; every function does one thing and names the path, if it has one, that it
//! failed on.

pub mod demand;
pub mod map;
pub mod place;

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
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

/// Reads from `offset` on until the buffer is full or the file ends; returns how many bytes. The file's own
/// position plays no part.
pub fn read_up_to(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut read = 0;
    while let Some(rest) = buffer.get_mut(read..).filter(|rest| !rest.is_empty()) {
        let at = offset.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
        match file.read_at(rest, at) {
            Ok(0) => break,
            Ok(count) => read += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}
