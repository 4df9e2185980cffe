//! One listing of the whole repository, versions and delete markers included, and no request per
//! object.

use crate::inventory::Names;
use crate::repository::Repository;
use crate::store::{StoreError, VersionKind};
use futures::TryStreamExt;
use jiff::Timestamp;
use wald_core::ledger::{Object, Objects};
use wald_core::retention::Seen;

/// What the listing showed.
#[derive(Debug)]
pub(super) struct Survey {
    /// The version of each object that a plain read sees, or would see but for a delete marker.
    pub objects: Objects,
    /// Objects of which there is more than one version, or which somebody deleted.
    pub odd: Vec<Odd>,
    /// Backups and WAL, for the inventory; without what a delete marker hides.
    pub names: Names,
    /// Records and folders, for retention.
    pub seen: Seen,
}

/// An object that is not just there once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Odd {
    pub name: Box<str>,
    /// Its versions, the newest first; delete markers are none.
    pub versions: Vec<Box<str>>,
    /// Whether a delete marker is the newest.
    pub hidden: bool,
}

/// A version as it was listed.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Listed {
    name: Box<str>,
    version: Box<str>,
    /// None: a delete marker.
    bytes: Option<u64>,
    is_latest: bool,
    stored_at: Timestamp,
}

/// Lists everything.
pub(super) async fn survey(repository: &Repository) -> Result<Survey, StoreError> {
    let mut listed = Vec::new();
    let mut versions = repository.store().versions("");
    while let Some(version) = versions.try_next().await? {
        listed.push(Listed {
            name: version.name.into(),
            version: version.version.as_str().into(),
            bytes: match version.kind {
                VersionKind::Object { size_bytes } => Some(size_bytes),
                VersionKind::DeleteMarker => None,
            },
            is_latest: version.is_latest,
            stored_at: version.modified,
        });
    }
    Ok(sort_out(listed, Names::new(repository.segment_size())))
}

fn sort_out(mut listed: Vec<Listed>, mut names: Names) -> Survey {
    let mut seen = Seen::default();
    // The newest first, whatever the order of the listing.
    listed.sort_by(|a, b| {
        let newest = |of: &Listed| (of.is_latest, of.stored_at);
        a.name.cmp(&b.name).then_with(|| newest(b).cmp(&newest(a)))
    });
    let (mut objects, mut odd) = (Vec::with_capacity(listed.len()), Vec::new());
    for versions in listed.chunk_by(|a, b| a.name == b.name) {
        let stored = || versions.iter().filter_map(|version| Some((version, version.bytes?)));
        // Delete markers alone hide nothing.
        let Some((newest, bytes)) = stored().next() else { continue };
        let hidden = versions.first().is_some_and(|first| first.bytes.is_none());
        seen.note(&newest.name, (!hidden).then_some(bytes), newest.stored_at);
        if !hidden {
            names.add(&newest.name, bytes, newest.stored_at);
        }
        if hidden || stored().count() > 1 {
            let versions = stored().map(|(version, _)| version.version.clone()).collect();
            odd.push(Odd { name: newest.name.clone(), versions, hidden });
        }
        objects.push(Object::listed(&newest.name, &newest.version, bytes, newest.stored_at));
    }
    Survey { objects: Objects::new(objects), odd, names, seen }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wald_core::segment::SegmentSize;

    fn listed(name: &str, version: &str, bytes: Option<u64>, is_latest: bool, second: i64) -> Listed {
        let stored_at = Timestamp::from_second(second).unwrap();
        Listed { name: name.into(), version: version.into(), bytes, is_latest, stored_at }
    }

    #[test]
    fn what_was_overwritten_or_deleted_is_odd_and_a_lone_marker_is_nothing() {
        let Survey { objects, odd, .. } = sort_out(
            vec![
                listed("b", "1", Some(5), false, 1),
                listed("a", "1", Some(4), true, 1),
                listed("b", "2", Some(6), true, 2),
                listed("c", "m", None, true, 3),
                listed("c", "1", Some(7), false, 1),
                listed("d", "m", None, true, 3),
            ],
            Names::new(SegmentSize::DEFAULT),
        );
        let found: Vec<_> = objects.iter().map(|o| (&*o.name, &*o.version, o.bytes)).collect();
        assert_eq!(found, [("a", "1", 4), ("b", "2", 6), ("c", "1", 7)]);
        let versions = |of: &[&str]| of.iter().map(|version| (*version).into()).collect();
        let expected = [
            Odd { name: "b".into(), versions: versions(&["2", "1"]), hidden: false },
            Odd { name: "c".into(), versions: versions(&["1"]), hidden: true },
        ];
        assert_eq!(odd, expected);
    }
}
