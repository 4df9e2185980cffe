//! What a repository lists, as plans take it: versions, their locks, uploads that never ended.

use crate::object_lock::ObjectLock;
use jiff::Timestamp;

/// What a version is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VersionKind {
    /// Stored bytes.
    Object,
    /// The mark of a deletion, which hides the versions before it.
    DeleteMarker,
}

/// One version of one object. `V` is the repository's id of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListedVersion<V> {
    /// The object's name, relative to the repository's URL.
    pub name: String,
    /// Which version.
    pub id: V,
    /// Whether a plain read sees it.
    pub is_latest: bool,
    /// What it is.
    pub kind: VersionKind,
    /// Its size; 0 for a delete marker.
    pub size_bytes: u64,
    /// When it was stored, by the repository's clock.
    pub stored_at: Timestamp,
}

/// What is known of a version's lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LockState {
    /// Nothing: it was not asked for, or the answer did not come.
    NotKnown,
    /// It has none.
    Free,
    /// It has this one, which may have lapsed.
    Held(ObjectLock),
}

/// An upload in parts that was begun and neither completed nor aborted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListedUpload {
    /// The name that the object would have.
    pub name: String,
    /// When it was begun, by the repository's clock.
    pub begun: Timestamp,
}
