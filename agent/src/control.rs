//! What the people on call do to a running database: look at its lag and hygiene, change what
//! helps, and promote a standby.
//!
//! Invariants: whatever changes a database or routes traffic was agreed to ([`consent`]) and
//! stands in the audit log ([`audit`]) before it happens and again with its outcome; whatever has
//! to be taken back later stands in a file that survives a crash ([`state_file`]) before it is
//! done. The rules (what is a warning, what is proposed, what comes next) are in `wald_core`.

pub mod consent;
pub mod audit;
pub mod state_file;
pub mod role;
pub mod lag;
pub mod claim;

pub mod databases;
pub mod vacuum;
pub mod sessions;
pub mod indexes;
pub mod connections;
pub mod promote;
