//! The pure core of wald: names, formats, plans and verdicts.
//!
//! Invariants: no file system, no network, no clock, no randomness, no logging, no async.
//! Everything here is a function of its arguments, so every decision that could lose data
//! can be tested without a server. Parsers never panic, whatever the input.
//!
//! The modules stand in reading order: the names that PostgreSQL uses, what its files look
//! like, what wald stores, and what wald decides. Without the feature `formats` only the
//! part that the shims need is built, and that part uses `std` alone.

pub mod lsn;
pub mod timeline;
pub mod segment;
pub mod system_id;
pub mod wal_file;

#[cfg(feature = "formats")]
mod little_endian;
#[cfg(feature = "formats")]
pub mod control_file;
#[cfg(feature = "formats")]
pub mod wal_page;
#[cfg(feature = "formats")]
pub mod wal_record;
#[cfg(feature = "formats")]
pub mod data_file;
#[cfg(feature = "formats")]
pub mod data_page;
#[cfg(feature = "formats")]
pub mod page_check;
#[cfg(feature = "formats")]
pub mod backup_label;
#[cfg(feature = "formats")]
pub mod manifest;
#[cfg(feature = "formats")]
pub mod history;

#[cfg(feature = "formats")]
pub mod identity;
#[cfg(feature = "formats")]
pub mod backup_id;
#[cfg(feature = "formats")]
pub mod object_key;
#[cfg(feature = "formats")]
pub mod object_lock;
#[cfg(feature = "formats")]
pub mod blake3_hex;
#[cfg(feature = "formats")]
pub mod file_proof;
#[cfg(feature = "formats")]
pub mod frame;
#[cfg(feature = "formats")]
pub mod relative_path;
#[cfg(feature = "formats")]
pub mod stored_range;
#[cfg(feature = "formats")]
pub mod file_list;
#[cfg(feature = "formats")]
pub mod catalog;

#[cfg(feature = "formats")]
pub mod coverage;
#[cfg(feature = "formats")]
pub mod target;
#[cfg(feature = "formats")]
pub mod quantity;
#[cfg(feature = "formats")]
pub mod wal_path;
#[cfg(feature = "formats")]
pub mod recovery_window;
#[cfg(feature = "formats")]
pub mod lost_targets;
#[cfg(feature = "formats")]
pub mod ledger;
#[cfg(feature = "formats")]
pub mod recovery_plan;
#[cfg(feature = "formats")]
pub mod retention;
#[cfg(feature = "formats")]
pub mod lag;
#[cfg(feature = "formats")]
pub mod rto;

#[cfg(feature = "formats")]
pub mod freeze;
#[cfg(feature = "formats")]
pub mod autovacuum;
#[cfg(feature = "formats")]
pub mod bloat;
#[cfg(feature = "formats")]
pub mod tuning;
#[cfg(feature = "formats")]
pub mod boost;
#[cfg(feature = "formats")]
pub mod take_back;
#[cfg(feature = "formats")]
pub mod blockers;
#[cfg(feature = "formats")]
pub mod index_review;
#[cfg(feature = "formats")]
pub mod connection_policy;
#[cfg(feature = "formats")]
pub mod promotion;

#[cfg(feature = "formats")]
pub mod sequence;
pub mod queue;
pub mod outcome;
pub mod protocol;
