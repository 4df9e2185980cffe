//! `wald promote`.
//!
//! Exit codes: 0 this server is the primary (or, with `--abort`, all is as it was); 1 nothing was
//! promoted, and what was begun was taken back; 3 neither: `--resume` goes on. 2 is a wrong
//! command line or configuration, as everywhere.

use super::options;
use super::run::Failure;
use crate::clock::Clock;
use crate::config::{Config, ConfigError, OldSessions as ConfiguredSessions, Promotion};
use crate::control::consent::Consent;
use crate::control::promote::{
    self, Checked, End, Ended, HaProxy, OldSessions, PgBouncer, PromoteOptions, Routers, Run, plan_lines,
};
use crate::explain::chain;
use clap::Args;
use std::sync::atomic::Ordering;
use tokio::signal::unix::{SignalKind, signal};
use wald_core::promotion::condition::{Condition, Verdict};
use wald_core::promotion::pgbouncer_file::Target;

const DONE: u8 = 0;
const NOT_PROMOTED: u8 = 1;
const UNFINISHED: u8 = 3;

/// What `wald promote` takes.
#[derive(Debug, Args)]
pub struct PromoteArgs {
    /// Look at the conditions and print the plan; change nothing
    #[arg(long, conflicts_with_all = ["resume", "abort"])]
    dry_run: bool,
    /// Go on without being asked
    #[arg(long)]
    yes: bool,
    /// Go on with a promotion that was interrupted
    #[arg(long, conflicts_with = "abort")]
    resume: bool,
    /// Take back a promotion that was interrupted before the server was asked to promote
    #[arg(long)]
    abort: bool,
    /// Go on without this condition; can be given several times, and is recorded
    #[arg(long, value_name = "CONDITION", conflicts_with = "abort")]
    force: Vec<Condition>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Promotes this standby, or goes on with that, or takes it back.
pub(super) fn promote(config: &Config, args: &PromoteArgs) -> Result<u8, Failure> {
    let promote_options = promote_options(config, args.force.clone())?;
    options::runtime()?.block_on(async {
        let ended = if args.abort || args.resume {
            let consent = Consent::from_flag(args.yes);
            consent.obtain(if args.abort {
                "takes back the promotion that was begun"
            } else {
                "goes on with the promotion that was begun"
            })?;
            let run = promote::reopen(promote_options, Clock::System).await?;
            let watched = turn_back_on_signal(&run)?;
            let ended = if args.abort { run.abort().await } else { run.run().await };
            watched.abort();
            ended?
        } else {
            match begin(promote_options, args).await? {
                Begun::Run(run) => {
                    let watched = turn_back_on_signal(&run)?;
                    let ended = run.run().await;
                    watched.abort();
                    ended?
                }
                Begun::Answered(code) => return Ok(code),
            }
        };
        print(&ended, args.json)?;
        Ok(match (ended.end, args.abort) {
            (End::Promoted, false) | (End::RolledBack, true) => DONE,
            (End::Unfinished, _) => UNFINISHED,
            (End::RolledBack, false) | (End::Promoted, true) => NOT_PROMOTED,
        })
    })
}

enum Begun {
    Run(Box<Run>),
    Answered(u8),
}

async fn begin(promote_options: PromoteOptions, args: &PromoteArgs) -> Result<Begun, Failure> {
    promote::refuse_open(&promote_options)?;
    let checked = promote::check(&promote_options, Clock::System.now()).await?;
    let refused = checked.refused();
    if args.dry_run || refused.is_err() {
        show_plan(&checked, &promote_options, args.json)?;
        if let Err(error) = refused {
            eprintln!("wald: nothing was changed: {}", chain(&error));
            return Ok(Begun::Answered(NOT_PROMOTED));
        }
        return Ok(Begun::Answered(DONE));
    }
    eprint!("{}", plan_text(&checked, &promote_options));
    let what = format!(
        "promotes {} and fences {}; clients wait meanwhile",
        promote_options.here, promote_options.old
    );
    Consent::from_flag(args.yes).obtain(&what)?;
    Ok(Begun::Run(Box::new(promote::begin(promote_options, Clock::System, checked).await?)))
}

/// The first SIGINT, SIGTERM or SIGHUP turns a run back while that is possible; the steps in the
/// journal make a second one, or SIGKILL, harmless too.
fn turn_back_on_signal(run: &Run) -> Result<tokio::task::JoinHandle<()>, Failure> {
    let interrupted = run.interrupted();
    let mut signals =
        [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?];
    Ok(tokio::spawn(async move {
        let [interrupt, terminate, hangup] = &mut signals;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
        eprintln!("wald: turning back after this step, if the promotion was not asked for yet");
        interrupted.store(true, Ordering::Relaxed);
    }))
}

fn show_plan(checked: &Checked, promote_options: &PromoteOptions, json: bool) -> Result<(), Failure> {
    if json {
        let value = serde_json::json!({
            "format": 1,
            "end": if checked.refused().is_ok() { "possible" } else { "refused" },
            "conditions": checked.findings,
            "warnings": checked.warnings,
            "plan": plan_lines(promote_options),
        });
        println!("{}", serde_json::to_string_pretty(&value)?);
    } else {
        print!("{}", plan_text(checked, promote_options));
    }
    Ok(())
}

fn plan_text(checked: &Checked, promote_options: &PromoteOptions) -> String {
    let mut text = String::from("conditions:\n");
    for finding in &checked.findings {
        let verdict = match finding.verdict {
            Verdict::Met => "met",
            Verdict::Unmet => "NOT MET",
            Verdict::Forced => "FORCED",
        };
        text.push_str(&format!("  {:<18} {verdict:<8} {}\n", finding.condition.name(), finding.detail));
        if finding.verdict == Verdict::Forced {
            text.push_str(&format!("  {:<18} {:<8} the risk: {}\n", "", "", finding.condition.risk()));
        }
    }
    for warning in &checked.warnings {
        text.push_str(&format!("warning: {warning}\n"));
    }
    text.push_str("plan:\n");
    for (index, line) in plan_lines(promote_options).iter().enumerate() {
        text.push_str(&format!("  {}. {line}\n", index + 1));
    }
    text
}

fn print(ended: &Ended, json: bool) -> Result<(), Failure> {
    if json {
        println!("{}", serde_json::to_string_pretty(&ended.report)?);
    } else {
        println!("{}", ended.report.markdown());
    }
    if let Some(cause) = &ended.cause {
        eprintln!("wald: {}", chain(cause));
    }
    let said = match ended.end {
        End::Promoted => "this server is the primary",
        End::RolledBack => "nothing was promoted, and all is as it was",
        End::Unfinished => {
            "the promotion is not at its end: `wald promote --resume` goes on with it; `wald promote --abort` takes \
             it back if the server was not asked to promote yet"
        }
    };
    eprintln!("wald: {said}");
    Ok(())
}

/// What `[promotion]` says, with what this command needs and can't do without.
fn promote_options(config: &Config, forced: Vec<Condition>) -> Result<PromoteOptions, Failure> {
    let promotion = config.promotion.clone();
    let missing = |key, wanted| ConfigError::Missing { path: config.path.clone(), key, wanted };
    let primary = promotion.primary.clone().ok_or_else(|| {
        missing("promotion.primary", "the primary of this standby, such as \"host=10.0.0.5 dbname=postgres\"")
    })?;
    let one = primary.parse::<tokio_postgres::Config>().is_ok_and(|parsed| parsed.get_hosts().len() == 1);
    if !one {
        // Of several the one that answers would be asked, whichever that is.
        return Err(missing(
            "promotion.primary with one host",
            "the old primary's own address, and no other",
        )
        .into());
    }
    let target = |connection: &str| {
        let parsed = connection.parse::<tokio_postgres::Config>().ok()?;
        promote::target_of(&parsed)
    };
    let old = target(&primary)
        .ok_or_else(|| missing("promotion.primary", "a connection string that names a host"))?;
    let here = match &promotion.host {
        Some(host) => Target { host: host.clone(), port: promotion.port },
        None => target(&config.cluster.connection)
            .ok_or_else(|| missing("promotion.host", "this server's address, as clients reach it"))?,
    };
    Ok(PromoteOptions {
        connection: config.cluster.connection.clone(),
        data_dir: config.cluster.data_dir.clone(),
        state_dir: config.agent.state_dir.clone(),
        repository: config.repository.clone(),
        routers: routers(&promotion, &old, &here),
        smoke_connection: promotion.smoke_connection.unwrap_or_else(|| config.cluster.connection.clone()),
        primary,
        old,
        here,
        lag_max: promotion.lag_max,
        catch_up_timeout: promotion.catch_up_timeout,
        disk_free_min_bytes: promotion.disk_free_min_bytes,
        fence_command: promotion.fence_command,
        unfence_command: promotion.unfence_command,
        fence_silence: promotion.fence_silence,
        hook_timeout: promotion.hook_timeout,
        pause_timeout: promotion.pause_timeout,
        promote_timeout: promotion.promote_timeout,
        history_timeout: promotion.history_timeout,
        trigger_file: promotion.trigger_file,
        secret_command: promotion.secret_command,
        smoke_table: promotion.smoke_table,
        smoke_sql: promotion.smoke_sql,
        smoke_commands: promotion.smoke_commands,
        smoke_timeout: promotion.smoke_timeout,
        forced,
    })
}

fn routers(promotion: &Promotion, old: &Target, here: &Target) -> Routers {
    let poolers = promotion.pgbouncer.iter().map(|pooler| PgBouncer {
        admin: pooler.admin.clone(),
        config_file: pooler.config_file.clone(),
        databases: pooler.databases.clone(),
        from: pooler.from.clone().unwrap_or_else(|| old.clone()),
        to: pooler.to.clone().unwrap_or_else(|| here.clone()),
    });
    let proxies = promotion.haproxy.iter().map(|proxy| HaProxy {
        socket: proxy.socket.clone(),
        backend: proxy.backend.clone(),
        server: proxy.server.clone(),
        new_server: proxy.new_server.clone(),
        address: proxy.address.clone().unwrap_or_else(|| here.clone()),
        old_sessions: match proxy.old_sessions {
            ConfiguredSessions::ShutDown => OldSessions::ShutDown,
            ConfiguredSessions::Keep => OldSessions::Keep,
        },
    });
    Routers { pgbouncer: poolers.collect(), haproxy: proxies.collect() }
}
