//! What a listing shows beside the catalog and the WAL: records of which the newest counts, and
//! folders of backups that may have no catalog entry.

use super::name::ObjectName;
use crate::backup_id::BackupId;
use crate::catalog::CatalogEntry;
use jiff::Timestamp;
use std::collections::BTreeMap;

/// Collected from a listing, name by name, in any order. Without it, records are kept by their
/// age alone.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    guarantees: Option<String>,
    ledger: Option<String>,
    run: Option<String>,
    /// When the last object of each backup's folder was stored.
    folders: BTreeMap<BackupId, Timestamp>,
    /// When each backup's catalog entry was stored.
    entries: BTreeMap<BackupId, Timestamp>,
    /// The size of each object of a backup that a plain read finds; none, if its versions differ.
    sizes: BTreeMap<String, Option<u64>>,
}

impl Seen {
    /// Takes one listed object or version. `bytes` is its size; none, if a plain read does not
    /// find it.
    pub fn note(&mut self, name: &str, bytes: Option<u64>, stored_at: Timestamp) {
        let newest = match ObjectName::parse(name) {
            Some(ObjectName::Guarantees) => &mut self.guarantees,
            Some(ObjectName::Ledger) => &mut self.ledger,
            Some(ObjectName::Run) => &mut self.run,
            Some(ObjectName::BackupObject(id)) => {
                let newest = self.folders.entry(id).or_insert(stored_at);
                *newest = stored_at.max(*newest);
                let size = self.sizes.entry(name.to_owned()).or_insert(bytes);
                *size = size.filter(|known| bytes == Some(*known));
                return;
            }
            Some(ObjectName::Catalog(id)) => {
                let newest = self.entries.entry(id).or_insert(stored_at);
                *newest = stored_at.max(*newest);
                return;
            }
            _ => return,
        };
        if newest.as_deref().is_none_or(|newest| newest < name) {
            *newest = Some(name.to_owned());
        }
    }

    /// Whether this is the newest record of its kind.
    pub(super) fn is_newest(&self, name: &str) -> bool {
        [&self.guarantees, &self.ledger, &self.run].into_iter().any(|newest| newest.as_deref() == Some(name))
    }

    /// When the last object of a backup's folder was stored.
    pub(super) fn last_added(&self, id: &BackupId) -> Option<Timestamp> {
        self.folders.get(id).copied()
    }

    /// When a backup's catalog entry was stored.
    pub(super) fn entered(&self, id: &BackupId) -> Option<Timestamp> {
        self.entries.get(id).copied()
    }

    /// The backups that have a catalog entry, readable or not.
    pub(super) fn entries(&self) -> impl Iterator<Item = &BackupId> {
        self.entries.keys()
    }

    /// The first object of a backup that is not there, or not of the size that the entry says.
    pub(super) fn missing_of(&self, entry: &CatalogEntry) -> Option<String> {
        let parts = entry.parts().iter().map(|part| (part.name.as_str(), part.stored_bytes));
        let others = [&entry.facts().manifest, &entry.facts().file_list];
        let others = others.into_iter().map(|object| (object.name.as_str(), object.stored_bytes));
        let is_there = |name: &str, bytes: u64| {
            let key = entry.object_key(name).ok();
            key.and_then(|key| self.sizes.get(key.as_str()).copied().flatten()) == Some(bytes)
        };
        parts.chain(others).find(|(name, bytes)| !is_there(name, *bytes)).map(|(name, _)| name.to_owned())
    }

    /// The folders, with the time of their last object.
    pub(super) fn folders(&self) -> impl Iterator<Item = (&BackupId, Timestamp)> {
        self.folders.iter().map(|(id, newest)| (id, *newest))
    }
}
