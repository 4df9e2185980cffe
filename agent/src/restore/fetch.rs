//! The repository → an object's bytes, in one bounded request.
//!
//! The mirror of `archive::ship`. Invariant: "absent" comes out of here only when the
//! repository vouches for it: it can be asked, it is ours, and it says so twice.

use super::RestoreError;
use crate::codec::Codec;
use crate::codec::open::Expected;
use crate::codec::same;
use crate::repository::Repository;
use crate::store::{Sameness, StoreError};
use bytes::Bytes;
use wald_core::object_key::ObjectKey;
use wald_core::wal_file::WalFile;

/// What was fetched, not yet proven.
pub(super) enum Fetched {
    /// A sealed object.
    Sealed { file: WalFile, object: Bytes },
    /// A bare file and the object that proves it.
    Bare { file: WalFile, raw: Bytes, proof: Bytes },
}

impl Fetched {
    /// Which file it is.
    pub(super) fn file(&self) -> WalFile {
        match self {
            Fetched::Sealed { file, .. } | Fetched::Bare { file, .. } => *file,
        }
    }
}

/// A history or label file, or a proof, is never larger.
const SMALL_OBJECT_BYTES_MAX: u64 = 1 << 20;

pub(super) async fn fetch(
    repository: &Repository,
    codec: &Codec,
    file: WalFile,
) -> Result<Fetched, RestoreError> {
    let bytes = Sameness::of_bytes();
    let wanted = ObjectKey::wal(file);
    match file {
        WalFile::Segment(_) | WalFile::Partial(_) => {
            let bytes_max = repository.sealed_bytes_max();
            let expected = Expected {
                file,
                system_id: repository.system_id(),
                raw_bytes_max: u64::from(repository.segment_size().bytes()),
            };
            let sameness = Sameness::judged(bytes_max, same::judge(codec, expected));
            let object = get(repository, file, &wanted, bytes_max, &sameness).await?;
            Ok(Fetched::Sealed { file, object })
        }
        WalFile::History(_) | WalFile::BackupLabel(..) => {
            let raw = get(repository, file, &wanted, SMALL_OBJECT_BYTES_MAX, &bytes).await?;
            let key = ObjectKey::wal_proof(file);
            let proof = get(repository, file, &key, SMALL_OBJECT_BYTES_MAX, &bytes).await;
            let proof = proof.map_err(|error| match error {
                // The proof is written first, so somebody removed it or put the file there.
                RestoreError::Absent { file } => {
                    let detail = format!("its proof {key} is missing");
                    RestoreError::Corrupt { file, key: wanted.to_string(), detail }
                }
                error => error,
            })?;
            Ok(Fetched::Bare { file, raw, proof })
        }
    }
}

async fn get(
    repository: &Repository,
    file: WalFile,
    key: &ObjectKey,
    bytes_max: u64,
    sameness: &Sameness,
) -> Result<Bytes, RestoreError> {
    let error = match repository.store().get_judged(key, bytes_max, sameness).await {
        Ok(object) => return Ok(object),
        Err(error) => error,
    };
    // Every kind by name: a new one has to be thought about, and never reads as absent.
    match error {
        StoreError::Absent { .. } => match repository.believed_absent(key).await {
            Ok(()) => Err(RestoreError::Absent { file }),
            Err(source) => Err(RestoreError::Unreachable { file, source }),
        },
        // Somebody deleted it and its versions are kept, or two wrote it: waiting would not mend that.
        StoreError::TooLarge { .. } | StoreError::Deleted { .. } | StoreError::Contested { .. } => {
            Err(RestoreError::Corrupt { file, key: key.to_string(), detail: error.to_string() })
        }
        source @ (StoreError::Unreachable { .. }
        | StoreError::Refused { .. }
        | StoreError::Misconfigured { .. }
        | StoreError::Occupied { .. }
        | StoreError::BadAnswer { .. }) => Err(RestoreError::Unreachable { file, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{HISTORY, repository_with};
    use super::*;
    use crate::store::Operation;
    use crate::store::fault::{Fault, Faults};
    use wald_core::outcome::RestoreFinding;

    async fn finding(repository: &Repository, name: &str) -> RestoreFinding {
        let codec = Codec::start(crate::codec::Niceness::default()).unwrap();
        let outcome = fetch(repository, &codec, WalFile::parse(name).unwrap()).await;
        outcome.map_or_else(|error| error.finding(), |_| RestoreFinding::Placed)
    }

    #[tokio::test]
    async fn only_what_the_repository_vouches_for_is_absent() {
        let absent = "0000000100000000000000EE";
        for (fault, expected) in [
            (None, RestoreFinding::Absent),
            (Some(Fault::Unreachable), RestoreFinding::Unreachable),
            (Some(Fault::AnswerLost), RestoreFinding::Unreachable),
            (Some(Fault::NotFoundByProxy), RestoreFinding::Unreachable),
        ] {
            let faults = Faults::none();
            let repository = repository_with(&faults, &[]).await;
            if let Some(fault) = fault {
                faults.always(Operation::Read, fault);
            }
            assert_eq!(finding(&repository, absent).await, expected, "{fault:?}");
        }
    }

    #[tokio::test]
    async fn a_repository_that_is_another_one_meanwhile_says_nothing() {
        let repository = repository_with(&Faults::none(), &[]).await;
        repository.store().delete(&ObjectKey::identity()).await.unwrap();
        assert_eq!(finding(&repository, "0000000100000000000000EE").await, RestoreFinding::Unreachable);
    }

    #[tokio::test]
    async fn a_history_file_without_its_proof_is_corrupt_only_if_the_repository_vouches_for_that() {
        let file = WalFile::parse("00000002.history").unwrap();
        let objects = [(ObjectKey::wal(file), HISTORY.to_vec())];
        let repository = repository_with(&Faults::none(), &objects).await;
        assert_eq!(finding(&repository, "00000002.history").await, RestoreFinding::Corrupt);
        // Its disk was unmounted in between, say.
        repository.store().delete(&ObjectKey::identity()).await.unwrap();
        assert_eq!(finding(&repository, "00000002.history").await, RestoreFinding::Unreachable);
    }

    #[tokio::test]
    async fn an_object_larger_than_it_can_be_is_corrupt() {
        let file = WalFile::parse("00000002.history").unwrap();
        let large = vec![0; usize::try_from(SMALL_OBJECT_BYTES_MAX).unwrap() + 1];
        let mut objects = vec![(ObjectKey::wal(file), HISTORY.to_vec()), (ObjectKey::wal_proof(file), large)];
        let repository = repository_with(&Faults::none(), &objects).await;
        assert_eq!(finding(&repository, "00000002.history").await, RestoreFinding::Corrupt);
        objects.swap(0, 1);
        objects[0].0 = ObjectKey::wal(file);
        let repository = repository_with(&Faults::none(), &objects[..1]).await;
        assert_eq!(finding(&repository, "00000002.history").await, RestoreFinding::Corrupt);
    }
}
