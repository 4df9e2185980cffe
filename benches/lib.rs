//! What the micro-benchmarks work on. Run them with `cargo bench -p wald-benches`.
//!
//! A benchmark says how fast one step is on one machine; it is never part of a test.

/// Bytes that compress about as well as WAL of small transactions: records of which most bytes
/// repeat and some do not, deterministic from run to run.
pub fn wal_like(bytes: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut wal = Vec::with_capacity(bytes + 64);
    while wal.len() < bytes {
        let (a, b) = (next(), next());
        wal.extend_from_slice(&[0; 20]);
        wal.extend_from_slice(&(a % 1000).to_le_bytes());
        wal.extend_from_slice(b"UPDATE pgbench_accounts       ");
        wal.extend_from_slice(b.to_le_bytes().first_chunk::<4>().unwrap_or(&[0; 4]));
    }
    wal.truncate(bytes);
    wal
}

/// A segment of real WAL pages and records, as `wald_core::wal_record` walks it: the one at
/// position `segment_bytes`, of the system 7, full of records like those of small transactions,
/// each sixteenth with the image of a page.
pub fn recorded(segment_bytes: u32) -> Vec<u8> {
    let total = usize::try_from(segment_bytes).unwrap_or(0);
    let source = wal_like(total);
    let (mut wal, mut previous, mut left) = (Vec::with_capacity(total), 0u64, Vec::new());
    let mut number = 0usize;
    while wal.len() < total {
        let room = (WAL_PAGE_BYTES - wal.len() % WAL_PAGE_BYTES) % WAL_PAGE_BYTES;
        let position = u64::from(segment_bytes).saturating_add(u64::try_from(wal.len()).unwrap_or(0));
        if room == 0 {
            page_header(&mut wal, position, segment_bytes, left.len());
        } else if left.is_empty() {
            wal.resize(wal.len().next_multiple_of(8), 0);
            if !wal.len().is_multiple_of(WAL_PAGE_BYTES) {
                let start = position.next_multiple_of(8);
                left = record(&source, number, previous);
                (previous, number) = (start, number.wrapping_add(1));
            }
        } else {
            let rest = left.split_off(room.min(left.len()));
            wal.append(&mut left);
            left = rest;
        }
    }
    wal
}

const WAL_PAGE_BYTES: usize = 8192;

fn page_header(wal: &mut Vec<u8>, position: u64, segment_bytes: u32, continued: usize) {
    let first = wal.is_empty();
    wal.extend(0xD110u16.to_le_bytes());
    wal.extend((u16::from(continued > 0) | if first { 2 } else { 0 }).to_le_bytes());
    wal.extend(1u32.to_le_bytes());
    wal.extend(position.to_le_bytes());
    wal.extend(u32::try_from(continued).unwrap_or(0).to_le_bytes());
    wal.extend([0; 4]);
    if first {
        wal.extend(7u64.to_le_bytes());
        wal.extend(segment_bytes.to_le_bytes());
        wal.extend(8192u32.to_le_bytes());
    }
}

fn record(source: &[u8], number: usize, previous: u64) -> Vec<u8> {
    let image = if number.is_multiple_of(16) { 6000 } else { 0 };
    let length = 30 + number * 37 % 120 + image;
    let from = number * 61 % (source.len() / 2);
    let data = source.get(from..from + length).unwrap_or_default();
    let mut record = Vec::with_capacity(data.len() + 24);
    record.extend(u32::try_from(data.len() + 24).unwrap_or(0).to_le_bytes());
    record.extend([1, 2, 3, 4]);
    record.extend(previous.to_le_bytes());
    record.extend([0, 10, 0, 0]);
    let crc = crc32c::crc32c_append(crc32c::crc32c(data), &record);
    record.extend(crc.to_le_bytes());
    record.extend(data);
    record
}
