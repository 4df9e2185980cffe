//! `wald lag`.

use super::options;
use super::run::Failure;
use crate::config::Config;
use crate::control::lag::{LagError, Shown, sample};
use crate::database::Database;
use crate::explain::chain;
use clap::Args;
use std::io::{IsTerminal, Write};
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use wald_core::lag::{Report, Severity, Watcher, check_line};

/// What `wald lag` takes.
#[derive(Debug, Args)]
pub struct LagArgs {
    /// As JSON; with --watch an object a line
    #[arg(long)]
    json: bool,
    /// Again every 2 seconds, until interrupted
    #[arg(long, conflicts_with = "check")]
    watch: bool,
    /// One line for monitoring, and exit 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN
    #[arg(long)]
    check: bool,
}

impl LagArgs {
    /// Whether the exit code is a monitoring plugin's.
    pub(super) fn is_check(&self) -> bool {
        self.check
    }
}

/// These queries take milliseconds; a server that needs longer is in trouble.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);
/// Below the time-out of monitoring systems, 10 s.
const CHECK_TIMEOUT: Duration = Duration::from_secs(9);
const WATCH_EVERY: Duration = Duration::from_secs(2);
/// How often one answer looks again at a standby that seems to be behind.
const SECOND_LOOKS: u32 = 3;
const SECOND_LOOK_AFTER: Duration = Duration::from_millis(300);

pub(super) fn lag(config: &Config, args: &LagArgs) -> Result<u8, Failure> {
    let runtime = options::runtime()?;
    let ended = runtime.block_on(async {
        match (args.watch, args.check) {
            (true, _) => watch(config, args).await,
            (false, false) => {
                show(&once(config).await?, args.json)?;
                Ok(0)
            }
            (false, true) => check(config, args).await,
        }
    });
    // A connection that hangs must not keep the process alive.
    runtime.shutdown_background();
    ended
}

async fn connect(config: &Config) -> Result<Database, LagError> {
    Ok(Database::connect(&config.cluster.connection, "lag", STATEMENT_TIMEOUT).await?)
}

/// One report. A standby that seems to be late only because of what came in just now is looked at
/// again: the age of its last transaction says nothing after a quiet hour, and PostgreSQL measures
/// nothing in it.
async fn once(config: &Config) -> Result<Report, LagError> {
    let database = connect(config).await?;
    let mut watcher = Watcher::new(options::lag(config));
    let mut report = watcher.look(&sample(&database).await?);
    for _ in 0..SECOND_LOOKS {
        if report.state == Severity::Ok || !is_in_doubt(&report) {
            break;
        }
        tokio::time::sleep(SECOND_LOOK_AFTER).await;
        report = watcher.look(&sample(&database).await?);
    }
    Ok(report)
}

/// Whether another look can tell more.
fn is_in_doubt(report: &Report) -> bool {
    let standby = report.standby.as_ref().is_some_and(|standby| !standby.replay_lag_is_exact);
    standby || report.replicas.iter().any(|replica| replica.last_stage().is_unknown())
}

fn show(report: &Report, json: bool) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string_pretty(report)?)?;
    } else {
        write!(out, "{}", Shown(report))?;
    }
    Ok(())
}

/// Never fails: what can't be told is UNKNOWN.
async fn check(config: &Config, args: &LagArgs) -> Result<u8, Failure> {
    let unknown = |why: String| {
        println!("LAG {} - {}", Severity::Unknown, why.replace(['|', '\n'], " "));
        Ok(Severity::Unknown.exit_code())
    };
    match tokio::time::timeout(CHECK_TIMEOUT, once(config)).await {
        Err(_) => unknown(format!("no answer within {} s", CHECK_TIMEOUT.as_secs())),
        Ok(Err(error)) => unknown(chain(&error)),
        Ok(Ok(report)) => {
            if args.json {
                println!("{}", serde_json::to_string(&report)?);
            } else {
                println!("{}", check_line(&report));
            }
            Ok(report.state.exit_code())
        }
    }
}

async fn watch(config: &Config, args: &LagArgs) -> Result<u8, Failure> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut watcher = Watcher::new(options::lag(config));
    let mut session = None;
    let mut ticks = tokio::time::interval(WATCH_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        if interrupted(&mut ticks, &mut interrupt, &mut terminate).await {
            return Ok(0);
        }
        // A server that restarts is watched on.
        let looked = tokio::select! {
            looked = look(config, &mut session, &mut watcher) => looked,
            _ = interrupt.recv() => return Ok(0),
            _ = terminate.recv() => return Ok(0),
        };
        let printed = match looked {
            Ok(report) => print_again(&report, args.json),
            Err(error) => {
                session = None;
                print_trouble(&error, args.json)
            }
        };
        match printed {
            // Whoever read it has gone, as `| head` does.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(0),
            printed => printed?,
        }
    }
}

async fn interrupted(
    ticks: &mut tokio::time::Interval,
    interrupt: &mut Signal,
    terminate: &mut Signal,
) -> bool {
    tokio::select! {
        _ = ticks.tick() => false,
        _ = interrupt.recv() => true,
        _ = terminate.recv() => true,
    }
}

async fn look(
    config: &Config,
    session: &mut Option<Database>,
    watcher: &mut Watcher,
) -> Result<Report, LagError> {
    let database = match session {
        Some(database) => database,
        None => session.insert(connect(config).await?),
    };
    Ok(watcher.look(&sample(database).await?))
}

fn print_again(report: &Report, json: bool) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string(report)?)?;
    } else {
        // On a terminal in the same place, in a file one after the other.
        let clear = if out.is_terminal() { "\x1b[H\x1b[2J" } else { "" };
        writeln!(out, "{clear}{}", Shown(report))?;
    }
    out.flush()
}

fn print_trouble(error: &LagError, json: bool) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::json!({ "state": Severity::Unknown, "error": chain(error) }))?;
    } else {
        writeln!(out, "{}: {}", Severity::Unknown, chain(error))?;
    }
    out.flush()
}
