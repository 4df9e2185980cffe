//! Tests of reading data files while they change, and of their pages' checksums.

use super::*;
use proptest::prelude::*;
use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::PathBuf;
use tempfile::TempDir;
use wald_core::data_file::BLOCKS_PER_SEGMENT_DEFAULT;
use wald_core::data_page::page_checksum;
use wald_core::lsn::Lsn;
use wald_core::page_check::PageChecksums;

fn start() -> Lsn {
    "0/5000000".parse().unwrap()
}

fn rules() -> PageRules {
    PageRules {
        start: start(),
        stop: None,
        blocks_per_segment: BLOCKS_PER_SEGMENT_DEFAULT,
        checksums: PageChecksums::On,
    }
}

/// A valid page with some content, last changed at `lsn`.
fn page(block: u32, lsn: u64, filler: u8) -> Page {
    let mut page = [0; PAGE_BYTES];
    page[0..4].copy_from_slice(&u32::try_from(lsn >> 32).unwrap().to_le_bytes());
    page[4..8].copy_from_slice(&u32::try_from(lsn & 0xFFFF_FFFF).unwrap().to_le_bytes());
    page[12..14].copy_from_slice(&40u16.to_le_bytes());
    page[14..16].copy_from_slice(&4000u16.to_le_bytes());
    page[16..18].copy_from_slice(&8192u16.to_le_bytes());
    page[18..20].copy_from_slice(&(8192u16 | 4).to_le_bytes());
    page[4000..].fill(filler);
    let sum = page_checksum(&page, block);
    page[8..10].copy_from_slice(&sum.to_le_bytes());
    page
}

struct Scene {
    _directory: TempDir,
    path: PathBuf,
    context: ReadContext,
}

impl Scene {
    fn new(content: &[u8]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("16384");
        fs::write(&path, content).unwrap();
        let (progress, cancel) = (Progress::new(), CancellationToken::new());
        let rate = Arc::new(RateLimit::new(None));
        let context = ReadContext { page_rules: Some(rules()), rate, progress, cancel };
        Self { _directory: directory, path, context }
    }

    fn open(&self, name: Option<&str>) -> Option<FileReader<'_>> {
        let relation = name.map(|name| RelationFile::parse(name).unwrap());
        FileReader::open(&self.path, relation, &self.context).unwrap()
    }
}

fn read_all(reader: FileReader<'_>) -> (Vec<u8>, FileSums) {
    read_all_in(reader, 1 << 20)
}

/// Reads with room for so many bytes at a time.
fn read_all_in(mut reader: FileReader<'_>, room: usize) -> (Vec<u8>, FileSums) {
    let mut content = Vec::new();
    while !reader.is_at_end() {
        let bytes = reader.block_bytes(room);
        assert!(bytes > 0 && bytes <= room);
        // What stood there before must not come through.
        let mut window = vec![0xEE; bytes];
        reader.fill(&mut window).unwrap();
        content.extend_from_slice(&window);
    }
    assert_eq!((reader.block_bytes(room), content.len() as u64), (0, reader.size()));
    let sums = reader.finish();
    assert_eq!(sums.blake3, blake3::hash(&content));
    assert_eq!(sums.crc32c, crc32c::crc32c(&content));
    (content, sums)
}

fn write_at(path: &Path, offset: u64, bytes: &[u8]) {
    let mut file = fs::File::options().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(offset)).unwrap();
    file.write_all(bytes).unwrap();
}

#[test]
fn a_file_that_has_vanished_is_no_error() {
    let scene = Scene::new(b"x");
    fs::remove_file(&scene.path).unwrap();
    assert!(scene.open(None).is_none());
}

#[test]
fn a_file_that_shrinks_is_filled_up_with_zeros() {
    let scene = Scene::new(&[7; 2_000_000]);
    let path = scene.path.clone();
    let reader = scene.open(Some("base/5/16384")).unwrap();
    fs::File::options().write(true).open(path).unwrap().set_len(1_000_000).unwrap();
    let (content, _) = read_all(reader);
    assert_eq!(content.len(), 2_000_000);
    assert!(content[..1_000_000].iter().all(|byte| *byte == 7));
    assert!(content[1_000_000..].iter().all(|byte| *byte == 0));
}

#[test]
fn what_a_file_grows_by_is_left_out() {
    let scene = Scene::new(b"before");
    let path = scene.path.clone();
    let reader = scene.open(None).unwrap();
    write_at(&path, 6, b" and after");
    assert_eq!(read_all(reader).0, b"before");
}

#[test]
fn a_page_that_is_being_written_is_read_again() {
    let good = page(1, 1000, 9);
    let mut content = [page(0, 1000, 1), good].concat();
    content[PAGE_BYTES + 5000] ^= 1;
    let scene = Scene::new(&content);
    let path = scene.path.clone();
    let reader = scene.open(Some("base/5/16384")).unwrap();
    let writer = std::thread::spawn(move || {
        std::thread::sleep(REREAD_DELAY);
        write_at(&path, 8192, &good);
    });
    let (content, sums) = read_all(reader);
    writer.join().unwrap();
    assert_eq!(sums.pages, PageFindings::default());
    assert_eq!(content[PAGE_BYTES..], good);
}

#[test]
fn a_bad_page_beyond_a_new_end_is_zeros() {
    let mut content = [page(0, 1000, 1), page(1, 1000, 2)].concat();
    content[PAGE_BYTES + 5000] ^= 1;
    let scene = Scene::new(&content);
    let path = scene.path.clone();
    let reader = scene.open(Some("base/5/16384")).unwrap();
    let writer = std::thread::spawn(move || {
        std::thread::sleep(REREAD_DELAY);
        fs::File::options().write(true).open(path).unwrap().set_len(8192).unwrap();
    });
    let (content, sums) = read_all(reader);
    writer.join().unwrap();
    assert_eq!(sums.pages, PageFindings::default());
    assert!(content.len() == 2 * PAGE_BYTES && content[PAGE_BYTES..].iter().all(|byte| *byte == 0));
}

#[test]
fn pages_that_stay_bad_and_the_newest_are_reported() {
    let in_third = |index: u32| 2 * 131_072 + index;
    let mut content: Vec<u8> = (0..100).flat_map(|index| page(in_third(index), 1000, 1)).collect();
    content[70 * PAGE_BYTES + 300] ^= 1;
    let newer = start().get() + 77;
    content[80 * PAGE_BYTES..81 * PAGE_BYTES].copy_from_slice(&page(0, newer, 1));
    content[90 * PAGE_BYTES..91 * PAGE_BYTES].copy_from_slice(&page(0, newer - 1, 1));
    content.extend_from_slice(b"a piece of a page");
    let scene = Scene::new(&content);
    let (_, sums) = read_all(scene.open(Some("base/5/16384.2")).unwrap());
    let blocks: Vec<u32> = sums.pages.bad.iter().map(|(block, _)| *block).collect();
    assert_eq!(blocks, [70]);
    assert_eq!(sums.pages.newest, Some((Lsn::new(newer).unwrap(), 80)));
}

#[test]
fn files_that_are_no_relations_have_no_pages() {
    let scene = Scene::new(&[1; 3 * PAGE_BYTES]);
    let (_, sums) = read_all(scene.open(None).unwrap());
    assert_eq!(sums.pages, PageFindings::default());
    assert_eq!(scene.context.progress.snapshot().bytes_done, 3 * 8192);
}

#[test]
fn what_is_read_in_a_second_has_a_limit() {
    let mut scene = Scene::new(&[1; 3 * BLOCK_BYTES]);
    scene.context.rate = Arc::new(RateLimit::new(Some(10 * BLOCK_BYTES as u64)));
    let began = std::time::Instant::now();
    read_all(scene.open(None).unwrap());
    assert!(began.elapsed() >= Duration::from_millis(300), "{:?}", began.elapsed());
}

#[test]
fn a_cancelled_backup_reads_no_further() {
    let scene = Scene::new(&[1; 100]);
    scene.context.cancel.cancel();
    assert!(scene.open(None).unwrap().fill(&mut [0; 10]).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn a_file_comes_out_as_it_is(size in 0usize..1_200_000, room in PAGE_BYTES..1_000_000) {
        let content: Vec<u8> = (0..size).map(|i| u8::try_from(i % 251).unwrap()).collect();
        let scene = Scene::new(&content);
        let (out, _) = read_all_in(scene.open(None).unwrap(), room);
        prop_assert!(out == content);
    }
}
