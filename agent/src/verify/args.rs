//! The command line of `wald verify`.

use clap::{Args, ValueEnum};
use wald_core::ledger::Depth;

/// The options of `wald verify`.
#[derive(Args, Clone, Debug)]
pub struct VerifyArgs {
    /// How thoroughly: presence lists, content reads and hashes, records also walks WAL and data pages
    #[arg(long, value_name = "DEPTH", default_value = "records")]
    pub depth: DepthArg,
    /// Read everything, whatever was proven before
    #[arg(long)]
    pub full: bool,
    /// Read only this backup and the WAL that makes it consistent, whatever was proven before
    #[arg(long, value_name = "ID")]
    pub backup: Option<String>,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
}

/// `--depth`
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum DepthArg {
    /// Everything is there, and locked for long enough
    Presence,
    /// And its bytes are those that were stored
    Content,
    /// And WAL records and data pages make sense to PostgreSQL
    Records,
}

impl From<DepthArg> for Depth {
    fn from(depth: DepthArg) -> Self {
        match depth {
            DepthArg::Presence => Depth::Presence,
            DepthArg::Content => Depth::Content,
            DepthArg::Records => Depth::Records,
        }
    }
}
