//! `wald lag`.

use super::run::Failure;
use crate::config::Config;
use clap::Args;

/// What `wald lag` takes.
#[derive(Debug, Args)]
pub struct LagArgs {}

pub(super) fn lag(_config: &Config, _args: &LagArgs) -> Result<u8, Failure> {
    Err("not built".into())
}
