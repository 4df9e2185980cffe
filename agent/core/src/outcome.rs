//! The table of exit codes that PostgreSQL acts on (DESIGN 4 and 5).
//!
//! Invariants: "absent" and "unreachable" never share a code where recovery would end by it;
//! nothing but a confirmed, durable object yields 0 for an archived file; no code that
//! answers `archive_command` is above 125.
//!
//! Source: PostgreSQL 15, `xlogarchive.c` (`RestoreArchivedFile`: an exit of 1 to 125 means
//! "not there", 126 and above or a signal is fatal) and `pgarch.c` / `shell_archive.c` (a
//! signal or an exit above 125 ends the archiver process).

/// What `archive_command` is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ArchiveOutcome {
    /// The repository has confirmed the exact bytes. PostgreSQL may recycle the file.
    Done,
    /// Not archived; PostgreSQL keeps the file, logs the failure and asks again.
    TryAgain,
}

impl ArchiveOutcome {
    /// The process's exit code.
    pub const fn exit_code(self) -> u8 {
        match self {
            ArchiveOutcome::Done => 0,
            ArchiveOutcome::TryAgain => 1,
        }
    }
}

/// What `restore_command` is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RestoreOutcome {
    /// The proven file stands at the destination.
    Placed,
    /// Exit 1: in recovery the end of the WAL; on a standby "try streaming, then ask again".
    NotThere,
    /// Exit 200: recovery stops with an error and nothing is opened or promoted.
    Fatal,
}

impl RestoreOutcome {
    /// The process's exit code.
    pub const fn exit_code(self) -> u8 {
        match self {
            RestoreOutcome::Placed => 0,
            RestoreOutcome::NotThere => 1,
            RestoreOutcome::Fatal => 200,
        }
    }
}

/// Who asks for a WAL file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asker {
    /// A recovery without `standby.signal`: what it is told is not there ends it, and the
    /// database opens. `pg_rewind` is treated the same.
    Recovery,
    /// A standby, which has another source and asks again for ever.
    Standby,
}

/// What came of a request for a WAL file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RestoreFinding {
    /// Found, proven, placed.
    Placed,
    /// The repository itself says that it has no such file.
    Absent,
    /// The repository could not be asked, for as long as patience lasts.
    Unreachable,
    /// Found, but not what was stored.
    Corrupt,
    /// Anything else that kept a file from being placed: a full disk, a refused request.
    Failed,
}

/// The whole table of DESIGN 5. Only an absence that the repository vouches for may end a
/// recovery; whatever else goes wrong stops it with an error instead.
pub const fn restore_outcome(asker: Asker, finding: RestoreFinding) -> RestoreOutcome {
    match (finding, asker) {
        (RestoreFinding::Placed, _) => RestoreOutcome::Placed,
        (RestoreFinding::Absent, _) => RestoreOutcome::NotThere,
        (RestoreFinding::Unreachable | RestoreFinding::Corrupt | RestoreFinding::Failed, Asker::Recovery) => {
            RestoreOutcome::Fatal
        }
        (RestoreFinding::Unreachable | RestoreFinding::Corrupt | RestoreFinding::Failed, Asker::Standby) => {
            RestoreOutcome::NotThere
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_recovery_only_a_vouched_absence_reads_as_not_there() {
        use RestoreFinding::*;
        for finding in [Unreachable, Corrupt, Failed] {
            assert_eq!(restore_outcome(Asker::Recovery, finding).exit_code(), 200);
            assert_eq!(restore_outcome(Asker::Standby, finding).exit_code(), 1);
        }
        assert_eq!(restore_outcome(Asker::Recovery, Absent).exit_code(), 1);
        assert_eq!(restore_outcome(Asker::Recovery, Placed).exit_code(), 0);
    }

    #[test]
    fn the_archiver_process_is_never_killed_by_an_exit_code() {
        for outcome in [ArchiveOutcome::Done, ArchiveOutcome::TryAgain] {
            assert!(outcome.exit_code() <= 125);
        }
    }
}
