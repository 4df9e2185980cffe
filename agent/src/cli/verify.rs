//! `wald verify`.

use super::options;
use super::recorded::{Ended, recorded};
use super::run::Failure;
use crate::clock::Clock;
use crate::config::Config;
use crate::explain::chain;
use crate::repository::Repository;
use crate::runs::{RunEnd, RunKind};
use crate::store::Store;
use crate::verify::{self, Progress, Verdict, VerifyArgs, VerifyReport};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use wald_client::shim::say;
use wald_core::backup_id::BackupId;

/// The verification could not be carried out. Findings have 1 for themselves.
const NOT_CARRIED_OUT: u8 = 2;

/// Verifies and prints the report; 0 clean, 1 findings, 2 not carried out.
pub(super) fn verify(config: &Config, args: &VerifyArgs) -> Result<u8, Failure> {
    recorded(config, RunKind::Verify, || shown(config, args)).or_else(|error| {
        say(&chain(error.as_ref()));
        Ok(NOT_CARRIED_OUT)
    })
}

fn shown(config: &Config, args: &VerifyArgs) -> Result<Ended, Failure> {
    let report = carry_out(config, args)?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{report}");
    }
    let end = match report.verdict {
        Verdict::Clean => RunEnd::Good,
        Verdict::Findings => RunEnd::Findings,
        Verdict::Incomplete => RunEnd::Failed,
    };
    Ok(Ended { code: report.exit_code(), end, summary: report.summary() })
}

fn carry_out(config: &Config, args: &VerifyArgs) -> Result<VerifyReport, Failure> {
    let backup = args.backup.as_deref().map(BackupId::parse).transpose()?;
    let options = options::verify(config, args, backup);
    let runtime = options::runtime()?;
    let ended = runtime.block_on(async {
        let cancel = CancellationToken::new();
        let interrupted = tokio::spawn(cancel_on_signal(cancel.clone())?);
        let opened = async { Ok::<_, Failure>(Repository::open(Store::open(&config.repository)?).await?) };
        let repository = tokio::select! {
            repository = opened => repository?,
            () = cancel.cancelled() => return Err(verify::VerifyError::Interrupted.into()),
        };
        let progress = Progress::on_stderr();
        let report = verify::run(&repository, &options, &Clock::System, &progress, &cancel).await;
        interrupted.abort();
        Ok::<VerifyReport, Failure>(report?)
    });
    // A read that hangs must not keep the process alive.
    runtime.shutdown_background();
    ended
}

fn cancel_on_signal(cancel: CancellationToken) -> Result<impl Future<Output = ()>, Failure> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        eprintln!("wald: ending the verification; what was proven so far is kept");
        cancel.cancel();
    })
}
