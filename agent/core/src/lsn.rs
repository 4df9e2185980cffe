//! A position in the write-ahead log.
//!
//! PostgreSQL prints it as two hexadecimal halves, `16/B374D848` (`pg_lsn`,
//! <https://www.postgresql.org/docs/15/datatype-pg-lsn.html>). The unit is bytes since the
//! beginning of the log; 0 is invalid (`InvalidXLogRecPtr`) and has no value of this type.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

/// A valid log sequence number: a byte position, never 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "formats", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "formats", serde(try_from = "String", into = "String"))]
pub struct Lsn(NonZeroU64);

impl Lsn {
    /// The least valid position.
    pub const MIN: Lsn = Lsn(NonZeroU64::MIN);

    /// The position `bytes` from the beginning of the log, or `None` for 0,
    /// PostgreSQL's `InvalidXLogRecPtr`.
    pub const fn new(bytes: u64) -> Option<Self> {
        match NonZeroU64::new(bytes) {
            Some(position) => Some(Self(position)),
            None => None,
        }
    }

    /// Bytes from the beginning of the log.
    pub const fn get(self) -> u64 {
        self.0.get()
    }

    /// The position `bytes` further on, or `None` past the end of the 64-bit log.
    pub fn checked_add(self, bytes: u64) -> Option<Self> {
        self.0.checked_add(bytes).map(Self)
    }

    /// Bytes from `earlier` to `self`; 0 where `earlier` is not earlier.
    pub const fn bytes_since(self, earlier: Lsn) -> u64 {
        self.0.get().saturating_sub(earlier.0.get())
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0.get() >> 32, self.0.get() & 0xFFFF_FFFF)
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lsn({self})")
    }
}

/// Text that is not an LSN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LsnError {
    text: String,
}

impl fmt::Display for LsnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "\"{}\" is not an LSN: expected two hexadecimal numbers such as 16/B374D848, not 0/0",
            self.text.escape_default()
        )
    }
}

impl std::error::Error for LsnError {}

impl FromStr for Lsn {
    type Err = LsnError;

    fn from_str(text: &str) -> Result<Self, LsnError> {
        let error = || LsnError { text: text.to_owned() };
        let (high, low) = text.split_once('/').ok_or_else(error)?;
        let high = hex_u32(high).ok_or_else(error)?;
        let low = hex_u32(low).ok_or_else(error)?;
        Lsn::new(u64::from(high) << 32 | u64::from(low)).ok_or_else(error)
    }
}

/// One to eight hexadecimal digits; unlike `from_str_radix`, no sign.
fn hex_u32(digits: &str) -> Option<u32> {
    let plain = (1..=8).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
    if plain { u32::from_str_radix(digits, 16).ok() } else { None }
}

impl TryFrom<String> for Lsn {
    type Error = LsnError;

    fn try_from(text: String) -> Result<Self, LsnError> {
        text.parse()
    }
}

impl From<Lsn> for String {
    fn from(lsn: Lsn) -> String {
        lsn.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn prints_as_postgresql_does() {
        assert_eq!(Lsn::new(0x16_B374_D848).unwrap().to_string(), "16/B374D848");
        assert_eq!(Lsn::new(0x1_0000_0028).unwrap().to_string(), "1/28");
    }

    #[test]
    fn what_is_not_an_lsn_is_refused() {
        for text in ["", "/", "0/0", "1", "1/", "/1", "+1/1", "1/123456789", "g/1", "1/1 ", "1/1/1"] {
            assert!(text.parse::<Lsn>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn text_round_trips(bytes in 1u64..) {
            let lsn = Lsn::new(bytes).unwrap();
            prop_assert_eq!(lsn.to_string().parse::<Lsn>().unwrap(), lsn);
        }

        #[test]
        fn any_text_parses_or_fails_without_panic(text in "\\PC{0,24}") {
            let _ = text.parse::<Lsn>();
        }
    }
}
