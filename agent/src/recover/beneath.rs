//! A directory that nothing leads out of.
//!
//! Invariant: every path is resolved by the kernel beneath the directory and through no
//! symbolic link (`openat2` with `RESOLVE_BENEATH` and `RESOLVE_NO_SYMLINKS`, Linux 5.6). A
//! restore often runs as root in a directory of another user, who must not be able to
//! redirect a write by swapping a directory for a link meanwhile.

use crate::fs::FsError;
use rustix::fs::{AtFlags, Dir, FileType, FlockOperation, Gid, Mode, OFlags, RawMode, ResolveFlags, Uid};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// Who owns what a restore running as root makes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Owner {
    pub uid: Uid,
    pub gid: Gid,
}

/// An open directory.
#[derive(Debug)]
pub(super) struct Root {
    dir: OwnedFd,
    path: PathBuf,
    owner: Option<Owner>,
}

/// What stands under a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    File { bytes: u64 },
    Directory,
    Other,
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

impl Root {
    /// Opens a directory; what is made in it belongs to `owner`, or else to this process.
    pub fn open(path: &Path, owner: Option<Owner>) -> Result<Self, FsError> {
        let dir = rustix::fs::open(path, DIRECTORY, Mode::empty())
            .map_err(|error| FsError::new("open", path, error))?;
        Ok(Self { dir, path: path.to_owned(), owner })
    }

    /// A directory in this one.
    pub fn descend(&self, path: &Path) -> Result<Self, FsError> {
        let dir = self.resolve(path, DIRECTORY, Mode::empty());
        let dir = dir.map_err(|errno| self.error("open", path, errno))?;
        Ok(Self { dir, path: self.path.join(path), owner: self.owner })
    }

    /// The same, if it is there and is a directory.
    pub fn existing(&self, path: &Path) -> Result<Option<Self>, FsError> {
        match self.resolve(path, DIRECTORY, Mode::empty()) {
            Ok(dir) => Ok(Some(Self { dir, path: self.path.join(path), owner: self.owner })),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(errno) => Err(self.error("open", path, errno)),
        }
    }

    /// Keeps other restores out of this directory until it is closed. `false`: one is in it. Where the file
    /// system has no such locks, nobody is kept out.
    pub fn claim(&self) -> Result<bool, FsError> {
        match rustix::fs::flock(&self.dir, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            // NFS locks only what is open for writing, which no directory can be.
            Err(Errno::BADF | Errno::NOLCK | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                tracing::warn!(
                    "{} is on a file system without locks: nothing keeps a second restore out of it",
                    self.path.display()
                );
                Ok(true)
            }
            Err(errno) => Err(self.error("lock", Path::new(""), errno)),
        }
    }

    /// The file system that the directory is on.
    pub fn device(&self) -> Result<u64, FsError> {
        let stat =
            rustix::fs::fstat(&self.dir).map_err(|errno| self.error("look at", Path::new(""), errno))?;
        Ok(stat.st_dev)
    }

    /// The directory's own path, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn error(&self, action: &'static str, path: &Path, errno: Errno) -> FsError {
        FsError::new(action, self.path.join(path), errno)
    }

    fn resolve(&self, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        let inside = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        loop {
            match rustix::fs::openat2(&self.dir, path, flags | OFlags::CLOEXEC, mode, inside) {
                // The kernel asks for another try when something was renamed meanwhile.
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other,
            }
        }
    }

    /// The directory that holds `path`, and the last name.
    fn parent<'p>(&self, path: &'p Path) -> Result<(OwnedFd, &'p OsStr), Errno> {
        let name = path.file_name().ok_or(Errno::INVAL)?;
        let above = path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Ok((self.resolve(above, DIRECTORY, Mode::empty())?, name))
    }

    /// Makes a file that does not exist yet.
    pub fn create(&self, path: &Path, mode: u32) -> Result<File, FsError> {
        let error = |errno| self.error("create", path, errno);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let file = self.resolve(path, flags, Mode::RUSR | Mode::WUSR).map_err(error)?;
        self.dress(&file, mode).map_err(error)?;
        Ok(File::from(file))
    }

    /// Opens a file for reading.
    pub fn read(&self, path: &Path) -> Result<File, FsError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        self.resolve(path, flags, Mode::empty())
            .map(File::from)
            .map_err(|errno| self.error("read", path, errno))
    }

    /// Makes a directory, or gives an existing one this mode.
    pub fn make_directory(&self, path: &Path, mode: u32) -> Result<(), FsError> {
        let made = self.parent(path).and_then(|(parent, name)| {
            match rustix::fs::mkdirat(&parent, name, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => Ok(()),
                Err(errno) => Err(errno),
            }?;
            self.dress(&self.resolve(path, DIRECTORY, Mode::empty())?, mode)
        });
        made.map_err(|errno| self.error("make the directory", path, errno))
    }

    /// Gives an open file its permissions and its owner.
    pub fn dress(&self, file: impl AsFd, mode: u32) -> Result<(), Errno> {
        if let Some(Owner { uid, gid }) = self.owner {
            rustix::fs::fchown(&file, Some(uid), Some(gid))?;
        }
        // What PostgreSQL stores is for its user, and at most readable by its group.
        rustix::fs::fchmod(&file, Mode::from_raw_mode((mode & 0o770) as RawMode))
    }

    /// Gives the directory itself its permissions and its owner.
    pub fn dress_self(&self, mode: u32) -> Result<(), FsError> {
        self.dress(&self.dir, mode)
            .map_err(|errno| self.error("set the permissions of", Path::new(""), errno))
    }

    /// Makes a symbolic link.
    pub fn link(&self, path: &Path, target: &Path) -> Result<(), FsError> {
        let made = self.parent(path).and_then(|(parent, name)| {
            rustix::fs::symlinkat(target, &parent, name)?;
            match self.owner {
                None => Ok(()),
                Some(Owner { uid, gid }) => {
                    rustix::fs::chownat(&parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                }
            }
        });
        made.map_err(|errno| self.error("make the link", path, errno))
    }

    /// Removes a file or a link, which need not exist.
    pub fn remove(&self, path: &Path) -> Result<(), FsError> {
        self.unlink(path, AtFlags::empty())
    }

    /// Removes an empty directory.
    pub fn remove_directory(&self, path: &Path) -> Result<(), FsError> {
        self.unlink(path, AtFlags::REMOVEDIR)
    }

    fn unlink(&self, path: &Path, flags: AtFlags) -> Result<(), FsError> {
        let removed = self.parent(path).and_then(|(parent, name)| rustix::fs::unlinkat(&parent, name, flags));
        match removed {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(self.error("remove", path, errno)),
        }
    }

    /// Renames a file in its directory, over what stands under the new name.
    pub fn rename(&self, from: &Path, to: &Path) -> Result<(), FsError> {
        let renamed = self.parent(from).and_then(|(from_dir, from_name)| {
            let (to_dir, to_name) = self.parent(to)?;
            rustix::fs::renameat(&from_dir, from_name, &to_dir, to_name)
        });
        renamed.map_err(|errno| self.error("place", to, errno))
    }

    /// What a directory holds, by name; none where it does not exist.
    pub fn entries(&self, path: &Path) -> Result<Vec<(OsString, Kind)>, FsError> {
        let error = |errno| self.error("list", path, errno);
        let dir = match self.resolve(path, DIRECTORY, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(Vec::new()),
            other => other.map_err(error)?,
        };
        let mut entries = Vec::new();
        for entry in Dir::read_from(&dir).map_err(error)? {
            let name = OsString::from_vec(entry.map_err(error)?.file_name().to_bytes().to_vec());
            if name == "." || name == ".." {
                continue;
            }
            let stat = match rustix::fs::statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => continue,
                other => other.map_err(error)?,
            };
            let kind = match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => Kind::File { bytes: u64::try_from(stat.st_size).unwrap_or(0) },
                FileType::Directory => Kind::Directory,
                _ => Kind::Other,
            };
            entries.push((name, kind));
        }
        Ok(entries)
    }

    /// Writes all of this file system to disk. One sweep over it is cheaper than a sync per
    /// file, and since Linux 5.8 it reports every error since the directory was opened.
    pub fn sync_file_system(&self) -> Result<(), FsError> {
        rustix::fs::syncfs(&self.dir).map_err(|errno| self.error("write to disk", Path::new(""), errno))
    }

    /// Makes the names in a directory durable.
    pub fn sync_directory(&self, path: &Path) -> Result<(), FsError> {
        let synced = self.resolve(path, DIRECTORY, Mode::empty()).and_then(rustix::fs::fsync);
        synced.map_err(|errno| self.error("write to disk", path, errno))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn root(dir: &Path) -> Root {
        Root::open(dir, None).unwrap()
    }

    #[test]
    fn nothing_is_written_through_a_link_or_above_the_directory() {
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        symlink(outside.path(), dir.path().join("link")).unwrap();
        symlink(outside.path().join("file"), dir.path().join("file")).unwrap();
        let root = root(dir.path());
        for path in ["link/x", "../x", "file", "/tmp/wald-test-x"] {
            assert!(root.create(Path::new(path), 0o600).is_err(), "{path}");
            assert!(root.read(Path::new(path)).is_err(), "{path}");
        }
        assert!(root.make_directory(Path::new("link/x"), 0o700).is_err());
        assert!(root.make_directory(Path::new("link"), 0o700).is_err());
        assert!(root.remove(Path::new("link/x")).is_err());
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    }

    #[test]
    fn modes_do_not_depend_on_the_umask_and_never_include_others() {
        let dir = tempfile::tempdir().unwrap();
        let root = root(dir.path());
        root.make_directory(Path::new("d"), 0o750).unwrap();
        root.create(Path::new("d/f"), 0o4666).unwrap();
        let mode =
            |name: &str| std::fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode("d"), mode("d/f")), (0o750, 0o660));
        assert!(root.create(Path::new("d/f"), 0o600).is_err());
        let mut entries = root.entries(Path::new("d")).unwrap();
        assert_eq!(entries.pop(), Some((OsString::from("f"), Kind::File { bytes: 0 })));
        assert!(root.entries(Path::new("absent")).unwrap().is_empty());
    }
}
