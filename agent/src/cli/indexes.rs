//! `wald indexes`.

use super::run::Failure;
use crate::config::Config;
use clap::Args;

/// What `wald indexes` takes.
#[derive(Debug, Args)]
pub struct IndexesArgs {}

pub(super) fn indexes(_config: &Config, _args: &IndexesArgs) -> Result<u8, Failure> {
    Err("not built".into())
}
