//! Small JSON files that decide what happens after a crash: replaced whole, and durable before
//! the caller goes on.

use crate::fs::FsError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// No file of these is larger.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// A file whose content is one value.
#[derive(Clone, Debug)]
pub struct StateFile {
    path: PathBuf,
}

impl StateFile {
    /// `<state_dir>/<name>`.
    pub fn below(state_dir: &Path, name: &str) -> Self {
        Self { path: state_dir.join(name) }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The value; `None` if there is no file. One that can't be understood is an error: what it
    /// says must not be forgotten.
    pub fn read<T: DeserializeOwned>(&self) -> Result<Option<T>, FsError> {
        let failed = |error: std::io::Error| FsError::new("read", &self.path, error);
        let file = match File::open(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            file => file.map_err(failed)?,
        };
        let mut text = Vec::new();
        file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text).map_err(failed)?;
        serde_json::from_slice(&text).map(Some).map_err(|error| failed(error.into()))
    }

    /// Replaces the value; durable when this returns.
    pub fn replace<T: Serialize>(&self, value: &T) -> Result<(), FsError> {
        let failed = |action, path: &Path, error: std::io::Error| FsError::new(action, path, error);
        let text =
            serde_json::to_vec_pretty(value).map_err(|error| failed("write", &self.path, error.into()))?;
        if let Some(dir) = self.path.parent() {
            fs::create_dir_all(dir).map_err(|error| failed("create", dir, error))?;
        }
        let temporary = self.path.with_extension("new");
        // Data first, then the name, then the directory that holds the name.
        // It may hold what the server's configuration holds, such as passwords: nobody else reads it.
        let opened = File::options().write(true).create(true).truncate(true).mode(0o600).open(&temporary);
        let written = opened.and_then(|mut file| {
            file.write_all(&text)?;
            file.sync_all()
        });
        written.map_err(|error| failed("write", &temporary, error))?;
        fs::rename(&temporary, &self.path).map_err(|error| failed("replace", &self.path, error))?;
        self.sync_dir()
    }

    /// Removes it; durable when this returns. That there is none is fine.
    pub fn remove(&self) -> Result<(), FsError> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(FsError::new("remove", &self.path, error)),
            Ok(()) => self.sync_dir(),
        }
    }

    fn sync_dir(&self) -> Result<(), FsError> {
        let Some(dir) = self.path.parent() else { return Ok(()) };
        let synced = File::open(dir).and_then(|dir| dir.sync_all());
        synced.map_err(|error| FsError::new("sync", dir, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_reads_back_until_it_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let file = StateFile::below(dir.path(), "controls/boost.json");
        assert_eq!(file.read::<u32>().unwrap(), None);
        file.replace(&1_u32).unwrap();
        file.replace(&2_u32).unwrap();
        assert_eq!(file.read::<u32>().unwrap(), Some(2));
        file.remove().unwrap();
        file.remove().unwrap();
        assert_eq!(file.read::<u32>().unwrap(), None);
    }

    #[test]
    fn a_damaged_file_is_an_error_and_not_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = StateFile::below(dir.path(), "boost.json");
        fs::write(file.path(), b"{").unwrap();
        assert!(file.read::<u32>().unwrap_err().to_string().contains("boost.json"));
    }
}
