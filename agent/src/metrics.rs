//! What the agent counts: one struct, made at start and passed along.
//!
//! Names follow Prometheus' conventions; labels are closed sets, never segment names.

mod board;
pub mod figures;
mod last_runs;
mod tries;

use crate::store::TryCounts;
use board::{Board, Posted};
use jiff::Timestamp;
use last_runs::LastRunsCollector;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tries::TriesCollector;
use wald_core::outcome::RestoreFinding;

pub use board::{Observer, Seen};

/// In seconds: from a segment of noise on a near disk to `archive.timeout`.
const ARCHIVE_BUCKETS: [f64; 12] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

const FINDINGS: [RestoreFinding; 5] = [
    RestoreFinding::Placed,
    RestoreFinding::Absent,
    RestoreFinding::Unreachable,
    RestoreFinding::Corrupt,
    RestoreFinding::Failed,
];

const fn finding_name(finding: RestoreFinding) -> &'static str {
    match finding {
        RestoreFinding::Placed => "placed",
        RestoreFinding::Absent => "absent",
        RestoreFinding::Unreachable => "unreachable",
        RestoreFinding::Corrupt => "corrupt",
        RestoreFinding::Failed => "failed",
    }
}

/// A time as Prometheus has it: seconds since 1970.
pub fn seconds(at: Timestamp) -> f64 {
    at.duration_since(Timestamp::UNIX_EPOCH).as_secs_f64()
}

/// The agent's counters.
pub struct Metrics {
    registry: Registry,
    board: Arc<Board>,
    last_archived: Gauge,
    is_failing: IntGauge,
    archived_files: IntCounter,
    archived_bytes: IntCounter,
    stored_bytes: IntCounter,
    archive_failures: IntCounter,
    given_up_files: IntCounter,
    archive_seconds: Histogram,
    answered_from_memory: IntCounter,
    restore_requests: IntCounterVec,
    restored_bytes: IntCounter,
    spool_hits: IntCounter,
    spool_waits: IntCounter,
}

impl Metrics {
    /// All counters at 0, registered.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let archive_seconds = Histogram::with_opts(
            HistogramOpts::new(
                "wald_archive_seconds",
                "Time from reading a WAL file to the repository's confirmation",
            )
            .buckets(ARCHIVE_BUCKETS.to_vec()),
        )?;
        registry.register(Box::new(archive_seconds.clone()))?;
        let restore_requests = IntCounterVec::new(
            Opts::new("wald_restore_requests_total", "Requests for WAL files by what came of them"),
            &["finding"],
        )?;
        registry.register(Box::new(restore_requests.clone()))?;
        // From the start on: a rate begins with the first sample, and the first damage must count.
        for finding in FINDINGS {
            restore_requests.with_label_values(&[finding_name(finding)]);
        }
        let last_archived = Gauge::new(
            "wald_archive_last_archived_timestamp_seconds",
            "When this agent last told PostgreSQL that a WAL file is archived",
        )?;
        registry.register(Box::new(OnceSet(last_archived.clone())))?;
        let is_failing = IntGauge::new(
            "wald_archive_failing",
            "1 if the last request to archive a file was answered \"try again\", else 0",
        )?;
        registry.register(Box::new(is_failing.clone()))?;
        let board = Arc::new(Board::new()?);
        registry.register(Box::new(Posted(Arc::clone(&board))))?;
        Ok(Self {
            board,
            last_archived,
            is_failing,
            archived_files: counter("wald_archived_files_total", "WAL files confirmed by the repository")?,
            archived_bytes: counter("wald_archived_bytes_total", "Their bytes as PostgreSQL wrote them")?,
            stored_bytes: counter("wald_archive_stored_bytes_total", "Their bytes as stored")?,
            archive_failures: counter("wald_archive_failures_total", "Requests answered \"try again\"")?,
            given_up_files: counter(
                "wald_archive_given_up_files_total",
                "WAL files acknowledged unarchived because of archive.queue_max",
            )?,
            answered_from_memory: counter(
                "wald_archive_ahead_hits_total",
                "Requests for segments that were confirmed before they were asked for",
            )?,
            restored_bytes: counter("wald_restored_bytes_total", "Bytes of WAL handed to PostgreSQL")?,
            spool_hits: counter(
                "wald_restore_prefetch_hits_total",
                "Segments that were in the spool when asked for",
            )?,
            spool_waits: counter(
                "wald_restore_prefetch_waits_total",
                "Segments that were on their way when asked for",
            )?,
            archive_seconds,
            restore_requests,
            registry,
        })
    }

    /// The same with the nightly runs whose records stand below `state_dir`.
    pub fn with_runs_below(self, state_dir: &Path) -> Result<Self, prometheus::Error> {
        self.registry.register(Box::new(LastRunsCollector::new(state_dir.to_owned())?))?;
        Ok(self)
    }

    /// The same with the repository's failed tries.
    pub fn with_tries(self, counts: TryCounts) -> Result<Self, prometheus::Error> {
        self.registry.register(Box::new(TriesCollector::new(counts)?))?;
        Ok(self)
    }

    /// An observer looked: what it saw takes the place of what it saw before.
    pub fn publish(&self, observer: Observer, seen: Seen) {
        self.board.publish(observer, seen);
    }

    /// PostgreSQL was told that a file is archived.
    pub fn acknowledged(&self, now: Timestamp) {
        self.is_failing.set(0);
        self.last_archived.set(seconds(now));
    }

    /// A file of `raw` bytes was confirmed as an object of `stored` bytes.
    pub fn archived(&self, raw: u64, stored: u64, took: Duration) {
        self.archived_files.inc();
        self.archived_bytes.inc_by(raw);
        self.stored_bytes.inc_by(stored);
        self.archive_seconds.observe(took.as_secs_f64());
    }

    /// A request was answered "try again".
    pub fn archive_failed(&self) {
        self.archive_failures.inc();
        self.is_failing.set(1);
    }

    /// A file was acknowledged unarchived.
    pub fn given_up(&self) {
        self.given_up_files.inc();
    }

    /// Files acknowledged unarchived.
    pub fn given_up_total(&self) -> u64 {
        self.given_up_files.get()
    }

    /// A request found its segment confirmed.
    pub fn answered_from_memory(&self) {
        self.answered_from_memory.inc();
    }

    /// A request for a WAL file was answered.
    pub fn restore_answered(&self, finding: RestoreFinding) {
        self.restore_requests.with_label_values(&[finding_name(finding)]).inc();
    }

    /// `bytes` of WAL were placed.
    pub fn restored(&self, bytes: u64) {
        self.restored_bytes.inc_by(bytes);
    }

    /// A segment was in the spool when PostgreSQL asked for it.
    pub fn spool_hit(&self) {
        self.spool_hits.inc();
    }

    /// A segment was being fetched when PostgreSQL asked for it.
    pub fn spool_wait(&self) {
        self.spool_waits.inc();
    }

    /// Every figure, in Prometheus' text format.
    pub fn text(&self) -> Result<String, prometheus::Error> {
        prometheus::TextEncoder::new().encode_to_string(&self.registry.gather())
    }

    /// Files archived, their raw bytes, their stored bytes, and failed requests.
    pub fn archive_totals(&self) -> (u64, u64, u64, u64) {
        let failures = self.archive_failures.get();
        (self.archived_files.get(), self.archived_bytes.get(), self.stored_bytes.get(), failures)
    }

    /// Bytes of WAL handed to PostgreSQL.
    pub fn restored_bytes_total(&self) -> u64 {
        self.restored_bytes.get()
    }

    /// Requests found in the spool, and those that waited for a fetch on its way.
    pub fn prefetch_totals(&self) -> (u64, u64) {
        (self.spool_hits.get(), self.spool_waits.get())
    }
}

/// A gauge that has no sample until it is set: 0 would read as 1970.
struct OnceSet(Gauge);

impl Collector for OnceSet {
    fn desc(&self) -> Vec<&Desc> {
        self.0.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        if self.0.get() == 0.0 { Vec::new() } else { self.0.collect() }
    }
}
