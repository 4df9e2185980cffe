//! What is known about a backup that exists, for whoever asked for it.

use jiff::Timestamp;
use std::time::Duration;
use wald_core::backup_id::BackupId;
use wald_core::catalog::{BadPage, CatalogFacts, Part};
use wald_core::lsn::Lsn;
use wald_core::timeline::TimelineId;

/// A backup that exists.
#[derive(Clone, Debug)]
pub struct BackupReport {
    /// Its name.
    pub id: BackupId,
    /// Its timeline.
    pub timeline: TimelineId,
    /// Where replay begins.
    pub start_lsn: Lsn,
    /// From where on the restored cluster is consistent.
    pub stop_lsn: Lsn,
    /// The server's clock at the end: the earliest time that it can be restored to.
    pub stopped_at: Timestamp,
    /// Number of files.
    pub files: u64,
    /// Their bytes.
    pub raw_bytes: u64,
    /// Bytes of the parts in the repository.
    pub stored_bytes: u64,
    /// Number of parts.
    pub parts: usize,
    /// WAL segments that restoring it needs at least.
    pub wal_segments: usize,
    /// Damaged pages. The backup exists; what it restores has them too.
    pub bad_pages: Vec<BadPage>,
    /// From beginning to end.
    pub took: Duration,
    /// Of that, waiting for WAL.
    pub waited_for_wal: Duration,
}

impl BackupReport {
    /// What the catalog says, and what only this run knows.
    pub(super) fn new(
        facts: &CatalogFacts,
        wal_segments: usize,
        took: Duration,
        waited_for_wal: Duration,
    ) -> Self {
        let sum = |value: fn(&Part) -> u64| facts.parts.iter().map(value).fold(0u64, u64::saturating_add);
        Self {
            id: facts.id.clone(),
            timeline: facts.timeline,
            start_lsn: facts.start_lsn,
            stop_lsn: facts.stop_lsn,
            stopped_at: facts.stopped_at,
            files: sum(|part| part.files),
            raw_bytes: sum(|part| part.raw_bytes),
            stored_bytes: sum(|part| part.stored_bytes),
            parts: facts.parts.len(),
            wal_segments,
            bad_pages: facts.bad_pages.clone(),
            took,
            waited_for_wal,
        }
    }
}
