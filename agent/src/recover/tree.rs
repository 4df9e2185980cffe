//! The directories of a restore: the data directory and its tablespaces.
//!
//! Invariant: a listed path stands in exactly one of them: `pg_tblspc/<oid>/…` in that
//! tablespace's directory, everything else in the data directory.

use super::RecoverError;
use super::beneath::Root;
use std::collections::BTreeMap;
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
}

#[derive(Debug)]
pub(super) struct Tablespace {
    pub root: Root,
    /// What the link in `pg_tblspc` says.
    pub target: String,
}

impl Tree {
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

    /// Makes all listed directories.
    pub fn make_directories(&self, list: &FileList) -> Result<(), RecoverError> {
        let mut dirs: Vec<_> = list.dirs.iter().collect();
        // Parents before their children.
        dirs.sort_by(|a, b| a.path.cmp(&b.path));
        for dir in dirs {
            if self.is_link(&dir.path) {
                continue;
            }
            if let Some((root, path)) = self.locate(&dir.path) {
                root.make_directory(&path, dir.mode)?;
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

    /// All directories.
    pub fn roots(&self) -> impl Iterator<Item = &Root> {
        std::iter::once(&self.base).chain(self.tablespaces.values().map(|tablespace| &tablespace.root))
    }
}

/// A listed path as the file system takes it.
pub(super) fn as_path(path: &RelativePath) -> &Path {
    Path::new(OsStr::from_bytes(path.as_bytes()))
}
