//! A verification of a repository in memory: how many requests it takes, and what it says when it could not
//! do all that it should.

mod records;

use super::*;
use crate::codec::seal::{Effort, seal};
use crate::store::fault::{Fault, Faults};
use crate::store::{Operation, PutPayload, Store};
use jiff::Timestamp;
use std::time::Duration;
use wald_core::blake3_hex::Blake3Hex;
use wald_core::catalog::{CatalogEntry, CatalogFacts, Part, StoredObject};

use wald_core::identity::Identity;
use wald_core::ledger::Finding;
use wald_core::object_key::ObjectKey;
use wald_core::segment::{SegmentName, SegmentSize};
use wald_core::system_id::SystemId;
use wald_core::timeline::TimelineId;
use wald_core::wal_file::WalFile;

const MIB: u64 = 1 << 20;
/// The first segment.
const FIRST: u64 = 5;

fn system_id() -> SystemId {
    SystemId::new(7).unwrap()
}

fn now() -> Timestamp {
    Timestamp::now()
}

async fn put(store: &Store, key: &ObjectKey, content: impl Into<Vec<u8>>) {
    store.create(key, PutPayload::from(content.into())).await.unwrap();
}

/// A segment of which nothing but the header of its first page is written.
fn sealed(number: u64) -> (ObjectKey, Vec<u8>) {
    let size = SegmentSize::new(1 << 20).unwrap();
    let file = WalFile::Segment(SegmentName::from_number(TimelineId::FIRST, number, size).unwrap());
    let mut raw = vec![0u8; 1 << 20];
    raw[..2].copy_from_slice(&0xD110u16.to_le_bytes());
    raw[2..4].copy_from_slice(&2u16.to_le_bytes());
    raw[4..8].copy_from_slice(&1u32.to_le_bytes());
    raw[8..16].copy_from_slice(&(number * MIB).to_le_bytes());
    raw[24..32].copy_from_slice(&system_id().get().to_le_bytes());
    raw[32..36].copy_from_slice(&(1u32 << 20).to_le_bytes());
    raw[36..40].copy_from_slice(&8192u32.to_le_bytes());
    let sealed = seal(file, system_id(), &raw, Effort::Level(1)).unwrap();
    (ObjectKey::wal(file), sealed.to_vec())
}

/// A repository with one backup and so many segments from its start on; their content is right
/// only if `real`.
async fn repository(segments: u64, real: bool) -> (Repository, Store) {
    let store = Store::memory();
    let size = SegmentSize::new(1 << 20).unwrap();
    let identity = Identity::new(system_id(), size, now(), "0.1.0");
    crate::repository::init(store.clone(), identity).await.unwrap();
    let started_at = now() - SignedDuration::from_secs(60);
    let id = BackupId::new(started_at, wald_core::backup_id::BackupKind::Full);
    let object =
        |name: &str| StoredObject { name: name.to_owned(), stored_bytes: 1, blake3: Blake3Hex::of(b"x") };
    let entry = CatalogEntry::new(CatalogFacts {
        id: id.clone(),
        system_id: system_id(),
        segment_size: size,
        pg_version_num: 150_018,
        data_checksums: true,
        timeline: TimelineId::FIRST,
        start_lsn: wald_core::lsn::Lsn::new(FIRST * MIB + 0x28).unwrap(),
        stop_lsn: wald_core::lsn::Lsn::new(FIRST * MIB + 0x100).unwrap(),
        started_at,
        stopped_at: now() - SignedDuration::from_secs(50),
        from_standby: false,
        label: String::new(),
        tool_version: String::new(),
        tablespaces: Vec::new(),
        parts: vec![Part {
            name: "base-0001.tar.zst".to_owned(),
            tablespace: None,
            stored_bytes: 1,
            raw_bytes: 0,
            files: 0,
            blake3: Blake3Hex::of(b"x"),
        }],
        manifest: object("backup_manifest"),
        file_list: object("files.json.zst"),
        bad_pages: Vec::new(),
    })
    .unwrap();
    put(&store, &ObjectKey::catalog(&id), entry.to_json().unwrap()).await;
    for name in ["base-0001.tar.zst", "backup_manifest", "files.json.zst"] {
        put(&store, &entry.object_key(name).unwrap(), b"x".to_vec()).await;
    }
    for number in FIRST..FIRST + segments {
        let (key, content) = if real {
            sealed(number)
        } else {
            let name = SegmentName::from_number(TimelineId::FIRST, number, size).unwrap();
            (ObjectKey::wal(WalFile::Segment(name)), b"x".to_vec())
        };
        put(&store, &key, content).await;
    }
    (Repository::open(store.clone()).await.unwrap(), store)
}

fn options(depth: Depth) -> VerifyOptions {
    VerifyOptions {
        depth,
        full: false,
        backup: None,
        policy: Policy::new(7, 1),
        lock: None,
        reread: SignedDuration::from_hours(7 * 24),
        max_bytes: None,
        rate_max_bytes: None,
        workers: NonZeroUsize::new(2).unwrap(),
    }
}

async fn verify(repository: &Repository, options: &VerifyOptions) -> Result<VerifyReport, VerifyError> {
    run(repository, options, &Clock::System, &Progress::silent(), &CancellationToken::new()).await
}

/// Every request, without changing any of them.
fn counting() -> Faults {
    let faults = Faults::none();
    for operation in [
        Operation::Create,
        Operation::Read,
        Operation::Stat,
        Operation::List,
        Operation::Upload,
        Operation::Delete,
        Operation::Lock,
    ] {
        faults.always(operation, Fault::Slow(Duration::ZERO));
    }
    faults
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_segments_are_listed_without_a_request_for_each() {
    let (_, store) = repository(10_000, false).await;
    let faults = counting();
    let counted = Repository::open(store.with_faults(&faults)).await.unwrap();
    let before = faults.injected();
    let report = verify(&counted, &options(Depth::Presence)).await.unwrap();
    assert_eq!((report.verdict, report.objects), (Verdict::Clean, 10_005), "{report}");
    // One listing, one entry, and the ledger.
    assert_eq!(faults.injected() - before, 3);
    // The second run reads the first one's ledger.
    let before = faults.injected();
    verify(&counted, &options(Depth::Presence)).await.unwrap();
    assert_eq!(faults.injected() - before, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_can_not_be_listed_is_not_clean() {
    let (_, store) = repository(3, true).await;
    let faults = Faults::none();
    let repository = Repository::open(store.with_faults(&faults)).await.unwrap();
    for fault in [Fault::Unreachable, Fault::AnswerLost] {
        faults.once(Operation::List, fault);
        verify(&repository, &options(Depth::Content)).await.unwrap_err();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_read_makes_a_run_incomplete_and_is_no_finding() {
    let (_, store) = repository(3, true).await;
    let faults = Faults::none();
    let repository = Repository::open(store.with_faults(&faults)).await.unwrap();
    let first = verify(&repository, &options(Depth::Content)).await.unwrap();
    // The backup's objects are made up.
    assert_eq!(first.verdict, Verdict::Findings, "{first}");
    let damaged: Vec<&str> = first.findings.iter().map(|finding| finding.object.as_str()).collect();
    assert!(damaged.iter().all(|object| object.contains("/2")), "{damaged:?}");
    let full = VerifyOptions { full: true, ..options(Depth::Content) };
    let (other, faulty) = (self::repository(3, true).await.1, Faults::none());
    let repository = Repository::open(other.with_faults(&faulty)).await.unwrap();
    for _ in 0..100 {
        faulty.once(Operation::Read, Fault::Slow(Duration::ZERO));
    }
    verify(&repository, &full).await.unwrap();
    faulty.clear();
    // After the entry and the ledger, whatever is read is cut off.
    for _ in 0..2 {
        faulty.once(Operation::Read, Fault::Slow(Duration::ZERO));
    }
    faulty.always(Operation::Read, Fault::AnswerLost);
    let report = verify(&repository, &full).await.unwrap();
    assert_eq!((report.verdict, report.exit_code()), (Verdict::Incomplete, 2), "{report}");
    assert!(report.unread.len() >= 3, "{report}");
    assert!(report.findings.iter().all(|finding| !finding.object.starts_with("wal/")), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bit_that_flips_on_the_way_is_read_as_damage_and_forgotten_when_it_is_not_there() {
    let (_, store) = repository(3, true).await;
    let mut hidden: Vec<Finding> = Vec::new();
    let faults = Faults::none();
    let repository = Repository::open(store.with_faults(&faults)).await.unwrap();
    verify(&repository, &options(Depth::Content)).await.unwrap();
    for _ in 0..3 {
        faults.once(Operation::Read, Fault::Slow(Duration::ZERO));
    }
    faults.always(Operation::Read, Fault::CorruptRead);
    let full = VerifyOptions { full: true, ..options(Depth::Content) };
    let report = verify(&repository, &full).await.unwrap();
    hidden.extend(report.findings.iter().filter(|finding| finding.object.starts_with("wal/")).cloned());
    assert!(!hidden.is_empty(), "{report}");
    assert!(hidden.iter().all(|finding| finding.last_good.is_some()), "{report}");
    faults.clear();
    let report = verify(&repository, &options(Depth::Content)).await.unwrap();
    assert!(report.findings.iter().all(|finding| !finding.object.starts_with("wal/")), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_run_keeps_what_it_proved_and_says_that_it_is_incomplete() {
    let (repository, _) = repository(40, true).await;
    let cancel = CancellationToken::new();
    let slow = VerifyOptions { rate_max_bytes: Some(2000), ..options(Depth::Content) };
    let progress = Progress::silent();
    let ending = async {
        while progress.done() == 0 {
            tokio::task::yield_now().await;
        }
        cancel.cancel();
    };
    let (report, ()) = tokio::join!(run(&repository, &slow, &Clock::System, &progress, &cancel), ending);
    let report = report.unwrap();
    assert_eq!((report.verdict, report.exit_code()), (Verdict::Incomplete, 2), "{report}");
    let ledger = report.ledger.clone().unwrap();
    assert!(ledger.starts_with("verify/"), "{ledger}");
    let again = verify(&repository, &options(Depth::Content)).await.unwrap();
    assert_eq!(again.verdict, Verdict::Findings, "of the backup, which is made up: {again}");
    assert!(again.findings.iter().all(|finding| !finding.object.starts_with("wal/")), "{again}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_runs_at_once_do_no_harm() {
    let (repository, _) = repository(20, true).await;
    let options = options(Depth::Content);
    let (one, other) = tokio::join!(verify(&repository, &options), verify(&repository, &options));
    let (one, other) = (one.unwrap(), other.unwrap());
    assert_ne!(one.ledger, other.ledger);
    assert_eq!(one.findings.len(), other.findings.len());
    let third = verify(&repository, &options).await.unwrap();
    // What both proved counts, and the open findings are looked at again.
    assert_eq!(third.findings.len(), one.findings.len());
    let wal = third.read.objects - third.suspect_objects;
    assert!(wal < 10, "{third}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_backup_nothing_is_clean() {
    let store = Store::memory();
    let identity = Identity::new(system_id(), SegmentSize::DEFAULT, now(), "0.1.0");
    crate::repository::init(store.clone(), identity).await.unwrap();
    let repository = Repository::open(store).await.unwrap();
    let report = verify(&repository, &options(Depth::Records)).await.unwrap();
    assert_eq!(report.verdict, Verdict::Findings);
    assert!(report.to_string().contains("there is no backup"), "{report}");
    assert!(report.to_string().contains("was not worked out"), "{report}");
}

/// The name of a segment's object.
fn wal(number: u64) -> String {
    sealed(number).0.to_string()
}

async fn remove(store: &Store, name: &str) {
    store.delete_version(name, &crate::store::VersionId::new("null")).await.unwrap();
}

fn objects(report: &VerifyReport) -> Vec<&str> {
    report.findings.iter().map(|finding| finding.object.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_without_its_own_wal_is_never_clean() {
    // None at all; and nothing of the segment in which the backup ends.
    let (bare, _) = repository(0, false).await;
    let report = verify(&bare, &options(Depth::Presence)).await.unwrap();
    assert_eq!(report.verdict, Verdict::Findings, "{report}");
    assert_eq!(objects(&report), [wal(FIRST)], "{report}");
    let (cut, store) = repository(4, false).await;
    remove(&store, &wal(FIRST)).await;
    let report = verify(&cut, &options(Depth::Presence)).await.unwrap();
    assert_eq!(objects(&report), [wal(FIRST)], "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_deleted_stays_a_finding_night_after_night_until_it_is_back() {
    let (repository, store) = repository(6, true).await;
    let options = options(Depth::Presence);
    assert_eq!(verify(&repository, &options).await.unwrap().verdict, Verdict::Clean);
    // At the end of the log, where nothing but a ledger knows of it.
    let last = FIRST + 5;
    remove(&store, &wal(last)).await;
    for _ in 0..5 {
        let report = verify(&repository, &options).await.unwrap();
        assert_eq!(objects(&report), [wal(last)], "{report}");
        // It costs what was in it, though the listing ends in front of it.
        let lost = report.findings[0].lost.as_ref().unwrap();
        assert_eq!((lost.len(), lost[0].from_lsn.get()), (1, last * MIB), "{report}");
        assert_eq!(report.lost_targets, *lost);
    }
    let (key, content) = sealed(last);
    put(&store, &key, content).await;
    assert_eq!(verify(&repository, &options).await.unwrap().verdict, Verdict::Clean);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_clock_was_ahead_neither_stops_the_rotation_nor_hides_findings() {
    let (repository, _) = repository(20, true).await;
    let options = options(Depth::Content);
    let ahead = Clock::Fixed(now() + SignedDuration::from_hours(24 * 30));
    run(&repository, &options, &ahead, &Progress::silent(), &CancellationToken::new()).await.unwrap();
    let report = verify(&repository, &options).await.unwrap();
    assert_eq!(report.new_objects, report.provable_objects, "its proofs count for nothing: {report}");
    assert!(report.notes.iter().any(|note| note.contains("dated in the future")), "{report}");
    // One whose clock was behind has found something, and the newer ones did not know of it.
    let (open, behind) = (open_finding(), now() - SignedDuration::from_hours(9));
    let head = Head { begun: behind, ended: behind, findings: vec![open], ..ledger_head(&repository) };
    ledgers::write(repository.store(), head, wald_core::ledger::Objects::default()).await.unwrap();
    let shallow = VerifyOptions { depth: Depth::Presence, ..options };
    for _ in 0..4 {
        let report = verify(&repository, &shallow).await.unwrap();
        assert!(objects(&report).contains(&wal(FIRST + 3).as_str()), "{report}");
    }
}

fn open_finding() -> Finding {
    Finding {
        object: wal(FIRST + 3),
        version: None,
        damage: wald_core::ledger::Damage::Content { problem: "a bit".to_owned() },
        found_at: now(),
        last_good: None,
        lost: None,
    }
}

fn ledger_head(repository: &Repository) -> Head {
    Head {
        format: LEDGER_FORMAT,
        tool_version: String::new(),
        system_id: repository.system_id(),
        begun: now(),
        ended: now(),
        depth: Depth::Content,
        complete: true,
        read: wald_core::ledger::Amount::default(),
        findings: Vec::new(),
        walks: Vec::new(),
        objects: 0,
        knew: Vec::new(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_overdue_and_does_not_fit_makes_a_run_incomplete() {
    let (repository, _) = repository(20, true).await;
    let past = Clock::Fixed(now() - SignedDuration::from_hours(24 * 9));
    let limited = VerifyOptions { max_bytes: Some(1), ..options(Depth::Content) };
    run(&repository, &limited, &past, &Progress::silent(), &CancellationToken::new()).await.unwrap();
    let report = verify(&repository, &limited).await.unwrap();
    assert!(report.postponed.overdue > 10, "{report}");
    assert_eq!(report.exit_code(), 2, "{report}");
    assert!(report.summary().contains("overdue under verify.max_bytes"), "{}", report.summary());
}
