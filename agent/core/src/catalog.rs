//! The catalog entry of a base backup: `catalog/<backup-id>.json`, the backup's commit point.
//!
//! Invariants: an entry that exists is consistent in itself (its positions and times are in
//! order, its names can be keys, every part belongs to a tablespace that is listed), because
//! [`CatalogEntry::new`] is the only way to one, for what is written and for what is read.
//! The format version is looked at before anything else, so that an entry of a newer wald
//! is refused as such and never half understood. Unknown fields within a version are ignored.

use crate::backup_id::BackupId;
use crate::blake3_hex::Blake3Hex;
use crate::lsn::Lsn;
use crate::object_key::{ObjectKey, ObjectKeyError};
use crate::segment::SegmentSize;
use crate::system_id::SystemId;
use crate::timeline::TimelineId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The version of the catalog's format that this wald writes, and the newest that it reads.
pub const CATALOG_FORMAT: u32 = 1;

/// An entry is never larger than this; a longer object under `catalog/` is not one. Room for
/// about half a million parts.
pub const CATALOG_BYTES_MAX: u64 = 128 << 20;

/// What is known about a backup. [`CatalogEntry::new`] checks it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CatalogFacts {
    /// The backup's name.
    pub id: BackupId,
    /// The cluster that was backed up.
    pub system_id: SystemId,
    /// The size of the cluster's WAL segments.
    pub segment_size: SegmentSize,
    /// `server_version_num`, as 150018.
    pub pg_version_num: u32,
    /// Whether the cluster has data page checksums, and the backup has checked them.
    pub data_checksums: bool,
    /// The timeline that the backup was taken on, from start to stop.
    pub timeline: TimelineId,
    /// Where recovery begins: the redo point of the backup's checkpoint.
    pub start_lsn: Lsn,
    /// Where the restored data is consistent: no earlier point can be recovered.
    pub stop_lsn: Lsn,
    /// PostgreSQL's clock when the backup was started.
    pub started_at: Timestamp,
    /// PostgreSQL's clock after `pg_backup_stop`.
    pub stopped_at: Timestamp,
    /// Whether the server was in recovery.
    pub from_standby: bool,
    /// The label given to `pg_backup_start`.
    pub label: String,
    /// The wald that took the backup.
    pub tool_version: String,
    /// The tablespaces beside `pg_default` and `pg_global`.
    pub tablespaces: Vec<Tablespace>,
    /// The tar files, in the order in which they were made.
    pub parts: Vec<Part>,
    /// PostgreSQL's `backup_manifest`, uncompressed.
    pub manifest: StoredObject,
    /// The list of all files, see [`crate::file_list`].
    pub file_list: StoredObject,
    /// Data pages whose checksum was wrong in the cluster itself.
    #[serde(default)]
    pub bad_pages: Vec<BadPage>,
}

/// A tablespace of the cluster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Tablespace {
    /// Its OID, which is its name in `pg_tblspc`.
    pub oid: u32,
    /// The absolute path of its directory when the backup was taken.
    pub location: String,
}

/// One tar file of a backup.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Part {
    /// The object's name, `base-0001.tar.zst` or `16400-0001.tar.zst`.
    pub name: String,
    /// The tablespace that the paths in it are relative to; none: the data directory.
    pub tablespace: Option<u32>,
    /// Size of the object.
    pub stored_bytes: u64,
    /// Sum of the sizes of the files in it.
    pub raw_bytes: u64,
    /// Number of files in it, directories not counted.
    pub files: u64,
    /// Hash of the object as it is stored.
    pub blake3: Blake3Hex,
}

/// An object of a backup that is not a part.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StoredObject {
    /// The object's name.
    pub name: String,
    /// Size of the object.
    pub stored_bytes: u64,
    /// Hash of the object as it is stored.
    pub blake3: Blake3Hex,
}

/// A data page whose checksum did not match when the backup read it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BadPage {
    /// The file, relative to the data directory.
    pub file: String,
    /// The number of the block in that file, from 0.
    pub block: u32,
    /// What is wrong with it, in words.
    #[serde(default)]
    pub problem: String,
}

/// Bytes or facts that make no catalog entry.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// Not JSON, or a field is missing or of another kind.
    #[error("not a catalog entry: it is damaged, or not written by wald")]
    Malformed(#[source] serde_json::Error),
    /// Written by a newer wald.
    #[error(
        "the catalog entry has format {found}, and this wald reads format {CATALOG_FORMAT}: use a newer wald"
    )]
    NewerFormat {
        /// The version found.
        found: u32,
    },
    /// A name that can't be an object's.
    #[error("the catalog entry names an impossible object")]
    ObjectName(#[from] ObjectKeyError),
    /// The facts contradict each other.
    #[error("the catalog entry of {id} contradicts itself: {contradiction}")]
    Inconsistent {
        /// The backup.
        id: BackupId,
        /// What contradicts what.
        contradiction: String,
    },
}

/// A backup that exists.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CatalogEntry {
    facts: CatalogFacts,
}

#[derive(Deserialize)]
struct Head {
    format: u32,
}

#[derive(Serialize)]
struct Written<'a> {
    format: u32,
    #[serde(flatten)]
    facts: &'a CatalogFacts,
}

impl CatalogEntry {
    /// Checks that the facts are consistent.
    pub fn new(facts: CatalogFacts) -> Result<Self, CatalogError> {
        let problem = contradiction(&facts)?;
        match problem {
            Some(contradiction) => Err(CatalogError::Inconsistent { id: facts.id, contradiction }),
            None => Ok(Self { facts }),
        }
    }

    /// Reads an entry as it is stored.
    pub fn parse(json: &[u8]) -> Result<Self, CatalogError> {
        let head: Head = serde_json::from_slice(json).map_err(CatalogError::Malformed)?;
        if head.format != CATALOG_FORMAT {
            return Err(CatalogError::NewerFormat { found: head.format });
        }
        Self::new(serde_json::from_slice(json).map_err(CatalogError::Malformed)?)
    }

    /// The entry as it is stored: indented JSON that ends with a line feed.
    pub fn to_json(&self) -> Result<Vec<u8>, CatalogError> {
        let written = Written { format: CATALOG_FORMAT, facts: &self.facts };
        let mut json = serde_json::to_vec_pretty(&written).map_err(CatalogError::Malformed)?;
        json.push(b'\n');
        Ok(json)
    }

    /// Everything that the entry says.
    pub fn facts(&self) -> &CatalogFacts {
        &self.facts
    }

    /// The backup's name.
    pub fn id(&self) -> &BackupId {
        &self.facts.id
    }

    /// The cluster that was backed up.
    pub fn system_id(&self) -> SystemId {
        self.facts.system_id
    }

    /// The size of the cluster's WAL segments.
    pub fn segment_size(&self) -> SegmentSize {
        self.facts.segment_size
    }

    /// The timeline that the backup was taken on.
    pub fn timeline(&self) -> TimelineId {
        self.facts.timeline
    }

    /// Where recovery begins.
    pub fn start_lsn(&self) -> Lsn {
        self.facts.start_lsn
    }

    /// Where the restored data is consistent.
    pub fn stop_lsn(&self) -> Lsn {
        self.facts.stop_lsn
    }

    /// PostgreSQL's clock after `pg_backup_stop`.
    pub fn stopped_at(&self) -> Timestamp {
        self.facts.stopped_at
    }

    /// The tar files.
    pub fn parts(&self) -> &[Part] {
        &self.facts.parts
    }

    /// Size of all parts as stored.
    pub fn stored_bytes(&self) -> u64 {
        self.facts.parts.iter().fold(0, |sum, part| sum.saturating_add(part.stored_bytes))
    }

    /// Size of all files in the parts.
    pub fn raw_bytes(&self) -> u64 {
        self.facts.parts.iter().fold(0, |sum, part| sum.saturating_add(part.raw_bytes))
    }

    /// Number of all files in the parts.
    pub fn files(&self) -> u64 {
        self.facts.parts.iter().fold(0, |sum, part| sum.saturating_add(part.files))
    }

    /// The key of an object of this backup.
    pub fn object_key(&self, name: &str) -> Result<ObjectKey, ObjectKeyError> {
        ObjectKey::backup_object(&self.facts.id, name)
    }
}

/// What is wrong with the facts, in words.
fn contradiction(facts: &CatalogFacts) -> Result<Option<String>, ObjectKeyError> {
    if facts.stop_lsn <= facts.start_lsn {
        return Ok(Some(format!("it stops at {} but starts at {}", facts.stop_lsn, facts.start_lsn)));
    }
    if facts.stopped_at < facts.started_at {
        return Ok(Some(format!("it stopped at {} but started at {}", facts.stopped_at, facts.started_at)));
    }
    let mut oids = BTreeSet::new();
    for tablespace in &facts.tablespaces {
        if tablespace.oid == 0 || !oids.insert(tablespace.oid) {
            return Ok(Some(format!("tablespace {} is listed twice, or has no OID", tablespace.oid)));
        }
        if !tablespace.location.starts_with('/') || tablespace.location.contains('\0') {
            return Ok(Some(format!(
                "the location of tablespace {} is not an absolute path: \"{}\"",
                tablespace.oid,
                tablespace.location.escape_default()
            )));
        }
    }
    if !facts.parts.iter().any(|part| part.tablespace.is_none()) {
        return Ok(Some("it has no part of the data directory".to_owned()));
    }
    let mut names = BTreeSet::new();
    for part in &facts.parts {
        if let Some(oid) = part.tablespace.filter(|oid| !oids.contains(oid)) {
            return Ok(Some(format!("part {} belongs to tablespace {oid}, which is not listed", part.name)));
        }
    }
    let stored = [&facts.manifest.name, &facts.file_list.name];
    for name in facts.parts.iter().map(|part| &part.name).chain(stored) {
        ObjectKey::backup_object(&facts.id, name)?;
        if !names.insert(name.as_str()) {
            return Ok(Some(format!("object {name} is listed twice")));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
