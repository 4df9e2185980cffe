//! The identity of a database cluster, made by `initdb` and written in `pg_control` and in
//! the first page of every WAL segment. A primary and its standbys share it; so does a
//! restored clone, which is why identity alone never allows an overwrite.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

/// PostgreSQL's `system_identifier`, never 0. Serialized as decimal text: JSON readers
/// commonly keep only 53 bits of a number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "formats", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "formats", serde(try_from = "String", into = "String"))]
pub struct SystemId(NonZeroU64);

impl SystemId {
    /// The identifier, or `None` for 0.
    pub const fn new(number: u64) -> Option<Self> {
        match NonZeroU64::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// The number as in `pg_control`.
    pub const fn get(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for SystemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for SystemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SystemId({})", self.0)
    }
}

/// Text that is not a system identifier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SystemIdError {
    text: String,
}

impl fmt::Display for SystemIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "\"{}\" is not a system identifier: expected a decimal number above 0",
            self.text.escape_default()
        )
    }
}

impl std::error::Error for SystemIdError {}

impl FromStr for SystemId {
    type Err = SystemIdError;

    fn from_str(text: &str) -> Result<Self, SystemIdError> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        digits
            .then(|| text.parse().ok().and_then(SystemId::new))
            .flatten()
            .ok_or_else(|| SystemIdError { text: text.to_owned() })
    }
}

impl TryFrom<String> for SystemId {
    type Error = SystemIdError;

    fn try_from(text: String) -> Result<Self, SystemIdError> {
        text.parse()
    }
}

impl From<SystemId> for String {
    fn from(id: SystemId) -> String {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn text_round_trips(number in 1u64..) {
            let id = SystemId::new(number).unwrap();
            prop_assert_eq!(id.to_string().parse::<SystemId>().unwrap(), id);
        }

        #[test]
        fn any_text_parses_or_fails_without_panic(text in "\\PC{0,24}") {
            let _ = text.parse::<SystemId>();
        }
    }
}
