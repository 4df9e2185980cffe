//! What a repository holds, read into the pure types that plans and lists are made from.
//!
//! Invariant: nothing that could not be read is passed over in silence. A catalog entry or a
//! history that is damaged, or written by a newer wald, is named; whether that is a warning
//! (`wald list`) or a refusal (`wald restore`, see [`Inventory::whole`]) is the caller's
//! choice. Reads only: lists, catalog entries and histories, never parts or segments.

use crate::explain;
use crate::repository::Repository;
use crate::store::{Store, StoreError};
use futures::{StreamExt, TryStreamExt, stream};
use std::collections::BTreeMap;
use wald_core::backup_id::BackupId;
use wald_core::catalog::{CATALOG_BYTES_MAX, CatalogEntry};
use wald_core::coverage::{CoverageBuilder, WalCoverage};
use wald_core::history::TimelineHistory;
use wald_core::object_key::{ObjectKey, WalObject};
use wald_core::recovery_plan::Holdings;
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
}

/// An object that can't be understood.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Unreadable {
    /// The object.
    pub key: String,
    /// Why.
    pub reason: String,
}

/// Why there is no inventory.
#[derive(Debug, thiserror::Error)]
pub enum InventoryError {
    /// The repository could not be asked.
    #[error("can't read what the repository holds")]
    Store(#[from] StoreError),
    /// An object is damaged.
    #[error(
        "{key} can't be used: {reason}; a plan without it could miss what it says, so nothing is restored"
    )]
    Unreadable {
        /// The object.
        key: String,
        /// Why.
        reason: String,
    },
}

/// Reads the inventory of a repository.
pub async fn read(repository: &Repository) -> Result<Inventory, InventoryError> {
    let store = repository.store();
    let (catalog, wal) = futures::try_join!(read_catalog(store), list_wal(repository))?;
    let (catalog, mut unreadable) = catalog;
    let (coverage, timelines) = wal;
    let histories = read_histories(store, timelines, &mut unreadable).await?;
    Ok(Inventory { system_id: repository.system_id(), catalog, histories, coverage, unreadable })
}

impl Inventory {
    /// The inventory, if nothing in it is unreadable.
    pub fn whole(self) -> Result<Self, InventoryError> {
        match self.unreadable.first() {
            None => Ok(self),
            Some(Unreadable { key, reason }) => {
                Err(InventoryError::Unreadable { key: key.clone(), reason: reason.clone() })
            }
        }
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

/// All catalog entries, oldest first, and what stands between them without being one.
async fn read_catalog(store: &Store) -> Result<(Vec<CatalogEntry>, Vec<Unreadable>), StoreError> {
    let listed: Vec<_> = store.list(ObjectKey::CATALOG_PREFIX).try_collect().await?;
    let reads = stream::iter(listed).map(|object| async move {
        let Some(id) = entry_id(&object.name) else {
            let reason = "its name is not that of a catalog entry".to_owned();
            return Ok(Err(Unreadable { key: object.name, reason }));
        };
        let key = ObjectKey::catalog(&id);
        let json = match store.get(&key, CATALOG_BYTES_MAX).await {
            Ok(json) => json,
            Err(error @ StoreError::TooLarge { .. }) => return Ok(Err(unreadable(&key, &error))),
            Err(error) => return Err(error),
        };
        Ok(match CatalogEntry::parse(&json) {
            Ok(entry) if *entry.id() == id => Ok(entry),
            Ok(entry) => {
                let reason = format!("it is the entry of another backup, {}", entry.id());
                Err(Unreadable { key: key.to_string(), reason })
            }
            Err(error) => Err(unreadable(&key, &error)),
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
    Ok((entries, damaged))
}

fn entry_id(name: &str) -> Option<BackupId> {
    let id = name.strip_prefix(ObjectKey::CATALOG_PREFIX)?.strip_suffix(".json")?;
    BackupId::parse(id).ok()
}

fn unreadable(key: &ObjectKey, error: &(dyn std::error::Error + 'static)) -> Unreadable {
    Unreadable { key: key.to_string(), reason: explain::chain(error) }
}

/// The segments, and the timelines whose history is stored.
async fn list_wal(repository: &Repository) -> Result<(WalCoverage, Vec<TimelineId>), StoreError> {
    let mut builder = CoverageBuilder::new(repository.segment_size());
    let mut timelines = Vec::new();
    let mut listed = repository.store().list(ObjectKey::WAL_PREFIX);
    while let Some(object) = listed.try_next().await? {
        match WalObject::parse(&object.name) {
            Some(WalObject::File(WalFile::History(timeline))) => timelines.push(timeline),
            Some(WalObject::File(file)) => builder.add(file, object.stat.size_bytes, object.stat.modified),
            // Proofs are read with their files; what wald did not write is `wald verify`'s business.
            Some(WalObject::Proof(_)) | None => {}
        }
    }
    Ok((builder.finish(), timelines))
}

async fn read_histories(
    store: &Store,
    timelines: Vec<TimelineId>,
    damaged: &mut Vec<Unreadable>,
) -> Result<BTreeMap<TimelineId, TimelineHistory>, StoreError> {
    let reads = stream::iter(timelines).map(|timeline| async move {
        let file = WalFile::History(timeline);
        let key = ObjectKey::wal(file);
        let text = store.get(&key, HISTORY_BYTES_MAX).await;
        let proof = store.get(&ObjectKey::wal_proof(file), PROOF_BYTES_MAX).await;
        let (text, proof) = match (text, proof) {
            (Ok(text), Ok(proof)) => (text, proof),
            // The proof is stored before its file, so one without the other is damage.
            (Err(error), _) | (_, Err(error)) if error.is_absent() => {
                return Ok(Err(unreadable(&key, &error)));
            }
            (Err(error @ StoreError::TooLarge { .. }), _) | (_, Err(error @ StoreError::TooLarge { .. })) => {
                return Ok(Err(unreadable(&key, &error)));
            }
            (Err(error), _) | (_, Err(error)) => return Err(error),
        };
        let expected = format!("{}  {file}\n", blake3::hash(&text).to_hex());
        if proof != expected.as_bytes() {
            let reason = "its BLAKE3 is not the one in its proof: it is damaged".to_owned();
            return Ok(Err(Unreadable { key: key.to_string(), reason }));
        }
        Ok(TimelineHistory::parse(timeline, &text).map_err(|error| unreadable(&key, &error)))
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
