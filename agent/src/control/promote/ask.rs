//! Step 4: the promotion itself.
//!
//! Invariant: whether it happened is read from the server, never concluded. A request that the
//! server refused by an error about rights was none; every other end may have been one.

use super::archive;
use super::drive::Run;
use super::error::PromoteError;
use super::look;
use crate::database::{Database, DatabaseError, Right, value};
use crate::fs::FsError;
use std::fs::File;
use std::time::{Duration, Instant};
use wald_core::history::TimelineHistory;
use wald_core::promotion::Server;
use wald_core::timeline::TimelineId;

const POLL: Duration = Duration::from_millis(50);
/// `pg_promote` waits by itself; the statement's time-out stands behind it.
const PATIENCE: Duration = Duration::from_secs(10);
/// Files of that many bytes and more are no history.
const HISTORY_BYTES_MAX: u64 = 1 << 20;

impl Run {
    /// Asks for it unless it has happened, and waits until it has.
    pub(super) async fn promote(&mut self) -> Result<(), PromoteError> {
        if look::here(&self.options).await.server == Server::Standby {
            self.request().await?;
        } else {
            self.note("it was promoted already");
        }
        let database = self.wait_primary().await?;
        let (timeline, lsn) = look::written(&database).await?;
        let facts = &mut self.journal.facts;
        facts.timeline_after = Some(timeline);
        facts.promoted_lsn.get_or_insert(lsn);
        self.note(format!("timeline {timeline}, position {lsn}"));
        self.save()?;
        self.wait_history(&database, timeline).await
    }

    async fn request(&mut self) -> Result<(), PromoteError> {
        const ACTION: &str = "promote itself";
        if let Some(path) = &self.options.trigger_file {
            let made = File::create(path).and_then(|file| file.sync_all());
            made.map_err(|error| FsError::new("create", path, error))?;
            self.note(format!("{} was made", path.display()));
            return Ok(());
        }
        let wait = self.options.promote_timeout;
        let database = Database::connect(&self.options.connection, "promote", wait + PATIENCE).await?;
        let sql = format!("SELECT pg_catalog.pg_promote(true, {}) AS promoted", wait.as_secs().max(1));
        let right = Right::Execute("pg_promote(boolean, integer)");
        match database.query_one(ACTION, right, &sql, &[]).await {
            Ok(row) => {
                let promoted: bool = value(&row, "promoted", ACTION)?;
                self.note(format!("pg_promote returned {promoted}"));
                Ok(())
            }
            Err(error @ DatabaseError::Right { .. }) => {
                self.journal.progress.promotion_was_refused();
                self.save()?;
                Err(error.into())
            }
            // The request may have been heard all the same: whether it was is seen below.
            Err(error) => {
                self.note(format!("pg_promote ended with an error: {}", crate::explain::chain(&error)));
                Ok(())
            }
        }
    }

    async fn wait_primary(&self) -> Result<Database, PromoteError> {
        let started = Instant::now();
        loop {
            let here = look::here(&self.options).await;
            if let (Server::Primary, Some(database)) = (here.server, here.database) {
                return Ok(database);
            }
            if started.elapsed() > self.options.promote_timeout {
                return Err(PromoteError::StillInRecovery {
                    seconds: self.options.promote_timeout.as_secs(),
                });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Without its history in the repository no recovery finds the new timeline. It is written by
    /// the archiver at once; clients are not kept waiting for long if it is not.
    async fn wait_history(&mut self, database: &Database, timeline: TimelineId) -> Result<(), PromoteError> {
        const ACTION: &str = "tell whether it archives";
        let sql = "SELECT current_setting('archive_mode') <> 'off' AS archiving";
        let row = database.query_one(ACTION, Right::Login, sql, &[]).await?;
        if !value::<bool>(&row, "archiving", ACTION)? {
            self.note("archive_mode is off on this server: NOTHING is archived from now on");
            self.journal.facts.switch_lsn = self.local_switch_point(timeline);
            return Ok(());
        }
        let started = Instant::now();
        let mut problem = match archive::open(&self.options).await {
            Ok(repository) => loop {
                let why = match archive::history(&repository, timeline).await {
                    Ok(Some(history)) => {
                        self.journal.facts.switch_lsn = switch_point(&history);
                        self.note("the new timeline's history is in the repository");
                        return Ok(());
                    }
                    Ok(None) => "it is not there yet".to_owned(),
                    Err(problem) => problem,
                };
                if started.elapsed() > self.options.history_timeout {
                    break why;
                }
                tokio::time::sleep(POLL).await;
            },
            Err(problem) => problem,
        };
        problem.insert_str(0, "the new timeline's history was not seen in the repository: ");
        problem.push_str("; look at the archiver (`wald status`), the clients are not kept waiting for it");
        self.journal.facts.switch_lsn = self.local_switch_point(timeline);
        self.note(problem);
        Ok(())
    }

    /// The same from the server's own file, where this host has it.
    fn local_switch_point(&self, timeline: TimelineId) -> Option<wald_core::lsn::Lsn> {
        let data_dir = self.options.data_dir.as_ref()?;
        let path =
            data_dir.join("pg_wal").join(format!("{}", wald_core::wal_file::WalFile::History(timeline)));
        let length = std::fs::metadata(&path).ok()?.len();
        let text = (length < HISTORY_BYTES_MAX).then(|| std::fs::read(&path).ok()).flatten()?;
        switch_point(&TimelineHistory::parse(timeline, &text).ok()?)
    }
}

fn switch_point(history: &TimelineHistory) -> Option<wald_core::lsn::Lsn> {
    history.ancestors().last().map(|ancestor| ancestor.switch_point)
}
