//! The files that PostgreSQL archives: exactly four kinds, told apart by name.
//!
//! Only these names ever reach the repository; everything else that could stand in a
//! command line is refused here (`IsXLogFileName`, `IsPartialXLogFileName`,
//! `IsTLHistoryFileName` and `IsBackupHistoryFileName` in `xlog_internal.h`).

use crate::segment::SegmentName;
use crate::timeline::TimelineId;
use std::fmt;

/// A file that passes through `archive_command` or `restore_command`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum WalFile {
    /// A full segment, `000000010000000000000042`.
    Segment(SegmentName),
    /// The last, incomplete segment of a timeline that a promotion left,
    /// `000000010000000000000042.partial`. Never served in place of the full segment.
    Partial(SegmentName),
    /// The ancestry of a timeline, `00000002.history`.
    History(TimelineId),
    /// What a base backup leaves in the WAL stream, `000000010000000000000042.00000028.backup`:
    /// the segment and the byte offset in it where the backup starts.
    BackupLabel(SegmentName, u32),
}

/// A name that no WAL file has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalFileError {
    text: String,
}

impl fmt::Display for WalFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "\"{}\" is not the name of a WAL file: expected a segment (24 upper-case hexadecimal digits), \
             SEGMENT.partial, TIMELINE.history or SEGMENT.OFFSET.backup",
            self.text.escape_default()
        )
    }
}

impl std::error::Error for WalFileError {}

impl WalFile {
    /// Recognises a file by its bare name, without a directory.
    pub fn parse(name: &str) -> Result<Self, WalFileError> {
        let error = || WalFileError { text: name.to_owned() };
        let hex8 = |digits: &str| {
            let upper_hex = |b: u8| b.is_ascii_digit() || (b'A'..=b'F').contains(&b);
            let plain = digits.len() == 8 && digits.bytes().all(upper_hex);
            if plain { u32::from_str_radix(digits, 16).ok() } else { None }
        };
        let Some((stem, rest)) = name.split_once('.') else {
            return SegmentName::parse(name).map(WalFile::Segment).map_err(|_| error());
        };
        match rest {
            "partial" => SegmentName::parse(stem).map(WalFile::Partial).map_err(|_| error()),
            "history" => hex8(stem).and_then(TimelineId::new).map(WalFile::History).ok_or_else(error),
            _ => {
                let offset = rest.strip_suffix(".backup").and_then(hex8).ok_or_else(error)?;
                let segment = SegmentName::parse(stem).map_err(|_| error())?;
                Ok(WalFile::BackupLabel(segment, offset))
            }
        }
    }

    /// The segment that the file is, is part of, or refers to; none for a history file.
    pub const fn segment(self) -> Option<SegmentName> {
        match self {
            WalFile::Segment(name) | WalFile::Partial(name) | WalFile::BackupLabel(name, _) => Some(name),
            WalFile::History(_) => None,
        }
    }

    /// The timeline that the file belongs to.
    pub const fn timeline(self) -> TimelineId {
        match self {
            WalFile::Segment(name) | WalFile::Partial(name) | WalFile::BackupLabel(name, _) => {
                name.timeline()
            }
            WalFile::History(timeline) => timeline,
        }
    }
}

/// The bare file name.
impl fmt::Display for WalFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WalFile::Segment(name) => write!(f, "{name}"),
            WalFile::Partial(name) => write!(f, "{name}.partial"),
            WalFile::History(timeline) => write!(f, "{:08X}.history", timeline.get()),
            WalFile::BackupLabel(name, offset) => write!(f, "{name}.{offset:08X}.backup"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_kind_is_told_by_its_name() {
        let segment = SegmentName::parse("000000010000000000000042").unwrap();
        let cases = [
            ("000000010000000000000042", WalFile::Segment(segment)),
            ("000000010000000000000042.partial", WalFile::Partial(segment)),
            ("00000002.history", WalFile::History(TimelineId::new(2).unwrap())),
            ("000000010000000000000042.00000028.backup", WalFile::BackupLabel(segment, 0x28)),
        ];
        for (name, file) in cases {
            assert_eq!(WalFile::parse(name).unwrap(), file);
            assert_eq!(file.to_string(), name);
        }
    }

    #[test]
    fn other_names_are_refused() {
        let names = [
            "",
            ".",
            "..",
            "RECOVERYXLOG",
            "postgresql.conf",
            "../000000010000000000000042",
            "000000010000000000000042.",
            "000000010000000000000042.PARTIAL",
            "000000010000000000000042.partial.partial",
            "00000000.history",
            "2.history",
            "000000010000000000000042.history",
            "000000010000000000000042.28.backup",
            "000000010000000000000042.00000028.backup.x",
            "000000010000000000000042.ready",
            "00000001000000000000004\u{661}",
        ];
        for name in names {
            assert!(WalFile::parse(name).is_err(), "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn names_round_trip(timeline in 1u32.., log: u32, seg: u32, offset: u32, kind in 0..4) {
            let segment = SegmentName::parse(&format!("{timeline:08X}{log:08X}{seg:08X}")).unwrap();
            let file = match kind {
                0 => WalFile::Segment(segment),
                1 => WalFile::Partial(segment),
                2 => WalFile::History(segment.timeline()),
                _ => WalFile::BackupLabel(segment, offset),
            };
            prop_assert_eq!(WalFile::parse(&file.to_string()).unwrap(), file);
        }

        #[test]
        fn any_text_parses_or_fails_without_panic(text in "[0-9A-Fa-z./]{0,42}|\\PC{0,42}") {
            if let Ok(file) = WalFile::parse(&text) {
                prop_assert_eq!(file.to_string(), text);
            }
        }
    }
}
