//! An admitted file → its bytes, checked to be what the name says, sealed where it is sealed.
//!
//! Runs on the codec's threads. Invariant: a segment of another cluster, another place in the
//! log or no WAL at all is refused here, before anything is sent.

use super::ArchiveError;
use super::admit::Admitted;
use crate::codec::seal::{Effort, Sealed, seal};
use crate::fs::map::FileStamp;
use crate::fs::{FsError, map};
use bytes::Bytes;
use std::path::Path;
use wald_core::backup_label::BackupLabel;
use wald_core::history::TimelineHistory;
use wald_core::identity::Identity;
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

pub(super) fn load(
    admitted: Admitted,
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
    let bytes_max = admitted.stamp().bytes();
    let bytes =
        map::bytes(admitted.handle(), admitted.path(), admitted.stillness(), bytes_max).map_err(read)?;
    let raw = bytes.as_ref();
    let foreign = |detail: String| read(invalid(&admitted, detail));
    let load = match file {
        WalFile::Segment(name) | WalFile::Partial(name) => {
            wal_page::check_segment(raw, name, identity.system_id(), identity.segment_size())
                .map_err(|error| foreign(error.to_string()))?;
            Load::Sealed(seal(file, identity.system_id(), raw, effort)?)
        }
        WalFile::History(timeline) => {
            TimelineHistory::parse(timeline, raw).map_err(|error| foreign(error.to_string()))?;
            bare(file, raw)
        }
        WalFile::BackupLabel(name, _) => {
            let start = BackupLabel::start_segment_of(raw).map_err(|error| foreign(error.to_string()))?;
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

fn bare(file: WalFile, raw: &[u8]) -> Load {
    Load::Bare { file, raw: Bytes::copy_from_slice(raw), raw_blake3: blake3::hash(raw) }
}

fn invalid(admitted: &Admitted, detail: String) -> FsError {
    FsError::new("use", admitted.path(), std::io::Error::new(std::io::ErrorKind::InvalidData, detail))
}
