//! In front of the way back: answers PostgreSQL's requests, and fetches the segments behind
//! the one that it asks for before it asks.
//!
//! What is fetched next is decided by `wald_core::sequence::Prefetch`; this is its shell.
//! Invariants: an answer "absent" comes from a fetch made for that very request; a request
//! waits for a fetch on its way at most as long as its patience, and fetches itself if that
//! one failed; history files are always fetched fresh; a request that is given up, whose
//! future is dropped, places nothing afterwards; a file in the spool that nothing will use
//! is removed; nothing is fetched ahead once the agent is stopping.

use super::open::Proven;
use super::patience::Patience;
use super::resolve::Resolved;
use super::spool::Spool;
use super::turns::Turns;
use super::{Restore, RestoreError};
use crate::codec::aside;
use crate::explain::chain;
use crate::fs::demand::Demand;
use crate::fs::place::Draft;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use std::collections::HashMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wald_core::history::TimelineHistory;
use wald_core::segment::SegmentName;
use wald_core::sequence::{Answer, Keep, Limits, Prefetch};
use wald_core::timeline::TimelineId;
use wald_core::wal_file::WalFile;

/// A recovery that asks for nothing for so long is over. Replaying a segment takes seconds.
const IDLE_MAX: Duration = Duration::from_secs(600);
const IDLE_CHECK: Duration = Duration::from_secs(60);

/// Whether a fetch on its way ended well. Why it did not is of no interest to a request: it
/// asks afresh.
type Fetching = Shared<BoxFuture<'static, bool>>;

/// Serves what PostgreSQL asks for, and what it will ask for next.
#[derive(Clone)]
pub struct Restorer {
    restore: Arc<Restore>,
    spool: Arc<Spool>,
    /// One window per data directory: two recoveries on one host don't disturb each other.
    windows: Arc<Mutex<HashMap<PathBuf, Window>>>,
    turns: Turns,
    limits: Limits,
    /// What the deciders' times count from.
    started: Instant,
    tasks: TaskTracker,
    stop: CancellationToken,
}

struct Window {
    asked_at: Instant,
    ahead: Prefetch,
    spooled: HashMap<SegmentName, Proven>,
    fetching: HashMap<SegmentName, Fetching>,
}

/// How a request for a segment goes on.
enum Step {
    /// It is in the spool.
    Take(Proven),
    /// It is on its way.
    Wait(Fetching),
    /// Fetch it for this request.
    Fetch,
}

impl Restorer {
    /// Work is spawned on `tasks`, which the supervisor waits for when it stops; once `stop` is
    /// cancelled only what is asked for is fetched.
    pub fn new(restore: Restore, spool: Spool, tasks: TaskTracker, stop: CancellationToken) -> Self {
        let segment = u64::from(restore.repository.segment_size().bytes());
        let files = usize::try_from(restore.options.spool_max_bytes / segment).unwrap_or(usize::MAX).max(1);
        let limits = Limits { in_flight_max: restore.options.concurrency, held_max: files };
        let (restore, spool) = (Arc::new(restore), Arc::new(spool));
        let (windows, turns, started) = (Arc::default(), Turns::default(), Instant::now());
        Self { restore, spool, windows, turns, limits, started, tasks, stop }
    }

    /// PostgreSQL's request for one file. On `Ok` it stands, proven, at its destination. If
    /// this is dropped before it is ready, nothing is placed from then on.
    pub async fn restore(&self, request: &Resolved) -> Result<(), RestoreError> {
        let patience = Patience::begin(self.restore.patience(request.asker));
        let _turn = patience.wait(request.file, self.turns.take(&request.destination)).await?;
        self.restore.check_cluster(request).await?;
        let bytes = patience.repeat(request.file, || self.attempt(request)).await?;
        self.restore.metrics.restored(bytes);
        Ok(())
    }

    async fn attempt(&self, request: &Resolved) -> Result<u64, RestoreError> {
        match request.file {
            WalFile::Segment(name) => self.segment(name, request).await,
            WalFile::Partial(_) | WalFile::BackupLabel(..) => {
                let proven = self.bring(request.file).await?;
                self.place(proven, request).await
            }
            WalFile::History(timeline) => {
                let proven = self.bring(request.file).await?;
                let bytes = self.place(proven, request).await?;
                self.follow(timeline, request).await;
                Ok(bytes)
            }
        }
    }

    /// Fetches a file into the spool.
    fn bring(&self, file: WalFile) -> impl Future<Output = Result<Proven, RestoreError>> + use<> {
        let (restore, path) = (Arc::clone(&self.restore), self.spool.fresh_path(file));
        async move { restore.bring(file, move || Draft::create(&path)).await }
    }

    async fn segment(&self, name: SegmentName, request: &Resolved) -> Result<u64, RestoreError> {
        let (mut waited, mut in_vain) = (false, false);
        loop {
            let step = match self.step(name, request) {
                // Waiting a second time could be for ever; fetching once too often costs little.
                Step::Wait(_) if in_vain => Step::Fetch,
                step => step,
            };
            self.look_ahead(&request.data_dir);
            match step {
                Step::Take(proven) => {
                    if !waited {
                        self.restore.metrics.spool_hit();
                    }
                    return self.place(proven, request).await;
                }
                Step::Wait(fetching) => {
                    waited = true;
                    self.restore.metrics.spool_wait();
                    in_vain = !fetching.await;
                }
                Step::Fetch => {
                    // Whatever becomes of this request, the segment stops being in flight.
                    let _in_flight = InFlight { restorer: self, name, data_dir: &request.data_dir };
                    let proven = self.bring(request.file).await?;
                    return self.place(proven, request).await;
                }
            }
        }
    }

    /// Looks ahead along the history that PostgreSQL was just given. One that can't be read is
    /// PostgreSQL's to complain of; the guess stays what it was.
    async fn follow(&self, timeline: TimelineId, request: &Resolved) {
        let path = request.destination.clone();
        let Ok(Ok(text)) = aside(move || std::fs::read(path)).await else { return };
        let Ok(history) = TimelineHistory::parse(timeline, &text) else { return };
        let mut windows = self.lock();
        self.window(&mut windows, request).ahead.follow(&history);
    }

    fn window<'w>(&self, windows: &'w mut HashMap<PathBuf, Window>, request: &Resolved) -> &'w mut Window {
        let size = self.restore.repository.segment_size();
        let window = windows.entry(request.data_dir.clone()).or_insert_with(|| Window {
            asked_at: Instant::now(),
            ahead: Prefetch::new(size, self.limits),
            spooled: HashMap::new(),
            fetching: HashMap::new(),
        });
        window.asked_at = Instant::now();
        window
    }

    fn step(&self, name: SegmentName, request: &Resolved) -> Step {
        let mut windows = self.lock();
        let window = self.window(&mut windows, request);
        let (answer, dropped) = window.ahead.request(name, self.started.elapsed());
        for name in dropped {
            window.spooled.remove(&name);
        }
        match answer {
            Answer::Finished => {
                window.ahead.taken(name);
                match window.spooled.remove(&name) {
                    Some(proven) => Step::Take(proven),
                    None => Step::Fetch,
                }
            }
            Answer::Wait => match window.fetching.get(&name) {
                Some(fetching) => Step::Wait(fetching.clone()),
                // In flight for another request of the same file: fetch it a second time.
                None => Step::Fetch,
            },
            Answer::Begin => Step::Fetch,
        }
    }

    /// Starts the fetches behind the asked-for segment, as far as they fit.
    fn look_ahead(&self, data_dir: &Path) {
        let mut windows = self.lock();
        // The spool's limit holds for all recoveries on this host together.
        let mut held: usize = windows.values().map(|window| window.ahead.held()).sum();
        let Some(window) = windows.get_mut(data_dir) else { return };
        while held < self.limits.held_max
            && !self.stop.is_cancelled()
            && let Some(name) = window.ahead.candidate()
        {
            held += 1;
            self.begin(window, name, data_dir, self.bring(WalFile::Segment(name)));
        }
    }

    /// Starts one fetch ahead.
    fn begin(
        &self,
        window: &mut Window,
        name: SegmentName,
        data_dir: &Path,
        bring: impl Future<Output = Result<Proven, RestoreError>> + Send + 'static,
    ) {
        window.ahead.begin(name);
        let (this, data_dir) = (self.clone(), data_dir.to_owned());
        let task = self.tasks.spawn(async move { this.prefetch(name, &data_dir, bring).await });
        window.fetching.insert(name, task.map(|joined| joined.unwrap_or(false)).boxed().shared());
    }

    async fn prefetch(
        &self,
        name: SegmentName,
        data_dir: &Path,
        bring: impl Future<Output = Result<Proven, RestoreError>>,
    ) -> bool {
        let on_its_way = OnItsWay { restorer: self, name, data_dir, begun: Instant::now(), arrived: false };
        match bring.await {
            Ok(proven) => on_its_way.arrived(proven),
            Err(error) => {
                tracing::debug!(segment = %name, error = %chain(&error), "looking ahead ends here");
                return false;
            }
        }
        self.look_ahead(data_dir);
        true
    }

    async fn place(&self, proven: Proven, request: &Resolved) -> Result<u64, RestoreError> {
        // Ends with this future: a job that is still queued by then does nothing.
        let demand = Demand::new();
        let (watch, request) = (demand.watch(), request.clone());
        // A rename, or a copy across file systems: either way not on the runtime's threads, and not
        // behind the segments that are being decompressed ahead: PostgreSQL waits for this one.
        aside(move || proven.place(&request, &watch)).await?
    }

    /// Empties the spool of recoveries that have asked for nothing for a while: they are over,
    /// and nobody says so. To be spawned once; ends with `stop`.
    pub async fn tidy_up(self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(IDLE_CHECK) => {}
            }
            self.lock()
                .retain(|_, window| window.asked_at.elapsed() <= IDLE_MAX || !window.fetching.is_empty());
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PathBuf, Window>> {
        // A panic while the lock is held leaves at worst a file that is fetched again.
        self.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// While this lives, a request fetches `name` itself.
struct InFlight<'a> {
    restorer: &'a Restorer,
    name: SegmentName,
    data_dir: &'a Path,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        if let Some(window) = self.restorer.lock().get_mut(self.data_dir) {
            window.ahead.taken(self.name);
        }
    }
}

/// While this lives, `name` is fetched ahead. However that ends, by a panic too, the window
/// learns of it: a request would wait for ever for a fetch that nobody is at any more.
struct OnItsWay<'a> {
    restorer: &'a Restorer,
    name: SegmentName,
    data_dir: &'a Path,
    begun: Instant,
    arrived: bool,
}

impl OnItsWay<'_> {
    /// The file waits in the spool, unless PostgreSQL has moved elsewhere meanwhile.
    fn arrived(mut self, proven: Proven) {
        if let Some(window) = self.restorer.lock().get_mut(self.data_dir) {
            self.arrived = true;
            window.fetching.remove(&self.name);
            if window.ahead.fetched(self.name, self.begun.elapsed()) == Keep::Keep {
                window.spooled.insert(self.name, proven);
            }
        }
    }
}

impl Drop for OnItsWay<'_> {
    fn drop(&mut self) {
        if self.arrived {
            return;
        }
        if let Some(window) = self.restorer.lock().get_mut(self.data_dir) {
            window.fetching.remove(&self.name);
            window.ahead.failed(self.name);
        }
    }
}

#[cfg(test)]
mod tests;
