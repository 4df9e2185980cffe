//! Where a walk stands between two pages, and what of that outlives a segment.

use super::header::{HEADER_BYTES, Previous, RecordHeader};
use crate::lsn::Lsn;
use crate::segment::SegmentName;
use crate::timeline::TimelineId;
use serde::{Deserialize, Serialize};

/// What comes next in the log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Position {
    /// Unknown: the next page that belongs where it stands tells.
    Lost,
    /// A record begins.
    Record,
    /// The rest of a record of which the beginning was not seen or is damaged.
    Skip(u32),
    /// The rest of a record.
    Rest(Partial),
    /// Nothing: `XLOG_SWITCH` left the rest of the segment unused.
    Switched,
    /// Nothing: the log ends here.
    Ended(Lsn),
}

/// A record of which a part is still to come.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Partial {
    pub start: Lsn,
    pub length: u32,
    /// How much of it was seen: at least 8 bytes, less than its length.
    pub done: u32,
    /// As much of the header as was seen.
    pub header: [u8; HEADER_BYTES],
    /// CRC-32C of what was seen behind the header.
    pub data_crc: u32,
}

impl Partial {
    /// The record of this length that begins with `bytes` and does not end with them.
    pub fn begin(start: Lsn, length: u32, bytes: &[u8]) -> Self {
        let mut partial = Self { start, length, done: 0, header: [0; HEADER_BYTES], data_crc: 0 };
        partial.take(bytes);
        partial
    }

    /// What is still to come.
    pub fn remaining(&self) -> u32 {
        self.length.saturating_sub(self.done)
    }

    /// Whether the whole header was seen.
    pub fn has_header(&self) -> bool {
        usize::try_from(self.done).is_ok_and(|done| done >= HEADER_BYTES)
    }

    pub fn header(&self) -> RecordHeader {
        RecordHeader::parse(&self.header)
    }

    /// Takes in the next bytes of the record, no more than remain.
    pub fn take(&mut self, bytes: &[u8]) {
        let seen = usize::try_from(self.done).unwrap_or(usize::MAX);
        let missing = self.header.get_mut(seen..).unwrap_or_default();
        let (head, data) = bytes.split_at(bytes.len().min(missing.len()));
        for (to, from) in missing.iter_mut().zip(head) {
            *to = *from;
        }
        self.data_crc = crc32c::crc32c_append(self.data_crc, data);
        self.done = self.done.saturating_add(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    }
}

/// What a walk knows at the end of a segment: with it a later walk goes on with the next one as
/// if there had been no pause. Serialized, it is a few hundred bytes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Carry {
    /// The last segment walked.
    pub(super) segment: SegmentName,
    /// The timeline of its last page.
    pub(super) timeline: Option<TimelineId>,
    /// `xlp_magic` of its pages.
    #[serde(default)]
    pub(super) magic: Option<u16>,
    pub(super) position: Position,
    pub(super) previous: Previous,
    /// See the field of `Chain`.
    pub(super) doubtful: bool,
}

impl Carry {
    /// The segment after which a walk can go on.
    pub const fn segment(&self) -> SegmentName {
        self.segment
    }
}

/// A position that is known to be one. Only the very first page of the log stands at 0, and
/// PostgreSQL never writes it: its log begins with the second segment.
pub(super) fn lsn(address: u64) -> Lsn {
    Lsn::new(address).unwrap_or(Lsn::MIN)
}
