//! Commands that run by themselves every night leave a record on the host, however they end.

use super::run::Failure;
use crate::clock::Clock;
use crate::config::Config;
use crate::explain::chain;
use crate::runs::{self, Run, RunEnd, RunKind};

/// How such a command ended.
pub(super) struct Ended {
    /// The process's exit code.
    pub code: u8,
    /// For status and metrics.
    pub end: RunEnd,
    /// The same in one line.
    pub summary: String,
}

/// Does `work` and keeps a record of it. That the record can't be kept is said, and changes
/// nothing about how the command ended.
pub(super) fn recorded(
    config: &Config,
    kind: RunKind,
    work: impl FnOnce() -> Result<Ended, Failure>,
) -> Result<u8, Failure> {
    let started_at = Clock::System.now();
    let outcome = work();
    let (end, summary) = match &outcome {
        Ok(ended) => (ended.end, ended.summary.clone()),
        Err(error) => (RunEnd::Failed, chain(error.as_ref())),
    };
    let run = Run { started_at, ended_at: Clock::System.now(), end, summary };
    if let Err(error) = runs::record(&config.agent.state_dir, kind, run) {
        tracing::warn!(error = %chain(&error), "`wald status` will not know of this {kind}");
    }
    outcome.map(|ended| ended.code)
}
