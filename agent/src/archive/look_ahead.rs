//! In front of the way out: answers PostgreSQL's requests, and ships the segments behind the
//! one that it asks for before it asks.
//!
//! What is shipped next is decided by `wald_core::sequence::PushAhead`; this is its shell.
//! Invariants: a request is answered from a [`Durable`] only; one that was made ahead is used
//! only if the file is still the very one that was read; results live in memory, so after a
//! restart the same bytes are sent again and found present.

use super::admit::{Admitted, Backlog};
use super::confirm::Durable;
use super::{Archive, ArchiveError};
use crate::explain::chain;
use crate::fs::FsError;
use crate::fs::map::FileStamp;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_util::task::TaskTracker;
use wald_core::segment::SegmentName;
use wald_core::sequence::{Answer, PushAhead};
use wald_core::wal_file::WalFile;

type Outcome = Result<Durable, Arc<ArchiveError>>;
type Shipping = Shared<BoxFuture<'static, Outcome>>;

/// Archives what PostgreSQL asks for, and what it will ask for next.
#[derive(Clone)]
pub struct Archiver {
    archive: Arc<Archive>,
    state: Arc<Mutex<State>>,
    tasks: TaskTracker,
}

struct State {
    ahead: PushAhead,
    shipping: HashMap<SegmentName, Shipping>,
    confirmed: HashMap<SegmentName, (FileStamp, Durable)>,
}

impl Archiver {
    /// Work is spawned on `tasks`, which the supervisor waits for when it stops.
    pub fn new(archive: Archive, tasks: TaskTracker) -> Self {
        let ahead = PushAhead::new(archive.repository.segment_size(), archive.options.limits);
        let state = State { ahead, shipping: HashMap::new(), confirmed: HashMap::new() };
        Self { archive: Arc::new(archive), state: Arc::new(Mutex::new(state)), tasks }
    }

    /// PostgreSQL's request for one file; answers within `archive.timeout`.
    pub async fn archive(&self, path: &Path) -> Outcome {
        let admitted = self.archive.admit(path).map_err(|error| Arc::new(error.into()))?;
        let file = admitted.file();
        let after = self.archive.options.timeout;
        let outcome = match file {
            WalFile::Segment(name) => {
                let outcome = self.segment(name, admitted);
                self.look_ahead();
                tokio::time::timeout(after, outcome).await
            }
            // Never pushed ahead: they follow segments that may still be on their way.
            WalFile::Partial(_) | WalFile::History(_) | WalFile::BackupLabel(..) => {
                let push = async { self.archive.push(admitted).await.map_err(Arc::new) };
                tokio::time::timeout(after, push).await
            }
        };
        outcome.unwrap_or_else(|_| Err(Arc::new(ArchiveError::TimedOut { file, after })))
    }

    /// What PostgreSQL has marked as waiting.
    pub fn backlog(&self) -> Result<Backlog, FsError> {
        self.archive.pg_wal.backlog()
    }

    /// What is in flight or confirmed ahead of PostgreSQL, in segments.
    pub fn held(&self) -> usize {
        self.lock().ahead.held()
    }

    fn segment(&self, name: SegmentName, admitted: Admitted) -> BoxFuture<'static, Outcome> {
        let mut state = self.lock();
        loop {
            let (answer, dropped) = state.ahead.request(name);
            for name in dropped {
                state.confirmed.remove(&name);
            }
            match answer {
                Answer::Finished => {
                    let confirmed = state.confirmed.remove(&name);
                    state.ahead.forget(name);
                    if let Some((stamp, durable)) = confirmed
                        && stamp == admitted.stamp()
                    {
                        self.archive.metrics.answered_from_memory();
                        return std::future::ready(Ok(durable)).boxed();
                    }
                    // Another file than the one that was shipped: ask afresh.
                }
                Answer::Wait => match state.shipping.get(&name) {
                    Some(shipping) => return shipping.clone().boxed(),
                    // Not possible while both change under one lock; start afresh if it were.
                    None => state.ahead.forget(name),
                },
                Answer::Begin => {
                    let stale = admitted.stamp();
                    let shipping = self.start(&mut state, name, admitted, stale);
                    let this = self.clone();
                    return shipping
                        .map(move |outcome| {
                            // Asked for and answered: nothing is kept.
                            let mut state = this.lock();
                            state.confirmed.remove(&name);
                            state.ahead.forget(name);
                            outcome
                        })
                        .boxed();
                }
            }
        }
    }

    /// Starts the segments behind the asked-for one, as far as they are ready and fit.
    fn look_ahead(&self) {
        let mut state = self.lock();
        while let Some(name) = state.ahead.candidate() {
            let file = WalFile::Segment(name);
            let admitted = if self.archive.pg_wal.is_ready(file) {
                self.archive.admit(&self.archive.pg_wal.path_of(file)).ok()
            } else {
                None
            };
            // Not ready, or not to be admitted: PostgreSQL asks for it when it is its turn,
            // and is told then what is wrong.
            let Some(admitted) = admitted else {
                state.ahead.end_at(name);
                return;
            };
            state.ahead.begin(name);
            let stamp = admitted.stamp();
            // Nobody waits for it yet; it is found in `shipping` when PostgreSQL asks.
            let _on_its_way = self.start(&mut state, name, admitted, stamp);
        }
    }

    fn start(&self, state: &mut State, name: SegmentName, admitted: Admitted, stamp: FileStamp) -> Shipping {
        let this = self.clone();
        // A task of its own: it goes on when the request that began it times out, and the
        // next request for the same segment waits for it instead of sending twice.
        let task = self.tasks.spawn(async move {
            let outcome = this.archive.push(admitted).await.map_err(Arc::new);
            let mut state = this.lock();
            state.shipping.remove(&name);
            match &outcome {
                Ok(durable) => {
                    state.confirmed.insert(name, (stamp, durable.clone()));
                    state.ahead.confirmed(name);
                }
                Err(error) => {
                    tracing::debug!(segment = %name, error = %chain(error), "a segment was not confirmed");
                    state.ahead.failed(name);
                }
            }
            let goes_on = outcome.is_ok();
            drop(state);
            if goes_on {
                this.look_ahead();
            }
            outcome
        });
        let shipping: Shipping = task
            .map(move |joined| {
                let file = WalFile::Segment(name);
                joined.unwrap_or_else(|_| Err(Arc::new(ArchiveError::GivenUp { file })))
            })
            .boxed()
            .shared();
        state.shipping.insert(name, shipping.clone());
        shipping
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while the lock is held leaves at worst a result that is not used.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
