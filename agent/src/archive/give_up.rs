//! `archive.queue_max`: WAL that is acknowledged although it is not archived.
//!
//! Off unless configured. Invariants: a [`GivenUp`] exists only after the loss was written to a
//! journal and fsynced, so that no gap is ever forgotten, and it is the only reply "done" beside
//! that of a [`Durable`](super::confirm::Durable); the journal is emptied only when the
//! repository has the records and a new base backup has closed the gap behind it.
//!
//! When and what is decided by `wald_core::queue`.

use super::admit::PgWal;
use crate::fs::FsError;
use crate::repository::Repository;
use crate::store::StoreError;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::Write;
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
    limit: Mutex<QueueLimit>,
    pg_wal: PgWal,
    journal: PathBuf,
}

impl QueueGuard {
    /// A guard of `data_dir`'s queue, with its journal in `state_dir`.
    pub fn new(bytes_max: u64, size: SegmentSize, data_dir: &Path, state_dir: &Path) -> Self {
        Self {
            limit: Mutex::new(QueueLimit::new(bytes_max, size)),
            pg_wal: PgWal::of(data_dir),
            journal: state_dir.join("given-up.jsonl"),
        }
    }

    /// Whether `file` belongs to a stretch that is given up already.
    pub fn gives_up(&self, file: WalFile) -> bool {
        self.limit.lock().unwrap_or_else(PoisonError::into_inner).gives_up(file)
    }

    /// After a failure: is too much waiting? Then `file` may be part of what is given up.
    pub fn look(&self, file: WalFile) -> Result<bool, FsError> {
        let backlog = self.pg_wal.backlog()?;
        let mut limit = self.limit.lock().unwrap_or_else(PoisonError::into_inner);
        limit.look(Waiting { files: backlog.files, newest: backlog.newest_segment });
        Ok(limit.gives_up(file))
    }

    /// Puts the loss of `file` on record, durably.
    pub fn give_up(&self, file: WalFile, now: Timestamp) -> Result<GivenUp, GiveUpError> {
        let record = GapRecord { file: file.to_string(), given_up_at: now };
        let failed = |source: std::io::Error| FsError::new("write", &self.journal, source);
        let mut line = serde_json::to_vec(&record).map_err(|error| failed(error.into()))?;
        line.push(b'\n');
        let mut journal = OpenOptions::new().create(true).append(true).open(&self.journal).map_err(failed)?;
        journal.write_all(&line).and_then(|()| journal.sync_all()).map_err(failed)?;
        let directory = self.journal.parent().unwrap_or(Path::new("/"));
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)?;
        Ok(GivenUp { file })
    }

    /// What is on record and not yet mended.
    pub fn records(&self) -> Result<Vec<GapRecord>, GiveUpError> {
        let text = match std::fs::read_to_string(&self.journal) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(FsError::new("read", &self.journal, source).into()),
        };
        // A last line cut off by a crash was never acknowledged.
        Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    /// Stores `records` in the repository, where `wald list` and whoever restores can see them.
    pub async fn store_records(
        &self,
        repository: &Repository,
        records: &[GapRecord],
    ) -> Result<(), GiveUpError> {
        for record in records {
            let Ok(file) = WalFile::parse(&record.file) else { continue };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_keeps_every_loss_until_it_is_mended() {
        let dir = tempfile::tempdir().unwrap();
        let guard = QueueGuard::new(1 << 20, SegmentSize::DEFAULT, dir.path(), dir.path());
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
