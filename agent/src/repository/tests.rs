//! Tests of a repository's identity, and of answers that were lost.

use super::*;
use crate::clock::Clock;
use crate::store::fault::{Fault, Faults};
use crate::store::{Created, Operation};
use bytes::Bytes;
use wald_core::wal_file::WalFile;

fn identity(system: u64, segment_mib: u32) -> Identity {
    Identity::new(
        SystemId::new(system).unwrap(),
        SegmentSize::new(segment_mib << 20).unwrap(),
        "2026-11-22T18:00:00Z".parse().unwrap(),
        "0.1.0",
    )
}

fn segment() -> ObjectKey {
    ObjectKey::wal(WalFile::parse("000000010000000000000007").unwrap())
}

async fn repository(store: &Store) -> Repository {
    init(store.clone(), identity(7, 16)).await.unwrap();
    Repository::open(store.clone()).await.unwrap()
}

#[tokio::test]
async fn what_was_never_initialised_says_how_to() {
    let error = Repository::open(Store::memory()).await.unwrap_err();
    assert!(error.to_string().contains("wald repo init"), "{error}");
}

#[tokio::test]
async fn initialising_twice_is_harmless_and_never_changes_the_identity() {
    let store = Store::memory();
    assert_eq!(init(store.clone(), identity(7, 16)).await.unwrap(), Initialised::Made);
    assert_eq!(init(store.clone(), identity(7, 16)).await.unwrap(), Initialised::Already);
    for (system, segment_mib) in [(8, 16), (7, 64)] {
        let error = init(store.clone(), identity(system, segment_mib)).await.unwrap_err().to_string();
        assert!(error.contains('7') && error.contains("16 MiB"), "{error}");
        assert!(
            error.contains(&format!("{segment_mib} MiB")) && error.contains(&system.to_string()),
            "{error}"
        );
    }
    let found = Repository::open(store).await.unwrap();
    assert_eq!((found.system_id().get(), found.segment_size().bytes()), (7, 16 << 20));
}

#[tokio::test]
async fn a_lost_answer_to_the_initialisation_is_made_good_by_the_next() {
    let faults = Faults::none();
    let store = Store::memory().with_faults(&faults);
    faults.once(Operation::Create, Fault::AnswerLost);
    assert!(init(store.clone(), identity(7, 16)).await.is_err());
    assert_eq!(init(store, identity(7, 16)).await.unwrap(), Initialised::Already);
}

#[tokio::test]
async fn an_exists_without_an_identity_is_no_success() {
    let faults = Faults::none();
    faults.once(Operation::Create, Fault::ExistsWithoutObject);
    assert!(init(Store::memory().with_faults(&faults), identity(7, 16)).await.is_err());
}

#[tokio::test]
async fn a_damaged_or_newer_identity_is_an_error_that_says_so() {
    for (bytes, said) in
        [("", "damaged"), ("not JSON", "damaged"), ("{\"format\": 9}", "newer wald"), ("[1]", "damaged")]
    {
        let store = Store::memory();
        store.create(&ObjectKey::identity(), Bytes::from_static(bytes.as_bytes()).into()).await.unwrap();
        let error = Repository::open(store.clone()).await.unwrap_err();
        let text = crate::explain::chain(&error);
        assert!(text.contains(said), "{bytes}: {text}");
        assert!(init(store.clone(), identity(7, 16)).await.is_err());
        assert!(!check(&store, &Clock::System).await.is_good());
    }
}

#[tokio::test]
async fn an_absence_is_believed_of_a_repository_that_is_there_and_ours() {
    let repository = repository(&Store::memory()).await;
    repository.believed_absent(&segment()).await.unwrap();
}

#[tokio::test]
async fn an_absence_is_not_believed_without_an_identity_or_with_anothers() {
    let store = Store::memory();
    let repository = repository(&store).await;
    store.delete(&ObjectKey::identity()).await.unwrap();
    assert!(!repository.believed_absent(&segment()).await.unwrap_err().is_absent());
    init(store.clone(), identity(8, 16)).await.unwrap();
    assert!(!repository.believed_absent(&segment()).await.unwrap_err().is_absent());
}

#[tokio::test]
async fn an_absence_is_not_believed_when_the_object_appears_or_the_repository_is_cut_off() {
    let faults = Faults::none();
    let store = Store::memory().with_faults(&faults);
    let repository = repository(&store).await;
    for fault in [Fault::Unreachable, Fault::AnswerLost, Fault::NotFoundByProxy] {
        faults.once(Operation::Read, fault);
        assert!(!repository.believed_absent(&segment()).await.unwrap_err().is_absent());
    }
    let created = store.create(&segment(), Bytes::from_static(b"x").into()).await.unwrap();
    assert_eq!(created, Created::Stored);
    assert!(!repository.believed_absent(&segment()).await.unwrap_err().is_absent());
}

#[tokio::test]
async fn a_good_repository_passes_the_check_and_is_left_as_it_was() {
    use futures::TryStreamExt;
    let dir = tempfile::tempdir().unwrap();
    let options = crate::store::StoreOptions::new(format!("file://{}", dir.path().display()));
    for store in [Store::memory(), Store::open(&options).unwrap()] {
        init(store.clone(), identity(7, 16)).await.unwrap();
        let report = check(&store, &Clock::System).await;
        assert!(report.is_good(), "{report}");
        assert!(report.findings().iter().all(|finding| finding.verdict == Verdict::Good), "{report}");
        let left: Vec<_> = store.list("").map_ok(|object| object.name).try_collect().await.unwrap();
        assert_eq!(left, ["wald.json"]);
    }
}

#[tokio::test]
async fn the_check_finds_what_a_repository_gets_wrong() {
    for (operation, fault, said) in [
        (Operation::Create, Fault::Unreachable, "can't store objects"),
        (Operation::Create, Fault::ExistsWithoutObject, "never stored"),
        (Operation::Read, Fault::Unreachable, "can't be reached"),
        (Operation::Read, Fault::CorruptRead, "wald.json can't be used"),
        (Operation::List, Fault::Unreachable, "can't list objects"),
        (Operation::Upload, Fault::Unreachable, "can't take uploads in parts"),
    ] {
        let faults = Faults::none();
        let store = Store::memory().with_faults(&faults);
        init(store.clone(), identity(7, 16)).await.unwrap();
        faults.always(operation, fault);
        let report = check(&store, &Clock::System).await;
        assert!(!report.is_good(), "{operation} {fault:?}: {report}");
        assert!(report.to_string().contains(said), "{operation} {fault:?}: {report}");
    }
}

#[tokio::test]
async fn the_check_finds_a_store_that_overwrites() {
    let faults = Faults::none();
    let store = Store::memory().with_faults(&faults);
    init(store.clone(), identity(7, 16)).await.unwrap();
    faults.always(Operation::Create, Fault::Overwrite);
    let report = check(&store, &Clock::System).await;
    assert!(!report.is_good(), "{report}");
    let text = report.to_string();
    assert!(text.contains("overwrites objects") && text.contains("each had succeeded"), "{report}");
}

#[tokio::test]
async fn objects_that_can_not_be_removed_are_only_noted() {
    let faults = Faults::none();
    let store = Store::memory().with_faults(&faults);
    init(store.clone(), identity(7, 16)).await.unwrap();
    faults.always(Operation::Delete, Fault::Unreachable);
    let report = check(&store, &Clock::System).await;
    assert!(report.is_good(), "{report}");
    assert!(report.findings().iter().any(|finding| finding.verdict == Verdict::Note), "{report}");
}
