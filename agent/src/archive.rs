//! The way out: one WAL file from `pg_wal` into the repository.
//!
//! `admit` (is it a file that may be archived?) → `read` → `seal` (in `codec`) → `ship` →
//! `confirm` → [`confirm::Durable`]. [`look_ahead::Archiver`] stands in front and decides, with
//! `wald_core::sequence`, which segments take that way before PostgreSQL asks.
//!
//! Invariants: only `confirm` makes a [`Durable`], and only a `Durable` becomes the reply
//! "done"; nothing is stored before the file's identity is checked; nothing is overwritten;
//! bytes in flight are bounded by `memory_max`: a file counts whole until it is compressed, and
//! then as what has become of it.

pub mod admit;
mod read;
mod ship;
pub mod confirm;
pub mod look_ahead;
pub mod give_up;

use crate::codec::seal::Effort;
use crate::codec::{Codec, CodecGone};
use crate::metrics::Metrics;
use crate::repository::Repository;
use crate::store::StoreError;
use admit::{AdmitError, Admitted, PgWal};
use confirm::{Durable, Stored};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use wald_core::sequence::{Limits, waiting_if_ready};
use wald_core::wal_file::WalFile;

/// What archiving needs to know.
#[derive(Clone, Debug)]
pub struct ArchiveOptions {
    /// The data directory whose `pg_wal` may be archived.
    pub data_dir: PathBuf,
    /// How segments are compressed while nothing waits.
    pub effort: Effort,
    /// After this a request is answered "try again".
    pub timeout: Duration,
    /// Bytes of objects that may be in memory at once, compressed as far as they are.
    pub memory_max_bytes: u64,
    /// How far to look ahead.
    pub limits: Limits,
}

/// Why a file is not archived. Every one of them means: try again.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The request names nothing that may be archived.
    #[error(transparent)]
    Refused(#[from] AdmitError),
    /// The file can't be read.
    #[error("can't archive {file}")]
    Read {
        /// The file.
        file: WalFile,
        /// What failed.
        source: crate::fs::FsError,
    },
    /// The data directory is not the repository's cluster.
    #[error(transparent)]
    Cluster(#[from] crate::cluster::ClusterError),
    /// The file can't be compressed.
    #[error(transparent)]
    Seal(#[from] crate::codec::seal::SealError),
    /// The compression threads are gone.
    #[error(transparent)]
    Codec(#[from] CodecGone),
    /// The repository did not confirm the file.
    #[error("{file} is not archived: the repository did not confirm it")]
    Store {
        /// The file.
        file: WalFile,
        /// What the repository, or the way to it, said.
        source: StoreError,
    },
    /// Another content is stored under the name.
    #[error(
        "{file} is not archived: the repository has another content under {key}: stored BLAKE3 {stored}, \
         this file's {ours}. Two clusters may be archiving to one repository, or this is a clone: \
         give it a repository of its own. The stored object is left as it is"
    )]
    Conflict {
        /// The file.
        file: WalFile,
        /// The object.
        key: String,
        /// The hash of the stored content.
        stored: String,
        /// The hash of the file to be archived.
        ours: String,
    },
    /// An object of that name is stored, but it is damaged.
    #[error(
        "{file} is not archived: {key} exists in the repository and is damaged ({detail}); this file's BLAKE3 \
         is {ours}. Nothing is overwritten: have the damaged object version removed, then PostgreSQL's \
         next attempt stores it anew"
    )]
    StoredDamaged {
        /// The file.
        file: WalFile,
        /// The object.
        key: String,
        /// What is wrong with it.
        detail: String,
        /// The hash of the file to be archived.
        ours: String,
    },
    /// "Exists" and "absent" in turns.
    #[error("{file} is not archived: the repository says that {key} exists and that it does not")]
    Contradiction {
        /// The file.
        file: WalFile,
        /// The object.
        key: String,
    },
    /// Took longer than `archive.timeout`.
    #[error("{file} is not archived after {} s (archive.timeout); the repository is slow or can't be reached", after.as_secs())]
    TimedOut {
        /// The file.
        file: WalFile,
        /// The limit.
        after: Duration,
    },
    /// The agent is stopping, or the task that shipped the file died.
    #[error("{file} is not archived: the attempt was given up because the agent is stopping")]
    GivenUp {
        /// The file.
        file: WalFile,
    },
}

/// Archives single files; knows nothing of what comes next.
pub struct Archive {
    repository: Repository,
    codec: Codec,
    pg_wal: PgWal,
    options: ArchiveOptions,
    /// One permit is one KiB of `memory_max`.
    budget: Arc<Semaphore>,
    budget_kib: u32,
    metrics: Arc<Metrics>,
}

impl Archive {
    /// Ready to archive into `repository`.
    pub fn new(repository: Repository, codec: Codec, options: ArchiveOptions, metrics: Arc<Metrics>) -> Self {
        let budget_kib = u32::try_from(options.memory_max_bytes >> 10).unwrap_or(u32::MAX >> 3).max(1);
        // A semaphore holds at most usize::MAX >> 3 permits.
        let budget_kib = budget_kib.min(u32::MAX >> 3);
        let permits = usize::try_from(budget_kib).unwrap_or(1);
        let pg_wal = PgWal::of(&options.data_dir);
        Self {
            repository,
            codec,
            pg_wal,
            options,
            budget: Arc::new(Semaphore::new(permits)),
            budget_kib,
            metrics,
        }
    }

    /// How `file` is to be compressed: with less effort while others wait behind it.
    fn effort_for(&self, file: WalFile) -> Effort {
        let WalFile::Segment(name) = file else { return self.options.effort };
        let behind = waiting_if_ready(name, self.repository.segment_size());
        if behind.is_some_and(|later| self.pg_wal.is_ready(WalFile::Segment(later))) {
            self.options.effort.hurried()
        } else {
            self.options.effort
        }
    }

    /// Checks that `path` names a file that may be archived, and opens it.
    fn admit(&self, path: &Path) -> Result<Admitted, AdmitError> {
        self.pg_wal.admit(path, self.repository.segment_size())
    }

    /// One request without a look-ahead: what `wald archive-push` does when no agent answers.
    pub async fn archive_directly(&self, path: &Path) -> Result<Durable, ArchiveError> {
        let admitted = self.admit(path)?;
        let (file, after) = (admitted.file(), self.options.timeout);
        let pushed = tokio::time::timeout(after, self.push(admitted)).await;
        pushed.unwrap_or(Err(ArchiveError::TimedOut { file, after }))
    }

    /// The whole way of one file. On `Ok` the repository has confirmed its exact bytes.
    async fn push(&self, admitted: Admitted) -> Result<Durable, ArchiveError> {
        let file = admitted.file();
        let admitted = Arc::new(admitted);
        let mut attempts = 0;
        loop {
            attempts += 1;
            match self.attempt(Arc::clone(&admitted)).await? {
                Stored::Same(durable) => return Ok(durable),
                Stored::Gone(_) if attempts < ship::ATTEMPTS_MAX => {}
                Stored::Gone(key) => {
                    return Err(ArchiveError::Contradiction { file, key: key.to_string() });
                }
            }
        }
    }

    /// Reads the file, and sends it once.
    async fn attempt(&self, admitted: Arc<Admitted>) -> Result<Stored, ArchiveError> {
        let file = admitted.file();
        let size = admitted.stamp().bytes();
        // How far it can be compressed is not known before. A file larger than the whole budget goes
        // alone instead of never.
        let mut room =
            self.budget.acquire_many(self.kib(size)).await.map_err(|_| ArchiveError::GivenUp { file })?;
        let started = tokio::time::Instant::now();
        let (identity, data_dir) = (self.repository.identity().clone(), self.options.data_dir.clone());
        let effort = self.effort_for(file);
        let load = self.codec.run(move || read::load(&admitted, &identity, &data_dir, effort)).await??;
        let held = usize::try_from(self.kib(load.bytes())).unwrap_or(usize::MAX);
        drop(room.split(room.num_permits().saturating_sub(held)));
        let shipped = ship::ship(&self.repository, &self.codec, load).await?;
        if let Stored::Same(durable) = &shipped {
            self.metrics.archived(size, durable.stored_bytes(), started.elapsed());
        }
        Ok(shipped)
    }

    /// The permits for so many bytes.
    fn kib(&self, bytes: u64) -> u32 {
        u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX).min(self.budget_kib)
    }
}

#[cfg(test)]
mod tests;
