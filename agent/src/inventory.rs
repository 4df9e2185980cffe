//! What a repository holds, read into the pure types that plans and lists are made from.
//!
//! Invariant: nothing that could not be read is passed over in silence. A catalog entry or a
//! history that is damaged, or written by a newer wald, is named; where that is a warning and
//! where a refusal, the caller decides (`wald restore`: see [`needed`]). Reads only: lists, catalog entries and histories, never parts or segments.

mod needed;

use crate::explain;
use crate::repository::Repository;
use crate::store::{Store, StoreError};
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use std::collections::BTreeMap;
use wald_core::backup_id::BackupId;
use wald_core::catalog::{CATALOG_BYTES_MAX, CatalogEntry};
use wald_core::coverage::{CoverageBuilder, WalCoverage};

use wald_core::history::TimelineHistory;
use wald_core::object_key::{ObjectKey, WalObject};
use wald_core::recovery_plan::Holdings;
use wald_core::segment::SegmentSize;
use wald_core::system_id::SystemId;
use wald_core::timeline::TimelineId;
use wald_core::wal_file::WalFile;

/// Entries and histories that are read at the same time.
const READS_IN_FLIGHT: usize = 8;
/// A history has a line per promotion: this is room for thousands.
const HISTORY_BYTES_MAX: u64 = 1 << 20;
/// A proof is a hash and a name.
const PROOF_BYTES_MAX: u64 = 1 << 10;

/// Everything but the data itself.
#[derive(Debug)]
pub struct Inventory {
    /// The repository's cluster.
    pub system_id: SystemId,
    /// The backups, oldest first.
    pub catalog: Vec<CatalogEntry>,
    /// The histories that were archived.
    pub histories: BTreeMap<TimelineId, TimelineHistory>,
    /// The WAL.
    pub coverage: WalCoverage,
    /// What stands where an entry or a history should, and can't be understood.
    pub unreadable: Vec<Unreadable>,
    /// Objects among the catalog entries whose names are not those of entries.
    pub foreign_entries: Vec<String>,
}

/// An object that can't be understood.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Unreadable {
    /// The object.
    pub key: String,
    /// Why.
    pub reason: String,
    /// What it should be.
    #[serde(skip)]
    pub role: Role,
    /// It was listed, and was not there when it was read.
    #[serde(skip)]
    pub has_vanished: bool,
}

/// What an object that can't be understood should be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Role {
    /// The entry of this backup.
    Entry(BackupId),
    /// The history of this timeline.
    History(TimelineId),
}

/// Why there is no inventory.
#[derive(Debug, thiserror::Error)]
pub enum InventoryError {
    /// The repository could not be asked.
    #[error("can't read what the repository holds")]
    Store(#[from] StoreError),
    /// An object is damaged.
    #[error(
        "{key} can't be used: {reason}; a plan without it could miss what it says, so nothing is restored: \
         {instead}"
    )]
    Unreadable {
        /// The object.
        key: String,
        /// Why.
        reason: String,
        /// What can be done.
        instead: &'static str,
    },
}

/// How often a repository is listed while what is listed vanishes before it is read: `wald expire` may be at work.
/// After that it is damage.
const LOOKS_MAX: u32 = 3;

/// Reads the inventory of a repository.
pub async fn read(repository: &Repository) -> Result<Inventory, InventoryError> {
    settled(|| read_once(repository), |inventory| inventory).await
}

/// Lists and reads with `look`, again while what was listed vanishes before it is read.
pub async fn settled<T, E, F: Future<Output = Result<T, E>>>(
    look: impl Fn() -> F,
    inventory: impl Fn(&T) -> &Inventory,
) -> Result<T, E> {
    for _ in 1..LOOKS_MAX {
        let looked = look().await?;
        if !inventory(&looked).has_changed() {
            return Ok(looked);
        }
    }
    look().await
}

async fn read_once(repository: &Repository) -> Result<Inventory, InventoryError> {
    let mut names = Names::new(repository.segment_size());
    for prefix in [ObjectKey::CATALOG_PREFIX, ObjectKey::WAL_PREFIX] {
        let mut listed = repository.store().list(prefix);
        while let Some(object) = listed.try_next().await? {
            names.add(&object.name, object.stat.size_bytes, object.stat.modified);
        }
    }
    read_listed(repository, names).await
}

/// Reads the inventory of a repository that was listed already.
pub async fn read_listed(repository: &Repository, names: Names) -> Result<Inventory, InventoryError> {
    read_names(repository, names, |error| error.is_absent() || matches!(error, StoreError::TooLarge { .. }))
        .await
}

/// The same, where an object that can't be had for whatever reason is told as unreadable: for
/// work that has to be done as far as it can be.
pub async fn read_what_can_be_had(
    repository: &Repository,
    names: Names,
) -> Result<Inventory, InventoryError> {
    read_names(repository, names, |_| true).await
}

/// `is_told`: a failure that makes the object unreadable, and is not the end.
async fn read_names(
    repository: &Repository,
    names: Names,
    is_told: fn(&StoreError) -> bool,
) -> Result<Inventory, InventoryError> {
    let store = repository.store();
    let Names { backups, mut foreign_entries, coverage, timelines } = names;
    foreign_entries.sort();
    let Catalog { entries: catalog, damaged: mut unreadable } = read_catalog(store, backups, is_told).await?;
    let coverage = coverage.finish();
    let histories = read_histories(store, timelines, is_told, &mut unreadable).await?;
    Ok(Inventory {
        system_id: repository.system_id(),
        catalog,
        histories,
        coverage,
        unreadable,
        foreign_entries,
    })
}

impl Inventory {
    /// Whether something that was listed was gone when it was read, so that the listing is one of the past.
    fn has_changed(&self) -> bool {
        self.unreadable.iter().any(|object| object.has_vanished)
    }

    /// As plans take it.
    pub fn holdings(&self) -> Holdings<'_> {
        Holdings {
            system_id: self.system_id,
            catalog: &self.catalog,
            histories: &self.histories,
            coverage: &self.coverage,
        }
    }
}

/// What a listing says about backups and WAL.
#[derive(Debug)]
pub struct Names {
    backups: Vec<BackupId>,
    foreign_entries: Vec<String>,
    coverage: CoverageBuilder,
    /// Those whose history is stored.
    timelines: Vec<TimelineId>,
}

impl Names {
    /// Nothing was listed yet. The cluster's segments have this size.
    pub fn new(size: SegmentSize) -> Self {
        Self {
            backups: Vec::new(),
            foreign_entries: Vec::new(),
            coverage: CoverageBuilder::new(size),
            timelines: Vec::new(),
        }
    }

    /// Takes one listed object, in any order; each once.
    pub fn add(&mut self, name: &str, stored_bytes: u64, stored_at: Timestamp) {
        if name.starts_with(ObjectKey::CATALOG_PREFIX) {
            match entry_id(name) {
                Some(id) => self.backups.push(id),
                None => self.foreign_entries.push(name.to_owned()),
            }
            return;
        }
        match WalObject::parse(name) {
            Some(WalObject::File(WalFile::History(timeline))) => self.timelines.push(timeline),
            Some(WalObject::File(file)) => self.coverage.add(file, stored_bytes, stored_at),
            // Proofs are read with their files; what wald did not write is `wald verify`'s business.
            Some(WalObject::Proof(_)) | None => {}
        }
    }
}

/// What stands under `catalog/`.
struct Catalog {
    /// Oldest first.
    entries: Vec<CatalogEntry>,
    damaged: Vec<Unreadable>,
}

async fn read_catalog(
    store: &Store,
    ids: Vec<BackupId>,
    is_told: fn(&StoreError) -> bool,
) -> Result<Catalog, StoreError> {
    let reads = stream::iter(ids).map(|id| async move {
        let key = ObjectKey::catalog(&id);
        let problem = |reason| Unreadable {
            key: key.to_string(),
            reason,
            role: Role::Entry(id.clone()),
            has_vanished: false,
        };
        let json = match store.get(&key, CATALOG_BYTES_MAX).await {
            Ok(json) => json,
            Err(error) if is_told(&error) => {
                let has_vanished = error.is_absent();
                return Ok(Err(Unreadable { has_vanished, ..problem(explain::chain(&error)) }));
            }
            Err(error) => return Err(error),
        };
        Ok(match CatalogEntry::parse(&json) {
            Ok(entry) if *entry.id() == id => Ok(entry),
            Ok(entry) => Err(problem(format!("it is the entry of another backup, {}", entry.id()))),
            Err(error) => Err(problem(explain::chain(&error))),
        })
    });
    let read: Vec<_> = reads.buffer_unordered(READS_IN_FLIGHT).try_collect().await?;
    let (mut entries, mut damaged) = (Vec::new(), Vec::new());
    for result in read {
        match result {
            Ok(entry) => entries.push(entry),
            Err(problem) => damaged.push(problem),
        }
    }
    entries.sort_by(|a: &CatalogEntry, b| a.id().cmp(b.id()));
    damaged.sort_by(|a: &Unreadable, b| a.key.cmp(&b.key));
    Ok(Catalog { entries, damaged })
}

fn entry_id(name: &str) -> Option<BackupId> {
    let id = name.strip_prefix(ObjectKey::CATALOG_PREFIX)?.strip_suffix(".json")?;
    BackupId::parse(id).ok()
}

async fn read_histories(
    store: &Store,
    timelines: Vec<TimelineId>,
    is_told: fn(&StoreError) -> bool,
    damaged: &mut Vec<Unreadable>,
) -> Result<BTreeMap<TimelineId, TimelineHistory>, StoreError> {
    let reads = stream::iter(timelines).map(|timeline| async move {
        let file = WalFile::History(timeline);
        let key = ObjectKey::wal(file);
        let problem = |reason| Unreadable {
            key: key.to_string(),
            reason,
            role: Role::History(timeline),
            has_vanished: false,
        };
        let text = store.get(&key, HISTORY_BYTES_MAX).await;
        let proof = store.get(&ObjectKey::wal_proof(file), PROOF_BYTES_MAX).await;
        let (text, proof) = match (text, proof) {
            (Ok(text), Ok(proof)) => (text, proof),
            // The proof is stored before its file, so one without the other is damage.
            (Err(error), _) | (_, Err(error)) if is_told(&error) => {
                let has_vanished = error.is_absent();
                return Ok(Err(Unreadable { has_vanished, ..problem(explain::chain(&error)) }));
            }
            (Err(error), _) | (_, Err(error)) => return Err(error),
        };
        let expected = format!("{}  {file}\n", blake3::hash(&text).to_hex());
        if proof != expected.as_bytes() {
            let reason = "its BLAKE3 is not the one in its proof: it is damaged".to_owned();
            return Ok(Err(problem(reason)));
        }
        Ok(TimelineHistory::parse(timeline, &text).map_err(|error| problem(explain::chain(&error))))
    });
    let read: Vec<Result<TimelineHistory, Unreadable>> =
        reads.buffer_unordered(READS_IN_FLIGHT).try_collect().await?;
    let mut histories = BTreeMap::new();
    for result in read {
        match result {
            Ok(history) => {
                histories.insert(history.timeline(), history);
            }
            Err(problem) => damaged.push(problem),
        }
    }
    Ok(histories)
}

#[cfg(test)]
mod tests;
