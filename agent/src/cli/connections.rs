//! `wald connections`.

use super::options;
use super::run::Failure;
use crate::config::Config;
use crate::control::connections::{self, ConnectionOptions};
use clap::Args;

/// What `wald connections` takes.
#[derive(Debug, Args)]
pub struct ConnectionsArgs {
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Exit 1 if a limit is passed or PgBouncer, where it is configured, does not answer.
pub(super) fn connections(config: &Config, args: &ConnectionsArgs) -> Result<u8, Failure> {
    let policy = &config.connections;
    let connection_options = ConnectionOptions {
        connection: config.cluster.connection.clone(),
        max_total: policy.max_total,
        warning_percent: policy.warning_percent,
        limits: policy.limits.clone(),
        pgbouncer: policy.pgbouncer.clone(),
    };
    let report = options::runtime()?.block_on(connections::collect(&connection_options))?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{report}");
    }
    Ok(if report.is_passed() || report.pgbouncer_error.is_some() { 1 } else { 0 })
}
