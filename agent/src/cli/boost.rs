//! `wald vacuum boost`.

use super::amount;
use super::options;
use super::run::Failure;
use crate::clock::Clock;
use crate::config::Config;
use crate::control::audit::AuditLog;
use crate::control::consent::Consent;
use crate::control::vacuum::boost::{self, BoostOptions, in_words};
use crate::control::vacuum::boost_journal::Boost;
use crate::control::vacuum::boost_revert::{self, TakenBack};
use crate::explain::chain;
use clap::Args;
use serde::Serialize;
use std::time::Duration;
use wald_client::exchange::ask;
use wald_core::boost::{BoostPlan, BoostRequest};
use wald_core::protocol::Request;

const AGENT_TIMEOUT: Duration = Duration::from_secs(10);

/// What `wald vacuum boost` takes; without `--for` and `--revert` it tells whether one is in force.
#[derive(Debug, Args)]
pub struct BoostArgs {
    /// Workers at once; what needs a restart is said and not done
    #[arg(long)]
    workers: Option<u32>,
    /// Memory of each, as in 2GB
    #[arg(long, value_name = "MEMORY", value_parser = amount::memory_kb)]
    maintenance_work_mem: Option<u64>,
    /// Work that all workers together may do between two pauses (the server's default is 200)
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    cost_limit: u32,
    /// Length of a pause in milliseconds, 0 for none (the server's default is 2)
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(0..=100))]
    cost_delay: Option<u32>,
    /// For how long, as in 2h
    #[arg(long = "for", value_name = "TIME", value_parser = amount::boost_time)]
    time: Option<Duration>,
    /// Let the boost that is in force end --for from now
    #[arg(long, requires = "time", conflicts_with = "revert")]
    extend: bool,
    /// Take it back now
    #[arg(long, conflicts_with = "time")]
    revert: bool,
    /// Boost although no agent answers, which would take it back: do that by hand with --revert
    #[arg(long)]
    without_agent: bool,
    /// Don't ask
    #[arg(long)]
    yes: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// What is printed.
#[derive(Serialize)]
struct Outcome {
    /// What would be or was changed.
    plan: Option<BoostPlan>,
    /// The boost that is in force.
    boost: Option<Boost>,
    /// What was taken back.
    taken_back: Option<Vec<TakenBack>>,
}

pub(super) fn boost(config: &Config, args: &BoostArgs) -> Result<u8, Failure> {
    let boost_options = options::boost(config);
    let audit = AuditLog::below(&config.agent.state_dir, Clock::System);
    match args.time {
        _ if args.revert => revert(args, &boost_options, &audit),
        None => show(args, &boost_options),
        Some(time) if args.extend => {
            agent_answers(config, args)?;
            Consent::from_flag(args.yes).obtain("makes the boost last longer")?;
            let boost = boost::extend(&boost_options, time, &audit, Clock::System)?;
            print(args, &Outcome { plan: None, boost: Some(boost), taken_back: None }, "extended")
        }
        Some(time) => begin(config, args, &boost_options, time, &audit),
    }
}

/// Tells what is in force; exit 1 if it should have been taken back.
fn show(args: &BoostArgs, boost_options: &BoostOptions) -> Result<u8, Failure> {
    let boost = boost::active(boost_options)?;
    let overdue = boost.as_ref().is_some_and(|boost| boost.until <= Clock::System.now());
    let words = match (&boost, overdue) {
        (None, _) => "no boost is in force; --for TIME begins one",
        (Some(_), false) => "in force",
        (Some(_), true) => "OVERDUE: the agent has not taken it back; look at its log, or use --revert",
    };
    print(args, &Outcome { plan: None, boost, taken_back: None }, words)?;
    Ok(if overdue { 1 } else { 0 })
}

fn begin(
    config: &Config,
    args: &BoostArgs,
    boost_options: &BoostOptions,
    time: Duration,
    audit: &AuditLog,
) -> Result<u8, Failure> {
    let request = BoostRequest {
        workers: args.workers,
        memory_kb: args.maintenance_work_mem,
        cost_limit: args.cost_limit,
        cost_delay_ms: args.cost_delay.map(f64::from),
    };
    let runtime = options::runtime()?;
    if let Some(active) = boost::active(boost_options)? {
        return Err(boost::BoostError::Active { until: active.until }.into());
    }
    let plan = runtime.block_on(boost::propose(boost_options, &request))?;
    if !args.json {
        print_plan(&plan);
    }
    if plan.changes.is_empty() {
        return print(
            args,
            &Outcome { plan: Some(plan), boost: None, taken_back: None },
            "nothing to change",
        );
    }
    agent_answers(config, args)?;
    Consent::from_flag(args.yes)
        .obtain("changes the server's settings with ALTER SYSTEM, and takes them back later")?;
    let boost = runtime.block_on(boost::begin(boost_options, &plan, time, audit, Clock::System))?;
    print(args, &Outcome { plan: Some(plan), boost: Some(boost), taken_back: None }, "in force")
}

/// Without an agent nobody would take the boost back.
fn agent_answers(config: &Config, args: &BoostArgs) -> Result<(), Failure> {
    if args.without_agent {
        return Ok(());
    }
    let socket = &config.agent.socket;
    ask(socket, &Request::Status, AGENT_TIMEOUT).map(|_| ()).map_err(|error| {
        let why = chain(&error);
        let socket = socket.display();
        format!(
            "no agent answers at {socket}, which would take the boost back ({why}): start it, or add --without-agent \
             and take it back by hand with --revert"
        )
        .into()
    })
}

/// Exit 1 if anything was left because somebody changed it since.
fn revert(args: &BoostArgs, boost_options: &BoostOptions, audit: &AuditLog) -> Result<u8, Failure> {
    if boost::active(boost_options)?.is_none() {
        return print(args, &Outcome { plan: None, boost: None, taken_back: None }, "no boost is in force");
    }
    Consent::from_flag(args.yes).obtain("takes the boost back")?;
    let taken_back = options::runtime()?.block_on(boost_revert::revert(boost_options, audit))?;
    let left = taken_back.iter().flatten().any(|setting| setting.left);
    print(args, &Outcome { plan: None, boost: None, taken_back }, "the boost is taken back")?;
    Ok(if left { 1 } else { 0 })
}

fn print_plan(plan: &BoostPlan) {
    for change in &plan.changes {
        println!("{}: {} -> {}", change.name, change.now, change.value);
    }
    for remark in &plan.remarks {
        println!("note: {remark}");
    }
}

fn print(args: &BoostArgs, outcome: &Outcome, words: &str) -> Result<u8, Failure> {
    if args.json {
        println!("{}", serde_json::to_string_pretty(outcome)?);
        return Ok(0);
    }
    for setting in outcome.taken_back.iter().flatten() {
        println!("{} {}", setting.name, setting.detail);
    }
    match &outcome.boost {
        Some(boost) => println!("{words}, {}", in_words(boost)),
        None => println!("{words}"),
    }
    Ok(0)
}
