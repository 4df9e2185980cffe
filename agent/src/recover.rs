//! `wald restore`: a data directory made from a backup, ready to replay WAL to a target.
//!
//! Plan → check the destination → fetch and unpack → settings → sync → `pg_control`.
//!
//! Invariants:
//! - Everything that can be refused is refused before a byte is written.
//! - No byte is left in the data directory that was not proven: each file's BLAKE3 is the one in
//!   the file list, whose own is in the catalog. Nothing is written that is not listed, and
//!   nothing outside of the data directory and its tablespaces.
//! - `global/pg_control` is put in place last, after everything else is on disk: PostgreSQL
//!   can't start from a restore that was interrupted. Until then a file says what is going on,
//!   so that `--delta` can go on from there.

mod args;
mod beneath;
mod delta;
mod error;
mod fetch_parts;
mod finish;
mod listed;
mod postmaster;
mod prepare;
mod progress;
mod report;
mod settings;
mod space;
mod tree;
mod unpack;
mod writable;
mod write_out;

pub use args::{Invocation, RestoreArgs};
pub use error::RecoverError;
pub use progress::Progress;
pub use report::RecoverReport;

use crate::inventory;
use crate::repository::Repository;
use jiff::Timestamp;
use prepare::Destination;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;
use wald_core::catalog::CatalogEntry;
use wald_core::recovery_plan::{PlanError, PlanRequest, RecoveryPlan};

/// What a restore is asked to do.
#[derive(Clone, Debug)]
pub struct RecoverOptions {
    /// The data directory to make.
    pub to: PathBuf,
    /// What may stand there before.
    pub mode: Mode,
    /// New places of tablespaces, by OID; the others go where they were.
    pub tablespace_map: BTreeMap<u32, PathBuf>,
    /// Parts that are unpacked, and files that are hashed, at the same time.
    pub jobs: NonZeroUsize,
    /// Where recovery shall end, and how the restored server is set up.
    pub request: PlanRequest,
}

/// What may stand in the destination.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Nothing.
    Fresh,
    /// A data directory of the same cluster, or an interrupted restore of it: files whose
    /// content is that of the backup are kept, everything else is replaced or removed.
    Delta,
}

/// Makes the plan and checks the destination; changes nothing. This is `--dry-run`.
pub async fn plan(
    repository: &Repository,
    options: &RecoverOptions,
    now: Timestamp,
) -> Result<RecoveryPlan, RecoverError> {
    decide(repository, options, now).await.map(|decision| decision.plan)
}

struct Decision {
    plan: RecoveryPlan,
    entry: CatalogEntry,
    destination: Destination,
}

async fn decide(
    repository: &Repository,
    options: &RecoverOptions,
    now: Timestamp,
) -> Result<Decision, RecoverError> {
    let inventory = inventory::read(repository).await?.for_request(&options.request)?;
    let mut plan = wald_core::recovery_plan::plan(inventory.holdings(), &options.request, now)?;
    inventory.admit(&mut plan)?;
    let chosen = inventory.catalog.into_iter().find(|entry| *entry.id() == plan.backup.id);
    let entry = chosen.ok_or(PlanError::NoBackup)?;
    let destination = prepare::check(options, &entry)?;
    Ok(Decision { plan, entry, destination })
}

/// Restores. After an error the destination can't be started; run again with [`Mode::Delta`]
/// to go on, or empty it.
pub async fn run(
    repository: &Repository,
    options: &RecoverOptions,
    now: Timestamp,
    progress: Progress,
) -> Result<RecoverReport, RecoverError> {
    let began = Instant::now();
    let Decision { plan, entry, destination } = decide(repository, options, now).await?;
    let list = listed::file_list(repository.store(), &entry).await?;
    let manifest = listed::manifest(repository.store(), &entry).await?;

    let jobs = options.jobs;
    let prepared = blocking(move || {
        let mut tree = destination.create()?;
        tree.find_mounts(&list)?;
        let kept = delta::keep_what_matches(&tree, &list, jobs)?;
        tree.make_directories(&list)?;
        Ok((tree, list, kept))
    });
    let (tree, list, kept) = prepared.await?;
    let tree = Arc::new(tree);
    let kept = Arc::new(kept);
    let need = fetch_parts::Need::new(&entry, list, Arc::clone(&kept))?;
    let fetched = fetch_parts::fetch(repository.store(), &tree, need, jobs, &progress).await?;

    let settings = plan.settings.clone();
    let (files, bytes) = (fetched.unpacked.files, fetched.unpacked.bytes);
    let (held, downloaded_bytes) = (fetched.unpacked.held, fetched.stored_bytes);
    let finished = blocking(move || {
        finish::finish(&tree, held, &manifest, &entry, &settings, now)?;
        Ok(finish::configuration_elsewhere(&tree))
    });
    let configuration_elsewhere = finished.await?;
    progress.finish();
    Ok(RecoverReport {
        files,
        bytes,
        kept_files: kept.files(),
        kept_bytes: kept.bytes(),
        removed_files: kept.removed(),
        downloaded_bytes,
        configuration_elsewhere,
        took: began.elapsed(),
        data_dir: options.to.clone(),
        plan,
    })
}

/// Runs work that blocks outside of the I/O runtime's threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RecoverError> + Send + 'static,
) -> Result<T, RecoverError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| RecoverError::Worker)?
}

#[cfg(test)]
mod tests;
