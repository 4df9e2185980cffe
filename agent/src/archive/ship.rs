//! A load → the repository, create-only.
//!
//! The mirror of `restore::fetch`. Invariants: "it exists already" is never taken for success
//! here; `confirm` reads what is stored and compares. What was to be sent of a segment is given up
//! in memory before that.

use super::ArchiveError;
use super::confirm::{self, Stored};
use super::read::Load;
use crate::codec::Codec;
use crate::codec::seal::Sealed;
use crate::repository::Repository;
use crate::store::{Created, Sameness};
use bytes::Bytes;
use object_store::PutPayload;
use wald_core::object_key::ObjectKey;
use wald_core::wal_file::WalFile;

/// How often "exists" may turn out to be "absent": a store answers 409 to one of two writers
/// at once, and the other one may fail.
pub(super) const ATTEMPTS_MAX: u32 = 3;

/// Sends `load` once. `Gone` after "it exists" means that it has to be read and sent again.
pub(super) async fn ship(repository: &Repository, codec: &Codec, load: Load) -> Result<Stored, ArchiveError> {
    match load {
        Load::Sealed(sealed) => ship_sealed(repository, codec, sealed).await,
        Load::Bare { file, raw, raw_blake3 } => {
            // The proof goes first: a bare object that is there always has its proof, and of
            // two writers with different content only one gets past this point.
            let proof = Bytes::from(format!("{}  {file}\n", raw_blake3.to_hex()));
            match ship_bare(repository, file, ObjectKey::wal_proof(file), proof, raw_blake3).await? {
                Stored::Same(_) => ship_bare(repository, file, ObjectKey::wal(file), raw, raw_blake3).await,
                Stored::Gone(key) => Ok(Stored::Gone(key)),
            }
        }
    }
}

async fn ship_sealed(repository: &Repository, codec: &Codec, sealed: Sealed) -> Result<Stored, ArchiveError> {
    let file = sealed.header.file;
    let sameness = confirm::sameness(repository, codec, file);
    let payload: PutPayload = sealed.pieces().collect();
    match create(repository, file, &ObjectKey::wal(file), payload, &sameness).await? {
        Created::Stored => Ok(Stored::Same(confirm::stored(&sealed))),
        Created::Exists => {
            // A standby with `archive_mode = always` comes here with every segment.
            let header = sealed.header.clone();
            drop(sealed);
            confirm::compare_sealed(repository, codec, &header).await
        }
    }
}

async fn ship_bare(
    repository: &Repository,
    file: WalFile,
    key: ObjectKey,
    bytes: Bytes,
    raw_blake3: blake3::Hash,
) -> Result<Stored, ArchiveError> {
    let sameness = Sameness::of_bytes();
    match create(repository, file, &key, bytes.clone().into(), &sameness).await? {
        Created::Stored => Ok(Stored::Same(confirm::stored_bare(file, &bytes, raw_blake3))),
        Created::Exists => confirm::compare_bare(repository, file, &key, &bytes, raw_blake3).await,
    }
}

async fn create(
    repository: &Repository,
    file: WalFile,
    key: &ObjectKey,
    payload: PutPayload,
    sameness: &Sameness,
) -> Result<Created, ArchiveError> {
    let created = repository.store().create_judged(key, payload, sameness).await;
    created.map_err(|source| ArchiveError::Store { file, source })
}
