//! `[vacuum]`: when a table is too old, too bloated, or large and hot.

use super::check::Checker;
use serde::Deserialize;

/// As it stands in the file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawVacuum {}

/// Checked.
#[derive(Clone, Debug)]
pub struct Vacuum {}

pub(super) fn check(_checker: &mut Checker, _raw: RawVacuum) -> Vacuum {
    Vacuum {}
}

impl Vacuum {
    pub(super) fn write(&self, _out: &mut String) -> std::fmt::Result {
        Ok(())
    }
}
