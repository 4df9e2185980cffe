//! `wald vacuum`: how old, dead and bloated tables are; thresholds of their own for those that need
//! them; and a boost of autovacuum that always comes back.
//!
//! The rules are in `wald_core`: `freeze`, `autovacuum`, `bloat`, `tuning`, `take_back`.

pub mod settings;
pub mod transactions;
pub mod tables;
pub mod bloat;
pub mod running;
pub mod report;
mod print;

pub mod tune;
pub mod tune_journal;
pub mod tune_revert;

pub mod server_settings;
pub mod boost_journal;
pub mod boost;
pub mod boost_revert;
pub mod boost_keeper;
