//! Steps 3 and 5: the routers, away from the old primary and to this server; and back.
//!
//! Invariants: away, the poolers come first and the proxies second: a pooler that is paused asks
//! its proxy for nothing, so that no client meets a server in maintenance. Here and back it is the
//! other way round: a pooler that goes on finds its proxy ready. Each part can be done again.

use super::drive::Run;
use super::error::PromoteError;
use super::journal::Facts;
use super::look;
use super::options::{HaProxy, PgBouncer, PromoteOptions};
use super::pgbouncer::Paused;
use crate::explain::chain;
use wald_core::promotion::condition::{Condition, Finding, Verdict};
use wald_core::promotion::fence::Answer;

/// Whether the routers answer and know what is to be changed.
pub(super) async fn check(options: &PromoteOptions, findings: &mut Vec<Finding>, facts: &mut Facts) {
    let mut finding = |router: String, looked: Result<String, PromoteError>| match looked {
        Ok(detail) => findings.push(Finding::met(Condition::Routers, detail)),
        Err(error) => {
            let finding = Finding::unmet(Condition::Routers, &options.forced, chain(&error));
            if finding.verdict == Verdict::Forced {
                facts.routers_skipped.push(router);
            }
            findings.push(finding);
        }
    };
    for pooler in &options.routers.pgbouncer {
        finding(pooler.name(), pooler.check().await);
    }
    let mut in_maintenance = Vec::new();
    for proxy in &options.routers.haproxy {
        let looked = proxy.check().await.map(|(detail, maintenance)| {
            if maintenance {
                in_maintenance.push(proxy.name());
            }
            detail
        });
        finding(proxy.name(), looked);
    }
    facts.in_maintenance_before = in_maintenance;
}

impl Run {
    /// Holds the clients.
    pub(super) async fn route_away(&mut self) -> Result<(), PromoteError> {
        let routers = self.options.routers.clone();
        if routers.is_empty() {
            self.note("there are no routers");
            return Ok(());
        }
        if self.journal.facts.writes_stopped_at.is_none() {
            self.journal.facts.writes_stopped_at = Some(self.clock.now());
            self.save()?;
        }
        for pooler in &routers.pgbouncer {
            if !self.journal.takes_part(&pooler.name()) {
                continue;
            }
            match pooler.pause(self.options.pause_timeout).await? {
                Paused::All => self.note(format!("{} is paused", pooler.name())),
                Paused::StillRunning => self.still_running(&pooler.name()).await?,
            }
        }
        for proxy in &routers.haproxy {
            if self.journal.takes_part(&proxy.name()) {
                proxy.away().await?;
                self.note(format!("{} is in maintenance", proxy.name()));
            }
        }
        Ok(())
    }

    /// Transactions that don't end. Where the old primary is silent they hang on it and are lost
    /// anyway; else they would fail, and somebody has to want that.
    async fn still_running(&mut self, router: &str) -> Result<(), PromoteError> {
        let detail = format!(
            "{router}: transactions were still running after {} s",
            self.options.pause_timeout.as_secs_f32()
        );
        let silent = matches!(look::old_primary(&self.options).await.answer, Answer::None { .. });
        if silent || self.journal.forced.contains(&Condition::ClientsHeld) {
            self.note(format!("{detail}; they fail with the old primary"));
            return Ok(());
        }
        Err(PromoteError::Condition { condition: Condition::ClientsHeld, detail })
    }

    /// Sends the clients here. One router that can't be reached must not keep the clients of the others
    /// held; with `--force routers` it does not keep the promotion from its end either.
    pub(super) async fn route_here(&mut self) -> Result<(), PromoteError> {
        let routers = self.options.routers.clone();
        let mut problem = None;
        let names =
            routers.haproxy.iter().map(HaProxy::name).chain(routers.pgbouncer.iter().map(PgBouncer::name));
        // Those that were passed over come last: they may be held from a run before.
        let (taking_part, skipped): (Vec<_>, Vec<_>) = names.partition(|name| self.journal.takes_part(name));
        for name in taking_part.iter().chain(&skipped) {
            for proxy in routers.haproxy.iter().filter(|proxy| proxy.name() == *name) {
                match proxy.here().await {
                    Ok(done) => self.note(done),
                    Err(error) => self.not_routed(name, error, &mut problem)?,
                }
            }
            for pooler in routers.pgbouncer.iter().filter(|pooler| pooler.name() == *name) {
                match self.lead_here(pooler).await {
                    Ok(done) => self.note(done),
                    Err(error) => self.not_routed(name, error, &mut problem)?,
                }
            }
        }
        if let Some(problem) = problem {
            return Err(problem);
        }
        if self.journal.facts.writes_back_at.is_none() {
            self.journal.facts.writes_back_at = Some(self.clock.now());
            self.save()?;
        }
        // Clients are served already: a slow secret store must not keep them waiting.
        if let Some(command) = self.options.secret_command.clone() {
            let said = self.hook("secret_command", &command, self.options.hook_timeout).await?;
            self.note(format!("secret_command succeeded {said}").trim_end().to_owned());
        }
        Ok(())
    }

    async fn lead_here(&mut self, pooler: &PgBouncer) -> Result<String, PromoteError> {
        let path = pooler.config_file.clone();
        let done = pooler.retarget(|before| {
            // The file as it was, before it is not any more.
            if let Some(path) = path {
                self.journal.facts.files_before.entry(path).or_insert_with(|| before.to_owned());
            }
            self.save()
        })?;
        pooler.reload().await?;
        pooler.resume().await?;
        Ok(done.unwrap_or_else(|| format!("{} goes on, its target is the same", pooler.name())))
    }

    /// A router that was not led here: the first such problem is kept, unless the operator goes on
    /// without that router.
    fn not_routed(
        &mut self,
        name: &str,
        error: PromoteError,
        problem: &mut Option<PromoteError>,
    ) -> Result<(), PromoteError> {
        let skipped = !self.journal.takes_part(name);
        if skipped || self.journal.forced.contains(&Condition::Routers) {
            let detail = format!("{name} was passed over and may hold clients still: {}", chain(&error));
            self.note(detail);
            if !skipped {
                self.journal.facts.routers_skipped.push(name.to_owned());
            }
            return Ok(self.save()?);
        }
        self.note(format!("{name}: {}", chain(&error)));
        problem.get_or_insert(error);
        Ok(())
    }

    /// Lets the clients go on to the old primary.
    pub(super) async fn route_back(&mut self) -> Result<(), PromoteError> {
        let routers = self.options.routers.clone();
        // One that can't be reached must not keep the others held. One that was passed over may be held
        // from a run before.
        let mut problem = None;
        let keep = |problem: &mut Option<PromoteError>, error| {
            problem.get_or_insert(error);
        };
        for proxy in &routers.haproxy {
            let name = proxy.name();
            if self.journal.facts.in_maintenance_before.contains(&name) {
                continue;
            }
            match proxy.back().await {
                Ok(()) => self.note(format!("{name} is ready again")),
                Err(error) if self.journal.takes_part(&name) => keep(&mut problem, error),
                Err(error) => self.note(format!("{name} was passed over: {}", chain(&error))),
            }
        }
        for pooler in &routers.pgbouncer {
            let name = pooler.name();
            match pooler.resume().await {
                Ok(()) => self.note(format!("{name} goes on")),
                Err(error) if self.journal.takes_part(&name) => keep(&mut problem, error),
                Err(error) => self.note(format!("{name} was passed over: {}", chain(&error))),
            }
        }
        self.journal.facts.writes_back_at = Some(self.clock.now());
        problem.map_or(Ok(()), Err)
    }
}
