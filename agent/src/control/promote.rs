//! `wald promote`: carries out what `wald_core::promotion` decides, one step after the other.
//!
//! Invariants: a step is in the journal before its first effect and again with its outcome, and in
//! the audit log likewise; both servers are looked at anew before each step; a failure before the
//! promotion was asked for takes everything back, one after it leaves the journal open for
//! `--resume`. One run at a time, on this host: the lock file says so.

mod options;
mod error;
mod journal;
mod look;
mod archive;
mod preconditions;
mod hook;
mod pgbouncer;
mod haproxy;
mod routes;
mod fence;
mod catch_up;
mod ask;
mod smoke;
mod report;
mod drive;

pub use drive::{End, Ended, Run, begin, refuse_open, reopen};
pub use error::PromoteError;
pub use look::target_of;
pub use options::{HaProxy, OldSessions, PgBouncer, PromoteOptions, Routers};
pub use preconditions::{Checked, check};
pub use report::{Report, plan_lines};
