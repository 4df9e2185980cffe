//! Why a promotion, or a step of it, does not go on.

use crate::control::claim::ClaimError;
use crate::control::consent::ConsentError;
use crate::database::DatabaseError;
use crate::fs::FsError;
use std::path::PathBuf;
use wald_core::promotion::condition::Condition;
use wald_core::promotion::{Act, Refusal};

/// Any of it.
#[derive(Debug, thiserror::Error)]
pub enum PromoteError {
    /// Another run has the lock.
    #[error(
        "another `wald promote` is under way on this host (it holds {}): wait for it, or look at it with ps",
        path.display()
    )]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// A run was not brought to its end.
    #[error(
        "the promotion {id} is not at its end: `wald promote --resume` goes on with it, `wald promote --abort` \
         takes it back while that is possible"
    )]
    Unfinished {
        /// Its name.
        id: String,
    },
    /// There is none.
    #[error("there is no promotion under way: nothing to resume or to abort, and nothing was changed")]
    NothingOpen,
    /// The sequence itself says no.
    #[error(transparent)]
    Refusal(#[from] Refusal),
    /// Conditions that are not met.
    #[error("not all conditions are met: {0}")]
    Conditions(String),
    /// One condition that turned out not to be met on the way.
    #[error("{detail} (to go on all the same: --force {condition}; the risk: {})", condition.risk())]
    Condition {
        /// Which.
        condition: Condition,
        /// What was seen.
        detail: String,
    },
    /// The old primary is not proven fenced.
    #[error("the old primary is not fenced: {0}")]
    NotFenced(String),
    /// A hook failed.
    #[error("{name} failed: {reason}{}", said(output))]
    Hook {
        /// The key in `[promotion]`.
        name: &'static str,
        /// How.
        reason: String,
        /// The end of what it said.
        output: String,
    },
    /// A router did not do what it was told.
    #[error("{router}: {reason}")]
    Router {
        /// Which.
        router: String,
        /// What went wrong.
        reason: String,
    },
    /// It was asked to promote and did not within the time.
    #[error(
        "this server was asked to be promoted and was still in recovery after {seconds} s: look at its log, then \
         `wald promote --resume`"
    )]
    StillInRecovery {
        /// How long was waited.
        seconds: u64,
    },
    /// A smoke test failed.
    #[error("the smoke test {test:?} failed: {reason}")]
    Smoke {
        /// Which.
        test: String,
        /// Why.
        reason: String,
    },
    /// It could not be taken back.
    #[error("{0}")]
    NotTakenBack(String),
    /// The operator's signal.
    #[error("it was interrupted by a signal")]
    Interrupted,
    /// PostgreSQL.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The file system.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// Somebody else owns the state directory.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// Nobody agreed.
    #[error(transparent)]
    Consent(#[from] ConsentError),
    /// A step failed; what came of it.
    #[error("the step {act} failed")]
    Step {
        /// Which.
        act: Act,
        /// Why.
        #[source]
        source: Box<PromoteError>,
    },
}

fn said(output: &str) -> String {
    let output = output.trim();
    if output.is_empty() { String::new() } else { format!("; it said: {output}") }
}
