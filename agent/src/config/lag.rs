//! `[lag]`: when replication lag is too long.

use super::check::Checker;
use serde::Deserialize;

/// As it stands in the file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawLag {}

/// Checked.
#[derive(Clone, Debug)]
pub struct Lag {}

pub(super) fn check(_checker: &mut Checker, _raw: RawLag) -> Lag {
    Lag {}
}

impl Lag {
    pub(super) fn write(&self, _out: &mut String) -> std::fmt::Result {
        Ok(())
    }
}
