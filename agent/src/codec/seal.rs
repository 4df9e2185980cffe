//! Raw bytes → a sealed object: hash, compress, hash again, header in front.
//!
//! The mirror of [`super::open`]. The format is `wald_core::frame`'s.

use bytes::Bytes;
use wald_core::frame::{FrameError, FrameHeader};
use wald_core::system_id::SystemId;
use wald_core::wal_file::WalFile;

/// How the body is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effort {
    /// zstd at this level.
    Level(i32),
    /// zstd frames of uncompressed blocks: read by every zstd, and it costs next to nothing.
    Stored,
}

/// A file ready to be shipped.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// What the header says.
    pub header: FrameHeader,
    /// The header's bytes.
    pub head: Bytes,
    /// What follows them.
    pub body: Bytes,
}

/// Why a file can't be sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The compressor failed, which for input in memory means out of memory.
    #[error("can't compress {file}")]
    Compress {
        /// The file.
        file: WalFile,
        /// What zstd said.
        source: std::io::Error,
    },
    /// The header can't be written.
    #[error("can't write the header of {file}")]
    Header {
        /// The file.
        file: WalFile,
        /// Why.
        source: FrameError,
    },
}

/// Seals `raw`, the content of `file`.
pub fn seal(file: WalFile, system_id: SystemId, raw: &[u8], effort: Effort) -> Result<Sealed, SealError> {
    let raw_blake3 = blake3::hash(raw);
    let body = match effort {
        Effort::Level(level) => {
            zstd::bulk::compress(raw, level).map_err(|source| SealError::Compress { file, source })?
        }
        Effort::Stored => stored_frame(raw),
    };
    let header = FrameHeader {
        file,
        system_id,
        raw_blake3,
        raw_bytes: as_u64(raw.len()),
        body_blake3: blake3::hash(&body),
        body_bytes: as_u64(body.len()),
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let head = header.encode().map_err(|source| SealError::Header { file, source })?;
    Ok(Sealed { header, head: head.into(), body: body.into() })
}

fn as_u64(length: usize) -> u64 {
    // usize has at most 64 bits on every platform that PostgreSQL runs on.
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// Uncompressed blocks in a valid zstd frame (RFC 8878, sections 3.1.1.1 and 3.1.1.2): magic,
/// a descriptor with neither checksum nor content size, a window of 128 KiB, then blocks of at
/// most 128 KiB with three bytes of header each.
fn stored_frame(raw: &[u8]) -> Vec<u8> {
    const MAGIC: u32 = 0xFD2F_B528;
    const DESCRIPTOR: u8 = 0;
    /// Exponent 7, mantissa 0: 2^(10 + 7) bytes.
    const WINDOW: u8 = 7 << 3;
    const BLOCK_BYTES: usize = 128 << 10;
    let blocks = raw.len().div_ceil(BLOCK_BYTES).max(1);
    let mut frame = Vec::with_capacity(raw.len() + 6 + 3 * blocks);
    frame.extend_from_slice(&MAGIC.to_le_bytes());
    frame.extend_from_slice(&[DESCRIPTOR, WINDOW]);
    let mut rest = raw;
    loop {
        let (block, after) = rest.split_at(rest.len().min(BLOCK_BYTES));
        let last = u32::from(after.is_empty());
        // Block type 0, "raw", in bits 1 and 2; the size from bit 3 on.
        let size = u32::try_from(block.len()).unwrap_or(0);
        let [b0, b1, b2, _] = (size << 3 | last).to_le_bytes();
        frame.extend_from_slice(&[b0, b1, b2]);
        frame.extend_from_slice(block);
        if after.is_empty() {
            return frame;
        }
        rest = after;
    }
}
