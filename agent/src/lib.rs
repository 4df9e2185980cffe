//! The daemon and the operator's command line.

pub mod backup;
pub mod store;
