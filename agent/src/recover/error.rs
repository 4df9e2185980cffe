//! Why a restore was refused or failed.

use crate::fs::FsError;
use crate::inventory::InventoryError;
use crate::store::StoreError;
use std::path::PathBuf;
use wald_core::file_list::FileListError;
use wald_core::manifest::ManifestError;
use wald_core::object_key::{ObjectKey, ObjectKeyError};
use wald_core::recovery_plan::PlanError;
use wald_core::system_id::SystemId;
use wald_core::target::TargetError;

/// A restore that did not happen, or did not end.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The command line names a target that can't be.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The command line says something else that can't be.
    #[error("{0}")]
    Arguments(String),
    /// The repository's lists can't be read.
    #[error(transparent)]
    Inventory(#[from] InventoryError),
    /// There can be no plan.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The destination is in use.
    #[error(
        "{} belongs to a running server (process {pid}): stop it first, or choose another directory",
        directory.display()
    )]
    Running {
        /// The data directory.
        directory: PathBuf,
        /// The process that its `postmaster.pid` names.
        pid: i32,
    },
    /// The destination may be in use.
    #[error(
        "{} may belong to a running server: its postmaster.pid names process {pid}, and that number is in use \
         here, though not seen to be that server's, which may run in another container; in doubt it runs: if it \
         certainly does not, remove postmaster.pid",
        directory.display()
    )]
    MayRun {
        /// The data directory.
        directory: PathBuf,
        /// The process that its `postmaster.pid` names.
        pid: i32,
    },
    /// Two restores would remove and make the same files.
    #[error(
        "another wald restore works in {}: let it end, or end it, before this one",
        directory.display()
    )]
    Busy {
        /// The data directory or a tablespace's.
        directory: PathBuf,
    },
    /// The destination holds something.
    #[error(
        "{} is not empty: choose another directory or empty it; --delta restores over an old data directory of \
         the same cluster",
        directory.display()
    )]
    NotEmpty {
        /// The directory.
        directory: PathBuf,
    },
    /// A tablespace's place holds something.
    #[error(
        "the place of tablespace {oid}, {}, is not empty, and may be in use: empty it, or choose another with \
         --tablespace-map {oid}=DIR",
        directory.display()
    )]
    TablespaceNotEmpty {
        /// The tablespace.
        oid: u32,
        /// Its place.
        directory: PathBuf,
    },
    /// The destination can't be used for another reason.
    #[error("{} can't be restored to: {problem}", directory.display())]
    Destination {
        /// The directory.
        directory: PathBuf,
        /// Why, and what to do.
        problem: String,
    },
    /// `--delta` on another cluster's data directory.
    #[error(
        "{} belongs to the cluster with system identifier {found}, the backup is of {expected}: wald does not \
         overwrite one cluster with another; empty the directory if that is what you want",
        directory.display()
    )]
    OtherSystem {
        /// The data directory.
        directory: PathBuf,
        /// Its cluster.
        found: SystemId,
        /// The backup's cluster.
        expected: SystemId,
    },
    /// An object of the backup can't be read.
    #[error("can't read {key}, which the backup needs")]
    Read {
        /// The object.
        key: ObjectKey,
        /// Why.
        #[source]
        source: StoreError,
    },
    /// An object of the backup is not what was stored.
    #[error("{key} is damaged: {damage}; choose an older backup with --backup")]
    Damaged {
        /// The object.
        key: ObjectKey,
        /// What is wrong, with the hashes where they are known.
        damage: String,
    },
    /// The list of files can't be believed.
    #[error("{key} can't be used")]
    FileList {
        /// The list.
        key: ObjectKey,
        /// Why.
        #[source]
        source: FileListError,
    },
    /// PostgreSQL's manifest can't be believed.
    #[error("{key} can't be used")]
    Manifest {
        /// The manifest.
        key: ObjectKey,
        /// Why.
        #[source]
        source: ManifestError,
    },
    /// The catalog names an object that can't be.
    #[error("the backup's catalog entry names an impossible object")]
    Name(#[from] ObjectKeyError),
    /// The backup lacks a file without which it can't be started safely.
    #[error(
        "backup {backup} has no {file}: PostgreSQL would start it as if it had crashed, and lose data; choose \
         another backup"
    )]
    Incomplete {
        /// The backup.
        backup: String,
        /// The file.
        file: &'static str,
    },
    /// The local file system.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// A thread can't be started.
    #[error("can't start a thread: raise the limit of processes (TasksMax, ulimit -u)")]
    Thread(#[source] std::io::Error),
    /// A thread ended without an answer.
    #[error("a worker ended without an answer: this is a defect of wald")]
    Worker,
    /// Another worker failed first.
    #[error("the restore was given up")]
    GivenUp,
}
