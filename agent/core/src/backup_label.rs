//! What `pg_backup_stop` returns: the text of `backup_label` and of `tablespace_map`, which
//! recovery reads to know where replay begins and where tablespaces stand.
//!
//! The texts themselves are stored as PostgreSQL wrote them, byte for byte; they are parsed
//! here to be checked and to learn positions. Formats: `build_backup_content` and
//! `do_pg_backup_start` in PostgreSQL's `access/transam`, as `read_backup_label` and
//! `read_tablespace_map` read them.

use crate::lsn::Lsn;
use crate::segment::{SegmentName, SegmentSize};
use crate::timeline::TimelineId;

/// Where a backup was taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BackupSource {
    /// On a primary: replay must reach the end-of-backup record.
    Primary,
    /// On a standby: replay must reach the minimum recovery point of the copied `pg_control`.
    Standby,
}

/// The parsed `backup_label`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BackupLabel {
    start: Lsn,
    start_segment: SegmentName,
    checkpoint: Lsn,
    source: BackupSource,
    start_time: String,
    label: String,
    timeline: TimelineId,
}

/// Text that is no usable `backup_label` or `tablespace_map`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackupLabelError {
    /// A line that must be there is not.
    #[error("backup_label has no line \"{0}\"")]
    Missing(&'static str),
    /// A line is there and can't be read.
    #[error("backup_label's line \"{line}\" says \"{}\", which is not {expected}", found.escape_default())]
    Malformed {
        /// The line's name.
        line: &'static str,
        /// What it should hold.
        expected: &'static str,
        /// What it holds.
        found: String,
    },
    /// The start position does not stand in the segment that is named beside it.
    #[error("backup_label starts at {start} in segment {named}, that position stands in {computed}")]
    OtherSegment {
        /// The start position.
        start: Lsn,
        /// The segment that the label names.
        named: SegmentName,
        /// The segment that the position stands in.
        computed: SegmentName,
    },
    /// A line of `tablespace_map` is not an identifier and a directory.
    #[error("tablespace_map has the line \"{}\", expected a number and a directory", .0.escape_default())]
    Tablespace(String),
}

const START: &str = "START WAL LOCATION";
const CHECKPOINT: &str = "CHECKPOINT LOCATION";
const METHOD: &str = "BACKUP METHOD";
const FROM: &str = "BACKUP FROM";
const TIME: &str = "START TIME";
const LABEL: &str = "LABEL";
const TIMELINE: &str = "START TIMELINE";

impl BackupLabel {
    /// The file's name in the data directory.
    pub const FILE: &'static str = "backup_label";

    /// Parses the text. Lines of other names are passed over, as PostgreSQL does.
    pub fn parse(text: &str) -> Result<Self, BackupLabelError> {
        let value = |line: &'static str| {
            text.lines()
                .find_map(|candidate| candidate.strip_prefix(line)?.strip_prefix(": "))
                .ok_or(BackupLabelError::Missing(line))
        };
        let malformed = |line, expected, found: &str| BackupLabelError::Malformed {
            line,
            expected,
            found: found.to_owned(),
        };

        let start = value(START)?;
        let (start, start_segment) = parse_start(start).ok_or_else(|| {
            malformed(
                START,
                "a position and its segment, \"0/2000028 (file 000000010000000000000002)\"",
                start,
            )
        })?;
        let checkpoint = value(CHECKPOINT)?;
        let checkpoint =
            checkpoint.parse().map_err(|_| malformed(CHECKPOINT, "a position in the log", checkpoint))?;
        let method = value(METHOD)?;
        // "pg_start_backup" would be an exclusive backup, which wald never takes.
        if method != "streamed" {
            return Err(malformed(METHOD, "\"streamed\"", method));
        }
        let source = match value(FROM)? {
            "primary" => BackupSource::Primary,
            "standby" => BackupSource::Standby,
            other => return Err(malformed(FROM, "\"primary\" or \"standby\"", other)),
        };
        let timeline = value(TIMELINE)?;
        let timeline = Some(timeline)
            .filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|digits| digits.parse().ok())
            .and_then(TimelineId::new)
            .ok_or_else(|| malformed(TIMELINE, "a timeline's number", timeline))?;
        Ok(Self {
            start,
            start_segment,
            checkpoint,
            source,
            start_time: value(TIME)?.to_owned(),
            label: value(LABEL)?.to_owned(),
            timeline,
        })
    }

    /// The segment in which the backup starts, of the bytes of any label: also one of an
    /// exclusive backup, or with a name in another encoding. Enough to archive the file.
    pub fn start_segment_of(bytes: &[u8]) -> Result<SegmentName, BackupLabelError> {
        let text = String::from_utf8_lossy(bytes);
        let start = text.lines().find_map(|line| line.strip_prefix(START)?.strip_prefix(": "));
        let start = start.ok_or(BackupLabelError::Missing(START))?;
        let (_, segment) = parse_start(start).ok_or_else(|| BackupLabelError::Malformed {
            line: START,
            expected: "a position and its segment",
            found: start.to_owned(),
        })?;
        Ok(segment)
    }

    /// Checks that the label is at one with itself, for a cluster with segments of `size`.
    pub fn check(&self, size: SegmentSize) -> Result<(), BackupLabelError> {
        let computed = SegmentName::containing(self.timeline, self.start, size);
        if computed == self.start_segment {
            Ok(())
        } else {
            Err(BackupLabelError::OtherSegment { start: self.start, named: self.start_segment, computed })
        }
    }

    /// Where replay begins: the REDO position of the backup's checkpoint.
    pub const fn start(&self) -> Lsn {
        self.start
    }

    /// The segment that holds [`BackupLabel::start`].
    pub const fn start_segment(&self) -> SegmentName {
        self.start_segment
    }

    /// Where the checkpoint's record stands.
    pub const fn checkpoint(&self) -> Lsn {
        self.checkpoint
    }

    /// Where the backup was taken.
    pub const fn source(&self) -> BackupSource {
        self.source
    }

    /// When the backup began, in the words and the time zone of the server's log.
    pub fn start_time(&self) -> &str {
        &self.start_time
    }

    /// The name that was given to the backup.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The timeline that the backup began on.
    pub const fn timeline(&self) -> TimelineId {
        self.timeline
    }
}

fn parse_start(text: &str) -> Option<(Lsn, SegmentName)> {
    let (lsn, file) = text.split_once(" (file ")?;
    Some((lsn.parse().ok()?, SegmentName::parse(file.strip_suffix(')')?).ok()?))
}

/// One line of `tablespace_map`: where the directory of a tablespace stood.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct TablespaceLink {
    /// The tablespace's identifier, the name of its link in `pg_tblspc`.
    pub oid: u32,
    /// Its directory, absolute.
    pub location: String,
}

/// `tablespace_map`: where every tablespace's directory stood when the backup began.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TablespaceMap {
    links: Vec<TablespaceLink>,
}

impl TablespaceMap {
    /// The file's name in the data directory.
    pub const FILE: &'static str = "tablespace_map";

    /// Parses the text; empty text is a cluster without tablespaces.
    pub fn parse(text: &str) -> Result<Self, BackupLabelError> {
        unescaped_lines(text)
            .into_iter()
            .map(|line| match line.split_once(' ') {
                Some((oid, location)) if oid.bytes().all(|b| b.is_ascii_digit()) && !location.is_empty() => {
                    let oid = oid.parse().ok().filter(|oid| *oid != 0);
                    let link = oid.map(|oid| TablespaceLink { oid, location: location.to_owned() });
                    link.ok_or(BackupLabelError::Tablespace(line))
                }
                _ => Err(BackupLabelError::Tablespace(line)),
            })
            .collect::<Result<_, _>>()
            .map(|links| Self { links })
    }

    /// The tablespaces in the order of the file.
    pub fn links(&self) -> &[TablespaceLink] {
        &self.links
    }

    /// The text of a map with these links, escaped as PostgreSQL does.
    pub fn render(links: &[TablespaceLink]) -> String {
        let mut text = String::new();
        for link in links {
            text.push_str(&link.oid.to_string());
            text.push(' ');
            for c in link.location.chars() {
                if matches!(c, '\n' | '\r' | '\\') {
                    text.push('\\');
                }
                text.push(c);
            }
            text.push('\n');
        }
        text
    }
}

/// Splits at line ends that no backslash escapes, and takes the escapes away. Empty lines
/// are passed over.
fn unescaped_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut escaped = false;
    for c in text.chars() {
        if escaped {
            line.push(c);
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if matches!(c, '\n' | '\r') {
            if !line.is_empty() {
                lines.push(std::mem::take(&mut line));
            }
        } else {
            line.push(c);
        }
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const REAL: &str = "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n\
        CHECKPOINT LOCATION: 0/2000060\nBACKUP METHOD: streamed\nBACKUP FROM: primary\n\
        START TIME: 2026-11-22 18:29:30 UTC\nLABEL: wald 20261122T182930Z-full\nSTART TIMELINE: 1\n";

    #[test]
    fn a_label_of_postgresql_15_is_read() {
        let label = BackupLabel::parse(REAL).unwrap();
        assert_eq!(label.start().to_string(), "0/2000028");
        assert_eq!(label.start_segment().to_string(), "000000010000000000000002");
        assert_eq!(label.checkpoint().to_string(), "0/2000060");
        assert_eq!(label.source(), BackupSource::Primary);
        assert_eq!(label.start_time(), "2026-11-22 18:29:30 UTC");
        assert_eq!(label.label(), "wald 20261122T182930Z-full");
        assert_eq!(label.timeline().get(), 1);
        label.check(SegmentSize::DEFAULT).unwrap();
    }

    #[test]
    fn a_segment_beside_the_position_is_an_error() {
        let label = BackupLabel::parse(REAL).unwrap();
        let one_mib = SegmentSize::new(1 << 20).unwrap();
        assert!(matches!(label.check(one_mib), Err(BackupLabelError::OtherSegment { .. })));
    }

    #[test]
    fn a_missing_or_malformed_line_is_named() {
        for (number, line) in REAL.lines().enumerate() {
            let without = REAL.replace(line, "");
            let error = BackupLabel::parse(&without).unwrap_err().to_string();
            assert!(error.contains(line.split(": ").next().unwrap()), "{error}");
            if ![4, 5].contains(&number) {
                let name = line.split(": ").next().unwrap();
                let spoilt = REAL.replace(line, &format!("{name}: nonsense"));
                let error = BackupLabel::parse(&spoilt).unwrap_err().to_string();
                assert!(error.contains(name) && error.contains("nonsense"), "{error}");
            }
        }
    }

    #[test]
    fn a_tablespace_line_without_a_number_or_a_directory_is_refused() {
        for text in ["x /a\n", "16400\n", "16400 \n", "0 /a\n", "99999999999 /a\n", "+1 /a\n"] {
            assert!(TablespaceMap::parse(text).is_err(), "{text:?}");
        }
        assert_eq!(TablespaceMap::parse("").unwrap().links(), []);
    }

    #[test]
    fn the_label_of_an_exclusive_backup_in_another_encoding_names_its_segment() {
        let label = b"START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n\
            CHECKPOINT LOCATION: 0/2000060\nBACKUP METHOD: pg_start_backup\nLABEL: apr\xe8s\n";
        assert_eq!(BackupLabel::start_segment_of(label).unwrap().to_string(), "000000010000000000000002");
        assert!(BackupLabel::start_segment_of(b"LABEL: x").is_err());
    }

    proptest! {
        #[test]
        fn tablespace_maps_round_trip(
            links in prop::collection::vec((1u32.., "/[ -~\n\r\\\\é]{0,12}"), 0..4)
        ) {
            let links: Vec<_> =
                links.into_iter().map(|(oid, location)| TablespaceLink { oid, location }).collect();
            let text = TablespaceMap::render(&links);
            let map = TablespaceMap::parse(&text).unwrap();
            prop_assert_eq!(map.links(), &links[..]);
        }

        #[test]
        fn labels_round_trip(start in 1u64.., timeline in 1u32.., standby: bool, name in "[ -~é]{0,20}") {
            let tl = TimelineId::new(timeline).unwrap();
            let lsn = Lsn::new(start).unwrap();
            let segment = SegmentName::containing(tl, lsn, SegmentSize::DEFAULT);
            let from = if standby { "standby" } else { "primary" };
            let text = format!(
                "START WAL LOCATION: {lsn} (file {segment})\nCHECKPOINT LOCATION: {lsn}\n\
                 BACKUP METHOD: streamed\nBACKUP FROM: {from}\nSTART TIME: now\nLABEL: {name}\n\
                 START TIMELINE: {timeline}\n"
            );
            let label = BackupLabel::parse(&text).unwrap();
            prop_assert_eq!(label.start(), lsn);
            prop_assert_eq!(label.timeline(), tl);
            prop_assert_eq!(label.label(), name);
            prop_assert!(label.check(SegmentSize::DEFAULT).is_ok());
        }

        #[test]
        fn any_text_parses_or_fails_without_panic(text in "(START WAL LOCATION: \\PC{0,40}\n)?\\PC{0,60}") {
            let _ = BackupLabel::parse(&text);
            let _ = TablespaceMap::parse(&text);
        }
    }
}
