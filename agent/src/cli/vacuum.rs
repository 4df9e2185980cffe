//! `wald vacuum report`, `wald vacuum tune`, `wald vacuum boost`.

use super::amount;
use super::boost::{BoostArgs, boost};
use super::options;
use super::run::Failure;
use crate::clock::Clock;
use crate::config::Config;
use crate::control::audit::AuditLog;
use crate::control::consent::Consent;
use crate::control::vacuum::report::{self, ReportOptions};
use crate::control::vacuum::tune::{self, Applied, Candidate, Plan, TuneOptions};
use crate::control::vacuum::tune_revert::{self, Outcome};
use clap::{Args, Subcommand};
use serde::Serialize;
use std::time::Duration;
use wald_core::quantity::{Bytes, Count};

/// What `wald vacuum` takes.
#[derive(Debug, Args)]
pub struct VacuumArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Freeze age, dead rows, bloat and running vacuums of every database
    Report(ReportArgs),
    /// Thresholds of their own for large, hot tables: as SQL, applied, or taken back
    Tune(TuneArgs),
    /// More memory and a higher cost limit for autovacuum, for a time
    Boost(BoostArgs),
}

#[derive(Debug, Args)]
struct ReportArgs {
    /// Only this database
    #[arg(long)]
    database: Option<String>,
    /// Measure the rate of transaction use over this time, instead of since an earlier report
    #[arg(long, value_name = "TIME", value_parser = amount::duration)]
    measure: Option<Duration>,
    /// Exit 1 if there is any warning
    #[arg(long)]
    check: bool,
    /// As JSON, with all tables
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct TuneArgs {
    /// Only this database
    #[arg(long, conflicts_with = "revert")]
    database: Option<String>,
    /// Change the tables, and remember what was before
    #[arg(long, conflicts_with = "revert")]
    apply: bool,
    /// Give every table back what it had before --apply
    #[arg(long)]
    revert: bool,
    /// Don't ask
    #[arg(long)]
    yes: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Carries out one of them.
pub(super) fn vacuum(config: &Config, args: &VacuumArgs) -> Result<u8, Failure> {
    match &args.action {
        Action::Report(args) => print_report(config, args),
        Action::Tune(args) if args.revert => revert(config, args),
        Action::Tune(args) => tune(config, args),
        Action::Boost(args) => boost(config, args),
    }
}

/// Exit 1 if a database could not be looked into, or with `--check` if there is a warning.
fn print_report(config: &Config, args: &ReportArgs) -> Result<u8, Failure> {
    let report_options = ReportOptions {
        connection: config.cluster.connection.clone(),
        state_dir: config.agent.state_dir.clone(),
        database: args.database.clone(),
        measure: args.measure,
        freeze_age_warning: config.vacuum.freeze_age_warning,
        bloat_warning_percent: config.vacuum.bloat_warning_percent,
        bloat_bytes_min: config.vacuum.bloat_bytes_min,
    };
    let report = options::runtime()?.block_on(report::collect(&report_options, Clock::System))?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{report}");
    }
    let warned = args.check && !report.warnings.is_empty();
    Ok(if warned || !report.skipped.is_empty() { 1 } else { 0 })
}

fn tune_options(config: &Config, database: Option<String>) -> TuneOptions {
    let (connection, state_dir) = (config.cluster.connection.clone(), config.agent.state_dir.clone());
    TuneOptions { connection, state_dir, database, rule: config.vacuum.tune }
}

/// What `--apply` prints.
#[derive(Serialize)]
struct Tuned<'a> {
    #[serde(flatten)]
    plan: &'a Plan,
    applied: Option<Vec<Applied>>,
}

/// Exit 1 if a table could not be changed or a database not looked into.
fn tune(config: &Config, args: &TuneArgs) -> Result<u8, Failure> {
    let tune_options = tune_options(config, args.database.clone());
    let runtime = options::runtime()?;
    let plan = runtime.block_on(tune::propose(&tune_options))?;
    if !args.json {
        print_plan(&plan);
    }
    let mut applied = None;
    if args.apply && !plan.candidates.is_empty() {
        let count = u64::try_from(plan.candidates.len()).unwrap_or(u64::MAX);
        Consent::from_flag(args.yes)
            .obtain(&format!("sets storage parameters of {}", Count(count, "table")))?;
        let audit = AuditLog::below(&config.agent.state_dir, Clock::System);
        applied = Some(runtime.block_on(tune::apply(&tune_options, &plan, &audit, Clock::System))?);
    }
    let failed = applied.iter().flatten().any(|table| table.error.is_some());
    if args.json {
        println!("{}", serde_json::to_string_pretty(&Tuned { plan: &plan, applied })?);
    } else {
        for table in applied.iter().flatten() {
            let outcome =
                table.error.as_ref().map_or("changed".to_owned(), |error| format!("NOT changed: {error}"));
            println!("{}: {}: {outcome}", table.database, table.table);
        }
    }
    Ok(if failed || !plan.skipped.is_empty() { 1 } else { 0 })
}

fn print_plan(plan: &Plan) {
    let rule = &plan.rule;
    println!(
        "-- large: {} rows or {}; hot: {}% of the rows updated or deleted since the statistics began",
        rule.large_rows,
        Bytes(rule.large_bytes),
        rule.hot_percent
    );
    if plan.candidates.is_empty() {
        println!("-- no table needs a threshold of its own");
    }
    let mut database = None;
    for candidate in &plan.candidates {
        if database != Some(&candidate.database) {
            println!("\n-- in database {}", candidate.database);
            database = Some(&candidate.database);
        }
        print_candidate(candidate);
    }
    for missed in &plan.skipped {
        println!("\n-- not looked into: {}: {}", missed.database, missed.why);
    }
}

fn print_candidate(candidate: &Candidate) {
    let (input, proposal) = (&candidate.input, &candidate.proposal);
    println!(
        "-- {:.0} rows, {}, {} changed ({:.0}%): autovacuum comes at {:.0} dead rows, then at {:.0} (scale factor {} now)",
        input.rows,
        Bytes(input.bytes),
        input.changed_rows,
        proposal.changed_percent,
        proposal.dead_rows_now,
        proposal.dead_rows_then,
        input.scale_factor
    );
    println!("{}", candidate.statement);
}

/// Exit 1 if anything is not as it was before.
fn revert(config: &Config, args: &TuneArgs) -> Result<u8, Failure> {
    let tune_options = tune_options(config, None);
    let pending = tune_revert::pending(&tune_options)?;
    let reverted = if pending.is_empty() {
        Vec::new()
    } else {
        let count = Count(u64::try_from(pending.len()).unwrap_or(u64::MAX), "table");
        Consent::from_flag(args.yes).obtain(&format!("puts storage parameters of {count} back"))?;
        let audit = AuditLog::below(&config.agent.state_dir, Clock::System);
        options::runtime()?.block_on(tune_revert::revert(&tune_options, &audit))?
    };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&reverted)?);
    } else if reverted.is_empty() {
        println!("nothing to take back: wald changed no table");
    } else {
        for table in &reverted {
            println!("{}: {}: {}: {}", table.database, table.table, table.option, table.detail);
        }
    }
    let undone =
        reverted.iter().any(|table| matches!(table.outcome, Outcome::Failed | Outcome::LeftAsChanged));
    Ok(if undone { 1 } else { 0 })
}
