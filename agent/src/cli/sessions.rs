//! `wald sessions`.

use super::amount;
use super::options;
use super::run::Failure;
use crate::clock::Clock;
use crate::config::Config;
use crate::control::audit::AuditLog;
use crate::control::claim;
use crate::control::consent::Consent;
use crate::control::sessions::end::{self, Ended, Outcome};
use crate::control::sessions::{self, Report, Session};
use crate::database::{Database, Right};
use clap::Args;
use serde::Serialize;
use std::time::Duration;
use wald_core::quantity::Count;

/// What `wald sessions` takes.
#[derive(Debug, Args)]
pub struct SessionsArgs {
    /// List those that sleep in a transaction for this long
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = amount::duration)]
    idle_longer_than: Duration,
    /// End those that sleep in a transaction for this long; 5m without a value
    #[arg(long, value_name = "TIME", num_args = 0..=1, default_missing_value = "5m", value_parser = amount::duration,
          conflicts_with = "idle_longer_than")]
    kill_idle_in_transaction: Option<Duration>,
    /// Don't ask
    #[arg(long)]
    yes: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// What is printed.
#[derive(Serialize)]
struct Told {
    #[serde(flatten)]
    report: Report,
    /// The sessions that were to be ended.
    ended: Option<Vec<Ended>>,
}

/// Exit 1 if a session that should be ended is still there.
pub(super) fn sessions(config: &Config, args: &SessionsArgs) -> Result<u8, Failure> {
    let longer_than = args.kill_idle_in_transaction.unwrap_or(args.idle_longer_than);
    options::runtime()?.block_on(async {
        let database = sessions::connect(&config.cluster.connection).await?;
        let report = sessions::collect(&database, longer_than).await?;
        if !args.json {
            print!("{report}");
        }
        let ended = match args.kill_idle_in_transaction {
            None => None,
            Some(longer_than) => {
                let candidates = end::candidates(&report.idle_in_transaction);
                Some(kill(config, args, &database, &candidates, longer_than).await?)
            }
        };
        let failed = ended
            .iter()
            .flatten()
            .any(|ended| matches!(ended.outcome, Outcome::Failed | Outcome::StillThere));
        if args.json {
            println!("{}", serde_json::to_string_pretty(&Told { report, ended })?);
        } else {
            for ended in ended.iter().flatten() {
                println!("pid {}: {}", ended.pid, ended.detail);
            }
        }
        Ok(if failed { 1 } else { 0 })
    })
}

async fn kill(
    config: &Config,
    args: &SessionsArgs,
    database: &Database,
    candidates: &[Session],
    longer_than: Duration,
) -> Result<Vec<Ended>, Failure> {
    if candidates.is_empty() {
        return Ok(Vec::new());
    }
    database.demand("end other roles' sessions", Right::SignalBackend).await?;
    let state_dir = &config.agent.state_dir;
    claim::owned(state_dir)?;
    let count = Count(u64::try_from(candidates.len()).unwrap_or(u64::MAX), "session");
    let pids: Vec<String> = candidates.iter().map(|session| session.pid.to_string()).collect();
    let what = format!("ends {count} and rolls their transactions back (pid {})", pids.join(", "));
    Consent::from_flag(args.yes).obtain(&what)?;
    Ok(end::end(database, candidates, longer_than, &AuditLog::below(state_dir, Clock::System)).await?)
}
