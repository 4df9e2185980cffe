//! What the suites and the demo stand on: real servers, started, watched, killed and cleaned up.
//!
//! Invariants: nothing is left behind, whatever way a test ends; nothing of the machine's own is
//! touched; nothing is killed by name; a missing part is a failure that says how to install it.
//! This crate knows wald by its command line and its configuration file only, so that it tests
//! what an operator would run.

pub mod parts;
pub mod wait;

pub mod account;
pub mod ports;
pub mod process;
pub mod reaper;
pub mod run;
pub mod sandbox;

pub mod certificate;
pub mod http_client;
pub mod fault_proxy;
pub mod postgres;
pub mod s3_client;
pub mod seaweed;
pub mod weak_store;
pub mod radosgw;
pub mod forward_proxy;
pub mod pgbouncer;
pub mod haproxy;

pub mod agent;
pub mod scene;
pub mod pair;
pub mod binaries;
pub mod repository;
pub mod wald;

pub mod imports;
pub mod sources;
