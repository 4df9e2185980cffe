//! An admitted file → its bytes, checked to be what the name says, sealed where it is sealed.
//!
//! Runs on the codec's threads. Invariant: a segment of another cluster, another place in the
//! log or no WAL at all is refused here, before anything is sent.

use super::ArchiveError;
use super::admit::Admitted;
use crate::codec::seal::{Effort, Sealed, seal};
use crate::fs::{FsError, map};
use bytes::Bytes;
use std::path::PathBuf;
use wald_core::backup_label::BackupLabel;
use wald_core::control_file::ControlFile;
use wald_core::history::TimelineHistory;
use wald_core::segment::SegmentSize;
use wald_core::system_id::SystemId;
use wald_core::wal_file::WalFile;
use wald_core::wal_page;

/// Whose WAL is archived here.
pub(super) struct Identity {
    pub system_id: SystemId,
    pub segment_size: SegmentSize,
    pub data_dir: PathBuf,
}

/// What is to be shipped.
#[derive(Debug)]
pub(super) enum Load {
    /// A segment or partial segment.
    Sealed(Sealed),
    /// A small file that stays as it is, and its hash.
    Bare { file: WalFile, raw: Bytes, raw_blake3: blake3::Hash },
}

pub(super) fn load(admitted: Admitted, identity: &Identity, effort: Effort) -> Result<Load, ArchiveError> {
    let file = admitted.file();
    let read = |source| ArchiveError::Read { file, source };
    let bytes_max = admitted.stamp().bytes();
    let bytes =
        map::bytes(admitted.handle(), admitted.path(), admitted.stillness(), bytes_max).map_err(read)?;
    let raw = bytes.as_ref();
    let foreign = |detail: String| read(invalid(&admitted, detail));
    match file {
        WalFile::Segment(name) | WalFile::Partial(name) => {
            wal_page::check_segment(raw, name, identity.system_id, identity.segment_size)
                .map_err(|error| foreign(error.to_string()))?;
            Ok(Load::Sealed(seal(file, identity.system_id, raw, effort)?))
        }
        WalFile::History(timeline) => {
            check_control(identity).map_err(&foreign)?;
            TimelineHistory::parse(timeline, raw).map_err(|error| foreign(error.to_string()))?;
            Ok(bare(file, raw))
        }
        WalFile::BackupLabel(name, _) => {
            check_control(identity).map_err(&foreign)?;
            let label = BackupLabel::parse(&String::from_utf8_lossy(raw))
                .map_err(|error| foreign(error.to_string()))?;
            if label.start_segment() != name {
                return Err(foreign(format!(
                    "it describes a backup that starts in {}",
                    label.start_segment()
                )));
            }
            Ok(bare(file, raw))
        }
    }
}

fn bare(file: WalFile, raw: &[u8]) -> Load {
    Load::Bare { file, raw: Bytes::copy_from_slice(raw), raw_blake3: blake3::hash(raw) }
}

/// Small files carry no system identifier, so the cluster's `pg_control` vouches for them.
fn check_control(identity: &Identity) -> Result<(), String> {
    let path = identity.data_dir.join("global/pg_control");
    let bytes = std::fs::read(&path).map_err(|error| format!("can't read {}: {error}", path.display()))?;
    let control = ControlFile::parse(&bytes).map_err(|error| format!("{}: {error}", path.display()))?;
    if control.system_id() == identity.system_id {
        Ok(())
    } else {
        Err(format!(
            "{} belongs to system {}, the repository to {}",
            path.display(),
            control.system_id(),
            identity.system_id
        ))
    }
}

fn invalid(admitted: &Admitted, detail: String) -> FsError {
    FsError::new("use", admitted.path(), std::io::Error::new(std::io::ErrorKind::InvalidData, detail))
}
