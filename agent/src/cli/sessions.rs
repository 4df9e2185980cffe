//! `wald sessions`.

use super::run::Failure;
use crate::config::Config;
use clap::Args;

/// What `wald sessions` takes.
#[derive(Debug, Args)]
pub struct SessionsArgs {}

pub(super) fn sessions(_config: &Config, _args: &SessionsArgs) -> Result<u8, Failure> {
    Err("not built".into())
}
