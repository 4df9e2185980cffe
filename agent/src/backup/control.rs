//! `pg_control`, copied last.
//!
//! PostgreSQL rewrites the file in place; a copy is taken only of a state whose CRC holds.
//! It is copied after everything else because on a standby it says how far replay must go,
//! which must not be less than what the other files have already seen.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use wald_core::control_file::{ControlFile, ControlFileError};

/// How often to read before a wrong CRC is believed; a write takes microseconds,
const READS_MAX: u32 = 100;
/// and how long to wait between.
const READ_DELAY: Duration = Duration::from_millis(10);

/// A copy whose CRC holds.
#[derive(Clone, Debug)]
pub struct ControlCopy {
    /// What it says.
    pub control: ControlFile,
    /// The file.
    pub bytes: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    /// Seconds since 1970 of the last change.
    pub modified_second: i64,
}

/// Why there is no good copy.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The file could not be read.
    #[error("can't read {}: [cluster] data_dir must be the server's data directory, and wald needs the rights of its user", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// The file makes no sense, however often it is read.
    #[error("{} can't be used", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: ControlFileError,
    },
}

/// Reads `pg_control` until its CRC holds. Blocks.
pub fn read_control(data_dir: &Path) -> Result<ControlCopy, ControlError> {
    let path = data_dir.join(ControlFile::PATH);
    let read_error = |source| ControlError::Read { path: path.clone(), source };
    let mut reads = 0;
    loop {
        let bytes = fs::read(&path).map_err(read_error)?;
        reads += 1;
        match ControlFile::parse(&bytes) {
            Ok(control) => {
                let metadata = fs::metadata(&path).map_err(read_error)?;
                return Ok(ControlCopy {
                    control,
                    bytes,
                    mode: metadata.mode() & 0o7777,
                    modified_second: metadata.mtime(),
                });
            }
            Err(error) if error.is_torn() && reads < READS_MAX => std::thread::sleep(READ_DELAY),
            Err(source) => return Err(ControlError::Content { path, source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_without_a_control_file_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let error = read_control(directory.path()).unwrap_err().to_string();
        assert!(error.contains("global/pg_control") && error.contains("data_dir"), "{error}");
    }

    #[test]
    fn a_file_of_another_version_is_refused_at_once() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("global")).unwrap();
        fs::write(directory.path().join("global/pg_control"), [7; ControlFile::BYTES]).unwrap();
        let error = read_control(directory.path()).unwrap_err();
        let versioned =
            matches!(error, ControlError::Content { source: ControlFileError::Version { .. }, .. });
        assert!(versioned, "{error:?}");
    }
}
