//! What seems to be missing is asked for once more before it is told: a segment may have been stored
//! after its neighbour, while the repository was being listed.

use super::presence::{Found, Hole};
use super::report::Unread;
use crate::explain;
use crate::store::{Store, StoreError};
use futures::{StreamExt, stream};
use wald_core::ledger::Damage;
use wald_core::object_key::{ObjectKey, WalObject};
use wald_core::retention::ObjectName;
use wald_core::segment::{SegmentName, SegmentSize};
use wald_core::wal_file::WalFile;

/// Requests at the same time.
const REQUESTS_IN_FLIGHT: usize = 16;
/// A hole of more segments is no matter of moments.
const HOLE_ASKED_MAX: u64 = 64;

/// What asking again gave.
#[derive(Debug, Default)]
pub(super) struct Confirmed {
    pub found: Vec<Found>,
    pub holes: Vec<Hole>,
    pub unread: Vec<Unread>,
}

enum Answer {
    Absent,
    Deleted,
    There,
    Unknown(String),
}

async fn ask(store: &Store, key: &ObjectKey) -> Answer {
    match store.stat(key).await {
        Ok(_) => Answer::There,
        Err(StoreError::Absent { .. }) => Answer::Absent,
        Err(StoreError::Deleted { .. }) => Answer::Deleted,
        Err(error) => Answer::Unknown(explain::chain(&error)),
    }
}

/// Keeps the findings that still hold, and the holes that still are.
pub(super) async fn confirm(
    store: &Store,
    found: Vec<Found>,
    holes: impl IntoIterator<Item = Hole>,
    size: SegmentSize,
) -> Confirmed {
    let mut confirmed = Confirmed::default();
    let asked = stream::iter(found).map(|found| async move {
        let missing = matches!(found.damage, Damage::Missing { .. });
        let answer = match key_of(&found.object).filter(|_| missing) {
            Some(key) => ask(store, &key).await,
            None => Answer::Absent,
        };
        (found, answer)
    });
    let mut asked = asked.buffered(REQUESTS_IN_FLIGHT);
    while let Some((found, answer)) = asked.next().await {
        match answer {
            // Told segment by segment below.
            _ if matches!(found.damage, Damage::MissingWal { .. }) => {}
            Answer::Absent => confirmed.found.push(found),
            Answer::Deleted => confirmed.found.push(Found { damage: Damage::Deleted, ..found }),
            Answer::There => {}
            Answer::Unknown(problem) => confirmed.unread.push(Unread { object: found.object, problem }),
        }
    }
    for hole in holes {
        confirm_hole(store, hole, size, &mut confirmed).await;
    }
    confirmed
}

async fn confirm_hole(store: &Store, hole: Hole, size: SegmentSize, confirmed: &mut Confirmed) {
    let mut left: Vec<Hole> = Vec::new();
    if hole.last - hole.first >= HOLE_ASKED_MAX {
        left.push(hole);
    } else {
        for number in hole.first..=hole.last {
            let Some(name) = SegmentName::from_number(hole.timeline, number, size) else { continue };
            let key = ObjectKey::wal(WalFile::Segment(name));
            match ask(store, &key).await {
                Answer::There => {}
                Answer::Absent | Answer::Deleted => match left.last_mut() {
                    Some(last) if last.last + 1 == number => last.last = number,
                    _ => left.push(Hole { first: number, last: number, ..hole }),
                },
                Answer::Unknown(problem) => {
                    confirmed.unread.push(Unread { object: key.to_string(), problem });
                }
            }
        }
    }
    for hole in left {
        let name = |number| SegmentName::from_number(hole.timeline, number, size);
        let Some((first, last)) = name(hole.first).zip(name(hole.last)) else { continue };
        let damage = Damage::MissingWal { last: last.to_string(), segments: hole.last - hole.first + 1 };
        let object = ObjectKey::wal(WalFile::Segment(first)).to_string();
        // A delete marker on it says more.
        if !confirmed.found.iter().any(|found| found.object == object) {
            confirmed.found.push(Found { object, damage });
        }
        confirmed.holes.push(hole);
    }
}

/// The key of an object by its name, if it is one that wald writes.
pub(super) fn key_of(name: &str) -> Option<ObjectKey> {
    let key = match ObjectName::parse(name)? {
        ObjectName::Identity => ObjectKey::identity(),
        ObjectName::Wal(WalObject::File(file)) => ObjectKey::wal(file),
        ObjectName::Wal(WalObject::Proof(file)) => ObjectKey::wal_proof(file),
        ObjectName::Gap(file) => ObjectKey::gap(file),
        ObjectName::Catalog(id) => ObjectKey::catalog(&id),
        ObjectName::BackupObject(id) => ObjectKey::backup_object(&id, name.rsplit_once('/')?.1).ok()?,
        ObjectName::Guarantees | ObjectName::Trial | ObjectName::Ledger | ObjectName::Run => return None,
    };
    (key.as_str() == name).then_some(key)
}
