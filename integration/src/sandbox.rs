//! A private directory for one test, and everything in it gone afterwards.
//!
//! It lies directly under `/tmp` with a short name, because a Unix socket's path is limited to
//! 107 bytes and PostgreSQL puts one inside. `WALD_KEEP=1` keeps it for a look.

use crate::account::Account;
use crate::reaper;
use anyhow::{Context, Result};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::{env, fs, thread};

/// A directory owned by the account that PostgreSQL and the agent run as; removed on drop.
#[derive(Debug)]
pub struct Sandbox {
    path: PathBuf,
    account: Account,
    keep: Keep,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keep {
    Yes,
    No,
}

impl Sandbox {
    /// Makes a new one. `WALD_TMPDIR` takes the place of `/tmp`; it must be open to everyone.
    pub fn new() -> Result<Sandbox> {
        let account = Account::for_postgres()?;
        let parent = env::var_os("WALD_TMPDIR").map_or_else(|| PathBuf::from("/tmp"), PathBuf::from);
        let keep = if env::var_os("WALD_KEEP").is_some_and(|v| v == "1") { Keep::Yes } else { Keep::No };
        let dir = tempfile::Builder::new()
            .prefix("wald-")
            .rand_bytes(8)
            .tempdir_in(&parent)
            .with_context(|| format!("making a directory in {}", parent.display()))?;
        if keep == Keep::No {
            reaper::guard_path(dir.path())?;
        }
        let sandbox = Sandbox { path: dir.keep(), account, keep };
        fs::set_permissions(&sandbox.path, fs::Permissions::from_mode(0o755))
            .with_context(|| format!("opening {}", sandbox.path.display()))?;
        sandbox.account.own(&sandbox.path)?;
        Ok(sandbox)
    }

    /// Its absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The account that owns it.
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// Makes a subdirectory with mode 0700, owned by the account, if it is not there yet.
    pub fn dir(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        if !path.exists() {
            fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700))
            .with_context(|| format!("closing {}", path.display()))?;
        self.account.own(&path)?;
        Ok(path)
    }

    /// Writes a file with mode 0644, owned by the account. It appears at once, as it shall be: somebody may
    /// wait for it, and remove it.
    pub fn write(&self, name: &str, content: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        let new = self.path.join(format!("{name}.new"));
        fs::write(&new, content).with_context(|| format!("writing {}", new.display()))?;
        self.account.own(&new)?;
        fs::rename(&new, &path).with_context(|| format!("placing {}", path.display()))?;
        Ok(path)
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if self.keep == Keep::Yes {
            eprintln!("kept: {}", self.path.display());
            return;
        }
        if thread::panicking() {
            eprintln!("its files were in {}; WALD_KEEP=1 keeps them", self.path.display());
        }
        // A straggler may still write into it; the clean-up shell tries again in that case.
        if fs::remove_dir_all(&self.path).is_ok() {
            let _ = reaper::release_path(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sandbox_is_gone_after_its_drop_and_short_enough_for_a_socket() {
        let sandbox = Sandbox::new().unwrap();
        let path = sandbox.path().to_owned();
        sandbox.dir("deep").unwrap();
        assert!(path.join("some-cluster-s-name/.s.PGSQL.5432").as_os_str().len() < 107);
        assert!(path.is_dir());
        drop(sandbox);
        if env::var_os("WALD_KEEP").is_none() {
            assert!(!path.exists());
        }
    }
}
