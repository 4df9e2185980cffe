//! The pages of one file of a relation, judged one after the other as they pass.
//!
//! A base backup judges them when it reads them from a running cluster, and may look again: it
//! uses [`PageRules::judge`] page by page. Whoever has the stored file uses [`PageChecker`].
//! A page that is cut off by the end of the file is not judged: PostgreSQL doesn't read it
//! either, and replay writes it anew.

use crate::data_file::RelationFile;
use crate::data_page::{PAGE_BYTES, Page, PageDamage, PageVerdict, check_header, check_page};
use crate::lsn::Lsn;

/// What a cluster's pages carry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageChecksums {
    /// `initdb --data-checksums`, or `pg_checksums --enable` before the backup.
    On,
    /// Only what a header must look like can be checked.
    Off,
}

/// What pages are held against.
#[derive(Clone, Copy, Debug)]
pub struct PageRules {
    /// Where the backup began: what changed since may be torn, and replay restores it.
    pub start: Lsn,
    /// Where the backup ended, once it has: no page can have been changed after that.
    pub stop: Option<Lsn>,
    /// `pg_control`'s blocks per segment of a relation.
    pub blocks_per_segment: u32,
    /// Whether pages have checksums.
    pub checksums: PageChecksums,
}

impl PageRules {
    /// Judges the page at `index` in a file; `None` past the last page that a relation can have.
    pub fn judge(&self, page: &Page, relation: RelationFile, index: u32) -> Option<PageVerdict> {
        let block = relation.block_number(index, self.blocks_per_segment)?;
        let verdict = match self.checksums {
            PageChecksums::On => check_page(page, block, self.start),
            PageChecksums::Off => check_header(page, self.start),
        };
        Some(match (verdict, self.stop) {
            (PageVerdict::Newer(changed), Some(stop)) if changed > stop => {
                PageVerdict::Bad(PageDamage::Ahead { changed, stop })
            }
            _ => verdict,
        })
    }
}

/// What the pages of one file looked like.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PageFindings {
    /// Bad pages, by their number in the file; at most as many as a file has.
    pub bad: Vec<(u32, PageDamage)>,
    /// The page changed last since the start of the backup, with its position.
    pub newest: Option<(Lsn, u32)>,
}

impl PageFindings {
    /// Notes what was thought of the page at `index`.
    pub fn note(&mut self, index: u32, verdict: PageVerdict) {
        match verdict {
            PageVerdict::Sound | PageVerdict::New => {}
            PageVerdict::Newer(lsn) => {
                if self.newest.is_none_or(|(newest, _)| lsn > newest) {
                    self.newest = Some((lsn, index));
                }
            }
            PageVerdict::Bad(damage) => self.bad.push((index, damage)),
        }
    }
}

/// Judges the pages of one stored file, which is fed from its beginning in pieces of any size.
#[derive(Debug)]
pub struct PageChecker {
    relation: RelationFile,
    rules: PageRules,
    findings: PageFindings,
    /// The page's number in the file; `None` past the last that a file can have.
    index: Option<u32>,
    /// The beginning of a page of which the rest is still to come.
    pending: Box<Page>,
    filled: usize,
}

impl PageChecker {
    /// A file of which nothing was fed.
    pub fn new(relation: RelationFile, rules: PageRules) -> Self {
        let pending = Box::new([0; PAGE_BYTES]);
        Self { relation, rules, findings: PageFindings::default(), index: Some(0), pending, filled: 0 }
    }

    /// Judges the next bytes of the file.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        if self.filled > 0 {
            bytes = self.fill(bytes);
            if self.filled < PAGE_BYTES {
                return;
            }
            self.filled = 0;
            let page = *self.pending;
            self.page(&page);
        }
        let (pages, rest) = bytes.as_chunks::<PAGE_BYTES>();
        for page in pages {
            self.page(page);
        }
        self.fill(rest);
    }

    /// Everything that was found.
    pub fn finish(self) -> PageFindings {
        self.findings
    }

    /// Takes up to the end of the pending page; returns the bytes behind it.
    fn fill<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let free = self.pending.get_mut(self.filled..).unwrap_or_default();
        let (here, rest) = bytes.split_at(bytes.len().min(free.len()));
        for (to, from) in free.iter_mut().zip(here) {
            *to = *from;
        }
        self.filled += here.len();
        rest
    }

    fn page(&mut self, page: &Page) {
        let Some(index) = self.index else { return };
        if let Some(verdict) = self.rules.judge(page, self.relation, index) {
            self.findings.note(index, verdict);
        }
        self.index = index.checked_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data_file::BLOCKS_PER_SEGMENT_DEFAULT;
    use crate::data_page::page_checksum;
    use proptest::prelude::*;

    const START: u64 = 0x500_0000;
    const STOP: u64 = 0x600_0000;

    fn rules(checksums: PageChecksums) -> PageRules {
        PageRules {
            start: Lsn::new(START).unwrap(),
            stop: Lsn::new(STOP),
            blocks_per_segment: BLOCKS_PER_SEGMENT_DEFAULT,
            checksums,
        }
    }

    /// A valid page, last changed at `lsn`.
    fn page(block: u32, lsn: u64) -> Page {
        let mut page = [0; PAGE_BYTES];
        page[4..8].copy_from_slice(&u32::try_from(lsn).unwrap().to_le_bytes());
        page[12..14].copy_from_slice(&40u16.to_le_bytes());
        page[14..16].copy_from_slice(&4000u16.to_le_bytes());
        page[16..18].copy_from_slice(&8192u16.to_le_bytes());
        page[18..20].copy_from_slice(&(8192u16 | 4).to_le_bytes());
        page[4000..].fill(7);
        let sum = page_checksum(&page, block);
        page[8..10].copy_from_slice(&sum.to_le_bytes());
        page
    }

    fn check(name: &str, checksums: PageChecksums, file: &[u8], piece: usize) -> PageFindings {
        let mut checker = PageChecker::new(RelationFile::parse(name).unwrap(), rules(checksums));
        file.chunks(piece.max(1)).for_each(|piece| checker.feed(piece));
        checker.finish()
    }

    /// Sound, new, newer, torn and newer, ahead, damaged, and half a page.
    fn mixed() -> Vec<u8> {
        let mut torn = page(3, START);
        torn[5000] ^= 1;
        let mut damaged = page(5, 8);
        damaged[5000] ^= 1;
        let pages = [page(0, 8), [0; PAGE_BYTES], page(2, STOP), torn, page(4, STOP + 8), damaged];
        [pages.concat().as_slice(), &[1; 4096]].concat()
    }

    #[test]
    fn each_page_is_judged_by_its_place_and_by_when_it_was_changed() {
        let stop = Lsn::new(STOP).unwrap();
        let ahead = PageDamage::Ahead { changed: Lsn::new(STOP + 8).unwrap(), stop };
        let found = check("base/5/16384", PageChecksums::On, &mixed(), 100_000);
        assert_eq!(found.newest, Some((stop, 2)));
        assert_eq!(found.bad.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [4, 5]);
        assert_eq!(found.bad[0].1, ahead);
        assert!(matches!(found.bad[1].1, PageDamage::Checksum { .. }));
        assert_eq!(ahead.to_string(), "it was changed at 0/6000008, past the end of the backup at 0/6000000");
        let found = check("base/5/16384", PageChecksums::Off, &mixed(), 100_000);
        assert_eq!(found.bad, [(4, ahead)]);
        // The second file of a relation goes on counting.
        let second = page(BLOCKS_PER_SEGMENT_DEFAULT, 8);
        assert_eq!(check("base/5/16384.1", PageChecksums::On, &second, 8192), PageFindings::default());
        assert_eq!(check("base/5/16384", PageChecksums::On, &second, 8192).bad.len(), 1);
    }

    #[test]
    fn pages_past_the_last_block_number_are_no_pages() {
        let found = check("base/5/16384.40000", PageChecksums::On, &mixed(), 8192);
        assert_eq!(found, PageFindings::default());
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_are_judged_alike(piece in 1usize..30_000) {
            let whole = check("base/5/16384", PageChecksums::On, &mixed(), usize::MAX);
            prop_assert_eq!(check("base/5/16384", PageChecksums::On, &mixed(), piece), whole);
        }

        #[test]
        fn any_bytes_are_judged_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..40_000), piece in 1usize..9000, on: bool) {
            let checksums = if on { PageChecksums::On } else { PageChecksums::Off };
            let found = check("base/5/16384_vm.3", checksums, &bytes, piece);
            prop_assert!(found.bad.len() <= bytes.len() / PAGE_BYTES);
        }
    }
}
