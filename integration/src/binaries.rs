//! wald's own programs, brought to where the account that runs them can reach them.
//!
//! `integration/test` and `integration/demo` build them, the shims statically where they can, and
//! say where in `WALD_BIN_DIR`. A plain `cargo test` finds those of the same build directory.

use crate::sandbox::Sandbox;
use anyhow::{Context, Result, bail};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::{env, fs};

const PROGRAMS: [&str; 3] = ["wald", "wald-archive", "wald-restore"];

/// A directory in a sandbox that holds all of wald's programs, side by side as when installed.
#[derive(Debug, Clone)]
pub struct Binaries {
    dir: PathBuf,
}

impl Binaries {
    /// Brings them into the sandbox: the checkout may lie below a home directory that is closed.
    pub fn install(sandbox: &Sandbox) -> Result<Binaries> {
        let from = built()?;
        let dir = sandbox.path().join("bin");
        if !dir.exists() {
            fs::create_dir(&dir).with_context(|| format!("making {}", dir.display()))?;
            fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).context("opening the programs")?;
            for name in PROGRAMS {
                bring(&from.join(name), &dir.join(name))?;
            }
        }
        Ok(Binaries { dir })
    }

    /// The operator's command line and the agent.
    pub fn wald(&self) -> PathBuf {
        self.dir.join("wald")
    }

    /// The `archive_command` shim.
    pub fn wald_archive(&self) -> PathBuf {
        self.dir.join("wald-archive")
    }

    /// The `restore_command` shim.
    pub fn wald_restore(&self) -> PathBuf {
        self.dir.join("wald-restore")
    }
}

fn built() -> Result<PathBuf> {
    let dir = match env::var_os("WALD_BIN_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => {
            let this = env::current_exe().context("asking for this program's path")?;
            // target/debug/deps/suite-0123 or target/debug/demo
            let beside = this.ancestors().skip(1).take(2).find(|dir| dir.join("wald").is_file());
            beside.map(Path::to_owned).context("wald is not built: run cargo build --workspace")?
        }
    };
    for name in PROGRAMS {
        if !dir.join(name).is_file() {
            bail!("{name} is not in {}: run cargo build --workspace, or integration/test", dir.display());
        }
    }
    Ok(dir)
}

/// A link costs nothing; a copy is needed across file systems.
fn bring(from: &Path, to: &Path) -> Result<()> {
    if fs::hard_link(from, to).is_err() {
        fs::copy(from, to).with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
        fs::set_permissions(to, fs::Permissions::from_mode(0o755)).context("opening a program")?;
    }
    Ok(())
}
