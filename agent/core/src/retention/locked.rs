//! Whether a version can be deleted, and what it waits for if not.

use super::version::{LockState, VersionKind};
use crate::backup_id::BackupId;
use jiff::Timestamp;

/// What keeps something that is not needed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WaitsFor {
    /// Its own lock, until then.
    Lock(Timestamp),
    /// Its own lock, of which nothing is known.
    UnknownLock,
    /// A backup that is as little needed, some object of which is locked until then, if that is
    /// known.
    Backup(BackupId, Option<Timestamp>),
}

/// Whether a version can be deleted now, the worst last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Locked {
    No,
    Until(Timestamp),
    Unknown,
}

impl Locked {
    pub fn of(kind: VersionKind, lock: LockState, now: Timestamp) -> Self {
        match (kind, lock) {
            // A marker can't be locked.
            (VersionKind::DeleteMarker, _) | (_, LockState::Free) => Locked::No,
            (_, LockState::Held(lock)) if lock.until <= now => Locked::No,
            (_, LockState::Held(lock)) => Locked::Until(lock.until),
            (_, LockState::NotKnown) => Locked::Unknown,
        }
    }

    pub fn until(self) -> Option<Timestamp> {
        match self {
            Locked::Until(until) => Some(until),
            Locked::No | Locked::Unknown => None,
        }
    }

    pub fn waits(self) -> Option<WaitsFor> {
        match self {
            Locked::No => None,
            Locked::Until(until) => Some(WaitsFor::Lock(until)),
            Locked::Unknown => Some(WaitsFor::UnknownLock),
        }
    }
}
