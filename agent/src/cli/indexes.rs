//! `wald indexes`.

use super::options;
use super::run::Failure;
use crate::clock::Clock;
use crate::config::Config;
use crate::control::indexes::{self, IndexOptions};
use clap::Args;
use jiff::SignedDuration;

/// What `wald indexes` takes.
#[derive(Debug, Args)]
pub struct IndexesArgs {
    /// Only this database
    #[arg(long)]
    database: Option<String>,
    /// Propose to drop what was not used for so many days
    #[arg(long, value_name = "DAYS", default_value_t = 30)]
    unused_days: u32,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Exit 1 if a database could not be looked into.
pub(super) fn indexes(config: &Config, args: &IndexesArgs) -> Result<u8, Failure> {
    let index_options = IndexOptions {
        connection: config.cluster.connection.clone(),
        database: args.database.clone(),
        unused_for: SignedDuration::from_hours(24 * i64::from(args.unused_days)),
    };
    let report = options::runtime()?.block_on(indexes::collect(&index_options, Clock::System))?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{report}");
    }
    Ok(if report.skipped.is_empty() { 0 } else { 1 })
}
