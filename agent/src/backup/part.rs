//! Makes one part of a backup: a tar, compressed with zstd, in chunks for the upload.
//!
//! Runs on a worker thread. Invariants: memory is bounded by the chunk that is being filled
//! and those in the bounded channel; the BLAKE3 is over the chunks exactly as they are sent.
//! A receiver that goes away ends the work: that is how an upload that failed, or a backup
//! that was given up, stops its worker.

use super::layout::PartPlan;
use super::progress::Progress;
use super::read::{FileReader, FileSums, ReadBuffer};
use super::scan::{ScannedDirectory, ScannedFile};
use bytes::Bytes;
use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use wald_core::catalog::Part;
use wald_core::data_file::RelationFile;
use wald_core::page_check::{PageFindings, PageRules};
use wald_core::relative_path::RelativePath;

/// What all parts of a backup share.
#[derive(Clone, Debug)]
pub struct PartContext {
    /// zstd's level.
    pub compression_level: i32,
    /// How to check pages; none where the cluster has no checksums.
    pub page_rules: Option<PageRules>,
    /// Counters to bump.
    pub progress: Arc<Progress>,
    /// Given up.
    pub cancel: CancellationToken,
}

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

/// The size of a chunk: what an upload sends at once, so that none is copied together there.
const CHUNK_BYTES: usize = 8 << 20;

/// Reads, packs and compresses everything in `plan`, then `given`, into `chunks`.
pub fn make_part(
    plan: PartPlan,
    given: Vec<GivenFile>,
    context: &PartContext,
    buffer: &mut ReadBuffer,
    chunks: mpsc::Sender<Bytes>,
) -> Result<FinishedPart, PartError> {
    let gone = chunks.clone();
    make(plan, given, context, buffer, chunks).map_err(|error| {
        // A closed channel and a cancelled backup show up as errors of whatever was running.
        if gone.is_closed() || context.cancel.is_cancelled() { PartError::GivenUp } else { error }
    })
}

fn make(
    plan: PartPlan,
    given: Vec<GivenFile>,
    context: &PartContext,
    buffer: &mut ReadBuffer,
    chunks: mpsc::Sender<Bytes>,
) -> Result<FinishedPart, PartError> {
    let writer = ChunkWriter::new(chunks, context.progress.clone());
    let compress = |source| PartError::Compress { name: plan.name.clone(), source };
    let mut encoder = zstd::stream::Encoder::new(writer, context.compression_level).map_err(compress)?;
    // `zstd -d` checks it: a recovery without wald has a proof too.
    encoder.include_checksum(true).map_err(compress)?;
    let mut tar = tar::Builder::new(encoder);

    for directory in &plan.directories {
        append_directory(&mut tar, directory).map_err(compress)?;
    }
    let mut files = Vec::with_capacity(plan.files.len() + given.len());
    for file in &plan.files {
        let added = append_file(&mut tar, file, context, buffer);
        let added = added.map_err(|source| PartError::File { path: file.disk.clone(), source })?;
        context.progress.file_done();
        files.extend(added);
    }
    for file in given {
        files.push(append_given(&mut tar, file).map_err(compress)?);
    }

    let encoder = tar.into_inner().map_err(compress)?;
    let writer = encoder.finish().map_err(compress)?;
    let (stored_bytes, blake3) = writer.finish().map_err(compress)?;
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

fn append_directory<W: Write>(tar: &mut tar::Builder<W>, directory: &ScannedDirectory) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_mode(directory.mode);
    header.set_size(0);
    tar.append_data(&mut header, path_in_tar(&directory.path), io::empty())
}

/// Adds one file; `None` if it has vanished, which is no error: replay removes it again.
fn append_file<W: Write>(
    tar: &mut tar::Builder<W>,
    file: &ScannedFile,
    context: &PartContext,
    buffer: &mut ReadBuffer,
) -> io::Result<Option<BackedUpFile>> {
    let relation = std::str::from_utf8(file.path.as_bytes()).ok().and_then(RelationFile::parse);
    let PartContext { page_rules, progress, cancel, .. } = context;
    let Some(mut reader) = FileReader::open(&file.disk, relation, *page_rules, buffer, progress, cancel)?
    else {
        return Ok(None);
    };
    let (size, mode, modified_second) = (reader.size(), reader.mode(), reader.modified_second());
    let (uid, gid) = reader.owner();
    let mut header = file_header(size, mode, modified_second);
    header.set_uid(uid.into());
    header.set_gid(gid.into());
    tar.append_data(&mut header, path_in_tar(&file.path), &mut reader)?;
    let FileSums { blake3, crc32c, pages } = reader.finish();
    let path = file.path.clone();
    Ok(Some(BackedUpFile { path, size, mode, modified_second, blake3, crc32c, pages }))
}

fn append_given<W: Write>(tar: &mut tar::Builder<W>, file: GivenFile) -> io::Result<BackedUpFile> {
    let size = u64::try_from(file.content.len()).unwrap_or(u64::MAX);
    let mut header = file_header(size, file.mode, file.modified_second);
    tar.append_data(&mut header, path_in_tar(&file.path), file.content.as_slice())?;
    Ok(BackedUpFile {
        path: file.path,
        size,
        mode: file.mode,
        modified_second: file.modified_second,
        blake3: blake3::hash(&file.content),
        crc32c: crc32c::crc32c(&file.content),
        pages: PageFindings::default(),
    })
}

fn file_header(size: u64, mode: u32, modified_second: i64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_size(size);
    header.set_mode(mode);
    header.set_mtime(u64::try_from(modified_second).unwrap_or(0));
    header
}

/// Paths in a tablespace's parts are relative to the tablespace's directory, so that a stock
/// `tar -x` there restores it.
fn path_in_tar(path: &RelativePath) -> PathBuf {
    let inner = path.in_tablespace().map(|(_, rest)| rest);
    OsStr::from_bytes(inner.as_ref().unwrap_or(path).as_bytes()).into()
}

/// Cuts a stream into chunks and sends them.
struct ChunkWriter {
    chunks: mpsc::Sender<Bytes>,
    chunk: Vec<u8>,
    blake3: blake3::Hasher,
    sent_bytes: u64,
    progress: Arc<Progress>,
}

impl ChunkWriter {
    fn new(chunks: mpsc::Sender<Bytes>, progress: Arc<Progress>) -> Self {
        Self { chunks, chunk: Vec::new(), blake3: blake3::Hasher::new(), sent_bytes: 0, progress }
    }

    fn send(&mut self) -> io::Result<()> {
        let chunk = std::mem::take(&mut self.chunk);
        let bytes = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
        self.blake3.update(&chunk);
        self.sent_bytes = self.sent_bytes.saturating_add(bytes);
        self.chunks
            .blocking_send(Bytes::from(chunk))
            .map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the upload has ended"))?;
        self.progress.stored(bytes);
        Ok(())
    }

    fn finish(mut self) -> io::Result<(u64, blake3::Hash)> {
        if !self.chunk.is_empty() {
            self.send()?;
        }
        Ok((self.sent_bytes, self.blake3.finalize()))
    }
}

impl Write for ChunkWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = CHUNK_BYTES.saturating_sub(self.chunk.len());
        let count = bytes.len().min(room);
        self.chunk.extend_from_slice(bytes.get(..count).unwrap_or_default());
        if self.chunk.len() >= CHUNK_BYTES {
            self.send()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
