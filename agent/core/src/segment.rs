//! WAL segments: their size, their names, and the arithmetic between names and positions.
//!
//! A segment's name is 24 hexadecimal digits: timeline, then the upper and lower part of its
//! number. The lower part counts the segments in 4 GiB, so it rolls over at
//! `2^32 / segment size` (`XLogFileName` in PostgreSQL's `xlog_internal.h`).

use crate::lsn::Lsn;
use crate::timeline::TimelineId;
use std::fmt;

/// The size of a cluster's WAL segments in bytes: a power of two from 1 MiB to 1 GiB,
/// fixed by `initdb --wal-segsize` and recorded in `pg_control`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[cfg_attr(feature = "formats", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "formats", serde(try_from = "u32", into = "u32"))]
pub struct SegmentSize(u32);

/// A number that no cluster's segments can have as their size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentSizeError {
    bytes: u32,
}

impl fmt::Display for SegmentSizeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not a WAL segment size: expected a power of two from 1 MiB to 1 GiB", self.bytes)
    }
}

impl std::error::Error for SegmentSizeError {}

impl SegmentSize {
    /// 16 MiB, what `initdb` takes unless told otherwise.
    pub const DEFAULT: SegmentSize = SegmentSize(16 << 20);
    const MIN_BYTES: u32 = 1 << 20;
    const MAX_BYTES: u32 = 1 << 30;

    /// Checks a size in bytes.
    pub const fn new(bytes: u32) -> Result<Self, SegmentSizeError> {
        if bytes.is_power_of_two() && bytes >= Self::MIN_BYTES && bytes <= Self::MAX_BYTES {
            Ok(Self(bytes))
        } else {
            Err(SegmentSizeError { bytes })
        }
    }

    /// Bytes in one segment.
    pub const fn bytes(self) -> u32 {
        self.0
    }

    /// Segments in 4 GiB of log: where the lower part of a name rolls over.
    pub const fn segments_per_log_file(self) -> u64 {
        0x1_0000_0000 / self.0 as u64
    }
}

impl Default for SegmentSize {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl TryFrom<u32> for SegmentSize {
    type Error = SegmentSizeError;

    fn try_from(bytes: u32) -> Result<Self, SegmentSizeError> {
        Self::new(bytes)
    }
}

impl From<SegmentSize> for u32 {
    fn from(size: SegmentSize) -> u32 {
        size.0
    }
}

/// The name of a full WAL segment, such as `000000010000000000000042`.
///
/// Which position it stands for depends on the cluster's [`SegmentSize`]; a name is checked
/// against one by [`SegmentName::number`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "formats", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "formats", serde(try_from = "String", into = "String"))]
pub struct SegmentName {
    timeline: TimelineId,
    log: u32,
    seg: u32,
}

/// Text or a number that names no WAL segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentNameError {
    text: String,
}

impl fmt::Display for SegmentNameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "\"{}\" is not a WAL segment's name: expected 24 upper-case hexadecimal digits",
            self.text.escape_default()
        )
    }
}

impl std::error::Error for SegmentNameError {}

impl SegmentName {
    /// Length of a name in bytes.
    pub const LEN: usize = 24;

    /// The segment of this number (0 is the first of the log) on a timeline.
    /// `None` past the last number that a name can hold.
    pub fn from_number(timeline: TimelineId, number: u64, size: SegmentSize) -> Option<Self> {
        let per_log = size.segments_per_log_file();
        let log = u32::try_from(number / per_log).ok()?;
        let seg = u32::try_from(number % per_log).ok()?;
        Some(Self { timeline, log, seg })
    }

    /// The segment that holds the byte at `lsn`.
    pub fn containing(timeline: TimelineId, lsn: Lsn, size: SegmentSize) -> Self {
        // A 64-bit position always fits: `from_number` fails only above 2^64 / size.
        Self::from_number(timeline, lsn.get() / u64::from(size.bytes()), size).unwrap_or(Self {
            timeline,
            log: u32::MAX,
            seg: 0,
        })
    }

    /// The segment that holds the last byte *before* `lsn`: for an end position, which may
    /// stand on the border of a segment that has no bytes yet (`XLByteToPrevSeg`).
    pub fn ending_at(timeline: TimelineId, lsn: Lsn, size: SegmentSize) -> Self {
        let last_byte = Lsn::new(lsn.get() - 1).unwrap_or(lsn);
        if lsn.get() == 1 {
            return Self { timeline, log: 0, seg: 0 };
        }
        Self::containing(timeline, last_byte, size)
    }

    /// Parses exactly 24 upper-case hexadecimal digits.
    pub fn parse(text: &str) -> Result<Self, SegmentNameError> {
        let error = || SegmentNameError { text: text.to_owned() };
        let bytes = text.as_bytes();
        let upper_hex = |b: &u8| b.is_ascii_digit() || (b'A'..=b'F').contains(b);
        if bytes.len() != Self::LEN || !bytes.iter().all(upper_hex) {
            return Err(error());
        }
        let part = |from: usize| {
            text.get(from..from + 8).and_then(|digits| u32::from_str_radix(digits, 16).ok()).ok_or_else(error)
        };
        Ok(Self { timeline: TimelineId::new(part(0)?).ok_or_else(error)?, log: part(8)?, seg: part(16)? })
    }

    /// The timeline that the segment was written on.
    pub const fn timeline(self) -> TimelineId {
        self.timeline
    }

    /// The segment's number in the log, or `None` where a cluster with segments of `size`
    /// has no such name (its lower part is at or above the roll-over).
    pub fn number(self, size: SegmentSize) -> Option<u64> {
        let per_log = size.segments_per_log_file();
        (u64::from(self.seg) < per_log).then(|| u64::from(self.log) * per_log + u64::from(self.seg))
    }

    /// The position of the segment's first byte; `None` for the very first segment of the
    /// log, which begins at the invalid position 0, and for a name foreign to `size`.
    pub fn start(self, size: SegmentSize) -> Option<Lsn> {
        self.number(size)?.checked_mul(u64::from(size.bytes())).and_then(Lsn::new)
    }

    /// The next segment on the same timeline.
    pub fn next(self, size: SegmentSize) -> Option<Self> {
        Self::from_number(self.timeline, self.number(size)?.checked_add(1)?, size)
    }

    /// The same place in the log on another timeline.
    pub const fn on_timeline(self, timeline: TimelineId) -> Self {
        Self { timeline, ..self }
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08X}{:08X}{:08X}", self.timeline.get(), self.log, self.seg)
    }
}

impl fmt::Debug for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SegmentName({self})")
    }
}

impl TryFrom<String> for SegmentName {
    type Error = SegmentNameError;

    fn try_from(text: String) -> Result<Self, SegmentNameError> {
        Self::parse(&text)
    }
}

impl From<SegmentName> for String {
    fn from(name: SegmentName) -> String {
        name.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tl(number: u32) -> TimelineId {
        TimelineId::new(number).unwrap()
    }

    fn any_size() -> impl Strategy<Value = SegmentSize> {
        (20u32..=30).prop_map(|shift| SegmentSize::new(1 << shift).unwrap())
    }

    #[test]
    fn a_segment_after_the_last_in_a_log_file_rolls_over() {
        let last = SegmentName::parse("0000000100000000000000FF").unwrap();
        assert_eq!(last.next(SegmentSize::DEFAULT).unwrap().to_string(), "000000010000000100000000");
        let one_mib = SegmentSize::new(1 << 20).unwrap();
        assert_eq!(last.next(one_mib).unwrap().to_string(), "000000010000000000000100");
        let gib = SegmentSize::new(1 << 30).unwrap();
        let third = SegmentName::parse("000000010000000000000003").unwrap();
        assert_eq!(third.next(gib).unwrap().to_string(), "000000010000000100000000");
    }

    #[test]
    fn a_name_that_the_segment_size_cannot_have_has_no_number() {
        let foreign = SegmentName::parse("000000010000000000000100").unwrap();
        assert_eq!(foreign.number(SegmentSize::DEFAULT), None);
        assert_eq!(foreign.next(SegmentSize::DEFAULT), None);
    }

    #[test]
    fn an_end_on_the_border_belongs_to_the_segment_before() {
        let lsn = "0/3000000".parse().unwrap();
        let size = SegmentSize::DEFAULT;
        assert_eq!(SegmentName::containing(tl(1), lsn, size).to_string(), "000000010000000000000003");
        assert_eq!(SegmentName::ending_at(tl(1), lsn, size).to_string(), "000000010000000000000002");
    }

    #[test]
    fn what_is_not_a_segment_name_is_refused() {
        for text in [
            "",
            "000000000000000000000001",
            "00000001000000000000000a",
            "0000000100000000000000001",
            "+00000010000000000000001",
        ] {
            assert!(SegmentName::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn sizes_are_powers_of_two_between_one_mib_and_one_gib() {
        assert!(SegmentSize::new(0).is_err());
        assert!(SegmentSize::new(1 << 19).is_err());
        assert!(SegmentSize::new(3 << 20).is_err());
        assert!(SegmentSize::new(1 << 31).is_err());
        assert!(SegmentSize::new(1 << 30).is_ok());
    }

    proptest! {
        #[test]
        fn names_round_trip(timeline in 1u32.., log: u32, seg: u32) {
            let name = SegmentName { timeline: tl(timeline), log, seg };
            prop_assert_eq!(SegmentName::parse(&name.to_string()).unwrap(), name);
        }

        #[test]
        fn numbers_round_trip(size in any_size(), lsn in 1u64..) {
            let lsn = Lsn::new(lsn).unwrap();
            let name = SegmentName::containing(tl(7), lsn, size);
            let number = name.number(size).unwrap();
            prop_assert_eq!(number, lsn.get() / u64::from(size.bytes()));
            prop_assert_eq!(SegmentName::from_number(tl(7), number, size).unwrap(), name);
        }

        #[test]
        fn any_text_parses_or_fails_without_panic(text in "\\PC{0,30}") {
            let _ = SegmentName::parse(&text);
        }
    }
}
