//! Tests of the inventory: what a repository holds, and damage that is named.

use super::*;
use crate::store::{PutPayload, StoreOptions};
use jiff::Timestamp;
use wald_core::blake3_hex::Blake3Hex;
use wald_core::catalog::{CatalogFacts, Part, StoredObject};
use wald_core::identity::Identity;
use wald_core::recovery_plan::{ArchiveMode, PlanRequest, RecoveryPlan};
use wald_core::segment::{SegmentName, SegmentSize};
use wald_core::target::{Inclusion, RecoveryGoal, RecoveryTarget, TargetAction, TimelineChoice};

pub(crate) async fn repository() -> Repository {
    repository_in(Store::memory()).await
}

async fn repository_in(store: Store) -> Repository {
    let system = SystemId::new(7).unwrap();
    let identity = Identity::new(system, SegmentSize::DEFAULT, Timestamp::UNIX_EPOCH, "test");
    put(&store, &ObjectKey::identity(), identity.render().unwrap()).await;
    Repository::open(store).await.unwrap()
}

async fn put(store: &Store, key: &ObjectKey, content: impl Into<Vec<u8>>) {
    store.create(key, PutPayload::from(content.into())).await.unwrap();
}

async fn put_history(store: &Store, text: &str, proof_of: &str) {
    let file = WalFile::parse("00000002.history").unwrap();
    let proof = format!("{}  {file}\n", blake3::hash(proof_of.as_bytes()).to_hex());
    put(store, &ObjectKey::wal_proof(file), proof).await;
    put(store, &ObjectKey::wal(file), text).await;
}

#[tokio::test]
async fn segments_and_histories_are_read() {
    let repository = repository().await;
    for number in [3, 4, 6] {
        let name = SegmentName::from_number(TimelineId::FIRST, number, SegmentSize::DEFAULT).unwrap();
        put(repository.store(), &ObjectKey::wal(WalFile::Segment(name)), "x").await;
        put(repository.store(), &ObjectKey::wal(WalFile::Partial(name)), "x").await;
    }
    let text = "1\t0/6000000\tno recovery target specified\n";
    put_history(repository.store(), text, text).await;
    let inventory = read(&repository).await.unwrap();
    assert!(inventory.unreadable.is_empty());
    assert_eq!(inventory.coverage.ranges(TimelineId::FIRST).len(), 2);
    assert_eq!(inventory.histories.len(), 1);
}

fn entry() -> CatalogEntry {
    let at: Timestamp = "2026-11-22T02:00:00Z".parse().unwrap();
    let id = BackupId::parse(GOOD).unwrap();
    let object =
        |name: &str| StoredObject { name: name.to_owned(), stored_bytes: 5, blake3: Blake3Hex::of(b"x") };
    CatalogEntry::new(CatalogFacts {
        system_id: SystemId::new(7).unwrap(),
        segment_size: SegmentSize::DEFAULT,
        pg_version_num: 150_018,
        data_checksums: true,
        timeline: TimelineId::FIRST,
        start_lsn: "0/3000028".parse().unwrap(),
        stop_lsn: "0/3000100".parse().unwrap(),
        started_at: at,
        stopped_at: at,
        id,
        from_standby: false,
        label: "test".to_owned(),
        tool_version: "0.1.0".to_owned(),
        tablespaces: Vec::new(),
        parts: vec![Part {
            name: "base-0001.tar.zst".to_owned(),
            tablespace: None,
            stored_bytes: 10,
            raw_bytes: 30,
            files: 3,
            blake3: Blake3Hex::of(b"x"),
        }],
        manifest: object("backup_manifest"),
        file_list: object("files.json.zst"),
        bad_pages: Vec::new(),
    })
    .unwrap()
}

fn request(backup: Option<&str>, timeline: &str) -> PlanRequest {
    let timeline = TimelineChoice::parse(timeline).unwrap();
    PlanRequest {
        goal: RecoveryGoal::new(
            RecoveryTarget::EndOfWal,
            Inclusion::Inclusive,
            timeline,
            TargetAction::Promote,
        )
        .unwrap(),
        backup: backup.map(|id| BackupId::parse(id).unwrap()),
        restore_command: "wald-restore %f %p".to_owned(),
        archive_mode: ArchiveMode::Off,
    }
}

/// Reads and plans as a restore does.
async fn planned(
    repository: &Repository,
    backup: Option<&str>,
    timeline: &str,
) -> Result<RecoveryPlan, String> {
    let request = request(backup, timeline);
    let inventory = read(repository).await.unwrap();
    let inventory = inventory.for_request(&request).map_err(|error| error.to_string())?;
    let now = "2026-12-01T00:00:00Z".parse().unwrap();
    let plan = wald_core::recovery_plan::plan(inventory.holdings(), &request, now);
    let mut plan = plan.map_err(|error| error.to_string())?;
    inventory.admit(&mut plan).map_err(|error| error.to_string())?;
    Ok(plan)
}

const GOOD: &str = "20261122T020000Z-full";
const BAD: &str = "20261123T020000Z-full";

async fn with_segment(repository: &Repository) {
    let name = SegmentName::from_number(TimelineId::FIRST, 3, SegmentSize::DEFAULT).unwrap();
    put(repository.store(), &ObjectKey::wal(WalFile::Segment(name)), "x").await;
}

async fn put_entry(repository: &Repository, id: &str, json: impl Into<Vec<u8>>) {
    put(repository.store(), &ObjectKey::catalog(&BackupId::parse(id).unwrap()), json).await;
}

#[tokio::test]
async fn a_damaged_entry_is_named_and_stops_a_restore_that_has_no_other() {
    let repository = repository().await;
    put_entry(&repository, BAD, "{\"format\": 9}").await;
    for backup in [None, Some(GOOD), Some(BAD)] {
        let error = planned(&repository, backup, "latest").await.unwrap_err();
        assert!(error.starts_with("catalog/20261123T020000Z-full.json can't be used"), "{error}");
        assert!(error.contains("use a newer wald"), "{error}");
    }
}

#[tokio::test]
async fn a_damaged_entry_stops_no_restore_of_another_backup() {
    let repository = repository().await;
    with_segment(&repository).await;
    put_entry(&repository, BAD, "").await;
    put_entry(&repository, GOOD, entry().to_json().unwrap()).await;
    for backup in [None, Some(GOOD)] {
        let plan = planned(&repository, backup, "latest").await.unwrap();
        assert_eq!(plan.backup.id.to_string(), GOOD);
        assert!(plan.to_string().contains("catalog/20261123T020000Z-full.json can't be used"), "{plan}");
    }
    let error = planned(&repository, Some(BAD), "latest").await.unwrap_err();
    assert!(error.starts_with("catalog/20261123T020000Z-full.json can't be used"), "{error}");
    assert!(error.ends_with("choose another --backup"), "{error}");
}

#[tokio::test]
async fn an_object_that_is_no_entry_is_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions::new(format!("file://{}", dir.path().display()));
    let repository = repository_in(Store::open(&options).unwrap()).await;
    with_segment(&repository).await;
    put_entry(&repository, GOOD, entry().to_json().unwrap()).await;
    std::fs::write(dir.path().join("catalog/README.txt"), "hands off").unwrap();
    let inventory = read(&repository).await.unwrap();
    assert_eq!(inventory.foreign_entries, ["catalog/README.txt"]);
    assert!(inventory.unreadable.is_empty());
    assert!(planned(&repository, None, "latest").await.is_ok());
}

#[tokio::test]
async fn a_damaged_history_stops_only_what_could_follow_it() {
    let repository = repository().await;
    with_segment(&repository).await;
    put_entry(&repository, GOOD, entry().to_json().unwrap()).await;
    put_history(repository.store(), "1\t0/6000000\tx\n", "1\t0/5000000\tx\n").await;
    for timeline in ["latest", "2"] {
        let error = planned(&repository, None, timeline).await.unwrap_err();
        assert!(error.starts_with("wal/00000002.history can't be used"), "{error}");
        assert!(error.contains("--target-timeline"), "{error}");
    }
    for timeline in ["1", "current"] {
        let plan = planned(&repository, None, timeline).await.unwrap();
        assert_eq!(plan.timeline, TimelineId::FIRST);
        assert!(plan.to_string().contains("wal/00000002.history can't be used"), "{plan}");
    }
}

#[tokio::test]
async fn a_history_that_is_not_what_its_proof_says_is_damage() {
    let repository = repository().await;
    put_history(repository.store(), "1\t0/6000000\tx\n", "1\t0/5000000\tx\n").await;
    let inventory = read(&repository).await.unwrap();
    assert!(inventory.histories.is_empty());
    assert!(inventory.unreadable[0].reason.contains("it is damaged"));
}
