//! What was fetched → a proven file on the local disk.
//!
//! The mirror of `archive::read`. Runs on the codec's threads. Invariant: a file that could
//! not be proven is removed, and its path is never given to anybody.

use super::RestoreError;
use super::fetch::Fetched;
use crate::codec::Codec;
use crate::codec::open::{Expected, OpenError, open as open_sealed};
use crate::fs::{FsError, place};
use crate::repository::Repository;
use bytes::Bytes;
use std::io::Write;
use std::path::{Path, PathBuf};
use wald_core::object_key::ObjectKey;
use wald_core::wal_file::WalFile;

pub(super) async fn open(
    repository: &Repository,
    codec: &Codec,
    fetched: Fetched,
    to: PathBuf,
) -> Result<u64, RestoreError> {
    let system_id = repository.system_id();
    let raw_bytes_max = u64::from(repository.segment_size().bytes());
    codec
        .run(move || {
            let written = match fetched {
                Fetched::Sealed { file, object } => {
                    let expected = Expected { file, system_id, raw_bytes_max };
                    write_sealed(&object, &expected, &to)
                }
                Fetched::Bare { file, raw, proof } => write_bare(file, &raw, &proof, &to),
            };
            if written.is_err() {
                // Reported already; a left-over is removed before the name is used again.
                let _ = std::fs::remove_file(&to);
            }
            written
        })
        .await?
}

fn write_sealed(object: &Bytes, expected: &Expected, to: &Path) -> Result<u64, RestoreError> {
    let file = expected.file;
    let mut out = place::create_private(to).map_err(|source| RestoreError::Local { file, source })?;
    match open_sealed(object, expected, &mut out) {
        // A full segment is exactly one segment long; a shorter one would be WAL's early end.
        Ok(header) if header.raw_bytes == expected.raw_bytes_max => Ok(header.raw_bytes),
        Ok(header) => {
            let detail =
                format!("it holds {} bytes, a segment has {}", header.raw_bytes, expected.raw_bytes_max);
            Err(corrupt(file, detail))
        }
        Err(error) if error.is_damage() => Err(corrupt(file, error.to_string())),
        Err(source @ OpenError::Write(_)) => Err(RestoreError::Spool { file, source }),
        Err(error) => Err(corrupt(file, error.to_string())),
    }
}

fn write_bare(file: WalFile, raw: &Bytes, proof: &Bytes, to: &Path) -> Result<u64, RestoreError> {
    let found = blake3::hash(raw);
    let expected = format!("{}  {file}\n", found.to_hex());
    if *proof != expected.as_bytes() {
        let detail = format!(
            "its BLAKE3 is {found}, its proof {} says {:?}",
            ObjectKey::wal_proof(file),
            String::from_utf8_lossy(proof.get(..proof.len().min(200)).unwrap_or_default())
        );
        return Err(corrupt(file, detail));
    }
    let mut out = place::create_private(to).map_err(|source| RestoreError::Local { file, source })?;
    out.write_all(raw)
        .map_err(|source| RestoreError::Local { file, source: FsError::new("write", to, source) })?;
    Ok(u64::try_from(raw.len()).unwrap_or(u64::MAX))
}

fn corrupt(file: WalFile, detail: String) -> RestoreError {
    RestoreError::Corrupt { file, key: ObjectKey::wal(file).to_string(), detail }
}
