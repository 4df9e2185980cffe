//! `wald expire`: extends the locks of what is needed, deletes what is not (DESIGN 8).
//!
//! What that is, `wald_core::retention` decides; here it is asked for and carried out. Invariants:
//! locks are extended before anything is deleted; what is deleted is named by its version; a
//! catalog entry goes before the objects of its backup, and these and all entries before any WAL;
//! nothing is deleted by a clock that is ahead of the repository's, nor from a repository that
//! is not the one of the plan. A run may be interrupted between any two requests, and two may
//! run at once: a version that is gone already is as good as deleted.

mod gather;
mod clock_check;
mod summary;
mod report;
mod execute;
mod record;
mod progress;

#[cfg(test)]
mod tests;

pub use execute::{Failure, Outcome};
pub use progress::Progress;
pub use report::{Planned, RunReport};
pub use summary::{Group, Summary};

use crate::clock::Clock;
use crate::explain::chain;
use crate::inventory::InventoryError;
use crate::repository::{Repository, RepositoryError};
use crate::store::StoreError;
use gather::Gathered;
use jiff::Timestamp;
use std::num::NonZeroUsize;
use tokio_util::sync::CancellationToken;
use wald_core::object_lock::LockPolicy;
use wald_core::retention::Policy;

/// What retention is told by the configuration.
#[derive(Clone, Copy, Debug)]
pub struct RetainOptions {
    /// `[retention]`.
    pub policy: Policy,
    /// `[repository.lock]`.
    pub lock: Option<LockPolicy>,
    /// Requests in flight.
    pub requests: NonZeroUsize,
}

/// Why a run could not be made, or ended early.
#[derive(Debug, thiserror::Error)]
pub enum RetainError {
    /// The repository could not be listed or asked.
    #[error("can't find out what the repository holds, so nothing was deleted")]
    Store(#[from] StoreError),
    /// The catalog or a history could not be read for now.
    #[error("can't find out what is needed, so nothing was deleted")]
    Inventory(#[from] InventoryError),
    /// The identity could not be read again.
    #[error("can't read the repository's identity again, so nothing was deleted")]
    Identity(#[from] RepositoryError),
    /// It was ended before it knew what to do.
    #[error("interrupted before anything was changed: run wald expire again")]
    Interrupted,
    /// Another repository stands in its place.
    #[error(
        "the wald.json of {place} is another one than at the start: nothing was deleted; find out who changed it"
    )]
    OtherRepository {
        /// The repository's URL.
        place: String,
    },
}

/// Finds out what a run would do, and changes nothing.
pub async fn plan(
    repository: &Repository,
    options: &RetainOptions,
    clock: Clock,
    progress: &Progress,
) -> Result<Planned, RetainError> {
    let time = clock_check::read(repository.store(), clock).await?;
    let gathered = gather::gather(repository, options, &time, progress).await?;
    progress.finish();
    Ok(report::planned(repository, options, &gathered))
}

/// Plans, carries the plan out, and records what was done.
pub async fn run(
    repository: &Repository,
    options: &RetainOptions,
    clock: Clock,
    progress: &Progress,
    cancel: CancellationToken,
) -> Result<RunReport, RetainError> {
    let time = clock_check::read(repository.store(), clock).await?;
    let gathered = tokio::select! {
        biased;
        () = cancel.cancelled() => return Err(RetainError::Interrupted),
        gathered = gather::gather(repository, options, &time, progress) => gathered?,
    };
    let outcome = carry_out(repository, options, &gathered, progress, &cancel).await?;
    progress.finish();
    let mut report =
        RunReport { planned: report::planned(repository, options, &gathered), outcome, record: None };
    match record::store(repository.store(), &report, time.now).await {
        Ok(key) => report.record = Some(key),
        Err(error) => report.outcome.fail("record", "expire/", None, chain(&error)),
    }
    Ok(report)
}

async fn carry_out(
    repository: &Repository,
    options: &RetainOptions,
    gathered: &Gathered,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<Outcome, RetainError> {
    // A disk that was mounted over, a bucket that was swapped: the plan is not for that.
    let again = Repository::open(repository.store().clone()).await?;
    if again.identity() != repository.identity() {
        return Err(RetainError::OtherRepository { place: repository.store().describe().to_owned() });
    }
    Ok(execute::execute(repository.store(), options, gathered, progress, cancel).await)
}

/// The time that a run goes by.
#[derive(Clone, Debug)]
struct RunTime {
    now: Timestamp,
    /// Why this time is no ground for deleting anything.
    doubt: Option<String>,
    /// Whether a second clock was asked, or a test says what time it is.
    is_checked: bool,
}
