//! A BLAKE3 hash as it stands in the repository's JSON: 64 lower-case hexadecimal digits,
//! as `b3sum` prints it.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The BLAKE3 of some bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Blake3Hex(blake3::Hash);

/// Text that is not a BLAKE3 hash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{}\" is not a BLAKE3 hash: expected 64 lower-case hexadecimal digits", text.escape_default())]
pub struct Blake3HexError {
    text: String,
}

impl Blake3Hex {
    /// The hash of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(blake3::hash(bytes))
    }

    /// Parses exactly what `Display` prints.
    pub fn parse(text: &str) -> Result<Self, Blake3HexError> {
        let lower = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let hash = if lower { blake3::Hash::from_hex(text).ok() } else { None };
        hash.map(Self).ok_or_else(|| Blake3HexError { text: text.to_owned() })
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }
}

impl From<blake3::Hash> for Blake3Hex {
    fn from(hash: blake3::Hash) -> Self {
        Self(hash)
    }
}

impl fmt::Display for Blake3Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_hex())
    }
}

impl fmt::Debug for Blake3Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blake3Hex({self})")
    }
}

impl TryFrom<String> for Blake3Hex {
    type Error = Blake3HexError;

    fn try_from(text: String) -> Result<Self, Blake3HexError> {
        Self::parse(&text)
    }
}

impl From<Blake3Hex> for String {
    fn from(hash: Blake3Hex) -> String {
        hash.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn text_round_trips(bytes: Vec<u8>) {
            let hash = Blake3Hex::of(&bytes);
            prop_assert_eq!(Blake3Hex::parse(&hash.to_string()).unwrap(), hash);
        }

        #[test]
        fn any_text_parses_or_fails_without_panic(text in "[0-9a-fA-F]{60,66}|\\PC{0,70}") {
            if let Ok(hash) = Blake3Hex::parse(&text) {
                prop_assert_eq!(hash.to_string(), text);
            }
        }
    }
}
