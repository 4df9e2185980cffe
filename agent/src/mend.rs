//! After WAL was given up: the gap is recorded in the repository, and a base backup closes it.
//!
//! Invariant: the journal is emptied only after a backup that began later than the losses exists;
//! until then this is tried again, also after a restart.

use crate::archive::give_up::{GapRecord, GiveUpError, QueueGuard};
use crate::backup::{self, BackupError, BackupOptions, BackupReport, ClusterIdentity, Progress};
use crate::clock::Clock;
use crate::explain::chain;
use crate::repository::Repository;
use crate::runs::{self, Run, RunEnd, RunKind};
use jiff::Timestamp;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often the journal is looked at, and a failed attempt repeated.
const LOOK_EVERY: Duration = Duration::from_secs(15);

/// What mending needs.
pub struct Mender {
    /// Has the journal.
    pub guard: Arc<QueueGuard>,
    /// Where records and backup go.
    pub repository: Repository,
    /// How the backup is taken.
    pub backup: BackupOptions,
    /// Where the record of a backup is kept.
    pub state_dir: PathBuf,
    /// For the record.
    pub clock: Clock,
}

#[derive(Debug, thiserror::Error)]
enum MendError {
    #[error(transparent)]
    GiveUp(#[from] GiveUpError),
    #[error("the backup that closes the gap failed")]
    Backup(#[from] BackupError),
}

impl Mender {
    /// Looks at the journal now and then, until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            match self.guard.records() {
                Ok(records) if records.is_empty() => {}
                Ok(records) => match self.mend(&records, &stop).await {
                    Ok(()) => tracing::info!(files = records.len(), "the gap is closed by a new base backup"),
                    Err(error) => {
                        tracing::error!(files = records.len(), error = %chain(&error), "a gap in the archive is not closed yet");
                    }
                },
                Err(error) => tracing::error!(error = %chain(&error), "can't tell whether WAL was given up"),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    async fn mend(&self, records: &[GapRecord], stop: &CancellationToken) -> Result<(), MendError> {
        self.guard.store_records(&self.repository, records).await?;
        let cluster = ClusterIdentity {
            system_id: self.repository.system_id(),
            segment_size: self.repository.segment_size(),
        };
        let cancel = stop.child_token();
        let (store, options) = (self.repository.store(), self.backup.clone());
        let started_at = self.clock.now();
        let taken = backup::run(store, cluster, options, Progress::new(), cancel).await;
        self.record(started_at, &taken);
        let report = taken?;
        tracing::info!(backup = %report.id, "took a base backup because WAL was given up");
        Ok(self.guard.forget(records)?)
    }

    fn record(&self, started_at: Timestamp, taken: &Result<BackupReport, BackupError>) {
        let (end, summary) = match taken {
            Ok(report) if report.bad_pages.is_empty() => {
                (RunEnd::Good, format!("{}: taken because WAL was given up", report.id))
            }
            Ok(report) => (RunEnd::Findings, format!("{}: holds damaged pages", report.id)),
            Err(error) => (RunEnd::Failed, chain(error)),
        };
        let run = Run { started_at, ended_at: self.clock.now(), end, summary };
        if let Err(error) = runs::record(&self.state_dir, RunKind::Backup, run) {
            tracing::warn!(error = %chain(&error), "`wald status` will not know of this backup");
        }
    }
}
