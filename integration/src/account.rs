//! The account that PostgreSQL and the agent run as.
//!
//! PostgreSQL refuses to run as root, so root's suites run it as the user `postgres`, and an
//! ordinary user's run it as that user. Nothing else ever depends on who runs the suites.

use anyhow::{Context, Result, bail};
use std::ffi::OsStr;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::{env, fs};

/// Environment that would change what PostgreSQL's or wald's programs do.
const UNWANTED_PREFIXES: [&str; 3] = ["PG", "AWS_", "WALD_"];

/// A user and its group; `switch` says whether that is somebody else than the suite itself.
#[derive(Clone, Debug)]
pub struct Account {
    uid: u32,
    gid: u32,
    switch: bool,
}

impl Account {
    /// The account for PostgreSQL and the agent.
    pub fn for_postgres() -> Result<Account> {
        let uid = rustix::process::geteuid();
        if !uid.is_root() {
            return Ok(Account {
                uid: uid.as_raw(),
                gid: rustix::process::getegid().as_raw(),
                switch: false,
            });
        }
        let passwd = fs::read_to_string("/etc/passwd").context("reading /etc/passwd")?;
        match passwd.lines().find_map(postgres_entry) {
            Some((uid, gid)) => Ok(Account { uid, gid, switch: true }),
            None => {
                bail!("there is no user postgres, and PostgreSQL refuses root: run {}", crate::parts::INSTALL)
            }
        }
    }

    /// The numeric user id.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// A command that will run as this account, in `/`, with a clean environment.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = clean_command(program);
        if self.switch {
            // std drops root's supplementary groups when it changes the user.
            command.uid(self.uid).gid(self.gid);
        }
        command
    }

    /// Makes this account the owner of one file or directory.
    pub fn own(&self, path: &Path) -> Result<()> {
        if self.switch {
            chown(path, Some(self.uid), Some(self.gid))
                .with_context(|| format!("changing the owner of {}", path.display()))?;
        }
        Ok(())
    }
}

/// A command run as the suite's own user, in `/`, without the caller's PG*, AWS_* and WALD_*.
pub fn clean_command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        let unwanted = name.to_str().is_some_and(|n| UNWANTED_PREFIXES.iter().any(|p| n.starts_with(p)));
        if unwanted {
            command.env_remove(&name);
        }
    }
    // The caller's directory may be closed to the account, and HOME is root's.
    command.current_dir("/").env("LC_ALL", "C").env("TZ", "UTC").env("HOME", "/nonexistent");
    command
}

fn postgres_entry(line: &str) -> Option<(u32, u32)> {
    let mut fields = line.split(':');
    if fields.next() != Some("postgres") {
        return None;
    }
    let uid = fields.nth(1)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    Some((uid, gid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_postgres_is_found_in_its_line_only() {
        let line = "postgres:x:105:112:PostgreSQL administrator,,,:/var/lib/postgresql:/bin/bash";
        assert_eq!(postgres_entry(line), Some((105, 112)));
        assert_eq!(postgres_entry("postgres2:x:1:1::/:/bin/sh"), None);
        assert_eq!(postgres_entry("postgres:x"), None);
    }
}
