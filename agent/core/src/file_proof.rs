//! One file of a base backup, proven as it streams out of its part: its length and BLAKE3 for the
//! file list, and its pages if it is a relation.
//!
//! Only a page's worth of the file is kept in memory.
//!
//! ```
//! use std::io::Read;
//! use wald_core::data_file::BLOCKS_PER_SEGMENT_DEFAULT;
//! use wald_core::file_proof::{FileProof, FileSums, part_path};
//! use wald_core::page_check::{PageChecksums, PageRules};
//!
//! fn prove(mut file: impl Read, path: &str, rules: PageRules) -> std::io::Result<FileSums> {
//!     let mut proof = FileProof::new(path, Some(rules));
//!     let mut buffer = vec![0; 64 << 10];
//!     loop {
//!         match file.read(&mut buffer)? {
//!             0 => return Ok(proof.finish()),
//!             read => proof.feed(buffer.get(..read).unwrap_or_default()),
//!         }
//!     }
//! }
//!
//! let rules = PageRules {
//!     start: "0/2000028".parse()?,
//!     stop: Some("0/2000100".parse()?),
//!     blocks_per_segment: BLOCKS_PER_SEGMENT_DEFAULT,
//!     checksums: PageChecksums::On,
//! };
//! let sums = prove(&[0; 8192][..], &part_path(None, "base/5/16384"), rules)?;
//! assert_eq!(sums.bytes, 8192);
//! assert!(sums.pages.bad.is_empty(), "a page of zeros is new");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! With the `tar` crate, for the decompressed bytes of one part:
//!
//! ```ignore
//! let mut archive = tar::Archive::new(decompressed);
//! for entry in archive.entries()? {
//!     let mut entry = entry?;
//!     if entry.header().entry_type().is_file() {
//!         let path = part_path(part.tablespace, &String::from_utf8_lossy(&entry.path_bytes()));
//!         let sums = prove(&mut entry, &path, rules)?;
//!         // Held against the listed file of that path: size, hash; then `sums.pages.bad` against
//!         // the entry's `bad_pages`, which were bad in the cluster itself.
//!     }
//! }
//! ```

use crate::blake3_hex::Blake3Hex;
use crate::data_file::RelationFile;
use crate::page_check::{PageChecker, PageFindings, PageRules};

/// The path, relative to the data directory, of what a part calls `path`: parts of a tablespace
/// are relative to that.
pub fn part_path(tablespace: Option<u32>, path: &str) -> String {
    let path = path.strip_prefix("./").unwrap_or(path);
    match tablespace {
        None => path.to_owned(),
        Some(oid) => format!("pg_tblspc/{oid}/{path}"),
    }
}

/// A file that is being read.
#[derive(Debug)]
pub struct FileProof {
    hasher: blake3::Hasher,
    bytes: u64,
    pages: Option<PageChecker>,
}

/// What a whole file was.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileSums {
    /// Its length.
    pub bytes: u64,
    /// The hash of its content.
    pub blake3: Blake3Hex,
    /// What its pages looked like; nothing, if it has none.
    pub pages: PageFindings,
}

impl FileProof {
    /// Begins the file at `path`, relative to the data directory. Its pages are judged where it
    /// is a relation and `rules` are given.
    pub fn new(path: &str, rules: Option<PageRules>) -> Self {
        let pages = RelationFile::parse(path).zip(rules).map(|(file, rules)| PageChecker::new(file, rules));
        Self { hasher: blake3::Hasher::new(), bytes: 0, pages }
    }

    /// Takes the next bytes of the file.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.bytes = self.bytes.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        if let Some(pages) = &mut self.pages {
            pages.feed(bytes);
        }
    }

    /// Ends the file.
    pub fn finish(self) -> FileSums {
        FileSums {
            bytes: self.bytes,
            blake3: self.hasher.finalize().into(),
            pages: self.pages.map(PageChecker::finish).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page_check::PageChecksums;

    fn sums(path: &str, content: &[u8]) -> FileSums {
        let rules = PageRules {
            start: "0/2000028".parse().unwrap(),
            stop: "0/2000100".parse().ok(),
            blocks_per_segment: 131_072,
            checksums: PageChecksums::Off,
        };
        let mut proof = FileProof::new(path, Some(rules));
        content.chunks(1000).for_each(|piece| proof.feed(piece));
        proof.finish()
    }

    #[test]
    fn length_and_hash_are_those_of_the_whole_file() {
        let content = vec![3; 100_000];
        let found = sums("pg_xact/0000", &content);
        assert_eq!((found.bytes, found.blake3), (100_000, Blake3Hex::of(&content)));
        assert_eq!(sums("base/5/16384", b"").blake3, Blake3Hex::of(b""));
    }

    #[test]
    fn only_relations_have_pages() {
        let noise = vec![3; 16_384];
        assert_eq!(sums("pg_xact/0000", &noise).pages.bad.len(), 0);
        assert_eq!(sums(&part_path(None, "./base/5/16384"), &noise).pages.bad.len(), 2);
        let moved = part_path(Some(16_400), "PG_15_202209061/5/16401");
        assert_eq!(sums(&moved, &noise).pages.bad.len(), 2);
    }
}
