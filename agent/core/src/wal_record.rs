//! The records inside WAL segments: walked one by one, across page and segment borders, without
//! a PostgreSQL.
//!
//! A segment's hash proves that it is what was archived. This proves that what was archived can
//! be replayed: [`RecordWalker`] makes the checks with which PostgreSQL itself decides whether
//! the log goes on (`XLogDecodeNextRecord`, `XLogReaderValidatePageHeader`,
//! `ValidXLogRecordHeader` and `ValidXLogRecord` in `access/transam/xlogreader.c`). After damage
//! it goes on where it can, so that later damage is found in the same walk.
//!
//! Invariants:
//! - Memory is bounded by two pages and [`FINDINGS_KEPT`] findings, however long a record is:
//!   its CRC is summed as it passes.
//! - Any bytes may be fed. Nothing panics, and the time is linear in the bytes.
//! - What PostgreSQL does not look at is not looked at either: the rest of a segment behind
//!   `XLOG_SWITCH`, the padding between records, `XLP_BKP_REMOVABLE`, the length field of a page
//!   that continues no record. A bit that flips there costs no recovery; the hash of the whole
//!   file finds it.
//!
//! Two things are open at the ends of a walk. A record that began before the first segment of
//! the walk is skipped and not proven; one that goes on behind the last is proven when the next
//! segment is fed, in this walk or in one that takes up its [`Carry`].
//!
//! Segments are fed in the order in which recovery replays them. That may cross timelines: the
//! first segment of a new timeline holds a copy of the old one's log up to the switch, page
//! headers and all, and goes on from there.
//!
//! ```
//! use wald_core::segment::{SegmentName, SegmentSize};
//! use wald_core::system_id::SystemId;
//! use wald_core::wal_record::{Ending, RecordWalker};
//!
//! let system_id = SystemId::new(7).ok_or("0 is no identifier")?;
//! let mut walker = RecordWalker::new(system_id, SegmentSize::DEFAULT);
//! for (name, object) in [("000000010000000000000002", [0u8; 8192])] {
//!     let mut segment = walker.begin(SegmentName::parse(name)?, Ending::WithSegment);
//!     for piece in object.chunks(1000) {
//!         segment.feed(piece);
//!     }
//!     let walk = segment.finish();
//!     for finding in &walk.findings {
//!         println!("{name}: {finding}");
//!     }
//!     assert_eq!(walk.findings.len(), 2, "neither WAL nor long enough");
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod page;
mod header;
mod finding;
mod position;
mod step;
mod walker;

pub use finding::{Damage, RecordFinding};
pub use header::{Previous, RecordProblem};
pub use page::PageProblem;
pub use position::Carry;
pub use walker::{OpenSegment, RecordWalker};

use crate::lsn::Lsn;
use crate::segment::SegmentName;

/// How many findings of one segment are kept; the rest is counted.
pub const FINDINGS_KEPT: usize = 100;

/// Where the log may end in a segment.
///
/// PostgreSQL takes the first record that does not hold for the end of the log; so where an end
/// is allowed, damage can't be told from it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// Nowhere: records fill the segment, or `XLOG_SWITCH` ends it. So it is with every segment
    /// that was archived under its own name.
    WithSegment,
    /// At this position or anywhere behind it: the last segment of a timeline, which is archived
    /// as `.partial`. Given the position where the next timeline begins, everything up to there
    /// is proven; given the segment's start, only what comes first is.
    AtOrAfter(Lsn),
}

/// A record that holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record {
    /// Where it begins.
    pub start: Lsn,
    /// `xl_tot_len`: bytes with its header, without the headers of the pages it spans.
    pub length: u32,
    /// `xl_rmid`
    pub resource_manager: u8,
    /// `xl_info`
    pub info: u8,
}

/// What the walk through one segment found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SegmentWalk {
    /// The segment.
    pub segment: SegmentName,
    /// Records that were read to their end in this segment and hold.
    pub records: u64,
    /// What is damaged, in the order of the log; at most [`FINDINGS_KEPT`]. A record that began
    /// in the segment before is reported with this one if it is here that it can't go on.
    pub findings: Vec<RecordFinding>,
    /// Findings beyond those.
    pub findings_left_out: u64,
    /// Where the log ends, if it ends in this segment and [`Ending`] allows that.
    pub end: Option<Lsn>,
    /// The record that goes on in the next segment and is not proven yet.
    pub open: Option<Lsn>,
}

#[cfg(test)]
mod tests;
