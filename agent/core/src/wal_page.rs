//! The header of a WAL segment's first page: whose segment it is and where in the log it
//! stands (`XLogLongPageHeaderData` in PostgreSQL's `access/xlog_internal.h`).
//!
//! [`check_segment`] holds a file against its name and against the cluster before anything of
//! it is stored. It looks at the header only; the records behind it are not read here.

use crate::little_endian::{u16_at, u32_at, u64_at};
use crate::segment::{SegmentName, SegmentSize};
use crate::system_id::SystemId;
use crate::timeline::TimelineId;

const MAGIC: usize = 0;
const FLAGS: usize = 2;
const TIMELINE: usize = 4;
const PAGE_ADDRESS: usize = 8;
const SYSTEM_ID: usize = 24;
const SEGMENT_SIZE: usize = 32;
const BLOCK_SIZE: usize = 36;

/// `XLP_LONG_HEADER`: every first page of a segment has it.
const FLAG_LONG_HEADER: u16 = 0x0002;
/// `XLP_ALL_FLAGS`: no other bit is ever set.
const FLAGS_ALL: u16 = 0x000F;

/// A valid long page header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LongPageHeader {
    major_version: u32,
    flags: u16,
    timeline: TimelineId,
    page_address: u64,
    system_id: SystemId,
    segment_size: SegmentSize,
    block_size: u32,
}

/// Bytes that are not the beginning of the segment they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WalPageError {
    /// Not WAL at all, or of a PostgreSQL that wald does not know.
    #[error("this is not the beginning of a WAL segment of PostgreSQL 13 to 18: {reason}")]
    NotWal {
        /// What gave it away.
        reason: NotWal,
    },
    /// WAL of another cluster.
    #[error(
        "segment {segment} was written by the cluster with system identifier {found}, expected {expected}: \
         archive each cluster to a repository of its own"
    )]
    OtherCluster {
        /// The segment by its name.
        segment: SegmentName,
        /// The cluster that the repository belongs to.
        expected: SystemId,
        /// The cluster that wrote the segment.
        found: SystemId,
    },
    /// The cluster's segments have another size.
    #[error("segment {segment} belongs to a cluster with segments of {} bytes, expected {}", found.bytes(), expected.bytes())]
    OtherSegmentSize {
        /// The segment by its name.
        segment: SegmentName,
        /// The size that the repository was made for.
        expected: SegmentSize,
        /// The size that the header gives.
        found: SegmentSize,
    },
    /// The lower part of the name is past the roll-over for this segment size.
    #[error("no segment of a cluster with segments of {} bytes is called {segment}", size.bytes())]
    ImpossibleName {
        /// The name.
        segment: SegmentName,
        /// The cluster's segment size.
        size: SegmentSize,
    },
    /// The content of another segment, such as a recycled file that was not written yet.
    #[error(
        "segment {segment} should begin at {:X}/{:X}, its first page says {:X}/{:X}: the file holds another segment",
        expected >> 32, expected & 0xFFFF_FFFF, found >> 32, found & 0xFFFF_FFFF
    )]
    OtherPosition {
        /// The segment by its name.
        segment: SegmentName,
        /// Where a segment of that name begins, in bytes.
        expected: u64,
        /// What the page says.
        found: u64,
    },
    /// The content of a later timeline.
    #[error("segment {segment} is on timeline {}, its first page is on the later timeline {found}", segment.timeline())]
    LaterTimeline {
        /// The segment by its name.
        segment: SegmentName,
        /// The timeline of the first page.
        found: TimelineId,
    },
}

/// Why bytes are not the first page of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotWal {
    /// Fewer bytes than a header has.
    #[error("it has {0} bytes, a header has {len}", len = LongPageHeader::BYTES)]
    TooShort(usize),
    /// `xlp_magic` is not PostgreSQL's.
    #[error("unknown page magic {0:04X}")]
    Magic(u16),
    /// `xlp_info` lacks the long-header flag or has an unknown one.
    #[error("page flags {0:04X}")]
    Flags(u16),
    /// Timeline 0.
    #[error("timeline 0")]
    Timeline,
    /// System identifier 0.
    #[error("system identifier 0")]
    SystemId,
    /// A segment size that no cluster has.
    #[error("segment size {0}")]
    SegmentSize(u32),
    /// A WAL block size that no cluster has.
    #[error("WAL block size {0}")]
    BlockSize(u32),
}

impl From<NotWal> for WalPageError {
    fn from(reason: NotWal) -> Self {
        Self::NotWal { reason }
    }
}

impl LongPageHeader {
    /// Bytes in the header (`SizeOfXLogLongPHD`).
    pub const BYTES: usize = 40;

    /// Parses the beginning of a segment; the bytes may go on behind the header.
    pub fn parse(bytes: &[u8]) -> Result<Self, NotWal> {
        let short = || NotWal::TooShort(bytes.len());
        if bytes.len() < Self::BYTES {
            return Err(short());
        }
        let magic = u16_at(bytes, MAGIC).ok_or_else(short)?;
        let major_version = major_version(magic).ok_or(NotWal::Magic(magic))?;
        let flags = u16_at(bytes, FLAGS).ok_or_else(short)?;
        if flags & FLAG_LONG_HEADER == 0 || flags & !FLAGS_ALL != 0 {
            return Err(NotWal::Flags(flags));
        }
        let timeline = u32_at(bytes, TIMELINE).ok_or_else(short)?;
        let system_id = u64_at(bytes, SYSTEM_ID).ok_or_else(short)?;
        let segment_size = u32_at(bytes, SEGMENT_SIZE).ok_or_else(short)?;
        let block_size = u32_at(bytes, BLOCK_SIZE).ok_or_else(short)?;
        // `configure --with-wal-blocksize` takes 1 to 64 kB.
        if !block_size.is_power_of_two() || !(1024..=65_536).contains(&block_size) {
            return Err(NotWal::BlockSize(block_size));
        }
        Ok(Self {
            major_version,
            flags,
            timeline: TimelineId::new(timeline).ok_or(NotWal::Timeline)?,
            page_address: u64_at(bytes, PAGE_ADDRESS).ok_or_else(short)?,
            system_id: SystemId::new(system_id).ok_or(NotWal::SystemId)?,
            segment_size: SegmentSize::new(segment_size).map_err(|_| NotWal::SegmentSize(segment_size))?,
            block_size,
        })
    }

    /// PostgreSQL's major version.
    pub const fn major_version(&self) -> u32 {
        self.major_version
    }

    /// `xlp_info`.
    pub const fn flags(&self) -> u16 {
        self.flags
    }

    /// The timeline that the page was written on.
    pub const fn timeline(&self) -> TimelineId {
        self.timeline
    }

    /// The page's position, bytes from the beginning of the log. Not an `Lsn`: the first
    /// page of the log stands at 0.
    pub const fn page_address(&self) -> u64 {
        self.page_address
    }

    /// The cluster that wrote the page.
    pub const fn system_id(&self) -> SystemId {
        self.system_id
    }

    /// The cluster's segment size.
    pub const fn segment_size(&self) -> SegmentSize {
        self.segment_size
    }

    /// Bytes in a page of WAL.
    pub const fn block_size(&self) -> u32 {
        self.block_size
    }
}

/// Whether a page of WAL of a known PostgreSQL begins with this number.
pub(crate) const fn is_magic(magic: u16) -> bool {
    major_version(magic).is_some()
}

/// `XLOG_PAGE_MAGIC` of each release branch.
const fn major_version(magic: u16) -> Option<u32> {
    match magic {
        0xD106 => Some(13),
        0xD10D => Some(14),
        0xD110 => Some(15),
        0xD113 => Some(16),
        0xD116 => Some(17),
        0xD118 => Some(18),
        _ => None,
    }
}

/// Checks that `first_page` begins the segment called `segment` of the cluster `system_id`.
/// The same holds for `.partial` files, which have the first page of the full segment.
///
/// The page's timeline may be *older* than the name's: when a promotion falls into the middle
/// of a segment, PostgreSQL copies the part before the switch from the old timeline's file,
/// page headers and all (`XLogFileCopy`, called by `XLogInitNewTimeline`). A later one is wrong.
pub fn check_segment(
    first_page: &[u8],
    segment: SegmentName,
    system_id: SystemId,
    size: SegmentSize,
) -> Result<LongPageHeader, WalPageError> {
    let header = LongPageHeader::parse(first_page)?;
    if header.system_id != system_id {
        return Err(WalPageError::OtherCluster { segment, expected: system_id, found: header.system_id });
    }
    if header.segment_size != size {
        return Err(WalPageError::OtherSegmentSize { segment, expected: size, found: header.segment_size });
    }
    let expected = segment
        .number(size)
        .and_then(|number| number.checked_mul(size.bytes().into()))
        .ok_or(WalPageError::ImpossibleName { segment, size })?;
    if header.page_address != expected {
        return Err(WalPageError::OtherPosition { segment, expected, found: header.page_address });
    }
    if header.timeline > segment.timeline() {
        return Err(WalPageError::LaterTimeline { segment, found: header.timeline });
    }
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The first bytes of 000000010000000000000001 as PostgreSQL 15.18's initdb wrote it.
    const REAL: [u8; 40] = [
        0x10, 0xd1, 0x02, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x38, 0xb7, 0xc7, 0xbf, 0x89, 0x34, 0x03, 0x6b, 0x00, 0x00,
        0x00, 0x01, 0x00, 0x20, 0x00, 0x00,
    ];

    fn id() -> SystemId {
        SystemId::new(7_711_064_753_221_121_848).unwrap()
    }

    fn name(text: &str) -> SegmentName {
        SegmentName::parse(text).unwrap()
    }

    #[test]
    fn a_real_segment_is_accepted_under_its_name() {
        let first = name("000000010000000000000001");
        let header = check_segment(&REAL, first, id(), SegmentSize::DEFAULT).unwrap();
        assert_eq!(header.major_version(), 15);
        assert_eq!(header.page_address(), 16 << 20);
        assert_eq!(header.block_size(), 8192);
    }

    #[test]
    fn a_segment_copied_at_a_promotion_keeps_the_old_timeline_in_its_first_page() {
        let after = name("000000030000000000000001");
        assert!(check_segment(&REAL, after, id(), SegmentSize::DEFAULT).is_ok());
    }

    #[test]
    fn a_page_of_a_later_timeline_is_refused() {
        let mut page = REAL;
        page[TIMELINE] = 2;
        let result = check_segment(&page, name("000000010000000000000001"), id(), SegmentSize::DEFAULT);
        assert!(matches!(result, Err(WalPageError::LaterTimeline { .. })), "{result:?}");
    }

    #[test]
    fn another_cluster_size_or_position_is_told_apart() {
        let first = name("000000010000000000000001");
        let other = SystemId::new(5).unwrap();
        let error = check_segment(&REAL, first, other, SegmentSize::DEFAULT).unwrap_err();
        assert!(matches!(error, WalPageError::OtherCluster { .. }));
        assert!(error.to_string().contains("7711064753221121848, expected 5"), "{error}");

        let one_mib = SegmentSize::new(1 << 20).unwrap();
        let error = check_segment(&REAL, first, id(), one_mib).unwrap_err();
        assert!(matches!(error, WalPageError::OtherSegmentSize { .. }));

        let second = name("000000010000000000000002");
        let error = check_segment(&REAL, second, id(), SegmentSize::DEFAULT).unwrap_err();
        assert!(error.to_string().contains("begin at 0/2000000, its first page says 0/1000000"), "{error}");

        let impossible = name("000000010000000000000100");
        let error = check_segment(&REAL, impossible, id(), SegmentSize::DEFAULT).unwrap_err();
        assert!(matches!(error, WalPageError::ImpossibleName { .. }));
    }

    #[test]
    fn zeros_text_and_short_files_are_not_wal() {
        let is_not_wal = |bytes: &[u8]| LongPageHeader::parse(bytes).unwrap_err();
        assert_eq!(is_not_wal(&[0; 8192]), NotWal::Magic(0));
        assert_eq!(is_not_wal(&REAL[..39]), NotWal::TooShort(39));
        assert_eq!(is_not_wal(b""), NotWal::TooShort(0));
        let mut short_header = REAL;
        short_header[FLAGS] = 0;
        assert_eq!(is_not_wal(&short_header), NotWal::Flags(0));
    }

    proptest! {
        #[test]
        fn a_header_for_a_name_passes_under_that_name_only(
            number in 0u64..0xFFFF_FFFF, other in 0u64..0xFFFF_FFFF, timeline in 1u32..1000, shift in 20u32..=30, system in 1u64..,
        ) {
            let size = SegmentSize::new(1 << shift).unwrap();
            let number = number % (u64::from(u32::MAX) * size.segments_per_log_file());
            let tl = TimelineId::new(timeline).unwrap();
            let segment = SegmentName::from_number(tl, number, size).unwrap();
            let mut page = REAL;
            page[TIMELINE..TIMELINE + 4].copy_from_slice(&timeline.to_le_bytes());
            page[PAGE_ADDRESS..PAGE_ADDRESS + 8].copy_from_slice(&(number << shift).to_le_bytes());
            page[SYSTEM_ID..SYSTEM_ID + 8].copy_from_slice(&system.to_le_bytes());
            page[SEGMENT_SIZE..SEGMENT_SIZE + 4].copy_from_slice(&size.bytes().to_le_bytes());
            let system = SystemId::new(system).unwrap();
            let header = check_segment(&page, segment, system, size).unwrap();
            prop_assert_eq!(header.timeline(), tl);
            prop_assert_eq!(header.page_address(), number << shift);
            let other = SegmentName::from_number(tl, other, size).unwrap();
            prop_assert_eq!(check_segment(&page, other, system, size).is_ok(), other == segment);
        }

        #[test]
        fn any_bytes_parse_or_fail_without_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..64), known: bool) {
            if let (true, Some(magic)) = (known, bytes.first_chunk_mut::<4>()) {
                *magic = [0x10, 0xd1, 0x02, 0x00];
            }
            let _ = LongPageHeader::parse(&bytes);
            let _ = check_segment(&bytes, name("000000010000000000000001"), id(), SegmentSize::DEFAULT);
        }
    }
}
