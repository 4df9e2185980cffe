//! `global/pg_control`: who a cluster is, how it was built, and where its recovery begins.
//!
//! The layout is `ControlFileData` of PostgreSQL's `catalog/pg_control.h` for control version
//! 1300, which PostgreSQL 13 to 17 share, on a little-endian machine with 8-byte alignment
//! (x86_64, aarch64). The CRC-32C covers everything in front of it.
//!
//! PostgreSQL rewrites the file in place and nothing keeps a reader from seeing half of a
//! write: a wrong CRC is [`ControlFileError::Checksum`], an invitation to read again, and no
//! field of such bytes is ever believed.

use crate::little_endian::{u32_at, u64_at};
use crate::lsn::Lsn;
use crate::segment::SegmentSize;
use crate::system_id::SystemId;
use crate::timeline::TimelineId;
use std::fmt;

const SYSTEM_ID: usize = 0;
const CONTROL_VERSION: usize = 8;
const CATALOG_VERSION: usize = 12;
const STATE: usize = 16;
const CHECKPOINT: usize = 32;
/// `checkPointCopy.redo`
const REDO: usize = 40;
/// `checkPointCopy.ThisTimeLineID`
const TIMELINE: usize = 48;
const MIN_RECOVERY_LSN: usize = 136;
const MIN_RECOVERY_TIMELINE: usize = 144;
const BLOCK_SIZE: usize = 216;
const BLOCKS_PER_SEGMENT: usize = 220;
const WAL_BLOCK_SIZE: usize = 224;
const SEGMENT_SIZE: usize = 228;
const CHECKSUM_VERSION: usize = 252;
const CRC: usize = 288;

/// The control version of PostgreSQL 13 to 17.
const SUPPORTED_VERSION: u32 = 1300;

/// What the server was doing when it last wrote the file (`DBState`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClusterState {
    /// Starting for the first time.
    StartingUp,
    /// Shut down cleanly as a primary.
    ShutDown,
    /// Shut down cleanly while in recovery.
    ShutDownInRecovery,
    /// Shutting down.
    ShuttingDown,
    /// Replaying after a crash.
    InCrashRecovery,
    /// Replaying from an archive, or as a standby.
    InArchiveRecovery,
    /// A running primary, or one that ended without a shutdown.
    InProduction,
}

impl ClusterState {
    const fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::StartingUp,
            1 => Self::ShutDown,
            2 => Self::ShutDownInRecovery,
            3 => Self::ShuttingDown,
            4 => Self::InCrashRecovery,
            5 => Self::InArchiveRecovery,
            6 => Self::InProduction,
            _ => return None,
        })
    }
}

/// In the words of `pg_controldata`.
impl fmt::Display for ClusterState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::StartingUp => "starting up",
            Self::ShutDown => "shut down",
            Self::ShutDownInRecovery => "shut down in recovery",
            Self::ShuttingDown => "shutting down",
            Self::InCrashRecovery => "in crash recovery",
            Self::InArchiveRecovery => "in archive recovery",
            Self::InProduction => "in production",
        })
    }
}

/// How far replay must go before the data directory is consistent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecoveryPoint {
    /// Replay must reach this position,
    pub lsn: Lsn,
    /// on this timeline.
    pub timeline: TimelineId,
}

/// The parts of a valid `pg_control` that wald needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ControlFile {
    system_id: SystemId,
    catalog_version: u32,
    state: ClusterState,
    checkpoint: Lsn,
    redo: Lsn,
    timeline: TimelineId,
    min_recovery: Option<RecoveryPoint>,
    segment_size: SegmentSize,
    block_size: u32,
    blocks_per_segment: u32,
    wal_block_size: u32,
    data_checksum_version: u32,
}

/// Bytes that are no usable `pg_control`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlFileError {
    /// Not a whole control file.
    #[error("pg_control has {found} bytes, expected {}", ControlFile::BYTES)]
    Length {
        /// Bytes given.
        found: usize,
    },
    /// Of a PostgreSQL that wald does not know.
    #[error(
        "pg_control has version {found}, expected {SUPPORTED_VERSION}: this version of wald supports \
         PostgreSQL 13 to 17"
    )]
    Version {
        /// `pg_control_version` of the file.
        found: u32,
    },
    /// A read that met a write, or real damage: read again before believing the latter.
    #[error("pg_control's CRC is {computed:08X}, the file says {stored:08X}: torn read or damaged file")]
    Checksum {
        /// The CRC in the file.
        stored: u32,
        /// The CRC of its bytes.
        computed: u32,
    },
    /// The CRC holds, and yet a field can't be.
    #[error("pg_control's {field} is {found}, which no PostgreSQL writes: the file is damaged")]
    Field {
        /// The field in the words of `pg_controldata`.
        field: &'static str,
        /// Its value.
        found: u64,
    },
}

impl ControlFileError {
    /// Whether reading the file again may help: PostgreSQL may have been writing it.
    pub const fn is_torn(&self) -> bool {
        matches!(self, Self::Checksum { .. })
    }
}

impl ControlFile {
    /// Size of the file in bytes (`PG_CONTROL_FILE_SIZE`).
    pub const BYTES: usize = 8192;
    /// Where the file stands, relative to the data directory.
    pub const PATH: &'static str = "global/pg_control";

    /// Parses the whole file.
    pub fn parse(bytes: &[u8]) -> Result<Self, ControlFileError> {
        let length = || ControlFileError::Length { found: bytes.len() };
        if bytes.len() != Self::BYTES {
            return Err(length());
        }
        let u32_of = |offset| u32_at(bytes, offset).ok_or_else(length);
        let u64_of = |offset| u64_at(bytes, offset).ok_or_else(length);

        // Before the CRC, because the version decides where the CRC stands.
        let version = u32_of(CONTROL_VERSION)?;
        if version != SUPPORTED_VERSION {
            return Err(ControlFileError::Version { found: version });
        }
        let stored = u32_of(CRC)?;
        let computed = crc32c::crc32c(bytes.get(..CRC).ok_or_else(length)?);
        if stored != computed {
            return Err(ControlFileError::Checksum { stored, computed });
        }

        let field = |field, found| ControlFileError::Field { field, found };
        let lsn_of = |offset, name| {
            let found = u64_of(offset)?;
            Lsn::new(found).ok_or_else(|| field(name, found))
        };
        let system_id = u64_of(SYSTEM_ID)?;
        let state = u32_of(STATE)?;
        let timeline = u32_of(TIMELINE)?;
        let segment_size = u32_of(SEGMENT_SIZE)?;
        let min_recovery = Lsn::new(u64_of(MIN_RECOVERY_LSN)?)
            .zip(TimelineId::new(u32_of(MIN_RECOVERY_TIMELINE)?))
            .map(|(lsn, timeline)| RecoveryPoint { lsn, timeline });
        Ok(Self {
            system_id: SystemId::new(system_id)
                .ok_or_else(|| field("database system identifier", system_id))?,
            catalog_version: u32_of(CATALOG_VERSION)?,
            state: ClusterState::from_number(state)
                .ok_or_else(|| field("database cluster state", state.into()))?,
            checkpoint: lsn_of(CHECKPOINT, "latest checkpoint location")?,
            redo: lsn_of(REDO, "latest checkpoint's REDO location")?,
            timeline: TimelineId::new(timeline)
                .ok_or_else(|| field("latest checkpoint's TimeLineID", timeline.into()))?,
            min_recovery,
            segment_size: SegmentSize::new(segment_size)
                .map_err(|_| field("bytes per WAL segment", segment_size.into()))?,
            block_size: u32_of(BLOCK_SIZE)?,
            blocks_per_segment: u32_of(BLOCKS_PER_SEGMENT)?,
            wal_block_size: u32_of(WAL_BLOCK_SIZE)?,
            data_checksum_version: u32_of(CHECKSUM_VERSION)?,
        })
    }

    /// The cluster's identity.
    pub const fn system_id(&self) -> SystemId {
        self.system_id
    }

    /// The format of the system catalogs; part of the name of a tablespace's directory.
    pub const fn catalog_version(&self) -> u32 {
        self.catalog_version
    }

    /// PostgreSQL's major version, told from the catalog version; `None` for a build that is
    /// no release (`catversion.h` of each branch).
    pub const fn major_version(&self) -> Option<u32> {
        match self.catalog_version {
            202_007_201 => Some(13),
            202_107_181 => Some(14),
            202_209_061 => Some(15),
            202_307_071 => Some(16),
            202_406_281 => Some(17),
            _ => None,
        }
    }

    /// What the server was doing when it last wrote the file.
    pub const fn state(&self) -> ClusterState {
        self.state
    }

    /// Where the latest checkpoint's record stands.
    pub const fn checkpoint(&self) -> Lsn {
        self.checkpoint
    }

    /// Where replay from the latest checkpoint begins.
    pub const fn redo(&self) -> Lsn {
        self.redo
    }

    /// The timeline of the latest checkpoint.
    pub const fn timeline(&self) -> TimelineId {
        self.timeline
    }

    /// How far replay must go; `None` on a primary.
    pub const fn min_recovery(&self) -> Option<RecoveryPoint> {
        self.min_recovery
    }

    /// The size of WAL segments.
    pub const fn segment_size(&self) -> SegmentSize {
        self.segment_size
    }

    /// Bytes in a data page.
    pub const fn block_size(&self) -> u32 {
        self.block_size
    }

    /// Pages in each file of a relation but its last.
    pub const fn blocks_per_segment(&self) -> u32 {
        self.blocks_per_segment
    }

    /// Bytes in a page of WAL.
    pub const fn wal_block_size(&self) -> u32 {
        self.wal_block_size
    }

    /// 0 where data pages carry no checksums, else the version of their algorithm.
    pub const fn data_checksum_version(&self) -> u32 {
        self.data_checksum_version
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The first 292 bytes of a file that PostgreSQL 15.18's initdb wrote; the rest is zeros.
    /// What `pg_controldata` of the same release said of it stands in the test below.
    const HEAD: &str = "38b7c7bf8934036b140500002577 0d0c01000000000000008a34036b00000000\
        f814740100000000f81474010000000001000000010000000100000000000000\
        d40200000000000004350000010000000000000 0cc0200000100000001000000\
        01000000000000008a34036b0000000000000000000000000000000000000000\
        e803000000000000000000000000000000000000000000000000000000000000\
        0000000000000000000000000100000000000000640000000800000 00a000000\
        0000000040000000000000000800000000000000 87d6324100200000000002 00\
        002000000000000140000000200000 00cc07000000080000010000000100 0000\
        ccce9908633556b5c159b1b572bae7729afaf95754129526c2179def376a6ef0\
        c3042a1b";

    fn real_file() -> Vec<u8> {
        let digits: Vec<u8> = HEAD.bytes().filter(u8::is_ascii_hexdigit).collect();
        let mut bytes: Vec<u8> = digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect();
        assert_eq!(bytes.len(), CRC + 4);
        bytes.resize(ControlFile::BYTES, 0);
        bytes
    }

    fn seal(bytes: &mut [u8]) {
        let crc = crc32c::crc32c(&bytes[..CRC]);
        bytes[CRC..CRC + 4].copy_from_slice(&crc.to_le_bytes());
    }

    #[test]
    fn reads_what_pg_controldata_reads() {
        let control = ControlFile::parse(&real_file()).unwrap();
        assert_eq!(control.system_id().get(), 7_711_064_753_221_121_848);
        assert_eq!(control.catalog_version(), 202_209_061);
        assert_eq!(control.major_version(), Some(15));
        assert_eq!(control.state().to_string(), "shut down");
        assert_eq!(control.checkpoint().to_string(), "0/17414F8");
        assert_eq!(control.redo().to_string(), "0/17414F8");
        assert_eq!(control.timeline().get(), 1);
        assert_eq!(control.min_recovery(), None);
        assert_eq!(control.segment_size().bytes(), 16_777_216);
        assert_eq!(control.block_size(), 8192);
        assert_eq!(control.blocks_per_segment(), 131_072);
        assert_eq!(control.wal_block_size(), 8192);
        assert_eq!(control.data_checksum_version(), 1);
    }

    #[test]
    fn a_flipped_bit_is_a_torn_read() {
        let mut bytes = real_file();
        bytes[40] ^= 1;
        assert!(ControlFile::parse(&bytes).unwrap_err().is_torn());
    }

    #[test]
    fn another_version_is_named() {
        let mut bytes = real_file();
        bytes[CONTROL_VERSION..CONTROL_VERSION + 4].copy_from_slice(&1800u32.to_le_bytes());
        assert_eq!(ControlFile::parse(&bytes), Err(ControlFileError::Version { found: 1800 }));
    }

    #[test]
    fn an_impossible_field_under_a_good_crc_is_named() {
        let mut bytes = real_file();
        bytes[SEGMENT_SIZE] = 1;
        seal(&mut bytes);
        let error = ControlFile::parse(&bytes).unwrap_err();
        assert!(error.to_string().contains("bytes per WAL segment"), "{error}");
    }

    #[test]
    fn a_short_file_is_refused() {
        let bytes = real_file();
        assert_eq!(ControlFile::parse(&bytes[..296]), Err(ControlFileError::Length { found: 296 }));
    }

    proptest! {
        #[test]
        fn fields_round_trip(id in 1u64.., redo in 1u64.., timeline in 1u32.., lsn: u64, tli: u32, shift in 20u32..=30) {
            let mut bytes = real_file();
            bytes[SYSTEM_ID..SYSTEM_ID + 8].copy_from_slice(&id.to_le_bytes());
            bytes[REDO..REDO + 8].copy_from_slice(&redo.to_le_bytes());
            bytes[TIMELINE..TIMELINE + 4].copy_from_slice(&timeline.to_le_bytes());
            bytes[MIN_RECOVERY_LSN..MIN_RECOVERY_LSN + 8].copy_from_slice(&lsn.to_le_bytes());
            bytes[MIN_RECOVERY_TIMELINE..MIN_RECOVERY_TIMELINE + 4].copy_from_slice(&tli.to_le_bytes());
            bytes[SEGMENT_SIZE..SEGMENT_SIZE + 4].copy_from_slice(&(1u32 << shift).to_le_bytes());
            seal(&mut bytes);
            let control = ControlFile::parse(&bytes).unwrap();
            prop_assert_eq!(control.system_id().get(), id);
            prop_assert_eq!(control.redo().get(), redo);
            prop_assert_eq!(control.timeline().get(), timeline);
            prop_assert_eq!(control.min_recovery().map(|point| point.lsn.get()), (lsn != 0 && tli != 0).then_some(lsn));
            prop_assert_eq!(control.segment_size().bytes(), 1 << shift);
        }

        #[test]
        fn any_bytes_parse_or_fail_without_panic(mut head in prop::collection::vec(any::<u8>(), 300), known: bool) {
            if known {
                head[CONTROL_VERSION..CONTROL_VERSION + 4].copy_from_slice(&SUPPORTED_VERSION.to_le_bytes());
                seal(&mut head);
            }
            let _ = ControlFile::parse(&head);
            head.resize(ControlFile::BYTES, 0);
            let _ = ControlFile::parse(&head);
        }
    }
}
