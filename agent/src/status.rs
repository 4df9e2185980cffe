//! How things are: what the agent says of itself, and what the repository says.
//!
//! Invariant: nothing here is guessed. What could not be asked is said to be unknown.

use crate::archive::admit::Backlog;
use crate::metrics::Metrics;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use wald_core::wal_file::WalFile;

/// What a running agent answers to `wald status`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AgentStatus {
    /// The agent's version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// When it started.
    pub started_at: Timestamp,
    /// The last file whose archiving was acknowledged to PostgreSQL by this process.
    pub last_archived: Option<String>,
    /// When that was.
    pub last_archived_at: Option<Timestamp>,
    /// The last failure, if nothing was archived since.
    pub last_failure: Option<String>,
    /// When that was.
    pub last_failure_at: Option<Timestamp>,
    /// Files that wait in `pg_wal`, if that could be counted.
    pub backlog_files: Option<u64>,
    /// The first of them.
    pub backlog_oldest: Option<String>,
    /// Segments in flight or confirmed ahead of PostgreSQL.
    pub ahead_segments: usize,
    /// Files, raw bytes, stored bytes and failures since the start.
    pub archived_files: u64,
    /// Bytes as PostgreSQL wrote them.
    pub archived_bytes: u64,
    /// Bytes as stored.
    pub stored_bytes: u64,
    /// Requests that were answered "try again".
    pub archive_failures: u64,
    /// Files acknowledged unarchived since the start, because of `archive.queue_max`.
    pub given_up_files: u64,
    /// Requests for WAL that were in the spool.
    pub prefetch_hits: u64,
    /// Requests for WAL that waited for a fetch on its way.
    pub prefetch_waits: u64,
}

impl AgentStatus {
    /// An agent that has just started.
    pub fn new(started_at: Timestamp) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started_at,
            last_archived: None,
            last_archived_at: None,
            last_failure: None,
            last_failure_at: None,
            backlog_files: None,
            backlog_oldest: None,
            ahead_segments: 0,
            archived_files: 0,
            archived_bytes: 0,
            stored_bytes: 0,
            archive_failures: 0,
            given_up_files: 0,
            prefetch_hits: 0,
            prefetch_waits: 0,
        }
    }

    /// PostgreSQL was told that `file` is archived.
    pub fn archived(&mut self, file: WalFile, now: Timestamp) {
        self.last_archived = Some(file.to_string());
        self.last_archived_at = Some(now);
        self.last_failure = None;
        self.last_failure_at = None;
    }

    /// PostgreSQL was told to try again.
    pub fn archive_failed(&mut self, message: &str, now: Timestamp) {
        self.last_failure = Some(message.to_owned());
        self.last_failure_at = Some(now);
    }

    /// The same with the figures of this moment. `on_record`: files that were given up, before this agent
    /// started perhaps, and that no backup has made good yet.
    pub fn with_figures(
        mut self,
        metrics: &Metrics,
        backlog: Option<Backlog>,
        ahead: usize,
        on_record: u64,
    ) -> Self {
        self.backlog_files = backlog.map(|backlog| backlog.files);
        self.backlog_oldest = backlog.and_then(|backlog| backlog.oldest).map(|file| file.to_string());
        self.ahead_segments = ahead;
        (self.archived_files, self.archived_bytes, self.stored_bytes, self.archive_failures) =
            metrics.archive_totals();
        self.given_up_files = metrics.given_up_total().max(on_record);
        (self.prefetch_hits, self.prefetch_waits) = metrics.prefetch_totals();
        self
    }
}
