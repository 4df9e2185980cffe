//! The agent's life: start everything in order, tell systemd, stop in order.
//!
//! Invariants: this is the one place that owns the task set and the root cancellation token;
//! on SIGTERM or SIGINT no new request is taken, what is in flight is finished, and the
//! process exits within [`SHUTDOWN_TIMEOUT`], which is below systemd's.

use crate::archive::give_up::QueueGuard;
use crate::archive::look_ahead::Archiver;
use crate::archive::{Archive, ArchiveOptions};
use crate::backup::BackupOptions;
use crate::clock::Clock;
use crate::codec::{Codec, Niceness};
use crate::control::vacuum::boost::BoostOptions;
use crate::control::vacuum::boost_keeper::BoostKeeper;
use crate::fs::FsError;
use crate::http::{HttpOptions, Pages};
use crate::mend::Mender;
use crate::metrics::Metrics;
use crate::observe::{Observatory, ObserveOptions};
use crate::repository::{Repository, RepositoryError};
use crate::restore::look_ahead::Restorer;
use crate::restore::spool::Spool;
use crate::restore::{Restore, RestoreOptions};
use crate::server::{Server, SocketError, SocketLock, serve};
use crate::status::AgentStatus;
use crate::store::{StoreError, StoreOptions};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long work in flight may take after a stop was asked for.
pub const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);

/// What the agent runs with.
pub struct AgentOptions {
    /// Where the repository is.
    pub repository: StoreOptions,
    /// Where to listen.
    pub socket: PathBuf,
    /// Who may connect beside root and the agent's own user.
    pub allow_uids: Vec<u32>,
    /// Absent where the configuration names no data directory.
    pub archive: Option<ArchiveOptions>,
    /// What may wait to be archived before it is given up, in bytes; never, where absent.
    pub queue_max_bytes: Option<u64>,
    /// How the backup is taken that closes a gap.
    pub backup: Option<BackupOptions>,
    /// Where the journal of given-up WAL is kept.
    pub state_dir: PathBuf,
    /// Whose vacuum boosts are taken back.
    pub boost: BoostOptions,
    /// How WAL is served.
    pub restore: RestoreOptions,
    /// How nice the threads are that hash and compress.
    pub niceness: Niceness,
    /// Where metrics are served; nowhere, and nothing is looked at for them, where absent.
    pub http: Option<HttpOptions>,
    /// What is looked at for them.
    pub observe: ObserveOptions,
}

/// Why the agent ended.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// No socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The repository can't be used as it is.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The cluster is not the repository's.
    #[error(transparent)]
    Cluster(#[from] crate::cluster::ClusterError),
    /// No spool.
    #[error("the spool (restore.spool_dir) can't be used")]
    Spool(#[source] FsError),
    /// The system refused threads, signals or counters.
    #[error("can't start: {0}")]
    System(String),
}

/// Runs until SIGTERM or SIGINT.
pub async fn run(options: AgentOptions, clock: Clock) -> Result<(), AgentError> {
    let system = |error: &dyn std::fmt::Display| AgentError::System(error.to_string());
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| system(&error))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| system(&error))?;
    // A second agent must end before it touches anything of the first's. Listening comes last:
    // while the repository can't be reached at start, shims must not wait for this process, whose
    // patience has not begun, but do the work themselves.
    let name = SocketLock::take(&options.socket)?;
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let metrics = metrics(&options).map_err(|error| system(&error))?;
    let status = Arc::new(Mutex::new(AgentStatus::new(clock.now())));
    // Before the repository answers: an outage at start is when somebody looks.
    let observatory = eyes(&options, clock, &metrics, &status, &tasks, &stop);
    // Before the repository is waited for: a boost must end in time whether that answers or not.
    tasks.spawn(BoostKeeper::new(options.boost.clone(), clock).run(stop.clone()));
    let started = tokio::select! {
        server = start(&options, clock, (metrics, status), &tasks, &stop) => Some(server?),
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
    };
    let Some(server) = started else { return Ok(()) };
    let listener = name.listen(&options.allow_uids)?;
    tasks.spawn(server.restorer.clone().tidy_up(stop.clone()));
    let mut serving = tokio::spawn(serve(listener, Arc::new(server), stop.clone(), tasks.clone()));
    if let Some(observatory) = observatory {
        observatory.serving();
    }
    notify(&[sd_notify::NotifyState::Ready, sd_notify::NotifyState::Status("serving")]);
    tracing::info!(socket = %options.socket.display(), "the agent is ready");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        // Better restarted by systemd than alive and deaf.
        _ = &mut serving => return Err(AgentError::System("the server task ended unexpectedly".to_owned())),
    }
    tracing::info!("stopping: finishing what is in flight");
    notify(&[sd_notify::NotifyState::Stopping]);
    stop.cancel();
    // Dropping the listener removes the socket, so that shims fall back at once.
    let _ = serving.await;
    tasks.close();
    if tokio::time::timeout(SHUTDOWN_TIMEOUT, tasks.wait()).await.is_err() {
        tracing::warn!(unfinished = tasks.len(), "gave up work in flight; PostgreSQL asks for it again");
    }
    Ok(())
}

fn metrics(options: &AgentOptions) -> Result<Arc<Metrics>, prometheus::Error> {
    let metrics = Metrics::new()?.with_runs_below(&options.state_dir)?;
    Ok(Arc::new(metrics.with_tries(options.repository.tries.clone())?))
}

/// Begins to look around and to serve what was seen, where that is wanted.
fn eyes(
    options: &AgentOptions,
    clock: Clock,
    metrics: &Arc<Metrics>,
    status: &Arc<Mutex<AgentStatus>>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Option<Observatory> {
    let http = options.http.clone()?;
    let observatory = Observatory::open(options.observe.clone(), Arc::clone(metrics), clock, tasks, stop);
    let pages = Pages {
        metrics: Arc::clone(metrics),
        observatory: observatory.clone(),
        status: Arc::clone(status),
        state_dir: options.state_dir.clone(),
        clock,
    };
    tasks.spawn(crate::http::serve(http, pages, stop.clone(), tasks.clone()));
    Some(observatory)
}

async fn start(
    options: &AgentOptions,
    clock: Clock,
    (metrics, status): (Arc<Metrics>, Arc<Mutex<AgentStatus>>),
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Result<Server, AgentError> {
    let codec = Codec::start(options.niceness).map_err(|error| AgentError::System(error.to_string()))?;
    let spool = Spool::take(&options.restore.spool_dir).map_err(AgentError::Spool)?;
    let repository = Repository::open_patiently(&options.repository, waiting).await?;
    for weakness in repository.weaknesses() {
        tracing::warn!("{weakness}");
    }
    let archiver = match &options.archive {
        None => None,
        Some(archive) => {
            crate::cluster::check(&archive.data_dir, repository.identity())?;
            let archive =
                Archive::new(repository.clone(), codec.clone(), archive.clone(), Arc::clone(&metrics));
            Some(Archiver::new(archive, tasks.clone(), stop.clone()))
        }
    };
    let guard = guard(options, &repository);
    if let (Some(guard), Some(backup)) = (&guard, &options.backup) {
        let mender = Mender {
            guard: Arc::clone(guard),
            repository: repository.clone(),
            backup: backup.clone(),
            state_dir: options.state_dir.clone(),
            clock,
        };
        tasks.spawn(mender.run(stop.clone()));
    }
    let restore = Restore::new(repository, codec, options.restore.clone(), Arc::clone(&metrics));
    let restorer = Restorer::new(restore, spool, tasks.clone(), stop.clone());
    Ok(Server { archiver, guard, restorer, metrics, status, clock })
}

fn guard(options: &AgentOptions, repository: &Repository) -> Option<Arc<QueueGuard>> {
    let data_dir = &options.archive.as_ref()?.data_dir;
    let (size, state_dir) = (repository.segment_size(), &options.state_dir);
    // Without a limit too: what was given up while there was one is mended.
    Some(Arc::new(QueueGuard::new(options.queue_max_bytes, size, data_dir, state_dir)))
}

/// An agent that starts during an outage waits for its end, and says so to systemd.
fn waiting(error: &StoreError) {
    let why = crate::explain::chain(error);
    tracing::warn!(error = %why, "the repository can't be used yet; trying again");
    notify(&[sd_notify::NotifyState::Status(&format!("waiting for the repository: {why}"))]);
}

fn notify(states: &[sd_notify::NotifyState<'_>]) {
    // Without systemd there is nobody to tell.
    let _ = sd_notify::notify(states);
}
