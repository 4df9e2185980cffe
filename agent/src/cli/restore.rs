//! `wald restore`.

use super::options;
use super::run::Failure;
use crate::clock::Clock;
use crate::config::{Config, DEFAULT_PATH};
use crate::explain::chain;
use crate::rates::{self, Phase};
use crate::recover::{self, Invocation, Progress, RecoverReport, RestoreArgs};
use crate::repository::Repository;
use crate::store::Store;
use std::num::NonZeroUsize;
use std::path::Path;
use wald_core::rto::MeasuredRate;

/// Plans and carries out a restore.
pub(super) fn restore(config: &Config, args: &RestoreArgs) -> Result<u8, Failure> {
    let elsewhere = |path: &Path, default: &str| (path != Path::new(default)).then(|| path.to_owned());
    let invocation = Invocation {
        program: std::env::current_exe()?,
        config: elsewhere(&config.path, DEFAULT_PATH),
        socket: elsewhere(&config.agent.socket, wald_client::shim::SOCKET_DEFAULT),
        jobs: NonZeroUsize::new(config.restore.concurrency).unwrap_or(NonZeroUsize::MIN),
    };
    let options = args.options(&invocation)?;
    options::runtime()?.block_on(async {
        let repository = Repository::open(Store::open(&config.repository)?).await?;
        let now = Clock::System.now();
        if args.dry_run {
            print!("{}", recover::plan(&repository, &options, now).await?);
        } else {
            let report = recover::run(&repository, &options, now, Progress::on_terminal()).await?;
            remember_rate(config, &report);
            print!("{report}");
        }
        Ok(0)
    })
}

/// For the estimate of how long the next recovery takes; of no importance to this one.
fn remember_rate(config: &Config, report: &RecoverReport) {
    let rate = MeasuredRate::new(Clock::System.now(), report.bytes, report.took);
    let Some(rate) = rate else { return };
    if let Err(error) = rates::record(&config.agent.state_dir, Phase::Restore, &rate) {
        tracing::warn!(error = %chain(&error), "the measured rate of this restore is not kept");
    }
}
