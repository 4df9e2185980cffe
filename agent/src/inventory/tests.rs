//! Tests of the inventory: what a repository holds, and damage that is named.

use super::*;
use crate::store::PutPayload;
use jiff::Timestamp;
use wald_core::identity::Identity;
use wald_core::segment::{SegmentName, SegmentSize};

pub(crate) async fn repository() -> Repository {
    let store = Store::memory();
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
    let inventory = read(&repository).await.unwrap().whole().unwrap();
    assert_eq!(inventory.coverage.ranges(TimelineId::FIRST).len(), 2);
    assert_eq!(inventory.histories.len(), 1);
}

#[tokio::test]
async fn a_damaged_entry_is_named_and_stops_a_restore() {
    let repository = repository().await;
    let id = BackupId::parse("20261122T020000Z-full").unwrap();
    put(repository.store(), &ObjectKey::catalog(&id), "{\"format\": 9}").await;
    let inventory = read(&repository).await.unwrap();
    assert_eq!(inventory.unreadable.len(), 1);
    let error = inventory.whole().unwrap_err().to_string();
    assert!(error.starts_with("catalog/20261122T020000Z-full.json can't be used"), "{error}");
    assert!(error.contains("use a newer wald"), "{error}");
}

#[tokio::test]
async fn a_history_that_is_not_what_its_proof_says_is_damage() {
    let repository = repository().await;
    put_history(repository.store(), "1\t0/6000000\tx\n", "1\t0/5000000\tx\n").await;
    let inventory = read(&repository).await.unwrap();
    assert!(inventory.histories.is_empty());
    assert!(inventory.unreadable[0].reason.contains("it is damaged"));
}
