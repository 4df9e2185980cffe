//! The cluster on this host, as its data directory tells: `pg_control` against the repository.
//!
//! Invariant: nothing is archived or backed up from a data directory whose system identifier
//! or segment size is not the repository's.

use crate::fs::FsError;
use std::path::{Path, PathBuf};
use std::time::Duration;
use wald_core::control_file::{ControlFile, ControlFileError};
use wald_core::identity::Identity;
use wald_core::segment::SegmentSize;
use wald_core::system_id::SystemId;

/// How often a torn `pg_control` is read again: the server may be writing it.
const READ_ATTEMPTS_MAX: u32 = 20;
const READ_PAUSE: Duration = Duration::from_millis(10);

/// Why a data directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// It can't be read.
    #[error("the data directory (cluster.data_dir) can't be used")]
    Fs(#[from] FsError),
    /// Its `pg_control` is damaged or unknown.
    #[error("{} can't be used", path.display())]
    Control {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: ControlFileError,
    },
    /// It is another cluster than the repository's.
    #[error(
        "{} belongs to system {found} with segments of {found_size} bytes, the repository to system {expected} with \
         {expected_size}: a repository serves one cluster; give this one its own repository.url",
        path.display(), found_size = found_size.bytes(), expected_size = expected_size.bytes()
    )]
    Other {
        /// The data directory.
        path: PathBuf,
        /// The repository's system.
        expected: SystemId,
        /// The repository's segment size.
        expected_size: SegmentSize,
        /// The data directory's system.
        found: SystemId,
        /// The data directory's segment size.
        found_size: SegmentSize,
    },
}

/// Reads `global/pg_control` of a data directory.
pub fn read_control(data_dir: &Path) -> Result<ControlFile, ClusterError> {
    let path = data_dir.join("global/pg_control");
    let mut attempt = 0;
    loop {
        attempt += 1;
        let bytes = std::fs::read(&path).map_err(|source| FsError::new("read", &path, source))?;
        match ControlFile::parse(&bytes) {
            Ok(control) => return Ok(control),
            Err(error) if error.is_torn() && attempt < READ_ATTEMPTS_MAX => std::thread::sleep(READ_PAUSE),
            Err(source) => return Err(ClusterError::Control { path, source }),
        }
    }
}

/// Checks that a data directory is the repository's cluster.
pub fn check(data_dir: &Path, identity: &Identity) -> Result<(), ClusterError> {
    let control = read_control(data_dir)?;
    let (found, found_size) = (control.system_id(), control.segment_size());
    if (found, found_size) == (identity.system_id(), identity.segment_size()) {
        return Ok(());
    }
    Err(ClusterError::Other {
        path: data_dir.to_owned(),
        expected: identity.system_id(),
        expected_size: identity.segment_size(),
        found,
        found_size,
    })
}
