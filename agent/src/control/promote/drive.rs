//! One run of the command: lock, look, decide, do, record; again until the end.

use super::error::PromoteError;
use super::hook::{self, Hook};
use super::journal::{self, Facts, Journal, JournalEnd, RunLock, StepRecord};
use super::look;
use super::options::PromoteOptions;
use super::preconditions::{Checked, check};
use super::report::Report;
use crate::clock::Clock;
use crate::control::audit::{AuditLog, Stage};
use crate::control::state_file::StateFile;
use crate::explain::chain;
use crate::fs::FsError;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use wald_core::promotion::{Act, Course, Mark, Next, Seen, Server, may_turn_back, next};

const COMMAND: &str = "wald promote";

/// For drills: `<step>:begun` or `<step>:acted`, as in `fence:acted`. The run kills itself there
/// with SIGKILL, after the step is in the journal and before its first effect, or after its last
/// effect and before that is in the journal.
const KILL_AT: &str = "WALD_PROMOTE_KILL_AT";

/// How a run ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// This server is the primary.
    Promoted,
    /// All is as it was.
    RolledBack,
    /// Neither: `--resume` goes on.
    Unfinished,
}

/// A run that ended.
#[derive(Debug)]
pub struct Ended {
    /// How.
    pub end: End,
    /// What went wrong first, if something did.
    pub cause: Option<PromoteError>,
    /// What was done.
    pub report: Report,
}

/// A run.
#[derive(Debug)]
pub struct Run {
    pub(super) options: PromoteOptions,
    pub(super) clock: Clock,
    pub(super) journal: Journal,
    file: StateFile,
    audit: AuditLog,
    /// Whether the preconditions were found met in this run.
    checked: bool,
    interrupted: Arc<AtomicBool>,
    _lock: RunLock,
}

/// Ends this process like a power cut, where a drill asked for it.
fn kill_here(act: Act, moment: &str) {
    if std::env::var(KILL_AT).is_ok_and(|at| at == format!("{act}:{moment}")) {
        // That it fails would only mean that the drill goes on.
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

fn open(options: PromoteOptions, clock: Clock, lock: RunLock, journal: Journal) -> Run {
    let file = journal::file(&options.state_dir);
    let audit = AuditLog::below(&options.state_dir, clock);
    let interrupted = Arc::new(AtomicBool::new(false));
    Run { options, clock, journal, file, audit, checked: false, interrupted, _lock: lock }
}

/// Begins a promotion whose conditions were looked at and agreed to. Refused while another one is
/// open and leads forward. One that is being taken back, and could not be to its end, may be begun
/// anew instead: all of it is done and proven again.
pub async fn begin(options: PromoteOptions, clock: Clock, checked: Checked) -> Result<Run, PromoteError> {
    let lock = journal::lock(&options.state_dir)?;
    refuse_open(&options)?;
    let before = journal::file(&options.state_dir).read::<Journal>()?.filter(|found| found.ended.is_none());
    let mut journal = Journal::new(clock.now(), options.forced.clone(), checked.findings, checked.facts);
    if let Some(before) = before {
        let mut run = open(options, clock, lock, before);
        run.wait_for_hook().await?;
        may_turn_back(&run.journal.progress, &run.look().await)?;
        // What a step found in the way that it made itself is not what was there before.
        let Facts {
            in_maintenance_before,
            old_took_writes,
            writes_stopped_at,
            files_before,
            primary_lsn,
            ..
        } = run.journal.facts;
        journal.facts.in_maintenance_before = in_maintenance_before;
        journal.facts.old_took_writes = old_took_writes;
        journal.facts.writes_stopped_at = writes_stopped_at;
        journal.facts.files_before = files_before;
        journal.facts.primary_lsn = primary_lsn;
        journal.progress = run.journal.progress.anew();
        run.journal = journal;
        run.checked = true;
        run.save()?;
        return Ok(run);
    }
    let mut run = open(options, clock, lock, journal);
    run.checked = true;
    run.save()?;
    Ok(run)
}

/// Whether a promotion is open that leads forward: a new one is refused before anything is asked
/// or looked at.
pub fn refuse_open(options: &PromoteOptions) -> Result<(), PromoteError> {
    match journal::file(&options.state_dir).read::<Journal>()? {
        Some(journal) if journal.ended.is_none() && journal.progress.course() == Course::Forward => {
            Err(PromoteError::Unfinished { id: journal.id })
        }
        _ => Ok(()),
    }
}

/// Takes up the promotion that is open. Waits for a hook that outlived its run.
pub async fn reopen(options: PromoteOptions, clock: Clock) -> Result<Run, PromoteError> {
    let lock = journal::lock(&options.state_dir)?;
    let found = journal::file(&options.state_dir).read::<Journal>()?;
    let mut journal = found.filter(|journal| journal.ended.is_none()).ok_or(PromoteError::NothingOpen)?;
    for condition in &options.forced {
        if !journal.forced.contains(condition) {
            journal.forced.push(*condition);
        }
    }
    let mut options = options;
    options.forced.clone_from(&journal.forced);
    let mut run = open(options, clock, lock, journal);
    run.wait_for_hook().await?;
    Ok(run)
}

impl Run {
    /// Set this to have the run turn back, as long as it can.
    pub fn interrupted(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.interrupted)
    }

    /// Which way it leads.
    pub fn course(&self) -> Course {
        self.journal.progress.course()
    }

    pub(super) fn save(&self) -> Result<(), FsError> {
        self.file.replace(&self.journal)
    }

    pub(super) fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        self.say(&format!("  {note}"));
        self.journal.note(note);
    }

    fn say(&self, text: &str) {
        eprintln!("wald promote: {text}");
    }

    /// A hook of a run that was killed must not work against this one.
    async fn wait_for_hook(&mut self) -> Result<(), FsError> {
        if let Some(running) = self.journal.hook.take() {
            self.say("a hook of the run before may still be running: waiting for its end");
            hook::outlived(&running, self.options.hook_timeout).await;
        }
        self.save()
    }

    /// Whether the promotion was asked for, at any time.
    pub(super) fn attempted(&self) -> bool {
        self.journal.progress.mark(Act::Promote) != Mark::Untouched
    }

    /// Goes on to the end.
    pub async fn run(mut self) -> Result<Ended, PromoteError> {
        let mut cause = None;
        loop {
            if self.interrupted.swap(false, Ordering::Relaxed) && !self.attempted() && cause.is_none() {
                match self.turn_back(PromoteError::Interrupted).await {
                    Ok(error) => cause = Some(error),
                    Err(error) => return self.ended(End::Unfinished, Some(error)),
                }
            }
            let seen = self.look().await;
            let failed = match next(&self.journal.progress, &seen) {
                Ok(Next::Do(act)) => match self.step(act).await {
                    Ok(()) => continue,
                    Err(source) => PromoteError::Step { act, source: Box::new(source) },
                },
                Ok(Next::Promoted) => return self.ended(End::Promoted, cause),
                Ok(Next::RolledBack) => return self.ended(End::RolledBack, cause),
                Err(refusal) => refusal.into(),
            };
            // Conditions that are not met when a run is taken up again are no failure of a step: the
            // operator decides whether to force them, to wait, or to turn back.
            let unmet = matches!(failed, PromoteError::Step { act: Act::Preconditions, .. });
            if unmet || self.course() == Course::Back {
                return self.ended(End::Unfinished, Some(failed));
            }
            match self.turn_back(failed).await {
                Ok(error) => cause = Some(error),
                Err(error) => return self.ended(End::Unfinished, Some(error)),
            }
        }
    }

    /// Turns back because of an error; gives it back when that was possible, and as the error
    /// when it was not.
    async fn turn_back(&mut self, error: PromoteError) -> Result<PromoteError, PromoteError> {
        let seen = self.look().await;
        if self.journal.progress.turn_back(&seen).is_err() {
            return Err(error);
        }
        self.say(&format!("{}; taking back what was done", chain(&error)));
        self.save()?;
        Ok(error)
    }

    /// Turns back because the operator said so, and goes on to the end of that.
    pub async fn abort(mut self) -> Result<Ended, PromoteError> {
        let seen = self.look().await;
        self.journal.progress.turn_back(&seen)?;
        self.save()?;
        self.run().await
    }

    async fn look(&self) -> Seen {
        let here = look::here(&self.options).await;
        let old = self.look_at_old().await;
        let restarted = match (&here.started, &self.journal.facts.postmaster_started) {
            (Some(now), Some(before)) => here.server == Server::Standby && now != before,
            _ => false,
        };
        let trigger_waits = self.options.trigger_file.as_ref().is_some_and(|path| path.exists());
        Seen {
            server: here.server,
            old,
            checked: self.checked,
            request_forgotten: restarted && !trigger_waits,
        }
    }

    /// One step: recorded before, done and checked, recorded after.
    async fn step(&mut self, act: Act) -> Result<(), PromoteError> {
        self.say(act.description());
        if act == Act::Preconditions {
            return self.check_again().await;
        }
        let detail = format!("{}: {}", self.journal.id, act.description());
        self.audit.write(COMMAND, Stage::Intended, &detail)?;
        if act == Act::Promote {
            // With it a later run can tell whether this postmaster still knows the request.
            self.journal.facts.postmaster_started = look::here(&self.options).await.started;
        }
        self.journal.progress.begin(act);
        let began_at = self.clock.now();
        self.journal.steps.push(StepRecord {
            act,
            began_at,
            ended_at: None,
            failed: None,
            notes: Vec::new(),
        });
        self.save()?;
        kill_here(act, "begun");
        let done = self.act(act).await;
        if done.is_ok() {
            kill_here(act, "acted");
        }
        let ended_at = self.clock.now();
        let failed = done.as_ref().err().map(|error| chain(error));
        if let Some(step) = self.journal.steps.last_mut() {
            step.ended_at = Some(ended_at);
            step.failed.clone_from(&failed);
        }
        if done.is_ok() {
            self.journal.progress.finish(act);
        }
        self.save()?;
        let stage = match (&failed, act) {
            (Some(_), _) => Stage::Failed,
            (None, Act::Unfence | Act::RouteBack) => Stage::Reverted,
            (None, _) => Stage::Done,
        };
        let detail = failed.map_or(detail.clone(), |failed| format!("{detail}: {failed}"));
        self.audit.write(COMMAND, stage, &detail)?;
        done
    }

    async fn act(&mut self, act: Act) -> Result<(), PromoteError> {
        match act {
            Act::Preconditions => Ok(()),
            Act::RouteAway => self.route_away().await,
            Act::Fence => self.fence().await,
            Act::CatchUp => {
                let here = look::here(&self.options).await;
                match (here.database, here.problem) {
                    (Some(database), _) => self.catch_up(&database).await,
                    (None, Some(problem)) => Err(problem.into()),
                    (None, None) => Err(wald_core::promotion::Refusal::ServerSilent.into()),
                }
            }
            Act::Promote => self.promote().await,
            Act::RouteHere => self.route_here().await,
            Act::SmokeTest => self.smoke_test().await,
            Act::Report => Ok(self.write_report()?),
            Act::Unfence => self.unfence().await,
            Act::RouteBack => self.route_back().await,
        }
    }

    /// The conditions of a run that was taken up again.
    async fn check_again(&mut self) -> Result<(), PromoteError> {
        let checked = check(&self.options, self.clock.now()).await?;
        self.journal.findings.clone_from(&checked.findings);
        let Facts { timeline_before, routers_skipped, .. } = checked.facts.clone();
        let facts = &mut self.journal.facts;
        facts.timeline_before = facts.timeline_before.or(timeline_before);
        facts.routers_skipped = routers_skipped;
        self.save()?;
        checked.refused()?;
        self.checked = true;
        Ok(())
    }

    /// Runs one of the operator's hooks.
    pub(super) async fn hook(
        &mut self,
        name: &'static str,
        command: &str,
        timeout: Duration,
    ) -> Result<String, PromoteError> {
        let (old, here) = (&self.options.old, &self.options.here);
        let environment = vec![
            ("WALD_PROMOTION_ID", self.journal.id.clone()),
            ("WALD_OLD_PRIMARY", old.to_string()),
            ("WALD_OLD_PRIMARY_HOST", old.host.clone()),
            ("WALD_OLD_PRIMARY_PORT", old.port.to_string()),
            ("WALD_NEW_PRIMARY", here.to_string()),
            ("WALD_NEW_PRIMARY_HOST", here.host.clone()),
            ("WALD_NEW_PRIMARY_PORT", here.port.to_string()),
        ];
        let output = self.options.state_dir.join("controls/promotion-hook.out");
        let hook = Hook { name, command, environment, timeout, output: &output };
        let ended = hook
            .run(|running| {
                self.journal.hook = Some(running);
                self.file.replace(&self.journal)
            })
            .await;
        self.journal.hook = None;
        self.save()?;
        ended
    }

    /// Closes the journal if that was the end, and writes the report of it either way.
    fn ended(mut self, end: End, cause: Option<PromoteError>) -> Result<Ended, PromoteError> {
        if end != End::Unfinished {
            self.journal.ended = Some(JournalEnd { at: self.clock.now(), promoted: end == End::Promoted });
            self.save()?;
        }
        self.write_report()?;
        Ok(Ended { end, report: Report::of(&self.journal, &self.options), cause })
    }

    fn write_report(&self) -> Result<(), FsError> {
        Report::of(&self.journal, &self.options).write(&self.options.state_dir)
    }
}
