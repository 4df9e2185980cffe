//! Puts what is not needed into the order in which it can go.

use super::name::ObjectName;
use super::need::Unneeded;
use super::plan::Removal;
use super::version::ListedVersion;
use crate::backup_id::BackupId;
use crate::object_key::WalObject;
use crate::segment::SegmentName;
use jiff::Timestamp;
use std::collections::BTreeMap;

/// What is not needed, by what it belongs to.
#[derive(Default)]
pub(super) struct Groups {
    /// Each backup with all its versions.
    pub backups: BTreeMap<BackupId, Vec<Removal>>,
    /// WAL, proofs of it and records of gaps, each with the segment that it is about.
    pub wal: Vec<(SegmentName, Removal)>,
    /// What belongs to nothing.
    pub rest: Vec<Removal>,
}

impl Groups {
    /// Takes a version.
    pub fn add<V>(&mut self, index: usize, version: &ListedVersion<V>, why: Unneeded) {
        let removal = Removal { version: index, why };
        match (ObjectName::parse(&version.name), &removal.why) {
            (
                Some(ObjectName::Catalog(id) | ObjectName::BackupObject(id)),
                Unneeded::ExpiredBackup { .. },
            ) => {
                self.backups.entry(id).or_default().push(removal);
            }
            (Some(name), _) => match name.segment() {
                Some(segment) => self.wal.push((segment, removal)),
                None => self.rest.push(removal),
            },
            (None, _) => {}
        }
    }

    /// Sorts: backups and WAL oldest first; a WAL file before its proof, because a proof without
    /// its file is what an interrupted archiving leaves too, and a file without its proof is
    /// damage; of one name first what a plain read does not see, so that nothing older
    /// reappears for a moment.
    pub fn sort<V>(&mut self, versions: &[ListedVersion<V>]) {
        for group in self.backups.values_mut() {
            group.sort_by_key(|removal| key(versions, removal));
        }
        self.wal.sort_by_cached_key(|(segment, removal)| {
            let key = key(versions, removal);
            (*segment, key.map(|(name, _, _)| is_proof(name)), key)
        });
        self.rest.sort_by_key(|removal| key(versions, removal));
    }
}

fn key<'a, V>(versions: &'a [ListedVersion<V>], removal: &Removal) -> Option<(&'a str, bool, Timestamp)> {
    let version = versions.get(removal.version)?;
    Some((version.name.as_str(), version.is_latest, version.stored_at))
}

fn is_proof(name: &str) -> bool {
    matches!(ObjectName::parse(name), Some(ObjectName::Wal(WalObject::Proof(_))))
}
