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
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wald_core::segment::SegmentName;
use wald_core::sequence::{Answer, PushAhead};
use wald_core::wal_file::WalFile;

type Outcome = Result<Durable, Arc<ArchiveError>>;
type Shipping = Shared<BoxFuture<'static, Outcome>>;

/// How a request for a segment goes on.
enum Step {
    /// It is confirmed.
    Confirmed(Durable),
    /// The very file is on its way, begun for an earlier request or ahead.
    Wait(Shipping),
    /// Another file was under that name when it was begun: wait until that is over, ask afresh.
    Outwait(Shipping),
}

/// Archives what PostgreSQL asks for, and what it will ask for next.
#[derive(Clone)]
pub struct Archiver {
    archive: Arc<Archive>,
    state: Arc<Mutex<State>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// A segment on its way. However its task ends, panic included, the segment stops being in
/// flight: else every later request for it would wait for ever.
struct UnderWay {
    archiver: Archiver,
    name: SegmentName,
    outcome: Option<(FileStamp, Outcome)>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut state = self.archiver.lock();
        state.shipping.remove(&self.name);
        match self.outcome.take() {
            Some((stamp, Ok(durable))) => {
                state.confirmed.insert(self.name, (stamp, durable));
                state.ahead.confirmed(self.name);
            }
            Some((_, Err(error))) => {
                tracing::debug!(segment = %self.name, error = %chain(&error), "a segment was not confirmed");
                state.ahead.failed(self.name);
            }
            None => state.ahead.failed(self.name),
        }
    }
}

struct State {
    ahead: PushAhead,
    shipping: HashMap<SegmentName, (FileStamp, Shipping)>,
    confirmed: HashMap<SegmentName, (FileStamp, Durable)>,
}

impl Archiver {
    /// Work is spawned on `tasks`, which the supervisor waits for when it stops; after `stop`
    /// nothing is begun ahead.
    pub fn new(archive: Archive, tasks: TaskTracker, stop: CancellationToken) -> Self {
        let ahead = PushAhead::new(archive.repository.segment_size(), archive.options.limits);
        let state = State { ahead, shipping: HashMap::new(), confirmed: HashMap::new() };
        Self { archive: Arc::new(archive), state: Arc::new(Mutex::new(state)), tasks, stop }
    }

    /// PostgreSQL's request for one file; answers within `archive.timeout`.
    pub async fn archive(&self, path: &Path) -> Outcome {
        let admitted = self.archive.admit(path).map_err(|error| Arc::new(error.into()))?;
        let file = admitted.file();
        let after = self.archive.options.timeout;
        let outcome = match file {
            WalFile::Segment(name) => tokio::time::timeout(after, self.segment(name, admitted)).await,
            // Never pushed ahead: they follow segments that may still be on their way.
            WalFile::Partial(_) | WalFile::History(_) | WalFile::BackupLabel(..) => {
                let push = async { self.archive.push(admitted).await.map_err(Arc::new) };
                tokio::time::timeout(after, push).await
            }
        };
        outcome.unwrap_or_else(|_| Err(Arc::new(ArchiveError::TimedOut { file, after })))
    }

    /// Which file a request names, if it may be archived at all.
    pub fn admits(&self, path: &Path) -> Option<WalFile> {
        self.archive.admit(path).ok().map(|admitted| admitted.file())
    }

    /// What PostgreSQL has marked as waiting.
    pub fn backlog(&self) -> Result<Backlog, FsError> {
        self.archive.pg_wal.backlog()
    }

    /// What is in flight or confirmed ahead of PostgreSQL, in segments.
    pub fn held(&self) -> usize {
        self.lock().ahead.held()
    }

    async fn segment(&self, name: SegmentName, admitted: Admitted) -> Outcome {
        let stamp = admitted.stamp();
        let mut admitted = Some(admitted);
        loop {
            let step = self.step(name, stamp, &mut admitted);
            self.look_ahead();
            match step {
                Some(Step::Confirmed(durable)) => {
                    self.archive.metrics.answered_from_memory();
                    return Ok(durable);
                }
                Some(Step::Wait(shipping)) => {
                    let outcome = shipping.await;
                    // Asked for and answered: nothing is kept.
                    let mut state = self.lock();
                    if state.confirmed.get(&name).is_some_and(|(kept, _)| *kept == stamp) {
                        state.confirmed.remove(&name);
                        state.ahead.forget(name);
                    }
                    return outcome;
                }
                Some(Step::Outwait(shipping)) => drop(shipping.await),
                // The open file was given to an attempt that another one overtook.
                None => return Err(Arc::new(ArchiveError::GivenUp { file: WalFile::Segment(name) })),
            }
        }
    }

    fn step(&self, name: SegmentName, stamp: FileStamp, admitted: &mut Option<Admitted>) -> Option<Step> {
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
                    match confirmed {
                        Some((kept, durable)) if kept == stamp => return Some(Step::Confirmed(durable)),
                        // Another file than the one that was shipped: ask afresh.
                        _ => {}
                    }
                }
                Answer::Wait => match state.shipping.get(&name) {
                    Some((kept, shipping)) if *kept == stamp => return Some(Step::Wait(shipping.clone())),
                    Some((_, shipping)) => return Some(Step::Outwait(shipping.clone())),
                    // Not possible while both change under one lock; start afresh if it were.
                    None => state.ahead.forget(name),
                },
                Answer::Begin => {
                    let Some(admitted) = admitted.take() else {
                        state.ahead.forget(name);
                        return None;
                    };
                    return Some(Step::Wait(self.start(&mut state, name, admitted, stamp)));
                }
            }
        }
    }

    /// Starts the segments behind the asked-for one, as far as they are ready and fit.
    fn look_ahead(&self) {
        let mut state = self.lock();
        while !self.stop.is_cancelled()
            && let Some(name) = state.ahead.candidate()
        {
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
        let mut under_way = UnderWay { archiver: self.clone(), name, outcome: None };
        // A task of its own: it goes on when the request that began it times out, and the
        // next request for the same segment waits for it instead of sending twice.
        let task = self.tasks.spawn(async move {
            let outcome = under_way.archiver.archive.push(admitted).await.map_err(Arc::new);
            under_way.outcome = Some((stamp, outcome.clone()));
            let archiver = under_way.archiver.clone();
            drop(under_way);
            if outcome.is_ok() {
                archiver.look_ahead();
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
        state.shipping.insert(name, (stamp, shipping.clone()));
        shipping
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while the lock is held leaves at worst a result that is not used.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
