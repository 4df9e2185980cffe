//! The directories of a restore: the data directory and its tablespaces.
//!
//! Invariant: a listed path stands in exactly one of them: `pg_tblspc/<oid>/…` in that
//! tablespace's directory, everything else in the data directory. Every file system that something stands on
//! is open from before the first change on: its sync then tells of every error since.

use super::RecoverError;
use super::beneath::Root;
use crate::fs::FsError;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use wald_core::file_list::FileList;
use wald_core::relative_path::RelativePath;

/// Where tablespaces are linked from.
pub(super) const LINKS: &str = "pg_tblspc";

#[derive(Debug)]
pub(super) struct Tree {
    pub base: Root,
    pub tablespaces: BTreeMap<u32, Tablespace>,
    /// Whether an earlier restore into it did not come to its end.
    pub is_resumed: bool,
    /// Directories in it that are on other file systems, one for each.
    mounts: Vec<Root>,
    /// Directories that their owner may not write to, by the list, and their modes. Parents come first.
    narrow: Vec<(RelativePath, u32)>,
}

/// What it takes to make files in a directory.
const OWNERS_RIGHTS: u32 = 0o700;

#[derive(Debug)]
pub(super) struct Tablespace {
    pub root: Root,
    /// What the link in `pg_tblspc` says.
    pub target: String,
}

impl Tree {
    /// Without any tablespace yet.
    pub fn new(base: Root, is_resumed: bool) -> Self {
        let (mounts, narrow) = (Vec::new(), Vec::new());
        Self { base, tablespaces: BTreeMap::new(), is_resumed, mounts, narrow }
    }

    /// Finds the listed directories that are there already, on other file systems.
    pub fn find_mounts(&mut self, list: &FileList) -> Result<(), FsError> {
        let mut known = self.roots().map(Root::device).collect::<Result<BTreeSet<_>, _>>()?;
        let mut mounts = Vec::new();
        for dir in list.dirs.iter().filter(|dir| !self.is_link(&dir.path)) {
            let Some((root, path)) = self.locate(&dir.path) else { continue };
            // What is not there, or no directory, will be made on the file system above it.
            let Some(below) = root.existing(&path)? else { continue };
            if known.insert(below.device()?) {
                mounts.push(below);
            }
        }
        self.mounts = mounts;
        Ok(())
    }

    /// The directory that holds a listed path, and the path in it. None for a tablespace
    /// that the backup does not have.
    pub fn locate(&self, path: &RelativePath) -> Option<(&Root, PathBuf)> {
        match path.in_tablespace() {
            None => Some((&self.base, as_path(path).to_owned())),
            Some((oid, rest)) => {
                let tablespace = self.tablespaces.get(&oid)?;
                Some((&tablespace.root, as_path(&rest).to_owned()))
            }
        }
    }

    /// Makes all listed directories. Their owner can write to all of them until
    /// [`Tree::narrow_directories`].
    pub fn make_directories(&mut self, list: &FileList) -> Result<(), RecoverError> {
        let mut dirs: Vec<_> = list.dirs.iter().collect();
        // Parents before their children.
        dirs.sort_by(|a, b| a.path.cmp(&b.path));
        for dir in dirs {
            if self.is_link(&dir.path) {
                continue;
            }
            if let Some((root, path)) = self.locate(&dir.path) {
                root.make_directory(&path, dir.mode | OWNERS_RIGHTS)?;
            }
            if dir.mode & OWNERS_RIGHTS != OWNERS_RIGHTS {
                self.narrow.push((dir.path.clone(), dir.mode));
            }
        }
        Ok(())
    }

    /// Gives those directories their listed permissions in which nothing will be made any more.
    pub fn narrow_directories(&self) -> Result<(), FsError> {
        // Children before their parents.
        for (path, mode) in self.narrow.iter().rev() {
            if let Some((root, path)) = self.locate(path) {
                root.make_directory(&path, *mode)?;
            }
        }
        Ok(())
    }

    /// Whether a path is the link to a tablespace, whose directory is there already.
    fn is_link(&self, path: &RelativePath) -> bool {
        let path = as_path(path);
        let name = path.file_name().and_then(OsStr::to_str).and_then(|name| name.parse().ok());
        path.parent() == Some(Path::new(LINKS)) && name.is_some_and(|oid| self.tablespaces.contains_key(&oid))
    }

    /// One directory on each file system, or more.
    pub fn file_systems(&self) -> impl Iterator<Item = &Root> {
        self.roots().chain(&self.mounts)
    }

    /// The data directory and those of the tablespaces.
    fn roots(&self) -> impl Iterator<Item = &Root> {
        std::iter::once(&self.base).chain(self.tablespaces.values().map(|tablespace| &tablespace.root))
    }
}

/// A listed path as the file system takes it.
pub(super) fn as_path(path: &RelativePath) -> &Path {
    Path::new(OsStr::from_bytes(path.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use wald_core::file_list::ListedDir;

    fn list(dirs: &[(&str, u32)]) -> FileList {
        let dir =
            |(path, mode): &(&str, u32)| ListedDir { path: RelativePath::new(*path).unwrap(), mode: *mode };
        FileList { files: Vec::new(), dirs: dirs.iter().map(dir).collect() }
    }

    #[test]
    fn a_directory_that_its_owner_may_not_write_to_is_so_only_in_the_end() {
        let place = tempfile::tempdir().unwrap();
        let mut tree = Tree::new(Root::open(place.path(), None).unwrap(), false);
        tree.make_directories(&list(&[("ssl", 0o500), ("ssl/old", 0o550), ("base", 0o700)])).unwrap();
        let mode =
            |name: &str| std::fs::metadata(place.path().join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(["ssl", "ssl/old", "base"].map(mode), [0o700, 0o750, 0o700]);
        tree.narrow_directories().unwrap();
        assert_eq!(["ssl", "ssl/old", "base"].map(mode), [0o500, 0o550, 0o700]);
        for name in ["ssl", "ssl/old"] {
            std::fs::set_permissions(place.path().join(name), PermissionsExt::from_mode(0o700)).unwrap();
        }
    }

    #[test]
    fn what_is_mounted_below_the_data_directory_is_synced_too() {
        let mut tree = Tree::new(Root::open(Path::new("/"), None).unwrap(), false);
        tree.find_mounts(&list(&[("proc", 0o700), ("proc/self", 0o700), ("none", 0o700)])).unwrap();
        let paths: Vec<_> = tree.file_systems().map(Root::path).collect();
        assert_eq!(paths, [Path::new("/"), Path::new("/proc")]);
    }
}
