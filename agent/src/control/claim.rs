//! The right to leave something below `<agent.state_dir>/controls`: one process at a time, and only
//! the user that owns the state directory, which is the agent's.
//!
//! A file that root writes there could not be replaced or removed by the agent later, and a change
//! that the agent has to take back would stay. So a command that leaves something there is refused
//! to any other user before it does anything.

use crate::fs::FsError;
use std::fs::{self, File, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Held as long as something is changed there; the kernel gives it up with the process.
#[derive(Debug)]
pub struct Claim {
    _lock: File,
}

/// Why nothing may be written there.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// It can't be used.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// It is somebody else's.
    #[error(
        "{} belongs to uid {owner} and this is uid {own}: what this command leaves there must be the agent's; \
         run it as that user, as in sudo -u postgres wald ...", dir.display()
    )]
    Owner {
        /// The state directory.
        dir: PathBuf,
        /// Its owner.
        owner: u32,
        /// Who runs this.
        own: u32,
    },
    /// Another process is at it.
    #[error("another wald is changing {what} just now: try again when it is done")]
    Busy {
        /// What is being changed.
        what: &'static str,
    },
}

impl Claim {
    /// Takes the claim on `what`, such as "boost", below a state directory that must be there.
    pub fn take(state_dir: &Path, what: &'static str) -> Result<Self, ClaimError> {
        owned(state_dir)?;
        Self::lock(state_dir, what)
    }

    /// The same to take something back, which root may do as well: who left it there made the files.
    pub fn take_to_undo(state_dir: &Path, what: &'static str) -> Result<Self, ClaimError> {
        if !rustix::process::geteuid().is_root() {
            owned(state_dir)?;
        }
        Self::lock(state_dir, what)
    }

    fn lock(state_dir: &Path, what: &'static str) -> Result<Self, ClaimError> {
        let dir = state_dir.join("controls");
        fs::create_dir_all(&dir).map_err(|error| FsError::new("create", &dir, error))?;
        let path = dir.join(format!("{what}.lock"));
        let file = File::create(&path).map_err(|error| FsError::new("open", &path, error))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _lock: file }),
            Err(TryLockError::WouldBlock) => Err(ClaimError::Busy { what }),
            Err(TryLockError::Error(error)) => Err(FsError::new("lock", &path, error).into()),
        }
    }
}

/// Fails unless the process runs as the owner of `state_dir`.
pub fn owned(state_dir: &Path) -> Result<(), ClaimError> {
    let found =
        fs::metadata(state_dir).map_err(|error| FsError::new("look at agent.state_dir", state_dir, error))?;
    let (owner, own) = (found.uid(), rustix::process::geteuid().as_raw());
    if owner == own {
        return Ok(());
    }
    Err(ClaimError::Owner { dir: state_dir.to_owned(), owner, own })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_at_a_time_has_the_claim() {
        let dir = tempfile::tempdir().unwrap();
        let first = Claim::take(dir.path(), "boost").unwrap();
        assert!(matches!(Claim::take(dir.path(), "boost"), Err(ClaimError::Busy { .. })));
        Claim::take(dir.path(), "tune").unwrap();
        drop(first);
        // A child that another test starts has the lock, too, until it executes its program.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while let Err(error) = Claim::take(dir.path(), "boost") {
            assert!(std::time::Instant::now() < deadline, "{error}");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    #[test]
    fn a_state_directory_that_is_not_there_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = Claim::take(&dir.path().join("none"), "boost").unwrap_err().to_string();
        assert!(error.contains("none") && error.contains("agent.state_dir"), "{error}");
    }
}
