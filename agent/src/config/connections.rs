//! `[connections]`: who may hold how many connections, and where PgBouncer is.

use super::check::Checker;
use serde::Deserialize;

/// As it stands in the file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawConnections {}

/// Checked.
#[derive(Clone, Debug)]
pub struct Connections {}

pub(super) fn check(_checker: &mut Checker, _raw: RawConnections) -> Connections {
    Connections {}
}

impl Connections {
    pub(super) fn write(&self, _out: &mut String) -> std::fmt::Result {
        Ok(())
    }
}
