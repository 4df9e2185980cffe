//! One part of a backup, file by file: zstd, then tar.
//!
//! Invariants: only regular files are given, under the paths that the backup's list has them by; a
//! link, a device or a path that leaves the data directory is damage. The data is read through the end of the tar and of
//! the compressed data, where zstd's own checksum stands.

use std::io::{self, Read};
use wald_core::relative_path::RelativePath;

/// Where the links to tablespaces stand, and in the list of files the tablespaces themselves.
const LINKS: &str = "pg_tblspc";

/// Why a part was not read to its end.
#[derive(Debug)]
pub enum PartError<E> {
    /// It is not a part, or not a whole one.
    Damaged(String),
    /// The visitor gave up.
    Visit(E),
}

/// Reads the part in `object` and shows each file to `visit`: its path in the data directory, the
/// path as it is shown in messages, its size, its content.
pub fn read_part<E>(
    object: impl Read,
    tablespace: Option<u32>,
    mut visit: impl FnMut(RelativePath, &str, u64, &mut dyn Read) -> Result<(), E>,
) -> Result<(), PartError<E>> {
    let unreadable = |error: io::Error| PartError::Damaged(error.to_string());
    let decoder = zstd::stream::read::Decoder::new(object).map_err(unreadable)?;
    let mut archive = tar::Archive::new(decoder);
    for entry in archive.entries().map_err(unreadable)? {
        let mut entry = entry.map_err(unreadable)?;
        let name = entry.path_bytes().into_owned();
        let shown = name.escape_ascii().to_string();
        match entry.header().entry_type() {
            // Directories are made from the list.
            tar::EntryType::Directory | tar::EntryType::XGlobalHeader => continue,
            tar::EntryType::Regular | tar::EntryType::Continuous => {}
            _ => return Err(PartError::Damaged(format!("{shown} in it is neither a file nor a directory"))),
        }
        let listed = match tablespace {
            None => RelativePath::new(name),
            Some(oid) => RelativePath::new([format!("{LINKS}/{oid}/").as_bytes(), &name].concat()),
        };
        let path = listed.map_err(|error| PartError::Damaged(error.to_string()))?;
        let size = entry.size();
        visit(path, &shown, size, &mut entry).map_err(PartError::Visit)?;
    }
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(unreadable)?;
    Ok(())
}
