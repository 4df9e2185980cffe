//! Pieces of a stored object, and which of them to read when only some of what it holds is needed.
//!
//! A part of a backup is a sequence of zstd frames, and frames begin where an entry of the tar
//! begins. So the frames that hold a file are a tar of their own, and the list of files says where
//! they stand. Frames that stand side by side, of whatever files, can be read as one.
//!
//! Invariants: a range is never empty and ends where a `u64` can say; what [`reading`] names covers
//! everything that was asked for, in order and without overlap.

use serde::{Deserialize, Serialize};

/// Some bytes of an object. In JSON an array of two: the offset and the length.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(try_from = "(u64, u64)", into = "(u64, u64)")]
pub struct StoredRange {
    offset: u64,
    bytes: u64,
}

/// A range that is empty, or ends past every object.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{bytes} bytes from byte {offset} on are no part of an object")]
pub struct StoredRangeError {
    offset: u64,
    bytes: u64,
}

impl StoredRange {
    /// `bytes` bytes, from byte `offset` on.
    pub fn new(offset: u64, bytes: u64) -> Result<Self, StoredRangeError> {
        let sound = bytes > 0 && offset.checked_add(bytes).is_some();
        if sound { Ok(Self { offset, bytes }) } else { Err(StoredRangeError { offset, bytes }) }
    }

    /// The first byte.
    pub fn offset(self) -> u64 {
        self.offset
    }

    /// How many there are.
    pub fn bytes(self) -> u64 {
        self.bytes
    }

    /// Behind the last byte.
    pub fn end(self) -> u64 {
        // Checked when it was made.
        self.offset.saturating_add(self.bytes)
    }

    /// Whether all of `other` is in it.
    pub fn holds(self, other: StoredRange) -> bool {
        self.offset <= other.offset && other.end() <= self.end()
    }
}

impl TryFrom<(u64, u64)> for StoredRange {
    type Error = StoredRangeError;

    fn try_from((offset, bytes): (u64, u64)) -> Result<Self, StoredRangeError> {
        Self::new(offset, bytes)
    }
}

impl From<StoredRange> for (u64, u64) {
    fn from(range: StoredRange) -> Self {
        (range.offset, range.bytes)
    }
}

/// What to read of an object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reading {
    /// All of it, which can then be held against the hash of the whole.
    Whole,
    /// Only these ranges.
    Ranges(Vec<StoredRange>),
}

/// So many bytes that nobody needs are read on the way to the next that are: the time that a
/// request takes is that of some hundred KiB.
const GAP_BYTES_MAX: u64 = 256 << 10;

/// What to read of an object with `stored_bytes` for what stands at `needed`; `None` among them
/// stands for something that may be anywhere.
pub fn reading(stored_bytes: u64, needed: impl IntoIterator<Item = Option<StoredRange>>) -> Reading {
    let Some(ranges) = needed.into_iter().collect::<Option<Vec<_>>>() else { return Reading::Whole };
    let ranges = joined(ranges);
    let wanted = ranges.iter().fold(0u64, |sum, range| sum.saturating_add(range.bytes));
    // What would be saved is not worth the proof of the whole.
    if wanted >= stored_bytes - stored_bytes / 8 { Reading::Whole } else { Reading::Ranges(ranges) }
}

fn joined(mut ranges: Vec<StoredRange>) -> Vec<StoredRange> {
    ranges.sort_unstable();
    let mut joined: Vec<StoredRange> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.offset <= last.end().saturating_add(GAP_BYTES_MAX) => {
                last.bytes = last.end().max(range.end()) - last.offset;
            }
            _ => joined.push(range),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(offset: u64, bytes: u64) -> StoredRange {
        StoredRange::new(offset, bytes).unwrap()
    }

    #[test]
    fn neighbours_are_read_at_once_and_the_far_apart_are_not() {
        let far = 50 << 20;
        let needed = [range(far, 10), range(0, 100), range(0, 100), range(100 + GAP_BYTES_MAX, 50)];
        let read = reading(1 << 30, needed.map(Some));
        assert_eq!(read, Reading::Ranges(vec![range(0, 150 + GAP_BYTES_MAX), range(far, 10)]));
    }

    #[test]
    fn an_object_of_which_most_is_needed_is_read_whole() {
        assert_eq!(reading(800, [Some(range(0, 700))]), Reading::Whole);
        assert_eq!(reading(800, [Some(range(0, 699))]), Reading::Ranges(vec![range(0, 699)]));
        assert_eq!(reading(1 << 30, [Some(range(0, 1)), None]), Reading::Whole);
    }

    #[test]
    fn a_range_that_is_empty_or_has_no_end_is_refused() {
        for text in ["[5,0]", "[1,18446744073709551615]", "[1]", "[-1,2]", "[1,2,3]"] {
            assert!(serde_json::from_str::<StoredRange>(text).is_err(), "{text}");
        }
        assert_eq!(serde_json::to_string(&range(7, 9)).unwrap(), "[7,9]");
    }

    proptest! {
        #[test]
        fn what_is_read_covers_what_is_needed_in_order(
            needed in prop::collection::vec((0u64..1 << 40, 1u64..1 << 30), 1..40),
        ) {
            let needed: Vec<_> = needed.into_iter().map(|(offset, bytes)| range(offset, bytes)).collect();
            let Reading::Ranges(read) = reading(u64::MAX, needed.iter().copied().map(Some)) else {
                return Err(TestCaseError::fail("whole"));
            };
            prop_assert!(needed.iter().all(|one| read.iter().any(|range| range.holds(*one))));
            prop_assert!(read.windows(2).all(|pair| pair[0].end() < pair[1].offset()));
        }

        #[test]
        fn a_range_reads_back_as_it_was_written(offset in 0u64..1 << 62, bytes in 1u64..1 << 62) {
            let written = serde_json::to_string(&range(offset, bytes)).unwrap();
            prop_assert_eq!(serde_json::from_str::<StoredRange>(&written).unwrap(), range(offset, bytes));
        }
    }
}
