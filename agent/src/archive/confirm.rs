//! What counts as durable: the only place that makes a [`Durable`].
//!
//! Invariant: a `Durable` exists for a file only if the repository has answered the creation
//! of exactly these bytes with success, or if the stored object was read back whole and its
//! proven content has the same BLAKE3.

use super::ArchiveError;
use crate::codec::open::{Expected, OpenError, StoredProof, prove_stored};
use crate::codec::same;
use crate::codec::seal::Sealed;
use crate::codec::{Codec, CodecGone};
use crate::repository::Repository;
use crate::store::{Sameness, StoreError};
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
    /// Our content, from now on or since before.
    Same(Durable),
    /// Nothing in this place, after "it exists".
    Gone(ObjectKey),
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

/// How much of a stored object is read, and in memory, at a time. A little more than 2 MiB: a segment
/// that could not be compressed is a little larger than itself.
const PIECE_BYTES: u64 = (2 << 20) + (16 << 10);

/// Proves the object that stands in the place of the one with `header`, and compares the content.
pub(super) async fn compare_sealed(
    repository: &Repository,
    codec: &Codec,
    header: &FrameHeader,
) -> Result<Stored, ArchiveError> {
    let (file, ours) = (header.file, header.raw_blake3);
    let key = ObjectKey::wal(file);
    let proven = match prove_in_pieces(repository, codec, file).await? {
        // Pieces that don't fit together may be those of two objects: where one can be written over
        // another, or the server does not keep to an ETag. One look at all of it says what is true.
        Err(error) if error.may_be_of_the_pieces() => prove_at_once(repository, codec, file).await?,
        proven => proven,
    };
    match proven {
        Err(Unproven::Store(error)) if error.is_absent() => Ok(Stored::Gone(key)),
        Err(Unproven::Store(source)) => Err(ArchiveError::Store { file, source }),
        Err(Unproven::Damaged(error)) => Err(ArchiveError::StoredDamaged {
            file,
            key: key.to_string(),
            detail: error.to_string(),
            ours: ours.to_string(),
        }),
        Ok((stored, _)) if stored.raw_blake3 != ours => Err(ArchiveError::Conflict {
            file,
            key: key.to_string(),
            stored: stored.raw_blake3.to_string(),
            ours: ours.to_string(),
        }),
        Ok((_, stored_bytes)) => {
            Ok(Stored::Same(Durable { file, raw_blake3: ours, stored_bytes, was_there: WasThere::Already }))
        }
    }
}

/// The header of a stored object that is proven whole, and the object's size; or why it is not.
type Proven = Result<(FrameHeader, u64), Unproven>;

/// Why a stored object is not proven.
#[derive(Debug)]
enum Unproven {
    /// It can't be read.
    Store(StoreError),
    /// It is not what was sealed.
    Damaged(OpenError),
}

impl Unproven {
    /// Whether it may be so only because the object was not read in one request.
    fn may_be_of_the_pieces(&self) -> bool {
        match self {
            Unproven::Damaged(_) => true,
            Unproven::Store(error) => error.is_absent() || matches!(error, StoreError::BadAnswer { .. }),
        }
    }
}

/// Reads and proves the object of `file` so that little of it is in memory.
async fn prove_in_pieces(repository: &Repository, codec: &Codec, file: WalFile) -> Result<Proven, CodecGone> {
    let (key, bytes_max) = (ObjectKey::wal(file), repository.sealed_bytes_max());
    let sameness = sameness(repository, codec, file);
    let (object, first) = match repository.store().open_judged(&key, PIECE_BYTES, bytes_max, &sameness).await
    {
        Ok(opened) => opened,
        Err(error) => return Ok(Err(Unproven::Store(error))),
    };
    let expected = expected(repository, file);
    let mut next = object_bytes(first.len(), 0);
    let mut proof = match codec.run(move || StoredProof::begin(&first, &expected)).await? {
        Ok(proof) => proof,
        Err(error) => return Ok(Err(Unproven::Damaged(error))),
    };
    while next < object.size_bytes() {
        let end = object.size_bytes().min(next.saturating_add(PIECE_BYTES));
        let piece = match object.read(next..end).await {
            Ok(piece) => piece,
            Err(error) => return Ok(Err(Unproven::Store(error))),
        };
        let added = codec.run(move || {
            proof.add(&piece);
            proof
        });
        proof = added.await?;
        next = end;
    }
    let proven = proof.finish().map_err(Unproven::Damaged);
    Ok(proven.map(|header| (header, object.size_bytes())))
}

/// Reads and proves the object of `file` as a whole.
async fn prove_at_once(repository: &Repository, codec: &Codec, file: WalFile) -> Result<Proven, CodecGone> {
    let (key, bytes_max) = (ObjectKey::wal(file), repository.sealed_bytes_max());
    let sameness = sameness(repository, codec, file);
    let object = match repository.store().get_judged(&key, bytes_max, &sameness).await {
        Ok(object) => object,
        Err(error) => return Ok(Err(Unproven::Store(error))),
    };
    let (expected, stored_bytes) = (expected(repository, file), object_bytes(object.len(), 0));
    let proven = codec.run(move || prove_stored(&object, &expected).map(|(header, _)| header)).await?;
    Ok(proven.map(|header| (header, stored_bytes)).map_err(Unproven::Damaged))
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
        Err(error) if error.is_absent() => return Ok(Stored::Gone(key.clone())),
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
    use crate::store::fault::{Fault, Faults};
    use crate::store::{Operation, Store};
    use wald_core::identity::Identity;
    use wald_core::segment::SegmentSize;
    use wald_core::system_id::SystemId;

    fn file() -> WalFile {
        WalFile::parse("000000010000000000000042").unwrap()
    }

    fn sealed(raw: &[u8]) -> Sealed {
        seal(file(), SystemId::new(7).unwrap(), raw, Effort::Stored).unwrap()
    }

    /// What is told of `ours` where `stored` stands in its place.
    async fn told(ours: &[u8], stored: Option<Vec<u8>>, faults: &[Fault]) -> String {
        let store = Store::memory();
        let (system, size) = (SystemId::new(7).unwrap(), SegmentSize::new(8 << 20).unwrap());
        let identity = Identity::new(system, size, "2026-11-22T18:00:00Z".parse().unwrap(), "0.1.0");
        crate::repository::init(store.clone(), identity).await.unwrap();
        if let Some(stored) = stored {
            store.create(&ObjectKey::wal(file()), stored.into()).await.unwrap();
        }
        let script = Faults::none();
        let repository = Repository::open(store.with_faults(&script)).await.unwrap();
        faults.iter().for_each(|fault| script.once(Operation::Read, *fault));
        let codec = Codec::start(Niceness::default()).unwrap();
        match compare_sealed(&repository, &codec, &sealed(ours).header).await {
            Ok(Stored::Same(durable)) => {
                assert_eq!(durable.raw_blake3(), blake3::hash(ours));
                "same".to_owned()
            }
            Ok(Stored::Gone(_)) => "gone".to_owned(),
            Err(ArchiveError::StoredDamaged { .. }) => "damaged".to_owned(),
            Err(ArchiveError::Conflict { .. }) => "conflict".to_owned(),
            Err(ArchiveError::Store { .. }) => "not known".to_owned(),
            Err(error) => format!("{error:?}"),
        }
    }

    #[tokio::test]
    async fn an_object_of_any_number_of_pieces_is_proven_to_its_last_byte() {
        for bytes in [0, 1000, 5 << 20] {
            let raw = vec![7; bytes];
            let sound = sealed(&raw).to_vec();
            let mut damaged = sound.clone();
            *damaged.last_mut().unwrap() ^= 1;
            let longer = [sound.as_slice(), &[0]].concat();
            let shorter = sound[..sound.len() - 1].to_vec();
            for (stored, expected) in [
                (Some(sound), "same"),
                (Some(damaged), "damaged"),
                (Some(longer), "damaged"),
                (Some(shorter), "damaged"),
                (Some(sealed(&[9; 4 << 20]).to_vec()), "conflict"),
                (None, "gone"),
            ] {
                assert_eq!(told(&raw, stored, &[]).await, expected, "{bytes} bytes");
            }
        }
    }

    /// On a server where one object can take another's place between two requests.
    #[tokio::test]
    async fn what_pieces_say_against_an_object_is_looked_at_once_more() {
        let raw = vec![7; 5 << 20];
        for (faults, expected) in [
            (&[Fault::CorruptRead][..], "same"),
            (&[Fault::Vanished], "same"),
            // Three pieces, and then the whole.
            (&[Fault::CorruptRead; 4], "damaged"),
            (&[Fault::CorruptRead, Fault::CorruptRead, Fault::CorruptRead, Fault::Unreachable], "not known"),
            (&[Fault::Unreachable], "not known"),
        ] {
            assert_eq!(told(&raw, Some(sealed(&raw).to_vec()), faults).await, expected, "{faults:?}");
        }
    }
}
