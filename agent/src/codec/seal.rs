//! Raw bytes → a sealed object: hash, compress, hash again, header in front.
//!
//! The mirror of [`super::open`]. The format is `wald_core::frame`'s. The bytes come in windows of
//! [`WINDOW_BYTES`], each of which becomes a zstd frame of its own: what is hashed is compressed
//! while the processor's cache still has it, and nothing of a segment's size is in memory but what
//! comes out. That costs about one percent of the compression (measured on pgbench's WAL).

use super::compressor::compressor;
use bytes::Bytes;
use wald_core::frame::{FrameError, FrameHeader};
use wald_core::system_id::SystemId;
use wald_core::wal_file::WalFile;
use zstd::bulk::Compressor;

/// How much of a file is hashed and compressed at a time.
pub const WINDOW_BYTES: usize = 1 << 20;

/// How the body is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effort {
    /// zstd at this level.
    Level(i32),
    /// zstd frames of uncompressed blocks: read by every zstd, and it costs next to nothing.
    Stored,
}

/// The level while WAL waits: twice as fast as level 3 for a tenth more bytes; below 1 little is
/// gained for much more.
const HURRIED_LEVEL: i32 = 1;

impl Effort {
    /// What is left of it while WAL waits.
    pub fn hurried(self) -> Self {
        match self {
            Effort::Level(level) => Effort::Level(level.min(HURRIED_LEVEL)),
            Effort::Stored => Effort::Stored,
        }
    }
}

/// A file ready to be shipped.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// What the header says.
    pub header: FrameHeader,
    /// The header's bytes.
    pub head: Bytes,
    /// What follows them, in pieces.
    pub body: Vec<Bytes>,
}

impl Sealed {
    /// The object's bytes, in order, shared and not copied.
    pub fn pieces(&self) -> impl Iterator<Item = Bytes> {
        std::iter::once(self.head.clone()).chain(self.body.iter().cloned())
    }

    /// The whole object, copied together.
    pub fn to_vec(&self) -> Vec<u8> {
        self.pieces().fold(Vec::new(), |mut object, piece| {
            object.extend_from_slice(&piece);
            object
        })
    }
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
    let mut sealer = Sealer::new(file, effort)?;
    for window in raw.chunks(WINDOW_BYTES) {
        sealer.add(window)?;
    }
    sealer.finish(system_id)
}

/// Seals a file that comes in windows.
pub struct Sealer {
    file: WalFile,
    squeeze: Squeeze,
    raw_blake3: blake3::Hasher,
    raw_bytes: u64,
    body_blake3: blake3::Hasher,
    body: Vec<Bytes>,
    /// The frame of a window of zeros, once there was one: a segment that `archive_timeout` ended
    /// early has little else.
    zeros: Option<(usize, Bytes)>,
}

enum Squeeze {
    /// The compressor, and the place where its output stands until its length is known.
    Zstd(Compressor<'static>, Vec<u8>),
    Stored,
}

impl Sealer {
    /// Nothing taken yet.
    pub fn new(file: WalFile, effort: Effort) -> Result<Self, SealError> {
        let squeeze = match effort {
            Effort::Stored => Squeeze::Stored,
            Effort::Level(level) => {
                let compressor = compressor(level);
                Squeeze::Zstd(compressor.map_err(|source| SealError::Compress { file, source })?, Vec::new())
            }
        };
        Ok(Self {
            file,
            squeeze,
            raw_blake3: blake3::Hasher::new(),
            raw_bytes: 0,
            body_blake3: blake3::Hasher::new(),
            body: Vec::new(),
            zeros: None,
        })
    }

    /// Takes what comes next, at best [`WINDOW_BYTES`] of it.
    pub fn add(&mut self, window: &[u8]) -> Result<(), SealError> {
        self.raw_blake3.update(window);
        self.raw_bytes = self.raw_bytes.saturating_add(as_u64(window.len()));
        let known = self.zeros.as_ref().filter(|(length, _)| *length == window.len());
        let piece = match (known, is_zero(window)) {
            (Some((_, frame)), true) => frame.clone(),
            (_, zero) => {
                let frame = self.frame(window)?;
                self.zeros = if zero { Some((window.len(), frame.clone())) } else { self.zeros.take() };
                frame
            }
        };
        self.body_blake3.update(&piece);
        self.body.push(piece);
        Ok(())
    }

    fn frame(&mut self, window: &[u8]) -> Result<Bytes, SealError> {
        match &mut self.squeeze {
            Squeeze::Stored => Ok(stored_frame(window).into()),
            Squeeze::Zstd(compressor, scratch) => {
                scratch.clear();
                scratch.reserve(zstd::zstd_safe::compress_bound(window.len()));
                let compressed = compressor.compress_to_buffer(window, scratch);
                compressed.map_err(|source| SealError::Compress { file: self.file, source })?;
                // Exactly as long as it is: what waits to be sent is all that is held.
                Ok(Bytes::copy_from_slice(scratch))
            }
        }
    }

    /// The object.
    pub fn finish(mut self, system_id: SystemId) -> Result<Sealed, SealError> {
        let file = self.file;
        if self.body.is_empty() {
            // An empty file, too, is a zstd file.
            self.add(&[])?;
        }
        let body_bytes = self.body.iter().fold(0u64, |sum, piece| sum.saturating_add(as_u64(piece.len())));
        let header = FrameHeader {
            file,
            system_id,
            raw_blake3: self.raw_blake3.finalize(),
            raw_bytes: self.raw_bytes,
            body_blake3: self.body_blake3.finalize(),
            body_bytes,
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let head = header.encode().map_err(|source| SealError::Header { file, source })?;
        Ok(Sealed { header, head: head.into(), body: self.body })
    }
}

/// Whether there is nothing but zeros; in blocks, which the compiler turns into wide comparisons.
fn is_zero(bytes: &[u8]) -> bool {
    const BLOCK_BYTES: usize = 4096;
    bytes.chunks(BLOCK_BYTES).all(|block| block.iter().fold(0, |any, byte| any | byte) == 0)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(raw: &[u8], effort: Effort) -> Sealed {
        let file = WalFile::parse("000000010000000000000042").unwrap();
        seal(file, SystemId::new(7).unwrap(), raw, effort).unwrap()
    }

    #[test]
    fn windows_follow_each_other_and_zeros_are_compressed_once() {
        let mut raw = vec![0; 3 * WINDOW_BYTES + 5];
        raw[WINDOW_BYTES + 7] = 1;
        for effort in [Effort::Level(1), Effort::Stored] {
            let sealed = sealed(&raw, effort);
            assert_eq!(zstd::stream::decode_all(sealed.to_vec().as_slice()).unwrap(), raw);
            assert_eq!(sealed.header.raw_blake3, blake3::hash(&raw));
            assert_eq!(sealed.body.len(), 4);
            assert_eq!(sealed.body[0].as_ptr(), sealed.body[2].as_ptr(), "{effort:?}");
        }
        assert!(sealed(&raw, Effort::Level(3)).to_vec().len() < 2000);
    }

    #[test]
    fn an_empty_file_is_a_zstd_file() {
        for effort in [Effort::Level(1), Effort::Stored] {
            let object = sealed(&[], effort).to_vec();
            assert_eq!(zstd::stream::decode_all(object.as_slice()).unwrap(), b"");
        }
    }

    #[test]
    fn hurry_never_means_more_work() {
        assert_eq!(Effort::Level(3).hurried(), Effort::Level(1));
        assert_eq!(Effort::Level(-3).hurried(), Effort::Level(-3));
        assert_eq!(Effort::Stored.hurried(), Effort::Stored);
    }
}
