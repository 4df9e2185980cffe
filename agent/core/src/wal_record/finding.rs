//! What is wrong with a segment, and from where on its log is lost.

use super::header::RecordProblem;
use super::page::PageProblem;
use crate::lsn::Lsn;
use std::fmt;

/// One place where the log does not hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecordFinding {
    /// Where a recovery would stop: the beginning of the first record that can't be replayed. The
    /// damage itself may stand further on, where that record is continued. Where nothing of that
    /// record was seen, because the walk began in its middle, it is the page of the damage.
    pub at: Lsn,
    /// What is wrong.
    pub what: Damage,
}

/// A kind of damage.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Damage {
    /// The page at this position is not the one that belongs there.
    Page(Lsn, PageProblem),
    /// The record does not hold.
    Record(RecordProblem),
    /// The file is not as long as a segment.
    SegmentLength {
        /// Bytes in the file.
        found: u64,
        /// Bytes in a segment.
        expected: u32,
    },
}

impl fmt::Display for RecordFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            Damage::Page(page, problem) => write!(f, "page at {page}: {problem}"),
            Damage::Record(problem) => write!(f, "record at {}: {problem}", self.at),
            Damage::SegmentLength { found, expected } => {
                write!(f, "the segment has {found} bytes, expected {expected}")
            }
        }
    }
}
