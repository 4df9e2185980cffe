//! What counts as durable: the only place that makes a [`Durable`].
//!
//! Invariant: a `Durable` exists for a file only if the repository has answered the creation
//! of exactly these bytes with success, or if the stored object was read back whole and its
//! proven content has the same BLAKE3.

use super::ArchiveError;
use crate::codec::Codec;
use crate::codec::open::{Expected, prove_stored};
use crate::codec::same;
use crate::codec::seal::Sealed;
use crate::repository::Repository;
use crate::store::Sameness;
use bytes::Bytes;
use wald_core::object_key::ObjectKey;
use wald_core::outcome::ArchiveOutcome;
use wald_core::protocol::Reply;
use wald_core::wal_file::WalFile;

/// Proof that a file's exact bytes are in the repository. There is no other way to the reply
/// "done" than from this.
#[derive(Clone, Debug)]
pub struct Durable {
    file: WalFile,
    raw_blake3: blake3::Hash,
    stored_bytes: u64,
    was_there: WasThere,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum WasThere {
    New,
    Already,
}

impl Durable {
    /// The file that is durable.
    pub fn file(&self) -> WalFile {
        self.file
    }

    /// The BLAKE3 of its raw bytes.
    pub fn raw_blake3(&self) -> blake3::Hash {
        self.raw_blake3
    }

    /// The size of its object.
    pub fn stored_bytes(&self) -> u64 {
        self.stored_bytes
    }
}

impl From<Durable> for Reply {
    fn from(durable: Durable) -> Reply {
        let message = match durable.was_there {
            WasThere::New => String::new(),
            WasThere::Already => {
                format!("warning: {} was in the repository already, with the same content", durable.file)
            }
        };
        Reply { exit_code: ArchiveOutcome::Done.exit_code(), message }
    }
}

/// What a look at an existing object gave.
pub(super) enum Stored {
    /// Its content is ours.
    Same(Durable),
    /// There is no object after all.
    Gone,
}

/// The repository has confirmed the creation of `sealed`.
pub(super) fn stored(sealed: &Sealed) -> Durable {
    Durable {
        file: sealed.header.file,
        raw_blake3: sealed.header.raw_blake3,
        stored_bytes: object_bytes(sealed.head.len(), sealed.header.body_bytes),
        was_there: WasThere::New,
    }
}

/// The repository has confirmed the creation of a bare file, or of its proof, as `bytes`.
pub(super) fn stored_bare(file: WalFile, bytes: &Bytes, raw_blake3: blake3::Hash) -> Durable {
    Durable { file, raw_blake3, stored_bytes: object_bytes(bytes.len(), 0), was_there: WasThere::New }
}

fn object_bytes(head: usize, body: u64) -> u64 {
    u64::try_from(head).unwrap_or(u64::MAX).saturating_add(body)
}

/// When two sealed objects are the same file. The compressed bytes may differ (another level,
/// another zstd); the raw hash may not.
pub(super) fn sameness(repository: &Repository, codec: &Codec, file: WalFile) -> Sameness {
    Sameness::judged(repository.sealed_bytes_max(), same::judge(codec, expected(repository, file)))
}

fn expected(repository: &Repository, file: WalFile) -> Expected {
    Expected {
        file,
        system_id: repository.system_id(),
        raw_bytes_max: u64::from(repository.segment_size().bytes()),
    }
}

/// Reads the object that stands in `sealed`'s place, proves it, and compares the content.
pub(super) async fn compare_sealed(
    repository: &Repository,
    codec: &Codec,
    sealed: &Sealed,
) -> Result<Stored, ArchiveError> {
    let file = sealed.header.file;
    let key = ObjectKey::wal(file);
    let sameness = sameness(repository, codec, file);
    let read = repository.store().get_judged(&key, repository.sealed_bytes_max(), &sameness).await;
    let object = match read {
        Ok(object) => object,
        Err(error) if error.is_absent() => return Ok(Stored::Gone),
        Err(source) => return Err(ArchiveError::Store { file, source }),
    };
    let stored_bytes = object_bytes(object.len(), 0);
    let expected = expected(repository, file);
    let proven = codec.run(move || prove_stored(&object, &expected).map(|(header, _)| header)).await?;
    let ours = sealed.header.raw_blake3;
    match proven {
        Err(error) => Err(ArchiveError::StoredDamaged {
            file,
            key: key.to_string(),
            detail: error.to_string(),
            ours: ours.to_string(),
        }),
        Ok(header) if header.raw_blake3 != ours => Err(ArchiveError::Conflict {
            file,
            key: key.to_string(),
            stored: header.raw_blake3.to_string(),
            ours: ours.to_string(),
        }),
        Ok(_) => {
            Ok(Stored::Same(Durable { file, raw_blake3: ours, stored_bytes, was_there: WasThere::Already }))
        }
    }
}

/// Reads the object under `key`, a bare file or its proof, and compares it byte by byte.
pub(super) async fn compare_bare(
    repository: &Repository,
    file: WalFile,
    key: &ObjectKey,
    bytes: &Bytes,
    raw_blake3: blake3::Hash,
) -> Result<Stored, ArchiveError> {
    let sameness = Sameness::of_bytes();
    let read = repository.store().get_judged(key, object_bytes(bytes.len(), 1 << 20), &sameness).await;
    let stored = match read {
        Ok(stored) => stored,
        Err(error) if error.is_absent() => return Ok(Stored::Gone),
        Err(source) => return Err(ArchiveError::Store { file, source }),
    };
    if stored != *bytes {
        return Err(ArchiveError::Conflict {
            file,
            key: key.to_string(),
            stored: content_hash(key, file, &stored),
            ours: raw_blake3.to_string(),
        });
    }
    let stored_bytes = object_bytes(stored.len(), 0);
    Ok(Stored::Same(Durable { file, raw_blake3, stored_bytes, was_there: WasThere::Already }))
}

/// The hash of the file's content that an object speaks of: a proof holds it as text.
fn content_hash(key: &ObjectKey, file: WalFile, stored: &Bytes) -> String {
    let written = || std::str::from_utf8(stored).ok()?.split(' ').next().map(str::to_owned);
    let proof = *key == ObjectKey::wal_proof(file);
    proof.then(written).flatten().unwrap_or_else(|| blake3::hash(stored).to_string())
}
