//! Takes segments in pieces of any size and walks them page by page.

use super::finding::Damage;
use super::header::Previous;
use super::page::{PageHeader, PageRules};
use super::position::{Carry, Position, lsn};
use super::step::Chain;
use super::{Ending, Record, SegmentWalk};
use crate::segment::{SegmentName, SegmentSize};
use crate::system_id::SystemId;
use crate::timeline::TimelineId;
use crate::wal_page::LongPageHeader;

/// What a build of PostgreSQL has unless told otherwise (`--with-wal-blocksize`), for a segment
/// whose first page does not say.
const PAGE_BYTES_DEFAULT: usize = 8192;

/// Walks the records of consecutive segments. See the module for what is proven.
#[derive(Debug)]
pub struct RecordWalker {
    system_id: SystemId,
    segment_size: SegmentSize,
    /// The segment that was finished last, unless one was begun since.
    last: Option<SegmentName>,
    /// The timeline of the last page.
    timeline: Option<TimelineId>,
    /// `xlp_magic`, once two pages of a segment had the same.
    magic: Option<u16>,
    chain: Chain,
    /// Bytes of a page of which the rest is still to come; kept for its memory.
    pending: Vec<u8>,
}

impl RecordWalker {
    /// A walk that begins with whatever segment comes first.
    pub fn new(system_id: SystemId, segment_size: SegmentSize) -> Self {
        let chain = Chain::new(Position::Lost, Previous::Before(lsn(0)), false);
        let (last, timeline, magic) = (None, None, None);
        Self { system_id, segment_size, last, timeline, magic, chain, pending: Vec::new() }
    }

    /// A walk that goes on where another one was when its [`carry`](Self::carry) was taken.
    pub fn resume(system_id: SystemId, segment_size: SegmentSize, carry: Carry) -> Self {
        let Carry { segment, timeline, magic, position, previous, doubtful } = carry;
        let chain = Chain::new(position, previous, doubtful);
        let last = Some(segment);
        Self { system_id, segment_size, last, timeline, magic, chain, pending: Vec::new() }
    }

    /// What a later walk needs to go on behind the segment that was finished last; `None` if there
    /// was none, or if one was begun since and given up.
    pub fn carry(&self) -> Option<Carry> {
        Some(Carry {
            segment: self.last?,
            timeline: self.timeline,
            magic: self.magic,
            position: self.chain.position.clone(),
            previous: self.chain.previous,
            doubtful: self.chain.doubtful,
        })
    }

    /// Begins a segment. If it is not the one behind the segment finished last, on the same
    /// timeline or a later one, the walk starts anew: whether there should be one in between is
    /// not judged here.
    pub fn begin(&mut self, segment: SegmentName, ending: Ending) -> OpenSegment<'_> {
        let number = segment.number(self.segment_size);
        let follows = self.last.take().is_some_and(|last| {
            let next = last.number(self.segment_size).and_then(|last| last.checked_add(1));
            next == number && last.timeline() <= segment.timeline()
        });
        // The name of another cluster's segment has no number; its first page will say so.
        let start = number.unwrap_or(0).saturating_mul(self.segment_size.bytes().into());
        match self.chain.position {
            Position::Switched if follows => self.chain.position = Position::Record,
            Position::Record | Position::Skip(_) | Position::Rest(_) if follows => {}
            _ => self.chain = Chain::new(Position::Lost, Previous::Before(lsn(start)), false),
        }
        if !follows {
            self.timeline = None;
        }
        self.chain.begin_segment(ending);
        self.pending.clear();
        OpenSegment { walker: self, segment, start, magic: None, page_bytes: None, walked: 0, fed: 0 }
    }

    /// Walks a whole segment that is in memory.
    pub fn segment(&mut self, segment: SegmentName, ending: Ending, bytes: &[u8]) -> SegmentWalk {
        let mut open = self.begin(segment, ending);
        open.feed(bytes);
        open.finish()
    }
}

/// A segment that is being walked.
#[derive(Debug)]
pub struct OpenSegment<'a> {
    walker: &'a mut RecordWalker,
    segment: SegmentName,
    /// The position of its first byte.
    start: u64,
    /// `xlp_magic` of the page before, once there was one.
    magic: Option<u16>,
    /// Bytes in a page, once the first one has said so.
    page_bytes: Option<usize>,
    /// Bytes in the pages that were walked.
    walked: u64,
    /// Bytes that were fed.
    fed: u64,
}

impl OpenSegment<'_> {
    /// Walks the next bytes of the segment, as many as there are.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.feed_seeing(bytes, &mut |_| ());
    }

    /// The same, and tells `seen` of each record that holds, in the order of the log.
    pub fn feed_seeing(&mut self, mut bytes: &[u8], seen: &mut impl FnMut(Record)) {
        self.fed = self.fed.saturating_add(to_u64(bytes.len()));
        while !bytes.is_empty() {
            let pending = self.walker.pending.len();
            match self.page_bytes {
                None if pending == 0 && bytes.len() >= LongPageHeader::BYTES => {
                    self.page_bytes = Some(page_bytes(bytes));
                }
                None => {
                    bytes = self.wait(bytes, LongPageHeader::BYTES);
                    if self.walker.pending.len() == LongPageHeader::BYTES {
                        self.page_bytes = Some(page_bytes(&self.walker.pending));
                    }
                }
                Some(size) if pending == 0 && bytes.len() >= size => {
                    let (page, rest) = bytes.split_at(size);
                    self.page(page, seen);
                    bytes = rest;
                }
                Some(size) => {
                    bytes = self.wait(bytes, size);
                    if self.walker.pending.len() == size {
                        let page = std::mem::take(&mut self.walker.pending);
                        self.page(&page, seen);
                        self.walker.pending = page;
                        self.walker.pending.clear();
                    }
                }
            }
        }
    }

    /// Keeps bytes until there are `wanted`; returns what is not needed for that.
    fn wait<'b>(&mut self, bytes: &'b [u8], wanted: usize) -> &'b [u8] {
        let missing = wanted.saturating_sub(self.walker.pending.len());
        let (kept, rest) = bytes.split_at(missing.min(bytes.len()));
        self.walker.pending.extend_from_slice(kept);
        rest
    }

    fn page(&mut self, page: &[u8], seen: &mut impl FnMut(Record)) {
        let (address, first) = (self.start.saturating_add(self.walked), self.walked == 0);
        let walker = &mut *self.walker;
        let beyond = self.walked >= walker.segment_size.bytes().into();
        self.walked = self.walked.saturating_add(to_u64(page.len()));
        if beyond || walker.chain.is_over() {
            return;
        }
        let rules = PageRules {
            system_id: walker.system_id,
            segment_size: walker.segment_size,
            segment: self.segment,
            magic: walker.magic.or(self.magic),
            timeline: walker.timeline,
        };
        match PageHeader::check(page, address, first, &rules) {
            Ok(header) => {
                if self.magic.replace(header.magic).is_some() {
                    walker.magic = Some(header.magic);
                }
                walker.timeline = Some(header.timeline);
                walker.chain.page(page, address, &header, seen);
            }
            Err(problem) => walker.chain.no_page(address, problem),
        }
    }

    /// Ends the segment and says what was found in it.
    pub fn finish(self) -> SegmentWalk {
        self.walker.last = Some(self.segment);
        let expected = self.walker.segment_size.bytes();
        let chain = &mut self.walker.chain;
        if self.fed != u64::from(expected) {
            let at = chain.open_record().unwrap_or(lsn(self.start.saturating_add(self.walked)));
            chain.note(at, Damage::SegmentLength { found: self.fed, expected });
            if self.fed < u64::from(expected) {
                chain.position = Position::Lost;
            }
        }
        SegmentWalk {
            segment: self.segment,
            records: chain.records,
            findings: std::mem::take(&mut chain.findings),
            findings_left_out: chain.findings_left_out,
            end: match chain.position {
                Position::Ended(at) => Some(at),
                _ => None,
            },
            open: chain.open_record(),
        }
    }
}

fn page_bytes(first_page: &[u8]) -> usize {
    LongPageHeader::parse(first_page)
        .ok()
        .and_then(|header| usize::try_from(header.block_size()).ok())
        .unwrap_or(PAGE_BYTES_DEFAULT)
}

fn to_u64(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
