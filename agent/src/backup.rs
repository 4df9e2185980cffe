//! Takes a base backup: from a running server, file by file, into the repository (DESIGN 6).
//!
//! `connect → claim a name → pg_backup_start → scan → layout → (read → part → upload) in
//! parallel → pg_control → pg_backup_stop → last part → manifest, file list, WAL is there → catalog entry`
//!
//! Invariants: the catalog entry is written last, so a backup that was interrupted anywhere
//! does not exist; the server leaves backup mode whenever [`run`] ends or is dropped, because
//! the session ends with it; nothing in the data directory is ever written.
//!
//! Objects of a backup that failed stay behind without an entry; `expire` removes them.

pub mod options;
pub mod progress;

mod check;
mod chunks;
mod claim;
mod commit;
mod control;
mod error;
mod frames;
mod layout;
mod part;
mod page_cache;
mod read;
mod report;
mod scan;
mod session;
mod tar_entry;
mod wal_wait;
mod workers;

pub use error::BackupError;
pub use options::{BackupOptions, CheckpointMode, ClusterIdentity};
pub use progress::{Phase, Progress};
pub use report::BackupReport;

use crate::rate::RateLimit;
use crate::store::Store;
use check::{check_cluster, check_stop};
use claim::claim_name;
use commit::BAD_PAGES_MAX;
use control::{ControlCopy, ControlError, read_control};
use futures::StreamExt;
use jiff::Timestamp;
use layout::{PartPlan, layout};
use part::{FinishedPart, GivenFile};
use read::ReadContext;
use scan::Scan;
use session::{Session, StopAnswer};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use wal_wait::{WalSpan, wait_for_wal};
use wald_core::backup_id::BackupId;
use wald_core::backup_label::{BackupLabel, TablespaceMap};
use wald_core::catalog::{CatalogEntry, CatalogFacts, Tablespace};
use wald_core::control_file::ControlFile;
use wald_core::lsn::Lsn;
use wald_core::manifest::WalRange;
use wald_core::page_check::{PageChecksums, PageRules};
use wald_core::relative_path::RelativePath;
use wald_core::timeline::TimelineId;
use workers::Workers;

/// What `pg_basebackup` gives the files that it makes itself.
const GIVEN_FILE_MODE: u32 = 0o600;

/// Takes one backup. Cancelling `cancel` ends it in order; dropping the future ends it too,
/// and leaves the rest of the cleaning up to tasks that the runtime may no longer run.
pub async fn run(
    store: &Store,
    cluster: ClusterIdentity,
    options: BackupOptions,
    progress: Arc<Progress>,
    cancel: CancellationToken,
) -> Result<BackupReport, BackupError> {
    // Cancelled with its parent, by a failure of any part, and when this future is dropped.
    let stop = cancel.child_token();
    let _stop_threads = stop.clone().drop_guard();
    Taking { store, cluster, options, progress, stop }.run().await
}

/// A backup under way.
struct Taking<'s> {
    store: &'s Store,
    cluster: ClusterIdentity,
    options: BackupOptions,
    progress: Arc<Progress>,
    stop: CancellationToken,
}

/// What is known once the server is in backup mode.
struct Begun {
    id: BackupId,
    label: String,
    start_lsn: Lsn,
    started_at: Timestamp,
    control: ControlFile,
    server: session::ServerFacts,
}

/// What is known once it has left it.
struct Ended {
    answer: StopAnswer,
    timeline: TimelineId,
    tablespaces: Vec<Tablespace>,
}

impl Taking<'_> {
    async fn run(self) -> Result<BackupReport, BackupError> {
        let clock = Instant::now();
        self.progress.enter(Phase::Checking);
        let session = self.unless_stopped(Session::connect(&self.options.connection)).await??;
        let begun = self.begin(&session).await?;

        self.progress.enter(Phase::Scanning);
        let scan = self.scan(&begun).await?;
        let linked = scan.tablespaces.clone();
        let plan = layout(scan, self.options.part_bytes.max(1), self.options.workers.get());

        self.progress.enter(Phase::Copying);
        let level = self.options.compression_level;
        let workers = Workers::start(self.options.workers, level, self.read_context(&begun))?;
        let mut parts = self.copy(&workers, &begun.id, plan.parts, &session).await?;

        self.progress.enter(Phase::Stopping);
        // After every other file, and still in backup mode.
        let control = self.control().await?;
        let answer = self.unless_stopped(session.stop()).await??;
        let ended = check_stop(&begun, &control.control, answer, linked)?;
        let given = given_files(&ended.answer, control)?;
        let last = PartPlan { name: plan.last_part, ..PartPlan::default() };
        parts.push(self.unless_stopped(workers.store(self.store, &begun.id, last, given)).await??);
        drop(workers);

        self.progress.enter(Phase::WaitingForWal);
        // The lists say nothing of the WAL's arrival: only the entry must come after it.
        let both =
            async { tokio::try_join!(self.wait_for_wal(&begun, &ended), self.record(&begun, &ended, parts)) };
        let ((wal_segments, waited_for_wal), entry) = self.unless_stopped(both).await??;

        self.progress.enter(Phase::Committing);
        // Not to be cancelled: who gives up here could not tell whether the backup exists.
        commit::store_catalog(self.store, &entry).await?;
        Ok(BackupReport::new(entry.facts(), wal_segments, clock.elapsed(), waited_for_wal))
    }

    /// Waits until all WAL is there; returns the number of segments, and how long it took.
    async fn wait_for_wal(&self, begun: &Begun, ended: &Ended) -> Result<(usize, Duration), BackupError> {
        let waiting = Instant::now();
        let span = WalSpan {
            timeline: ended.timeline,
            start: begun.start_lsn,
            stop: ended.answer.stop_lsn,
            segment_size: self.cluster.segment_size,
            system_id: self.cluster.system_id,
            from_standby: begun.server.in_recovery,
        };
        let wal = wait_for_wal(self.store, &span, &self.options.data_dir, self.options.wal_timeout);
        Ok((wal.await?, waiting.elapsed()))
    }

    /// Awaits `work`, or ends early when the backup is given up.
    async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Result<T, BackupError> {
        tokio::select! {
            done = work => Ok(done),
            () = self.stop.cancelled() => Err(BackupError::Cancelled),
        }
    }

    /// Checks everything that can be checked beforehand and enters backup mode.
    async fn begin(&self, session: &Session) -> Result<Begun, BackupError> {
        let server = session.server().clone();
        let control = self.control().await?.control;
        check_cluster(&self.cluster, &server, &control, &self.options.data_dir)?;
        let (id, started_at) = self.unless_stopped(claim_name(self.store, || session.clock())).await??;

        self.progress.enter(Phase::Starting);
        let label = format!("wald {id}");
        let start = session.start(&label, self.options.checkpoint);
        let start_lsn = self.unless_stopped(start).await??;
        // The checkpoint has just been written there; a copy of the directory has not seen it.
        let control = self.control().await?.control;
        if control.redo() < start_lsn {
            let (data_dir, redo) = (self.options.data_dir.clone(), control.redo());
            return Err(BackupError::OtherDirectory { data_dir, redo, start_lsn });
        }
        Ok(Begun { id, label, start_lsn, started_at, control, server })
    }

    async fn control(&self) -> Result<ControlCopy, BackupError> {
        let data_dir = self.options.data_dir.clone();
        let read = tokio::task::spawn_blocking(move || read_control(&data_dir));
        let read: Result<ControlCopy, ControlError> = read.await.map_err(|_| BackupError::Thread)?;
        Ok(read?)
    }

    async fn scan(&self, begun: &Begun) -> Result<Scan, BackupError> {
        let data_dir = self.options.data_dir.clone();
        // `TABLESPACE_VERSION_DIRECTORY` of PostgreSQL's common/relpath.h.
        let major = begun.server.version_num / 10_000;
        let version_directory = format!("PG_{major}_{}", begun.control.catalog_version());
        let scan = tokio::task::spawn_blocking(move || scan::scan(&data_dir, &version_directory));
        let scan = self.unless_stopped(scan).await?.map_err(|_| BackupError::Thread)??;
        let bytes = scan.files.iter().fold(0u64, |sum, file| sum.saturating_add(file.size));
        self.progress.expect(u64::try_from(scan.files.len()).unwrap_or(u64::MAX), bytes);
        Ok(scan)
    }

    fn read_context(&self, begun: &Begun) -> ReadContext {
        let page_rules = (begun.control.data_checksum_version() != 0).then(|| PageRules {
            start: begun.start_lsn,
            // Where the backup ends is known when all is read.
            stop: None,
            blocks_per_segment: begun.control.blocks_per_segment(),
            checksums: PageChecksums::On,
        });
        let rate = Arc::new(RateLimit::new(self.options.rate_max_bytes));
        ReadContext { page_rules, rate, progress: self.progress.clone(), cancel: self.stop.clone() }
    }

    /// Stores all parts. After the first failure the others are stopped and awaited, so that
    /// their uploads are aborted before this returns.
    async fn copy(
        &self,
        workers: &Workers,
        id: &BackupId,
        plans: Vec<PartPlan>,
        session: &Session,
    ) -> Result<Vec<FinishedPart>, BackupError> {
        let mut order: Vec<String> = plans.iter().map(|plan| plan.name.clone()).collect();
        order.sort_by_key(|name| (!name.starts_with("base-"), name.clone()));
        let mut running = futures::stream::iter(plans)
            .map(|plan| workers.store(self.store, id, plan, Vec::new()))
            .buffer_unordered(workers.parts_at_once());
        let lost = session.lost();
        let mut finished = Vec::new();
        let mut failed = None;
        loop {
            let next = tokio::select! {
                next = running.next() => next,
                () = lost.cancelled(), if failed.is_none() => {
                    failed = Some(BackupError::SessionLost);
                    self.stop.cancel();
                    continue;
                }
            };
            match next {
                None => break,
                Some(Ok(part)) => finished.push(part),
                Some(Err(error)) => {
                    // The first failure is the cause; those that follow are its consequence.
                    let given_up = matches!(error, workers::WorkerError::GivenUp);
                    let error = if given_up { BackupError::Cancelled } else { error.into() };
                    failed.get_or_insert(error);
                    self.stop.cancel();
                }
            }
        }
        match failed {
            Some(error) => Err(error),
            None => {
                finished.sort_by_key(|done| order.iter().position(|name| *name == done.part.name));
                Ok(finished)
            }
        }
    }

    /// Stores manifest and list, and makes the entry that speaks of them.
    async fn record(
        &self,
        begun: &Begun,
        ended: &Ended,
        parts: Vec<FinishedPart>,
    ) -> Result<CatalogEntry, BackupError> {
        let stop_lsn = ended.answer.stop_lsn;
        let wal = WalRange { timeline: ended.timeline, start: begun.start_lsn, end: stop_lsn };
        let manifest = commit::store_manifest(self.store, &begun.id, &parts, wal).await?;
        let file_list = commit::store_file_list(self.store, &begun.id, &parts).await?;
        let mut bad_pages = commit::bad_pages(&parts, stop_lsn);
        if bad_pages.len() > BAD_PAGES_MAX {
            tracing::error!("{} damaged pages; the catalog names the first {BAD_PAGES_MAX}", bad_pages.len());
            bad_pages.truncate(BAD_PAGES_MAX);
        }
        let entry = CatalogEntry::new(CatalogFacts {
            id: begun.id.clone(),
            system_id: self.cluster.system_id,
            segment_size: self.cluster.segment_size,
            pg_version_num: begun.server.version_num,
            data_checksums: begun.control.data_checksum_version() != 0,
            timeline: ended.timeline,
            start_lsn: begun.start_lsn,
            stop_lsn,
            started_at: begun.started_at,
            stopped_at: ended.answer.stopped_at,
            from_standby: begun.server.in_recovery,
            label: begun.label.clone(),
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            tablespaces: ended.tablespaces.clone(),
            parts: parts.into_iter().map(|done| done.part).collect(),
            manifest,
            file_list,
            bad_pages,
        })
        .map_err(commit::CommitError::from)?;
        Ok(entry)
    }
}

/// The content of the last part: what PostgreSQL gave at the end, then `pg_control`.
fn given_files(answer: &StopAnswer, control: ControlCopy) -> Result<Vec<GivenFile>, BackupError> {
    let modified_second = answer.stopped_at.as_second();
    let given = |path: &str, content: &str| {
        let content = content.as_bytes().to_vec();
        let path = RelativePath::new(path)?;
        Ok::<_, BackupError>(GivenFile { path, content, mode: GIVEN_FILE_MODE, modified_second })
    };
    let mut files = vec![given(BackupLabel::FILE, &answer.label)?];
    if !answer.tablespace_map.is_empty() {
        files.push(given(TablespaceMap::FILE, &answer.tablespace_map)?);
    }
    files.push(GivenFile {
        path: RelativePath::new(ControlFile::PATH)?,
        content: control.bytes,
        mode: control.mode,
        modified_second: control.modified_second,
    });
    Ok(files)
}
