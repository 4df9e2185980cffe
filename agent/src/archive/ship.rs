//! A load → the repository, create-only.
//!
//! The mirror of `restore::fetch`. Invariant: "it exists already" is never taken for success
//! here; `confirm` reads what is stored and compares.

use super::ArchiveError;
use super::confirm::{self, Durable, Stored};
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
const ATTEMPTS_MAX: u32 = 3;

pub(super) async fn ship(
    repository: &Repository,
    codec: &Codec,
    load: Load,
) -> Result<Durable, ArchiveError> {
    match load {
        Load::Sealed(sealed) => ship_sealed(repository, codec, sealed).await,
        Load::Bare { file, raw, raw_blake3 } => {
            // The proof goes first: a bare object that is there always has its proof, and of
            // two writers with different content only one gets past this point.
            let proof = Bytes::from(format!("{}  {file}\n", raw_blake3.to_hex()));
            ship_bare(repository, file, ObjectKey::wal_proof(file), proof, raw_blake3).await?;
            ship_bare(repository, file, ObjectKey::wal(file), raw, raw_blake3).await
        }
    }
}

async fn ship_sealed(
    repository: &Repository,
    codec: &Codec,
    sealed: Sealed,
) -> Result<Durable, ArchiveError> {
    let file = sealed.header.file;
    let key = ObjectKey::wal(file);
    let sameness = confirm::sameness(repository, codec, file);
    for _ in 0..ATTEMPTS_MAX {
        let payload: PutPayload = sealed.pieces().collect();
        match create(repository, file, &key, payload, &sameness).await? {
            Created::Stored => return Ok(confirm::stored(&sealed)),
            Created::Exists => {
                if let Stored::Same(durable) = confirm::compare_sealed(repository, codec, &sealed).await? {
                    return Ok(durable);
                }
            }
        }
    }
    Err(ArchiveError::Contradiction { file, key: key.to_string() })
}

async fn ship_bare(
    repository: &Repository,
    file: WalFile,
    key: ObjectKey,
    bytes: Bytes,
    raw_blake3: blake3::Hash,
) -> Result<Durable, ArchiveError> {
    let sameness = Sameness::of_bytes();
    for _ in 0..ATTEMPTS_MAX {
        match create(repository, file, &key, bytes.clone().into(), &sameness).await? {
            Created::Stored => return Ok(confirm::stored_bare(file, &bytes, raw_blake3)),
            Created::Exists => {
                let compared = confirm::compare_bare(repository, file, &key, &bytes, raw_blake3).await?;
                if let Stored::Same(durable) = compared {
                    return Ok(durable);
                }
            }
        }
    }
    Err(ArchiveError::Contradiction { file, key: key.to_string() })
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
