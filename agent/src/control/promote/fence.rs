//! Step 2: the old primary is made to take no writes, and that is proven; and the way back.

use super::drive::Run;
use super::error::PromoteError;
use super::options::PromoteOptions;
use super::{archive, look};
use jiff::Timestamp;
use std::time::{Duration, Instant};
use wald_core::lsn::Lsn;
use wald_core::promotion::archive_check::{self, Archive};
use wald_core::promotion::condition::Condition;
use wald_core::promotion::fence::{Answer, Evidence, Looks, quiet};
use wald_core::promotion::{Act, Mark, OldPrimary, Server};

/// How long a server may take to be gone after its fence's hook has ended.
const QUIET_WITHIN: Duration = Duration::from_secs(5);
/// How long one may take to be back after the hook that takes the fence away.
const BACK_WITHIN: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);

/// What speaks for a fence that no hook makes.
pub(super) fn evidence_without_hook(
    options: &PromoteOptions,
    last_stored_at: Option<Timestamp>,
    now: Timestamp,
) -> Evidence {
    let silence = i64::try_from(options.fence_silence.as_millis()).unwrap_or(i64::MAX);
    // An archive that never heard of this timeline proves nothing.
    let age = last_stored_at.map(|at| now.duration_since(at).as_millis());
    if age.is_some_and(|age| age >= i128::from(silence)) {
        Evidence::ArchiveSilent
    } else if options.forced.contains(&Condition::OldPrimarySilent) {
        Evidence::Forced
    } else {
        Evidence::Nothing
    }
}

impl Run {
    /// Fences, and proves it.
    pub(super) async fn fence(&mut self) -> Result<(), PromoteError> {
        let before = look::old_primary(&self.options).await;
        // The clients are held: what it has written by now is all that they were told.
        let standby = look::here(&self.options).await.server == Server::Standby;
        if before.lsn.is_some() && standby {
            self.journal.facts.primary_lsn = before.lsn;
        }
        // One that can't tell what it is, because it has no connection left, say, counts as one that writes.
        if standby && matches!(before.answer, Answer::Writable | Answer::ReadOnly | Answer::Unclear { .. }) {
            self.journal.facts.old_took_writes = true;
        }
        if before.data_directory.is_some() {
            self.journal.facts.old_data_directory = before.data_directory;
        }
        if self.journal.facts.writes_stopped_at.is_none() {
            self.journal.facts.writes_stopped_at = Some(self.clock.now());
        }
        self.save()?;
        let evidence = match self.options.fence_command.clone() {
            Some(command) => {
                match self.hook("fence_command", &command, self.options.hook_timeout).await {
                    Ok(said) => {
                        self.note(format!("fence_command succeeded {said}").trim_end().to_owned());
                        Evidence::HookSucceeded
                    }
                    // The hook knows more than wald does; only the operator may overrule it.
                    Err(error) if self.journal.forced.contains(&Condition::OldPrimarySilent) => {
                        self.note(format!("{error}; going on because that was forced"));
                        Evidence::Forced
                    }
                    Err(error) => return Err(error),
                }
            }
            None => {
                let last = self.last_stored_at().await;
                evidence_without_hook(&self.options, last, self.clock.now())
            }
        };
        self.journal.facts.evidence = Some(evidence);
        self.journal.facts.fenced = Some(self.prove(evidence).await?);
        self.save()?;
        if let Some(how) = self.journal.facts.fenced.clone() {
            self.note(how);
        }
        Ok(())
    }

    /// Waits until the old primary is proven fenced.
    async fn prove(&self, evidence: Evidence) -> Result<String, PromoteError> {
        let (started, mut looks) = (Instant::now(), Looks::default());
        loop {
            let answer = look::old_primary(&self.options).await.answer;
            match looks.proven(&answer, evidence) {
                Ok(Some(how)) => return Ok(how.to_owned()),
                Ok(None) => tokio::time::sleep(POLL).await,
                // Only a server that is on its way down is worth waiting for.
                Err(why) if evidence != Evidence::HookSucceeded || started.elapsed() > QUIET_WITHIN => {
                    return Err(PromoteError::NotFenced(why));
                }
                Err(_) => tokio::time::sleep(POLL).await,
            }
        }
    }

    async fn last_stored_at(&mut self) -> Option<Timestamp> {
        let timeline = self.journal.facts.timeline_before?;
        let listed = match archive::open(&self.options).await {
            Ok(repository) => archive::list(&repository).await,
            Err(problem) => Err(problem),
        };
        match listed {
            Ok(inventory) => {
                let archive = Archive {
                    coverage: &inventory.coverage,
                    histories: &inventory.histories,
                    catalog: &inventory.catalog,
                };
                archive_check::look(archive, timeline, Lsn::MIN).last_stored_at
            }
            Err(problem) => {
                self.note(format!("the repository can't be asked: {problem}"));
                None
            }
        }
    }

    /// How the old primary counts right now.
    pub(super) async fn look_at_old(&self) -> OldPrimary {
        let evidence = self.journal.facts.evidence.unwrap_or(Evidence::Nothing);
        match look::old_primary(&self.options).await.answer {
            // The old primary's address has followed the role; that it is fenced was proven before.
            Answer::Itself if self.journal.progress.mark(Act::Promote) == Mark::Done => OldPrimary::Quiet,
            answer => quiet(&answer, evidence),
        }
    }

    /// Takes the fence away, and looks whether the old primary takes writes again.
    pub(super) async fn unfence(&mut self) -> Result<(), PromoteError> {
        self.take_fence_away().await?;
        // What the report says of a fence is what stands.
        (self.journal.facts.fenced, self.journal.facts.evidence) = (None, None);
        Ok(())
    }

    async fn take_fence_away(&mut self) -> Result<(), PromoteError> {
        let answer = look::old_primary(&self.options).await.answer;
        if answer == Answer::Writable {
            self.note("the old primary takes writes");
            return Ok(());
        }
        if !self.journal.facts.old_took_writes {
            self.note("the old primary took no writes before either: there is nothing to take back");
            return Ok(());
        }
        let Some(command) = self.options.unfence_command.clone() else {
            return Err(PromoteError::NotTakenBack(format!(
                "the old primary at {} does not take writes, and there is no unfence_command: start it, and then \
                 `wald promote --abort` lets the clients go on; or have `wald promote` begin anew",
                self.options.old
            )));
        };
        let said = self.hook("unfence_command", &command, self.options.hook_timeout).await?;
        self.note(format!("unfence_command succeeded {said}").trim_end().to_owned());
        let started = Instant::now();
        loop {
            let answer = look::old_primary(&self.options).await.answer;
            if answer == Answer::Writable {
                self.note("the old primary takes writes again");
                return Ok(());
            }
            if started.elapsed() > BACK_WITHIN {
                return Err(PromoteError::NotTakenBack(format!(
                    "unfence_command succeeded, and the old primary at {} still takes no writes: start it, and \
                     then `wald promote --abort` lets the clients go on",
                    self.options.old
                )));
            }
            tokio::time::sleep(POLL).await;
        }
    }
}
