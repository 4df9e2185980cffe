//! Lists what a base backup takes: the files and directories of the data directory and of
//! each tablespace, with sizes and permissions.
//!
//! The listing is made after the backup has begun and while the server goes on: what vanishes
//! meanwhile is no error, and what is created later is brought back by replay. Which names
//! are left out is decided by [`wald_core::data_file`]; symbolic links are followed in
//! `pg_tblspc` only, as PostgreSQL does. A link among the cluster's data is refused, because a
//! backup without what is behind it is none; one elsewhere is passed over with a warning.

use std::collections::HashSet;
use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use wald_core::catalog::Tablespace;
use wald_core::data_file::{
    DirectoryTreatment, FileTreatment, Fork, RelationFile, directory_treatment, file_treatment,
};
use wald_core::relative_path::{RelativePath, RelativePathError};

/// Below these everything is needed, by PostgreSQL or to read what a transaction did.
const DATA_DIRECTORIES: [&str; 8] =
    ["base", "global", "pg_tblspc", "pg_xact", "pg_multixact", "pg_commit_ts", "pg_logical", "pg_twophase"];

/// A file to back up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScannedFile {
    /// Relative to the data directory.
    pub path: RelativePath,
    /// Where it really is.
    pub disk: PathBuf,
    /// The tablespace that it belongs to, beside the two built-in ones.
    pub tablespace: Option<u32>,
    /// Its size when it was listed.
    pub size: u64,
}

/// A directory to back up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScannedDirectory {
    /// Relative to the data directory.
    pub path: RelativePath,
    /// The tablespace that it belongs to.
    pub tablespace: Option<u32>,
    /// Its permission bits.
    pub mode: u32,
}

/// Everything that a backup takes, `pg_control` and what `pg_backup_stop` returns excepted.
#[derive(Clone, Debug, Default)]
pub struct Scan {
    /// The directories, parents before their children.
    pub directories: Vec<ScannedDirectory>,
    /// The files.
    pub files: Vec<ScannedFile>,
    /// The tablespaces that have a link in `pg_tblspc`.
    pub tablespaces: Vec<Tablespace>,
}

/// Why the files could not be listed.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The operating system refused.
    #[error("can't read {}: wald needs the rights of the user that PostgreSQL runs as", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// A path that is too long.
    #[error("a file of the data directory can't be backed up")]
    Path(#[from] RelativePathError),
    /// A tablespace that is a directory in `pg_tblspc` and not a link.
    #[error(
        "{} is a tablespace inside the data directory (allow_in_place_tablespaces), which wald does not \
         back up: move its tables to another tablespace and drop it",
        path.display()
    )]
    InPlaceTablespace {
        /// Its directory.
        path: PathBuf,
    },
    /// A link where the data is.
    #[error(
        "{} is a symbolic link, which a backup does not follow, so the data behind it would be missing: \
         move it back or use a tablespace",
        path.display()
    )]
    Linked {
        /// The link.
        path: PathBuf,
    },
    /// A link whose target is not text.
    #[error("the tablespace {} leads to a path that is not UTF-8", path.display())]
    TablespacePath {
        /// The link.
        path: PathBuf,
    },
}

/// Lists the data directory. `version_directory` is the name of the directory that a server
/// of this version uses in each tablespace, such as `PG_15_202209061`.
pub fn scan(data_dir: &Path, version_directory: &str) -> Result<Scan, ScanError> {
    let mut walk = Walk { scan: Scan::default(), elsewhere: HashSet::new() };
    let tablespaces = list_tablespaces(&data_dir.join("pg_tblspc"))?;
    for tablespace in &tablespaces {
        let location = Path::new(&tablespace.location);
        if let Some(metadata) = existing(location, fs::metadata(location))? {
            walk.elsewhere.insert((metadata.dev(), metadata.ino()));
        }
    }
    walk.directory(data_dir, "", None)?;
    for tablespace in &tablespaces {
        let disk = Path::new(&tablespace.location).join(version_directory);
        let path = format!("pg_tblspc/{}/{version_directory}", tablespace.oid);
        // A tablespace that is dropped meanwhile is no error: replay drops it again.
        if let Some(metadata) = existing(&disk, fs::symlink_metadata(&disk))? {
            walk.keep(path.as_bytes(), Some(tablespace.oid), metadata.mode())?;
            walk.directory(&disk, &path, Some(tablespace.oid))?;
        }
    }
    walk.scan.tablespaces = tablespaces;
    Ok(walk.scan)
}

/// The links in `pg_tblspc`, by their numbers.
fn list_tablespaces(directory: &Path) -> Result<Vec<Tablespace>, ScanError> {
    let read_error = |path: &Path, source| ScanError::Read { path: path.to_owned(), source };
    let mut tablespaces = Vec::new();
    for entry in fs::read_dir(directory).map_err(|source| read_error(directory, source))? {
        let entry = entry.map_err(|source| read_error(directory, source))?;
        let Some(oid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let path = entry.path();
        let Some(metadata) = existing(&path, fs::symlink_metadata(&path))? else { continue };
        if metadata.is_dir() {
            return Err(ScanError::InPlaceTablespace { path });
        }
        if metadata.is_symlink()
            && let Some(target) = existing(&path, fs::read_link(&path))?
        {
            let location =
                target.to_str().ok_or_else(|| ScanError::TablespacePath { path: path.clone() })?.to_owned();
            tablespaces.push(Tablespace { oid, location });
        }
    }
    tablespaces.sort_by_key(|tablespace| tablespace.oid);
    Ok(tablespaces)
}

/// `None` for what is not there (any more).
fn existing<T>(path: &Path, result: io::Result<T>) -> Result<Option<T>, ScanError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ScanError::Read { path: path.to_owned(), source }),
    }
}

struct Walk {
    scan: Scan,
    /// Tablespaces' directories by device and inode: one may stand inside the data directory,
    /// and must not be taken twice.
    elsewhere: HashSet<(u64, u64)>,
}

impl Walk {
    /// Lists one directory and what is below it. `below` is its path relative to the data
    /// directory, empty for that itself.
    fn directory(&mut self, disk: &Path, below: &str, tablespace: Option<u32>) -> Result<(), ScanError> {
        let Some(entries) = existing(disk, fs::read_dir(disk))? else {
            // Only the data directory itself must be there: databases may be dropped.
            return if below.is_empty() {
                Err(ScanError::Read { path: disk.to_owned(), source: ErrorKind::NotFound.into() })
            } else {
                Ok(())
            };
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|source| ScanError::Read { path: disk.to_owned(), source })?;
            names.push(entry.file_name());
        }
        names.sort_unstable();

        let init_forks: HashSet<u32> = names
            .iter()
            .filter_map(|name| RelationFile::parse(&format!("{below}/{}", name.to_str()?)))
            .filter(|file| file.fork() == Fork::Init)
            .map(RelationFile::number)
            .collect();
        for name in &names {
            // A name that is not UTF-8 is like no name that the rules know.
            let text = name.to_string_lossy();
            let path = if below.is_empty() { text.into_owned() } else { format!("{below}/{text}") };
            let mut bytes = below.as_bytes().to_vec();
            if !below.is_empty() {
                bytes.push(b'/');
            }
            bytes.extend_from_slice(name.as_bytes());
            self.entry(&disk.join(name), &path, &bytes, tablespace, &init_forks)?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        disk: &Path,
        path: &str,
        bytes: &[u8],
        tablespace: Option<u32>,
        init_forks: &HashSet<u32>,
    ) -> Result<(), ScanError> {
        let Some(metadata) = existing(disk, fs::symlink_metadata(disk))? else { return Ok(()) };
        let file_treatment = file_treatment(path, |number| init_forks.contains(&number));
        if metadata.is_file() {
            if file_treatment == FileTreatment::Take {
                self.scan.files.push(ScannedFile {
                    path: RelativePath::new(bytes)?,
                    disk: disk.to_owned(),
                    tablespace,
                    size: metadata.len(),
                });
            }
            return Ok(());
        }
        match directory_treatment(path) {
            DirectoryTreatment::LeaveOut => Ok(()),
            DirectoryTreatment::KeepEmpty => self.keep(bytes, tablespace, directory_mode(&metadata)),
            DirectoryTreatment::KeepForWal => {
                self.keep(bytes, tablespace, directory_mode(&metadata))?;
                self.keep(b"pg_wal/archive_status", tablespace, directory_mode(&metadata))
            }
            DirectoryTreatment::Enter if metadata.is_dir() => {
                self.keep(bytes, tablespace, metadata.mode())?;
                let taken_elsewhere = self.elsewhere.contains(&(metadata.dev(), metadata.ino()));
                // The links of pg_tblspc come back from the tablespace map.
                if taken_elsewhere || path == "pg_tblspc" {
                    return Ok(());
                }
                self.directory(disk, path, tablespace)
            }
            DirectoryTreatment::Enter
                if metadata.is_symlink() && file_treatment == FileTreatment::Take && is_data(path) =>
            {
                Err(ScanError::Linked { path: disk.to_owned() })
            }
            DirectoryTreatment::Enter => {
                tracing::warn!(
                    "{} is not backed up: it is neither a file nor a directory (a symbolic link or a special file)",
                    disk.display()
                );
                Ok(())
            }
        }
    }

    fn keep(&mut self, path: &[u8], tablespace: Option<u32>, mode: u32) -> Result<(), ScanError> {
        let mode = mode & 0o7777;
        self.scan.directories.push(ScannedDirectory { path: RelativePath::new(path)?, tablespace, mode });
        Ok(())
    }
}

/// Whether the cluster's data stands there.
fn is_data(path: &str) -> bool {
    path.split('/').next().is_some_and(|first| DATA_DIRECTORIES.contains(&first))
}

/// The permissions of a directory; those of a link to one say nothing.
fn directory_mode(metadata: &Metadata) -> u32 {
    if metadata.is_dir() { metadata.mode() } else { 0o700 }
}

#[cfg(test)]
mod tests;
