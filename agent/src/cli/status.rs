//! `wald status`: the agent's own words, and the repository's.
//!
//! Invariant: what could not be asked is said to be unknown, with the reason; the exit code is
//! 0 only if both answered.

use super::OutputArgs;
use super::list;
use super::run::Failure;
use crate::config::Config;
use crate::explain::chain;
use crate::list::Listing;
use crate::runs::{self, Run, RunEnd, RunKind};
use crate::status::AgentStatus;
use jiff::Timestamp;
use serde::Serialize;
use std::time::Duration;
use wald_client::exchange::ask;
use wald_core::backup_id::BackupId;
use wald_core::lsn::Lsn;
use wald_core::protocol::Request;
use wald_core::recovery_window::RecoveryWindow;
use wald_core::segment::SegmentName;

const AGENT_TIMEOUT: Duration = Duration::from_secs(10);

/// Everything that `wald status --json` prints.
#[derive(Serialize)]
struct Status {
    agent: Option<AgentStatus>,
    /// Why there is no `agent`.
    agent_error: Option<String>,
    repository: Option<RepositoryStatus>,
    /// Why there is no `repository`.
    repository_error: Option<String>,
    /// The nightly runs of this host.
    runs: Vec<RunStatus>,
}

/// What is known of one kind of nightly run.
#[derive(Serialize)]
struct RunStatus {
    run: RunKind,
    last: Option<Run>,
    last_good: Option<Run>,
    /// Why its record can't be read.
    error: Option<String>,
}

/// What the repository holds, in short.
#[derive(Serialize)]
struct RepositoryStatus {
    url: String,
    backups: usize,
    last_backup: Option<LastBackup>,
    /// The last segment of the newest timeline.
    last_segment: Option<SegmentName>,
    gaps: usize,
    /// Which promise rests on what, where the server does not keep it.
    careful: Vec<String>,
    recovery_windows: Vec<RecoveryWindow>,
}

#[derive(Serialize)]
struct LastBackup {
    id: BackupId,
    stopped_at: Timestamp,
    stop_lsn: Lsn,
}

/// Prints the status.
pub(super) fn status(config: &Config, args: &OutputArgs) -> Result<u8, Failure> {
    let (agent, agent_error) = split(ask_agent(config));
    let (repository, repository_error) = split(list::read(config).map(|listing| in_short(&listing)));
    let good = agent.is_some() && repository.is_some();
    let runs = RunKind::ALL.map(|kind| run_status(config, kind)).into();
    let status = Status { agent, agent_error, repository, repository_error, runs };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&status)?);
    } else {
        print_agent(&status);
        print_repository(&status);
        print_runs(&status);
    }
    Ok(if good { 0 } else { 1 })
}

fn split<T>(outcome: Result<T, Failure>) -> (Option<T>, Option<String>) {
    match outcome {
        Ok(value) => (Some(value), None),
        Err(error) => (None, Some(chain(error.as_ref()))),
    }
}

fn ask_agent(config: &Config) -> Result<AgentStatus, Failure> {
    let reply = ask(&config.agent.socket, &Request::Status, AGENT_TIMEOUT)?;
    Ok(serde_json::from_str(&reply.message)?)
}

fn run_status(config: &Config, run: RunKind) -> RunStatus {
    match runs::read(&config.agent.state_dir, run) {
        Ok(Some(runs)) => RunStatus { run, last: Some(runs.last), last_good: runs.last_good, error: None },
        Ok(None) => RunStatus { run, last: None, last_good: None, error: None },
        Err(error) => RunStatus { run, last: None, last_good: None, error: Some(chain(&error)) },
    }
}

fn in_short(listing: &Listing) -> RepositoryStatus {
    let last_backup = listing.backups.last().map(|backup| LastBackup {
        id: backup.id.clone(),
        stopped_at: backup.stopped_at,
        stop_lsn: backup.stop_lsn,
    });
    RepositoryStatus {
        url: listing.repository.clone(),
        backups: listing.backups.len(),
        last_backup,
        last_segment: listing.timelines.last().and_then(|timeline| Some(timeline.ranges.last()?.last)),
        gaps: listing.timelines.iter().map(|timeline| timeline.gaps.len()).sum(),
        careful: listing.careful.clone(),
        recovery_windows: listing.recovery_windows.clone(),
    }
}

fn print_agent(status: &Status) {
    let Some(agent) = &status.agent else {
        println!("agent       DOWN: {}", status.agent_error.as_deref().unwrap_or("unknown"));
        return;
    };
    println!("agent       up since {}, wald {}, pid {}", agent.started_at, agent.version, agent.pid);
    match (&agent.last_archived, &agent.last_archived_at) {
        (Some(file), Some(at)) => println!("archived    {file} at {at}"),
        _ => println!("archived    nothing since the agent started"),
    }
    if let (Some(failure), Some(at)) = (&agent.last_failure, &agent.last_failure_at) {
        println!("FAILING     since the last success; last at {at}: {failure}");
    }
    if agent.given_up_files > 0 {
        println!("GAP         {} files were given up unarchived (archive.queue_max)", agent.given_up_files);
    }
    match (agent.backlog_files, &agent.backlog_oldest) {
        (Some(0), _) => println!("backlog     none"),
        (Some(files), Some(oldest)) => println!("backlog     {files} files, the oldest is {oldest}"),
        (Some(files), None) => println!("backlog     {files} files"),
        (None, _) => println!("backlog     unknown: this agent has no data directory, or can't read it"),
    }
}

fn print_repository(status: &Status) {
    let Some(repository) = &status.repository else {
        println!("repository  UNKNOWN: {}", status.repository_error.as_deref().unwrap_or("unknown"));
        return;
    };
    println!("repository  {}", repository.url);
    for weakness in &repository.careful {
        println!("note        {weakness}");
    }
    match &repository.last_segment {
        Some(segment) => println!("last WAL    {segment}, {} gaps", repository.gaps),
        None => println!("last WAL    none"),
    }
    match &repository.last_backup {
        Some(backup) => {
            println!("last backup {} of {}, ended {}", backup.id, repository.backups, backup.stopped_at)
        }
        None => println!("last backup NONE: take one with `wald backup`"),
    }
    for window in &repository.recovery_windows {
        println!(
            "recovery    timeline {}: any point from {} ({}) to {} ({})",
            window.timeline, window.from_time, window.from_lsn, window.until_time, window.until_lsn
        );
    }
    if repository.recovery_windows.is_empty() {
        println!("recovery    NOTHING can be recovered to");
    }
}

fn print_runs(status: &Status) {
    for runs in &status.runs {
        let name = format!("{:<11}", format!("{} run", runs.run));
        match (&runs.last, &runs.error) {
            (_, Some(error)) => println!("{name} UNKNOWN: {error}"),
            (None, None) => println!("{name} never on this host"),
            (Some(run), None) => {
                let good =
                    runs.last_good.as_ref().map_or("never".to_owned(), |good| good.ended_at.to_string());
                match run.end {
                    RunEnd::Good => println!("{name} good at {}: {}", run.ended_at, run.summary),
                    RunEnd::Findings => {
                        println!("{name} FINDINGS at {}, last good {good}: {}", run.ended_at, run.summary)
                    }
                    RunEnd::Failed => {
                        println!("{name} FAILED at {}, last good {good}: {}", run.ended_at, run.summary)
                    }
                }
            }
        }
    }
}
