//! Unpacks one part: zstd, then tar, into the directories of a restore.
//!
//! Invariants: only regular files that the list names for this part are written, each once,
//! with exactly the listed size and BLAKE3; a link, a device or an unlisted name is damage.
//! Paths are the list's, not the tar's: a tar's path is only looked up. `pg_control` and
//! `tablespace_map` are proven like all others, but held back in memory for the end.

use super::RecoverError;
use super::beneath::Root;
use super::delta::Kept;
use super::listed::CONTROL;
use super::tree::Tree;
use super::write_out::{Flusher, WrittenOut};
use crate::fs::FsError;
use crate::stored::{ObjectReader, PartError, read_part};
use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};
use wald_core::backup_label::TablespaceMap;
use wald_core::blake3_hex::Blake3Hex;
use wald_core::data_file::RESTORE_MARKER;
use wald_core::file_list::ListedFile;
use wald_core::object_key::ObjectKey;
use wald_core::relative_path::RelativePath;

const BUFFER_BYTES: usize = 256 << 10;
/// Smaller files are allocated as a whole anyway.
const PREALLOCATED_BYTES_MIN: u64 = 1 << 20;
/// `pg_control` has 8 KiB, `tablespace_map` a line per tablespace.
const HELD_BYTES_MAX: u64 = 16 << 20;

/// The listed files that are wanted of one part.
#[derive(Debug)]
pub(super) struct PartFiles {
    needed: HashMap<RelativePath, ListedFile>,
    written: HashSet<RelativePath>,
}

/// Whence a part is, and whither it goes.
pub(super) struct Place<'p> {
    pub key: &'p ObjectKey,
    pub tablespace: Option<u32>,
    pub tree: &'p Tree,
    /// What is in place already.
    pub kept: &'p Kept,
    pub flusher: &'p Flusher,
}

/// Files that are put in place at the very end.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub control: Option<HeldFile>,
    pub tablespace_map: Option<HeldFile>,
}

/// A proven file that is not in place yet.
#[derive(Debug)]
pub(super) struct HeldFile {
    pub content: Vec<u8>,
    pub mode: u32,
}

/// What one part brought.
#[derive(Debug, Default)]
pub(super) struct Unpacked {
    pub files: u64,
    pub bytes: u64,
    pub held: Held,
}

impl PartFiles {
    pub fn new(files: Vec<ListedFile>) -> Self {
        // Backups that wald itself made of such a directory have one; this restore has its own.
        let is_marker = |file: &ListedFile| file.path.as_bytes() == RESTORE_MARKER.as_bytes();
        let (markers, files): (Vec<_>, Vec<_>) = files.into_iter().partition(is_marker);
        let needed = files.into_iter().map(|file| (file.path.clone(), file)).collect();
        Self { needed, written: markers.into_iter().map(|file| file.path).collect() }
    }

    pub fn first_needed(&self) -> Option<&RelativePath> {
        self.needed.keys().min()
    }
}

impl Held {
    pub fn add(&mut self, other: Held) {
        self.control = other.control.or(self.control.take());
        self.tablespace_map = other.tablespace_map.or(self.tablespace_map.take());
    }
}

/// Unpacks a part. `files` and `unpacked` tell what was done also after an error, so that a part
/// that is fetched again goes on where it broke off.
pub(super) fn unpack(
    object: &mut ObjectReader<'_>,
    place: &Place<'_>,
    files: &mut PartFiles,
    unpacked: &mut Unpacked,
) -> Result<(), RecoverError> {
    let Place { key, tablespace, tree, kept, flusher } = *place;
    let damaged = |damage: String| RecoverError::Damaged { key: key.clone(), damage };
    let mut buffer = vec![0; BUFFER_BYTES];
    let read = read_part(object, tablespace, |path, shown, size, mut content| {
        let Some(file) = files.needed.remove(&path) else {
            if files.written.contains(&path) || kept.contains(&path) {
                return Ok(());
            }
            return Err(damaged(format!("{shown} in it is not in the list of files")));
        };
        if size != file.size {
            return Err(damaged(format!("{shown} in it has {size} bytes, the list says {}", file.size)));
        }
        match hold_or_write(&mut content, &file, tree, flusher, &mut buffer, &mut unpacked.held) {
            Ok(found) if found == file.blake3 => {}
            Ok(found) => {
                let expected = file.blake3;
                return Err(damaged(format!(
                    "the BLAKE3 of {shown} in it is {found}, the list says {expected}"
                )));
            }
            Err(WriteError::Entry(error)) => {
                // Not whole: it must be written anew if this part is fetched again.
                if let Some((root, local)) = tree.locate(&path) {
                    root.remove(&local)?;
                }
                files.needed.insert(path, file);
                return Err(damaged(error.to_string()));
            }
            Err(WriteError::Local(error)) => return Err(error.into()),
        }
        unpacked.files += 1;
        unpacked.bytes += file.size;
        files.written.insert(path);
        Ok(())
    });
    read.map_err(|error| match error {
        PartError::Damaged(damage) => damaged(damage),
        PartError::Visit(error) => error,
    })
}

enum WriteError {
    /// The part can't be read on.
    Entry(io::Error),
    /// The file can't be written.
    Local(FsError),
}

/// Writes a file, or keeps it in memory, and returns the hash of what was written.
fn hold_or_write(
    entry: &mut impl Read,
    file: &ListedFile,
    tree: &Tree,
    flusher: &Flusher,
    buffer: &mut [u8],
    held: &mut Held,
) -> Result<Blake3Hex, WriteError> {
    let place = match file.path.as_bytes() {
        path if path == CONTROL.as_bytes() => Some(&mut held.control),
        path if path == TablespaceMap::FILE.as_bytes() => Some(&mut held.tablespace_map),
        _ => None,
    };
    if let Some(place) = place {
        let mut content = Vec::new();
        entry.take(HELD_BYTES_MAX).read_to_end(&mut content).map_err(WriteError::Entry)?;
        let hash = Blake3Hex::of(&content);
        *place = Some(HeldFile { content, mode: file.mode });
        return Ok(hash);
    }
    let Some((root, path)) = tree.locate(&file.path) else {
        return Err(WriteError::Entry(io::Error::other("its tablespace is not one of the backup's")));
    };
    write(entry, file, root, &path, flusher, buffer)
}

/// Finds room for a file at once: files that are written side by side so don't lie in pieces
/// between each other, and a disk that is too small says so at the beginning.
fn preallocate(file: &File, bytes: u64) -> io::Result<()> {
    if bytes < PREALLOCATED_BYTES_MIN {
        return Ok(());
    }
    // The size grows with what is written, so that a file that breaks off is seen to be short.
    match rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, 0, bytes) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(()),
        allocated => Ok(allocated?),
    }
}

fn write(
    entry: &mut impl Read,
    file: &ListedFile,
    root: &Root,
    path: &Path,
    flusher: &Flusher,
    buffer: &mut [u8],
) -> Result<Blake3Hex, WriteError> {
    let local = |source| WriteError::Local(FsError::new("write", root.path().join(path), source));
    let mut out = root.create(path, file.mode).map_err(WriteError::Local)?;
    preallocate(&out, file.size).map_err(local)?;
    let mut hasher = blake3::Hasher::new();
    let mut written = WrittenOut::new(flusher);
    loop {
        let length = match entry.read(buffer) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(WriteError::Entry(error)),
        };
        let piece = buffer.get(..length).unwrap_or_default();
        hasher.update(piece);
        out.write_all(piece).map_err(local)?;
        written.advance(&out, length, || root.path().join(path));
    }
    if let Ok(seconds) = u64::try_from(file.mtime) {
        out.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).map_err(local)?;
    }
    Ok(hasher.finalize().into())
}
