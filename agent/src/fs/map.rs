//! The bytes of a WAL file: mapped while PostgreSQL keeps it still, else read.
//!
//! [`windows`] hands out one stretch after the other, so that no more than one of them counts as this
//! process's memory at a time. Invariant: only a file in `pg_wal` that is marked `.ready` is mapped. PostgreSQL neither
//! changes nor truncates nor recycles it until it is `.done`, so the mapping can't shrink
//! under the reader. Files of the data directory are never mapped: they can.

use super::{FsError, read_up_to};
use memmap2::{Mmap, MmapOptions};
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The content of a file.
pub enum FileBytes {
    /// Mapped from the page cache.
    Mapped(Mmap),
    /// Read into memory.
    Read(Vec<u8>),
}

impl AsRef<[u8]> for FileBytes {
    fn as_ref(&self) -> &[u8] {
        match self {
            FileBytes::Mapped(map) => map,
            FileBytes::Read(bytes) => bytes,
        }
    }
}

/// Which file this is and in what state: changes when the file is replaced or written to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileStamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified_seconds: i64,
    modified_nanoseconds: i64,
}

impl FileStamp {
    /// Reads the stamp of an open file.
    pub fn of(metadata: &std::fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.size(),
            modified_seconds: metadata.mtime(),
            modified_nanoseconds: metadata.mtime_nsec(),
        }
    }

    /// The file's length.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// Whether a file stands still while it is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stillness {
    /// PostgreSQL has marked it `.ready`.
    Ready,
    /// Nobody vouches for it.
    Unknown,
}

/// The first `bytes` of `file`, of which `path` is the name for messages, in windows of
/// `window_bytes`, a multiple of the page size; the last one may be shorter. A file that was
/// read, and is shorter by now, gives less.
pub fn windows<'a>(
    file: &'a File,
    path: &'a Path,
    stillness: Stillness,
    bytes: u64,
    window_bytes: usize,
) -> impl Iterator<Item = Result<FileBytes, FsError>> + 'a {
    let step = u64::try_from(window_bytes.max(1)).unwrap_or(u64::MAX);
    (0..bytes.div_ceil(step)).map(move |number| {
        let offset = number.saturating_mul(step);
        let length = step.min(bytes.saturating_sub(offset));
        match stillness {
            Stillness::Ready => map(file, path, offset, length).map(FileBytes::Mapped),
            Stillness::Unknown => read(file, offset, length)
                .map(FileBytes::Read)
                .map_err(|source| FsError::new("read", path, source)),
        }
    })
}

fn read(file: &File, offset: u64, length: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(length).map_err(std::io::Error::other)?];
    let filled = read_up_to(file, &mut bytes, offset)?;
    bytes.truncate(filled);
    Ok(bytes)
}

#[allow(unsafe_code)] // Mapping a file is unsafe by nature; the module's invariant bounds it.
fn map(file: &File, path: &Path, offset: u64, length: u64) -> Result<Mmap, FsError> {
    let mapped = usize::try_from(length).map_err(std::io::Error::other).and_then(|length| {
        let mut options = MmapOptions::new();
        // SAFETY: the file is a WAL file that PostgreSQL has marked `.ready`, see the invariant
        // above; a reader of the mapping sees bytes that nobody changes. Whoever truncates files
        // in pg_wal by hand ends this process with SIGBUS, and PostgreSQL asks again.
        unsafe { options.offset(offset).len(length).map(file) }
    });
    mapped.map_err(|source| FsError::new("map", path, source))
}
