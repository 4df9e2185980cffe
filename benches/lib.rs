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
