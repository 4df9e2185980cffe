//! Which files may be archived: those of the configured `pg_wal`, by a WAL file's name.
//!
//! Invariants: what is opened lies directly in the configured `pg_wal` (which may itself be a
//! symbolic link) and is a regular file, not a link; the file that was checked is the file
//! that is read, because both go through one open handle.

use crate::fs::FsError;
use crate::fs::map::{FileStamp, Stillness};
use rustix::fs::{AtFlags, Mode, OFlags, openat, statat};
use std::fs::File;
use std::path::{Path, PathBuf};
use wald_core::segment::{SegmentName, SegmentSize};
use wald_core::wal_file::{WalFile, WalFileError};

/// Why a request is refused before anything is read.
#[derive(Debug, thiserror::Error)]
pub enum AdmitError {
    /// Not a WAL file's name.
    #[error("{} is refused", path.display())]
    Name {
        /// The path.
        path: PathBuf,
        /// What is wrong with its last part.
        source: WalFileError,
    },
    /// Somewhere else than in `pg_wal`.
    #[error("{} is refused: it is not in {} (cluster.data_dir)", path.display(), pg_wal.display())]
    Outside {
        /// The path.
        path: PathBuf,
        /// Where it should be.
        pg_wal: PathBuf,
    },
    /// A symbolic link, a directory, a pipe.
    #[error("{} is refused: it is not a regular file", path.display())]
    NotRegular {
        /// The path.
        path: PathBuf,
    },
    /// A segment that does not have a segment's size.
    #[error("{} is refused: it has {found} bytes, a segment of this cluster has {expected}", path.display())]
    Size {
        /// The path.
        path: PathBuf,
        /// The repository's segment size.
        expected: u64,
        /// The file's.
        found: u64,
    },
    /// A segment that PostgreSQL has not finished with.
    #[error(
        "{} is refused: PostgreSQL has not marked it as complete (there is neither archive_status/{file}.ready \
         nor .done), and half a segment under its final name could never be corrected", path.display()
    )]
    Unfinished {
        /// The path.
        path: PathBuf,
        /// The file.
        file: WalFile,
    },
    /// The file or its directory can't be opened.
    #[error(transparent)]
    Fs(#[from] FsError),
}

/// The most bytes that a history or backup label file may have: real ones have hundreds.
const SMALL_FILE_BYTES_MAX: u64 = 1 << 20;

/// The one directory that is archived from.
#[derive(Clone, Debug)]
pub struct PgWal {
    path: PathBuf,
}

/// A file that may be archived, open.
#[derive(Debug)]
pub struct Admitted {
    file: WalFile,
    path: PathBuf,
    handle: File,
    stamp: FileStamp,
    stillness: Stillness,
}

impl Admitted {
    /// Which WAL file it is.
    pub fn file(&self) -> WalFile {
        self.file
    }

    /// The file's identity and state when it was admitted.
    pub fn stamp(&self) -> FileStamp {
        self.stamp
    }

    /// Whether PostgreSQL has marked it `.ready`.
    pub fn stillness(&self) -> Stillness {
        self.stillness
    }

    /// Its place, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The open file.
    pub fn handle(&self) -> &File {
        &self.handle
    }
}

impl PgWal {
    /// The `pg_wal` of a data directory.
    pub fn of(data_dir: &Path) -> Self {
        Self { path: data_dir.join("pg_wal") }
    }

    /// The directory as configured.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the file of this name would be.
    pub fn path_of(&self, file: WalFile) -> PathBuf {
        self.path.join(file.to_string())
    }

    /// Checks a request's path and opens the file.
    pub fn admit(&self, path: &Path, segment_size: SegmentSize) -> Result<Admitted, AdmitError> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let file =
            WalFile::parse(name).map_err(|source| AdmitError::Name { path: path.to_owned(), source })?;
        let ours = canonical(&self.path)?;
        let parent = path.parent().unwrap_or(Path::new("/"));
        if parent != self.path && canonical(parent)? != ours {
            return Err(AdmitError::Outside { path: path.to_owned(), pg_wal: self.path.clone() });
        }
        let directory = File::open(&ours).map_err(|source| FsError::new("open", &ours, source))?;
        let admitted = open_in(&directory, file, path)?;
        let found = admitted.stamp.bytes();
        match file {
            WalFile::Segment(_) | WalFile::Partial(_) => {
                let expected = u64::from(segment_size.bytes());
                if found != expected {
                    return Err(AdmitError::Size { path: path.to_owned(), expected, found });
                }
            }
            WalFile::History(_) | WalFile::BackupLabel(..) => {
                if found > SMALL_FILE_BYTES_MAX || found == 0 {
                    let expected = SMALL_FILE_BYTES_MAX;
                    return Err(AdmitError::Size { path: path.to_owned(), expected, found });
                }
            }
        }
        Ok(admitted)
    }

    /// Whether PostgreSQL has marked the file as waiting to be archived.
    pub fn is_ready(&self, file: WalFile) -> bool {
        self.path.join(ready_mark(file)).exists()
    }

    /// Since when the file waits: PostgreSQL makes the mark when the file is complete.
    pub fn ready_since(&self, file: WalFile) -> Option<jiff::Timestamp> {
        let made = std::fs::metadata(self.path.join(ready_mark(file))).ok()?.modified().ok()?;
        jiff::Timestamp::try_from(made).ok()
    }

    /// The file's size.
    pub fn size_of(&self, file: WalFile) -> Option<u64> {
        Some(std::fs::metadata(self.path_of(file)).ok()?.len())
    }

    /// The marks of all files that wait to be archived: how many, and the oldest segment.
    pub fn backlog(&self) -> Result<Backlog, FsError> {
        let status = self.path.join("archive_status");
        let mut backlog = Backlog { files: 0, oldest: None, newest_segment: None };
        let entries = std::fs::read_dir(&status).map_err(|source| FsError::new("list", &status, source))?;
        for entry in entries {
            let entry = entry.map_err(|source| FsError::new("list", &status, source))?;
            let name = entry.file_name();
            let Some(file) = name.to_str().and_then(|name| name.strip_suffix(".ready")) else { continue };
            let Ok(file) = WalFile::parse(file) else { continue };
            backlog.files += 1;
            if let WalFile::Segment(segment) = file {
                backlog.newest_segment = backlog.newest_segment.max(Some(segment));
            }
            if backlog.oldest.is_none_or(|oldest| file < oldest) {
                backlog.oldest = Some(file);
            }
        }
        Ok(backlog)
    }
}

/// What waits to be archived.
#[derive(Clone, Copy, Debug)]
pub struct Backlog {
    /// How many files.
    pub files: u64,
    /// The first in order.
    pub oldest: Option<WalFile>,
    /// The last segment.
    pub newest_segment: Option<SegmentName>,
}

fn ready_mark(file: WalFile) -> String {
    format!("archive_status/{file}.ready")
}

fn done_mark(file: WalFile) -> String {
    format!("archive_status/{file}.done")
}

fn canonical(path: &Path) -> Result<PathBuf, FsError> {
    std::fs::canonicalize(path).map_err(|source| FsError::new("find", path, source))
}

fn open_in(directory: &File, file: WalFile, path: &Path) -> Result<Admitted, AdmitError> {
    // NOFOLLOW: a link in pg_wal could point anywhere. NONBLOCK: opening a pipe would hang.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = openat(directory, file.to_string(), flags, Mode::empty());
    let handle = match opened {
        Ok(handle) => File::from(handle),
        Err(rustix::io::Errno::LOOP) => return Err(AdmitError::NotRegular { path: path.to_owned() }),
        Err(source) => return Err(FsError::new("open", path, source).into()),
    };
    let metadata = handle.metadata().map_err(|source| FsError::new("look at", path, source))?;
    if !metadata.is_file() {
        return Err(AdmitError::NotRegular { path: path.to_owned() });
    }
    let marked = |mark: String| statat(directory, mark, AtFlags::empty()).is_ok();
    let stillness = if marked(ready_mark(file)) { Stillness::Ready } else { Stillness::Unknown };
    // The other kinds are written at once, under a temporary name; a segment grows in place.
    if matches!(file, WalFile::Segment(_)) && stillness == Stillness::Unknown && !marked(done_mark(file)) {
        return Err(AdmitError::Unfinished { path: path.to_owned(), file });
    }
    Ok(Admitted { file, path: path.to_owned(), handle, stamp: FileStamp::of(&metadata), stillness })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    const NAME: &str = "000000010000000000000001";

    /// A data directory with one segment of 1 MiB.
    fn data_dir() -> (tempfile::TempDir, PgWal, SegmentSize) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("pg_wal/archive_status")).unwrap();
        fs::write(dir.path().join("pg_wal").join(NAME), vec![0; 1 << 20]).unwrap();
        fs::write(dir.path().join(format!("pg_wal/archive_status/{NAME}.done")), "").unwrap();
        let pg_wal = PgWal::of(dir.path());
        (dir, pg_wal, SegmentSize::new(1 << 20).unwrap())
    }

    #[test]
    fn a_segment_in_pg_wal_is_admitted_also_when_pg_wal_is_a_link() {
        let (dir, pg_wal, size) = data_dir();
        let admitted = pg_wal.admit(&dir.path().join("pg_wal").join(NAME), size).unwrap();
        assert_eq!(admitted.stillness(), Stillness::Unknown);
        fs::write(dir.path().join(format!("pg_wal/archive_status/{NAME}.ready")), "").unwrap();
        fs::rename(dir.path().join("pg_wal"), dir.path().join("elsewhere")).unwrap();
        symlink(dir.path().join("elsewhere"), dir.path().join("pg_wal")).unwrap();
        for parent in ["pg_wal", "elsewhere"] {
            let admitted = pg_wal.admit(&dir.path().join(parent).join(NAME), size).unwrap();
            assert_eq!(admitted.stillness(), Stillness::Ready);
        }
    }

    #[test]
    fn a_path_outside_pg_wal_is_refused_also_through_links() {
        let (dir, pg_wal, size) = data_dir();
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join(NAME), vec![0; 1 << 20]).unwrap();
        let refused = |path: &Path| pg_wal.admit(path, size).unwrap_err().to_string();
        assert!(refused(&outside.join(NAME)).contains("is not in"));
        assert!(refused(&dir.path().join("pg_wal/../outside").join(NAME)).contains("is not in"));
        symlink(&outside, dir.path().join("pg_wal/inside")).unwrap();
        assert!(refused(&dir.path().join("pg_wal/inside").join(NAME)).contains("is not in"));
        let linked = dir.path().join("pg_wal/000000010000000000000002");
        symlink(outside.join(NAME), &linked).unwrap();
        assert!(refused(&linked).contains("not a regular file"));
    }

    #[test]
    fn what_is_no_wal_file_is_refused() {
        let (dir, pg_wal, size) = data_dir();
        let pg_wal_dir = dir.path().join("pg_wal");
        for name in ["x", "..", "000000010000000000000001.ready"] {
            assert!(
                matches!(pg_wal.admit(&pg_wal_dir.join(name), size), Err(AdmitError::Name { .. })),
                "{name}"
            );
        }
        fs::create_dir(pg_wal_dir.join("000000010000000000000003")).unwrap();
        let directory = pg_wal.admit(&pg_wal_dir.join("000000010000000000000003"), size);
        assert!(matches!(directory, Err(AdmitError::NotRegular { .. })));
        fs::write(pg_wal_dir.join("000000010000000000000004"), "short").unwrap();
        let unfinished = pg_wal.admit(&pg_wal_dir.join("000000010000000000000004"), size);
        assert!(matches!(unfinished, Err(AdmitError::Unfinished { .. })));
        fs::write(pg_wal_dir.join("archive_status/000000010000000000000004.ready"), "").unwrap();
        let short = pg_wal.admit(&pg_wal_dir.join("000000010000000000000004"), size);
        assert!(matches!(short, Err(AdmitError::Size { found: 5, .. })));
        assert!(matches!(
            pg_wal.admit(&pg_wal_dir.join("000000010000000000000009"), size),
            Err(AdmitError::Fs(_))
        ));
    }
}
