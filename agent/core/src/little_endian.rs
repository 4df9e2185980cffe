//! Integers at fixed offsets of PostgreSQL's binary files, which are written in the machine's
//! own byte order. wald runs on x86_64 and aarch64, where that is little-endian.
//!
//! Nothing here panics: an offset outside the bytes is `None`.

/// The two bytes at `offset`.
pub(crate) fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes.get(offset..)?.first_chunk().copied().map(u16::from_le_bytes)
}

/// The four bytes at `offset`.
pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().copied().map(u32::from_le_bytes)
}

/// The eight bytes at `offset`.
pub(crate) fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    bytes.get(offset..)?.first_chunk().copied().map(u64::from_le_bytes)
}
