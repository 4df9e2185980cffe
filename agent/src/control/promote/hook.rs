//! The operator's hooks: a command line for `sh -c`, in a process group of its own, with a
//! time-out, its output in a file.
//!
//! Invariants: a hook does not begin before its process is in the journal, so one that outlives a
//! killed `wald promote` is found by the next run, which waits for its end: no hook ever works
//! against the run that follows. Its output goes to a file and not to a pipe: what it leaves
//! running (a server that it started) would keep a pipe open, and a killed wald would close it.

use super::error::PromoteError;
use super::journal::RunningHook;
use crate::fs::FsError;
use rustix::process::{Pid, Signal, kill_process_group};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// So much of what a hook said is kept, from its end.
const OUTPUT_BYTES_MAX: u64 = 4096;
/// How long a killed hook may take to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(50);

/// Waits for a word on standard input, so that nothing of the hook runs before it is in the
/// journal; if wald is killed before that, the word never comes.
const GATE: &str = "read -r _ || exit 125; exec sh -c \"$1\" </dev/null";

/// A hook that is to be run.
pub(super) struct Hook<'a> {
    /// The key in `[promotion]`.
    pub name: &'static str,
    pub command: &'a str,
    pub environment: Vec<(&'static str, String)>,
    pub timeout: Duration,
    /// Where its output goes.
    pub output: &'a Path,
}

impl Hook<'_> {
    fn failed(&self, reason: impl Into<String>) -> PromoteError {
        PromoteError::Hook { name: self.name, reason: reason.into(), output: tail(self.output) }
    }

    /// Runs it to its end; what it said. `journal` is called with its process before it begins.
    pub(super) async fn run(
        &self,
        journal: impl FnOnce(RunningHook) -> Result<(), FsError>,
    ) -> Result<String, PromoteError> {
        let file = File::create(self.output).map_err(|error| FsError::new("write", self.output, error))?;
        let again = file.try_clone().map_err(|error| FsError::new("write", self.output, error))?;
        let mut child = Command::new("sh")
            .args(["-c", GATE, "wald-hook", self.command])
            .envs(self.environment.iter().map(|(name, value)| (*name, value.as_str())))
            .stdin(Stdio::piped())
            .stdout(file)
            .stderr(again)
            .process_group(0)
            .spawn()
            .map_err(|error| self.failed(format!("it could not be started: {error}")))?;
        let pid = child.id().unwrap_or(0);
        journal(RunningHook { pid, started_ticks: started_ticks(pid).unwrap_or(0) })?;
        if let Some(mut gate) = child.stdin.take() {
            // A shell that is gone already tells by its exit code.
            let _ = gate.write_all(b"go\n").await;
        }
        let status = match tokio::time::timeout(self.timeout, child.wait()).await {
            Ok(status) => status.map_err(|error| self.failed(error.to_string()))?,
            Err(_) => {
                kill_group(pid);
                let _ = child.wait().await;
                return Err(self.failed(format!("it was killed after {} s", self.timeout.as_secs_f32())));
            }
        };
        if status.success() { Ok(tail(self.output)) } else { Err(self.failed(how(status))) }
    }
}

fn how(status: ExitStatus) -> String {
    status.code().map_or_else(|| status.to_string(), |code| format!("exit code {code}"))
}

/// Waits for a hook of a run that was killed; kills it when its time is over.
pub(super) async fn outlived(hook: &RunningHook, timeout: Duration) {
    let alive = || started_ticks(hook.pid) == Some(hook.started_ticks);
    let started = Instant::now();
    while alive() && started.elapsed() < timeout {
        tokio::time::sleep(POLL).await;
    }
    if alive() {
        kill_group(hook.pid);
    }
    let killed = Instant::now();
    while alive() && killed.elapsed() < GONE_WITHIN {
        tokio::time::sleep(POLL).await;
    }
}

fn kill_group(pid: u32) {
    let leader = i32::try_from(pid).ok().and_then(Pid::from_raw);
    if let Some(leader) = leader {
        // A group that is gone is what was wanted.
        let _ = kill_process_group(leader, Signal::KILL);
    }
}

/// When a process began, in ticks since the host's start; none if it is gone or a zombie.
fn started_ticks(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may hold anything; field 3 follows it.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// The end of a hook's output.
fn tail(path: &Path) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(OUTPUT_BYTES_MAX)))?;
        let mut bytes = Vec::new();
        file.take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn run(command: &str, timeout: Duration) -> (Result<String, PromoteError>, Option<RunningHook>) {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("output");
        let environment = vec![("WALD_WORD", "word".to_owned())];
        let hook = Hook { name: "fence_command", command, environment, timeout, output: &output };
        let mut seen = None;
        let ended = hook
            .run(|running| {
                seen = Some(running);
                Ok(())
            })
            .await;
        (ended, seen)
    }

    #[tokio::test]
    async fn what_a_hook_says_is_kept_and_its_exit_code_told() {
        let (said, seen) = run("echo the $WALD_WORD; cat", Duration::from_secs(20)).await;
        assert_eq!(said.unwrap(), "the word");
        assert!(seen.unwrap().started_ticks > 0);
        let (failed, _) = run("echo no; exit 7", Duration::from_secs(20)).await;
        let text = failed.unwrap_err().to_string();
        assert!(text.contains("fence_command failed: exit code 7") && text.contains("it said: no"), "{text}");
    }

    #[tokio::test]
    async fn a_hook_that_hangs_is_killed_with_its_children() {
        let (ended, seen) = run("sleep 600 & wait", Duration::from_millis(200)).await;
        assert!(ended.unwrap_err().to_string().contains("killed after"));
        assert_eq!(started_ticks(seen.unwrap().pid), None);
    }

    #[tokio::test]
    async fn a_hook_that_leaves_a_server_running_has_ended() {
        let (ended, seen) = run("sleep 20 & echo started", Duration::from_secs(15)).await;
        assert_eq!(ended.unwrap(), "started");
        kill_group(seen.unwrap().pid);
    }

    #[tokio::test]
    async fn a_hook_does_not_begin_before_it_is_in_the_journal() {
        let dir = tempfile::tempdir().unwrap();
        let (output, trace) = (dir.path().join("output"), dir.path().join("trace"));
        let command = format!("touch {}", trace.display());
        let hook = Hook {
            name: "fence_command",
            command: &command,
            environment: Vec::new(),
            timeout: Duration::from_secs(20),
            output: &output,
        };
        let refused = |_| Err(FsError::new("write", &output, std::io::Error::other("the disk is full")));
        assert!(hook.run(refused).await.is_err());
        assert!(!trace.exists());
    }

    #[tokio::test]
    async fn a_hook_that_outlived_its_run_is_waited_for() {
        let mut child = Command::new("sleep").arg("600").process_group(0).spawn().unwrap();
        let pid = child.id().unwrap();
        let hook = RunningHook { pid, started_ticks: started_ticks(pid).unwrap() };
        outlived(&hook, Duration::from_millis(100)).await;
        assert!(!child.wait().await.unwrap().success());
        // Somebody else's process of that id is left alone.
        let other = RunningHook { pid: std::process::id(), started_ticks: 1 };
        outlived(&other, Duration::from_secs(60)).await;
    }
}
