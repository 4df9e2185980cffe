//! `[promotion]`: the old primary, the routers and the hooks of `wald promote`.

use super::check::Checker;
use serde::Deserialize;

/// As it stands in the file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawPromotion {}

/// Checked.
#[derive(Clone, Debug)]
pub struct Promotion {}

pub(super) fn check(_checker: &mut Checker, _raw: RawPromotion) -> Promotion {
    Promotion {}
}

impl Promotion {
    pub(super) fn write(&self, _out: &mut String) -> std::fmt::Result {
        Ok(())
    }
}
