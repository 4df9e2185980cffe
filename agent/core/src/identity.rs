//! `wald.json`: whose repository it is.
//!
//! Invariants: made once by `wald repo init`, create-only, never changed; everything that is
//! written is checked against it first. A newer format is refused by name, because a newer
//! wald may have changed what the other objects mean.

use crate::segment::SegmentSize;
use crate::system_id::SystemId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The format that this wald writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

/// The cluster that a repository belongs to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Identity {
    format: u32,
    system_id: SystemId,
    segment_size: SegmentSize,
    created: Timestamp,
    tool_version: String,
}

/// Only the field that says whether the rest can be understood.
#[derive(Deserialize)]
struct FormatOnly {
    format: u32,
}

/// Bytes that are no `wald.json`.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Not JSON, or a field is missing or makes no sense.
    #[error("wald.json is damaged or was not written by wald")]
    Malformed(#[source] serde_json::Error),
    /// Written by a newer wald.
    #[error(
        "wald.json was written by a newer wald, in format {found}; this one reads up to {FORMAT}: install a newer one"
    )]
    Newer {
        /// The format found.
        found: u32,
    },
}

impl Identity {
    /// The identity of a new repository.
    pub fn new(
        system_id: SystemId,
        segment_size: SegmentSize,
        created: Timestamp,
        tool_version: &str,
    ) -> Self {
        Self { format: FORMAT, system_id, segment_size, created, tool_version: tool_version.to_owned() }
    }

    /// Reads `wald.json`.
    pub fn parse(bytes: &[u8]) -> Result<Self, IdentityError> {
        // The format first: a newer one may not have the other fields.
        let FormatOnly { format } = serde_json::from_slice(bytes).map_err(IdentityError::Malformed)?;
        if format > FORMAT {
            return Err(IdentityError::Newer { found: format });
        }
        serde_json::from_slice(bytes).map_err(IdentityError::Malformed)
    }

    /// The bytes of `wald.json`.
    pub fn render(&self) -> Result<Vec<u8>, IdentityError> {
        let mut bytes = serde_json::to_vec_pretty(self).map_err(IdentityError::Malformed)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// The cluster.
    pub fn system_id(&self) -> SystemId {
        self.system_id
    }

    /// The size of its WAL segments.
    pub fn segment_size(&self) -> SegmentSize {
        self.segment_size
    }

    /// When the repository was made.
    pub fn created(&self) -> Timestamp {
        self.created
    }

    /// Whether both belong to the same cluster, whoever made them and when.
    pub fn is_same_cluster(&self, other: &Identity) -> bool {
        (self.system_id, self.segment_size) == (other.system_id, other.segment_size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn identity(number: u64) -> Identity {
        let created = "2026-11-22T02:00:00Z".parse().unwrap();
        Identity::new(SystemId::new(number).unwrap(), SegmentSize::DEFAULT, created, "0.1.0")
    }

    #[test]
    fn a_newer_format_is_named_whatever_else_it_holds() {
        let error = Identity::parse(b"{\"format\": 2, \"clusters\": []}").unwrap_err().to_string();
        assert!(error.contains("format 2") && error.contains("up to 1"), "{error}");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for text in [
            "",
            "{}",
            "null",
            "{\"format\":1}",
            "{\"format\":1,\"system_id\":\"0\",\"segment_size\":16777216}",
        ] {
            assert!(Identity::parse(text.as_bytes()).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn identities_round_trip(number in 1u64..) {
            let identity = identity(number);
            prop_assert_eq!(Identity::parse(&identity.render().unwrap()).unwrap(), identity);
        }

        #[test]
        fn any_bytes_parse_or_fail_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Identity::parse(&bytes);
        }
    }
}
