//! The threads that make parts, and the uploads that they feed.
//!
//! Compression and hashing run on threads of their own; tokio's threads only move chunks from
//! a bounded channel into the upload. Invariant: whenever [`Workers::store`] returns an error,
//! its upload was aborted first, or is by being dropped.
//!
//! While the end of a part is on its way, its worker makes the next: there are more uploads under
//! way than workers. Memory: a frame of the tar and its compressed form for each worker, zstd's own,
//! and [`CHUNKS_MAX`] chunks of 8 MiB for all of them together.

use super::chunks::{CHUNK_BYTES, Chunk, ChunkPool};
use super::frames::FrameBuffers;
use super::layout::PartPlan;
use super::part::{FinishedPart, GivenFile, PartError, make_part};
use super::read::ReadContext;
use crate::store::{Store, StoreError, Upload};
use std::io;
use std::num::NonZeroUsize;
use tokio::sync::{mpsc, oneshot};
use wald_core::backup_id::BackupId;
use wald_core::object_key::{ObjectKey, ObjectKeyError};

/// Chunks between a worker and its upload.
const CHUNKS_QUEUED: usize = 2;
/// Chunks in memory, being filled or sent: as many for each worker,
const CHUNKS_PER_WORKER: usize = 4;
/// at most so many together, which are 80 MiB,
const CHUNKS_MAX: usize = 10;
/// but never fewer than would let each worker fill one while others are sent.
const CHUNKS_SPARE: usize = 2;
/// Parts under way for each worker: one that is made, one whose end is being sent.
const PARTS_PER_WORKER: usize = 2;

/// The threads of one backup. They end when this is dropped.
pub struct Workers {
    jobs: crossbeam_channel::Sender<Job>,
    context: ReadContext,
    parts_at_once: usize,
}

struct Job {
    plan: PartPlan,
    given: Vec<GivenFile>,
    chunks: mpsc::Sender<Chunk>,
    reply: oneshot::Sender<Result<FinishedPart, PartError>>,
}

/// Why a part is not in the repository.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// No thread could be started.
    #[error("can't start a thread for the backup")]
    Spawn(#[source] io::Error),
    /// zstd refused its settings.
    #[error("can't prepare to compress")]
    Buffers(#[source] io::Error),
    /// A part's name can't be a key.
    #[error("a part has an impossible name")]
    Name(#[from] ObjectKeyError),
    /// The part could not be made.
    #[error("can't make {name}")]
    Part {
        /// The part.
        name: String,
        /// Why.
        #[source]
        source: PartError,
    },
    /// The repository did not take it.
    #[error("can't store {name}")]
    Store {
        /// The part.
        name: String,
        /// Why.
        #[source]
        source: StoreError,
    },
    /// The repository took another number of bytes than it was given.
    #[error("{name} has {stored} bytes in the repository, {sent} were sent: it can't be trusted")]
    Size {
        /// The part.
        name: String,
        /// What the repository has.
        stored: u64,
        /// What it was given.
        sent: u64,
    },
    /// A thread is gone.
    #[error("a thread of the backup ended unexpectedly while making {name}")]
    Died {
        /// The part.
        name: String,
    },
    /// The backup was given up.
    #[error("the backup was given up")]
    GivenUp,
}

impl Workers {
    /// Starts the threads, which compress at `level`.
    pub fn start(count: NonZeroUsize, level: i32, context: ReadContext) -> Result<Self, WorkerError> {
        let count = count.get();
        // A place for each part under way: when the first are given out, no thread may run yet.
        let parts_at_once = count.saturating_mul(PARTS_PER_WORKER);
        let (jobs, queue) = crossbeam_channel::bounded::<Job>(parts_at_once);
        let chunks = count.saturating_mul(CHUNKS_PER_WORKER).min(CHUNKS_MAX);
        let pool = ChunkPool::new(chunks.max(count.saturating_add(CHUNKS_SPARE)));
        for number in 1..=count {
            let (queue, context, pool) = (queue.clone(), context.clone(), pool.clone());
            let mut buffers = FrameBuffers::new(level).map_err(WorkerError::Buffers)?;
            std::thread::Builder::new()
                .name(format!("backup-{number}"))
                .spawn(move || {
                    for Job { plan, given, chunks, reply } in queue {
                        // Nobody listens any more if the upload failed first.
                        let _ = reply.send(make_part(plan, given, &context, &mut buffers, &pool, chunks));
                    }
                })
                .map_err(WorkerError::Spawn)?;
        }
        Ok(Self { jobs, context, parts_at_once })
    }

    /// How many parts can be under way at the same time.
    pub fn parts_at_once(&self) -> usize {
        self.parts_at_once
    }

    /// Makes a part and stores it; at most [`Workers::parts_at_once`] at a time.
    pub async fn store(
        &self,
        store: &Store,
        backup: &BackupId,
        plan: PartPlan,
        given: Vec<GivenFile>,
    ) -> Result<FinishedPart, WorkerError> {
        let name = plan.name.clone();
        let key = ObjectKey::backup_object(backup, &name)?;
        let store_error = |source| WorkerError::Store { name: name.clone(), source };
        let mut upload = tokio::select! {
            // First: after a failure the parts that have not begun must not begin an upload.
            biased;
            () = self.context.cancel.cancelled() => return Err(WorkerError::GivenUp),
            upload = store.upload(&key) => upload.map_err(store_error)?,
        };
        match self.feed(&mut upload, plan, given).await {
            Ok(finished) => {
                let stored = upload.finish().await.map_err(store_error)?;
                let sent = finished.part.stored_bytes;
                if stored == sent { Ok(finished) } else { Err(WorkerError::Size { name, stored, sent }) }
            }
            Err(error) => {
                if let Err(abort_error) = upload.abort().await {
                    tracing::warn!(
                        "the unfinished upload of {key} stays until the repository removes it: {abort_error}"
                    );
                }
                Err(error)
            }
        }
    }

    async fn feed(
        &self,
        upload: &mut Upload,
        plan: PartPlan,
        given: Vec<GivenFile>,
    ) -> Result<FinishedPart, WorkerError> {
        let name = plan.name.clone();
        let (chunks, mut queue) = mpsc::channel(CHUNKS_QUEUED);
        let (reply, finished) = oneshot::channel();
        let died = || WorkerError::Died { name: name.clone() };
        self.jobs.try_send(Job { plan, given, chunks, reply }).map_err(|_| died())?;
        let moved = async {
            while let Some(chunk) = queue.recv().await {
                let collected = upload.part_bytes() > CHUNK_BYTES;
                let bytes = if collected { chunk.outside_pool() } else { chunk.into_bytes() };
                let put = upload.put_part(bytes).await;
                put.map_err(|source| WorkerError::Store { name: name.clone(), source })?;
            }
            finished
                .await
                .map_err(|_| died())?
                .map_err(|source| WorkerError::Part { name: name.clone(), source })
        };
        tokio::select! {
            moved = moved => moved,
            () = self.context.cancel.cancelled() => Err(WorkerError::GivenUp),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::progress::Progress;
    use super::*;
    use tokio_util::sync::CancellationToken;
    use wald_core::backup_id::BackupKind;

    #[tokio::test]
    async fn as_many_parts_as_may_be_under_way_are_taken_before_any_thread_has_begun() {
        let context = ReadContext {
            page_rules: None,
            rate: std::sync::Arc::new(crate::rate::RateLimit::new(None)),
            progress: Progress::new(),
            cancel: CancellationToken::new(),
        };
        let workers = Workers::start(NonZeroUsize::new(8).unwrap(), 1, context).unwrap();
        let (store, id) = (Store::memory(), BackupId::new(jiff::Timestamp::UNIX_EPOCH, BackupKind::Full));
        let parts = (0..workers.parts_at_once()).map(|number| {
            let plan = PartPlan { name: format!("base-{number:04}.tar.zst"), ..PartPlan::default() };
            workers.store(&store, &id, plan, Vec::new())
        });
        let stored = futures::future::join_all(parts).await;
        assert_eq!(stored.len(), 16);
        for part in stored {
            part.unwrap();
        }
    }
}
