//! The directory where fetched files wait for PostgreSQL.
//!
//! Invariants: it belongs to one process (a lock is held) and is wiped when that process
//! starts; what stands in it was proven by this very process, or is a file still being
//! written that nobody is told of.

use crate::fs::FsError;
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A wiped, locked spool directory.
#[derive(Debug)]
pub struct Spool {
    directory: PathBuf,
    /// Held for the life of the process.
    _lock: File,
    next: AtomicU64,
}

impl Spool {
    /// Locks and empties `directory`; makes it (mode 0700) if it is not there.
    pub fn take(directory: &Path) -> Result<Self, FsError> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(|source| FsError::new("make", directory, source))?;
        let lock_path = directory.join("lock");
        let lock = File::create(&lock_path).map_err(|source| FsError::new("open", &lock_path, source))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|source| FsError::new("lock (is another agent using it?)", &lock_path, source))?;
        let entries = fs::read_dir(directory).map_err(|source| FsError::new("list", directory, source))?;
        for entry in entries {
            let path = entry.map_err(|source| FsError::new("list", directory, source))?.path();
            // Only what a spool makes: a wrong spool_dir must not cost anybody a file.
            let ours =
                path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.ends_with(".spool"));
            if ours {
                fs::remove_file(&path).map_err(|source| FsError::new("remove", &path, source))?;
            }
        }
        Ok(Self { directory: directory.to_owned(), _lock: lock, next: AtomicU64::new(0) })
    }

    /// A path that no other file of this process has had. The file is a
    /// [`Draft`](crate::fs::place::Draft), which removes itself unless it is placed.
    pub fn fresh_path(&self, name: impl std::fmt::Display) -> PathBuf {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.directory.join(format!("{name}.{number}.spool"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spool_is_wiped_when_taken_and_belongs_to_one() {
        let dir = tempfile::tempdir().unwrap();
        let spool_dir = dir.path().join("a/spool");
        let spool = Spool::take(&spool_dir).unwrap();
        assert!(Spool::take(&spool_dir).unwrap_err().to_string().contains("another agent"));
        fs::write(spool.fresh_path("x"), "left").unwrap();
        fs::write(spool_dir.join("not ours"), "stays").unwrap();
        drop(spool);
        let spool = Spool::take(&spool_dir).unwrap();
        assert!(!spool.fresh_path("x").exists());
        assert_eq!(fs::read_dir(&spool_dir).unwrap().count(), 2, "the lock and the foreign file");
    }
}
