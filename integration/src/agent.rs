//! A running `wald agent`, and a cluster that archives through it.

use crate::postgres::Cluster;
use crate::process::{LINES_SHOWN, Process, tail};
use crate::sandbox::Sandbox;
use crate::wait;
use crate::wald::Wald;
use anyhow::{Context, Result};
use rustix::process::Signal;
use std::ops::Deref;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

const READY_WITHIN: Duration = Duration::from_secs(30);
/// Below systemd's time-out, which the agent promises to keep.
const STOPPED_WITHIN: Duration = Duration::from_secs(60);

/// An installation of wald together with its agent's process. Dereferences to [`Wald`].
#[derive(Debug)]
pub struct Agent {
    wald: Wald,
    process: Option<Process>,
    log: PathBuf,
}

impl Agent {
    /// Starts the agent of an installation and waits until it answers `wald status`.
    pub fn start(sandbox: &Sandbox, name: &str, wald: Wald) -> Result<Agent> {
        let log = sandbox.path().join(format!("{name}-agent.log"));
        let mut agent = Agent { wald, process: None, log };
        agent.restart()?;
        Ok(agent)
    }

    /// Starts it (again), and waits until it answers.
    pub fn restart(&mut self) -> Result<()> {
        self.launch()?;
        wait::until_true("the agent to answer", READY_WITHIN, || {
            self.running()?.must_run()?;
            // The socket comes first: a status command is slower than a look at it.
            Ok(self.wald.socket().exists() && self.answers()?)
        })
        .with_context(|| tail(&self.log_text(), LINES_SHOWN))
    }

    /// Whether `wald status` heard from it. Its exit code tells of the repository as well, which
    /// may be away on purpose.
    fn answers(&self) -> Result<bool> {
        let said = self.wald.run(&["status", "--json"])?.stdout;
        let status: Option<serde_json::Value> = serde_json::from_str(&said).ok();
        Ok(status.is_some_and(|status| status.get("agent").is_some_and(serde_json::Value::is_object)))
    }

    /// Starts it without waiting: for one that is meant to refuse.
    pub fn launch(&mut self) -> Result<()> {
        self.process = Some(Process::spawn("wald agent", self.wald.command(&["agent"]), &self.log)?);
        Ok(())
    }

    /// Waits until it ends by itself.
    pub fn wait_end(&mut self, deadline: Duration) -> Result<ExitStatus> {
        self.running()?.wait_end(deadline)
    }

    /// Stops it as systemd does, with SIGTERM.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        let status = self.running()?.stop(Signal::TERM, STOPPED_WITHIN)?;
        self.process = None;
        Ok(status)
    }

    /// Kills it with SIGKILL.
    pub fn kill_hard(&mut self) -> Result<()> {
        match self.process.take() {
            Some(mut process) => process.kill_hard(),
            None => Ok(()),
        }
    }

    /// Its process id.
    pub fn id(&mut self) -> Result<u32> {
        Ok(self.running()?.id())
    }

    /// Everything that it has logged, over all of its starts.
    pub fn log_text(&self) -> String {
        std::fs::read(&self.log).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default()
    }

    fn running(&mut self) -> Result<&mut Process> {
        self.process.as_mut().context("the agent has not been started")
    }
}

impl Deref for Agent {
    type Target = Wald;

    fn deref(&self) -> &Wald {
        &self.wald
    }
}

/// Makes a cluster that is not running archive through wald from its next start on.
pub fn archive_through(cluster: &mut Cluster, wald: &Wald) -> Result<()> {
    cluster.set_environment(&wald.environment());
    cluster.configure("wal_level = replica")?;
    cluster.configure("archive_mode = on")?;
    cluster.configure(&format!("archive_command = '{}'", wald.archive_command()))
}
