//! `wald status`: the agent's own words, and the repository's.

use super::OutputArgs;
use super::run::Failure;
use crate::config::Config;
use crate::explain::chain;
use crate::status::AgentStatus;
use serde::Serialize;
use std::time::Duration;
use wald_client::exchange::ask;
use wald_core::protocol::Request;

const AGENT_TIMEOUT: Duration = Duration::from_secs(10);

/// Everything that `wald status --json` prints.
#[derive(Serialize)]
struct Status {
    agent: Option<AgentStatus>,
    /// Why there is no `agent`.
    agent_error: Option<String>,
}

/// Prints the status; exit 0 when the agent is up, else 1.
pub(super) fn status(config: &Config, args: &OutputArgs) -> Result<u8, Failure> {
    let (agent, agent_error) = match ask_agent(config) {
        Ok(agent) => (Some(agent), None),
        Err(error) => (None, Some(chain(error.as_ref()))),
    };
    let up = agent.is_some();
    let status = Status { agent, agent_error };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&status)?);
    } else {
        print(&status);
    }
    Ok(if up { 0 } else { 1 })
}

fn ask_agent(config: &Config) -> Result<AgentStatus, Failure> {
    let reply = ask(&config.agent.socket, &Request::Status, AGENT_TIMEOUT)?;
    Ok(serde_json::from_str(&reply.message)?)
}

fn print(status: &Status) {
    match (&status.agent, &status.agent_error) {
        (Some(agent), _) => print_agent(agent),
        (None, error) => println!("agent       down: {}", error.as_deref().unwrap_or("unknown")),
    }
}

fn print_agent(agent: &AgentStatus) {
    println!("agent       up since {}, wald {}, pid {}", agent.started_at, agent.version, agent.pid);
    match (&agent.last_archived, &agent.last_archived_at) {
        (Some(file), Some(at)) => println!("archived    {file} at {at}"),
        _ => println!("archived    nothing since the agent started"),
    }
    if let (Some(failure), Some(at)) = (&agent.last_failure, &agent.last_failure_at) {
        println!("failing     since the last success; last at {at}: {failure}");
    }
    match (agent.backlog_files, &agent.backlog_oldest) {
        (Some(0), _) => println!("backlog     none"),
        (Some(files), Some(oldest)) => println!("backlog     {files} files, the oldest is {oldest}"),
        (Some(files), None) => println!("backlog     {files} files"),
        (None, _) => println!("backlog     unknown: this agent has no data directory, or can't read it"),
    }
}
