//! The destination of a restore: checked first, made later.
//!
//! Invariants: [`check`] changes nothing; what it refuses is a directory that holds anything
//! (unless `--delta` allows it), that belongs to a running server or to another cluster, that
//! can't be written to, or that overlaps with another directory of the same restore.

use super::beneath::{Owner, Root};
use super::listed::CONTROL;
use super::postmaster::{self, Lock};
use super::tree::{LINKS, Tablespace, Tree};
use super::{Mode, RecoverError, RecoverOptions, space, writable};
use crate::fs::FsError;
use rustix::fs::{Gid, Uid};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use wald_core::backup_id::BackupId;
use wald_core::catalog::CatalogEntry;
use wald_core::control_file::ControlFile;
use wald_core::data_file::RESTORE_MARKER;
use wald_core::system_id::SystemId;

/// Where an old `pg_control` waits until it is certain that no server has started with it.
const CONTROL_ASIDE: &str = "global/pg_control.old";
const DIRECTORY_MODE: u32 = 0o700;
/// Of a cluster whose group may read it, to back it up for example.
const GROUP_MODE: u32 = 0o750;

#[derive(Serialize, Deserialize)]
struct Marker {
    system_id: SystemId,
    backup: BackupId,
}

/// A place that can be restored to.
#[derive(Debug)]
pub(super) struct Destination {
    data_dir: PathBuf,
    mode: Mode,
    tablespaces: Vec<Place>,
    marker: Vec<u8>,
}

#[derive(Debug)]
struct Place {
    oid: u32,
    /// The directory, with links resolved.
    location: PathBuf,
    /// What the link in `pg_tblspc` says: as in the backup, or where it was mapped to.
    target: String,
}

/// Checks where a backup is to be restored to.
pub(super) fn check(options: &RecoverOptions, entry: &CatalogEntry) -> Result<Destination, RecoverError> {
    let data_dir = settled(&options.to)?;
    let system_id = entry.system_id();
    check_no_server(&data_dir)?;
    match (occupied(&data_dir)?, options.mode) {
        (false, _) => {}
        (true, Mode::Fresh) => return Err(RecoverError::NotEmpty { directory: data_dir }),
        (true, Mode::Delta) => check_identity(&data_dir, system_id)?,
    }
    let known = |oid: &u32| entry.facts().tablespaces.iter().any(|tablespace| tablespace.oid == *oid);
    if let Some(oid) = options.tablespace_map.keys().find(|oid| !known(oid)) {
        let there: Vec<_> = entry.facts().tablespaces.iter().map(|t| t.oid.to_string()).collect();
        let there = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
        return Err(RecoverError::Arguments(format!(
            "--tablespace-map names tablespace {oid}, but backup {} has {there}",
            entry.id()
        )));
    }
    let mut tablespaces = Vec::new();
    for tablespace in &entry.facts().tablespaces {
        let place = place(tablespace, options)?;
        check_tablespace(&data_dir, &place, options.mode)?;
        tablespaces.push(place);
    }
    check_apart(&data_dir, &tablespaces)?;
    for directory in std::iter::once(&data_dir).chain(tablespaces.iter().map(|place| &place.location)) {
        writable::check(directory)?;
    }
    if options.mode == Mode::Delta {
        let places = tablespaces.iter().map(|place| place.location.as_path());
        writable::check_replaceable(&data_dir, places, entry)?;
    }
    if options.mode == Mode::Fresh {
        space::warn(&space::shortages(entry, |tablespace| match tablespace {
            None => Some(&data_dir),
            Some(oid) => tablespaces.iter().find(|p| p.oid == oid).map(|p| p.location.as_path()),
        }));
    }
    let marker = Marker { system_id, backup: entry.id().clone() };
    let marker = serde_json::to_vec(&marker).unwrap_or_default();
    Ok(Destination { data_dir, mode: options.mode, tablespaces, marker })
}

fn check_no_server(data_dir: &Path) -> Result<(), RecoverError> {
    let directory = || data_dir.to_owned();
    match postmaster::lock(data_dir) {
        None => Ok(()),
        Some(Lock { pid, works_here: true }) => Err(RecoverError::Running { directory: directory(), pid }),
        Some(Lock { pid, works_here: false }) => Err(RecoverError::MayRun { directory: directory(), pid }),
    }
}

fn place(
    tablespace: &wald_core::catalog::Tablespace,
    options: &RecoverOptions,
) -> Result<Place, RecoverError> {
    let oid = tablespace.oid;
    let Some(mapped) = options.tablespace_map.get(&oid) else {
        let location = settled(Path::new(&tablespace.location))?;
        return Ok(Place { oid, location, target: tablespace.location.clone() });
    };
    let location = settled(mapped)?;
    // PostgreSQL reads the place from a text file.
    let target = location.to_str().map(str::to_owned).ok_or_else(|| RecoverError::Destination {
        directory: location.clone(),
        problem: "its path is not UTF-8: choose another for the tablespace".to_owned(),
    })?;
    Ok(Place { oid, location, target })
}

/// The absolute path, with the links in the part of it that exists resolved.
fn settled(path: &Path) -> Result<PathBuf, RecoverError> {
    let absolute = std::path::absolute(path).map_err(|source| FsError::new("resolve", path, source))?;
    let mut missing = Vec::new();
    let mut existing = absolute.as_path();
    loop {
        match fs::canonicalize(existing) {
            Ok(real) => {
                let path = missing.iter().rev().fold(real, |path, name| path.join(name));
                return Ok(path);
            }
            // A link to nowhere is not a missing directory.
            Err(error) if error.kind() == ErrorKind::NotFound && fs::symlink_metadata(existing).is_err() => {}
            Err(source) => return Err(FsError::new("resolve", existing, source).into()),
        }
        let (Some(above), Some(name)) = (existing.parent(), existing.file_name()) else {
            let problem = "give a path without \"..\" in the part that does not exist yet".to_owned();
            return Err(RecoverError::Destination { directory: absolute, problem });
        };
        missing.push(name.to_owned());
        existing = above;
    }
}

/// Whether anything is in a directory; one that does not exist holds nothing.
fn occupied(directory: &Path) -> Result<bool, RecoverError> {
    match fs::read_dir(directory) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) if error.kind() == ErrorKind::NotADirectory => {
            let problem = "it is not a directory".to_owned();
            Err(RecoverError::Destination { directory: directory.to_owned(), problem })
        }
        Err(source) => Err(FsError::new("list", directory, source).into()),
    }
}

/// Whose data directory this is: by its `pg_control`, or if it has none, by what an interrupted
/// restore left.
fn check_identity(data_dir: &Path, expected: SystemId) -> Result<(), RecoverError> {
    let destination = |problem| RecoverError::Destination { directory: data_dir.to_owned(), problem };
    let found = match fs::read(data_dir.join(CONTROL)) {
        Ok(bytes) => {
            let control = ControlFile::parse(&bytes);
            control.map_err(|error| {
                destination(format!("its {CONTROL} does not tell which cluster's it is ({error}): empty it"))
            })
        }
        Err(_) => {
            let marker = fs::read(data_dir.join(RESTORE_MARKER)).ok();
            let marker = marker.and_then(|json| serde_json::from_slice::<Marker>(&json).ok());
            match marker {
                Some(marker) if marker.system_id == expected => return Ok(()),
                Some(marker) => {
                    let found = marker.system_id;
                    return Err(RecoverError::OtherSystem { directory: data_dir.to_owned(), found, expected });
                }
                None => Err(destination(
                    "it is not empty, and neither a data directory nor an interrupted restore: --delta does not \
                     touch it; choose another"
                        .to_owned(),
                )),
            }
        }
    };
    match found?.system_id() {
        found if found == expected => Ok(()),
        found => Err(RecoverError::OtherSystem { directory: data_dir.to_owned(), found, expected }),
    }
}

/// A tablespace's directory must be empty, or with `--delta` the one that the old data
/// directory links to: anything else may be a living server's.
fn check_tablespace(data_dir: &Path, place: &Place, mode: Mode) -> Result<(), RecoverError> {
    if !occupied(&place.location)? {
        return Ok(());
    }
    let link = data_dir.join(LINKS).join(place.oid.to_string());
    let linked = fs::canonicalize(&link).is_ok_and(|linked| linked == place.location);
    if mode == Mode::Delta && linked {
        return Ok(());
    }
    Err(RecoverError::TablespaceNotEmpty { oid: place.oid, directory: place.location.clone() })
}

/// No directory of a restore may lie in another one.
fn check_apart(data_dir: &Path, tablespaces: &[Place]) -> Result<(), RecoverError> {
    let mut all = vec![data_dir];
    for place in tablespaces {
        let overlapping =
            all.iter().find(|other| place.location.starts_with(other) || other.starts_with(&place.location));
        if let Some(other) = overlapping {
            let oid = place.oid;
            let problem = format!(
                "tablespace {oid} would overlap with {}: choose another place with --tablespace-map {oid}=DIR",
                other.display()
            );
            return Err(RecoverError::Destination { directory: place.location.clone(), problem });
        }
        all.push(&place.location);
    }
    Ok(())
}

/// Who shall own what is made in a directory. Only root can give files away.
pub(super) fn owner_of(directory: &Path) -> Result<Option<Owner>, FsError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let metadata = fs::metadata(directory).map_err(|source| FsError::new("look at", directory, source))?;
    Ok(Some(Owner { uid: Uid::from_raw(metadata.uid()), gid: Gid::from_raw(metadata.gid()) }))
}

impl Destination {
    /// Makes the directories and the links between them, and takes away what would let an
    /// old data directory start half restored. Until the tree is dropped no other restore does. What was
    /// checked is checked again: since then the lists were fetched, which may have taken minutes.
    pub fn create(&self) -> Result<Tree, RecoverError> {
        let base = make(&self.data_dir)?;
        let busy = |root: &Root| RecoverError::Busy { directory: root.path().to_owned() };
        if !base.claim()? {
            return Err(busy(&base));
        }
        check_no_server(&self.data_dir)?;
        if self.mode == Mode::Fresh && occupied(&self.data_dir)? {
            return Err(RecoverError::NotEmpty { directory: self.data_dir.clone() });
        }
        let mut roots = Vec::new();
        for place in &self.tablespaces {
            let root = make(&place.location)?;
            if !root.claim()? {
                return Err(busy(&root));
            }
            check_tablespace(&self.data_dir, place, self.mode)?;
            roots.push(root);
        }
        // In this order: while the directory has no pg_control, the marker tells whose it is.
        let marker = Path::new(RESTORE_MARKER);
        let is_resumed = base.read(marker).err().is_none_or(|error| error.kind() != ErrorKind::NotFound);
        base.remove(marker)?;
        let mut file = base.create(marker, 0o600)?;
        let written = file.write_all(&self.marker).and_then(|()| file.sync_all());
        written.map_err(|source| FsError::new("write", base.path().join(marker), source))?;
        base.sync_directory(Path::new("."))?;
        if !base.entries(Path::new("global"))?.is_empty() {
            self.disable(&base)?;
        }
        let mut tree = Tree::new(base, is_resumed);
        tree.base.make_directory(Path::new(LINKS), DIRECTORY_MODE)?;
        for (place, root) in self.tablespaces.iter().zip(roots) {
            let link = Path::new(LINKS).join(place.oid.to_string());
            tree.base.remove(&link)?;
            tree.base.link(&link, Path::new(&place.target))?;
            tree.tablespaces.insert(place.oid, Tablespace { root, target: place.target.clone() });
        }
        Ok(tree)
    }

    /// Takes an old `pg_control` away. A server makes its lock file before it reads `pg_control`, so after that
    /// one that was quicker is seen, and one that was not can't start.
    pub(super) fn disable(&self, base: &Root) -> Result<(), RecoverError> {
        let (control, aside, global) = (Path::new(CONTROL), Path::new(CONTROL_ASIDE), Path::new("global"));
        let had = base.read(control).is_ok();
        if had {
            base.rename(control, aside)?;
        }
        base.sync_directory(global)?;
        if let Err(error) = check_no_server(&self.data_dir) {
            if had {
                base.rename(aside, control)?;
                base.sync_directory(global)?;
                base.remove(Path::new(RESTORE_MARKER))?;
            }
            return Err(error);
        }
        base.remove(control)?;
        base.remove(aside)?;
        Ok(base.sync_directory(global)?)
    }
}

/// Makes a directory, with those above it, or takes the one that is there.
fn make(directory: &Path) -> Result<Root, RecoverError> {
    let existing = directory.ancestors().find(|above| above.exists()).unwrap_or(Path::new("/"));
    let root = Root::open(existing, owner_of(existing)?)?;
    let below = directory.strip_prefix(existing).unwrap_or(Path::new(""));
    let missing: Vec<_> = below.ancestors().filter(|path| !path.as_os_str().is_empty()).collect();
    for path in missing.iter().rev() {
        root.make_directory(path, DIRECTORY_MODE)?;
    }
    if !missing.is_empty() {
        let root = root.descend(below)?;
        root.dress_self(DIRECTORY_MODE)?;
        return Ok(root);
    }
    let metadata = fs::metadata(directory).map_err(|source| FsError::new("look at", directory, source))?;
    // The backup does not tell the mode. A directory that was made with any other mode than the
    // one of `initdb --allow-group-access` was not made for PostgreSQL.
    let group_reads = metadata.mode() & 0o777 == GROUP_MODE;
    root.dress_self(if group_reads { GROUP_MODE } else { DIRECTORY_MODE })?;
    Ok(root)
}
