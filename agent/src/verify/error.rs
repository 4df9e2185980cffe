//! Why a verification could not even begin.

use crate::inventory::InventoryError;
use crate::store::StoreError;
use wald_core::backup_id::BackupId;

/// A verification that was not carried out. It says nothing about the repository.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The repository can't be listed or its records can't be read.
    #[error("can't verify the repository")]
    Store(#[from] StoreError),
    /// The catalog can't be read.
    #[error(transparent)]
    Inventory(#[from] InventoryError),
    /// `--backup` names none.
    #[error("there is no backup {id}: see wald list")]
    NoSuchBackup {
        /// The backup.
        id: BackupId,
    },
    /// A signal came before anything was read.
    #[error("interrupted before anything was read")]
    Interrupted,
}
