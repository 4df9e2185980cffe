//! `wald expire`.

use super::options;
use super::recorded::{Ended, recorded};
use super::run::Failure;
use crate::clock::Clock;
use crate::config::Config;
use crate::repository::{ClusterName, Repository, RepositoryError};
use crate::retain::{self, Progress};
use crate::runs::{RunEnd, RunKind};
use crate::store::Store;
use clap::Args;
use serde::Serialize;
use std::fmt::Display;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use wald_core::identity::Identity;

/// What `wald expire` takes.
#[derive(Debug, Args)]
pub struct ExpireArgs {
    /// Print what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// As JSON, with the name of every object
    #[arg(long)]
    json: bool,
}

/// Extends locks and deletes what no target in the window needs. Exit 1 if anything was left
/// undone, or held back because something can't be understood.
pub(super) fn expire(config: &Config, args: &ExpireArgs) -> Result<u8, Failure> {
    if args.dry_run {
        return show(config, args);
    }
    recorded(config, RunKind::Expire, || carry_out(config, args))
}

fn show(config: &Config, args: &ExpireArgs) -> Result<u8, Failure> {
    options::runtime()?.block_on(async {
        let repository = open(config).await?;
        let (options, progress) = (options::retain(config), Progress::on_terminal());
        let planned = retain::plan(&repository, &options, Clock::System, &progress).await?;
        print(&planned, args.json)?;
        Ok(if planned.is_good() { 0 } else { 1 })
    })
}

fn carry_out(config: &Config, args: &ExpireArgs) -> Result<Ended, Failure> {
    options::runtime()?.block_on(async {
        let repository = open(config).await?;
        let (options, progress) = (options::retain(config), Progress::on_terminal());
        let cancel = CancellationToken::new();
        let interrupted = tokio::spawn(cancel_on_signal(cancel.clone())?);
        let report = retain::run(&repository, &options, Clock::System, &progress, cancel).await;
        interrupted.abort();
        let report = report?;
        print(&report, args.json)?;
        let (code, end) = match (report.is_good(), report.outcome.healed) {
            (false, _) => (1, RunEnd::Failed),
            // All is well again, and somebody deleted what was needed.
            (true, 1..) => (0, RunEnd::Findings),
            (true, 0) => (0, RunEnd::Good),
        };
        Ok(Ended { code, end, summary: report.in_one_line() })
    })
}

async fn open(config: &Config) -> Result<Repository, Failure> {
    let repository = Repository::open(Store::open(&config.repository)?).await?;
    refuse_another_cluster(config, &repository)?;
    Ok(repository)
}

/// On the database's host it is known whose repository it must be.
fn refuse_another_cluster(config: &Config, repository: &Repository) -> Result<(), Failure> {
    let Some(data_dir) = &config.cluster.data_dir else { return Ok(()) };
    // A host that lost its cluster, or may not read it, expires all the same.
    let Ok(control) = crate::cluster::read_control(data_dir) else { return Ok(()) };
    let (system, size) = (control.system_id(), control.segment_size());
    if (system, size) == (repository.system_id(), repository.segment_size()) {
        return Ok(());
    }
    let here = Identity::new(system, size, Clock::System.now(), env!("CARGO_PKG_VERSION"));
    Err(Box::new(RepositoryError::OtherCluster {
        place: repository.store().describe().to_owned(),
        expected: ClusterName::from(&here),
        found: ClusterName::from(repository.identity()),
    }))
}

fn print(report: &(impl Display + Serialize), json: bool) -> Result<(), Failure> {
    if json {
        println!("{}", serde_json::to_string_pretty(report)?);
    } else {
        print!("{report}");
    }
    Ok(())
}

fn cancel_on_signal(cancel: CancellationToken) -> Result<impl Future<Output = ()>, Failure> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        eprintln!("wald: ending after the requests that are under way");
        cancel.cancel();
    })
}
