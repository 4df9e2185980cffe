//! Tests of a run on a repository in memory: what is done, in which order, and what stops it.

use super::*;
use crate::store::fault::{Fault, Faults};
use crate::store::{Operation, PutPayload, Store};
use futures::TryStreamExt;
use jiff::SignedDuration;
use std::collections::BTreeSet;
use wald_core::backup_id::{BackupId, BackupKind};
use wald_core::blake3_hex::Blake3Hex;
use wald_core::catalog::{CatalogEntry, CatalogFacts, Part, StoredObject};
use wald_core::identity::Identity;
use wald_core::lsn::Lsn;
use wald_core::object_key::ObjectKey;
use wald_core::segment::{SegmentName, SegmentSize};
use wald_core::system_id::SystemId;
use wald_core::timeline::TimelineId;
use wald_core::wal_file::WalFile;

const DAYS: u32 = 10;

fn days(count: u32) -> SignedDuration {
    SignedDuration::from_hours(24 * i64::from(count))
}

async fn put(store: &Store, key: &ObjectKey, content: impl Into<Vec<u8>>) {
    store.create(key, PutPayload::from(content.into())).await.unwrap();
}

fn identity(system: u64) -> Identity {
    let system = SystemId::new(system).unwrap();
    Identity::new(system, SegmentSize::DEFAULT, Timestamp::UNIX_EPOCH, "test")
}

fn segment(number: u64) -> ObjectKey {
    let name = SegmentName::from_number(TimelineId::FIRST, number, SegmentSize::DEFAULT).unwrap();
    ObjectKey::wal(WalFile::Segment(name))
}

fn entry(day: u32, at: Timestamp) -> CatalogEntry {
    let object =
        |name: &str| StoredObject { name: name.to_owned(), stored_bytes: 1, blake3: Blake3Hex::of(b"x") };
    let start = (u64::from(day) * 4 + 1) << 24;
    CatalogEntry::new(CatalogFacts {
        id: BackupId::new(at, BackupKind::Full),
        system_id: SystemId::new(7).unwrap(),
        segment_size: SegmentSize::DEFAULT,
        pg_version_num: 150_018,
        data_checksums: true,
        timeline: TimelineId::FIRST,
        start_lsn: Lsn::new(start + 0x28).unwrap(),
        stop_lsn: Lsn::new(start + 0x100).unwrap(),
        started_at: at,
        stopped_at: at,
        from_standby: false,
        label: "test".to_owned(),
        tool_version: "0.1.0".to_owned(),
        tablespaces: Vec::new(),
        parts: vec![Part {
            name: "base-0001.tar.zst".to_owned(),
            tablespace: None,
            stored_bytes: 1,
            raw_bytes: 1,
            files: 1,
            blake3: Blake3Hex::of(b"x"),
        }],
        manifest: object("backup_manifest"),
        file_list: object("files.json.zst"),
        bad_pages: Vec::new(),
    })
    .unwrap()
}

/// Ten days, each with a backup and four segments, that begin when the test does.
struct Scene {
    repository: Repository,
    clock: Clock,
    options: RetainOptions,
}

impl Scene {
    async fn new() -> Self {
        let (store, began) = (Store::memory(), Timestamp::now());
        put(&store, &ObjectKey::identity(), identity(7).render().unwrap()).await;
        for day in 0..DAYS {
            let entry = entry(day, began + days(day));
            for name in ["claim.json", "base-0001.tar.zst", "backup_manifest", "files.json.zst"] {
                put(&store, &entry.object_key(name).unwrap(), "x").await;
            }
            put(&store, &ObjectKey::catalog(entry.id()), entry.to_json().unwrap()).await;
            for number in 1..=4 {
                put(&store, &segment(u64::from(day) * 4 + number), "x").await;
            }
        }
        put(&store, &ObjectKey::check("left").unwrap(), "x").await;
        Self {
            repository: Repository::open(store).await.unwrap(),
            clock: Clock::Fixed(began + days(DAYS)),
            options: RetainOptions { policy: Policy::new(3, 1), lock: None, requests: NonZeroUsize::MIN },
        }
    }

    async fn names(&self) -> BTreeSet<String> {
        let listed: Vec<_> = self.repository.store().list("").try_collect().await.unwrap();
        listed.into_iter().map(|object| object.name).filter(|name| !name.starts_with("expire/")).collect()
    }

    async fn run_on(
        &self,
        repository: &Repository,
        cancel: CancellationToken,
    ) -> Result<RunReport, RetainError> {
        run(repository, &self.options, self.clock, &Progress::silent(), cancel).await
    }

    async fn run(&self) -> RunReport {
        self.run_on(&self.repository, CancellationToken::new()).await.unwrap()
    }
}

fn count(names: &BTreeSet<String>, prefix: &str) -> usize {
    names.iter().filter(|name| name.starts_with(prefix)).count()
}

#[tokio::test]
async fn a_run_does_what_the_plan_said_and_records_it() {
    let scene = Scene::new().await;
    let before = scene.names().await;
    let planned = plan(&scene.repository, &scene.options, scene.clock, &Progress::silent()).await.unwrap();
    assert_eq!(scene.names().await, before);
    let report = scene.run().await;
    assert!(report.is_good(), "{report}");
    let left = scene.names().await;
    // The window begins at day 7, and restores that are running reach back to the backup of day 5.
    assert_eq!((count(&left, "catalog/"), count(&left, "wal/"), count(&left, "check/")), (5, 20, 0));
    assert_eq!(left.len(), 5 * 5 + 20 + 1);
    let told: BTreeSet<String> = planned.details.delete.iter().map(|detail| detail.name.clone()).collect();
    assert_eq!(before.difference(&left).cloned().collect::<BTreeSet<_>>(), told);
    assert_eq!(report.outcome.deleted, u64::try_from(told.len()).unwrap());
    let record: Vec<_> = scene.repository.store().list("expire/").try_collect().await.unwrap();
    assert_eq!(Some(record[0].name.clone()), report.record);
    let again = scene.run().await;
    assert!(again.is_good() && again.outcome.deleted == 0);
    let shown = planned.to_string();
    for line in [
        "keep        WAL of timeline 1, 000000010000000000000015 to 000000010000000000000028: 20 objects",
        "delete      WAL of timeline 1, 000000010000000000000001 to 000000010000000000000014: 20 objects",
        "is the newest whole one from before the window",
        "ended inside the window",
        "is needed by no target in the window",
        "delete      trials: 1 object",
    ] {
        assert!(shown.contains(line), "{line} is not in\n{shown}");
    }
}

#[tokio::test]
async fn an_entry_that_cannot_be_read_stops_every_deletion() {
    let scene = Scene::new().await;
    let key = ObjectKey::catalog(&BackupId::parse("20200101T000000Z-full").unwrap());
    put(scene.repository.store(), &key, "{").await;
    let before = scene.names().await;
    let report = scene.run().await;
    assert!(!report.is_good() && report.record.is_some());
    assert!(report.to_string().contains("REFUSED     catalog/20200101T000000Z-full.json"), "{report}");
    assert_eq!(scene.names().await, before);
}

#[tokio::test]
async fn a_backup_that_lost_a_part_is_told_and_no_backup_goes_for_it() {
    let scene = Scene::new().await;
    let names = scene.names().await;
    let of_day_five = names.iter().filter(|name| name.ends_with("base-0001.tar.zst")).nth(5).unwrap();
    let store = scene.repository.store();
    let versions: Vec<_> = store.versions(of_day_five).try_collect().await.unwrap();
    store.delete_version(of_day_five, &versions[0].version).await.unwrap();
    let report = scene.run().await;
    assert!(!report.is_good(), "{report}");
    assert!(report.to_string().contains(&format!("PROBLEM     {of_day_five}: it is not there")), "{report}");
    // The one of day 4 is the anchor now.
    assert_eq!(count(&scene.names().await, "catalog/"), 6);
}

#[tokio::test]
async fn an_entry_that_cannot_be_fetched_stops_deletions_and_not_the_run() {
    let scene = Scene::new().await;
    let before = scene.names().await;
    let faults = Faults::none();
    let repository = scene.repository.store().with_faults(&faults);
    let broken = Repository::open(repository).await.unwrap();
    faults.once(Operation::Read, Fault::Unreachable);
    let report = scene.run_on(&broken, CancellationToken::new()).await.unwrap();
    assert!(!report.is_good() && report.planned.refusal.is_some(), "{report}");
    assert_eq!(scene.names().await, before);
    assert!(scene.run().await.is_good());
}

/// Two runs at once: the other one has deleted an entry since this one listed it.
#[tokio::test]
async fn an_entry_that_vanishes_is_no_damage_unless_it_stays_listed() {
    let scene = Scene::new().await;
    let faults = Faults::none();
    let busy = Repository::open(scene.repository.store().with_faults(&faults)).await.unwrap();
    let before = scene.names().await;
    // Listed each time, and never there: something else is wrong.
    faults.always(Operation::Read, Fault::Vanished);
    let planned = plan(&busy, &scene.options, scene.clock, &Progress::silent()).await.unwrap();
    assert!(planned.refusal.is_some(), "{planned}");
    faults.clear();
    faults.once(Operation::Read, Fault::Vanished);
    faults.once(Operation::Read, Fault::Vanished);
    let report = scene.run_on(&busy, CancellationToken::new()).await.unwrap();
    assert!(report.is_good(), "{report}");
    assert_eq!(before.len() - scene.names().await.len(), usize::try_from(report.outcome.deleted).unwrap());
}

#[tokio::test]
async fn while_an_entry_stays_so_do_its_parts_and_all_wal() {
    let scene = Scene::new().await;
    let faults = Faults::none();
    let broken = Repository::open(scene.repository.store().with_faults(&faults)).await.unwrap();
    faults.once(Operation::Delete, Fault::Unreachable);
    let report = scene.run_on(&broken, CancellationToken::new()).await.unwrap();
    assert!(!report.is_good() && report.outcome.failed == 1, "{report}");
    let left = scene.names().await;
    // The trial goes, and what belongs to the four other backups.
    assert_eq!((count(&left, "catalog/"), count(&left, "wal/"), count(&left, "check/")), (6, 40, 0));
    assert_eq!(left.len(), 6 * 5 + 40 + 1);
    assert!(scene.run().await.is_good());
    assert_eq!(scene.names().await.len(), 5 * 5 + 20 + 1);
}

#[tokio::test]
async fn a_run_that_is_cancelled_deletes_nothing_more() {
    let scene = Scene::new().await;
    let before = scene.names().await;
    let cancel = CancellationToken::new();
    cancel.cancel();
    let error = scene.run_on(&scene.repository, cancel).await.unwrap_err();
    assert!(matches!(error, RetainError::Interrupted), "{error}");
    assert_eq!(scene.names().await, before);
}

#[tokio::test]
async fn a_repository_that_became_another_one_is_left_alone() {
    let scene = Scene::new().await;
    let store = scene.repository.store();
    store.delete(&ObjectKey::identity()).await.unwrap();
    put(store, &ObjectKey::identity(), identity(8).render().unwrap()).await;
    let before = scene.names().await;
    let error = scene.run_on(&scene.repository, CancellationToken::new()).await.unwrap_err();
    assert!(matches!(error, RetainError::OtherRepository { .. }), "{error}");
    assert_eq!(scene.names().await, before);
}
