//! A page of a relation's file: its header and its checksum.
//!
//! Layout: `PageHeaderData` in PostgreSQL's `storage/bufpage.h`. Checksum: `pg_checksum_page`
//! in `storage/checksum_impl.h`, 32 parallel FNV-1a sums folded into 16 bits and mixed with the
//! block's number, so that a page in the wrong place is found too.
//!
//! A page is judged as of the *start* of a base backup: what changed since may be torn, and
//! replay brings it back whole from its full-page image.

use crate::little_endian::{u16_at, u32_at};
use crate::lsn::Lsn;

/// Bytes in a page. wald knows PostgreSQL's default only; a server built with another
/// `--with-blocksize` says so in `pg_control`.
pub const PAGE_BYTES: usize = 8192;

/// One page.
pub type Page = [u8; PAGE_BYTES];

const CHECKSUM: usize = 8;
const FLAGS: usize = 10;
const LOWER: usize = 12;
const UPPER: usize = 14;
const SPECIAL: usize = 16;
const SIZE_AND_VERSION: usize = 18;
const HEADER_BYTES: u16 = 24;
/// `PD_VALID_FLAG_BITS`
const FLAGS_VALID: u16 = 0x0007;
/// Page size and layout version 4 in one field, as since PostgreSQL 8.3.
const SIZE_AND_VERSION_VALID: u16 = 8192 | 4;

const SUMS: usize = 32;
const ROW_BYTES: usize = SUMS * 4;
const FNV_PRIME: u32 = 16_777_619;

/// `checksumBaseOffsets`
const BASE_OFFSETS: [u32; SUMS] = [
    0x5B1F_36E9,
    0xB852_5960,
    0x02AB_50AA,
    0x1DE6_6D2A,
    0x79FF_467A,
    0x9BB9_F8A3,
    0x217E_7CD2,
    0x83E1_3D2C,
    0xF8D4_474F,
    0xE39E_B970,
    0x42C6_AE16,
    0x9932_16FA,
    0x7B09_3B5D,
    0x98DA_FF3C,
    0xF718_902A,
    0x0B1C_9CDB,
    0xE58F_764B,
    0x1876_36BC,
    0x5D7B_3BB1,
    0xE73D_E7DE,
    0x92BE_C979,
    0xCCA6_C0B2,
    0x304A_0979,
    0x85AA_43D4,
    0x7831_25BB,
    0x6CA8_EAA2,
    0xE407_EAC6,
    0x4B5C_FC3E,
    0x9FBF_8C76,
    0x15CA_20BE,
    0xF2CA_9FD3,
    0x959B_D756,
];

/// What is to be thought of a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageVerdict {
    /// The checksum holds.
    Sound,
    /// Allocated and never written: all zeros, which is valid and has no checksum.
    New,
    /// Changed at or after the start of the backup: it may be torn, and replay restores it.
    /// A position past the *end* of the backup can't be, see [`check_page`].
    Newer(Lsn),
    /// Damaged, or torn by a write that goes on right now: read it again before believing it.
    Bad(PageDamage),
}

/// What is wrong with a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PageDamage {
    /// The content does not match its checksum.
    #[error("its checksum is {computed:04X}, the page says {stored:04X}")]
    Checksum {
        /// In the page.
        stored: u16,
        /// From its content.
        computed: u16,
    },
    /// Marked as never written, and yet not empty.
    #[error("its header is empty, its content is not")]
    NotEmpty,
    /// The header makes no sense: PostgreSQL refuses such a page, whatever its checksum.
    #[error("its header makes no sense")]
    Header,
    /// Changed after the last write that the backup can have seen.
    #[error("it was changed at {changed}, past the end of the backup at {stop}")]
    Ahead {
        /// The position in the page.
        changed: Lsn,
        /// The end of the backup.
        stop: Lsn,
    },
}

/// `PageGetLSN`: the position behind the last WAL record that changed the page; `None` where
/// it never was.
pub fn page_lsn(page: &Page) -> Option<Lsn> {
    let high = u32_at(page, 0)?;
    let low = u32_at(page, 4)?;
    Lsn::new(u64::from(high) << 32 | u64::from(low))
}

/// `PageIsNew`: the header says that nothing was ever written.
pub fn page_is_new(page: &Page) -> bool {
    u16_at(page, UPPER) == Some(0)
}

/// The page's checksum, for its place `block_number` in the relation's fork (counted across
/// the fork's files). The stored checksum itself is left out of the sum.
pub fn page_checksum(page: &Page, block_number: u32) -> u16 {
    let (rows, _) = page.as_chunks::<ROW_BYTES>();
    let mut sums = BASE_OFFSETS;
    if let Some((first, rest)) = rows.split_first() {
        let mut head = *first;
        if let Some(stored) = head.get_mut(CHECKSUM..CHECKSUM + 2) {
            stored.fill(0);
        }
        mix_row(&mut sums, &head);
        for row in rest {
            mix_row(&mut sums, row);
        }
    }
    // Two rounds of zeros let the last words reach every bit.
    mix_row(&mut sums, &[0; ROW_BYTES]);
    mix_row(&mut sums, &[0; ROW_BYTES]);
    let folded = sums.iter().fold(block_number, |sum, part| sum ^ part);
    // Never 0: that stands for "no checksum".
    u16::try_from(folded % 65_535 + 1).unwrap_or(u16::MAX)
}

/// `CHECKSUM_COMP` on 32 words at once; simple enough for the compiler to use vectors.
fn mix_row(sums: &mut [u32; SUMS], row: &[u8; ROW_BYTES]) {
    let (words, _) = row.as_chunks::<4>();
    for (sum, word) in sums.iter_mut().zip(words) {
        let mixed = *sum ^ u32::from_le_bytes(*word);
        *sum = mixed.wrapping_mul(FNV_PRIME) ^ (mixed >> 17);
    }
}

/// Judges one page of a cluster with data checksums, read during a backup that began at
/// `start`.
///
/// A damaged page can look newer than it is. Whoever knows where the backup ended must treat
/// a [`PageVerdict::Newer`] past that end as damage: WAL is flushed before the page it
/// describes is written, so no page is ahead of the log.
pub fn check_page(page: &Page, block_number: u32, start: Lsn) -> PageVerdict {
    if let Some(verdict) = new_or_newer(page, start) {
        return verdict;
    }
    let stored = u16_at(page, CHECKSUM).unwrap_or(0);
    let computed = page_checksum(page, block_number);
    if stored != computed {
        PageVerdict::Bad(PageDamage::Checksum { stored, computed })
    } else if !header_makes_sense(page) {
        PageVerdict::Bad(PageDamage::Header)
    } else {
        PageVerdict::Sound
    }
}

/// Judges one page of a cluster without data checksums: whether its header makes sense is all
/// that can be told. Otherwise as [`check_page`].
pub fn check_header(page: &Page, start: Lsn) -> PageVerdict {
    new_or_newer(page, start).unwrap_or(if header_makes_sense(page) {
        PageVerdict::Sound
    } else {
        PageVerdict::Bad(PageDamage::Header)
    })
}

/// The verdict on a page of which nothing more can be said.
fn new_or_newer(page: &Page, start: Lsn) -> Option<PageVerdict> {
    if page_is_new(page) {
        // As PostgreSQL's `PageIsVerified`: empty in the header means empty throughout.
        let empty = page.iter().all(|byte| *byte == 0);
        return Some(if empty { PageVerdict::New } else { PageVerdict::Bad(PageDamage::NotEmpty) });
    }
    page_lsn(page).filter(|lsn| *lsn >= start).map(PageVerdict::Newer)
}

/// The checks of `PageIsVerified`, and that the free space begins behind the header.
fn header_makes_sense(page: &Page) -> bool {
    let field = |offset| u16_at(page, offset).unwrap_or(u16::MAX);
    let (lower, upper, special) = (field(LOWER), field(UPPER), field(SPECIAL));
    field(FLAGS) & !FLAGS_VALID == 0
        && field(SIZE_AND_VERSION) == SIZE_AND_VERSION_VALID
        && HEADER_BYTES <= lower
        && lower <= upper
        && upper <= special
        && usize::from(special) <= PAGE_BYTES
        && special.is_multiple_of(8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Block 0 of an index of pg_class, made by PostgreSQL 15.18's initdb with
    /// --data-checksums: the bytes that are not 0.
    const REAL: [(usize, u8); 25] = [
        (4, 160),
        (5, 89),
        (6, 51),
        (7, 1),
        (8, 44),
        (9, 183),
        (12, 72),
        (14, 240),
        (15, 31),
        (16, 240),
        (17, 31),
        (18, 4),
        (19, 32),
        (24, 98),
        (25, 49),
        (26, 5),
        (28, 4),
        (32, 3),
        (36, 1),
        (40, 3),
        (44, 1),
        (62, 240),
        (63, 191),
        (64, 1),
        (8188, 8),
    ];

    fn real_page() -> Page {
        let mut page = [0; PAGE_BYTES];
        for (at, byte) in REAL {
            page[at] = byte;
        }
        page
    }

    fn late() -> Lsn {
        "F/0".parse().unwrap()
    }

    #[test]
    fn a_real_page_is_sound_in_its_place_only() {
        let page = real_page();
        assert_eq!(page_lsn(&page).unwrap().to_string(), "0/13359A0");
        assert_eq!(page_checksum(&page, 0), 0xB72C);
        assert_eq!(check_page(&page, 0, late()), PageVerdict::Sound);
        assert!(matches!(
            check_page(&page, 1, late()),
            PageVerdict::Bad(PageDamage::Checksum { stored: 0xB72C, .. })
        ));
    }

    #[test]
    fn a_page_changed_since_the_start_is_left_to_replay() {
        let page = real_page();
        let lsn = page_lsn(&page).unwrap();
        assert_eq!(check_page(&page, 7, lsn), PageVerdict::Newer(lsn));
    }

    #[test]
    fn zeros_are_a_new_page_and_zeros_with_something_behind_are_not() {
        let mut page = [0; PAGE_BYTES];
        assert_eq!(check_page(&page, 3, late()), PageVerdict::New);
        page[8000] = 1;
        assert_eq!(check_page(&page, 3, late()), PageVerdict::Bad(PageDamage::NotEmpty));
    }

    #[test]
    fn without_checksums_the_header_is_all_that_is_judged() {
        let mut page = real_page();
        page[8000] ^= 1;
        assert_eq!(check_header(&page, late()), PageVerdict::Sound);
        assert_eq!(check_header(&[0; PAGE_BYTES], late()), PageVerdict::New);
        let lsn = page_lsn(&page).unwrap();
        assert_eq!(check_header(&page, lsn), PageVerdict::Newer(lsn));
        for (at, value) in [(LOWER, 0x10), (LOWER + 1, 0x20), (SIZE_AND_VERSION, 3), (FLAGS, 8), (SPECIAL, 1)]
        {
            let mut page = page;
            page[at] = value;
            assert_eq!(check_header(&page, late()), PageVerdict::Bad(PageDamage::Header), "{at}");
        }
    }

    #[test]
    fn a_header_without_sense_is_bad_even_under_a_good_checksum() {
        let mut page = real_page();
        page[SPECIAL] = 0;
        let sum = page_checksum(&page, 0);
        page[CHECKSUM..CHECKSUM + 2].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(check_page(&page, 0, late()), PageVerdict::Bad(PageDamage::Header));
    }

    proptest! {
        #[test]
        fn a_flipped_bit_behind_the_position_is_found(at in 10usize..PAGE_BYTES, bit in 0u8..8) {
            let mut page = real_page();
            page[at] ^= 1 << bit;
            prop_assert!(matches!(check_page(&page, 0, late()), PageVerdict::Bad(_)));
        }

        #[test]
        fn any_bytes_are_judged_without_panic(bytes in prop::collection::vec(any::<u8>(), 64), block: u32, start in 1u64..) {
            let mut page = [0; PAGE_BYTES];
            page[..64].copy_from_slice(&bytes);
            check_page(&page, block, Lsn::new(start).unwrap());
        }
    }
}
