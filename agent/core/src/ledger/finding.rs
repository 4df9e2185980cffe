//! What is wrong with an object, in a form that survives from run to run.

use super::Depth;
use crate::lost_targets::LostTargets;
use crate::object_lock::ObjectLock;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Finding {
    /// The object's name, relative to the repository's URL.
    pub object: String,
    /// Which version of it, where the repository has several.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub version: Option<String>,
    /// What is wrong.
    #[serde(flatten)]
    pub damage: Damage,
    /// When it was found first.
    pub found_at: Timestamp,
    /// When the object was last proven good; none: never.
    pub last_good: Option<Timestamp>,
    /// Which recovery targets are lost by it alone; none: that was not or can't be worked out.
    pub lost: Option<Vec<LostTargets>>,
}

/// What is wrong.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "damage", rename_all = "snake_case")]
pub enum Damage {
    /// It is needed, and not there.
    Missing {
        /// By what it is needed.
        needed_by: String,
    },
    /// Several segments in a row are needed, and not there. The object is the first of them.
    MissingWal {
        /// The last one's object.
        last: String,
        /// How many.
        segments: u64,
    },
    /// A delete marker hides it.
    Deleted,
    /// There is more than one version: something was written over it.
    Overwritten {
        /// How many there are.
        versions: u64,
    },
    /// Its size is not that in the catalog.
    Size {
        /// In the repository.
        found: u64,
        /// In the catalog.
        expected: u64,
    },
    /// Others may delete or replace it while it is needed.
    LockTooShort {
        /// Its lock; none: it has none.
        found: Option<ObjectLock>,
        /// The least that it should have.
        wanted: ObjectLock,
    },
    /// It can't be understood.
    Unreadable {
        /// Why.
        problem: String,
    },
    /// Its bytes are not those that were stored.
    Content {
        /// What differs.
        problem: String,
    },
    /// WAL records that PostgreSQL would not replay.
    Records {
        /// The first few.
        problems: Vec<String>,
        /// How many there are.
        count: u64,
    },
    /// Data pages that PostgreSQL would not read.
    Pages {
        /// The first few.
        problems: Vec<String>,
        /// How many there are.
        count: u64,
    },
}

impl Damage {
    /// How thoroughly one must look to see it.
    pub fn depth(&self) -> Depth {
        match self {
            Damage::Missing { .. }
            | Damage::MissingWal { .. }
            | Damage::Deleted
            | Damage::Overwritten { .. }
            | Damage::Size { .. }
            | Damage::LockTooShort { .. }
            | Damage::Unreadable { .. } => Depth::Presence,
            Damage::Content { .. } => Depth::Content,
            Damage::Records { .. } | Damage::Pages { .. } => Depth::Records,
        }
    }

    /// Whether a recovery that needs the object would fail or bring back wrong data. A lock that
    /// is too short, or a second version with good content, endangers what is still good.
    pub fn is_loss(&self) -> bool {
        !matches!(self, Damage::LockTooShort { .. } | Damage::Overwritten { .. })
    }

    /// What to do, in one sentence.
    pub fn advice(&self) -> &'static str {
        match self {
            Damage::Missing { .. } | Damage::MissingWal { .. } => {
                "if pg_wal of the primary or a standby still has the file, archive it by hand (wald archive-push); else take a backup now (wald backup)"
            }
            Damage::Deleted => {
                "remove the delete marker (wald expire does), and find out who may delete in this repository"
            }
            Damage::Overwritten { .. } => {
                "compare the versions, keep the one that proves itself, and find out who writes to this repository"
            }
            Damage::LockTooShort { .. } => {
                "run wald expire, which extends locks, and see that its timer runs every night"
            }
            Damage::Size { .. } | Damage::Content { .. } | Damage::Unreadable { .. } => {
                "if an older version of the object is good, restore that one; else take a backup now (wald backup) and check the store's disks"
            }
            Damage::Records { .. } => {
                "what PostgreSQL wrote was damaged before it was archived: take a backup now (wald backup), and check the database host's memory and disks"
            }
            Damage::Pages { .. } => {
                "take a backup now (wald backup); if it reports the same pages, the cluster itself is damaged: see pg_amcheck"
            }
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::Missing { needed_by } => write!(f, "it is not there, and {needed_by} needs it"),
            Damage::MissingWal { last, segments: 1 } => {
                write!(f, "it is not there: {last} is missing in the WAL")
            }
            Damage::MissingWal { last, segments } => {
                write!(
                    f,
                    "it is not there, nor is what follows up to {last}: {segments} segments of WAL are missing"
                )
            }
            Damage::Deleted => f.write_str("somebody deleted it: a delete marker hides its versions"),
            Damage::Overwritten { versions } => {
                write!(f, "it has {versions} versions: something was written over it")
            }
            Damage::Size { found, expected } => {
                write!(f, "it has {found} bytes, the catalog says {expected}")
            }
            Damage::LockTooShort { found: Some(found), wanted } => {
                write!(f, "its lock is too short: {found}, and should be at least {wanted}")
            }
            Damage::LockTooShort { found: None, wanted } => {
                write!(f, "it is not locked, and should be: at least {wanted}")
            }
            Damage::Unreadable { problem } => write!(f, "it can't be understood: {problem}"),
            Damage::Content { problem } => write!(f, "it is damaged: {problem}"),
            Damage::Records { problems, count } => {
                write!(f, "its records are damaged: {}", some_of(problems, *count))
            }
            Damage::Pages { problems, count } => {
                write!(f, "its data pages are damaged: {}", some_of(problems, *count))
            }
        }
    }
}

fn some_of(problems: &[String], count: u64) -> String {
    let more = count.saturating_sub(u64::try_from(problems.len()).unwrap_or(u64::MAX));
    let shown = problems.join("; ");
    if more == 0 { shown } else { format!("{shown}; and {more} more") }
}

/// The findings of earlier runs that a run leaves open: those that it did not look at as thoroughly as
/// would be needed to see them again. `looked` gives how thoroughly the run has looked at an object.
pub fn still_open(earlier: Vec<Finding>, looked: impl Fn(&str) -> Option<Depth>) -> Vec<Finding> {
    let open = |finding: &Finding| looked(&finding.object) < Some(finding.damage.depth());
    earlier.into_iter().filter(open).collect()
}
