//! The agent's Unix socket: who may speak, one request each, the verdict back.
//!
//! Invariants: only root, the agent's own user and the configured users get an answer
//! (SO_PEERCRED); a garbage, oversized, slow or half-closed request ends its connection and
//! nothing else; connections are bounded; the reply "done" to an archive request is made from
//! a [`Durable`](crate::archive::confirm::Durable), or, where `archive.queue_max` is set, from a
//! recorded loss, and from nothing else.

mod socket;

use crate::archive::give_up::QueueGuard;
use crate::archive::look_ahead::Archiver;
use crate::clock::Clock;
use crate::explain::chain;
use crate::metrics::Metrics;
use crate::restore::look_ahead::Restorer;
use crate::restore::resolve::{asker_of, resolve};
use crate::status::AgentStatus;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wald_core::outcome::{ArchiveOutcome, RestoreFinding, restore_outcome};
use wald_core::protocol::{ProtocolError, RECEIPT, REQUEST_HEADER_BYTES, Reply, Request, RequestHeader};
use wald_core::wal_file::WalFile;

pub use socket::{Listener, SocketError, SocketLock};

/// Connections served at once; PostgreSQL's archiver and recovery need one each.
const CONNECTIONS_MAX: usize = 64;
/// How long a client may take to send its request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a client may take to read its reply.
const REPLY_TIMEOUT: Duration = Duration::from_secs(5);

/// What answers requests.
pub struct Server {
    /// Absent where the configuration names no data directory.
    pub archiver: Option<Archiver>,
    /// Gives WAL up where `archive.queue_max` says so.
    pub guard: Option<Arc<QueueGuard>>,
    /// Serves WAL.
    pub restorer: Restorer,
    /// Counts what is answered.
    pub metrics: Arc<Metrics>,
    /// What `wald status` is told; the server keeps it up to date.
    pub status: Arc<Mutex<AgentStatus>>,
    /// Where the time comes from.
    pub clock: Clock,
}

/// Serves until `stop`, then returns; connections under way go on in `tasks`.
pub async fn serve(listener: Listener, server: Arc<Server>, stop: CancellationToken, tasks: TaskTracker) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepting = async {
            let permit = Arc::clone(&room).acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            () = stop.cancelled() => return,
            accepting = accepting => accepting,
        };
        let Ok(permit) = permit else { return };
        match accepted {
            Ok(Some(stream)) => {
                let server = Arc::clone(&server);
                tasks.spawn(async move {
                    let _permit = permit;
                    if let Err(error) = server.connection(stream).await {
                        tracing::warn!(error = %error, "a connection ended without an answer");
                    }
                });
            }
            Ok(None) => {}
            Err(error) => {
                // Out of file descriptors, most likely: it passes when connections end.
                tracing::error!(error = %chain(&error), "can't accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Why a connection got no answer.
#[derive(Debug, thiserror::Error)]
enum ConnectionError {
    #[error("the request took longer than {} s", REQUEST_TIMEOUT.as_secs())]
    Slow,
    #[error("the connection broke: {0}")]
    Broken(#[from] std::io::Error),
    #[error("the client went away before its request was answered")]
    Gone,
    #[error("refused a request: {0}")]
    Protocol(#[from] ProtocolError),
}

impl Server {
    async fn connection(&self, mut stream: UnixStream) -> Result<(), ConnectionError> {
        let request = tokio::time::timeout(REQUEST_TIMEOUT, read_request(&mut stream));
        // What can't be understood gets no reply at all: no exit code is right for every request,
        // and a shim without an answer does the work itself.
        let request = request.await.map_err(|_| ConnectionError::Slow)???;
        tokio::time::timeout(REPLY_TIMEOUT, stream.write_all(&RECEIPT))
            .await
            .map_err(|_| ConnectionError::Slow)??;
        let reply = tokio::select! {
            reply = self.answer(request) => reply,
            // A client that ends or is killed wants nothing any more. What was being restored for
            // it must not appear later, under PostgreSQL's next request.
            _ = stream.read_u8() => return Err(ConnectionError::Gone),
        };
        tokio::time::timeout(REPLY_TIMEOUT, stream.write_all(&reply.encode()))
            .await
            .map_err(|_| ConnectionError::Slow)??;
        Ok(())
    }

    async fn answer(&self, request: Request) -> Reply {
        match request {
            Request::Archive { path } => self.archive(&path).await,
            Request::Restore { name, destination } => self.restore(&name, &destination).await,
            Request::Status => self.status(),
        }
    }

    async fn archive(&self, path: &Path) -> Reply {
        let try_again = |message| Reply { exit_code: ArchiveOutcome::TryAgain.exit_code(), message };
        let Some(archiver) = &self.archiver else {
            return try_again("this agent archives nothing: cluster.data_dir is not set".to_owned());
        };
        // What is given up already is not tried again: it would take a time-out each.
        if let Some(reply) = self.give_up(archiver, path, |guard, file| guard.gives_up(file)) {
            return reply;
        }
        match archiver.archive(path).await {
            Ok(durable) => {
                let file = durable.file();
                self.metrics.acknowledged(self.clock.now());
                self.update(|status, now| status.archived(file, now));
                tracing::info!(%file, blake3 = %durable.raw_blake3(), stored_bytes = durable.stored_bytes(), "archived");
                durable.into()
            }
            Err(error) => {
                let message = chain(error.as_ref());
                self.metrics.archive_failed();
                self.update(|status, now| status.archive_failed(&message, now));
                tracing::error!(path = %path.display(), error = %message, "not archived");
                let too_much = |guard: &QueueGuard, file| guard.look(file).unwrap_or(false);
                self.give_up(archiver, path, too_much).unwrap_or_else(|| try_again(message))
            }
        }
    }

    /// The reply for a file that is given up; `None` where none is, which is the rule.
    fn give_up(
        &self,
        archiver: &Archiver,
        path: &Path,
        is_due: impl FnOnce(&QueueGuard, WalFile) -> bool,
    ) -> Option<Reply> {
        let guard = self.guard.as_ref()?;
        let file = archiver.admits(path).filter(|file| is_due(guard, *file))?;
        match guard.give_up(file, self.clock.now()) {
            Ok(given_up) => {
                self.metrics.given_up();
                let reply = Reply::from(given_up);
                tracing::error!(%file, "{}", reply.message);
                Some(reply)
            }
            Err(error) => {
                tracing::error!(%file, error = %chain(&error), "can't record that WAL is given up, so it is not");
                None
            }
        }
    }

    async fn restore(&self, name: &str, destination: &Path) -> Reply {
        let outcome = match resolve(name, destination) {
            Ok(resolved) => self.restorer.restore(&resolved).await,
            Err(error) => Err(error.into()),
        };
        let finding = outcome.as_ref().map_or_else(|error| error.finding(), |()| RestoreFinding::Placed);
        self.metrics.restore_answered(finding);
        let exit_code = restore_outcome(asker_of(destination), finding).exit_code();
        let message = match &outcome {
            Ok(()) => String::new(),
            Err(error) => chain(error),
        };
        match finding {
            RestoreFinding::Placed => tracing::info!(file = name, "restored"),
            RestoreFinding::Absent => tracing::info!(file = name, "not in the repository"),
            RestoreFinding::Unreachable | RestoreFinding::Corrupt | RestoreFinding::Failed => {
                tracing::error!(file = name, exit_code, error = %message, "not restored");
            }
        }
        Reply { exit_code, message }
    }

    fn status(&self) -> Reply {
        let backlog = self.archiver.as_ref().and_then(|archiver| archiver.backlog().ok());
        let held = self.archiver.as_ref().map_or(0, Archiver::held);
        let status = self.status.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let on_record = self.guard.as_ref().map_or(0, |guard| guard.count_on_record());
        match serde_json::to_string(&status.with_figures(&self.metrics, backlog, held, on_record)) {
            Ok(message) => Reply { exit_code: 0, message },
            Err(error) => Reply { exit_code: 1, message: error.to_string() },
        }
    }

    fn update(&self, change: impl FnOnce(&mut AgentStatus, jiff::Timestamp)) {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut status, self.clock.now());
    }
}

async fn read_request(stream: &mut UnixStream) -> std::io::Result<Result<Request, ProtocolError>> {
    let mut header = [0; REQUEST_HEADER_BYTES];
    stream.read_exact(&mut header).await?;
    let header = match RequestHeader::decode(&header) {
        Ok(header) => header,
        Err(error) => return Ok(Err(error)),
    };
    let mut payload = vec![0; header.payload_bytes()];
    stream.read_exact(&mut payload).await?;
    Ok(Request::decode(header, &payload))
}
