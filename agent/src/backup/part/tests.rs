//! Tests of a backup's parts: tars that stock tools read.

use super::super::chunks::CHUNK_BYTES;
use super::super::frames::FRAME_BYTES;
use super::super::progress::Progress;
use super::*;
use crate::rate::RateLimit;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

fn context() -> ReadContext {
    ReadContext {
        page_rules: None,
        rate: Arc::new(RateLimit::new(None)),
        progress: Progress::new(),
        cancel: CancellationToken::new(),
    }
}

fn buffers() -> FrameBuffers {
    FrameBuffers::new(1).unwrap()
}

fn path(text: &str) -> RelativePath {
    RelativePath::new(text).unwrap()
}

fn scanned(directory: &Path, name: &str, tablespace: Option<u32>, content: &[u8]) -> ScannedFile {
    let disk = directory.join(name.replace('/', "_"));
    std::fs::write(&disk, content).unwrap();
    ScannedFile { path: path(name), disk, tablespace, size: content.len() as u64 }
}

/// Runs `make_part` on a thread of its own, as the workers do, and collects the chunks.
fn make_all(plan: PartPlan, given: Vec<GivenFile>) -> (FinishedPart, Vec<u8>, usize) {
    let (chunks, mut queue) = mpsc::channel(2);
    let pool = ChunkPool::new(2);
    let make = move || make_part(plan, given, &context(), &mut buffers(), &pool, chunks);
    let worker = std::thread::spawn(make);
    let (mut stored, mut count) = (Vec::new(), 0);
    while let Some(chunk) = queue.blocking_recv() {
        stored.extend_from_slice(&chunk.into_bytes());
        count += 1;
    }
    (worker.join().unwrap().unwrap(), stored, count)
}

fn entries(stored: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
    let mut archive = tar::Archive::new(zstd::stream::Decoder::new(stored).unwrap());
    archive
        .entries()
        .unwrap()
        .map(|entry| {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().display().to_string();
            let mode = entry.header().mode().unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            (name, mode, content)
        })
        .collect()
}

#[test]
fn a_part_is_a_tar_that_stock_tools_read() {
    let directory = tempfile::tempdir().unwrap();
    let long = format!("base/5/{}", "n".repeat(150));
    let gone = ScannedFile {
        path: path("base/5/gone"),
        disk: directory.path().join("gone"),
        tablespace: None,
        size: 5,
    };
    let plan = PartPlan {
        name: "base-0001.tar.zst".to_owned(),
        tablespace: None,
        directories: vec![ScannedDirectory { path: path("pg_wal"), tablespace: None, mode: 0o700 }],
        files: vec![
            scanned(directory.path(), "base/5/1259", None, &[3; 20_000]),
            gone,
            scanned(directory.path(), &long, None, b"long"),
        ],
    };
    let given = GivenFile {
        path: path("backup_label"),
        content: b"START".to_vec(),
        mode: 0o600,
        modified_second: 1_700_000_000,
    };
    let (finished, stored, _) = make_all(plan, vec![given]);

    let found = entries(&stored);
    let names: Vec<_> = found.iter().map(|(name, ..)| name.as_str()).collect();
    assert_eq!(names, ["pg_wal", "base/5/1259", long.as_str(), "backup_label"]);
    assert_eq!(found[0].1, 0o700);
    assert_eq!((found[3].1, found[3].2.as_slice()), (0o600, &b"START"[..]));

    assert_eq!(finished.part.files, 3);
    assert_eq!(finished.part.raw_bytes, 20_009);
    assert_eq!(finished.part.stored_bytes, stored.len() as u64);
    assert_eq!(finished.part.blake3.to_string(), blake3::hash(&stored).to_string());
    for (file, (_, _, content)) in finished.files.iter().zip(&found[1..]) {
        assert_eq!(file.blake3, blake3::hash(content));
        assert_eq!(file.crc32c, crc32c::crc32c(content));
    }
}

#[test]
fn the_paths_of_a_tablespace_are_relative_to_it() {
    let directory = tempfile::tempdir().unwrap();
    let plan = PartPlan {
        name: "7-0001.tar.zst".to_owned(),
        tablespace: Some(7),
        directories: vec![ScannedDirectory {
            path: path("pg_tblspc/7/PG_15_202209061"),
            tablespace: Some(7),
            mode: 0o700,
        }],
        files: vec![scanned(directory.path(), "pg_tblspc/7/PG_15_202209061/5/1", Some(7), b"x")],
    };
    let (finished, stored, _) = make_all(plan, Vec::new());
    let names: Vec<_> = entries(&stored).into_iter().map(|(name, ..)| name).collect();
    assert_eq!(names, ["PG_15_202209061", "PG_15_202209061/5/1"]);
    assert_eq!(finished.files[0].path.to_string(), "pg_tblspc/7/PG_15_202209061/5/1");
}

/// Bytes that zstd can't shorten.
fn noise(bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    noise
}

#[test]
fn a_large_part_comes_in_bounded_chunks() {
    let directory = tempfile::tempdir().unwrap();
    let file = scanned(directory.path(), "base/5/1", None, &noise(20 << 20));
    let plan = PartPlan { name: "base-0001.tar.zst".to_owned(), files: vec![file], ..PartPlan::default() };
    let (finished, stored, chunks) = make_all(plan, Vec::new());
    assert_eq!(chunks, stored.len().div_ceil(CHUNK_BYTES));
    assert_eq!(finished.part.stored_bytes, stored.len() as u64);
}

#[test]
fn the_frames_that_hold_a_file_are_a_tar_of_their_own() {
    let directory = tempfile::tempdir().unwrap();
    let large = |name: &str, bytes| scanned(directory.path(), name, None, &noise(bytes));
    let mut files = vec![large("base/5/1", FRAME_BYTES * 2 + 777), large("base/5/2", 1 << 20)];
    // Together more than a frame that is shared.
    files.extend((10..40).map(|number| large(&format!("base/5/{number}"), 100_000 + number)));
    let plan = PartPlan {
        name: "base-0001.tar.zst".to_owned(),
        directories: vec![ScannedDirectory { path: path("base/5"), tablespace: None, mode: 0o700 }],
        files,
        ..PartPlan::default()
    };
    let (finished, stored, _) = make_all(plan, Vec::new());
    let whole = entries(&stored);
    assert_eq!(whole.len(), 33);
    let mut frames = std::collections::BTreeSet::new();
    for (file, (name, _, content)) in finished.files.iter().zip(&whole[1..]) {
        let at = file.at.unwrap();
        let piece = &stored[usize::try_from(at.offset()).unwrap()..usize::try_from(at.end()).unwrap()];
        let found = entries(piece);
        assert!(found.iter().any(|(found, _, bytes)| found == name && bytes == content), "{name}");
        // Large files stand alone.
        assert!(file.size < OWN_FRAME_BYTES || found.len() == 1, "{name}");
        frames.insert(at);
    }
    assert!((4..8).contains(&frames.len()), "{frames:?}");
    assert!(frames.iter().all(|at| at.end() <= finished.part.stored_bytes));
}

#[test]
fn an_upload_that_ends_stops_its_worker() {
    let directory = tempfile::tempdir().unwrap();
    let file = scanned(directory.path(), "base/5/1", None, &noise(20 << 20));
    let plan = PartPlan { name: "base-0001.tar.zst".to_owned(), files: vec![file], ..PartPlan::default() };
    let (chunks, queue) = mpsc::channel(2);
    drop(queue);
    let result = make_part(plan, Vec::new(), &context(), &mut buffers(), &ChunkPool::new(2), chunks);
    assert!(matches!(result, Err(PartError::GivenUp)), "{result:?}");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let disk = directory.path().join("is-a-directory");
    std::fs::create_dir(&disk).unwrap();
    let file = ScannedFile { path: path("base/5/1"), disk, tablespace: None, size: 10 };
    let plan = PartPlan { name: "base-0001.tar.zst".to_owned(), files: vec![file], ..PartPlan::default() };
    let (chunks, _queue) = mpsc::channel(2);
    let error =
        make_part(plan, Vec::new(), &context(), &mut buffers(), &ChunkPool::new(2), chunks).unwrap_err();
    assert!(error.to_string().contains("is-a-directory"), "{error}");
}
