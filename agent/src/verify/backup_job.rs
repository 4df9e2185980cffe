//! The lists of a backup, proven and kept in a form that is small enough for millions of files.
//!
//! A file is kept as 16 bytes of the BLAKE3 of its path, its size, and 16 bytes of its own BLAKE3: enough to tell
//! any two apart, and 48 bytes each instead of a few hundred. A name that is wanted after all is read from
//! the list again.

use super::event::Event;
use super::lanes::{GivenUp, Shared};
use crate::explain;
use crate::stored::read_lines;
use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};
use wald_core::blake3_hex::Blake3Hex;
use wald_core::catalog::{CatalogEntry, StoredObject};
use wald_core::control_file::ControlFile;
use wald_core::data_file::RelationFile;
use wald_core::data_page::PAGE_BYTES;
use wald_core::file_list::{
    FILE_LIST_LINE_BYTES_MAX, FileListEntry, FileListError, FileListLines, ListedFile,
};
use wald_core::ledger::Damage;
use wald_core::manifest::Manifest;
use wald_core::object_key::ObjectKey;

/// Without it PostgreSQL would begin replay at the wrong place.
const LABEL: &str = "backup_label";
/// A manifest is held against the list as a whole, which takes a few times its size in memory; this is
/// room for some 200,000 files. The hash of a larger one is proven all the same.
const MANIFEST_BYTES_MAX: u64 = 24 << 20;

/// A backup that is being verified. Its lists are read when the first of its parts needs them,
/// and gone with the last.
#[derive(Debug)]
pub(super) struct BackupJob {
    pub entry: CatalogEntry,
    files: Mutex<Option<Option<Arc<Files>>>>,
}

/// The files that a backup's list names.
#[derive(Debug)]
pub(super) struct Files {
    /// Sorted by part, then by path.
    listed: Vec<Listed>,
    /// Blocks in a full file of a relation, if one was seen.
    pub blocks_per_segment: Option<u32>,
}

/// A file of the list.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Listed {
    part: u32,
    path: [u8; 16],
    pub size: u64,
    pub proof: [u8; 16],
}

/// Why a list can't be believed.
enum ListError {
    Read(io::Error),
    List(FileListError),
    Other(String),
}

impl From<io::Error> for ListError {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

impl std::fmt::Display for ListError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ListError::Read(error) => error.fmt(f),
            ListError::List(error) => f.write_str(&explain::chain(error)),
            ListError::Other(problem) => f.write_str(problem),
        }
    }
}

/// The first 16 bytes of a hash.
pub(super) fn short(hash: &[u8; 32]) -> [u8; 16] {
    hash.first_chunk().copied().unwrap_or_default()
}

fn path_key(path: &[u8]) -> [u8; 16] {
    short(blake3::hash(path).as_bytes())
}

impl BackupJob {
    pub fn new(entry: CatalogEntry) -> Arc<Self> {
        Arc::new(Self { entry, files: Mutex::new(None) })
    }

    /// The files, read and proven once. `None`: they can't be used, which was told.
    pub fn files(&self, shared: &Shared) -> Result<Option<Arc<Files>>, GivenUp> {
        // Lanes that work on the same backup wait for the first of them.
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = &*files {
            return Ok(known.clone());
        }
        let read = self.read_lists(shared)?.map(Arc::new);
        *files = Some(read.clone());
        Ok(read)
    }

    fn read_lists(&self, shared: &Shared) -> Result<Option<Files>, GivenUp> {
        let object = &self.entry.facts().file_list;
        let Some((key, listed)) = self.read_object(shared, object, |reader| self.scan_list(reader))? else {
            self.block_manifest(shared);
            return Ok(None);
        };
        let damaged = |key: &ObjectKey, problem| shared.found(key, Damage::Content { problem });
        let files = match listed.and_then(|(listed, largest)| self.complete(listed, largest)) {
            Ok(files) => files,
            Err(error) => {
                damaged(&key, error.to_string());
                self.block_manifest(shared);
                return Ok(None);
            }
        };
        shared.proven(&key, shared.depth);
        let object = &self.entry.facts().manifest;
        let manifest = self.read_object(shared, object, |reader| manifest_text(reader, object))?;
        if let Some((key, text)) = manifest {
            match check_manifest(text, &files) {
                Ok(()) => shared.proven(&key, shared.depth),
                Err(problem) => damaged(&key, problem),
            }
        }
        Ok(Some(files))
    }

    /// Without the list nothing can be said of the manifest.
    fn block_manifest(&self, shared: &Shared) {
        if let Ok(key) = self.entry.object_key(&self.entry.facts().manifest.name) {
            shared.tell(Event::Blocked { object: key.as_str().into() });
        }
    }

    /// Reads one of the lists and proves it as a whole.
    fn read_object<T>(
        &self,
        shared: &Shared,
        object: &StoredObject,
        take: impl FnMut(&mut crate::stored::ObjectReader<'_>) -> T,
    ) -> Result<Option<(ObjectKey, T)>, GivenUp> {
        // A catalog entry names no impossible objects.
        let Ok(key) = self.entry.object_key(&object.name) else { return Ok(None) };
        let Some(whole) = shared.read(&key, take)? else { return Ok(None) };
        match difference(whole.bytes, whole.hash, object.stored_bytes, object.blake3) {
            None => Ok(Some((key, whole.value))),
            Some(problem) => {
                shared.found(&key, Damage::Content { problem });
                Ok(None)
            }
        }
    }

    /// The files of the list, and the size of the largest relation file.
    fn scan_list(&self, reader: impl Read) -> Result<(Vec<Listed>, Option<u64>), ListError> {
        let parts = self.entry.parts().iter().zip(0u32..);
        let parts: HashMap<&str, u32> = parts.map(|(part, index)| (part.name.as_str(), index)).collect();
        let mut lines = FileListLines::new(self.entry.id());
        let (mut listed, mut largest, mut several) = (Vec::new(), 0, false);
        read_lines(reader, FILE_LIST_LINE_BYTES_MAX, |line| {
            let entry = lines.line(line).map_err(ListError::List)?;
            let Some(FileListEntry::File(file)) = entry else { return Ok(()) };
            if let Some(segment) = relation_segment(&file) {
                largest = file.size.max(largest);
                several |= segment > 0 && file.size > 0;
            }
            let Some(part) = parts.get(file.part.as_str()) else {
                let problem = format!("{} should be in {}, which the catalog has not", file.path, file.part);
                return Err(ListError::Other(problem));
            };
            let path = path_key(file.path.as_bytes());
            listed.push(Listed { part: *part, path, size: file.size, proof: short(file.blake3.as_bytes()) });
            Ok(())
        })?;
        lines.finish().map_err(ListError::List)?;
        Ok((listed, several.then_some(largest)))
    }

    /// What can be said only of the whole list.
    fn complete(&self, mut listed: Vec<Listed>, largest: Option<u64>) -> Result<Files, ListError> {
        let problem = |problem: String| Err(ListError::Other(problem));
        listed.sort_unstable_by_key(|file| file.path);
        if listed.windows(2).any(|pair| matches!(pair, [a, b] if a.path == b.path)) {
            return problem("it names a file twice".to_owned());
        }
        for needed in [LABEL, ControlFile::PATH] {
            let path = path_key(needed.as_bytes());
            if listed.binary_search_by_key(&path, |file| file.path).is_err() {
                return problem(format!("it has no {needed}, without which nothing can be restored safely"));
            }
        }
        listed.sort_unstable();
        let blocks = largest.and_then(|bytes| bytes.checked_div(u64::try_from(PAGE_BYTES).ok()?));
        let blocks_per_segment = blocks.and_then(|blocks| u32::try_from(blocks).ok());
        let files = Files { listed, blocks_per_segment };
        for (part, index) in self.entry.parts().iter().zip(0u32..) {
            let in_part = files.of_part(index);
            let (count, bytes) = (in_part.len(), in_part.iter().map(|file| file.size).sum::<u64>());
            if (u64::try_from(count), bytes) != (Ok(part.files), part.raw_bytes) {
                return problem(format!(
                    "it lists {count} files with {bytes} bytes in {}, the catalog says {} with {}",
                    part.name, part.files, part.raw_bytes
                ));
            }
        }
        Ok(files)
    }

    /// A path that the list has and that is not among `found`; the list is read again for it.
    pub fn name_missing(
        &self,
        shared: &Shared,
        part: &str,
        missing: &HashMap<[u8; 16], Listed>,
    ) -> Result<Option<String>, GivenUp> {
        let Ok(key) = self.entry.object_key(&self.entry.facts().file_list.name) else { return Ok(None) };
        let read = shared.read(&key, |reader| {
            let mut lines = FileListLines::new(self.entry.id());
            let mut name = None;
            let _ = read_lines(reader, FILE_LIST_LINE_BYTES_MAX, |line| {
                if let Some(FileListEntry::File(file)) = lines.line(line).map_err(ListError::List)?
                    && name.is_none()
                    && file.part == part
                    && missing.contains_key(&path_key(file.path.as_bytes()))
                {
                    name = Some(file.path.to_string());
                }
                Ok::<(), ListError>(())
            });
            name
        })?;
        Ok(read.and_then(|whole| whole.value))
    }
}

impl Files {
    fn of_part(&self, index: u32) -> &[Listed] {
        let first = self.listed.partition_point(|file| file.part < index);
        let behind = self.listed.partition_point(|file| file.part <= index);
        self.listed.get(first..behind).unwrap_or_default()
    }

    /// The files that a part should hold, by path.
    pub fn expected(&self, index: usize) -> HashMap<[u8; 16], Listed> {
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        self.of_part(index).iter().map(|file| (file.path, *file)).collect()
    }
}

/// Takes the file at `path` from those that are expected.
pub(super) fn take(expected: &mut HashMap<[u8; 16], Listed>, path: &[u8]) -> Option<Listed> {
    expected.remove(&path_key(path))
}

/// How an object differs from what the catalog says, in words.
pub(super) fn difference(
    bytes: u64,
    hash: blake3::Hash,
    expected_bytes: u64,
    expected: Blake3Hex,
) -> Option<String> {
    let found = Blake3Hex::from(hash);
    if bytes != expected_bytes {
        Some(format!("it has {bytes} bytes, the catalog says {expected_bytes}"))
    } else if found != expected {
        Some(format!("its BLAKE3 is {found}, the catalog says {expected}"))
    } else {
        None
    }
}

/// The number of a relation's file, if it is one: only in full files is a second one begun.
fn relation_segment(file: &ListedFile) -> Option<u32> {
    let path = std::str::from_utf8(file.path.as_bytes()).ok()?;
    RelationFile::parse(path).map(RelationFile::segment)
}

/// The manifest's text, unless it is too long to be held against the list.
fn manifest_text(reader: &mut impl Read, object: &StoredObject) -> io::Result<Option<String>> {
    if object.stored_bytes > MANIFEST_BYTES_MAX {
        return Ok(None);
    }
    let mut text = String::new();
    reader.take(MANIFEST_BYTES_MAX).read_to_string(&mut text).map(|_| Some(text))
}

/// The manifest must be sound in itself and name the same files as the list.
fn check_manifest(text: io::Result<Option<String>>, files: &Files) -> Result<(), String> {
    let Some(text) = text.map_err(|error| error.to_string())? else { return Ok(()) };
    let manifest = Manifest::parse(&text).map_err(|error| explain::chain(&error))?;
    drop(text);
    let mut by_path: Vec<([u8; 16], u64)> = files.listed.iter().map(|file| (file.path, file.size)).collect();
    by_path.sort_unstable();
    for file in &manifest.files {
        let found = by_path.binary_search_by_key(&path_key(&file.path), |(path, _)| *path).ok();
        let size = found.and_then(|index| by_path.get(index)).map(|(_, size)| *size);
        if size != Some(file.size) {
            let listed = size.map_or("has no such file".to_owned(), |size| format!("says {size}"));
            let path = file.path.escape_ascii();
            return Err(format!("it gives {path} {} bytes, wald's own list {listed}", file.size));
        }
    }
    if manifest.files.len() != by_path.len() {
        return Err(format!("it names {} files, wald's own list {}", manifest.files.len(), by_path.len()));
    }
    Ok(())
}
