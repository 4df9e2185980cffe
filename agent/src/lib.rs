//! wald: the daemon and the operator's command line, as a library so that the suites can reach
//! its parts. `agent/ARCHITECTURE.md` has the map.
//!
//! The modules stand in the order in which data flows.

pub mod cli;
pub mod config;
pub mod supervise;
pub mod http;
pub mod observe;
pub mod server;
pub mod status;

pub mod archive;
pub mod restore;
pub mod backup;
pub mod mend;

pub mod inventory;
pub mod list;
pub mod recover;
pub mod verify;
pub mod retain;

pub mod control;

pub mod cluster;
pub mod database;
pub mod repository;
pub mod stored;
pub mod codec;
pub mod store;
pub mod metrics;
pub mod rates;
pub mod runs;
pub mod fs;
pub mod rate;

pub mod clock;
pub mod explain;
