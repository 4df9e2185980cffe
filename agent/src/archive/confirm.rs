//! What counts as durable: the only place that makes a [`Durable`].
//!
//! Invariant: a `Durable` exists for a file only if the repository has answered the creation
//! of exactly these bytes with success, or if the stored object was read back whole and its
//! proven content has the same BLAKE3.

use super::ArchiveError;
use crate::codec::open::{Expected, OpenError, StoredProof};
use crate::codec::same;
use crate::codec::seal::Sealed;
use crate::codec::{Codec, CodecGone};
use crate::repository::Repository;
use crate::store::{OpenedObject, Sameness, StoreError};
use bytes::Bytes;
use wald_core::frame::FrameHeader;
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

/// What stands in the repository under a file's name.
pub(super) enum Stored {
    /// Its content is ours.
    Same(Durable),
    /// Nothing, after "it exists".
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

/// How much of a stored object is read, and in memory, at a time.
const PIECE_BYTES: u64 = 2 << 20;

/// Reads the object that stands in the place of the one with `header`, proves it, and compares
/// the content.
pub(super) async fn compare_sealed(
    repository: &Repository,
    codec: &Codec,
    header: &FrameHeader,
) -> Result<Stored, ArchiveError> {
    let (file, ours) = (header.file, header.raw_blake3);
    let key = ObjectKey::wal(file);
    let sameness = sameness(repository, codec, file);
    let bytes_max = repository.sealed_bytes_max();
    let (object, first) = match repository.store().open_judged(&key, PIECE_BYTES, bytes_max, &sameness).await
    {
        Ok(opened) => opened,
        Err(error) if error.is_absent() => return Ok(Stored::Gone),
        Err(source) => return Err(ArchiveError::Store { file, source }),
    };
    match prove(codec, &object, first, expected(repository, file)).await? {
        Err(Unproven::Store(source)) => Err(ArchiveError::Store { file, source }),
        Err(Unproven::Damaged(error)) => Err(ArchiveError::StoredDamaged {
            file,
            key: key.to_string(),
            detail: error.to_string(),
            ours: ours.to_string(),
        }),
        Ok(stored) if stored.raw_blake3 != ours => Err(ArchiveError::Conflict {
            file,
            key: key.to_string(),
            stored: stored.raw_blake3.to_string(),
            ours: ours.to_string(),
        }),
        Ok(_) => {
            let stored_bytes = object.size_bytes();
            Ok(Stored::Same(Durable { file, raw_blake3: ours, stored_bytes, was_there: WasThere::Already }))
        }
    }
}

/// Why a stored object is not proven.
enum Unproven {
    /// It can't be read.
    Store(StoreError),
    /// It is not what was sealed.
    Damaged(OpenError),
}

/// Proves an object of which `first` was read, piece by piece.
async fn prove(
    codec: &Codec,
    object: &OpenedObject,
    first: Bytes,
    expected: Expected,
) -> Result<Result<FrameHeader, Unproven>, CodecGone> {
    let mut next = object_bytes(first.len(), 0);
    let begun = codec.run(move || StoredProof::begin(&first, &expected)).await?;
    let mut proof = match begun {
        Ok(proof) => proof,
        Err(error) => return Ok(Err(Unproven::Damaged(error))),
    };
    while next < object.size_bytes() {
        let end = object.size_bytes().min(next.saturating_add(PIECE_BYTES));
        let piece = match object.read(next..end).await {
            Ok(piece) => piece,
            Err(error) => return Ok(Err(Unproven::Store(error))),
        };
        proof = codec
            .run(move || {
                proof.add(&piece);
                proof
            })
            .await?;
        next = end;
    }
    Ok(proof.finish().map_err(Unproven::Damaged))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Niceness;
    use crate::codec::seal::{Effort, seal};
    use crate::store::Store;
    use wald_core::system_id::SystemId;

    #[tokio::test]
    async fn an_object_of_many_pieces_is_proven_to_its_last_byte() {
        let file = WalFile::parse("000000010000000000000042").unwrap();
        let system_id = SystemId::new(7).unwrap();
        let expected = Expected { file, system_id, raw_bytes_max: 16 << 20 };
        let (key, codec) = (ObjectKey::wal(file), Codec::start(Niceness::default()).unwrap());
        for bytes in [0, 1000, 5 << 20] {
            let raw = vec![7; bytes];
            let sound = seal(file, system_id, &raw, Effort::Stored).unwrap().to_vec();
            let mut damaged = sound.clone();
            *damaged.last_mut().unwrap() ^= 1;
            let longer = [sound.as_slice(), &[0]].concat();
            let shorter = sound[..sound.len() - 1].to_vec();
            for (object, is_sound) in [(sound, true), (damaged, false), (longer, false), (shorter, false)] {
                let store = Store::memory();
                store.create(&key, Bytes::from(object).into()).await.unwrap();
                let (object, first) = store.open_object(&key, 0..PIECE_BYTES).await.unwrap();
                match prove(&codec, &object, first, expected).await.unwrap() {
                    Ok(header) => assert!(is_sound && header.raw_blake3 == blake3::hash(&raw)),
                    Err(Unproven::Damaged(error)) => assert!(!is_sound, "{bytes} bytes: {error}"),
                    Err(Unproven::Store(error)) => panic!("{bytes} bytes: {error}"),
                }
            }
        }
    }
}
