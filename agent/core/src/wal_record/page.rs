//! The header that every page of WAL begins with (`XLogPageHeaderData` in PostgreSQL's
//! `access/xlog_internal.h`); the first page of a segment has more of it, see `wal_page`.

use crate::little_endian::{u16_at, u32_at, u64_at};
use crate::lsn::Lsn;
use crate::segment::{SegmentName, SegmentSize};
use crate::system_id::SystemId;
use crate::timeline::TimelineId;
use crate::wal_page::{LongPageHeader, WalPageError, check_segment, is_magic};

const MAGIC: usize = 0;
const FLAGS: usize = 2;
const TIMELINE: usize = 4;
const ADDRESS: usize = 8;
const REMAINING: usize = 16;
/// `SizeOfXLogShortPHD`
const SHORT_BYTES: usize = 24;

/// `XLP_FIRST_IS_CONTRECORD`
const FLAG_CONTINUES: u16 = 0x0001;
/// `XLP_LONG_HEADER`
const FLAG_LONG: u16 = 0x0002;
/// `XLP_FIRST_IS_OVERWRITE_CONTRECORD`
const FLAG_OVERWRITES: u16 = 0x0008;
/// `XLP_ALL_FLAGS`
const FLAGS_ALL: u16 = 0x000F;

/// Why a page can't be the one that belongs here. The texts follow "page at <position>: ".
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PageProblem {
    /// The first page of a segment is not that of this segment.
    #[error("{0}")]
    First(WalPageError),
    /// `xlp_magic` is not PostgreSQL's, or not that of the other pages.
    #[error("its magic is {found:04X}, {}", match expected {
        Some(expected) => format!("expected {expected:04X}"),
        None => "which no PostgreSQL from 13 to 18 writes".to_owned(),
    })]
    Magic {
        /// In the page.
        found: u16,
        /// In the pages before, where there were some.
        expected: Option<u16>,
    },
    /// `xlp_info` has bits that no such page has.
    #[error("its flags are {0:04X}, which PostgreSQL never sets there")]
    Flags(u16),
    /// `xlp_tli` goes backwards or is later than the segment's.
    #[error("its timeline is {found}, expected {least} to {most}")]
    Timeline {
        /// In the page.
        found: u32,
        /// That of the page before.
        least: TimelineId,
        /// That of the segment.
        most: TimelineId,
    },
    /// `xlp_pageaddr` is that of another page, as in a recycled file.
    #[error("it says that it is the page at {:X}/{:X}", .0 >> 32, .0 & 0xFFFF_FFFF)]
    Address(u64),
    /// A record went on up to the end of the page before and does not go on here.
    #[error("the record {}does not go on here", from(*record))]
    NotContinued {
        /// Where the record begins, if it was seen.
        record: Option<Lsn>,
    },
    /// A record goes on here, and none went on up to the end of the page before.
    #[error("{bytes} bytes of a record go on here, but the last record ends before")]
    Continued {
        /// `xlp_rem_len`
        bytes: u32,
    },
    /// A record goes on here with another length than it should.
    #[error("{found} bytes of the record {}go on here, expected {expected}", from(*record))]
    ContinuedLength {
        /// Where the record begins, if it was seen.
        record: Option<Lsn>,
        /// `xlp_rem_len`
        found: u32,
        /// What the record lacks.
        expected: u32,
    },
}

fn from(record: Option<Lsn>) -> String {
    record.map_or_else(String::new, |start| format!("from {start} "))
}

/// What a page is held against.
#[derive(Clone, Copy, Debug)]
pub(super) struct PageRules {
    pub system_id: SystemId,
    pub segment_size: SegmentSize,
    pub segment: SegmentName,
    /// `xlp_magic` of the pages before: a cluster keeps its version, `pg_upgrade` makes another.
    pub magic: Option<u16>,
    /// The timeline of the page before, once there was one.
    pub timeline: Option<TimelineId>,
}

/// How a page begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Beginning {
    /// With a record.
    Record,
    /// With the rest of one, of so many bytes.
    Rest(u32),
    /// With a record in place of the rest of one that a crash cut off: the page before ends
    /// with a record that will never go on.
    Overwrite,
}

/// A page header that belongs here.
#[derive(Clone, Copy, Debug)]
pub(super) struct PageHeader {
    pub bytes: usize,
    pub magic: u16,
    pub timeline: TimelineId,
    pub beginning: Beginning,
}

impl PageHeader {
    /// Checks the header of the page at `address`; `first` tells that it opens the segment.
    pub fn check(page: &[u8], address: u64, first: bool, rules: &PageRules) -> Result<Self, PageProblem> {
        let field = |offset| u16_at(page, offset).unwrap_or_default();
        let (magic, flags) = (field(MAGIC), field(FLAGS));
        if first {
            check_segment(page, rules.segment, rules.system_id, rules.segment_size)
                .map_err(PageProblem::First)?;
        }
        if rules.magic.map_or(!is_magic(magic), |expected| magic != expected) {
            return Err(PageProblem::Magic { found: magic, expected: rules.magic });
        }
        if !first && flags & FLAG_LONG != 0 {
            return Err(PageProblem::Flags(flags));
        }
        let (continues, overwrites) = (flags & FLAG_CONTINUES != 0, flags & FLAG_OVERWRITES != 0);
        if flags & !FLAGS_ALL != 0 || (continues && overwrites) {
            return Err(PageProblem::Flags(flags));
        }
        let found = u64_at(page, ADDRESS).unwrap_or_default();
        if found != address {
            return Err(PageProblem::Address(found));
        }
        let remaining = u32_at(page, REMAINING).unwrap_or_default();
        Ok(Self {
            bytes: if first { LongPageHeader::BYTES } else { SHORT_BYTES },
            magic,
            timeline: check_timeline(page, rules)?,
            beginning: match (continues, overwrites) {
                // A record of which nothing is left does not go on.
                (true, _) if remaining == 0 => return Err(PageProblem::Continued { bytes: 0 }),
                (true, _) => Beginning::Rest(remaining),
                (false, true) => Beginning::Overwrite,
                (false, false) => Beginning::Record,
            },
        })
    }
}

/// A later timeline has a higher number, so they never go backwards along the log. Lower ones
/// than the segment's stand in front of the switch.
fn check_timeline(page: &[u8], rules: &PageRules) -> Result<TimelineId, PageProblem> {
    let found = u32_at(page, TIMELINE).unwrap_or_default();
    let (least, most) = (rules.timeline.unwrap_or(TimelineId::FIRST), rules.segment.timeline());
    TimelineId::new(found)
        .filter(|timeline| least <= *timeline && *timeline <= most)
        .ok_or(PageProblem::Timeline { found, least, most })
}
