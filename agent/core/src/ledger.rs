//! The ledger of `wald verify`: what was proven of which object, and when. One object per run,
//! `verify/<UTC time>.json.zst`.
//!
//! ```text
//! {"format":1,"begun":"2026-11-22T03:00:00Z","complete":true,"findings":[..],"objects":2,..}
//! {"name":"wal/000000010000000000000003.zst","version":"null","bytes":81,"stored":1763776800,"content":1763780400,"records":1763780400}
//! {"name":"..."}
//! ```
//!
//! The first line is the run, each further one an object, sorted by name; so the run is read without the
//! objects, and a hundred thousand objects never stand in memory as text. `zstd -dc` and `jq` read it.
//!
//! Invariants:
//! - A proof belongs to one version with one size and date. Whatever stands under the same name
//!   later has none ([`Objects::learn`]).
//! - A finding leaves the ledgers only when its object was read again, at least as thoroughly as when it
//!   was found, and nothing was found ([`still_open`]).
//! - An object that is gone and still needed stays in the ledgers, or it would be forgotten.
//! - A ledger proves nothing by itself: one that is missing or damaged means "never verified".

mod finding;
mod lines;
mod objects;
mod schedule;
#[cfg(test)]
mod tests;

pub use finding::{Damage, Finding, still_open};
pub use lines::{LedgerError, LedgerReader, head_line, object_line};
pub use objects::{KnownLock, Object, Objects};
pub use schedule::{Postponed, Rotation, Schedule, Why, schedule};

use crate::system_id::SystemId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The version of the ledger's format that this wald writes, and the newest that it reads.
pub const LEDGER_FORMAT: u32 = 1;

/// How thoroughly something is verified; each includes those before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Depth {
    /// It is there, with the right size and a long enough lock.
    Presence,
    /// Its bytes were read, and are those that were stored.
    Content,
    /// What is in it makes sense to PostgreSQL: WAL records, data pages.
    Records,
}

impl fmt::Display for Depth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Depth::Presence => "presence",
            Depth::Content => "content",
            Depth::Records => "records",
        })
    }
}

/// The first line of a ledger.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Head {
    /// [`LEDGER_FORMAT`]
    pub format: u32,
    /// The wald that wrote it.
    pub tool_version: String,
    /// The repository's cluster.
    pub system_id: SystemId,
    /// When the run began, by the clock of the host that it ran on.
    pub begun: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    /// How thoroughly.
    pub depth: Depth,
    /// Whether everything was read that was planned.
    pub complete: bool,
    /// What was read.
    pub read: Amount,
    /// What is wrong, as far as it is known.
    pub findings: Vec<Finding>,
    /// Where the walks through the WAL go on.
    pub walks: Vec<WalkEnd>,
    /// The number of lines that follow.
    pub objects: u64,
    /// Names of the ledgers whose findings this run knew: it kept or closed each. Those of any
    /// other one are open still, whatever its date.
    #[serde(default)]
    pub knew: Vec<String>,
}

/// How much was read, and how long that took: rates for estimates of a recovery's duration.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Amount {
    /// Objects that were read.
    pub objects: u64,
    /// Their size in the repository.
    pub stored_bytes: u64,
    /// The size of what was in them.
    pub raw_bytes: u64,
    /// How long reading took, from the first object to the last.
    pub milliseconds: u64,
}

impl Amount {
    /// Stored bytes read and proven per second; none where too little was read to say.
    pub fn stored_bytes_per_second(&self) -> Option<u64> {
        self.stored_bytes.checked_mul(1000)?.checked_div(self.milliseconds)
    }
}

/// The state of the walk through a timeline's records behind the last segment that was walked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WalkEnd {
    /// The object of that segment.
    pub object: Box<str>,
    /// Its version: after another one the state means nothing.
    pub version: Box<str>,
    /// The state, as the walker gives it.
    pub carry: serde_json::Value,
}
