//! PostgreSQL's `backup_manifest`, version 1: every file of a base backup with its size and
//! checksum, and the WAL that restoring it needs
//! (<https://www.postgresql.org/docs/15/backup-manifest-format.html>).
//!
//! Written line by line as PostgreSQL writes it (`backup/backup_manifest.c`), because its own
//! reader relies on that: the last line holds a SHA-256 over all lines before it.
//! The checksum is checked before anything that a manifest says is believed.

use crate::lsn::Lsn;
use crate::timeline::TimelineId;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::fmt::{self, Write};

/// A file's checksum in a manifest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileChecksum {
    /// None was taken.
    None,
    /// CRC-32C (Castagnoli), PostgreSQL's default.
    Crc32c(u32),
    /// SHA-256.
    Sha256([u8; 32]),
}

/// One file of the backup.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ManifestFile {
    /// Relative to the data directory; bytes, since a path need not be UTF-8.
    pub path: Vec<u8>,
    /// Size in bytes.
    pub size: u64,
    /// When the file was last modified; the manifest keeps whole seconds.
    pub modified: Timestamp,
    /// Its checksum.
    pub checksum: FileChecksum,
}

/// WAL that a restore needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WalRange {
    /// The timeline.
    pub timeline: TimelineId,
    /// Where replay begins on it.
    pub start: Lsn,
    /// Where it may end at the earliest.
    pub end: Lsn,
}

/// A whole manifest.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Manifest {
    /// The files, in the order in which they were backed up.
    pub files: Vec<ManifestFile>,
    /// The WAL, the newest timeline first.
    pub wal_ranges: Vec<WalRange>,
}

/// Text that is no manifest, or a damaged one.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The last line is not the checksum of the lines before it.
    #[error("the manifest has no checksum in its last line: it is truncated or no backup manifest")]
    NoChecksum,
    /// The checksum does not hold.
    #[error("the manifest's SHA-256 is {computed}, its last line says {stored}: it is damaged")]
    Checksum {
        /// In the last line.
        stored: String,
        /// Over the lines before.
        computed: String,
    },
    /// Not the JSON that a manifest is made of.
    #[error("the manifest is not the JSON of a backup manifest")]
    Json(#[source] serde_json::Error),
    /// A version that wald does not know.
    #[error("the manifest has version {0}, expected 1")]
    Version(u64),
    /// A field of one entry can't be.
    #[error("the manifest's entry {entry} has an impossible {field}: \"{}\"", found.escape_default())]
    Field {
        /// The file's path or the range's timeline.
        entry: String,
        /// The key of the field.
        field: &'static str,
        /// Its value.
        found: String,
    },
}

/// PostgreSQL's `%Y-%m-%d %H:%M:%S %Z` at GMT.
const TIME_FORMAT: &str = "%Y-%m-%d %H:%M:%S GMT";
const CHECKSUM_KEY: &str = "\"Manifest-Checksum\": \"";

/// The text of the file. The format can say everything that the type can, except parts of
/// seconds in a modification time.
impl fmt::Display for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::from("{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [");
        for (index, file) in self.files.iter().enumerate() {
            text.push_str(if index == 0 { "\n" } else { ",\n" });
            write_file(&mut text, file)?;
        }
        text.push_str("\n],\n\"WAL-Ranges\": [\n");
        for (index, range) in self.wal_ranges.iter().enumerate() {
            let comma = if index == 0 { "" } else { ",\n" };
            let WalRange { timeline, start, end } = range;
            write!(
                text,
                "{comma}{{ \"Timeline\": {timeline}, \"Start-LSN\": \"{start}\", \"End-LSN\": \"{end}\" }}"
            )?;
        }
        text.push_str("\n],\n");
        let checksum = hex(&Sha256::digest(text.as_bytes()));
        writeln!(f, "{text}{CHECKSUM_KEY}{checksum}\"}}")
    }
}

fn write_file(text: &mut String, file: &ManifestFile) -> fmt::Result {
    match std::str::from_utf8(&file.path) {
        Ok(path) => {
            let quoted = serde_json::to_string(path).map_err(|_| fmt::Error)?;
            write!(text, "{{ \"Path\": {quoted}, ")?;
        }
        Err(_) => write!(text, "{{ \"Encoded-Path\": \"{}\", ", hex(&file.path))?,
    }
    let modified = file.modified.strftime(TIME_FORMAT);
    write!(text, "\"Size\": {}, \"Last-Modified\": \"{modified}\"", file.size)?;
    match file.checksum {
        FileChecksum::None => {}
        // PostgreSQL prints the integer's bytes as they stand in memory, the lowest first.
        FileChecksum::Crc32c(crc) => write!(
            text,
            ", \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"{}\"",
            hex(&crc.to_le_bytes())
        )?,
        FileChecksum::Sha256(sum) => {
            write!(text, ", \"Checksum-Algorithm\": \"SHA256\", \"Checksum\": \"{}\"", hex(&sum))?;
        }
    }
    text.push_str(" }");
    Ok(())
}

#[derive(Deserialize)]
struct RawManifest {
    #[serde(rename = "PostgreSQL-Backup-Manifest-Version")]
    version: u64,
    #[serde(rename = "Files")]
    files: Vec<RawFile>,
    #[serde(rename = "WAL-Ranges")]
    wal_ranges: Vec<RawRange>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct RawFile {
    path: Option<String>,
    #[serde(rename = "Encoded-Path")]
    encoded_path: Option<String>,
    size: u64,
    #[serde(rename = "Last-Modified")]
    last_modified: String,
    #[serde(rename = "Checksum-Algorithm")]
    checksum_algorithm: Option<String>,
    checksum: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRange {
    #[serde(rename = "Timeline")]
    timeline: u32,
    #[serde(rename = "Start-LSN")]
    start: String,
    #[serde(rename = "End-LSN")]
    end: String,
}

impl Manifest {
    /// The file's name, beside or in the data directory.
    pub const FILE: &'static str = "backup_manifest";

    /// Parses a manifest after checking its checksum.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        check_checksum(text)?;
        let raw: RawManifest = serde_json::from_str(text).map_err(ManifestError::Json)?;
        if raw.version != 1 {
            return Err(ManifestError::Version(raw.version));
        }
        Ok(Self {
            files: raw.files.into_iter().map(file_from_raw).collect::<Result<_, _>>()?,
            wal_ranges: raw.wal_ranges.iter().map(range_from_raw).collect::<Result<_, _>>()?,
        })
    }
}

fn check_checksum(text: &str) -> Result<(), ManifestError> {
    let body_end = text
        .strip_suffix('\n')
        .and_then(|without| without.rfind('\n'))
        .map(|newline| newline + 1)
        .ok_or(ManifestError::NoChecksum)?;
    let (body, last_line) = text.split_at_checked(body_end).ok_or(ManifestError::NoChecksum)?;
    let stored = last_line
        .strip_prefix(CHECKSUM_KEY)
        .and_then(|rest| rest.strip_suffix("\"}\n"))
        .ok_or(ManifestError::NoChecksum)?;
    let computed = hex(&Sha256::digest(body.as_bytes()));
    if stored == computed {
        Ok(())
    } else {
        Err(ManifestError::Checksum { stored: stored.to_owned(), computed })
    }
}

fn file_from_raw(raw: RawFile) -> Result<ManifestFile, ManifestError> {
    let entry = raw.path.clone().or_else(|| raw.encoded_path.clone()).unwrap_or_default();
    let field =
        |field, found: &str| ManifestError::Field { entry: entry.clone(), field, found: found.to_owned() };
    let path = match (raw.path, raw.encoded_path) {
        (Some(path), None) => path.into_bytes(),
        (None, Some(encoded)) => unhex(&encoded).ok_or_else(|| field("Encoded-Path", &encoded))?,
        _ => return Err(field("Path", "")),
    };
    let modified = DateTime::strptime(TIME_FORMAT, &raw.last_modified)
        .and_then(|at| at.to_zoned(TimeZone::UTC))
        .map_err(|_| field("Last-Modified", &raw.last_modified))?
        .timestamp();
    let sum = raw.checksum.as_deref();
    let bytes = sum.and_then(unhex);
    let bad_sum = || field("Checksum", sum.unwrap_or_default());
    let checksum = match (raw.checksum_algorithm.as_deref(), bytes) {
        (None, None) if sum.is_none() => FileChecksum::None,
        (Some("CRC32C"), Some(bytes)) => {
            FileChecksum::Crc32c(u32::from_le_bytes(bytes.try_into().map_err(|_| bad_sum())?))
        }
        (Some("SHA256"), Some(bytes)) => FileChecksum::Sha256(bytes.try_into().map_err(|_| bad_sum())?),
        (Some("CRC32C" | "SHA256"), None) => return Err(bad_sum()),
        (algorithm, _) => return Err(field("Checksum-Algorithm", algorithm.unwrap_or_default())),
    };
    Ok(ManifestFile { path, size: raw.size, modified, checksum })
}

fn range_from_raw(raw: &RawRange) -> Result<WalRange, ManifestError> {
    let field = |field, found: &str| ManifestError::Field {
        entry: format!("for timeline {}", raw.timeline),
        field,
        found: found.to_owned(),
    };
    Ok(WalRange {
        timeline: TimelineId::new(raw.timeline).ok_or_else(|| field("Timeline", "0"))?,
        start: raw.start.parse().map_err(|_| field("Start-LSN", &raw.start))?,
        end: raw.end.parse().map_err(|_| field("End-LSN", &raw.end))?,
    })
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a String can't fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

#[cfg(test)]
mod tests;
