//! Object lock, in S3's terms: until when a version of an object can't be deleted.
//!
//! Invariant: a lock is only ever made longer. [`ObjectLock::joined`] is the one way to put two
//! together, and it never gives less than either.
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lock.html>

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Who can take a lock away before its time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LockMode {
    /// Whoever has the right `s3:BypassGovernanceRetention`.
    Governance,
    /// Nobody.
    Compliance,
}

impl LockMode {
    /// The mode in S3's requests and answers, `GOVERNANCE` or `COMPLIANCE`.
    pub const fn as_s3(self) -> &'static str {
        match self {
            LockMode::Governance => "GOVERNANCE",
            LockMode::Compliance => "COMPLIANCE",
        }
    }

    /// Reads what S3 says.
    pub fn from_s3(text: &str) -> Option<Self> {
        [LockMode::Governance, LockMode::Compliance].into_iter().find(|mode| mode.as_s3() == text)
    }
}

impl fmt::Display for LockMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LockMode::Governance => "governance",
            LockMode::Compliance => "compliance",
        })
    }
}

/// A lock as an object has it, or shall have it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct ObjectLock {
    /// Who can take it away.
    pub mode: LockMode,
    /// Until when the version can't be deleted (retain-until date).
    pub until: Timestamp,
}

impl ObjectLock {
    /// Whether this lock gives at least what `wanted` does.
    pub fn covers(&self, wanted: &ObjectLock) -> bool {
        self.mode >= wanted.mode && self.until >= wanted.until
    }

    /// What both give together: the stronger mode, the later time.
    #[must_use]
    pub fn joined(self, other: ObjectLock) -> ObjectLock {
        ObjectLock { mode: self.mode.max(other.mode), until: self.until.max(other.until) }
    }
}

impl fmt::Display for ObjectLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} until {}", self.mode, self.until)
    }
}

/// How new objects are locked, `[repository.lock]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LockPolicy {
    /// Who can take a lock away.
    pub mode: LockMode,
    /// For so many days of 24 hours.
    pub days: u32,
}

impl LockPolicy {
    /// How long a new object is locked.
    pub fn duration(&self) -> SignedDuration {
        SignedDuration::from_hours(24 * i64::from(self.days))
    }

    /// The lock of an object that is stored at `now`.
    pub fn lock_at(&self, now: Timestamp) -> ObjectLock {
        ObjectLock { mode: self.mode, until: now.saturating_add(self.duration()).unwrap_or(Timestamp::MAX) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(mode: LockMode, second: i64) -> ObjectLock {
        ObjectLock { mode, until: Timestamp::from_second(second).unwrap() }
    }

    #[test]
    fn a_lock_covers_what_is_weaker_and_shorter() {
        let strong = lock(LockMode::Compliance, 100);
        assert!(strong.covers(&strong));
        assert!(strong.covers(&lock(LockMode::Governance, 99)));
        assert!(!strong.covers(&lock(LockMode::Governance, 101)));
        assert!(!lock(LockMode::Governance, 200).covers(&strong));
    }

    #[test]
    fn two_locks_together_are_never_less_than_either() {
        let (one, other) = (lock(LockMode::Governance, 200), lock(LockMode::Compliance, 100));
        let both = one.joined(other);
        assert!(both.covers(&one) && both.covers(&other));
        assert_eq!(both, lock(LockMode::Compliance, 200));
    }

    #[test]
    fn a_policy_counts_from_when_an_object_is_stored() {
        let policy = LockPolicy { mode: LockMode::Compliance, days: 7 };
        let now = Timestamp::from_second(1_000_000).unwrap();
        assert_eq!(policy.lock_at(now), lock(LockMode::Compliance, 1_000_000 + 7 * 86_400));
        assert_eq!(policy.lock_at(Timestamp::MAX).until, Timestamp::MAX);
    }

    #[test]
    fn the_names_of_s3_read_back() {
        for mode in [LockMode::Governance, LockMode::Compliance] {
            assert_eq!(LockMode::from_s3(mode.as_s3()), Some(mode));
        }
        assert_eq!(LockMode::from_s3("governance"), None);
    }
}
