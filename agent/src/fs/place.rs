//! Files that appear whole or not at all.
//!
//! Invariants: bytes are written under a name that no other process and no other request
//! uses, and the very file that was written is renamed last, so a name never stands for half
//! a file or for another's; across file systems a file is copied beside its destination first;
//! a WAL file that stands under its own name is never replaced; a draft that is not placed is
//! removed; a placed file has mode 0600, as `pg_rewind` and PostgreSQL expect. Restored WAL is
//! not fsynced: after a crash PostgreSQL asks for it again.

use super::FsError;
use super::demand::Watch;
use rustix::fs::{CWD, FlockOperation, Gid, OFlags, RenameFlags, Uid, fchown, flock, renameat_with};
use rustix::io::Errno;
use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

const WAL_FILE_MODE: u32 = 0o600;

/// A draft beside its destination is called `wald-tmp.<process>.<number>.<destination>`: not
/// the name of a WAL file, so PostgreSQL leaves it alone.
const BESIDE_PREFIX: &str = "wald-tmp.";
/// Names that are tried: one is taken only where process numbers come again, in containers.
const BESIDE_ATTEMPTS_MAX: usize = 1000;

/// What happens to a file that stands at the destination.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Existing {
    /// It makes way: `RECOVERYXLOG` and `RECOVERYHISTORY` are scratch names of PostgreSQL's.
    Replaced,
    /// It stays, and placing fails: a segment may be the one that a server is writing.
    Kept,
}

/// Why a finished file was not placed.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// The disk is full or forbids it.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// Something stands there.
    #[error(
        "{} is there already, and nothing replaces a file under its own name, which a server may be writing; \
         to look at the archived one ask for it elsewhere, in the pg_wal of a copy", destination.display()
    )]
    Occupied {
        /// Where the file was wanted.
        destination: PathBuf,
    },
    /// Another file has the draft's name.
    #[error("{} is not the file that was proven: something else renames files here", path.display())]
    Swapped {
        /// The draft.
        path: PathBuf,
    },
    /// Whoever asked has given up.
    #[error("nobody waits for {} any more", destination.display())]
    Withdrawn {
        /// Where the file was wanted.
        destination: PathBuf,
    },
}

/// A file on its way to its destination. Dropped without being placed, it is removed.
#[derive(Debug)]
pub struct Draft {
    path: PathBuf,
    /// Its device and inode: what is placed is this file, whatever has its name by then.
    identity: (u64, u64),
    /// Locked while the draft is in use. The lock ends with the process, whose number may come
    /// again or mean another process in another container; so a lock tells what is stale.
    _in_use: Option<File>,
    placed: bool,
}

impl Draft {
    /// An empty file with mode 0600 in a directory that belongs to this process, and the
    /// handle to write it with. Nothing may have that name.
    pub fn create(path: &Path) -> Result<(Self, File), FsError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(WAL_FILE_MODE)
            .open(path)
            .map_err(|source| FsError::new("create", path, source))?;
        let found = file.metadata().map_err(|source| FsError::new("look at", path, source))?;
        let draft = Self { path: path.to_owned(), identity: identity(&found), _in_use: None, placed: false };
        Ok((draft, file))
    }

    /// The same in `destination`'s directory, under a new name. What processes that died have
    /// left there is removed.
    pub fn beside(destination: &Path) -> Result<(Self, File), FsError> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        remove_stale(destination.parent().unwrap_or(Path::new("/")));
        for _ in 0..BESIDE_ATTEMPTS_MAX {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let mut name = OsString::from(format!("{BESIDE_PREFIX}{}.{number}.", std::process::id()));
            name.push(destination.file_name().unwrap_or_default());
            match Self::create(&destination.with_file_name(name)) {
                Ok((draft, file)) => {
                    if let Some(draft) = draft.locked(&file)? {
                        return Ok((draft, file));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(FsError::new("find a free name beside", destination, io::ErrorKind::AlreadyExists))
    }

    /// Marks a new draft as in use; nothing if another process took it for stale before.
    fn locked(mut self, file: &File) -> Result<Option<Self>, FsError> {
        let look = |source| FsError::new("look at", &self.path, source);
        let lock = file.try_clone().map_err(look)?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK) {
            return Ok(None);
        }
        if lock.metadata().map_err(look)?.nlink() == 0 {
            return Ok(None);
        }
        self._in_use = Some(lock);
        Ok(Some(self))
    }

    /// Moves the finished file to `destination`, unless the demand for it has ended.
    pub fn place(mut self, destination: &Path, existing: Existing, demand: &Watch) -> Result<(), PlaceError> {
        match self.rename(destination, existing, demand) {
            Err(PlaceError::Fs(error)) if error.kind() == io::ErrorKind::CrossesDevices => {
                self.copy_beside(destination)?.rename(destination, existing, demand)
            }
            outcome => outcome,
        }
    }

    fn rename(&mut self, destination: &Path, existing: Existing, demand: &Watch) -> Result<(), PlaceError> {
        give_to_owner_of_directory(&self.open()?, &self.path, destination)?;
        let renamed = demand.while_it_lasts(|| match existing {
            Existing::Replaced => fs::rename(&self.path, destination),
            Existing::Kept => rename_new(&self.path, destination),
        });
        let destination = destination.to_owned();
        match renamed {
            None => Err(PlaceError::Withdrawn { destination }),
            Some(Ok(())) => {
                self.placed = true;
                Ok(())
            }
            Some(Err(error)) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(PlaceError::Occupied { destination })
            }
            Some(Err(source)) => Err(FsError::new("place", destination, source).into()),
        }
    }

    /// Opens the draft again: a spool of a thousand small segments must not hold a thousand
    /// handles.
    fn open(&self) -> Result<File, PlaceError> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(flag_bits(OFlags::NOFOLLOW | OFlags::NONBLOCK))
            .open(&self.path)
            .map_err(|source| FsError::new("open", &self.path, source))?;
        let found = file.metadata().map_err(|source| FsError::new("look at", &self.path, source))?;
        if identity(&found) == self.identity {
            Ok(file)
        } else {
            Err(PlaceError::Swapped { path: self.path.clone() })
        }
    }

    fn copy_beside(&self, destination: &Path) -> Result<Draft, PlaceError> {
        let mut from = self.open()?;
        let (copy, mut to) = Draft::beside(destination)?;
        io::copy(&mut from, &mut to).map_err(|source| FsError::new("write", &copy.path, source))?;
        Ok(copy)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.placed {
            // What can't be removed now is when its directory is swept.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Gives `from` the name `to` only if nothing has it.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // renameat2(2): the file system doesn't know the flag, or the kernel the call. A second
        // name refuses to replace on any file system that PostgreSQL runs on.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => link_new(from, to),
        renamed => Ok(renamed?),
    }
}

fn link_new(from: &Path, to: &Path) -> io::Result<()> {
    fs::hard_link(from, to)?;
    // The file stands where it is wanted; its first name is swept later if it stays.
    let _ = fs::remove_file(from);
    Ok(())
}

/// Removes the drafts that nobody holds a lock on. What can't be removed is left: it costs
/// room and nothing else.
fn remove_stale(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(BESIDE_PREFIX) {
            let _ = remove_if_stale(&entry.path());
        }
    }
}

fn remove_if_stale(path: &Path) -> io::Result<()> {
    let flags = flag_bits(OFlags::NOFOLLOW | OFlags::NONBLOCK);
    // For writing too: NFS locks nothing exclusively that was opened for reading.
    let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    // It may have been placed between the opening and the lock, and is somebody's WAL now.
    let (opened, named) = (file.metadata()?, fs::symlink_metadata(path)?);
    if identity(&opened) == identity(&named) { fs::remove_file(path) } else { Ok(()) }
}

fn identity(found: &Metadata) -> (u64, u64) {
    (found.dev(), found.ino())
}

/// Open flags as the standard library takes them.
fn flag_bits(flags: OFlags) -> i32 {
    i32::try_from(flags.bits()).unwrap_or(0)
}

/// As root, a file goes to the owner of the directory that it is placed in: PostgreSQL never
/// runs as root and must be able to read and remove it. Through the handle: a path may lead
/// elsewhere by now.
fn give_to_owner_of_directory(file: &File, path: &Path, destination: &Path) -> Result<(), FsError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let directory = destination.parent().unwrap_or(Path::new("/"));
    let owner = fs::metadata(directory).map_err(|source| FsError::new("look at", directory, source))?;
    fchown(file, Some(Uid::from_raw(owner.uid())), Some(Gid::from_raw(owner.gid())))
        .map_err(|source| FsError::new("change the owner of", path, source))
}

#[cfg(test)]
mod tests;
