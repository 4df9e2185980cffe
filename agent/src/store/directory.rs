//! What a file repository needs beyond object_store's `LocalFileSystem`: proof that its disk is
//! there, proof that a file is absent, and durability of what was found.
//!
//! Invariants: a directory that is missing, or that is neither the one opened nor holds the same
//! `wald.json`, is never taken for the repository (an unmounted disk leaves an empty one, another
//! disk one of another cluster); no more is a repository whose `wal` is not the one seen first,
//! which may be a disk of its own; a file is durable when its own data and every directory
//! between it and the root were synced.

use std::collections::HashSet;
use std::fs::{File, Metadata};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The directory of a file repository.
#[derive(Clone, Debug)]
pub(super) struct Directory(Arc<State>);

#[derive(Debug)]
struct State {
    root: PathBuf,
    believed: Mutex<Believed>,
    /// Directories whose entry in their parent was synced by this process.
    anchored: Mutex<HashSet<PathBuf>>,
    /// What was synced, in order: the only trace that a sync leaves short of a power cut.
    #[cfg(test)]
    synced: Mutex<Vec<PathBuf>>,
}

/// What was seen of the repository while it was believed in.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Believed {
    root: Place,
    /// None until it is made.
    wal: Option<Place>,
    /// The content of `wald.json`; none until it is made.
    identity: Option<Vec<u8>>,
}

/// Which directory it is, whatever its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Place {
    device: u64,
    inode: u64,
}

impl From<&Metadata> for Place {
    fn from(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// Bound on the remembered directories; past it they are synced again, which is only slower.
const ANCHORED_MAX: usize = 10_000;

/// The file that tells a repository from an empty mount point.
const IDENTITY_FILE: &str = "wald.json";
/// More of it is not compared; it never has more.
const IDENTITY_BYTES_MAX: u64 = 64 << 10;
/// The folder in which an absence ends a recovery.
const WAL_FOLDER: &str = "wal";

impl Directory {
    /// Takes an existing directory as the root.
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        let root = std::fs::canonicalize(root)?;
        let metadata = std::fs::metadata(&root)?;
        if !metadata.is_dir() {
            return Err(ErrorKind::NotADirectory.into());
        }
        let believed = Believed { root: (&metadata).into(), wal: None, identity: None };
        Ok(Self(Arc::new(State {
            root,
            believed: Mutex::new(believed),
            anchored: Mutex::default(),
            #[cfg(test)]
            synced: Mutex::default(),
        })))
    }

    /// The root, without symbolic links.
    pub(super) fn root(&self) -> &Path {
        &self.0.root
    }

    /// Fails unless the root and its `wal` are there and are still those that were opened. A disk
    /// that was unmounted and came back may have another device number: its `wald.json` speaks for
    /// it. `wal` has no such file: see [`Believed::is_wal`].
    pub(super) fn check(&self) -> io::Result<()> {
        let metadata = std::fs::metadata(&self.0.root).map_err(|error| {
            io::Error::other(format!("the repository's directory: {error}; is its disk mounted?"))
        })?;
        let mut believed = self.0.believed.lock().unwrap_or_else(PoisonError::into_inner);
        let root = Place::from(&metadata);
        let moved = believed.root != root;
        let identity = match &believed.identity {
            Some(identity) if !moved => Some(identity.clone()),
            _ => self.read_identity()?,
        };
        if moved && (!metadata.is_dir() || identity.is_none()) {
            return Err(io::Error::other(
                "the repository's directory is not the one that was opened and holds no wald.json; is its disk mounted?",
            ));
        }
        if believed.identity.is_some() && believed.identity != identity {
            return Err(io::Error::other(
                "the repository's directory is not the one that was opened, and its wald.json is another; is the right disk mounted?",
            ));
        }
        let wal = self.wal()?;
        if !believed.is_wal(wal, root, || self.wal_holds_something()) {
            return Err(io::Error::other(
                "the repository's wal directory is not the one that was seen first; is its disk mounted? If it was replaced on purpose, restart wald",
            ));
        }
        if moved {
            self.anchored().clear();
        }
        *believed = Believed { root, wal, identity };
        Ok(())
    }

    fn read_identity(&self) -> io::Result<Option<Vec<u8>>> {
        let file = match File::open(self.0.root.join(IDENTITY_FILE)) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut content = Vec::new();
        file.take(IDENTITY_BYTES_MAX).read_to_end(&mut content)?;
        Ok(Some(content))
    }

    fn wal(&self) -> io::Result<Option<Place>> {
        match std::fs::metadata(self.0.root.join(WAL_FOLDER)) {
            Ok(metadata) => Ok(Some((&metadata).into())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn wal_holds_something(&self) -> bool {
        let entries = std::fs::read_dir(self.0.root.join(WAL_FOLDER));
        entries.is_ok_and(|mut entries| matches!(entries.next(), Some(Ok(_))))
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

impl Believed {
    /// Whether `wal`, in the root that is there now, may be the one that was seen.
    ///
    /// Another directory is believed only on the same disk, and only if it holds something, as an
    /// empty mount point does not: file systems in user space and overlays may give a directory
    /// another inode number while it is in use.
    fn is_wal(&self, wal: Option<Place>, root: Place, holds_something: impl FnOnce() -> bool) -> bool {
        match (self.wal, wal) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(seen), Some(found)) if seen == found => true,
            (Some(seen), Some(found)) => {
                // The root's disk may have come back with another number, and its folders with it.
                let with_root =
                    self.root != root && seen.device == self.root.device && found.device == root.device;
                (seen.device == found.device || with_root) && holds_something()
            }
        }
    }
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

    #[test]
    fn another_repository_in_the_place_of_ours_is_not_ours() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path().join("repository");
        let exchange = |content: Option<&str>| {
            let aside = tempfile::tempdir_in(temporary.path()).unwrap().keep();
            std::fs::rename(&root, aside.join("old")).unwrap();
            std::fs::create_dir(&root).unwrap();
            if let Some(content) = content {
                std::fs::write(root.join("wald.json"), content).unwrap();
            }
        };
        std::fs::create_dir(&root).unwrap();
        let directory = Directory::open(&root).unwrap();
        directory.check().unwrap();
        // Made while it was open, as `wald repo init` does.
        std::fs::write(root.join("wald.json"), "ours").unwrap();
        directory.check().unwrap();
        for (content, said) in [
            (Some("theirs"), Some("its wald.json is another")),
            (None, Some("holds no wald.json")),
            (Some("ours"), None),
            (Some("theirs"), Some("its wald.json is another")),
        ] {
            exchange(content);
            let error = directory.check().err().map(|error| error.to_string());
            assert_eq!(error.is_some(), said.is_some(), "{content:?}: {error:?}");
            assert!(error.unwrap_or_default().contains(said.unwrap_or_default()), "{content:?}");
        }
    }

    #[test]
    fn a_wal_directory_that_went_away_or_was_exchanged_holds_no_absence() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path().join("repository");
        let (disk, other) = (temporary.path().join("disk"), temporary.path().join("other"));
        for made in [&root, &disk, &other] {
            std::fs::create_dir(made).unwrap();
        }
        let wal = root.join("wal");
        let directory = Directory::open(&root).unwrap();
        let absent = directory.root().join("wal/x");
        directory.prove_absent(&absent).unwrap();
        std::os::unix::fs::symlink(&disk, &wal).unwrap();
        directory.prove_absent(&absent).unwrap();
        // Its disk is unmounted: below the link is another directory, or nothing.
        std::fs::remove_file(&wal).unwrap();
        directory.prove_absent(&absent).unwrap_err();
        directory.check_listed(&wal).unwrap_err();
        std::os::unix::fs::symlink(&other, &wal).unwrap();
        let error = directory.prove_absent(&absent).unwrap_err().to_string();
        assert!(error.contains("wal directory is not the one"), "{error}");
        directory.check_listed(&wal).unwrap_err();
        // It comes back.
        std::fs::remove_file(&wal).unwrap();
        std::os::unix::fs::symlink(&disk, &wal).unwrap();
        directory.prove_absent(&absent).unwrap();
        directory.check_listed(&wal).unwrap();
    }

    #[test]
    fn a_wal_directory_moves_only_with_the_disk_that_it_is_on() {
        let place = |device, inode| Place { device, inode };
        let seen = |wal| Believed { root: place(1, 2), wal, identity: None };
        // What is expected of an empty one, and of one that holds something.
        let (yes, never, filled) = ([true, true], [false, false], [false, true]);
        for (before, root, wal, expected) in [
            (None, place(1, 2), None, yes),
            (None, place(1, 2), Some(place(1, 9)), yes),
            (Some(place(1, 9)), place(1, 2), Some(place(1, 9)), yes),
            (Some(place(1, 9)), place(1, 2), Some(place(1, 8)), filled),
            (Some(place(1, 9)), place(1, 2), None, never),
            // The root's disk is another device now.
            (Some(place(1, 9)), place(5, 2), Some(place(5, 9)), filled),
            (Some(place(1, 9)), place(5, 2), None, never),
            (Some(place(1, 9)), place(5, 2), Some(place(6, 2)), never),
            // A disk of its own stays what it is, also when the root moves.
            (Some(place(3, 2)), place(5, 2), Some(place(3, 2)), yes),
            (Some(place(3, 2)), place(5, 2), Some(place(5, 9)), never),
            (Some(place(3, 2)), place(1, 2), Some(place(1, 9)), never),
        ] {
            let believed = [false, true].map(|filled| seen(before).is_wal(wal, root, || filled));
            assert_eq!(believed, expected, "{before:?} {root:?} {wal:?}");
        }
    }
}
