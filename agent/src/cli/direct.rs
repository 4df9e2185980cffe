//! `archive-push` and `archive-get`: the same ways as the agent's, for one file, without it.
//!
//! Invariant: every end of these functions is an exit code of `wald_core::outcome`; a
//! configuration that can't be read or a repository that can't be opened is a failure, never
//! "not there".

use super::options;
use super::run::Failure;
use crate::archive::Archive;
use crate::archive::admit::PgWal;
use crate::archive::give_up::QueueGuard;
use crate::cluster::ClusterError;
use crate::codec::Codec;
use crate::config::Config;
use crate::explain::chain;
use crate::metrics::Metrics;
use crate::repository::Repository;
use crate::restore::resolve::{Resolved, asker_of, resolve};
use crate::restore::{Restore, RestoreError};
use crate::store::StoreError;
use jiff::Timestamp;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use wald_client::shim::say;
use wald_core::outcome::{ArchiveOutcome, RestoreFinding, restore_outcome};
use wald_core::protocol::Reply;

/// Archives one file; the exit code.
pub(super) fn archive_push(config: &Path, path: &Path) -> u8 {
    match try_archive_push(config, path) {
        Ok(reply) => {
            if !reply.message.is_empty() {
                say(&reply.message);
            }
            reply.exit_code
        }
        Err(error) => {
            say(&chain(error.as_ref()));
            // Of another cluster's WAL nothing is said.
            let is_ours = !error.is::<ClusterError>();
            let given_up = is_ours.then(|| give_up(config, path)).transpose().unwrap_or_else(|error| {
                say(&format!("can't tell whether archive.queue_max is passed: {}", chain(error.as_ref())));
                None
            });
            let Some(reply) = given_up.flatten() else { return ArchiveOutcome::TryAgain.exit_code() };
            say(&reply.message);
            reply.exit_code
        }
    }
}

/// The agent may wait for a repository that can't be reached, and leaves the work to this process: that
/// includes the limit on what waits. `None`: nothing is given up.
fn give_up(config: &Path, path: &Path) -> Result<Option<Reply>, Failure> {
    let config = Config::load(config)?;
    let Some(bytes_max) = config.archive.queue_max_bytes else { return Ok(None) };
    let data_dir = config.data_dir()?;
    let size = crate::cluster::read_control(data_dir)?.segment_size();
    let file = PgWal::of(data_dir).admit(&absolute(path)?, size)?.file();
    let guard = QueueGuard::new(Some(bytes_max), size, data_dir, &config.agent.state_dir);
    let is_due = guard.look(file)?;
    Ok(if is_due { Some(guard.give_up(file, Timestamp::now())?.into()) } else { None })
}

fn try_archive_push(config: &Path, path: &Path) -> Result<Reply, Failure> {
    let config = Config::load(config)?;
    let path = absolute(path)?;
    let options = options::archive(&config, config.data_dir()?.to_owned());
    let after = options.timeout;
    let pushed = async {
        let opened = Repository::open_patiently(&config.repository, |error| say(&chain(error)));
        let repository = tokio::time::timeout(after, opened).await??;
        crate::cluster::check(&options.data_dir, repository.identity())?;
        let archive = Archive::new(
            repository,
            Codec::start(options::niceness(&config))?,
            options,
            Arc::new(Metrics::new()?),
        );
        Ok(archive.archive_directly(&path).await?.into())
    };
    within_runtime(pushed)
}

/// Runs `work` and leaves at once when it is done: a thread that hangs in a dead file system must
/// not keep PostgreSQL waiting.
fn within_runtime<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = options::runtime()?;
    let done = runtime.block_on(work);
    runtime.shutdown_background();
    done
}

/// Fetches one file; the exit code.
pub(super) fn archive_get(config: &Path, file: &str, destination: &Path) -> u8 {
    let asker = absolute(destination).map_or_else(|_| asker_of(destination), |path| asker_of(&path));
    let finding = match try_archive_get(config, file, destination) {
        Ok(()) => RestoreFinding::Placed,
        Err(error) => {
            say(&chain(error.as_ref()));
            error.downcast_ref::<RestoreError>().map_or(RestoreFinding::Failed, RestoreError::finding)
        }
    };
    restore_outcome(asker, finding).exit_code()
}

fn try_archive_get(config: &Path, file: &str, destination: &Path) -> Result<(), Failure> {
    let config = Config::load(config)?;
    let request = resolve(file, &absolute(destination)?)?;
    let options = options::restore(&config);
    let patience = match request.asker {
        wald_core::outcome::Asker::Recovery => options.patience,
        wald_core::outcome::Asker::Standby => options.standby_patience,
    };
    within_runtime(async {
        let repository = open_within(&config, patience, &request).await?;
        let restore = Restore::new(
            repository,
            Codec::start(options::niceness(&config))?,
            options,
            Arc::new(Metrics::new()?),
        );
        Ok(restore.restore_directly(&request).await?)
    })
}

/// An outage is waited out here as it is by the agent.
async fn open_within(config: &Config, patience: Duration, request: &Resolved) -> Result<Repository, Failure> {
    let mut last = String::new();
    let waiting = |error: &StoreError| {
        let why = chain(error);
        if why != last {
            say(&format!("{why}; asking again"));
            last = why;
        }
    };
    let opened = tokio::time::timeout(patience, Repository::open_patiently(&config.repository, waiting));
    match opened.await {
        Ok(opened) => Ok(opened?),
        Err(_) => Err(RestoreError::NoAnswer { file: request.file, after: patience }.into()),
    }
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    Ok(wald_client::shim::absolute(path.as_os_str())?)
}
