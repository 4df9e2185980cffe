//! An admitted file → its bytes, checked to be what the name says, sealed where it is sealed.
//!
//! Runs on the codec's threads. Invariant: a segment of another cluster, another place in the
//! log or no WAL at all is refused here, before anything is sent.

use super::ArchiveError;
use super::admit::Admitted;
use crate::codec::seal::{Effort, Sealed, Sealer, WINDOW_BYTES};
use crate::fs::map::{FileBytes, FileStamp};
use crate::fs::{FsError, map};
use bytes::Bytes;
use std::path::Path;
use wald_core::backup_label::BackupLabel;
use wald_core::history::TimelineHistory;
use wald_core::identity::Identity;
use wald_core::segment::SegmentName;
use wald_core::wal_file::WalFile;
use wald_core::wal_page;

/// What is to be shipped.
#[derive(Debug)]
pub(super) enum Load {
    /// A segment or partial segment.
    Sealed(Sealed),
    /// A small file that stays as it is, and its hash.
    Bare { file: WalFile, raw: Bytes, raw_blake3: blake3::Hash },
}

impl Load {
    /// What it holds in memory, about, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Load::Sealed(sealed) => sealed.header.body_bytes,
            Load::Bare { raw, .. } => u64::try_from(raw.len()).unwrap_or(u64::MAX),
        }
    }
}

pub(super) fn load(
    admitted: &Admitted,
    identity: &Identity,
    data_dir: &Path,
    effort: Effort,
) -> Result<Load, ArchiveError> {
    let file = admitted.file();
    let read = |source| ArchiveError::Read { file, source };
    if !matches!(file, WalFile::Segment(_) | WalFile::Partial(_)) {
        // Small files carry no system identifier, so the cluster's pg_control vouches for them.
        crate::cluster::check(data_dir, identity)?;
    }
    let foreign = |detail: String| read(invalid(admitted, detail));
    let load = match file {
        WalFile::Segment(name) | WalFile::Partial(name) => {
            Load::Sealed(sealed(admitted, name, identity, effort)?)
        }
        WalFile::History(timeline) => {
            let raw = whole(admitted).map_err(read)?;
            TimelineHistory::parse(timeline, &raw).map_err(|error| foreign(error.to_string()))?;
            bare(file, raw)
        }
        WalFile::BackupLabel(name, _) => {
            let raw = whole(admitted).map_err(read)?;
            let start = BackupLabel::start_segment_of(&raw).map_err(|error| foreign(error.to_string()))?;
            if start != name {
                return Err(foreign(format!("it describes a backup that starts in {start}")));
            }
            bare(file, raw)
        }
    };
    // The bytes were read more than once, for the hash and for the object: were they the same?
    let now = admitted
        .handle()
        .metadata()
        .map_err(|source| read(FsError::new("look at", admitted.path(), source)))?;
    if FileStamp::of(&now) != admitted.stamp() {
        return Err(foreign("it changed while it was read".to_owned()));
    }
    Ok(load)
}

fn windows(admitted: &Admitted) -> impl Iterator<Item = Result<FileBytes, FsError>> + '_ {
    let (handle, path, bytes) = (admitted.handle(), admitted.path(), admitted.stamp().bytes());
    map::windows(handle, path, admitted.stillness(), bytes, WINDOW_BYTES)
}

/// A segment, the first page of which is that of `name`.
fn sealed(
    admitted: &Admitted,
    name: SegmentName,
    identity: &Identity,
    effort: Effort,
) -> Result<Sealed, ArchiveError> {
    let file = admitted.file();
    let mut sealer = Sealer::new(file, effort)?;
    for (number, window) in windows(admitted).enumerate() {
        let window = window.map_err(|source| ArchiveError::Read { file, source })?;
        if number == 0 {
            wal_page::check_segment(window.as_ref(), name, identity.system_id(), identity.segment_size())
                .map_err(|error| ArchiveError::Read { file, source: invalid(admitted, error.to_string()) })?;
        }
        sealer.add(window.as_ref())?;
    }
    Ok(sealer.finish(identity.system_id())?)
}

/// A small file.
fn whole(admitted: &Admitted) -> Result<Bytes, FsError> {
    windows(admitted)
        .try_fold(Vec::new(), |mut raw, window| {
            raw.extend_from_slice(window?.as_ref());
            Ok(raw)
        })
        .map(Bytes::from)
}

fn bare(file: WalFile, raw: Bytes) -> Load {
    let raw_blake3 = blake3::hash(&raw);
    Load::Bare { file, raw, raw_blake3 }
}

fn invalid(admitted: &Admitted, detail: String) -> FsError {
    FsError::new("use", admitted.path(), std::io::Error::new(std::io::ErrorKind::InvalidData, detail))
}
