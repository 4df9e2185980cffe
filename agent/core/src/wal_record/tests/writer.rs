//! Writes WAL as PostgreSQL does, as far as the walk can tell: pages, records, continuations.

use crate::segment::{SegmentName, SegmentSize};
use crate::system_id::SystemId;
use crate::timeline::TimelineId;

pub const MAGIC_15: u16 = 0xD110;
pub const XLOG_SWITCH: u8 = 0x40;
pub const XLOG_OVERWRITE_CONTRECORD: u8 = 0xD0;
const CONTINUES: u16 = 1;
const OVERWRITES: u16 = 8;

pub fn tl(number: u32) -> TimelineId {
    TimelineId::new(number).unwrap()
}

pub fn system() -> SystemId {
    SystemId::new(7_711_064_753_221_121_848).unwrap()
}

/// The smallest segments, so that a test has several.
pub fn size() -> SegmentSize {
    SegmentSize::new(1 << 20).unwrap()
}

/// A log that begins with segment 1.
pub struct Writer {
    pub bytes: Vec<u8>,
    pub page: usize,
    pub magic: u16,
    pub timeline: u32,
    /// Where the record before begins.
    pub previous: u64,
    pub flags: u16,
}

pub const START: u64 = 1 << 20;

impl Writer {
    pub fn new() -> Self {
        Self { bytes: Vec::new(), page: 8192, magic: MAGIC_15, timeline: 1, previous: 0, flags: 0 }
    }

    pub fn position(&self) -> u64 {
        START + self.bytes.len() as u64
    }

    fn segment_bytes(&self) -> usize {
        size().bytes() as usize
    }

    fn page_header(&mut self, flags: u16, remaining: u32) {
        let first = self.bytes.len().is_multiple_of(self.segment_bytes());
        let flags = flags | std::mem::take(&mut self.flags) | if first { 2 } else { 0 };
        let address = self.position();
        self.bytes.extend(self.magic.to_le_bytes());
        self.bytes.extend(flags.to_le_bytes());
        self.bytes.extend(self.timeline.to_le_bytes());
        self.bytes.extend(address.to_le_bytes());
        self.bytes.extend(remaining.to_le_bytes());
        self.bytes.extend([0; 4]);
        if first {
            self.bytes.extend(system().get().to_le_bytes());
            self.bytes.extend(size().bytes().to_le_bytes());
            self.bytes.extend(u32::try_from(self.page).unwrap().to_le_bytes());
        }
    }

    /// Bytes that are left of the page; 0 where one ended.
    pub fn room(&self) -> usize {
        (self.page - self.bytes.len() % self.page) % self.page
    }

    /// Bytes of a record with this much data.
    pub fn encode(&self, manager: u8, info: u8, data: &[u8]) -> Vec<u8> {
        let mut record = Vec::new();
        record.extend(u32::try_from(24 + data.len()).unwrap().to_le_bytes());
        record.extend([9, 0, 0, 0]);
        record.extend(self.previous.to_le_bytes());
        record.extend([info, manager, 0, 0]);
        let crc = crc32c::crc32c_append(crc32c::crc32c(data), &record);
        record.extend(crc.to_le_bytes());
        record.extend(data);
        record
    }

    /// Writes bytes as one record; returns where it begins.
    pub fn put(&mut self, record: &[u8]) -> u64 {
        if self.room() == 0 {
            self.page_header(0, 0);
        }
        let start = self.position();
        let mut left = record;
        loop {
            let (here, rest) = left.split_at(left.len().min(self.room()));
            self.bytes.extend(here);
            left = rest;
            if left.is_empty() {
                break;
            }
            self.page_header(CONTINUES, u32::try_from(left.len()).unwrap());
        }
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        self.previous = start;
        start
    }

    pub fn record(&mut self, data: &[u8]) -> u64 {
        let record = self.encode(10, 0, data);
        self.put(&record)
    }

    /// Fills up with one record until so many bytes are left of the page.
    pub fn leave(&mut self, bytes: usize) {
        if self.room() < bytes + 24 {
            self.record(&vec![1; self.room()]);
        }
        let data = self.room() - bytes - 24;
        self.record(&vec![2; data]);
        assert_eq!(self.room(), bytes);
    }

    /// Ends the segment with `XLOG_SWITCH`.
    pub fn switch(&mut self) -> u64 {
        let record = self.encode(0, XLOG_SWITCH, &[]);
        let start = self.put(&record);
        self.bytes.resize(self.bytes.len().next_multiple_of(self.segment_bytes()), 0);
        start
    }

    /// The beginning of a record that a crash cut off at the end of the page, and the record that
    /// replaces the rest of it and names `named`, or the right one.
    pub fn cut_off(&mut self, named: Option<u64>) -> u64 {
        if self.room() == 0 {
            self.record(&[]);
        }
        let (previous, start) = (self.previous, self.position());
        let record = self.encode(10, 0, &vec![3; 30_000]);
        self.bytes.extend(&record[..self.room()]);
        self.previous = previous;
        self.flags = OVERWRITES;
        let mut data = vec![255, 16];
        data.extend(named.unwrap_or(start).to_le_bytes());
        data.extend([0; 8]);
        let replacing = self.encode(0, XLOG_OVERWRITE_CONTRECORD, &data);
        self.put(&replacing);
        start
    }

    /// The segments, the last one with zeros behind the log.
    pub fn segments(&self) -> Vec<(SegmentName, Vec<u8>)> {
        let mut all = self.bytes.clone();
        all.resize(all.len().next_multiple_of(self.segment_bytes()), 0);
        let named = all.chunks(self.segment_bytes()).zip(1..);
        named
            .map(|(bytes, number)| {
                let name = SegmentName::from_number(tl(self.timeline), number, size()).unwrap();
                (name, bytes.to_vec())
            })
            .collect()
    }
}
