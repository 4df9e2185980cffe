//! The agent's side of a boost: it ends when its time is over, also after a crash of anything and a
//! reboot of the host.
//!
//! Invariant: as long as the journal holds a boost whose time is over, taking it back is tried.

use super::boost::{self, BoostError, BoostOptions};
use super::boost_revert;
use crate::clock::Clock;
use crate::control::audit::AuditLog;
use crate::explain::chain;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often the journal is looked at, and a failed attempt repeated: one small file that is mostly
/// not there.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Watches over boosts.
#[derive(Debug)]
pub struct BoostKeeper {
    options: BoostOptions,
    audit: AuditLog,
    clock: Clock,
    /// The last failure, so that a database that is away for hours is logged once.
    last_failure: Option<String>,
}

impl BoostKeeper {
    /// For the boosts of these options.
    pub fn new(options: BoostOptions, clock: Clock) -> Self {
        let audit = AuditLog::below(&options.state_dir, clock);
        Self { options, audit, clock, last_failure: None }
    }

    /// Looks now and then, until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                // Given up in the middle, it goes on after the next start.
                () = stop.cancelled() => return,
                outcome = self.look() => self.tell(outcome),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// Takes back what is over. True if there was something to take back.
    async fn look(&self) -> Result<bool, BoostError> {
        let over = boost::active(&self.options)?.is_some_and(|boost| boost.until <= self.clock.now());
        if !over {
            return Ok(false);
        }
        let Some(taken) = boost_revert::revert(&self.options, &self.audit).await? else { return Ok(false) };
        for setting in taken {
            if setting.left {
                tracing::warn!(setting = %setting.name, "{}", setting.detail);
            } else {
                tracing::info!(setting = %setting.name, "{}", setting.detail);
            }
        }
        Ok(true)
    }

    fn tell(&mut self, outcome: Result<bool, BoostError>) {
        match outcome {
            Ok(false) => {}
            Ok(true) => {
                self.last_failure = None;
                tracing::info!("the vacuum boost is over and was taken back");
            }
            Err(error) => {
                let failure = chain(&error);
                if self.last_failure.as_ref() != Some(&failure) {
                    tracing::error!(error = %failure, "the vacuum boost is over and can't be taken back yet; trying again");
                }
                self.last_failure = Some(failure);
            }
        }
    }
}
