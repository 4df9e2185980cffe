//! The last steps of a restore, in an order that a crash at any point can't turn into a server
//! that starts with half its data.
//!
//! Settings, signal, map, manifest → everything to disk → `pg_control` → the marker goes.

use super::RecoverError;
use super::listed::CONTROL;
use super::settings;
use super::tree::Tree;
use super::unpack::{Held, HeldFile};
use crate::fs::FsError;
use bytes::Bytes;
use jiff::Timestamp;
use std::io::{Read, Write};
use std::path::Path;
use wald_core::backup_label::{TablespaceLink, TablespaceMap};
use wald_core::catalog::CatalogEntry;
use wald_core::control_file::ControlFile;
use wald_core::data_file::RESTORE_MARKER;
use wald_core::manifest::{FileChecksum, Manifest};
use wald_core::object_key::ObjectKey;
use wald_core::target::Setting;

const AUTO_CONF: &str = "postgresql.auto.conf";
const RECOVERY_SIGNAL: &str = "recovery.signal";
const STANDBY_SIGNAL: &str = "standby.signal";
const CONTROL_TEMPORARY: &str = "global/pg_control.wald";
const FILE_MODE: u32 = 0o600;
/// `ALTER SYSTEM` writes a line per parameter.
const AUTO_CONF_BYTES_MAX: u64 = 16 << 20;

/// Makes a directory in which all files stand into one that PostgreSQL starts from.
pub(super) fn finish(
    tree: &Tree,
    held: Held,
    manifest: &Bytes,
    entry: &CatalogEntry,
    settings: &[Setting],
    now: Timestamp,
) -> Result<(), RecoverError> {
    let incomplete = || RecoverError::Incomplete { backup: entry.id().to_string(), file: CONTROL };
    let control = held.control.ok_or_else(incomplete)?;
    check_control(&control, entry)?;
    let map = held.tablespace_map.map(|map| placed_map(map, tree, entry)).transpose()?;
    if let Some(PlacedMap { file, .. }) = &map {
        replace(tree, TablespaceMap::FILE, &file.content, file.mode)?;
    }
    let changed = map.as_ref().filter(|map| map.changed);
    let manifest = match changed {
        None => manifest.to_vec(),
        Some(map) => manifest_with(manifest, &map.file.content, entry)?,
    };
    replace(tree, Manifest::FILE, &manifest, FILE_MODE)?;
    write_settings(tree, settings, entry, now)?;
    // A server with this file would follow another one for ever instead of ending recovery.
    tree.base.remove(Path::new(STANDBY_SIGNAL))?;
    replace(tree, RECOVERY_SIGNAL, b"", FILE_MODE)?;

    tree.narrow_directories()?;
    for root in tree.file_systems() {
        root.sync_file_system()?;
    }
    // From here on PostgreSQL can start, so all that it needs is on disk already.
    replace(tree, CONTROL_TEMPORARY, &control.content, control.mode)?;
    let path = Path::new(CONTROL_TEMPORARY);
    let synced = tree.base.read(path)?.sync_all();
    synced.map_err(|source| FsError::new("write to disk", tree.base.path().join(path), source))?;
    tree.base.rename(path, Path::new(CONTROL))?;
    tree.base.sync_directory(Path::new("global"))?;
    // Last: until pg_control is there for good, the marker tells whose directory this is.
    tree.base.remove(Path::new(RESTORE_MARKER))?;
    tree.base.sync_directory(Path::new("."))?;
    Ok(())
}

/// The major version, if the directory has no `postgresql.conf`.
pub(super) fn configuration_elsewhere(tree: &Tree) -> Option<String> {
    match tree.base.read(Path::new("postgresql.conf")) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        _ => return None,
    }
    let mut version = String::new();
    tree.base.read(Path::new("PG_VERSION")).ok()?.take(64).read_to_string(&mut version).ok()?;
    let version = version.trim();
    (!version.is_empty()).then(|| version.to_owned())
}

/// Writes a small file, in place of any old one.
fn replace(tree: &Tree, name: &str, content: &[u8], mode: u32) -> Result<(), FsError> {
    let path = Path::new(name);
    tree.base.remove(path)?;
    let mut file = tree.base.create(path, mode)?;
    file.write_all(content).map_err(|source| FsError::new("write", tree.base.path().join(path), source))
}

fn list_key(entry: &CatalogEntry) -> Result<ObjectKey, RecoverError> {
    Ok(entry.object_key(&entry.facts().file_list.name)?)
}

/// The backup's own `pg_control` must be the cluster's.
fn check_control(control: &HeldFile, entry: &CatalogEntry) -> Result<(), RecoverError> {
    let damage = match ControlFile::parse(&control.content) {
        Ok(control) if control.system_id() == entry.system_id() => return Ok(()),
        Ok(control) => format!(
            "the {CONTROL} that it lists is of system {}, the catalog says {}",
            control.system_id(),
            entry.system_id()
        ),
        Err(error) => format!("the {CONTROL} that it lists can't be read: {error}"),
    };
    Err(RecoverError::Damaged { key: list_key(entry)?, damage })
}

struct PlacedMap {
    file: HeldFile,
    changed: bool,
}

/// The map with the places of this restore. PostgreSQL makes the links in `pg_tblspc` anew from
/// it when it starts (`read_tablespace_map` in `xlogrecovery.c`), so it must not name the old
/// ones: the restored server would then work on the old server's files.
fn placed_map(map: HeldFile, tree: &Tree, entry: &CatalogEntry) -> Result<PlacedMap, RecoverError> {
    let damaged = |damage| -> Result<RecoverError, RecoverError> {
        Ok(RecoverError::Damaged { key: list_key(entry)?, damage })
    };
    let text = String::from_utf8(map.content);
    let parsed = text.map_err(|error| error.to_string()).and_then(|text| {
        TablespaceMap::parse(&text).map(|map| (text, map)).map_err(|error| error.to_string())
    });
    let (text, old) = match parsed {
        Ok(parsed) => parsed,
        Err(problem) => {
            return Err(damaged(format!("the {} that it lists: {problem}", TablespaceMap::FILE))?);
        }
    };
    let mut links = Vec::new();
    for link in old.links() {
        let Some(tablespace) = tree.tablespaces.get(&link.oid) else {
            let problem =
                format!("{} names tablespace {}, the catalog does not", TablespaceMap::FILE, link.oid);
            return Err(damaged(problem)?);
        };
        links.push(TablespaceLink { oid: link.oid, location: tablespace.target.clone() });
    }
    let changed = links != old.links();
    let content = if changed { TablespaceMap::render(&links) } else { text };
    Ok(PlacedMap { file: HeldFile { content: content.into_bytes(), mode: map.mode }, changed })
}

/// PostgreSQL's manifest with the changed map, or `pg_verifybackup` would call the directory
/// damaged.
fn manifest_with(manifest: &Bytes, map: &[u8], entry: &CatalogEntry) -> Result<Vec<u8>, RecoverError> {
    let key = entry.object_key(&entry.facts().manifest.name)?;
    let text = std::str::from_utf8(manifest)
        .map_err(|_| RecoverError::Damaged { key: key.clone(), damage: "it is not text".to_owned() })?;
    let mut manifest = Manifest::parse(text).map_err(|source| RecoverError::Manifest { key, source })?;
    for file in &mut manifest.files {
        if file.path == TablespaceMap::FILE.as_bytes() {
            file.size = u64::try_from(map.len()).unwrap_or(u64::MAX);
            file.checksum = FileChecksum::Crc32c(crc32c::crc32c(map));
        }
    }
    Ok(manifest.to_string().into_bytes())
}

fn write_settings(
    tree: &Tree,
    settings: &[Setting],
    entry: &CatalogEntry,
    now: Timestamp,
) -> Result<(), RecoverError> {
    let path = Path::new(AUTO_CONF);
    let mut old = Vec::new();
    match tree.base.read(path) {
        Ok(file) => {
            let read = file.take(AUTO_CONF_BYTES_MAX).read_to_end(&mut old);
            read.map_err(|source| FsError::new("read", tree.base.path().join(path), source))?;
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    let new = settings::rewritten(&old, settings, &entry.id().to_string(), now);
    Ok(replace(tree, AUTO_CONF, &new, FILE_MODE)?)
}
