//! The audit log: who changed what, when, and what came of it. One line of JSON for each entry in
//! `<agent.state_dir>/audit.log`, appended and synced, never rewritten.

use crate::clock::Clock;
use crate::fs::FsError;
use jiff::Timestamp;
use serde::Serialize;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// One line.
#[derive(Serialize)]
struct Entry<'a> {
    at: Timestamp,
    /// The operating system's user, and who became that user with sudo.
    user: String,
    command: &'a str,
    stage: &'a str,
    detail: &'a str,
}

/// Where a change stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// It is about to be done.
    Intended,
    /// It was done.
    Done,
    /// It could not be done.
    Failed,
    /// It was taken back.
    Reverted,
}

impl Stage {
    const fn name(self) -> &'static str {
        match self {
            Stage::Intended => "intended",
            Stage::Done => "done",
            Stage::Failed => "failed",
            Stage::Reverted => "reverted",
        }
    }
}

/// The log of this host.
#[derive(Clone, Debug)]
pub struct AuditLog {
    path: PathBuf,
    clock: Clock,
}

impl AuditLog {
    /// The one below a state directory.
    pub fn below(state_dir: &Path, clock: Clock) -> Self {
        Self { path: state_dir.join("audit.log"), clock }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends an entry; durable when this returns. A change whose intention can't be written
    /// must not be made.
    pub fn write(&self, command: &str, stage: Stage, detail: &str) -> Result<(), FsError> {
        let failed = |error: std::io::Error| FsError::new("write", &self.path, error);
        let entry = Entry { at: self.clock.now(), user: who(), command, stage: stage.name(), detail };
        let mut line = serde_json::to_vec(&entry).map_err(|error| failed(error.into()))?;
        line.push(b'\n');
        if let Some(dir) = self.path.parent() {
            fs::create_dir_all(dir).map_err(failed)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(&self.path);
        // One write for one line: two commands at once never mix their lines.
        let written = file.and_then(|mut file| {
            file.write_all(&line)?;
            file.sync_data()
        });
        written.map_err(failed)
    }
}

/// The user that runs this, by name where the environment knows it.
pub fn who() -> String {
    let uid = rustix::process::getuid().as_raw();
    let named = std::env::var("USER").or_else(|_| std::env::var("LOGNAME"));
    let user = named.map_or_else(|_| format!("uid {uid}"), |name| format!("{name} (uid {uid})"));
    match std::env::var("SUDO_USER") {
        Ok(before) => format!("{user}, by sudo from {before}"),
        Err(_) => user,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_a_line_with_who_when_and_what() {
        let dir = tempfile::tempdir().unwrap();
        let log = AuditLog::below(&dir.path().join("state"), Clock::System);
        log.write("wald vacuum tune", Stage::Intended, "ALTER TABLE a\nSET ()").unwrap();
        log.write("wald vacuum tune", Stage::Done, "1 table").unwrap();
        let text = fs::read_to_string(log.path()).unwrap();
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["stage"], "intended");
        assert!(lines[1]["user"].as_str().unwrap().contains("uid"));
    }
}
