//! Makes one part of a backup: a tar in zstd frames, in chunks for the upload.
//!
//! Runs on a worker thread. Invariants: memory is bounded by the worker's buffers and the pool of
//! chunks. A file that is not small begins a frame of its own and ends one; small ones share a
//! frame; so the frames that hold a file are a tar by themselves, and [`BackedUpFile::at`] says
//! where in the part they stand.
//! A receiver that goes away ends the work: that is how an upload that failed, or a backup
//! that was given up, stops its worker.

use super::chunks::{Chunk, ChunkPool, ChunkWriter};
use super::frames::{FrameBuffers, FrameWriter};
use super::layout::PartPlan;
use super::read::{FileReader, FileSums, ReadContext};
use super::scan::{ScannedDirectory, ScannedFile};
use super::tar_entry::{END, FileHeader, directory_header, file_header, padding};
use std::io;
use std::path::PathBuf;
use tokio::sync::mpsc;
use wald_core::catalog::Part;
use wald_core::data_file::RelationFile;
use wald_core::page_check::PageFindings;
use wald_core::relative_path::RelativePath;
use wald_core::stored_range::StoredRange;

/// From this size on a file has frames of its own.
pub const OWN_FRAME_BYTES: u64 = 1 << 20;
/// So much of the tar is in a frame that small files share, at most: who wants one of them back must read them all.
const SHARED_FRAME_BYTES: u64 = 2 << 20;

/// A file whose content is in memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GivenFile {
    /// Relative to the data directory.
    pub path: RelativePath,
    /// Its content.
    pub content: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    /// Seconds since 1970 of the last change.
    pub modified_second: i64,
}

/// A file that is in a part.
#[derive(Clone, Debug)]
pub struct BackedUpFile {
    /// Relative to the data directory.
    pub path: RelativePath,
    /// Bytes in the part.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Seconds since 1970 of the last change.
    pub modified_second: i64,
    /// BLAKE3 of its content.
    pub blake3: blake3::Hash,
    /// CRC-32C of its content.
    pub crc32c: u32,
    /// What its pages looked like.
    pub pages: PageFindings,
    /// The frames that hold it.
    pub at: Option<StoredRange>,
}

/// A finished part.
#[derive(Clone, Debug)]
pub struct FinishedPart {
    /// For the catalog.
    pub part: Part,
    /// Its directories.
    pub directories: Vec<ScannedDirectory>,
    /// Its files, without those that had vanished.
    pub files: Vec<BackedUpFile>,
}

/// Why a part could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PartError {
    /// A file could not be read.
    #[error("can't back up {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// zstd refused its settings, or the end of the tar could not be written.
    #[error("can't compress {name}")]
    Compress {
        /// The part.
        name: String,
        /// What zstd says.
        #[source]
        source: io::Error,
    },
    /// Nobody wants the part any more.
    #[error("the part was given up")]
    GivenUp,
}

/// Reads, packs and compresses everything in `plan`, then `given`, into `chunks`.
pub fn make_part(
    plan: PartPlan,
    given: Vec<GivenFile>,
    context: &ReadContext,
    buffers: &mut FrameBuffers,
    pool: &ChunkPool,
    chunks: mpsc::Sender<Chunk>,
) -> Result<FinishedPart, PartError> {
    let gone = chunks.clone();
    let out = ChunkWriter::new(pool, chunks, context.progress.clone(), context.cancel.clone());
    make(plan, given, context, FrameWriter::new(buffers, out)).map_err(|error| {
        // A closed channel and a cancelled backup show up as errors of whatever was running.
        if gone.is_closed() || context.cancel.is_cancelled() { PartError::GivenUp } else { error }
    })
}

fn make(
    plan: PartPlan,
    given: Vec<GivenFile>,
    context: &ReadContext,
    frames: FrameWriter<'_>,
) -> Result<FinishedPart, PartError> {
    let compress = |source| PartError::Compress { name: plan.name.clone(), source };
    let mut packing = Packing { frames, files: Vec::new(), placed: 0, began: 0 };
    for directory in &plan.directories {
        packing.directory(directory).map_err(compress)?;
    }
    for file in &plan.files {
        let added = packing.file(file, context);
        added.map_err(|source| PartError::File { path: file.disk.clone(), source })?;
        context.progress.file_done();
    }
    for file in given {
        packing.given(file).map_err(compress)?;
    }
    let (files, stored_bytes, blake3) = packing.finish().map_err(compress)?;
    let part = Part {
        name: plan.name,
        tablespace: plan.tablespace,
        stored_bytes,
        raw_bytes: files.iter().fold(0u64, |sum, file| sum.saturating_add(file.size)),
        files: u64::try_from(files.len()).unwrap_or(u64::MAX),
        blake3: blake3.into(),
    };
    Ok(FinishedPart { part, directories: plan.directories, files })
}

/// A tar that is being packed.
struct Packing<'b> {
    frames: FrameWriter<'b>,
    files: Vec<BackedUpFile>,
    /// Files of which it is known where they stand.
    placed: usize,
    /// Where the first frame began that no placed file stands in.
    began: u64,
}

impl Packing<'_> {
    fn directory(&mut self, directory: &ScannedDirectory) -> io::Result<()> {
        let header = directory_header(directory)?;
        self.begin_entry(0)?;
        self.frames.write(&header)
    }

    /// Adds one file, unless it has vanished, which is no error: replay removes it again.
    fn file(&mut self, file: &ScannedFile, context: &ReadContext) -> io::Result<()> {
        let relation = std::str::from_utf8(file.path.as_bytes()).ok().and_then(RelationFile::parse);
        let Some(mut reader) = FileReader::open(&file.disk, relation, context)? else { return Ok(()) };
        let (size, mode, modified_second) = (reader.size(), reader.mode(), reader.modified_second());
        let header = FileHeader { size, mode, modified_second, owner: reader.owner() };
        self.begin_entry(size)?;
        self.frames.write(&file_header(&file.path, header)?)?;
        while !reader.is_at_end() {
            let mut room = self.frames.room()?;
            if reader.block_bytes(room) == 0 {
                // Less than a page is left of the frame.
                self.frames.cut()?;
                room = self.frames.room()?;
            }
            self.frames.fill(reader.block_bytes(room), |window| reader.fill(window))?;
        }
        self.frames.write(padding(size))?;
        let FileSums { blake3, crc32c, pages } = reader.finish();
        let path = file.path.clone();
        self.files.push(BackedUpFile { path, size, mode, modified_second, blake3, crc32c, pages, at: None });
        self.end_entry(size)
    }

    fn given(&mut self, file: GivenFile) -> io::Result<()> {
        let size = u64::try_from(file.content.len()).unwrap_or(u64::MAX);
        let GivenFile { path, content, mode, modified_second } = file;
        let header = FileHeader { size, mode, modified_second, owner: (0, 0) };
        self.begin_entry(size)?;
        for bytes in [&file_header(&path, header)?, &content, padding(size)] {
            self.frames.write(bytes)?;
        }
        let (blake3, crc32c) = (blake3::hash(&content), crc32c::crc32c(&content));
        let pages = PageFindings::default();
        self.files.push(BackedUpFile { path, size, mode, modified_second, blake3, crc32c, pages, at: None });
        self.end_entry(size)
    }

    /// Ends the frame before an entry that shall not share it.
    fn begin_entry(&mut self, size: u64) -> io::Result<()> {
        let shared = u64::try_from(self.frames.filled()).unwrap_or(u64::MAX);
        let apart = size >= OWN_FRAME_BYTES || shared.saturating_add(size) > SHARED_FRAME_BYTES;
        if apart { self.end_frame() } else { Ok(()) }
    }

    /// Ends the frame behind an entry that shall not share it.
    fn end_entry(&mut self, size: u64) -> io::Result<()> {
        if size >= OWN_FRAME_BYTES { self.end_frame() } else { Ok(()) }
    }

    /// Ends the frame. All files since the last time stand in what was stored since.
    fn end_frame(&mut self) -> io::Result<()> {
        self.frames.cut()?;
        let end = self.frames.stored_bytes();
        let at = StoredRange::new(self.began, end.saturating_sub(self.began)).ok();
        for file in self.files.iter_mut().skip(self.placed) {
            file.at = at;
        }
        (self.placed, self.began) = (self.files.len(), end);
        Ok(())
    }

    fn finish(mut self) -> io::Result<(Vec<BackedUpFile>, u64, blake3::Hash)> {
        self.frames.write(&END)?;
        self.end_frame()?;
        let (stored_bytes, blake3) = self.frames.finish()?;
        Ok((self.files, stored_bytes, blake3))
    }
}

#[cfg(test)]
mod tests;
