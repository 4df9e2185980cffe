//! The server's own copy of a WAL segment, while it has one.
//!
//! A segment is complete once `archive_status` holds a mark for it: `.ready` until it is
//! archived, `.done` afterwards. Then its bytes change no more until PostgreSQL recycles the
//! file, which happens by renaming it.

use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use wald_core::segment::SegmentName;

/// Why the server's segment says nothing.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// The operating system refused.
    #[error(
        "can't compare {} with what the repository holds: wald needs the rights of the user that PostgreSQL \
         runs as",
        path.display()
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// A thread is gone.
    #[error("a thread that compares WAL ended unexpectedly")]
    Thread,
}

/// What PostgreSQL says about a complete segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mark {
    /// To be archived.
    Ready,
    /// Archived, or not to be archived by this server.
    Done,
}

/// `pg_wal` of the server.
pub struct LocalWal {
    directory: PathBuf,
}

impl LocalWal {
    /// That of a data directory.
    pub fn new(data_dir: &Path) -> Self {
        Self { directory: data_dir.join("pg_wal") }
    }

    /// The mark of a segment. `None`: it is not complete, or already recycled.
    pub async fn mark(&self, segment: SegmentName) -> Result<Option<Mark>, LocalError> {
        let status = self.directory.join("archive_status");
        blocking(move || {
            for (mark, ending) in [(Mark::Ready, "ready"), (Mark::Done, "done")] {
                let path = status.join(format!("{segment}.{ending}"));
                if existing(&path, fs::symlink_metadata(&path))?.is_some() {
                    return Ok(Some(mark));
                }
            }
            Ok(None)
        })
        .await
    }

    /// The BLAKE3 of a complete segment; `None` if the server has it no more.
    pub async fn hash(&self, segment: SegmentName) -> Result<Option<blake3::Hash>, LocalError> {
        let path = self.directory.join(segment.to_string());
        blocking(move || hash_file(&path)).await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LocalError> + Send + 'static,
) -> Result<T, LocalError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| LocalError::Thread)?
}

fn hash_file(path: &Path) -> Result<Option<blake3::Hash>, LocalError> {
    let Some(file) = existing(path, File::open(path))? else { return Ok(None) };
    let opened = existing(path, file.metadata())?;
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(file).map_err(|source| LocalError::Read { path: path.to_owned(), source })?;
    // A file that was recycled meanwhile has another name now, and may have been written to.
    let present = existing(path, fs::metadata(path))?;
    let identity = |metadata: Metadata| (metadata.dev(), metadata.ino());
    Ok((opened.map(identity) == present.map(identity)).then(|| hasher.finalize()))
}

/// `None` for what is not there (any more).
fn existing<T>(path: &Path, result: io::Result<T>) -> Result<Option<T>, LocalError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(LocalError::Read { path: path.to_owned(), source }),
    }
}
