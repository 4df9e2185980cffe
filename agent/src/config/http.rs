//! `[http]`: where the agent shows its metrics.

use super::check::Checker;
use serde::Deserialize;

/// As it stands in the file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawHttp {}

/// Checked.
#[derive(Clone, Debug)]
pub struct Http {}

pub(super) fn check(_checker: &mut Checker, _raw: RawHttp) -> Http {
    Http {}
}

impl Http {
    pub(super) fn write(&self, _out: &mut String) -> std::fmt::Result {
        Ok(())
    }
}
