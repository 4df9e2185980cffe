//! The threads that read objects and prove them, and what they share.
//!
//! One thread per lane takes jobs from a queue; one task per object reads it from the repository, ahead of its
//! thread by a few pieces. Invariants: pieces of all downloads together never exceed
//! [`PIECES_IN_MEMORY`]; an object whose connection broke is read again a few times and then
//! reported as not read, never as damaged and never as good; the first word of giving up ends all lanes.

use super::backup_job::BackupJob;
use super::event::Event;
use super::progress::Progress;
use crate::explain;
use crate::rate::RateLimit;
use crate::repository::Repository;
use crate::store::StoreError;
use crate::stored::{Extent, ObjectReader, download};
use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use wald_core::ledger::{Damage, Depth};
use wald_core::object_key::ObjectKey;
use wald_core::wal_file::WalFile;

use super::wal_run::WalRun;

/// Pieces of objects (of at most [`crate::stored::PIECE_BYTES_MAX`]) that may be in memory at once, in
/// all lanes together: 48 MiB. Each lane needs one at a time, so there are no more lanes than this.
const PIECES_IN_MEMORY: usize = 6;
/// How often an object is read whose connection broke; the store has tried each request
/// several times by then.
const READ_ATTEMPTS_MAX: u32 = 3;
/// What the threads found out and nobody has taken note of yet.
const EVENTS_WAITING: usize = 1024;

/// Something to read and prove.
#[derive(Debug)]
pub(super) enum Job {
    /// Consecutive segments of a timeline.
    Wal(WalRun),
    /// The first part of a segment, as a promotion leaves it.
    Partial(WalFile),
    /// A history or a backup's label, with its proof.
    Bare(WalFile),
    /// The lists of a backup.
    Lists(Arc<BackupJob>),
    /// A part of a backup, by its index.
    Part(Arc<BackupJob>, usize),
}

/// What the lanes share.
pub(super) struct Shared {
    pub repository: Repository,
    pub depth: Depth,
    runtime: Handle,
    room: Arc<Semaphore>,
    queue: Mutex<VecDeque<Job>>,
    given_up: Arc<AtomicBool>,
    rate: RateLimit,
    progress: Progress,
    events: mpsc::Sender<Event>,
}

/// The lanes at work. Dropping it ends them.
pub(super) struct Lanes {
    events: mpsc::Receiver<Event>,
    given_up: Arc<AtomicBool>,
    running: JoinSet<()>,
}

/// The run was given up while an object was read.
#[derive(Clone, Copy, Debug)]
pub(super) struct GivenUp;

/// An object that was read to its end.
pub(super) struct Whole<T> {
    /// What was made of it on the way.
    pub value: T,
    pub bytes: u64,
    pub hash: blake3::Hash,
}

impl Lanes {
    /// Starts to work off the jobs.
    pub fn start(
        repository: &Repository,
        depth: Depth,
        jobs: VecDeque<Job>,
        lanes: NonZeroUsize,
        rate: RateLimit,
        progress: Progress,
    ) -> Self {
        let (sender, events) = mpsc::channel(EVENTS_WAITING);
        let given_up = Arc::new(AtomicBool::new(false));
        let lanes = lanes.get().min(PIECES_IN_MEMORY).min(jobs.len());
        let shared = Arc::new(Shared {
            repository: repository.clone(),
            depth,
            runtime: Handle::current(),
            room: Arc::new(Semaphore::new(PIECES_IN_MEMORY)),
            queue: Mutex::new(jobs),
            given_up: Arc::clone(&given_up),
            rate,
            progress,
            events: sender,
        });
        let mut running = JoinSet::new();
        for _ in 0..lanes {
            let shared = Arc::clone(&shared);
            running.spawn_blocking(move || shared.work());
        }
        Self { events, given_up, running }
    }

    /// What is found out next; `None` at the end.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// Ends the lanes soon.
    pub fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
    }

    /// Whether every lane came to its end, and none died on the way.
    pub async fn all_ended(&mut self) -> bool {
        let mut sound = true;
        while let Some(ended) = self.running.join_next().await {
            sound &= ended.is_ok();
        }
        sound
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        self.give_up();
    }
}

impl Shared {
    fn work(&self) {
        loop {
            let next = self.queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some(job) = next.filter(|_| !self.is_given_up()) else { return };
            let ended = match job {
                Job::Wal(run) => self.wal_run(run),
                Job::Partial(file) => self.partial(file),
                Job::Bare(file) => self.bare(file),
                Job::Lists(backup) => backup.files(self).map(|_| ()),
                Job::Part(backup, index) => self.part(&backup, index),
            };
            // What is left in the queue was not read, and whoever waits for it counts.
            if let Err(GivenUp) = ended {
                return;
            }
        }
    }

    fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Relaxed)
    }

    pub fn tell(&self, event: Event) {
        // Nobody listens any more if the run was dropped.
        if self.events.blocking_send(event).is_err() {
            self.given_up.store(true, Ordering::Relaxed);
        }
    }

    pub fn proven(&self, key: &ObjectKey, depth: Depth) {
        self.tell(Event::Proven { object: key.as_str().into(), depth });
    }

    pub fn found(&self, key: &ObjectKey, damage: Damage) {
        self.tell(Event::Found { object: key.as_str().into(), damage });
    }

    /// Reads an object to its end and hands it to `take`, again from the start if the connection
    /// breaks. `None`: it could not be read, which was told.
    pub fn read<T>(
        &self,
        key: &ObjectKey,
        mut take: impl FnMut(&mut ObjectReader<'_>) -> T,
    ) -> Result<Option<Whole<T>>, GivenUp> {
        let arrived = |bytes| {
            self.progress.advance(bytes);
            self.rate.wait(bytes, || self.is_given_up());
        };
        let mut attempt = 1;
        loop {
            let store = self.repository.store();
            let pieces = download(&self.runtime, store, key, Extent::Whole, Arc::clone(&self.room));
            let mut object = ObjectReader::new(pieces, &arrived, &self.given_up);
            let value = take(&mut object);
            let (so_far, told) = (object.bytes(), object.told().clone());
            let error = match object.finish() {
                Ok((bytes, hash)) => {
                    self.tell(Event::Read { object: key.as_str().into(), stored_bytes: bytes, told });
                    return Ok(Some(Whole { value, bytes, hash }));
                }
                Err(None) => return Err(GivenUp),
                Err(Some(error)) => error,
            };
            self.progress.take_back(so_far);
            let again = matches!(error, StoreError::Unreachable { .. } | StoreError::BadAnswer { .. });
            if !again || attempt == READ_ATTEMPTS_MAX {
                self.not_read(key, &error);
                return Ok(None);
            }
            tracing::warn!(%key, attempt, error = explain::chain(&error), "reading again");
            attempt += 1;
        }
    }

    fn not_read(&self, key: &ObjectKey, error: &StoreError) {
        let object = key.as_str().into();
        match error {
            // It was listed a moment ago.
            StoreError::Absent { .. } => self.tell(Event::Vanished { object }),
            StoreError::Deleted { .. } => self.tell(Event::Found { object, damage: Damage::Deleted }),
            error => self.tell(Event::Unread { object, problem: explain::chain(error) }),
        }
    }
}
