//! What is asked for, by whom, and whether it may be placed where it is wanted.
//!
//! Invariant: a file is placed only directly in a directory called `pg_wal` of a PostgreSQL
//! data directory, under the name that PostgreSQL or `pg_rewind` uses; so whoever may use the
//! socket can't make the agent write anywhere else. A WAL file that stands under its own name
//! is never replaced: on a running server it may be the one that is being written.

use crate::fs::place::Existing;
use std::path::{Path, PathBuf};
use wald_core::outcome::Asker;
use wald_core::wal_file::{WalFile, WalFileError};

/// Why a request is refused.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// Not a WAL file's name.
    #[error(transparent)]
    Name(#[from] WalFileError),
    /// Not a place for a WAL file.
    #[error(
        "{} is refused as a destination: expected RECOVERYXLOG, RECOVERYHISTORY or {file} in the pg_wal \
         of a data directory", destination.display()
    )]
    Destination {
        /// The file that was asked for.
        file: WalFile,
        /// Where it was wanted.
        destination: PathBuf,
    },
}

/// A request that may be served.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The file.
    pub file: WalFile,
    /// Where to place it.
    pub destination: PathBuf,
    /// The data directory that the destination belongs to.
    pub data_dir: PathBuf,
    /// What becomes of a file that stands at the destination.
    pub existing: Existing,
    /// Whether that is a standby.
    pub asker: Asker,
}

/// Checks a request.
pub fn resolve(name: &str, destination: &Path) -> Result<Resolved, ResolveError> {
    let file = WalFile::parse(name)?;
    let refused = || ResolveError::Destination { file, destination: destination.to_owned() };
    let pg_wal = destination.parent().ok_or_else(refused)?;
    let data_dir = pg_wal.parent().ok_or_else(refused)?;
    let target = destination.file_name().and_then(|name| name.to_str()).ok_or_else(refused)?;
    // PostgreSQL restores to fixed names, which it clears before, and renames; pg_rewind asks
    // for the name itself, and only for files that it does not find.
    let existing = match target {
        "RECOVERYXLOG" | "RECOVERYHISTORY" => Existing::Replaced,
        target if target == name => Existing::Kept,
        _ => return Err(refused()),
    };
    let in_pg_wal = pg_wal.file_name().is_some_and(|name| name == "pg_wal") && pg_wal.is_dir();
    if !in_pg_wal || !data_dir.join("PG_VERSION").is_file() {
        return Err(refused());
    }
    // One spelling for one directory: requests for one destination wait for each other.
    let data_dir = data_dir.canonicalize().map_err(|_| refused())?;
    let destination = data_dir.join("pg_wal").join(target);
    let asker = asker(&data_dir);
    Ok(Resolved { file, destination, data_dir, existing, asker })
}

/// Who would ask for the destination, as far as it can be told when the request is refused.
pub fn asker_of(destination: &Path) -> Asker {
    destination.parent().and_then(Path::parent).map_or(Asker::Recovery, asker)
}

/// A standby has `standby.signal` in its data directory (PostgreSQL 12 and later).
fn asker(data_dir: &Path) -> Asker {
    if data_dir.join("standby.signal").exists() { Asker::Standby } else { Asker::Recovery }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const NAME: &str = "000000010000000000000001";

    #[test]
    fn only_wal_names_in_a_pg_wal_are_served() {
        let dir = tempfile::tempdir().unwrap();
        let pg_wal = dir.path().join("pg_wal");
        fs::create_dir(&pg_wal).unwrap();
        assert!(resolve(NAME, &pg_wal.join("RECOVERYXLOG")).is_err(), "no data directory yet");
        fs::write(dir.path().join("PG_VERSION"), "15\n").unwrap();
        assert_eq!(resolve(NAME, &pg_wal.join("RECOVERYXLOG")).unwrap().asker, Asker::Recovery);
        let under_its_name = resolve(NAME, &pg_wal.join(NAME)).unwrap();
        assert_eq!(under_its_name.existing, Existing::Kept);
        let scratch = resolve("00000002.history", &pg_wal.join("RECOVERYHISTORY")).unwrap();
        assert_eq!(scratch.existing, Existing::Replaced);
        std::os::unix::fs::symlink(dir.path(), dir.path().join("link")).unwrap();
        let spelled_otherwise = resolve(NAME, &dir.path().join("link/pg_wal").join(NAME)).unwrap();
        assert_eq!(spelled_otherwise.destination, under_its_name.destination);
        fs::write(dir.path().join("standby.signal"), "").unwrap();
        assert_eq!(resolve(NAME, &pg_wal.join(NAME)).unwrap().asker, Asker::Standby);
        for destination in
            ["postgresql.conf", "pg_wal/postgresql.conf", "pg_wal/../RECOVERYXLOG", "global/RECOVERYXLOG"]
        {
            assert!(resolve(NAME, &dir.path().join(destination)).is_err(), "{destination}");
        }
        assert!(resolve("postgresql.conf", &pg_wal.join("RECOVERYXLOG")).is_err());
    }
}
