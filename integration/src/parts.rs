//! Where the parts that the suites run on are: PostgreSQL 15, SeaweedFS, stock tools.
//!
//! Invariant: a part that is missing is an error that names the line which installs it.
//! Nothing here installs anything, and nothing is ever skipped: that is `integration/parts`' job
//! and a person's decision.

use anyhow::{Result, bail};
use std::env;
use std::path::{Path, PathBuf};

/// The line that installs everything.
pub const INSTALL: &str = "integration/parts";

/// Where Debian puts the programs of PostgreSQL 15.
const POSTGRES_DIR: &str = "/usr/lib/postgresql/15/bin";

/// The SeaweedFS that `integration/parts` pins; its directory carries the version.
const SEAWEEDFS_VERSION: &str = "4.48";

/// The top of the checkout that the suites were built from.
pub fn checkout() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// One of PostgreSQL 15's programs, for example `initdb` or `pg_amcheck`.
pub fn postgres_program(name: &str) -> Result<PathBuf> {
    let path = Path::new(POSTGRES_DIR).join(name);
    if !path.is_file() {
        bail!("PostgreSQL 15's {name} is not at {}: run {INSTALL}", path.display());
    }
    Ok(path)
}

/// The real `weed` binary.
pub fn weed() -> Result<PathBuf> {
    let parts = match env::var_os("WALD_PARTS_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => checkout().join(".parts"),
    };
    let path = parts.join(format!("seaweedfs-{SEAWEEDFS_VERSION}")).join("weed");
    if !path.is_file() {
        bail!("SeaweedFS {SEAWEEDFS_VERSION} is not at {}: run {INSTALL}", path.display());
    }
    Ok(path)
}

/// A daemon that Debian keeps in /usr/sbin, which an ordinary user's PATH does not have: `pgbouncer`
/// or `haproxy`.
pub fn daemon(name: &str) -> Result<PathBuf> {
    let path = Path::new("/usr/sbin").join(name);
    if !path.is_file() {
        bail!("{name} is not at {}: run {INSTALL}", path.display());
    }
    Ok(path)
}

/// A stock tool on the PATH, for example `zstd`, `tar` or `aws`.
pub fn tool(name: &str) -> Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file());
    match found {
        Some(file) => Ok(file),
        None => bail!("{name} is not on the PATH: run {INSTALL}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_part_names_the_line_that_installs_it() {
        for error in [tool("no-such-tool").unwrap_err(), postgres_program("no-such").unwrap_err()] {
            assert!(error.to_string().contains(INSTALL), "{error}");
        }
    }
}
