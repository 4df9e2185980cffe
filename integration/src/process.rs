//! Servers that run beside a test, each in a process group of its own, with a log file.
//!
//! They are stopped by id. Dropping the handle kills the process and all its descendants and
//! waits until they are gone, so that nothing outlives its sandbox.

use crate::{reaper, run, wait};
use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::fs::{self, File};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// How long a killed process may take to vanish.
const GONE_WITHIN: Duration = Duration::from_secs(30);

/// As much of a log as a message carries.
pub const LINES_SHOWN: usize = 40;

/// A running server.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts it with standard output and error appended to `log`.
    pub fn spawn(name: &str, mut command: Command, log: &Path) -> Result<Process> {
        let file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("opening the log {}", log.display()))?;
        let again = file.try_clone().context("sharing the log")?;
        command.stdin(Stdio::null()).stdout(file).stderr(again).process_group(0);
        let line = run::line_of(&command);
        let child = command.spawn().with_context(|| format!("starting `{line}`"))?;
        reaper::guard_process(child.id())?;
        Ok(Process { name: name.to_owned(), child, log: log.to_owned(), ended: None })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its exit status if it has ended.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().with_context(|| format!("asking after {}", self.name))?;
            if self.ended.is_some() {
                reaper::release_process(self.child.id())?;
            }
        }
        Ok(self.ended)
    }

    /// Fails, showing the end of the log, if it has ended although it should be running.
    pub fn must_run(&mut self) -> Result<()> {
        match self.ended()? {
            None => Ok(()),
            Some(status) => bail!("{} has ended with {status}:\n{}", self.name, self.log_tail()),
        }
    }

    /// Sends a signal; one that has ended already is left alone.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.ended()?.is_none() {
            kill_process(pid_of(self.id())?, signal)
                .with_context(|| format!("sending {signal:?} to {}", self.name))?;
        }
        Ok(())
    }

    /// Sends a signal and waits until it has ended.
    pub fn stop(&mut self, signal: Signal, deadline: Duration) -> Result<ExitStatus> {
        self.signal(signal)?;
        self.wait_end(deadline)
    }

    /// Waits until it has ended by itself.
    pub fn wait_end(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let what = format!("{} to end; its log:\n{}", self.name, self.log_tail());
        wait::until(&what, deadline, || self.ended())
    }

    /// Kills it and every descendant with SIGKILL, and waits until all of them are gone.
    pub fn kill_hard(&mut self) -> Result<()> {
        if self.ended()?.is_some() {
            return Ok(());
        }
        let family = family_of(self.id());
        kill_group(self.id())?;
        for member in &family {
            // A descendant that has ended meanwhile is what was wanted.
            let _ = pid_of(*member).map(|pid| kill_process(pid, Signal::KILL));
        }
        self.wait_end(GONE_WITHIN)?;
        for member in family {
            let what = format!("process {member}, a child of {}, to be gone", self.name);
            wait::until_true(&what, GONE_WITHIN, || Ok(!is_alive(member)))?;
        }
        Ok(())
    }

    /// Everything it has logged.
    pub fn log_text(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        tail(&self.log_text(), LINES_SHOWN)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.kill_hard() {
            eprintln!("{} may be left running: {error:#}", self.name);
        }
    }
}

/// The last lines of a text.
pub fn tail(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(count)..).unwrap_or_default().join("\n")
}

/// Whether an exit was SIGKILL's doing.
pub fn was_killed(status: ExitStatus) -> bool {
    status.signal() == Some(9)
}

/// Kills a process group that one of our children leads.
pub(crate) fn kill_group(leader: u32) -> Result<()> {
    match kill_process_group(pid_of(leader)?, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("killing process group {leader}")),
    }
}

fn pid_of(id: u32) -> Result<Pid> {
    let raw = i32::try_from(id).context("a process id out of range")?;
    Pid::from_raw(raw).context("process id 0")
}

/// All descendants of a process: PostgreSQL's children lead groups of their own, so that the
/// group alone does not reach them.
fn family_of(ancestor: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|id: u32| Some((id, state_and_parent(id)?.1)))
        .collect();
    let mut family = vec![ancestor];
    let mut next = 0;
    while let Some(parent) = family.get(next).copied() {
        family.extend(parents.iter().filter(|(_, p)| *p == parent).map(|(id, _)| *id));
        next += 1;
    }
    family.retain(|id| *id != ancestor);
    family
}

fn is_alive(id: u32) -> bool {
    state_and_parent(id).is_some_and(|(state, _)| state != 'Z')
}

/// From `/proc/<id>/stat`: `id (name) state parent ...`; the name may hold anything.
fn state_and_parent(id: u32) -> Option<(char, u32)> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_process_takes_its_descendants_along() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("setsid");
        command.args(["-w", "sleep", "600"]);
        let process = Process::spawn("sleeper", command, &dir.path().join("log")).unwrap();
        let id = process.id();
        let child =
            wait::until("the grandchild", Duration::from_secs(10), || Ok(family_of(id).first().copied()));
        let child = child.unwrap();
        drop(process);
        assert!(!is_alive(child));
    }

    #[test]
    fn a_process_that_ended_early_shows_its_log() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo the reason; exit 3"]);
        let mut process = Process::spawn("short", command, &dir.path().join("log")).unwrap();
        assert_eq!(process.wait_end(Duration::from_secs(10)).unwrap().code(), Some(3));
        assert!(process.must_run().unwrap_err().to_string().contains("the reason"));
    }
}
