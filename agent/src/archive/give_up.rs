//! `archive.queue_max`: WAL that is acknowledged although it is not archived.
//!
//! Off unless configured. Invariants: a [`GivenUp`] exists only after the loss was written to a
//! journal and fsynced, so that no gap is ever forgotten, and it is the only reply "done" beside
//! that of a [`Durable`](super::confirm::Durable); the journal is emptied only when the
//! repository has the records and a new base backup has closed the gap behind it, also if the option is
//! not set any more by then. The agent and `wald archive-push` write to it under one lock.
//!
//! When and what is decided by `wald_core::queue`.

use super::admit::PgWal;
use crate::fs::FsError;
use crate::repository::Repository;
use crate::store::StoreError;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use wald_core::object_key::ObjectKey;
use wald_core::outcome::ArchiveOutcome;
use wald_core::protocol::Reply;
use wald_core::queue::{QueueLimit, Waiting};
use wald_core::segment::SegmentSize;
use wald_core::wal_file::WalFile;

/// Why a loss could not be recorded, or its records not be stored.
#[derive(Debug, thiserror::Error)]
pub enum GiveUpError {
    /// The journal can't be written or read.
    #[error("the journal of given-up WAL can't be used")]
    Journal(#[from] FsError),
    /// A record can't be stored in the repository.
    #[error("the record of a gap can't be stored")]
    Store(#[from] StoreError),
}

/// The journal's name in the state directory.
const JOURNAL: &str = "given-up.jsonl";
/// Stands before a line of the journal that does not tell which file was lost.
const ILLEGIBLE: &str = "illegible: ";

/// One file that was given up, as the journal and the repository hold it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GapRecord {
    /// The file's name.
    pub file: String,
    /// When it was given up.
    pub given_up_at: Timestamp,
}

/// Proof that a loss is on record.
#[derive(Debug)]
pub struct GivenUp {
    file: WalFile,
}

impl From<GivenUp> for Reply {
    fn from(given_up: GivenUp) -> Reply {
        let message = format!(
            "ERROR: {} is NOT ARCHIVED and given up: more WAL waits than archive.queue_max allows. There is a \
             gap in the archive now; a base backup is taken as soon as the repository can be reached",
            given_up.file
        );
        Reply { exit_code: ArchiveOutcome::Done.exit_code(), message }
    }
}

/// Watches the queue, gives up what is over the limit, and keeps the journal.
#[derive(Debug)]
pub struct QueueGuard {
    /// None: nothing is given up, but what was is remembered.
    limit: Option<Mutex<QueueLimit>>,
    pg_wal: PgWal,
    journal: PathBuf,
}

impl QueueGuard {
    /// A guard of `data_dir`'s queue, with its journal in `state_dir`. Without `bytes_max` it gives
    /// nothing up.
    pub fn new(bytes_max: Option<u64>, size: SegmentSize, data_dir: &Path, state_dir: &Path) -> Self {
        Self {
            limit: bytes_max.map(|bytes_max| Mutex::new(QueueLimit::new(bytes_max, size))),
            pg_wal: PgWal::of(data_dir),
            journal: state_dir.join(JOURNAL),
        }
    }

    /// Whether `file` belongs to a stretch that is given up already.
    pub fn gives_up(&self, file: WalFile) -> bool {
        let limit = self.limit.as_ref();
        limit.is_some_and(|limit| limit.lock().unwrap_or_else(PoisonError::into_inner).gives_up(file))
    }

    /// After a failure: is too much waiting? Then `file` may be part of what is given up.
    pub fn look(&self, file: WalFile) -> Result<bool, FsError> {
        let Some(limit) = &self.limit else { return Ok(false) };
        let backlog = self.pg_wal.backlog()?;
        let mut limit = limit.lock().unwrap_or_else(PoisonError::into_inner);
        limit.look(Waiting { files: backlog.files, newest: backlog.newest_segment });
        Ok(limit.gives_up(file))
    }

    /// Puts the loss of `file` on record, durably.
    pub fn give_up(&self, file: WalFile, now: Timestamp) -> Result<GivenUp, GiveUpError> {
        let record = GapRecord { file: file.to_string(), given_up_at: now };
        let failed = |source: std::io::Error| FsError::new("write", &self.journal, source);
        let mut line = serde_json::to_vec(&record).map_err(|error| failed(error.into()))?;
        line.push(b'\n');
        let _lock = self.lock()?;
        let opened = OpenOptions::new().read(true).create(true).append(true).open(&self.journal);
        let mut journal = opened.map_err(failed)?;
        // What a full disk or a crash has cut off must not swallow this line.
        if is_cut(&journal).map_err(failed)? {
            line.insert(0, b'\n');
        }
        journal.write_all(&line).and_then(|()| journal.sync_all()).map_err(failed)?;
        let directory = self.journal.parent().unwrap_or(Path::new("/"));
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)?;
        Ok(GivenUp { file })
    }

    /// Waits until nobody else writes to the journal.
    fn lock(&self) -> Result<File, FsError> {
        let path = self.journal.with_extension("lock");
        let failed = |source| FsError::new("lock", &path, source);
        // Reading is enough, so that it does not matter which user made it.
        let file = match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                OpenOptions::new().create(true).append(true).open(&path).map_err(failed)?
            }
            opened => opened.map_err(failed)?,
        };
        file.lock().map_err(failed)?;
        Ok(file)
    }

    /// As [`count_on_record`].
    pub fn count_on_record(&self) -> u64 {
        count(&self.journal)
    }

    /// What is on record and not yet mended.
    pub fn records(&self) -> Result<Vec<GapRecord>, GiveUpError> {
        Ok(read_journal(&self.journal)?)
    }

    /// Stores `records` in the repository, where `wald list` and whoever restores can see them.
    pub async fn store_records(
        &self,
        repository: &Repository,
        records: &[GapRecord],
    ) -> Result<(), GiveUpError> {
        for record in records {
            let Ok(file) = WalFile::parse(&record.file) else {
                tracing::error!(
                    "WAL was given up, and the journal does not tell which: {}; the base backup is taken all the same",
                    record.file
                );
                continue;
            };
            let line = serde_json::to_vec(record);
            let body =
                line.map_err(|error| FsError::new("write", &self.journal, std::io::Error::from(error)))?;
            // Created or there already: the same loss is on record either way.
            repository.store().create(&ObjectKey::gap(file), body.into()).await?;
        }
        Ok(())
    }

    /// Takes `mended` off the journal; what was given up meanwhile stays.
    pub fn forget(&self, mended: &[GapRecord]) -> Result<(), GiveUpError> {
        let _lock = self.lock()?;
        let left: Vec<GapRecord> =
            self.records()?.into_iter().filter(|record| !mended.contains(record)).collect();
        let failed = |source: std::io::Error| FsError::new("rewrite", &self.journal, source);
        let mut text = Vec::new();
        for record in &left {
            serde_json::to_writer(&mut text, record).map_err(|error| failed(error.into()))?;
            text.push(b'\n');
        }
        let temporary = self.journal.with_extension("new");
        let mut file = File::create(&temporary).map_err(failed)?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(failed)?;
        std::fs::rename(&temporary, &self.journal).map_err(failed)?;
        Ok(())
    }
}

/// How many files are on record in a state directory as given up, and not yet mended. What can't be read
/// counts as none here; the agent's log tells of it.
pub fn count_on_record(state_dir: &Path) -> u64 {
    count(&state_dir.join(JOURNAL))
}

fn count(journal: &Path) -> u64 {
    read_journal(journal).map_or(0, |records| u64::try_from(records.len()).unwrap_or(u64::MAX))
}

/// Whether the last line has no end.
fn is_cut(journal: &File) -> std::io::Result<bool> {
    let Some(last) = journal.metadata()?.len().checked_sub(1) else { return Ok(false) };
    let mut end = [0];
    journal.read_exact_at(&mut end, last)?;
    Ok(end != *b"\n")
}

fn read_journal(journal: &Path) -> Result<Vec<GapRecord>, FsError> {
    let bytes = match std::fs::read(journal) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(FsError::new("read", journal, source)),
    };
    let text = String::from_utf8_lossy(&bytes);
    let lines = text.split_inclusive('\n').filter(|line| !line.trim().is_empty());
    let record = |line: &str| match serde_json::from_str(line) {
        Ok(record) => Some(record),
        // A last line that was cut off was never acknowledged. Any other may have been.
        Err(_) if !line.ends_with('\n') => None,
        Err(_) => {
            let file = format!("{ILLEGIBLE}{}", line.trim());
            Some(GapRecord { file, given_up_at: Timestamp::UNIX_EPOCH })
        }
    };
    Ok(lines.filter_map(record).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_was_cut_off_swallows_no_loss_and_is_itself_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let guard = QueueGuard::new(None, SegmentSize::DEFAULT, dir.path(), dir.path());
        let file = WalFile::parse("000000010000000000000002").unwrap();
        assert!(!guard.gives_up(file) && !guard.look(file).unwrap());
        std::fs::write(dir.path().join(JOURNAL), "{\"file\":\"0000").unwrap();
        assert_eq!(guard.records().unwrap(), []);
        guard.give_up(file, Timestamp::UNIX_EPOCH).unwrap();
        let records = guard.records().unwrap();
        let files: Vec<_> = records.iter().map(|record| record.file.as_str()).collect();
        assert_eq!(files, ["illegible: {\"file\":\"0000", "000000010000000000000002"]);
        assert_eq!(count_on_record(dir.path()), 2);
        guard.forget(&records[1..]).unwrap();
        assert_eq!(guard.records().unwrap(), records[..1]);
        guard.forget(&records).unwrap();
        assert_eq!(count_on_record(dir.path()), 0);
    }

    #[test]
    fn what_is_given_up_while_others_are_mended_stays_on_record() {
        let dir = tempfile::tempdir().unwrap();
        let guard = || QueueGuard::new(Some(1 << 20), SegmentSize::DEFAULT, dir.path(), dir.path());
        let file = |number: u32| WalFile::parse(&format!("0000000100000000000000{number:02X}")).unwrap();
        let first = guard();
        first.give_up(file(255), Timestamp::UNIX_EPOCH).unwrap();
        let mended = first.records().unwrap();
        std::thread::scope(|scope| {
            // As the agent and `wald archive-push` do.
            scope.spawn(|| {
                for number in 0..50 {
                    guard().give_up(file(number), Timestamp::UNIX_EPOCH).unwrap();
                }
            });
            scope.spawn(|| (0..50).for_each(|_| guard().forget(&mended).unwrap()));
        });
        assert_eq!(first.records().unwrap().len(), 50);
    }

    #[test]
    fn the_journal_keeps_every_loss_until_it_is_mended() {
        let dir = tempfile::tempdir().unwrap();
        let guard = QueueGuard::new(Some(1 << 20), SegmentSize::DEFAULT, dir.path(), dir.path());
        assert!(guard.records().unwrap().is_empty());
        let now = "2026-11-22T20:00:00Z".parse().unwrap();
        let file = |number: u32| WalFile::parse(&format!("0000000100000000000000{number:02X}")).unwrap();
        let reply: Reply = guard.give_up(file(1), now).unwrap().into();
        assert!(reply.exit_code == 0 && reply.message.contains("NOT ARCHIVED"));
        let mended = guard.records().unwrap();
        guard.give_up(file(2), now).unwrap();
        guard.forget(&mended).unwrap();
        let left = guard.records().unwrap();
        assert_eq!(
            left.iter().map(|record| record.file.as_str()).collect::<Vec<_>>(),
            ["000000010000000000000002"]
        );
    }
}
