//! The header of a WAL record (`XLogRecord` in PostgreSQL's `access/xlogrecord.h`).

use crate::little_endian::{u32_at, u64_at};
use crate::lsn::Lsn;
use std::fmt;

/// `SizeOfXLogRecord`
pub(super) const HEADER_BYTES: usize = 24;
/// The shortest record is a header alone.
const LENGTH_MIN: u32 = 24;
/// No PostgreSQL can read a longer record (`MaxAllocSize`); from 16 on it writes none above
/// 1020 MiB (`XLogRecordMaxSize`).
const LENGTH_MAX: u32 = 0x3FFF_FFFF;

const PREVIOUS: usize = 8;
const INFO: usize = 16;
const RESOURCE_MANAGER: usize = 17;
/// `xl_crc`, which covers the data first and then the header up to here.
const CRC: usize = 20;

/// `RM_LOGICALMSG_ID`, the last of PostgreSQL 13 to 18 (`access/rmgrlist.h`).
const BUILT_IN_MAX: u8 = 21;
/// `RM_MIN_CUSTOM_ID`: extensions have their own since PostgreSQL 15.
const CUSTOM_MIN: u8 = 128;

/// `RM_XLOG_ID`
const XLOG: u8 = 0;
/// The bits of `xl_info` that belong to the resource manager (`~XLR_INFO_MASK`).
const INFO_KIND: u8 = 0xF0;
const XLOG_SWITCH: u8 = 0x40;
const XLOG_OVERWRITE_CONTRECORD: u8 = 0xD0;
/// `overwritten_lsn` of `xl_overwrite_contrecord`, behind the header of the record and the two
/// bytes that introduce short data (`XLR_BLOCK_ID_DATA_SHORT`).
const OVERWRITTEN: usize = HEADER_BYTES + 2;

/// Why bytes are no record. The texts follow "record at <position>: ".
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecordProblem {
    /// `xl_tot_len` is 0: nothing was written here.
    #[error("there is none, the log ends here and should not")]
    Missing,
    /// `xl_tot_len` is that of no record.
    #[error("its length is {0}, expected {LENGTH_MIN} to {LENGTH_MAX} bytes")]
    Length(u32),
    /// `xl_rmid` belongs to no resource manager.
    #[error("its resource manager is {0}, which does not exist")]
    ResourceManager(u8),
    /// `xl_prev` is not where the record before begins.
    #[error("its back-pointer is {:X}/{:X}, expected {expected}", found >> 32, found & 0xFFFF_FFFF)]
    BackPointer {
        /// In the record.
        found: u64,
        /// Where the record before begins, or before what it must begin.
        expected: Previous,
    },
    /// `xl_crc` is not the CRC-32C of the record.
    #[error("its CRC-32C is {computed:08X} and should be {stored:08X}")]
    Crc {
        /// In the record.
        stored: u32,
        /// From its bytes.
        computed: u32,
    },
    /// `XLOG_OVERWRITE_CONTRECORD` names another record than the one that was cut off.
    #[error("it replaces the record at {:X}/{:X}, the one that was cut off is at {expected}", found >> 32, found & 0xFFFF_FFFF)]
    Overwritten {
        /// In the record.
        found: u64,
        /// The record that did not go on.
        expected: Lsn,
    },
}

impl RecordProblem {
    /// Whether the record's length can still be believed, and with it where the next begins.
    pub(super) fn leaves_length(&self) -> bool {
        !matches!(self, Self::Missing | Self::Length(_))
    }
}

/// What is known of the record before.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Previous {
    /// It begins here.
    At(Lsn),
    /// It was not seen; it begins before this position.
    Before(Lsn),
}

impl fmt::Display for Previous {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(lsn) => write!(f, "{lsn}"),
            Self::Before(lsn) => write!(f, "one below {lsn}"),
        }
    }
}

/// The fields that are looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecordHeader {
    pub length: u32,
    previous: u64,
    pub info: u8,
    pub resource_manager: u8,
    crc: u32,
}

impl RecordHeader {
    pub fn parse(bytes: &[u8; HEADER_BYTES]) -> Self {
        let word = |offset| u32_at(bytes, offset).unwrap_or_default();
        let byte = |offset: usize| bytes.get(offset).copied().unwrap_or_default();
        Self {
            length: word(0),
            previous: u64_at(bytes, PREVIOUS).unwrap_or_default(),
            info: byte(INFO),
            resource_manager: byte(RESOURCE_MANAGER),
            crc: word(CRC),
        }
    }

    /// What can be said before the record's data is there.
    pub fn check(&self, before: Previous) -> Result<(), RecordProblem> {
        check_length(self.length)?;
        let manager = self.resource_manager;
        if (BUILT_IN_MAX + 1..CUSTOM_MIN).contains(&manager) {
            return Err(RecordProblem::ResourceManager(manager));
        }
        let holds = match before {
            Previous::At(lsn) => self.previous == lsn.get(),
            // 0 in the first record that initdb or pg_resetwal wrote.
            Previous::Before(lsn) => self.previous < lsn.get(),
        };
        if holds {
            Ok(())
        } else {
            Err(RecordProblem::BackPointer { found: self.previous, expected: before })
        }
    }

    /// Checks the CRC; `data_crc` is that of everything behind the header `bytes`.
    pub fn check_crc(&self, bytes: &[u8; HEADER_BYTES], data_crc: u32) -> Result<(), RecordProblem> {
        let (covered, _) = bytes.split_at(CRC);
        let computed = crc32c::crc32c_append(data_crc, covered);
        if computed == self.crc { Ok(()) } else { Err(RecordProblem::Crc { stored: self.crc, computed }) }
    }

    /// Whether the rest of the segment is unused.
    pub fn is_switch(&self) -> bool {
        self.resource_manager == XLOG && self.info & INFO_KIND == XLOG_SWITCH
    }

    /// The position in a record that tells which one it replaces (`VerifyOverwriteContrecord`).
    pub fn overwritten(&self, record: &[u8]) -> Option<u64> {
        let overwrites = self.resource_manager == XLOG && self.info & INFO_KIND == XLOG_OVERWRITE_CONTRECORD;
        overwrites.then(|| u64_at(record, OVERWRITTEN)).flatten()
    }
}

/// The length always stands on the page on which the record begins; the rest of the header may not.
pub(super) fn check_length(length: u32) -> Result<(), RecordProblem> {
    match length {
        0 => Err(RecordProblem::Missing),
        LENGTH_MIN..=LENGTH_MAX => Ok(()),
        _ => Err(RecordProblem::Length(length)),
    }
}
