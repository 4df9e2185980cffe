//! Commands that are run to their end, with a deadline, and what they said.

use crate::reaper;
use anyhow::{Context, Result, bail};
use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Nothing in the suites takes longer than this; past it a command is killed and has failed.
pub const DEADLINE: Duration = Duration::from_secs(300);

/// A command that has ended.
#[derive(Debug)]
pub struct Finished {
    line: String,
    status: ExitStatus,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
    /// From its start to its end.
    pub elapsed: Duration,
}

impl Finished {
    /// Its exit code, or the negated number of the signal that ended it.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| -self.status.signal().unwrap_or(0))
    }

    /// Standard output and standard error together, for messages and for searching.
    pub fn said(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    /// Itself if the exit code was 0, else an error with all that it said.
    pub fn success(self) -> Result<Finished> {
        if self.status.success() { Ok(self) } else { self.wrong("0") }
    }

    /// Itself if the exit code was `code`, else an error with all that it said.
    pub fn exited_with(self, code: i32) -> Result<Finished> {
        if self.code() == code { Ok(self) } else { self.wrong(&code.to_string()) }
    }

    fn wrong(self, wanted: &str) -> Result<Finished> {
        bail!("exit code {} instead of {wanted} from `{}`:\n{}", self.code(), self.line, self.said())
    }
}

/// Runs a command to its end, within [`DEADLINE`], without standard input. Any exit code is `Ok`.
pub fn run(command: Command) -> Result<Finished> {
    run_within(command, DEADLINE)
}

/// As [`run`], with a deadline of its own: past it the command's process group is killed.
pub fn run_within(mut command: Command, deadline: Duration) -> Result<Finished> {
    let line = line_of(&command);
    let started = Instant::now();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().with_context(|| format!("starting `{line}`"))?;
    let id = child.id();
    reaper::guard_process(id)?;
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let status = ended_within(&mut child, deadline);
    reaper::release_process(id)?;
    let status = status.with_context(|| format!("running `{line}`"))?;
    let text = |thread: JoinHandle<Vec<u8>>| {
        String::from_utf8_lossy(&thread.join().unwrap_or_default()).into_owned()
    };
    Ok(Finished { line, status, stdout: text(stdout), stderr: text(stderr), elapsed: started.elapsed() })
}

/// The command as a person would type it, for messages. Its environment is left out.
pub fn line_of(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|w| w.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

fn ended_within(child: &mut Child, deadline: Duration) -> Result<ExitStatus> {
    let started = Instant::now();
    let mut pause = Duration::from_micros(200);
    loop {
        if let Some(status) = child.try_wait().context("waiting for its end")? {
            return Ok(status);
        }
        if started.elapsed() > deadline {
            crate::process::kill_group(child.id())?;
            child.wait().context("waiting for its end")?;
            bail!("not done after {} s: killed", deadline.as_secs());
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What was read before an error is still worth showing.
            let _ = pipe.read_to_end(&mut bytes);
        }
        bytes
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn what_a_command_says_and_its_exit_code_are_kept() {
        let finished = run(shell("echo out; echo err >&2; exit 7")).unwrap();
        assert_eq!(
            (finished.code(), finished.stdout.as_str(), finished.stderr.as_str()),
            (7, "out\n", "err\n")
        );
        assert!(finished.success().unwrap_err().to_string().contains("err"));
    }

    #[test]
    fn a_command_that_hangs_is_killed_with_its_children() {
        let error = run_within(shell("sleep 600 & sleep 600"), Duration::from_millis(100)).unwrap_err();
        assert!(format!("{error:#}").contains("killed"), "{error:#}");
    }
}
