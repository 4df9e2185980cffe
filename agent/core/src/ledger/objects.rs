//! The objects of a repository with what is known of each.
//!
//! Sized for hundreds of thousands: about 200 bytes each, sorted by name, no second index.

use super::Depth;
use crate::object_lock::{LockMode, ObjectLock};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// One object: the version that a plain read sees, and what was proven of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Object {
    /// Its name, relative to the repository's URL.
    pub name: Box<str>,
    /// The version's id.
    pub version: Box<str>,
    /// Its size.
    pub bytes: u64,
    /// When it was stored, in seconds since 1970 by the repository's clock.
    pub stored: i64,
    /// When its bytes were last proven, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub content: Option<i64>,
    /// When what is in it was last proven, in seconds since 1970. Content and records at once
    /// where nothing more can be proven, as of a history file.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub records: Option<i64>,
    /// Its lock when it was last asked for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lock: Option<KnownLock>,
}

/// A lock as a ledger keeps it: in whole seconds.
/// Ordered by mode and then by length.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct KnownLock {
    /// Who can take it away.
    pub mode: LockMode,
    /// Until when, in seconds since 1970, cut off.
    pub until: i64,
}

impl From<ObjectLock> for KnownLock {
    fn from(lock: ObjectLock) -> Self {
        Self { mode: lock.mode, until: lock.until.as_second() }
    }
}

impl From<KnownLock> for ObjectLock {
    fn from(lock: KnownLock) -> Self {
        // Whatever can't be a time is no lock at all.
        let until = Timestamp::from_second(lock.until).unwrap_or(Timestamp::UNIX_EPOCH);
        Self { mode: lock.mode, until }
    }
}

impl Object {
    /// An object of which nothing is known.
    pub fn listed(name: &str, version: &str, bytes: u64, stored: Timestamp) -> Self {
        let stored = stored.as_second();
        Self {
            name: name.into(),
            version: version.into(),
            bytes,
            stored,
            content: None,
            records: None,
            lock: None,
        }
    }

    /// When it was last verified so thoroughly, in seconds since 1970; presence needs no proof.
    pub fn verified(&self, depth: Depth) -> Option<i64> {
        match depth {
            Depth::Presence => Some(self.stored),
            Depth::Content => self.content,
            Depth::Records => self.content.zip(self.records).map(|(content, records)| content.min(records)),
        }
    }

    /// Records that it was verified.
    pub fn prove(&mut self, depth: Depth, at: Timestamp) {
        if depth >= Depth::Content {
            self.content = Some(at.as_second());
        }
        if depth >= Depth::Records {
            self.records = Some(at.as_second());
        }
    }

    /// When it was last proven good at all.
    pub fn last_good(&self) -> Option<Timestamp> {
        self.content.and_then(|second| Timestamp::from_second(second).ok())
    }

    fn is_same_version(&self, other: &Object) -> bool {
        self.version == other.version && self.bytes == other.bytes && self.stored == other.stored
    }
}

/// Objects by name.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Objects {
    sorted: Vec<Object>,
}

impl Objects {
    /// Sorts them. Of several with the same name the first is kept.
    pub fn new(mut objects: Vec<Object>) -> Self {
        objects.sort_by(|a, b| a.name.cmp(&b.name));
        objects.dedup_by(|later, first| later.name == first.name);
        Self { sorted: objects }
    }

    /// These and others; of several with the same name these are kept.
    pub fn with(mut self, others: impl IntoIterator<Item = Object>) -> Self {
        self.sorted.extend(others);
        Self::new(self.sorted)
    }

    /// The object of this name.
    pub fn get(&self, name: &str) -> Option<&Object> {
        self.sorted.get(self.position(name)?)
    }

    /// The object of this name, to be changed; its name must stay.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Object> {
        let position = self.position(name)?;
        self.sorted.get_mut(position)
    }

    /// Adds what a ledger says about an object. Only if it is the very version that is here now;
    /// of two ledgers the later proof counts, and of two locks the stronger and then the longer, as
    /// a compliance lock never becomes weaker. A proof from after `latest` is none: it is of a clock that
    /// was wrong, and would keep the object from being read until that time. False if the version is not here.
    pub fn learn(&mut self, known: Object, latest: Timestamp) -> bool {
        let not_after = |second: &i64| *second <= latest.as_second();
        let (content, records) = (known.content.filter(not_after), known.records.filter(not_after));
        let Some(object) = self.get_mut(&known.name).filter(|object| object.is_same_version(&known)) else {
            return false;
        };
        object.content = object.content.max(content);
        object.records = object.records.max(records);
        object.lock = object.lock.max(known.lock);
        true
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Object> {
        self.sorted.iter()
    }

    /// All of them, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Object> {
        self.sorted.iter_mut()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.sorted.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.sorted.binary_search_by(|object| (*object.name).cmp(name)).ok()
    }
}
