//! Stored objects read back as streams: what restoring a backup and verifying one have in common.
//!
//! Invariants: an object is hashed as it arrives, and never held as a whole; what was read before its
//! end is not proven. A connection that breaks is told apart from an object that is damaged:
//! [`ObjectReader::finish`] knows.

mod lines;
mod object_reader;
mod part;

pub use lines::read_lines;
pub use object_reader::{Extent, ObjectReader, PIECE_BYTES_MAX, Pieces, Told, download};
pub use part::{PartError, read_part};
