//! What servers say of their replication: the columns of PostgreSQL's views and functions, as they are.
//! Nothing is judged here.

use crate::lsn::Lsn;
use jiff::Timestamp;
use serde::Serialize;
use std::time::Duration;

/// What a server said of its replication at one moment.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The server's clock.
    pub at: Timestamp,
    /// Where its log ends: what is written on a primary, what is replayed on a standby.
    pub position: Option<Lsn>,
    /// Only on a standby.
    pub standby: Option<StandbySample>,
    /// Only on a primary: `synchronous_standby_names`.
    pub synchronous_standby_names: Option<String>,
    /// Who streams from it.
    pub replicas: Vec<Replica>,
    /// Its replication slots.
    pub slots: Vec<Slot>,
}

/// What a standby said of itself.
#[derive(Clone, Debug, Default)]
pub struct StandbySample {
    /// The end of what was streamed and is on disk; none if nothing was ever streamed.
    pub received: Option<Lsn>,
    /// The end of what is replayed.
    pub replayed: Option<Lsn>,
    /// Since the last replayed transaction was committed, by both servers' clocks.
    pub last_transaction_age: Option<Duration>,
    /// The row of `pg_stat_wal_receiver`, if there is a receiver.
    pub receiver: Option<Receiver>,
    /// Whether `primary_conninfo` says where to stream from.
    pub streams: bool,
    /// `pg_get_wal_replay_pause_state`, or what is known of it before PostgreSQL 14.
    pub pause: Pause,
    /// `recovery_min_apply_delay`.
    pub apply_delay: Duration,
    /// Queries that were cancelled because replay needed what they used, since the statistics began.
    pub conflicts: Conflicts,
}

/// A WAL receiver.
#[derive(Clone, Debug)]
pub struct Receiver {
    /// As `streaming`.
    pub status: String,
    /// The end of the primary's log, as its last message said.
    pub latest_end: Option<Lsn>,
    /// Since that message came.
    pub silent_for: Option<Duration>,
    /// `wal_receiver_timeout`; absent if it is off.
    pub timeout: Option<Duration>,
    /// Whom it streams from.
    pub sender: Option<String>,
    /// Through which slot.
    pub slot: Option<String>,
}

/// Whether replay goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Pause {
    /// It does.
    #[default]
    NotPaused,
    /// It will stop soon.
    Requested,
    /// It has stopped.
    Paused,
}

/// The columns of `pg_stat_database_conflicts`, summed over the databases.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Conflicts {
    /// A dropped tablespace.
    pub tablespace: u64,
    /// A lock.
    pub lock: u64,
    /// An old snapshot.
    pub snapshot: u64,
    /// A pinned buffer.
    pub bufferpin: u64,
    /// A deadlock.
    pub deadlock: u64,
}

impl Conflicts {
    /// All of them.
    pub const fn total(self) -> u64 {
        self.tablespace
            .saturating_add(self.lock)
            .saturating_add(self.snapshot)
            .saturating_add(self.bufferpin)
            .saturating_add(self.deadlock)
    }
}

/// A row of `pg_stat_replication`.
#[derive(Clone, Debug)]
pub struct Replica {
    /// `application_name`.
    pub name: String,
    /// `client_addr`; absent over a Unix socket.
    pub address: Option<String>,
    /// As `streaming`, `catchup`, `startup`, `backup`, `stopping`.
    pub state: String,
    /// As `async`, `potential`, `sync`, `quorum`.
    pub sync_state: String,
    /// What it has written.
    pub write: Stage,
    /// What it has on disk.
    pub flush: Stage,
    /// What it has replayed.
    pub replay: Stage,
}

/// How far one stage of a replica has come.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stage {
    /// To here.
    pub position: Option<Lsn>,
    /// How late it was when that was last measured; PostgreSQL forgets it while nothing happens.
    pub lag: Option<Duration>,
}

/// A row of `pg_replication_slots`.
#[derive(Clone, Debug)]
pub struct Slot {
    /// Its name.
    pub name: String,
    /// `physical` or `logical`.
    pub kind: String,
    /// Whether somebody uses it.
    pub active: bool,
    /// WAL from here on is kept for it.
    pub restart: Option<Lsn>,
    /// As `reserved`, `extended`, `unreserved`, `lost`.
    pub wal_status: Option<String>,
    /// Bytes that can be written until it may be lost; absent without `max_slot_wal_keep_size`.
    pub safe_bytes: Option<u64>,
}
