//! What `--delta` keeps: files whose content is that of the backup. Everything else goes.
//!
//! Invariants: a file is kept only if its size and its BLAKE3 are the listed ones; what is not
//! listed is removed, old WAL above all, because PostgreSQL would replay what it finds in
//! `pg_wal`. Links are removed, never followed. After a restore that did not come to its end files
//! are read from the disk: of a write that the disk refused the kernel keeps the content in memory as if it
//! were there. In a tablespace's directory only the
//! directories that the backup knows are touched: another major version may have its own there.

use super::RecoverError;
use super::beneath::{Kind, Root};
use super::listed::{CONTROL, LABEL};
use super::tree::{LINKS, Tree, as_path};
use crate::fs::FsError;
use rustix::fs::{Advice, fadvise};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::io::ErrorKind;
use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use wald_core::backup_label::TablespaceMap;
use wald_core::blake3_hex::Blake3Hex;
use wald_core::data_file::RESTORE_MARKER;
use wald_core::file_list::{FileList, ListedFile};
use wald_core::relative_path::RelativePath;

/// The listed files that are in place already.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept {
    paths: HashSet<RelativePath>,
    bytes: u64,
    removed: u64,
}

impl Kept {
    pub fn contains(&self, path: &RelativePath) -> bool {
        self.paths.contains(path)
    }

    pub fn files(&self) -> u64 {
        u64::try_from(self.paths.len()).unwrap_or(u64::MAX)
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Files and links that were removed and that the backup does not have.
    pub fn removed(&self) -> u64 {
        self.removed
    }
}

/// Files that are rewritten in any case, because what stands in the directory afterwards is
/// not, or not yet, what stands in the backup.
fn always_fetched(path: &[u8]) -> bool {
    [CONTROL, LABEL, TablespaceMap::FILE].iter().any(|name| name.as_bytes() == path)
}

/// Removes what the backup does not have, or has otherwise, and says what is left.
pub(super) fn keep_what_matches(
    tree: &Tree,
    list: &FileList,
    jobs: NonZeroUsize,
) -> Result<Kept, RecoverError> {
    if tree.is_resumed {
        // Only what is on disk can be dropped from memory.
        for root in tree.file_systems() {
            root.sync_file_system()?;
        }
    }
    let wanted = Wanted::new(tree, list);
    let mut found = Found::default();
    wanted.sweep(&tree.base, Path::new(""), &mut found, &Place::DataDirectory)?;
    for (oid, tablespace) in &tree.tablespaces {
        wanted.sweep(&tablespace.root, Path::new(""), &mut found, &Place::Tablespace(*oid))?;
    }
    let kept = compare(found.candidates, tree.is_resumed, jobs)?;
    Ok(Kept { removed: found.removed, ..kept })
}

/// Which directory is swept, and so what a path in it is called in the list.
enum Place {
    DataDirectory,
    Tablespace(u32),
}

impl Place {
    fn listed(&self, path: &Path) -> Option<RelativePath> {
        let path = path.as_os_str().as_bytes();
        match self {
            Place::DataDirectory => RelativePath::new(path).ok(),
            Place::Tablespace(oid) => {
                RelativePath::new([format!("{LINKS}/{oid}/").as_bytes(), path].concat()).ok()
            }
        }
    }
}

/// A file of the right size.
struct Candidate<'a> {
    root: &'a Root,
    path: PathBuf,
    listed: &'a ListedFile,
}

/// What a sweep came upon.
#[derive(Default)]
struct Found<'a> {
    candidates: Vec<Candidate<'a>>,
    removed: u64,
}

struct Wanted<'a> {
    files: HashMap<&'a RelativePath, &'a ListedFile>,
    dirs: HashSet<&'a RelativePath>,
    /// The first directory of every path in a tablespace.
    versions: BTreeSet<(u32, PathBuf)>,
    /// The links that the preparation has just made.
    links: BTreeSet<PathBuf>,
}

impl<'a> Wanted<'a> {
    fn new(tree: &Tree, list: &'a FileList) -> Self {
        let paths = list.files.iter().map(|file| &file.path).chain(list.dirs.iter().map(|dir| &dir.path));
        let versions = paths.filter_map(|path| {
            let (oid, rest) = path.in_tablespace()?;
            Some((oid, as_path(&rest).iter().next().map(PathBuf::from)?))
        });
        Self {
            links: tree.tablespaces.keys().map(|oid| Path::new(LINKS).join(oid.to_string())).collect(),
            versions: versions.collect(),
            files: list.files.iter().map(|file| (&file.path, file)).collect(),
            dirs: list.dirs.iter().map(|dir| &dir.path).collect(),
        }
    }

    fn sweep<'t: 'a>(
        &self,
        root: &'t Root,
        directory: &Path,
        found: &mut Found<'a>,
        place: &Place,
    ) -> Result<(), FsError> {
        let top = directory.as_os_str().is_empty();
        for (name, kind) in root.entries(if top { Path::new(".") } else { directory })? {
            let path = directory.join(name);
            let left_alone = match place {
                Place::DataDirectory => path == Path::new(RESTORE_MARKER) || self.links.contains(&path),
                Place::Tablespace(oid) => top && !self.versions.contains(&(*oid, path.clone())),
            };
            if left_alone {
                continue;
            }
            let listed = place.listed(&path);
            match kind {
                Kind::Directory => {
                    self.sweep(root, &path, found, place)?;
                    let wanted = listed.as_ref().is_some_and(|listed| self.dirs.contains(listed));
                    if !wanted && root.entries(&path)?.is_empty() {
                        root.remove_directory(&path)?;
                    }
                }
                Kind::File { bytes } => {
                    let file = listed.as_ref().and_then(|listed| self.files.get(listed)).copied();
                    if file.is_none() {
                        found.removed += 1;
                    }
                    let file = file.filter(|f| f.size == bytes && !always_fetched(f.path.as_bytes()));
                    match file {
                        Some(listed) => found.candidates.push(Candidate { root, path, listed }),
                        None => root.remove(&path)?,
                    }
                }
                Kind::Other => {
                    root.remove(&path)?;
                    found.removed += 1;
                }
            }
        }
        Ok(())
    }
}

/// Whether a file's content is the listed one, in memory or `on_disk`. If so, its permissions are made so.
fn matches(root: &Root, path: &Path, listed: &ListedFile, on_disk: bool) -> Result<bool, FsError> {
    let mut file = root.read(path)?;
    if on_disk {
        let dropped = fadvise(&file, 0, None, Advice::DontNeed);
        dropped.map_err(|errno| FsError::new("read from disk", root.path().join(path), errno))?;
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(&mut file).map_err(|source| FsError::new("read", root.path().join(path), source))?;
    if Blake3Hex::from(hasher.finalize()) != listed.blake3 {
        return Ok(false);
    }
    let dressed = root.dress(&file, listed.mode);
    dressed.map_err(|errno| FsError::new("set the permissions of", root.path().join(path), errno))?;
    Ok(true)
}

/// Hashes the candidates, `jobs` at a time, and removes those that differ.
fn compare(candidates: Vec<Candidate<'_>>, on_disk: bool, jobs: NonZeroUsize) -> Result<Kept, RecoverError> {
    let next = AtomicUsize::new(0);
    let kept = Mutex::new(Kept::default());
    let work = || -> Result<(), RecoverError> {
        while let Some(candidate) = candidates.get(next.fetch_add(1, Ordering::Relaxed)) {
            let Candidate { root, path, listed } = candidate;
            let same = match matches(root, path, listed, on_disk) {
                // Another user's file: in a directory of this user it can be replaced.
                Err(error) if error.kind() == ErrorKind::PermissionDenied => false,
                other => other?,
            };
            if !same {
                root.remove(path)?;
                continue;
            }
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.paths.insert(listed.path.clone());
            kept.bytes = kept.bytes.saturating_add(listed.size);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs.get()).map(|_| scope.spawn(work)).collect();
        let results = workers.into_iter().map(|worker| worker.join().map_err(|_| RecoverError::Worker)?);
        results.collect::<Result<Vec<()>, _>>()
    })?;
    Ok(kept.into_inner().unwrap_or_else(PoisonError::into_inner))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn fetched_bytes() -> u64 {
        let counts = fs::read_to_string("/proc/thread-self/io").unwrap();
        counts.lines().find_map(|line| line.strip_prefix("read_bytes: ")?.trim().parse().ok()).unwrap()
    }

    #[test]
    fn after_a_restore_that_failed_the_disk_is_asked_and_not_the_memory() {
        const BYTES: usize = 8 << 20;
        // Beside the sources: `/tmp` may be in memory.
        let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let content = vec![7; BYTES];
        fs::write(directory.path().join("file"), &content).unwrap();
        let root = Root::open(directory.path(), None).unwrap();
        root.sync_file_system().unwrap();
        let path = RelativePath::new("file").unwrap();
        let (size, blake3) = (BYTES as u64, Blake3Hex::of(&content));
        let listed = ListedFile { path, size, mode: 0o600, mtime: 0, blake3, part: String::new(), at: None };
        for (on_disk, fetched) in [(false, 0..size / 4), (true, size * 3 / 4..size * 2)] {
            let before = fetched_bytes();
            assert!(matches(&root, Path::new("file"), &listed, on_disk).unwrap());
            let now = fetched_bytes() - before;
            assert!(fetched.contains(&now), "{on_disk}: {now}");
        }
    }
}
