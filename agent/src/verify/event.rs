//! What the lanes tell.

use crate::stored::Told;
use wald_core::ledger::{Damage, Depth};

/// Something was found out.
#[derive(Debug)]
pub(super) enum Event {
    /// An object was read to its end.
    Read {
        /// Its name.
        object: Box<str>,
        /// Its size.
        stored_bytes: u64,
        /// What the answer told besides.
        told: Told,
    },
    /// So much was in it.
    Unpacked {
        /// Bytes.
        raw_bytes: u64,
    },
    /// An object is good.
    Proven {
        /// Its name.
        object: Box<str>,
        /// As thoroughly as that.
        depth: Depth,
    },
    /// An object is not.
    Found {
        /// Its name.
        object: Box<str>,
        /// What is wrong.
        damage: Damage,
    },
    /// An object could not be read.
    Unread {
        /// Its name.
        object: Box<str>,
        /// Why.
        problem: String,
    },
    /// An object that was listed is not there any more.
    Vanished {
        /// Its name.
        object: Box<str>,
    },
    /// The walk through a timeline's records has come to this segment's end.
    Walked {
        /// The segment's object.
        object: Box<str>,
        /// The walker's state.
        carry: serde_json::Value,
    },
    /// An object can't be judged, for the damage of another one that was told.
    Blocked {
        /// Its name.
        object: Box<str>,
    },
}
