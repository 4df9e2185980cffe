//! The daemon and the operator's command line.

pub mod store;
