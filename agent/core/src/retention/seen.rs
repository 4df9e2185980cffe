//! What a listing shows beside the catalog and the WAL: records of which the newest counts, and
//! folders of backups that may have no catalog entry.

use super::name::ObjectName;
use crate::backup_id::BackupId;
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
}

impl Seen {
    /// Takes one listed object or version.
    pub fn note(&mut self, name: &str, stored_at: Timestamp) {
        let newest = match ObjectName::parse(name) {
            Some(ObjectName::Guarantees) => &mut self.guarantees,
            Some(ObjectName::Ledger) => &mut self.ledger,
            Some(ObjectName::Run) => &mut self.run,
            Some(ObjectName::BackupObject(id)) => {
                let newest = self.folders.entry(id).or_insert(stored_at);
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

    /// The folders, with the time of their last object.
    pub(super) fn folders(&self) -> impl Iterator<Item = (&BackupId, Timestamp)> {
        self.folders.iter().map(|(id, newest)| (id, *newest))
    }
}
