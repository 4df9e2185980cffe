//! What a listing of versions says to retention, before anything is decided.
//!
//! A delete marker hides an object and removes nothing. So WAL that is hidden counts as stored:
//! otherwise a line would seem to end where somebody, or some thing, deleted a segment by name,
//! and everything behind would seem superfluous. A hidden catalog entry or history can't be
//! read, which is not the same as not being there.

use super::name::ObjectName;
use super::seen::Seen;
use super::version::{ListedVersion, VersionKind};
use crate::coverage::{CoverageBuilder, WalCoverage};
use crate::object_key::WalObject;
use crate::segment::SegmentSize;
use crate::wal_file::WalFile;
use jiff::Timestamp;
use std::collections::BTreeMap;

/// What the versions of one name have in common.
#[derive(Clone, Copy, Debug, Default)]
struct Name {
    /// When the newest object was stored; none: there are only markers.
    object: Option<Timestamp>,
    /// When the first object was stored.
    first: Option<Timestamp>,
    /// How many objects there are.
    objects: usize,
    /// The size that all objects have; none, if they differ.
    bytes: Option<u64>,
    /// When the newest marker was stored.
    marker: Option<Timestamp>,
    /// Whether a plain read finds nothing.
    hidden: bool,
}

/// A listing, understood.
#[derive(Debug)]
pub struct Survey<'a> {
    names: BTreeMap<&'a str, Name>,
}

impl<'a> Survey<'a> {
    /// Goes through a listing, in any order.
    pub fn of<V>(versions: &'a [ListedVersion<V>]) -> Self {
        let mut names: BTreeMap<&str, Name> = BTreeMap::new();
        for version in versions {
            let name = names.entry(&version.name).or_default();
            match version.kind {
                VersionKind::Object => {
                    name.first =
                        Some(name.first.map_or(version.stored_at, |first| first.min(version.stored_at)));
                    name.object = name.object.max(Some(version.stored_at));
                    let size = Some(version.size_bytes);
                    name.bytes =
                        if name.objects == 0 { size } else { name.bytes.filter(|_| name.bytes == size) };
                    name.objects += 1;
                }
                VersionKind::DeleteMarker => {
                    name.marker = name.marker.max(Some(version.stored_at));
                    name.hidden |= version.is_latest;
                }
            }
        }
        Self { names }
    }

    /// The WAL that is stored, hidden or not.
    pub fn coverage(&self, size: SegmentSize) -> WalCoverage {
        let mut builder = CoverageBuilder::new(size);
        for (name, found) in &self.names {
            if let (Some(WalObject::File(file)), Some(stored_at)) = (WalObject::parse(name), found.object) {
                builder.add(file, 0, stored_at);
            }
        }
        builder.finish()
    }

    /// What is stored beside the catalog and the WAL.
    pub fn seen(&self) -> Seen {
        let mut seen = Seen::default();
        for (name, found) in &self.names {
            if let Some(stored_at) = found.stored_at() {
                seen.note(name, found.bytes.filter(|_| !found.hidden), stored_at);
            }
        }
        seen
    }

    /// Catalog entries and histories that a delete marker hides.
    pub fn hidden(&self) -> Vec<String> {
        self.deciding(|found| found.hidden && found.object.is_some())
    }

    /// Catalog entries and histories that were stored more than once. If not all say the same,
    /// none of them can be believed.
    pub fn contested(&self) -> Vec<String> {
        self.deciding(|found| found.objects > 1)
    }

    /// The names of what decides which other objects are needed.
    fn deciding(&self, which: impl Fn(&Name) -> bool) -> Vec<String> {
        let decides = |name: &str| match ObjectName::parse(name) {
            Some(ObjectName::Catalog(_)) => true,
            Some(ObjectName::Wal(WalObject::File(file) | WalObject::Proof(file))) => {
                matches!(file, WalFile::History(_))
            }
            _ => false,
        };
        let found = self.names.iter().filter(|(_, found)| which(found)).map(|(name, _)| *name);
        found.filter(|name| decides(name)).map(str::to_owned).collect()
    }

    /// Whether the versions of a name hold any bytes.
    pub(super) fn has_object(&self, name: &str) -> bool {
        self.names.get(name).is_some_and(|found| found.object.is_some())
    }

    /// Whether nothing was stored under this name before.
    pub(super) fn is_first(&self, name: &str, stored_at: Timestamp) -> bool {
        self.names.get(name).and_then(|found| found.first).is_none_or(|first| stored_at <= first)
    }

    /// When a name was stored, by which all of its versions are judged. They have one fate.
    pub(super) fn stored_at(&self, name: &str) -> Option<Timestamp> {
        self.names.get(name).and_then(Name::stored_at)
    }
}

impl Name {
    /// A marker makes nothing younger: it is removed, and must not change what is needed.
    fn stored_at(&self) -> Option<Timestamp> {
        self.object.or(self.marker)
    }
}
