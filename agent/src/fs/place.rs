//! Files that appear whole or not at all.
//!
//! Invariants: bytes are written under a temporary name and renamed last, so a name never
//! stands for half a file; across file systems they are copied beside the destination first;
//! a placed WAL file has mode 0600, as `pg_rewind` and PostgreSQL expect. Restored WAL is not
//! fsynced: after a crash PostgreSQL asks for it again.

use super::FsError;
use rustix::fs::{Gid, Uid};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const WAL_FILE_MODE: u32 = 0o600;

/// Makes an empty file with mode 0600 that only this process writes to; an old one of the
/// same name, left by a process that died, is removed first.
pub fn create_private(path: &Path) -> Result<File, FsError> {
    match fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(FsError::new("remove", path, source)),
    }
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(WAL_FILE_MODE)
        .open(path)
        .map_err(|source| FsError::new("create", path, source))
}

/// The temporary name for a file on its way to `destination`, in the same directory. It is
/// not the name of a WAL file, so PostgreSQL leaves it alone; and it is always the same, so
/// that what a killed process left is overwritten by the next and does not pile up.
pub fn temporary_beside(destination: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from("wald-tmp.");
    name.push(destination.file_name().unwrap_or_default());
    destination.with_file_name(name)
}

/// Moves a finished file to `destination`, replacing what stands there.
pub fn place(finished: &Path, destination: &Path) -> Result<(), FsError> {
    give_to_owner_of_directory(finished, destination)?;
    match fs::rename(finished, destination) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            copy_across(finished, destination)?;
            fs::remove_file(finished).map_err(|source| FsError::new("remove", finished, source))
        }
        Err(source) => Err(FsError::new("place", destination, source)),
    }
}

fn copy_across(finished: &Path, destination: &Path) -> Result<(), FsError> {
    let temporary = temporary_beside(destination);
    let copied = (|| {
        let mut from = File::open(finished).map_err(|source| FsError::new("open", finished, source))?;
        let mut to = create_private(&temporary)?;
        io::copy(&mut from, &mut to).map_err(|source| FsError::new("write", &temporary, source))?;
        give_to_owner_of_directory(&temporary, destination)?;
        fs::rename(&temporary, destination).map_err(|source| FsError::new("place", destination, source))
    })();
    if copied.is_err() {
        // The copy failed and is reported; a left-over is overwritten by the next attempt.
        let _ = fs::remove_file(&temporary);
    }
    copied
}

/// As root, a file goes to the owner of the directory that it is placed in: PostgreSQL never
/// runs as root and must be able to read and remove it.
fn give_to_owner_of_directory(file: &Path, destination: &Path) -> Result<(), FsError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let directory = destination.parent().unwrap_or(Path::new("/"));
    let owner = fs::metadata(directory).map_err(|source| FsError::new("look at", directory, source))?;
    rustix::fs::chown(file, Some(Uid::from_raw(owner.uid())), Some(Gid::from_raw(owner.gid())))
        .map_err(|source| FsError::new("change the owner of", file, source))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_placed_file_replaces_the_old_one_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::write(&to, "old").unwrap();
        io::Write::write_all(&mut create_private(&from).unwrap(), b"new").unwrap();
        place(&from, &to).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"new");
        assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!from.exists());
    }

    #[test]
    fn across_file_systems_a_file_is_copied() {
        // /dev/shm is a file system of its own on Linux.
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir_in("/dev/shm").unwrap());
        let (from, to) = (there.path().join("from"), here.path().join("to"));
        io::Write::write_all(&mut create_private(&from).unwrap(), b"new").unwrap();
        place(&from, &to).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"new");
        assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(here.path()).unwrap().count(), 1);
        assert!(!from.exists());
    }

    #[test]
    fn a_link_at_the_destination_is_replaced_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to, victim) = (dir.path().join("from"), dir.path().join("to"), dir.path().join("victim"));
        fs::write(&victim, "untouched").unwrap();
        std::os::unix::fs::symlink(&victim, &to).unwrap();
        create_private(&from).unwrap();
        place(&from, &to).unwrap();
        assert_eq!(fs::read(&victim).unwrap(), b"untouched");
        assert!(!fs::symlink_metadata(&to).unwrap().is_symlink());
    }
}
