//! `wald promote`.

use super::run::Failure;
use crate::config::Config;
use clap::Args;

/// What `wald promote` takes.
#[derive(Debug, Args)]
pub struct PromoteArgs {}

pub(super) fn promote(_config: &Config, _args: &PromoteArgs) -> Result<u8, Failure> {
    Err("not built".into())
}
