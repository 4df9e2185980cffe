//! One blocking exchange with the agent over its Unix socket, with `std` alone.
//!
//! The shims are started once per WAL file through `sh -c`, so this crate pulls in nothing
//! and starts no runtime. It decides nothing either: whoever asks gets the agent's reply or
//! the reason why there is none, and never a guess in its place.

pub mod exchange;
pub mod shim;

pub use wald_core::outcome;
pub use wald_core::protocol;
