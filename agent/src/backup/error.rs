//! Why a backup does not exist.

use super::claim::ClaimError;
use super::commit::CommitError;
use super::control::ControlError;
use super::scan::ScanError;
use super::wal_wait::WalWaitError;
use super::workers::WorkerError;
use crate::database::DatabaseError;
use crate::store::StoreError;
use std::path::PathBuf;
use wald_core::backup_id::BackupId;
use wald_core::backup_label::BackupLabelError;
use wald_core::lsn::Lsn;
use wald_core::relative_path::RelativePathError;
use wald_core::segment::SegmentSize;
use wald_core::system_id::SystemId;
use wald_core::timeline::TimelineId;

/// Why a backup does not exist. In every case nothing was recorded in the catalog.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The server.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// `pg_control`.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The files could not be listed.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// A part.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// WAL is missing.
    #[error(transparent)]
    Wal(#[from] WalWaitError),
    /// The backup could not be recorded.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The server is another cluster than the repository's.
    #[error(
        "the server has system identifier {server}, the repository belongs to {repository}: check [cluster] \
         connection and [repository] url; each cluster needs a repository of its own"
    )]
    OtherCluster {
        /// The server's identity.
        server: SystemId,
        /// The repository's.
        repository: SystemId,
    },
    /// The data directory is another cluster's than the server.
    #[error(
        "{} belongs to the cluster with system identifier {found}, the server to {server}: check [cluster] \
         data_dir and connection",
        data_dir.display()
    )]
    OtherDataDir {
        /// The directory.
        data_dir: PathBuf,
        /// Its identity.
        found: SystemId,
        /// The server's.
        server: SystemId,
    },
    /// The data directory is a copy of the cluster, not the one that the server uses.
    #[error(
        "the server has just made a checkpoint at {start_lsn}, and pg_control in {} is still at {redo}: \
         that is not the directory that the server uses; check [cluster] data_dir",
        data_dir.display()
    )]
    OtherDirectory {
        /// The directory.
        data_dir: PathBuf,
        /// Its latest checkpoint.
        redo: Lsn,
        /// The server's.
        start_lsn: Lsn,
    },
    /// The cluster's segments are not what the repository was made for.
    #[error("the cluster has WAL segments of {} bytes, the repository was made for {}", found.bytes(), repository.bytes())]
    OtherSegmentSize {
        /// The cluster's.
        found: SegmentSize,
        /// The repository's.
        repository: SegmentSize,
    },
    /// Built with `--with-blocksize`.
    #[error("the cluster has pages of {found} bytes, wald can check pages of 8192 only")]
    BlockSize {
        /// `pg_control`'s block size.
        found: u32,
    },
    /// No WAL would ever arrive.
    #[error(
        "archiving is off ({setting}), so the WAL that the backup needs would never be in the repository: set \
         archive_mode = on and archive_command = 'wald-archive %p'"
    )]
    NotArchiving {
        /// What is set.
        setting: &'static str,
    },
    /// No name.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// The repository could not be asked, or a backup of this name exists.
    #[error("can't make sure that the repository takes the backup")]
    Repository(#[source] StoreError),
    /// Another backup has this name.
    #[error("the repository already has a backup {0}: another one began in the same second; try again")]
    Exists(BackupId),
    /// What `pg_backup_stop` returned can't be used.
    #[error("the label that PostgreSQL returned for the backup can't be used")]
    Label(#[from] BackupLabelError),
    /// The label is another backup's.
    #[error("PostgreSQL started the backup at {started} and returned a label that starts at {found}")]
    OtherLabel {
        /// The answer of `pg_backup_start`.
        started: Lsn,
        /// In the label.
        found: Lsn,
    },
    /// A promotion upstream of a standby.
    #[error(
        "the server went from timeline {from} to {to} during the backup, which so can't be used: take another"
    )]
    TimelineChanged {
        /// At the beginning.
        from: TimelineId,
        /// At the end.
        to: TimelineId,
    },
    /// The tablespace map does not know it, and its files were listed.
    #[error("tablespace {oid} was created while the backup began, which so can't be used: take it again")]
    TablespaceCreated {
        /// Its number.
        oid: u32,
    },
    /// The connection broke, and with it the backup mode.
    #[error(
        "the session with PostgreSQL ended during the backup, and with it the backup mode: check PostgreSQL's log, \
         then take another"
    )]
    SessionLost,
    /// A path that can't be.
    #[error("a file of the backup has an impossible path")]
    Path(#[from] RelativePathError),
    /// A thread is gone.
    #[error("a thread of the backup ended unexpectedly")]
    Thread,
    /// Given up on request.
    #[error("the backup was cancelled; it was not recorded")]
    Cancelled,
}
