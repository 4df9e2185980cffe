//! Between fence and promotion: everything that the old primary wrote must be here and replayed.
//!
//! A primary that is stopped in order sends all of its WAL, up to its last checkpoint, before its
//! sender ends (`WalSndDone` in PostgreSQL's `walsender.c`); so the receiver's end tells that
//! nothing more will come. What was archived and not streamed is fetched by this server's own
//! `restore_command`.

use super::archive;
use super::drive::Run;
use super::error::PromoteError;
use super::look::{self, Positions};
use crate::database::Database;
use crate::repository::Repository;
use std::time::{Duration, Instant};
use wald_core::promotion::condition::Condition;

const POLL: Duration = Duration::from_millis(50);
/// How long the receiver of a primary that is gone may take to notice; behind a network that is
/// cut it notices after `wal_receiver_timeout` only.
const RECEIVER_END_WITHIN: Duration = Duration::from_secs(3);

impl Run {
    /// Waits, for `catch_up_timeout` at most.
    pub(super) async fn catch_up(&mut self, database: &Database) -> Result<(), PromoteError> {
        let repository = match archive::open(&self.options).await {
            Ok(repository) => Some(repository),
            Err(problem) => {
                self.note(format!("the repository can't be asked: {problem}"));
                None
            }
        };
        let started = Instant::now();
        let missing = loop {
            let now = look::positions(database).await?;
            let Some(lack) = self.lacks(&now, repository.as_ref(), started).await else {
                return self.caught_up(database).await;
            };
            if started.elapsed() > self.options.catch_up_timeout {
                break lack;
            }
            tokio::time::sleep(POLL).await;
        };
        let seconds = self.options.catch_up_timeout.as_secs_f32();
        let detail = format!("not everything is here and replayed after {seconds} s: {missing}");
        if self.journal.forced.contains(&Condition::CaughtUp) {
            self.note(format!("{detail}; going on because that was forced"));
            return self.caught_up(database).await;
        }
        Err(PromoteError::Condition { condition: Condition::CaughtUp, detail })
    }

    /// What is still to come, in words.
    async fn lacks(
        &self,
        now: &Positions,
        repository: Option<&Repository>,
        started: Instant,
    ) -> Option<String> {
        let Some(replayed) = now.replayed else { return Some("nothing is replayed".to_owned()) };
        if now.receiving && started.elapsed() < RECEIVER_END_WITHIN {
            return Some("the receiver has not ended".to_owned());
        }
        if let Some(written) = self.journal.facts.primary_lsn.filter(|lsn| *lsn > replayed) {
            let received = now.received.unwrap_or(replayed);
            return Some(format!(
                "the old primary had written up to {written}, received is {received}, replayed {replayed}"
            ));
        }
        if let Some(received) = now.received.filter(|lsn| *lsn > replayed) {
            return Some(format!("received is {received}, replayed {replayed}"));
        }
        let timeline = self.journal.facts.timeline_before?;
        // A whole segment in the archive, of which only a part is replayed here, holds more.
        match archive::holds_segment_of(repository?, timeline, replayed).await {
            Ok(true) => Some(format!("the archive holds the whole segment of which {replayed} is replayed")),
            Ok(false) | Err(_) => None,
        }
    }

    async fn caught_up(&mut self, database: &Database) -> Result<(), PromoteError> {
        let now = look::positions(database).await?;
        let facts = &mut self.journal.facts;
        (facts.received_lsn, facts.replayed_lsn) = (now.received, now.replayed);
        let show = |lsn: Option<wald_core::lsn::Lsn>| {
            lsn.map_or_else(|| "nothing".to_owned(), |lsn| lsn.to_string())
        };
        let text = format!("received {}, replayed {}", show(now.received), show(now.replayed));
        self.note(text);
        self.save()?;
        Ok(())
    }
}
