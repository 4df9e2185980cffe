//! `wald vacuum`.

use super::run::Failure;
use crate::config::Config;
use clap::Args;

/// What `wald vacuum` takes.
#[derive(Debug, Args)]
pub struct VacuumArgs {}

pub(super) fn vacuum(_config: &Config, _args: &VacuumArgs) -> Result<u8, Failure> {
    Err("not built".into())
}
