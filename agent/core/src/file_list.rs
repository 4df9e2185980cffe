//! The list of a backup's files: `files.json.zst`, one JSON line per file or directory.
//!
//! ```text
//! {"format":1,"backup":"20250210T020000Z-full"}
//! {"dir":"base/5","mode":448}
//! {"path":"base/5/1259","size":8192,"mode":384,"mtime":1700000000,"blake3":"..","part":"base-0001.tar.zst","at":[0,1234]}
//! ```
//!
//! `at` says where the file stands in its part: the offset and the length, in stored bytes, of the
//! zstd frames that hold its tar entry, and perhaps other files. Lists of older wald lack it.
//!
//! Invariants: paths are relative to the data directory and can't leave it (see
//! [`RelativePath`]); files of a tablespace stand under `pg_tblspc/<oid>/`; no path is
//! listed twice. A restore writes nothing that is not listed here. Lines are read one by
//! one, so that a list of millions of files needs no second copy in memory.

use crate::backup_id::BackupId;
use crate::blake3_hex::Blake3Hex;
use crate::catalog::CatalogEntry;
use crate::relative_path::{RelativePath, RelativePathError};
use crate::stored_range::StoredRange;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};

/// The version of the list's format that this wald writes, and the newest that it reads.
pub const FILE_LIST_FORMAT: u32 = 1;

/// A line is never longer than this: a path has at most 4096 bytes, which are 8192
/// hexadecimal digits or, escaped, six times as many characters.
pub const FILE_LIST_LINE_BYTES_MAX: usize = 32 << 10;

/// A file of the backup.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListedFile {
    /// Where it stands.
    pub path: RelativePath,
    /// Its size in bytes.
    pub size: u64,
    /// Its permission bits, as 0o600.
    pub mode: u32,
    /// When it was last changed, in seconds since 1970.
    pub mtime: i64,
    /// The hash of its content.
    pub blake3: Blake3Hex,
    /// The name of the part that holds it.
    pub part: String,
    /// The frames of the part that hold it, where that is known.
    pub at: Option<StoredRange>,
}

/// A directory of the backup.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListedDir {
    /// Where it stands.
    pub path: RelativePath,
    /// Its permission bits, as 0o700.
    pub mode: u32,
}

/// One line after the first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FileListEntry {
    /// A file.
    File(ListedFile),
    /// A directory.
    Dir(ListedDir),
}

/// Text that is not a file list, or not the expected one.
#[derive(Debug, thiserror::Error)]
pub enum FileListError {
    /// Not JSON, or a field is missing or of another kind.
    #[error("line {line} of the file list is damaged")]
    Malformed {
        /// Counted from 1.
        line: u64,
        /// Where the JSON is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// A line that says neither "path" nor "dir", or lacks a field.
    #[error("line {line} of the file list is incomplete: {missing}")]
    Incomplete {
        /// Counted from 1.
        line: u64,
        /// What is missing.
        missing: &'static str,
    },
    /// A path that could lead out of the data directory.
    #[error("line {line} of the file list is refused")]
    Path {
        /// Counted from 1.
        line: u64,
        /// The path.
        #[source]
        source: RelativePathError,
    },
    /// A path that two lines give.
    #[error("line {line} of the file list names {path} a second time")]
    Twice {
        /// Counted from 1.
        line: u64,
        /// The path.
        path: RelativePath,
    },
    /// Written by a newer wald.
    #[error(
        "the file list has format {found}, and this wald reads format {FILE_LIST_FORMAT}: use a newer wald"
    )]
    NewerFormat {
        /// The version found.
        found: u32,
    },
    /// The list of another backup.
    #[error("the file list belongs to backup {found}, not to {expected}")]
    OtherBackup {
        /// The backup that the list names.
        found: BackupId,
        /// The backup whose list it should be.
        expected: BackupId,
    },
    /// Without even its first line.
    #[error("the file list is empty")]
    Empty,
    /// The list and the catalog entry disagree.
    #[error("the file list and the catalog entry disagree about part {part}: {difference}")]
    PartDiffers {
        /// The part.
        part: String,
        /// What differs.
        difference: String,
    },
}

#[derive(Serialize, Deserialize)]
struct HeaderLine {
    format: u32,
    backup: BackupId,
}

#[derive(Deserialize)]
struct FormatOnly {
    format: u32,
}

/// One line with whatever it has. A path that is not UTF-8 stands as hexadecimal digits, as
/// in PostgreSQL's `backup_manifest` ("Encoded-Path").
#[derive(Serialize, Deserialize, Default)]
struct Line {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    path_hex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    dir: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    dir_hex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    size: Option<u64>,
    mode: u32,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    mtime: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    blake3: Option<Blake3Hex>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    part: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    at: Option<StoredRange>,
}

/// The first line of a list, with its line feed.
pub fn header_line(backup: &BackupId) -> String {
    json_line(&HeaderLine { format: FILE_LIST_FORMAT, backup: backup.clone() })
}

fn json_line(value: &impl Serialize) -> String {
    // Serializing plain structs of text and numbers into memory can't fail.
    let mut line = serde_json::to_string(value).unwrap_or_default();
    line.push('\n');
    line
}

/// A path as (text, hexadecimal digits): exactly one of the two.
fn encode(path: &RelativePath) -> (Option<String>, Option<String>) {
    match std::str::from_utf8(path.as_bytes()) {
        Ok(text) => (Some(text.to_owned()), None),
        Err(_) => (None, Some(path.as_bytes().iter().map(|b| format!("{b:02x}")).collect())),
    }
}

fn decode_hex(digits: &str) -> Option<Vec<u8>> {
    let nibble = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let pairs = digits.as_bytes().chunks(2);
    pairs
        .map(|pair| match pair {
            [high, low] => Some(nibble(*high)? << 4 | nibble(*low)?),
            _ => None,
        })
        .collect()
}

impl FileListEntry {
    /// The line of this entry, with its line feed.
    pub fn to_line(&self) -> String {
        let line = match self {
            FileListEntry::File(file) => {
                let (path, path_hex) = encode(&file.path);
                Line {
                    path,
                    path_hex,
                    size: Some(file.size),
                    mode: file.mode,
                    mtime: Some(file.mtime),
                    blake3: Some(file.blake3),
                    part: Some(file.part.clone()),
                    at: file.at,
                    ..Line::default()
                }
            }
            FileListEntry::Dir(dir) => {
                let (path, hex) = encode(&dir.path);
                Line { dir: path, dir_hex: hex, mode: dir.mode, ..Line::default() }
            }
        };
        json_line(&line)
    }

    /// Where the file or directory stands.
    pub fn path(&self) -> &RelativePath {
        match self {
            FileListEntry::File(file) => &file.path,
            FileListEntry::Dir(dir) => &dir.path,
        }
    }

    fn from_line(line: Line, number: u64) -> Result<Self, FileListError> {
        let missing = |missing| FileListError::Incomplete { line: number, missing };
        let path_error = |source| FileListError::Path { line: number, source };
        let path = |text: Option<String>, hex: Option<String>| match (text, hex) {
            (Some(text), None) => Ok(Some(RelativePath::new(text).map_err(path_error)?)),
            (None, Some(hex)) => {
                let bytes = decode_hex(&hex).ok_or_else(|| missing("hexadecimal digits"))?;
                Ok(Some(RelativePath::new(bytes).map_err(path_error)?))
            }
            (None, None) => Ok(None),
            (Some(_), Some(_)) => Err(missing("a single path")),
        };
        let dir = path(line.dir, line.dir_hex)?;
        match (path(line.path, line.path_hex)?, dir) {
            (Some(path), None) => Ok(FileListEntry::File(ListedFile {
                path,
                size: line.size.ok_or_else(|| missing("size"))?,
                mode: line.mode & 0o7777,
                mtime: line.mtime.ok_or_else(|| missing("mtime"))?,
                blake3: line.blake3.ok_or_else(|| missing("blake3"))?,
                part: line.part.ok_or_else(|| missing("part"))?,
                at: line.at,
            })),
            (None, Some(path)) => Ok(FileListEntry::Dir(ListedDir { path, mode: line.mode & 0o7777 })),
            _ => Err(missing("either \"path\" or \"dir\"")),
        }
    }
}

/// All files and directories of a backup, in the order of the list.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FileList {
    /// The files.
    pub files: Vec<ListedFile>,
    /// The directories, parents first if the list has them so.
    pub dirs: Vec<ListedDir>,
}

/// Reads a list line by line and keeps nothing: for lists of any length. That no path is given
/// twice is left to the caller.
#[derive(Debug)]
pub struct FileListLines {
    expected: BackupId,
    lines: u64,
}

impl FileListLines {
    /// Begins to read the list of `backup`.
    pub fn new(backup: &BackupId) -> Self {
        Self { expected: backup.clone(), lines: 0 }
    }

    /// Takes the next line, with or without its line feed; the first one is no entry.
    pub fn line(&mut self, json: &[u8]) -> Result<Option<FileListEntry>, FileListError> {
        self.lines += 1;
        let line = self.lines;
        let malformed = |source| FileListError::Malformed { line, source };
        if line > 1 {
            return FileListEntry::from_line(serde_json::from_slice(json).map_err(malformed)?, line)
                .map(Some);
        }
        let head: FormatOnly = serde_json::from_slice(json).map_err(malformed)?;
        if head.format != FILE_LIST_FORMAT {
            return Err(FileListError::NewerFormat { found: head.format });
        }
        let header: HeaderLine = serde_json::from_slice(json).map_err(malformed)?;
        if header.backup != self.expected {
            return Err(FileListError::OtherBackup { found: header.backup, expected: self.expected.clone() });
        }
        Ok(None)
    }

    /// Lines that were taken.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// After the last line: there must have been one.
    pub fn finish(self) -> Result<(), FileListError> {
        if self.lines == 0 { Err(FileListError::Empty) } else { Ok(()) }
    }
}

/// Reads a list line by line into memory.
#[derive(Debug)]
pub struct FileListReader {
    lines: FileListLines,
    seen: HashSet<RelativePath>,
    list: FileList,
}

impl FileListReader {
    /// Begins to read the list of `backup`.
    pub fn new(backup: &BackupId) -> Self {
        Self { lines: FileListLines::new(backup), seen: HashSet::new(), list: FileList::default() }
    }

    /// Takes the next line, with or without its line feed.
    pub fn line(&mut self, json: &[u8]) -> Result<(), FileListError> {
        let Some(entry) = self.lines.line(json)? else { return Ok(()) };
        if !self.seen.insert(entry.path().clone()) {
            return Err(FileListError::Twice { line: self.lines.lines(), path: entry.path().clone() });
        }
        match entry {
            FileListEntry::File(file) => self.list.files.push(file),
            FileListEntry::Dir(dir) => self.list.dirs.push(dir),
        }
        Ok(())
    }

    /// The list, after its last line.
    pub fn finish(self) -> Result<FileList, FileListError> {
        self.lines.finish().map(|()| self.list)
    }
}

impl FileList {
    /// Reads a whole list that is in memory.
    pub fn parse(backup: &BackupId, text: &[u8]) -> Result<Self, FileListError> {
        let mut reader = FileListReader::new(backup);
        for line in text.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
            reader.line(line)?;
        }
        reader.finish()
    }

    /// The list as text, before compression.
    pub fn print(&self, backup: &BackupId) -> String {
        let dirs = self.dirs.iter().cloned().map(FileListEntry::Dir);
        let files = self.files.iter().cloned().map(FileListEntry::File);
        std::iter::once(header_line(backup)).chain(dirs.chain(files).map(|entry| entry.to_line())).collect()
    }

    /// Checks that each part holds as many files and bytes as the catalog entry says, that the
    /// files of a tablespace are in that tablespace's parts, and that no file stands outside of
    /// its part.
    pub fn check_against(&self, entry: &CatalogEntry) -> Result<(), FileListError> {
        let mut listed: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        let differs = |part: &str, difference: String| {
            Err(FileListError::PartDiffers { part: part.to_owned(), difference })
        };
        let parts: BTreeMap<&str, _> = entry.parts().iter().map(|part| (part.name.as_str(), part)).collect();
        for file in &self.files {
            let Some(part) = parts.get(file.part.as_str()) else {
                return differs(
                    &file.part,
                    format!("the catalog has no such part, which should hold {}", file.path),
                );
            };
            if part.tablespace != file.path.in_tablespace().map(|(oid, _)| oid) {
                return differs(&file.part, format!("{} belongs to another tablespace", file.path));
            }
            if let Some(at) = file.at.filter(|at| at.end() > part.stored_bytes) {
                let end = at.end();
                return differs(
                    &file.part,
                    format!("{} ends at byte {end} of {}", file.path, part.stored_bytes),
                );
            }
            let sums = listed.entry(file.part.as_str()).or_default();
            *sums = (sums.0 + 1, sums.1.saturating_add(file.size));
        }
        for part in entry.parts() {
            let (files, bytes) = listed.get(part.name.as_str()).copied().unwrap_or_default();
            if (files, bytes) != (part.files, part.raw_bytes) {
                let difference = format!(
                    "{files} files with {bytes} bytes are listed, the catalog says {} with {}",
                    part.files, part.raw_bytes
                );
                return differs(&part.name, difference);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
