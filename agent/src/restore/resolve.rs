//! What is asked for, by whom, and whether it may be placed where it is wanted.
//!
//! Invariant: a file is placed only directly in a directory called `pg_wal` of a PostgreSQL
//! data directory, under the name that PostgreSQL or `pg_rewind` uses; so whoever may use the
//! socket can't make the agent write anywhere else.

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
    // PostgreSQL restores to fixed names and renames; pg_rewind asks for the name itself.
    let known_name = matches!(target, "RECOVERYXLOG" | "RECOVERYHISTORY") || target == name;
    let in_pg_wal = pg_wal.file_name().is_some_and(|name| name == "pg_wal") && pg_wal.is_dir();
    if !known_name || !in_pg_wal || !data_dir.join("PG_VERSION").is_file() {
        return Err(refused());
    }
    Ok(Resolved {
        file,
        destination: destination.to_owned(),
        data_dir: data_dir.to_owned(),
        asker: asker(data_dir),
    })
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
        assert!(resolve(NAME, &pg_wal.join(NAME)).is_ok());
        assert!(resolve("00000002.history", &pg_wal.join("RECOVERYHISTORY")).is_ok());
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
