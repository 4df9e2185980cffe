//! wald's own programs, brought to where the account that runs them can reach them.
//!
//! `integration/test` and `integration/demo` build them, the shims statically where they can, and
//! say where in `WALD_BIN_DIR`. A plain `cargo test` finds those of the same build directory.

use crate::parts;
use crate::sandbox::Sandbox;
use crate::sources::Source;
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
    let given = env::var_os("WALD_BIN_DIR");
    let dir = match &given {
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
        if given.is_none() {
            refuse_stale(&dir.join(name))?;
        }
    }
    Ok(dir)
}

/// `cargo test` does not build the programs of other packages: what stands there may be old, and
/// a suite that passes on an old program says nothing.
fn refuse_stale(program: &Path) -> Result<()> {
    let modified = |path: &Path| {
        let metadata = fs::metadata(path).with_context(|| format!("looking at {}", path.display()))?;
        metadata.modified().context("asking for a file's time")
    };
    let built = modified(program)?;
    for source in Source::all()?.iter().filter(|source| is_of(source, program) && !source.is_test()) {
        if modified(&parts::checkout().join(&source.path))? > built {
            bail!(
                "{} is older than {}: run cargo build --workspace, or integration/test",
                program.display(),
                source.path.display()
            );
        }
    }
    Ok(())
}

/// Whether a change of the source makes cargo build the program again.
fn is_of(source: &Source, program: &Path) -> bool {
    let dirs: &[&str] = match program.file_name().and_then(|name| name.to_str()) {
        Some("wald-archive") => &["archive-cmd/src", "agent/client/src"],
        Some("wald-restore") => &["restore-cmd/src", "agent/client/src"],
        _ => &["agent/src", "agent/core/src", "agent/client/src"],
    };
    dirs.iter().any(|dir| source.path.starts_with(dir))
}

/// A link costs nothing; a copy is needed across file systems.
fn bring(from: &Path, to: &Path) -> Result<()> {
    if fs::hard_link(from, to).is_err() {
        fs::copy(from, to).with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
        fs::set_permissions(to, fs::Permissions::from_mode(0o755)).context("opening a program")?;
    }
    Ok(())
}
