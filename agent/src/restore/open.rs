//! What was fetched → a proven file on the local disk.
//!
//! The mirror of `archive::read`. Runs on the codec's threads. Invariant: only a file whose
//! every byte was proven becomes a [`Proven`], and only a [`Proven`] is placed; every other
//! file is removed, also when nobody waits for it any more.

use super::RestoreError;
use super::fetch::Fetched;
use super::resolve::Resolved;
use crate::codec::Codec;
use crate::codec::open::{Expected, OpenError, open as open_sealed};
use crate::fs::FsError;
use crate::fs::demand::Watch;
use crate::fs::place::Draft;
use crate::repository::Repository;
use bytes::Bytes;
use std::fs::File;
use std::io::Write;
use wald_core::object_key::ObjectKey;
use wald_core::wal_file::WalFile;

/// A proven file under a name of its own. Dropped without being placed, it is removed.
#[derive(Debug)]
pub(super) struct Proven {
    draft: Draft,
    bytes: u64,
}

impl Proven {
    /// Moves it to where it is wanted, unless the demand has ended; its length in bytes.
    pub(super) fn place(self, request: &Resolved, demand: &Watch) -> Result<u64, RestoreError> {
        self.draft
            .place(&request.destination, request.existing, demand)
            .map_err(|source| RestoreError::Place { file: request.file, source })?;
        Ok(self.bytes)
    }
}

/// Proves and decompresses what was fetched into the file that `begin` makes.
pub(super) async fn open(
    repository: &Repository,
    codec: &Codec,
    fetched: Fetched,
    begin: impl FnOnce() -> Result<(Draft, File), FsError> + Send + 'static,
) -> Result<Proven, RestoreError> {
    let system_id = repository.system_id();
    let raw_bytes_max = u64::from(repository.segment_size().bytes());
    codec
        .run(move || {
            let file = fetched.file();
            let (draft, mut out) = begin().map_err(|source| RestoreError::Local { file, source })?;
            let bytes = match fetched {
                Fetched::Sealed { file, object } => {
                    write_sealed(&object, &Expected { file, system_id, raw_bytes_max }, &mut out)
                }
                Fetched::Bare { file, raw, proof } => write_bare(file, &raw, &proof, &mut out),
            }?;
            Ok(Proven { draft, bytes })
        })
        .await?
}

fn write_sealed(object: &Bytes, expected: &Expected, out: &mut File) -> Result<u64, RestoreError> {
    let file = expected.file;
    match open_sealed(object, expected, out) {
        // A full segment is exactly one segment long; a shorter one would be WAL's early end.
        Ok(header) if header.raw_bytes == expected.raw_bytes_max => Ok(header.raw_bytes),
        Ok(header) => {
            let detail =
                format!("it holds {} bytes, a segment has {}", header.raw_bytes, expected.raw_bytes_max);
            Err(corrupt(file, detail))
        }
        Err(error) if error.is_damage() => Err(corrupt(file, error.to_string())),
        Err(source) => Err(RestoreError::Spool { file, source }),
    }
}

fn write_bare(file: WalFile, raw: &Bytes, proof: &Bytes, out: &mut File) -> Result<u64, RestoreError> {
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
    out.write_all(raw).map_err(|source| RestoreError::Spool { file, source: OpenError::Write(source) })?;
    Ok(u64::try_from(raw.len()).unwrap_or(u64::MAX))
}

fn corrupt(file: WalFile, detail: String) -> RestoreError {
    RestoreError::Corrupt { file, key: ObjectKey::wal(file).to_string(), detail }
}
