//! The way back: one WAL file from the repository to where PostgreSQL wants it.
//!
//! `resolve` (what is asked, by whom, may it be placed there) → is that cluster the
//! repository's → `fetch` → `open` (prove and decompress into the spool) → `place`.
//! [`look_ahead::Restorer`] stands in front and decides, with `wald_core::sequence`, which
//! segments take that way before PostgreSQL asks.
//!
//! Invariants: no byte is placed that was not proven, and nothing once nobody waits for it; a
//! cluster that is not the repository's is told nothing about it, least of all that a file is
//! not there; an absence is believed only when the repository vouches for it, and never from a
//! prefetch; everything else is an error that `wald_core::outcome` turns into a stop, not into
//! the end of the WAL; the spool is bounded, wiped at start, and what another process left in
//! it is never used.

pub mod resolve;
mod turns;
mod patience;
mod fetch;
mod open;
pub mod spool;
pub mod look_ahead;

use crate::cluster::ClusterError;
use crate::codec::open::OpenError;
use crate::codec::{Codec, CodecGone, aside};
use crate::fs::FsError;
use crate::fs::demand::Demand;
use crate::fs::place::{Draft, PlaceError};
use crate::metrics::Metrics;
use crate::repository::Repository;
use crate::store::StoreError;
use open::Proven;
use patience::Patience;
use resolve::{ResolveError, Resolved};
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use wald_core::outcome::{Asker, RestoreFinding};
use wald_core::wal_file::WalFile;

/// What restoring needs to know.
#[derive(Clone, Debug)]
pub struct RestoreOptions {
    /// How many files are fetched at once.
    pub concurrency: usize,
    /// Where prefetched files wait.
    pub spool_dir: PathBuf,
    /// How many bytes may wait there.
    pub spool_max_bytes: u64,
    /// How long a recovery waits for a repository that can't be reached.
    pub patience: Duration,
    /// The same for a standby.
    pub standby_patience: Duration,
}

/// Why a file was not placed.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The request makes no sense.
    #[error(transparent)]
    Refused(#[from] ResolveError),
    /// The data directory is another cluster's, or can't be told to be the repository's.
    #[error("{file} is not looked for: the cluster that asks must be known to be the repository's")]
    Cluster {
        /// The file.
        file: WalFile,
        /// What is wrong with the data directory.
        source: ClusterError,
    },
    /// The repository says that it has no such file.
    #[error("{file} is not in the repository")]
    Absent {
        /// The file.
        file: WalFile,
    },
    /// The repository could not be asked.
    #[error("{file} can't be fetched, and whether the repository has it is not known")]
    Unreachable {
        /// The file.
        file: WalFile,
        /// What the way to it, or the repository, said.
        source: StoreError,
    },
    /// Patience ran out while the repository was being asked.
    #[error("{file} can't be fetched: the repository gave no answer within {} s, and whether it has the file is not known", after.as_secs())]
    NoAnswer {
        /// The file.
        file: WalFile,
        /// How long was waited.
        after: Duration,
    },
    /// The object is not what was stored.
    #[error("{key} in the repository is not usable, so {file} is not served: {detail}")]
    Corrupt {
        /// The file.
        file: WalFile,
        /// The object.
        key: String,
        /// What is wrong, with hashes.
        detail: String,
    },
    /// The local disk is full or forbids a new file.
    #[error("{file} can't be written")]
    Local {
        /// The file.
        file: WalFile,
        /// What failed.
        source: FsError,
    },
    /// The finished file can't go where it is wanted.
    #[error("{file} can't be placed")]
    Place {
        /// The file.
        file: WalFile,
        /// What failed.
        source: PlaceError,
    },
    /// The file can't be written while it is decompressed.
    #[error("{file} can't be decompressed into the spool")]
    Spool {
        /// The file.
        file: WalFile,
        /// What failed.
        source: OpenError,
    },
    /// The compression threads are gone.
    #[error(transparent)]
    Codec(#[from] CodecGone),
    /// The agent is stopping, or the task that fetched the file died.
    #[error("{file} is not fetched: the attempt was given up because the agent is stopping")]
    GivenUp {
        /// The file.
        file: WalFile,
    },
}

impl RestoreError {
    /// What the table of exit codes knows it as.
    pub fn finding(&self) -> RestoreFinding {
        match self {
            RestoreError::Absent { .. } => RestoreFinding::Absent,
            RestoreError::Unreachable { .. } | RestoreError::NoAnswer { .. } => RestoreFinding::Unreachable,
            RestoreError::Corrupt { .. } => RestoreFinding::Corrupt,
            RestoreError::Refused(_)
            | RestoreError::Cluster { .. }
            | RestoreError::Local { .. }
            | RestoreError::Place { .. }
            | RestoreError::Spool { .. }
            | RestoreError::Codec(_)
            | RestoreError::GivenUp { .. } => RestoreFinding::Failed,
        }
    }
}

/// Fetches and proves single files; knows nothing of what comes next.
pub struct Restore {
    repository: Repository,
    codec: Codec,
    options: RestoreOptions,
    metrics: Arc<Metrics>,
}

impl Restore {
    /// Ready to restore from `repository`.
    pub fn new(repository: Repository, codec: Codec, options: RestoreOptions, metrics: Arc<Metrics>) -> Self {
        Self { repository, codec, options, metrics }
    }

    /// One request without a look-ahead and without a spool: what `wald archive-get` does when
    /// no agent answers. The file is made beside its destination and renamed.
    pub async fn restore_directly(&self, request: &Resolved) -> Result<(), RestoreError> {
        let file = request.file;
        self.check_cluster(request).await?;
        let attempt = || {
            let destination = request.destination.clone();
            self.bring(file, move || Draft::beside(&destination))
        };
        let proven = Patience::begin(self.patience(request.asker)).repeat(file, attempt).await?;
        let bytes = proven.place(request, &Demand::new().watch())?;
        self.metrics.restored(bytes);
        Ok(())
    }

    /// Whoever asks must be the repository's cluster: another one's WAL is not here, and to be
    /// told so would end its recovery. Every data directory that asks has a `pg_control`: one
    /// that was restored has it before its server starts, and `pg_rewind` changes one that ran.
    async fn check_cluster(&self, request: &Resolved) -> Result<(), RestoreError> {
        let (file, data_dir) = (request.file, request.data_dir.clone());
        let identity = self.repository.identity().clone();
        // Reads a file, and waits where it is being written: not on the runtime's threads.
        let checked = aside(move || crate::cluster::check(&data_dir, &identity)).await?;
        checked.map_err(|source| RestoreError::Cluster { file, source })
    }

    /// How long to wait for a repository that can't be reached.
    fn patience(&self, asker: Asker) -> Duration {
        match asker {
            Asker::Recovery => self.options.patience,
            Asker::Standby => self.options.standby_patience,
        }
    }

    /// Fetches `file` once and leaves it, proven, in the file that `begin` makes.
    async fn bring(
        &self,
        file: WalFile,
        begin: impl FnOnce() -> Result<(Draft, File), FsError> + Send + 'static,
    ) -> Result<Proven, RestoreError> {
        let fetched = fetch::fetch(&self.repository, &self.codec, file).await?;
        open::open(&self.repository, &self.codec, fetched, begin).await
    }
}

#[cfg(test)]
mod tests;
