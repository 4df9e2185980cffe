//! Compresses a tar into zstd frames, each at once and in memory.
//!
//! A frame that is compressed at once is compressed from where it stands: a stream would copy it
//! into zstd's window first. The window of the quick levels is smaller than a frame, so that the
//! frames cost next to nothing in size. Frames one after the other are one zstd file to any
//! decompressor ("Zstandard Frames", RFC 8878, section 3.1), and where one begins and ends
//! on a tar entry it can be read alone.
//!
//! Invariants: a frame holds at most [`FRAME_BYTES`] of the tar, and carries its checksum, so that a
//! recovery without wald has a proof too; memory is what [`FrameBuffers`] allocates.

use super::chunks::ChunkWriter;
use crate::codec::compressor::compressor;
use std::io;
use zstd::bulk::Compressor;
use zstd::zstd_safe::CParameter;

/// The tar's bytes in one frame, at most.
pub const FRAME_BYTES: usize = 4 << 20;

/// The memory of a worker, used for one part after the other.
pub struct FrameBuffers {
    raw: Box<[u8]>,
    packed: Vec<u8>,
    compressor: Compressor<'static>,
}

impl FrameBuffers {
    /// Allocates it, for one of zstd's levels.
    pub fn new(level: i32) -> io::Result<Self> {
        let mut compressor = compressor(level)?;
        compressor.set_parameter(CParameter::ChecksumFlag(true))?;
        let packed = Vec::with_capacity(zstd::zstd_safe::compress_bound(FRAME_BYTES));
        Ok(Self { raw: vec![0; FRAME_BYTES].into(), packed, compressor })
    }
}

/// A tar on its way into frames.
pub struct FrameWriter<'b> {
    buffers: &'b mut FrameBuffers,
    filled: usize,
    out: ChunkWriter,
}

impl<'b> FrameWriter<'b> {
    /// Begins a tar.
    pub fn new(buffers: &'b mut FrameBuffers, out: ChunkWriter) -> Self {
        Self { buffers, filled: 0, out }
    }

    /// Bytes in the frame that is being filled.
    pub fn filled(&self) -> usize {
        self.filled
    }

    /// Stored bytes of the frames that have ended.
    pub fn stored_bytes(&self) -> u64 {
        self.out.written_bytes()
    }

    /// How many bytes the frame still takes; it is ended first where that is none.
    pub fn room(&mut self) -> io::Result<usize> {
        if self.filled == FRAME_BYTES {
            self.cut()?;
        }
        Ok(FRAME_BYTES - self.filled)
    }

    /// Has `fill` write the next `bytes` of the tar, of which there must be room for.
    pub fn fill(&mut self, bytes: usize, fill: impl FnOnce(&mut [u8]) -> io::Result<()>) -> io::Result<()> {
        let end = self.filled.saturating_add(bytes);
        let window = self.buffers.raw.get_mut(self.filled..end);
        fill(window.ok_or_else(|| io::Error::other("no frame is so large"))?)?;
        self.filled = end;
        Ok(())
    }

    /// Appends bytes of the tar.
    pub fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(self.room()?.min(bytes.len()));
            self.fill(now.len(), |window| {
                window.copy_from_slice(now);
                Ok(())
            })?;
            bytes = later;
        }
        Ok(())
    }

    /// Ends the frame: what comes next begins another.
    pub fn cut(&mut self) -> io::Result<()> {
        let FrameBuffers { raw, packed, compressor } = &mut *self.buffers;
        let frame = raw.get(..self.filled).unwrap_or_default();
        if frame.is_empty() {
            return Ok(());
        }
        compressor.compress_to_buffer(frame, packed)?;
        self.filled = 0;
        self.out.write(packed)
    }

    /// Ends the tar's last frame; returns the number and the hash of all stored bytes.
    pub fn finish(mut self) -> io::Result<(u64, blake3::Hash)> {
        self.cut()?;
        self.out.finish()
    }
}
