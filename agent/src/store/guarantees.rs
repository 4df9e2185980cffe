//! What a server was seen to keep of the promises that S3 makes.
//!
//! Invariant: what was not tried is not believed: [`Guarantees::none`] is where a bucket begins,
//! and everything that a guarantee would give is then looked up and read back instead.

use serde::{Deserialize, Serialize};

/// What was found out about a server by trying. A field that an older record does not have was not
/// tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Guarantees {
    /// Of many who create the same object at once exactly one succeeds.
    pub create_only: bool,
    /// A body that differs from its `x-amz-checksum-*` header is refused, whether or not it is
    /// signed: CRC-64/NVME and SHA-256, objects and parts.
    pub checksums: bool,
    /// A body that differs from its signed digest is refused.
    pub signed_payload: bool,
    /// The lock that is asked for with an object is there afterwards.
    pub lock_on_put: bool,
    /// The lock that is asked for with an upload in parts is there at its end.
    pub lock_on_upload: bool,
    /// The answer about a deleted object that is kept as a version says so
    /// (`x-amz-delete-marker`).
    pub tells_delete_markers: bool,
}

impl Guarantees {
    /// Nothing is taken for granted.
    pub const fn none() -> Self {
        Self {
            create_only: false,
            checksums: false,
            signed_payload: false,
            lock_on_put: false,
            lock_on_upload: false,
            tells_delete_markers: false,
        }
    }

    /// Everything that S3 documents. Directories have it too, as far as it concerns them.
    pub const fn all() -> Self {
        Self {
            create_only: true,
            checksums: true,
            signed_payload: true,
            lock_on_put: true,
            lock_on_upload: true,
            tells_delete_markers: true,
        }
    }
}

impl Default for Guarantees {
    fn default() -> Self {
        Self::none()
    }
}
