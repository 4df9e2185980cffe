//! The repository → an object's bytes, in one bounded request.
//!
//! The mirror of `archive::ship`. Invariant: "absent" comes out of here only when the
//! repository vouches for it: it can be asked, it is ours, and it says so twice.

use super::RestoreError;
use crate::repository::Repository;
use crate::store::StoreError;
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

pub(super) async fn fetch(repository: &Repository, file: WalFile) -> Result<Fetched, RestoreError> {
    match file {
        WalFile::Segment(_) | WalFile::Partial(_) => {
            let object = get(repository, file, repository.sealed_bytes_max()).await?;
            Ok(Fetched::Sealed { file, object })
        }
        WalFile::History(_) | WalFile::BackupLabel(..) => {
            let raw = get(repository, file, SMALL_OBJECT_BYTES_MAX).await?;
            let key = ObjectKey::wal_proof(file);
            let proof = repository.store().get(&key, SMALL_OBJECT_BYTES_MAX).await;
            let proof = proof.map_err(|source| {
                if source.is_absent() {
                    // The proof is written first, so somebody removed it or put the file there.
                    let detail = format!("its proof {key} is missing");
                    RestoreError::Corrupt { file, key: ObjectKey::wal(file).to_string(), detail }
                } else {
                    RestoreError::Unreachable { file, source }
                }
            })?;
            Ok(Fetched::Bare { file, raw, proof })
        }
    }
}

async fn get(repository: &Repository, file: WalFile, bytes_max: u64) -> Result<Bytes, RestoreError> {
    let key = ObjectKey::wal(file);
    match repository.store().get(&key, bytes_max).await {
        Ok(object) => Ok(object),
        Err(error) if error.is_absent() => match repository.believed_absent(&key).await {
            Ok(()) => Err(RestoreError::Absent { file }),
            Err(source) => Err(RestoreError::Unreachable { file, source }),
        },
        Err(error @ StoreError::TooLarge { .. }) => {
            Err(RestoreError::Corrupt { file, key: key.to_string(), detail: error.to_string() })
        }
        Err(source) => Err(RestoreError::Unreachable { file, source }),
    }
}
