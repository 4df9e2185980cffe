//! What stands in a part's tar besides the files' content: the headers, and zeros.
//!
//! Paths in a tablespace's parts are relative to the tablespace's directory, so that a stock
//! `tar -x` there restores it.

use super::scan::ScannedDirectory;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use wald_core::relative_path::RelativePath;

/// Every entry of a tar has a header, and both are padded to blocks of this size.
pub const TAR_BLOCK: usize = 512;
/// A tar ends with two blocks of zeros.
pub const END: [u8; 2 * TAR_BLOCK] = [0; 2 * TAR_BLOCK];

/// What the header of a file says besides its path.
#[derive(Clone, Copy, Debug)]
pub struct FileHeader {
    /// Bytes of content.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Seconds since 1970 of the last change.
    pub modified_second: i64,
    /// User and group.
    pub owner: (u32, u32),
}

/// The header of a directory.
pub fn directory_header(directory: &ScannedDirectory) -> io::Result<Vec<u8>> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_mode(directory.mode);
    header.set_size(0);
    blocks(&mut header, &directory.path)
}

/// The header of a file.
pub fn file_header(path: &RelativePath, file: FileHeader) -> io::Result<Vec<u8>> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_size(file.size);
    header.set_mode(file.mode);
    header.set_mtime(u64::try_from(file.modified_second).unwrap_or(0));
    header.set_uid(file.owner.0.into());
    header.set_gid(file.owner.1.into());
    blocks(&mut header, path)
}

/// The zeros behind a file of this size.
pub fn padding(size: u64) -> &'static [u8] {
    let block = TAR_BLOCK as u64;
    let missing = (block - size % block) % block;
    usize::try_from(missing).ok().and_then(|missing| END.get(..missing)).unwrap_or_default()
}

/// The header as it stands in the tar; a long path takes several blocks.
fn blocks(header: &mut tar::Header, path: &RelativePath) -> io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    // Without the content, which is written past the builder.
    tar.append_data(header, path_in_tar(path), io::empty())?;
    Ok(std::mem::take(tar.get_mut()))
}

fn path_in_tar(path: &RelativePath) -> PathBuf {
    let inner = path.in_tablespace().map(|(_, rest)| rest);
    OsStr::from_bytes(inner.as_ref().unwrap_or(path).as_bytes()).into()
}
