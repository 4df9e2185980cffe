//! What a file repository needs beyond object_store's `LocalFileSystem`: proof that its disk is
//! there, proof that a file is absent, and durability of what was found.
//!
//! Invariants: a directory that is missing, or that is not the one opened and holds no
//! `wald.json`, is never taken for an empty repository (an unmounted disk leaves both); a file
//! is durable when its own data and every directory between it and the root were synced.

use std::collections::HashSet;
use std::fs::{File, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The directory of a file repository.
#[derive(Clone, Debug)]
pub(super) struct Directory(Arc<State>);

#[derive(Debug)]
struct State {
    root: PathBuf,
    /// Device and inode of the root as it was last believed in.
    believed: Mutex<(u64, u64)>,
    /// Directories whose entry in their parent was synced by this process.
    anchored: Mutex<HashSet<PathBuf>>,
    /// What was synced, in order: the only trace that a sync leaves short of a power cut.
    #[cfg(test)]
    synced: Mutex<Vec<PathBuf>>,
}

/// Bound on the remembered directories; past it they are synced again, which is only slower.
const ANCHORED_MAX: usize = 10_000;

/// The file that tells a repository from an empty mount point.
const IDENTITY_FILE: &str = "wald.json";

impl Directory {
    /// Takes an existing directory as the root.
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        let root = std::fs::canonicalize(root)?;
        let metadata = std::fs::metadata(&root)?;
        if !metadata.is_dir() {
            return Err(ErrorKind::NotADirectory.into());
        }
        let believed = Mutex::new(identity(&metadata));
        Ok(Self(Arc::new(State {
            root,
            believed,
            anchored: Mutex::default(),
            #[cfg(test)]
            synced: Mutex::default(),
        })))
    }

    /// The root, without symbolic links.
    pub(super) fn root(&self) -> &Path {
        &self.0.root
    }

    /// Fails unless the root is there and is still the repository that was opened. A disk that was
    /// unmounted and came back may have another device number: its `wald.json` speaks for it.
    pub(super) fn check(&self) -> io::Result<()> {
        let metadata = std::fs::metadata(&self.0.root).map_err(|error| {
            io::Error::other(format!("the repository's directory: {error}; is its disk mounted?"))
        })?;
        let mut believed = self.0.believed.lock().unwrap_or_else(PoisonError::into_inner);
        if *believed == identity(&metadata) {
            return Ok(());
        }
        if !metadata.is_dir() || std::fs::metadata(self.0.root.join(IDENTITY_FILE)).is_err() {
            return Err(io::Error::other(
                "the repository's directory is not the one that was opened and holds no wald.json; is its disk mounted?",
            ));
        }
        *believed = identity(&metadata);
        self.anchored().clear();
        Ok(())
    }

    /// Succeeds only if nothing has the name `path`: some part of it is missing in a directory
    /// that could be read. A symbolic link to something that is gone is not absence.
    pub(super) fn prove_absent(&self, path: &Path) -> io::Result<()> {
        self.check()?;
        let below = path.strip_prefix(&self.0.root).map_err(io::Error::other)?;
        let mut part = self.0.root.clone();
        for name in below.components() {
            part.push(name);
            match std::fs::symlink_metadata(&part) {
                Err(error) if error.kind() == ErrorKind::NotFound => return self.check(),
                Err(error) => return Err(error),
                Ok(metadata) if metadata.is_symlink() => {
                    std::fs::metadata(&part).map_err(|error| {
                        io::Error::other(format!("{} is a link that leads nowhere: {error}", part.display()))
                    })?;
                }
                Ok(_) => {}
            }
        }
        Err(io::Error::other(format!("{} is there, but can't be read as a file", path.display())))
    }

    /// Succeeds if `path` is a directory, or is truly absent. Links that lead nowhere would
    /// otherwise be listed as empty.
    pub(super) fn check_listed(&self, path: &Path) -> io::Result<()> {
        self.check()?;
        match std::fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => Ok(()),
            Ok(_) => Err(ErrorKind::NotADirectory.into()),
            Err(error) if error.kind() == ErrorKind::NotFound => self.prove_absent(path),
            Err(error) => Err(error),
        }
    }

    /// Makes durable the entry of `path` and those of its directories up to the root.
    pub(super) fn anchor(&self, path: &Path) -> io::Result<()> {
        if let Some(parent) = path.parent() {
            self.sync(&File::open(parent)?, parent)?;
        }
        self.anchor_directories(path)
    }

    /// The same where the entry of `path` itself is durable already. `LocalFileSystem` syncs that,
    /// and the directories that it creates; one created by a process that died before its own
    /// sync looks the same as any other, so this process syncs each of them once.
    pub(super) fn anchor_directories(&self, path: &Path) -> io::Result<()> {
        let below_root = |path: &&Path| *path != self.root() && path.starts_with(self.root());
        let mut directory = path.parent();
        while let Some(current) = directory.filter(below_root) {
            directory = current.parent();
            if self.anchored().contains(current) {
                continue;
            }
            if let Some(parent) = directory {
                self.sync(&File::open(parent)?, parent)?;
            }
            let mut anchored = self.anchored();
            if anchored.len() >= ANCHORED_MAX {
                anchored.clear();
            }
            anchored.insert(current.to_owned());
        }
        // What was written went to the repository's disk only if that was there all the time.
        self.check()
    }

    fn sync(&self, opened: &File, path: &Path) -> io::Result<()> {
        opened.sync_all()?;
        #[cfg(test)]
        self.0.synced.lock().unwrap_or_else(PoisonError::into_inner).push(path.to_owned());
        #[cfg(not(test))]
        let _ = path;
        Ok(())
    }

    fn anchored(&self) -> MutexGuard<'_, HashSet<PathBuf>> {
        self.0.anchored.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes an existing file durable: whoever created it may have died before syncing it.
    pub(super) fn sync_existing(&self, path: &Path) -> io::Result<()> {
        let file = File::open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other(format!("{} is there, but is not a file", path.display())));
        }
        self.sync(&file, path)?;
        self.anchor(path)
    }
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Directory {
        /// What was synced since the last call, relative to the root.
        fn take_synced(&self) -> Vec<String> {
            let synced = std::mem::take(&mut *self.0.synced.lock().unwrap());
            let below = |path: &PathBuf| path.strip_prefix(self.root()).unwrap().display().to_string();
            synced.iter().map(below).collect()
        }
    }

    #[test]
    fn a_file_is_anchored_through_every_directory_also_through_anothers() {
        let temporary = tempfile::tempdir().unwrap();
        let directory = Directory::open(temporary.path()).unwrap();
        // As if a process had made the directories and died before syncing them.
        std::fs::create_dir_all(directory.root().join("2026/11")).unwrap();
        for (name, synced) in [
            ("2026/11/first", vec!["2026/11", "2026", ""]),
            ("2026/11/second", vec!["2026/11"]),
            ("2026/third", vec!["2026"]),
            ("fourth", vec![""]),
        ] {
            let path = directory.root().join(name);
            std::fs::write(&path, "x").unwrap();
            directory.anchor(&path).unwrap();
            assert_eq!(directory.take_synced(), synced, "{name}");
            directory.anchor_directories(&path).unwrap();
            assert_eq!(directory.take_synced(), Vec::<String>::new(), "{name}");
        }
    }

    #[test]
    fn what_another_left_is_synced_before_it_counts_as_existing() {
        let temporary = tempfile::tempdir().unwrap();
        let directory = Directory::open(temporary.path()).unwrap();
        let path = directory.root().join("wal/found");
        std::fs::create_dir(directory.root().join("wal")).unwrap();
        std::fs::write(&path, "x").unwrap();
        directory.sync_existing(&path).unwrap();
        assert_eq!(directory.take_synced(), ["wal/found", "wal", ""]);
    }

    #[test]
    fn a_new_disk_is_anchored_anew() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path().join("repository");
        let fill = || {
            std::fs::create_dir_all(root.join("wal")).unwrap();
            std::fs::write(root.join("wald.json"), "{}").unwrap();
            std::fs::write(root.join("wal/x"), "x").unwrap();
        };
        fill();
        let directory = Directory::open(&root).unwrap();
        directory.anchor(&directory.root().join("wal/x")).unwrap();
        directory.take_synced();
        std::fs::rename(&root, temporary.path().join("old")).unwrap();
        fill();
        directory.check().unwrap();
        directory.anchor(&directory.root().join("wal/x")).unwrap();
        assert_eq!(directory.take_synced(), ["wal", ""]);
    }
}
