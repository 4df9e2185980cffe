//! The way without an agent, and what the tests of this module stand on.

use super::*;
use crate::codec::seal::{Effort, seal};
use crate::fs::place::Existing;
use crate::store::Store;
use crate::store::fault::Faults;
use std::fs;
use std::path::Path;
use wald_core::identity::Identity;
use wald_core::object_key::ObjectKey;
use wald_core::segment::SegmentSize;
use wald_core::system_id::SystemId;

pub(super) const SYSTEM: u64 = 7_711_064_753_221_121_848;
pub(super) const HISTORY: &[u8] = b"1\t0/1000000\tno recovery target specified\n";
pub(super) const SEGMENT_BYTES: u32 = 1 << 20;

/// A repository in memory with some objects, behind a script of faults.
pub(super) async fn repository_with(faults: &Faults, objects: &[(ObjectKey, Vec<u8>)]) -> Repository {
    let store = Store::memory();
    let (system, size) = (SystemId::new(SYSTEM).unwrap(), SegmentSize::new(SEGMENT_BYTES).unwrap());
    let identity = Identity::new(system, size, "2026-11-22T18:00:00Z".parse().unwrap(), "0.1.0");
    crate::repository::init(store.clone(), identity).await.unwrap();
    for (key, body) in objects {
        store.create(key, body.clone().into()).await.unwrap();
    }
    Repository::open(store.with_faults(faults)).await.unwrap()
}

/// The first segments of timeline 1, each filled with its number.
pub(super) fn segments(count: u8) -> Vec<(ObjectKey, Vec<u8>)> {
    let sealed = (1..=count).map(|number| {
        let file = segment(number);
        let raw = vec![number; usize::try_from(SEGMENT_BYTES).unwrap()];
        let sealed = seal(file, SystemId::new(SYSTEM).unwrap(), &raw, Effort::Level(1)).unwrap();
        (ObjectKey::wal(file), sealed.to_vec())
    });
    sealed.collect()
}

pub(super) fn segment(number: u8) -> WalFile {
    WalFile::parse(&format!("0000000100000000000000{number:02X}")).unwrap()
}

pub(super) fn options(dir: &Path) -> RestoreOptions {
    RestoreOptions {
        concurrency: 4,
        spool_dir: dir.join("spool"),
        spool_max_bytes: u64::from(SEGMENT_BYTES) * 8,
        patience: Duration::from_secs(30),
        standby_patience: Duration::from_secs(30),
    }
}

pub(super) fn restore(repository: Repository, dir: &Path) -> Restore {
    Restore::new(
        repository,
        Codec::start(crate::codec::Niceness::default()).unwrap(),
        options(dir),
        Arc::new(Metrics::new().unwrap()),
    )
}

/// Makes `dir/data` a data directory of `system`, as far as a request looks at it.
pub(super) fn data_dir(dir: &Path, system: u64) -> PathBuf {
    let data_dir = dir.join("data");
    fs::create_dir_all(data_dir.join("pg_wal")).unwrap();
    fs::create_dir_all(data_dir.join("global")).unwrap();
    fs::write(data_dir.join("PG_VERSION"), "15\n").unwrap();
    fs::write(data_dir.join("global/pg_control"), control(system)).unwrap();
    data_dir
}

/// The smallest `pg_control` that is one.
fn control(system: u64) -> Vec<u8> {
    let mut bytes = vec![0; 8192];
    let mut put = |offset: usize, value: &[u8]| bytes[offset..offset + value.len()].copy_from_slice(value);
    put(0, &system.to_le_bytes());
    put(8, &1300u32.to_le_bytes());
    put(16, &6u32.to_le_bytes());
    put(32, &0x300_0060u64.to_le_bytes());
    put(40, &0x300_0028u64.to_le_bytes());
    put(48, &1u32.to_le_bytes());
    put(228, &SEGMENT_BYTES.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..288]);
    bytes[288..292].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// What PostgreSQL would ask for.
pub(super) fn request(data_dir: &Path, file: WalFile, target: &str) -> Resolved {
    resolve::resolve(&file.to_string(), &data_dir.join("pg_wal").join(target)).unwrap()
}

pub(super) fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn without_an_agent_a_scratch_name_is_replaced_and_a_wal_file_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = data_dir(dir.path(), SYSTEM);
    let restore = restore(repository_with(&Faults::none(), &segments(1)).await, dir.path());
    let scratch = request(&data_dir, segment(1), "RECOVERYXLOG");
    fs::write(&scratch.destination, "old").unwrap();
    restore.restore_directly(&scratch).await.unwrap();
    assert_eq!(fs::read(&scratch.destination).unwrap()[..3], [1; 3]);
    let by_name = request(&data_dir, segment(1), &segment(1).to_string());
    assert_eq!(by_name.existing, Existing::Kept);
    fs::write(&by_name.destination, "being written").unwrap();
    let error = restore.restore_directly(&by_name).await.unwrap_err();
    assert!(crate::explain::chain(&error).contains("is there already"), "{error:?}");
    assert_eq!(error.finding(), RestoreFinding::Failed);
    assert_eq!(fs::read(&by_name.destination).unwrap(), b"being written");
    fs::remove_file(&by_name.destination).unwrap();
    restore.restore_directly(&by_name).await.unwrap();
    assert_eq!(names(&data_dir.join("pg_wal")), [segment(1).to_string(), "RECOVERYXLOG".to_owned()]);
}

#[tokio::test]
async fn without_an_agent_a_failed_request_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = data_dir(dir.path(), SYSTEM);
    let mut damaged = segments(1);
    *damaged[0].1.last_mut().unwrap() ^= 1;
    let restore = restore(repository_with(&Faults::none(), &damaged).await, dir.path());
    let error = restore.restore_directly(&request(&data_dir, segment(1), "RECOVERYXLOG")).await.unwrap_err();
    assert_eq!(error.finding(), RestoreFinding::Corrupt);
    assert_eq!(names(&data_dir.join("pg_wal")), [""; 0]);
}

#[tokio::test]
async fn another_cluster_is_told_whose_repository_it_asks_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = data_dir(dir.path(), 4711);
    let restore = restore(repository_with(&Faults::none(), &segments(1)).await, dir.path());
    for file in [segment(1), segment(9), WalFile::parse("00000002.history").unwrap()] {
        let error = restore.restore_directly(&request(&data_dir, file, "RECOVERYXLOG")).await.unwrap_err();
        let said = crate::explain::chain(&error);
        assert!(said.contains("4711") && said.contains(&SYSTEM.to_string()), "{said}");
        assert_eq!(error.finding(), RestoreFinding::Failed);
    }
    // Who can't tell which cluster it is, is not told that a file is absent either.
    fs::remove_file(data_dir.join("global/pg_control")).unwrap();
    let error = restore.restore_directly(&request(&data_dir, segment(9), "RECOVERYXLOG")).await.unwrap_err();
    assert_eq!(error.finding(), RestoreFinding::Failed);
    assert_eq!(names(&data_dir.join("pg_wal")), [""; 0]);
}
