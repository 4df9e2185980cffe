//! `wald list`: what is in the repository, for people and as JSON.
//!
//! The JSON is stable: fields are added, never renamed; sizes are bytes, positions and
//! timestamps are text, and `format` says which version this is.

mod print;

use crate::inventory::{Inventory, InventoryError, Unreadable, read};
use crate::repository::Repository;
use jiff::Timestamp;
use serde::Serialize;
use wald_core::backup_id::BackupId;
use wald_core::catalog::{CatalogEntry, Tablespace};
use wald_core::coverage::{Gap, SegmentRange};
use wald_core::lsn::Lsn;
use wald_core::recovery_window::{
    RecoveryWindow, Restorable, history_of, recovery_windows, restorable, timelines,
};
use wald_core::system_id::SystemId;
use wald_core::timeline::TimelineId;

/// The version of the JSON.
const LISTING_FORMAT: u32 = 1;

/// The options of `wald list`.
#[derive(clap::Args, Clone, Debug)]
pub struct ListArgs {
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

/// All that is listed.
#[derive(Clone, Debug, Serialize)]
pub struct Listing {
    /// The version of these fields.
    pub format: u32,
    /// The repository's URL, without credentials.
    pub repository: String,
    /// Which promise rests on what, where the server does not keep it: one sentence each.
    pub careful: Vec<String>,
    /// The cluster.
    pub system_id: SystemId,
    /// The size of its segments.
    pub segment_bytes: u32,
    /// The backups, oldest first.
    pub backups: Vec<ListedBackup>,
    /// The WAL, by timeline.
    pub timelines: Vec<ListedTimeline>,
    /// What can be recovered to.
    pub recovery_windows: Vec<RecoveryWindow>,
    /// Objects under `wal/` that no segment of this cluster can be.
    pub foreign_segments: u64,
    /// Objects under `catalog/` that are no entries by their names. They are ignored.
    pub foreign_entries: Vec<String>,
    /// Entries and histories that can't be understood.
    pub unreadable: Vec<Unreadable>,
}

/// A backup.
#[derive(Clone, Debug, Serialize)]
pub struct ListedBackup {
    /// Its name.
    pub id: BackupId,
    /// The timeline it was taken on.
    pub timeline: TimelineId,
    /// Where replay begins.
    pub start_lsn: Lsn,
    /// Where it is consistent.
    pub stop_lsn: Lsn,
    /// When it began.
    pub started_at: Timestamp,
    /// When it was consistent.
    pub stopped_at: Timestamp,
    /// How long it took, in whole seconds.
    pub duration_seconds: i64,
    /// The server's version, as 150018.
    pub pg_version_num: u32,
    /// Whether it was taken on a standby.
    pub from_standby: bool,
    /// Its label.
    pub label: String,
    /// Number of files.
    pub files: u64,
    /// Their size.
    pub raw_bytes: u64,
    /// Size of the parts in the repository.
    pub stored_bytes: u64,
    /// Its tablespaces.
    pub tablespaces: Vec<Tablespace>,
    /// What the check of the data pages' checksums found.
    pub checksums: ChecksumVerdict,
    /// Number of pages with a wrong checksum.
    pub bad_pages: usize,
    /// Whether all WAL that it needs to be consistent is there.
    pub wal_complete: bool,
}

/// What the check of the data pages' checksums found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ChecksumVerdict {
    /// All were right.
    Good,
    /// Some were wrong.
    Bad,
    /// The cluster has none.
    Off,
}

/// The WAL of a timeline.
#[derive(Clone, Debug, Serialize)]
pub struct ListedTimeline {
    /// The timeline.
    pub timeline: TimelineId,
    /// Its parent and where it was left; none for a first timeline, or without a history.
    pub parent: Option<Parent>,
    /// What is stored.
    pub ranges: Vec<SegmentRange>,
    /// What is missing between.
    pub gaps: Vec<Gap>,
}

/// Where a timeline comes from.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Parent {
    /// The parent.
    pub timeline: TimelineId,
    /// Where the new timeline begins.
    pub switch_point: Lsn,
}

/// Reads all that is listed.
pub async fn collect(repository: &Repository) -> Result<Listing, InventoryError> {
    let inventory = read(repository).await?;
    let careful = repository.weaknesses();
    Ok(Listing { careful, ..listing(repository.store().describe(), &inventory) })
}

fn listing(url: &str, inventory: &Inventory) -> Listing {
    let Inventory { catalog, histories, coverage, .. } = inventory;
    let mut all = timelines(catalog, histories);
    all.extend(coverage.timelines());
    let listed_timelines = all.into_iter().map(|timeline| ListedTimeline {
        timeline,
        parent: histories
            .get(&timeline)
            .and_then(|history| history.ancestors().last())
            .map(|ancestor| Parent { timeline: ancestor.timeline, switch_point: ancestor.switch_point }),
        ranges: coverage.ranges(timeline),
        gaps: coverage.gaps(timeline),
    });
    Listing {
        format: LISTING_FORMAT,
        repository: url.to_owned(),
        careful: Vec::new(),
        system_id: inventory.system_id,
        segment_bytes: coverage.segment_size().bytes(),
        backups: catalog.iter().map(|entry| listed_backup(entry, inventory)).collect(),
        timelines: listed_timelines.collect(),
        recovery_windows: recovery_windows(catalog, histories, coverage),
        foreign_segments: coverage.foreign_segments(),
        foreign_entries: inventory.foreign_entries.clone(),
        unreadable: inventory.unreadable.clone(),
    }
}

fn listed_backup(entry: &CatalogEntry, inventory: &Inventory) -> ListedBackup {
    let facts = entry.facts();
    let history = history_of(entry.timeline(), &inventory.histories);
    let checksums = match (facts.data_checksums, facts.bad_pages.is_empty()) {
        (_, false) => ChecksumVerdict::Bad,
        (true, true) => ChecksumVerdict::Good,
        (false, true) => ChecksumVerdict::Off,
    };
    ListedBackup {
        id: entry.id().clone(),
        timeline: entry.timeline(),
        start_lsn: entry.start_lsn(),
        stop_lsn: entry.stop_lsn(),
        started_at: facts.started_at,
        stopped_at: entry.stopped_at(),
        duration_seconds: facts.started_at.until(entry.stopped_at()).map_or(0, |span| span.get_seconds()),
        pg_version_num: facts.pg_version_num,
        from_standby: facts.from_standby,
        label: facts.label.clone(),
        files: entry.files(),
        raw_bytes: entry.raw_bytes(),
        stored_bytes: entry.stored_bytes(),
        tablespaces: facts.tablespaces.clone(),
        checksums,
        bad_pages: facts.bad_pages.len(),
        wal_complete: restorable(entry, &inventory.coverage, &history) != Restorable::No,
    }
}

#[cfg(test)]
mod tests;
