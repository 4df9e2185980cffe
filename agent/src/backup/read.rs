//! Reads one file of a running cluster, as `pg_basebackup` does.
//!
//! Invariants: a reader yields exactly the size that the file had when it was opened. If it
//! shrinks meanwhile, zeros stand for the rest; if it grows, the growth is left out: replay
//! mends both. The hashes are over what was yielded. What is read is read to where it is compressed
//! from, and not copied. Files are read, never mapped: a mapped
//! file that shrinks ends the process.
//!
//! Pages of relations are checked on the way. PostgreSQL may be writing a page while it is
//! read, so a bad one is read again before it is believed; what is yielded is what was read
//! last.
//!
//! The page cache is left as it was found, as far as that can be told: [`super::page_cache`].

use super::page_cache::Footprint;
use super::progress::Progress;
use crate::fs::read_up_to;
use crate::rate::RateLimit;
use std::fs::{File, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use wald_core::data_file::RelationFile;
use wald_core::data_page::{PAGE_BYTES, Page, PageVerdict};
use wald_core::page_check::{PageFindings, PageRules};

/// Bytes that are read at once: whole pages, and so few that they are still near to the processor
/// when they are checked and hashed.
const BLOCK_BYTES: usize = 32 * PAGE_BYTES;
/// How often a bad page is read again before it is believed (a test's writer may have to wait for a processor),
const REREADS: u32 = if cfg!(test) { 100 } else { 5 };
/// and how long to wait each time for a write to end.
const REREAD_DELAY: Duration = Duration::from_millis(20);
/// After so many bad pages a file is known to be damaged; the rest is not waited for.
const PATIENT_UNTIL: usize = 16;

/// What was yielded.
#[derive(Clone, Debug)]
pub struct FileSums {
    /// BLAKE3 of the bytes.
    pub blake3: blake3::Hash,
    /// CRC-32C of the bytes, for PostgreSQL's manifest.
    pub crc32c: u32,
    /// What the pages looked like.
    pub pages: PageFindings,
}

struct PageCheck {
    relation: RelationFile,
    rules: PageRules,
    findings: PageFindings,
}

/// What all files of a backup are read under.
#[derive(Clone, Debug)]
pub struct ReadContext {
    /// How to check pages; none where the cluster has no checksums.
    pub page_rules: Option<PageRules>,
    /// How much may be read in a second.
    pub rate: Arc<RateLimit>,
    /// Counters to bump.
    pub progress: Arc<Progress>,
    /// Given up.
    pub cancel: CancellationToken,
}

/// One open file.
pub struct FileReader<'a> {
    file: File,
    metadata: Metadata,
    size: u64,
    position: u64,
    shrunk: bool,
    blake3: blake3::Hasher,
    crc32c: u32,
    check: Option<PageCheck>,
    footprint: Footprint,
    context: &'a ReadContext,
}

impl<'a> FileReader<'a> {
    /// Opens a file and fixes its size; `None` if it vanished since it was listed. Pages are
    /// checked where it is a `relation` and the cluster has checksums.
    pub fn open(
        path: &Path,
        relation: Option<RelationFile>,
        context: &'a ReadContext,
    ) -> io::Result<Option<Self>> {
        let file = match File::open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let metadata = file.metadata()?;
        let check = relation.zip(context.page_rules).map(|(relation, rules)| PageCheck {
            relation,
            rules,
            findings: PageFindings::default(),
        });
        let footprint = Footprint::new(&file, metadata.len());
        Ok(Some(Self {
            file,
            size: metadata.len(),
            metadata,
            position: 0,
            shrunk: false,
            blake3: blake3::Hasher::new(),
            crc32c: 0,
            check,
            footprint,
            context,
        }))
    }

    /// How many bytes are yielded.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Permission bits.
    pub fn mode(&self) -> u32 {
        self.metadata.mode() & 0o7777
    }

    /// Seconds since 1970 of the last change.
    pub fn modified_second(&self) -> i64 {
        self.metadata.mtime()
    }

    /// Owner and group.
    pub fn owner(&self) -> (u32, u32) {
        (self.metadata.uid(), self.metadata.gid())
    }

    /// The sums, after everything was read.
    pub fn finish(self) -> FileSums {
        FileSums {
            blake3: self.blake3.finalize(),
            crc32c: self.crc32c,
            pages: self.check.map(|check| check.findings).unwrap_or_default(),
        }
    }

    /// How many bytes to take next where there is room for `room`: whole pages until the file's
    /// end; none at its end, and none where there is no room for a page.
    pub fn block_bytes(&self, room: usize) -> usize {
        let left = usize::try_from(self.size - self.position).unwrap_or(usize::MAX);
        let block = left.min(room).min(BLOCK_BYTES);
        if block == left { block } else { block - block % PAGE_BYTES }
    }

    /// Whether everything was taken.
    pub fn is_at_end(&self) -> bool {
        self.position == self.size
    }

    /// Fills `window`, which has the size of [`FileReader::block_bytes`], with the next bytes.
    pub fn fill(&mut self, window: &mut [u8]) -> io::Result<()> {
        let ReadContext { rate, progress, cancel, .. } = self.context;
        if cancel.is_cancelled() {
            return Err(io::Error::other("the backup was cancelled"));
        }
        let want = window.len();
        let advanced = u64::try_from(want).unwrap_or(u64::MAX);
        let behind = self.position.saturating_add(advanced);
        rate.wait(advanced, || cancel.is_cancelled());
        let read = if self.shrunk { 0 } else { read_up_to(&self.file, window, self.position)? };
        self.footprint.read_until(&self.file, behind, self.size);
        let (there, missing) = window.split_at_mut_checked(read).unwrap_or_default();
        if let Some(check) = &mut self.check {
            check.pages(&self.file, there, self.position)?;
        }
        missing.fill(0);
        self.shrunk |= read < want;
        self.blake3.update(window);
        self.crc32c = crc32c::crc32c_append(self.crc32c, window);
        self.position = behind;
        progress.read(advanced);
        Ok(())
    }
}

impl PageCheck {
    /// Checks the whole pages at the beginning of `bytes`, which stand at `offset` in the
    /// file, a multiple of the page size.
    fn pages(&mut self, file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let (pages, _partial) = bytes.as_chunks_mut::<PAGE_BYTES>();
        let page_bytes = PAGE_BYTES as u64;
        for (page, number) in pages.iter_mut().zip(offset / page_bytes..) {
            let Ok(index) = u32::try_from(number) else { return Ok(()) };
            let Some(verdict) = self.settle(file, page, index)? else { return Ok(()) };
            self.findings.note(index, verdict);
        }
        Ok(())
    }

    /// Judges a page; a bad one is read again until it is not or patience ends.
    fn settle(&self, file: &File, page: &mut Page, index: u32) -> io::Result<Option<PageVerdict>> {
        let mut verdict = self.rules.judge(page, self.relation, index);
        let patient = self.findings.bad.len() < PATIENT_UNTIL;
        for _ in 0..REREADS {
            if !patient || !matches!(verdict, Some(PageVerdict::Bad(_))) {
                break;
            }
            std::thread::sleep(REREAD_DELAY);
            if read_up_to(file, page, u64::from(index) * PAGE_BYTES as u64)? < PAGE_BYTES {
                // The file was truncated here; replay truncates it again.
                page.fill(0);
            }
            verdict = self.rules.judge(page, self.relation, index);
        }
        Ok(verdict)
    }
}

#[cfg(test)]
mod tests;
