//! The walk itself: from record to record, page after page, and on after damage.

use super::finding::{Damage, RecordFinding};
use super::header::{HEADER_BYTES, Previous, RecordHeader, RecordProblem, check_length};
use super::page::{Beginning, PageHeader, PageProblem};
use super::position::{Partial, Position, lsn};
use super::{Ending, FINDINGS_KEPT, Record};
use crate::little_endian::u32_at;
use crate::lsn::Lsn;

/// Records begin at multiples of this (`MAXIMUM_ALIGNOF`), and so do the bytes behind a page's
/// header.
const ALIGNMENT: usize = 8;

/// The chain of records, as far as it was followed.
#[derive(Debug)]
pub(super) struct Chain {
    pub position: Position,
    /// What the next record's back-pointer is held against.
    pub previous: Previous,
    /// Where the next record begins was told by something that is damaged. If none begins there,
    /// that is the same damage and not told again.
    pub doubtful: bool,
    /// While the position is lost: that it was told.
    told: bool,
    /// The record that was cut off, until the one that replaces it was read.
    cut_off: Option<Lsn>,
    ending: Ending,
    pub records: u64,
    pub findings: Vec<RecordFinding>,
    pub findings_left_out: u64,
}

impl Chain {
    pub fn new(position: Position, previous: Previous, doubtful: bool) -> Self {
        Self {
            position,
            previous,
            doubtful,
            told: false,
            cut_off: None,
            ending: Ending::WithSegment,
            records: 0,
            findings: Vec::new(),
            findings_left_out: 0,
        }
    }

    /// Gets ready for the next segment.
    pub fn begin_segment(&mut self, ending: Ending) {
        self.ending = ending;
        self.records = 0;
        self.findings.clear();
        self.findings_left_out = 0;
    }

    /// The record of which a part is still to come.
    pub fn open_record(&self) -> Option<Lsn> {
        match &self.position {
            Position::Rest(partial) => Some(partial.start),
            _ => None,
        }
    }

    /// Whether what is left of the segment means nothing.
    pub const fn is_over(&self) -> bool {
        matches!(self.position, Position::Switched | Position::Ended(_))
    }

    /// Notes damage that can't be the end of the log.
    pub fn note(&mut self, at: Lsn, what: Damage) {
        if self.findings.len() < FINDINGS_KEPT {
            self.findings.push(RecordFinding { at, what });
        } else {
            self.findings_left_out = self.findings_left_out.saturating_add(1);
        }
    }

    /// Nothing from `at` on can be replayed: that is damage, or the end of the log.
    fn stop(&mut self, at: Lsn, what: Damage) {
        self.lose(at);
        if !self.is_over() {
            self.note(at, what);
        }
    }

    /// Nothing from `at` on can be replayed, which was told or is not worth telling.
    fn lose(&mut self, at: Lsn) {
        self.told = true;
        let ended = matches!(self.ending, Ending::AtOrAfter(least) if at >= least);
        self.position = if ended { Position::Ended(at) } else { Position::Lost };
    }

    /// The page at `address` is not the one that belongs there.
    pub fn no_page(&mut self, address: u64, problem: PageProblem) {
        let page = lsn(address);
        match &self.position {
            Position::Lost if self.told => {}
            Position::Rest(partial) => self.stop(partial.start, Damage::Page(page, problem)),
            _ => self.stop(page, Damage::Page(page, problem)),
        }
    }

    /// Walks the page at `address`. `seen` is told of each record that ends in it and holds.
    pub fn page(&mut self, page: &[u8], address: u64, header: &PageHeader, seen: &mut impl FnMut(Record)) {
        self.enter(lsn(address), header.beginning);
        let mut offset = header.bytes;
        // Each round passes bytes, or changes the position to one of which the next round does.
        while let Some(bytes) = page.get(offset..).filter(|bytes| !bytes.is_empty()) {
            let here = u64::try_from(offset).unwrap_or(u64::MAX);
            let passed = match &mut self.position {
                Position::Record => self.record(bytes, lsn(address.saturating_add(here)), seen),
                Position::Rest(partial) => {
                    let partial = partial.clone();
                    self.rest(partial, bytes, seen)
                }
                Position::Skip(left) => {
                    let passed = to_usize(*left).min(bytes.len());
                    *left = left.saturating_sub(u32::try_from(passed).unwrap_or(u32::MAX));
                    if *left == 0 {
                        self.position = Position::Record;
                    }
                    passed
                }
                Position::Lost | Position::Switched | Position::Ended(_) => return,
            };
            offset = offset.saturating_add(passed.next_multiple_of(ALIGNMENT));
        }
    }

    /// Compares how the page begins with how the one before it ended. Where they disagree the
    /// page is believed: only it can lead on.
    fn enter(&mut self, page: Lsn, beginning: Beginning) {
        let (at, problem) = match (&self.position, beginning) {
            (Position::Rest(partial), Beginning::Rest(left)) if left == partial.remaining() => return,
            (Position::Skip(expected), Beginning::Rest(left)) if left == *expected => return,
            // PostgreSQL ignores the flag where nothing was cut off.
            (Position::Record, Beginning::Record | Beginning::Overwrite) => return,
            (Position::Rest(partial), Beginning::Overwrite) => {
                self.cut_off = Some(partial.start);
                self.position = Position::Record;
                return;
            }
            (Position::Skip(_), Beginning::Overwrite) => {
                self.position = Position::Record;
                return;
            }
            (Position::Lost | Position::Switched | Position::Ended(_), _) => {
                return self.begin_at(page, beginning, false);
            }
            (Position::Record, Beginning::Rest(bytes)) => (page, PageProblem::Continued { bytes }),
            (Position::Rest(partial), Beginning::Record) => {
                (partial.start, PageProblem::NotContinued { record: Some(partial.start) })
            }
            (Position::Skip(_), Beginning::Record) => (page, PageProblem::NotContinued { record: None }),
            (Position::Rest(partial), Beginning::Rest(found)) => {
                let (record, expected) = (Some(partial.start), partial.remaining());
                (partial.start, PageProblem::ContinuedLength { record, found, expected })
            }
            (Position::Skip(expected), Beginning::Rest(found)) => {
                (page, PageProblem::ContinuedLength { record: None, found, expected: *expected })
            }
        };
        // A length that is itself damaged leads to a page that contradicts it.
        if !self.doubtful {
            self.stop(at, Damage::Page(page, problem));
        }
        if !self.is_over() {
            self.begin_at(page, beginning, true);
        }
    }

    /// Takes up the chain at a page, as if nothing were known of what precedes it.
    fn begin_at(&mut self, page: Lsn, beginning: Beginning, doubtful: bool) {
        self.previous = Previous::Before(page);
        self.doubtful = doubtful;
        self.cut_off = None;
        self.position = match beginning {
            Beginning::Rest(left) => Position::Skip(left),
            Beginning::Record | Beginning::Overwrite => Position::Record,
        };
    }

    /// Reads the record that begins with `bytes`, which go on to the end of the page. Returns how
    /// many of them it has.
    fn record(&mut self, bytes: &[u8], start: Lsn, seen: &mut impl FnMut(Record)) -> usize {
        let Some(head) = bytes.first_chunk::<HEADER_BYTES>() else {
            // At least 8 bytes are there, and the length is the first 4.
            let length = u32_at(bytes, 0).unwrap_or_default();
            match check_length(length) {
                Ok(()) => self.position = Position::Rest(Partial::begin(start, length, bytes)),
                Err(problem) => self.no_record(start, problem, 0),
            }
            return bytes.len();
        };
        let header = RecordHeader::parse(head);
        if let Err(problem) = header.check(self.previous) {
            self.no_record(start, problem, header.length);
            return 0;
        }
        self.doubtful = false;
        let Some(record) = bytes.get(..to_usize(header.length)) else {
            self.position = Position::Rest(Partial::begin(start, header.length, bytes));
            return bytes.len();
        };
        let data = record.get(HEADER_BYTES..).unwrap_or_default();
        match header.check_crc(head, crc32c::crc32c(data)).and_then(|()| self.replaces(&header, record)) {
            Ok(()) => {
                self.proven(start, &header, seen);
                record.len()
            }
            Err(problem) => {
                self.no_record(start, problem, header.length);
                0
            }
        }
    }

    /// The record behind one that was cut off names it. It is the first of its page and short,
    /// so it never goes on on another.
    fn replaces(&mut self, header: &RecordHeader, record: &[u8]) -> Result<(), RecordProblem> {
        match self.cut_off.take().zip(header.overwritten(record)) {
            Some((expected, found)) if found != expected.get() => {
                Err(RecordProblem::Overwritten { found, expected })
            }
            _ => Ok(()),
        }
    }

    /// Goes on with a record that began on an earlier page. Returns how many of `bytes` it has.
    fn rest(&mut self, mut partial: Partial, bytes: &[u8], seen: &mut impl FnMut(Record)) -> usize {
        let passed = to_usize(partial.remaining()).min(bytes.len());
        let had_header = partial.has_header();
        partial.take(bytes.get(..passed).unwrap_or_default());
        let header = partial.header();
        let checked = if had_header { Ok(()) } else { header.check(self.previous) };
        if checked.is_ok() {
            self.doubtful = false;
        }
        let remaining = partial.remaining();
        if checked.is_ok() && remaining > 0 {
            self.position = Position::Rest(partial);
            return passed;
        }
        match checked.and_then(|()| header.check_crc(&partial.header, partial.data_crc)) {
            Ok(()) => self.proven(partial.start, &header, seen),
            Err(problem) => self.no_record(partial.start, problem, remaining),
        }
        passed
    }

    fn proven(&mut self, start: Lsn, header: &RecordHeader, seen: &mut impl FnMut(Record)) {
        self.records = self.records.saturating_add(1);
        self.previous = Previous::At(start);
        self.position = if header.is_switch() { Position::Switched } else { Position::Record };
        seen(Record {
            start,
            length: header.length,
            resource_manager: header.resource_manager,
            info: header.info,
        });
    }

    /// There is no sound record at `start`. Where its length may still be right, the walk goes on
    /// behind the `left` bytes of it; whether it was right is told by the next back-pointer.
    fn no_record(&mut self, start: Lsn, problem: RecordProblem, left: u32) {
        if self.doubtful {
            return self.lose(start);
        }
        let goes_on = problem.leaves_length();
        self.stop(start, Damage::Record(problem));
        if goes_on && !self.is_over() {
            self.previous = Previous::At(start);
            self.doubtful = true;
            self.position = if left == 0 { Position::Record } else { Position::Skip(left) };
        }
    }
}

fn to_usize(bytes: u32) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
