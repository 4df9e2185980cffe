//! `wald connections`.

use super::run::Failure;
use crate::config::Config;
use clap::Args;

/// What `wald connections` takes.
#[derive(Debug, Args)]
pub struct ConnectionsArgs {}

pub(super) fn connections(_config: &Config, _args: &ConnectionsArgs) -> Result<u8, Failure> {
    Err("not built".into())
}
