//! Object lock on a real S3 server: what wald writes is locked, locks only grow, and what is
//! locked stays.
// Clippy knows tests by their attribute, and the steps of a suite carry none.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use anyhow::Context;
use bytes::Bytes;
use futures::TryStreamExt;
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeSet;
use std::time::Duration;
use wald::clock::Clock;
use wald::store::fault::{Fault, Faults};
use wald::store::{
    AwsEnvironment, BucketLock, Created, Deletion, Flaw, Guarantees, ObjectVersion, Operation, Sameness,
    Store, StoreError, StoreOptions, VersionKind, Versioning,
};
use wald_core::object_key::ObjectKey;
use wald_core::object_lock::{LockMode, LockPolicy, ObjectLock};
use wald_integration::sandbox::Sandbox;
use wald_integration::scene::{Plot, Scene};
use wald_integration::seaweed::{ACCESS_KEY, S3Server, SECRET_KEY};
use wald_integration::wald::{PREFIX, Settings};

const MIB: usize = 1 << 20;
const DAYS: u32 = 7;

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(work)
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::check(name).unwrap()
}

fn options(server: &S3Server, place: &str) -> StoreOptions {
    let mut options = StoreOptions::new(format!("s3://{place}"));
    options.s3.endpoint = Some(server.endpoint());
    options.s3.region = Some("us-east-1".to_owned());
    options.s3.path_style = true;
    options.s3.allow_http = true;
    options.s3.environment = AwsEnvironment::with_key_pair(ACCESS_KEY, SECRET_KEY);
    options.retry_timeout = Duration::from_secs(5);
    options
}

fn open(server: &S3Server, bucket: &str, lock: Option<LockMode>) -> Store {
    let mut options = options(server, &format!("{bucket}/one/cluster"));
    options.lock = lock.map(|mode| LockPolicy { mode, days: DAYS });
    Store::open(&options).unwrap()
}

async fn versions(store: &Store, prefix: &str) -> Vec<ObjectVersion> {
    let mut found: Vec<ObjectVersion> = store.versions(prefix).try_collect().await.unwrap();
    found.sort_by(|a, b| (&a.name, a.modified).cmp(&(&b.name, b.modified)));
    found
}

async fn only_version(store: &Store, name: &str) -> ObjectVersion {
    let found = versions(store, name).await;
    assert_eq!(found.len(), 1, "{found:?}");
    found.into_iter().next().unwrap()
}

/// The lock that an object gets whose storing began at `begun` and is over by now.
fn is_as_asked(lock: ObjectLock, mode: LockMode, begun: Timestamp) -> bool {
    let duration = SignedDuration::from_hours(24 * i64::from(DAYS));
    let (from, to) = (begun + duration, Timestamp::now() + duration + SignedDuration::from_secs(1));
    lock.mode == mode && lock.until >= from && lock.until <= to
}

#[test]
fn objects_are_locked_and_their_locks_hold() {
    let sandbox = Sandbox::new().unwrap();
    let server = S3Server::start(&sandbox).unwrap();
    server.client().create_locked_bucket("locked").unwrap();
    server.client().create_bucket("plain").unwrap();
    run(async {
        a_bucket_says_what_it_is_set_up_for(&server).await;
        every_way_of_writing_locks(&server).await;
        a_lock_grows_and_never_shrinks(&server).await;
        what_has_lapsed_is_deleted_and_nothing_newer_with_it(&server).await;
        a_bucket_without_object_lock_is_told(&server).await;
        pending_uploads_are_found_and_ended(&server).await;
        long_lists_of_versions_are_complete(&server).await;
        flawed_bodies_are_refused(&server).await;
        a_lock_that_the_server_drops_is_set_afterwards(&server).await;
        of_sixteen_rivals_one_wins_and_none_is_lied_to(&server).await;
        a_rival_with_another_content_is_told(&server).await;
        what_was_there_without_a_lock_gets_one(&server).await;
    });
}

async fn a_bucket_says_what_it_is_set_up_for(server: &S3Server) {
    let (locked, plain) = (open(server, "locked", None), open(server, "plain", None));
    assert_eq!(locked.versioning().await.unwrap(), Versioning::On);
    assert_eq!(plain.versioning().await.unwrap(), Versioning::Off);
    assert_eq!(locked.lock_configuration().await.unwrap(), BucketLock::On { default: None });
    assert_eq!(plain.lock_configuration().await.unwrap(), BucketLock::Off);
    let before = Timestamp::now() - SignedDuration::from_secs(1);
    let told = locked.server_time().await.unwrap().unwrap();
    assert!(before <= told && told <= Timestamp::now(), "{told}");
    let missing = open(server, "no-such-bucket", None);
    for error in [missing.versioning().await.unwrap_err(), missing.lock_configuration().await.unwrap_err()] {
        assert!(matches!(error, StoreError::Misconfigured { .. }), "{error:?}");
    }
}

async fn every_way_of_writing_locks(server: &S3Server) {
    for mode in [LockMode::Compliance, LockMode::Governance] {
        let store = open(server, "locked", Some(mode));
        let (single, parts) = (key(&format!("{mode}-single")), key(&format!("{mode}-parts")));
        let begun = Timestamp::now();
        assert_eq!(store.create(&single, Bytes::from_static(b"x").into()).await.unwrap(), Created::Stored);
        let mut upload = store.upload(&parts).await.unwrap();
        upload.put_part(vec![7; 9 * MIB].into()).await.unwrap();
        upload.finish().await.unwrap();
        for object in [single, parts] {
            let found = only_version(&store, object.as_str()).await;
            assert!(matches!(found.kind, VersionKind::Object { .. }) && found.is_latest);
            let lock = store.lock_of(&found.name, &found.version).await.unwrap().unwrap();
            assert!(is_as_asked(lock, mode, begun), "{object}: {lock}");
            // The answer to a read tells it as well.
            let (opened, _) = store.open_object(&object, 0..1).await.unwrap();
            assert_eq!((opened.lock(), opened.version()), (Some(Some(lock)), Some(&found.version)));
            assert_eq!(store.delete_version(&found.name, &found.version).await.unwrap(), Deletion::Locked);
            assert!(store.get_version(&found.name, &found.version, 9 * MIB as u64).await.is_ok());
        }
        let trial = key(&format!("{mode}-trial"));
        store.unlocked().create(&trial, Bytes::from_static(b"x").into()).await.unwrap();
        let found = only_version(&store, trial.as_str()).await;
        assert_eq!(store.lock_of(&found.name, &found.version).await.unwrap(), None);
        assert_eq!(store.delete_version(&found.name, &found.version).await.unwrap(), Deletion::Deleted);
        assert_eq!(store.delete_version(&found.name, &found.version).await.unwrap(), Deletion::Deleted);
        assert!(store.get_version(&found.name, &found.version, 10).await.unwrap_err().is_absent());
        assert_eq!(versions(&store, trial.as_str()).await, []);
    }
}

async fn a_lock_grows_and_never_shrinks(server: &S3Server) {
    let store = open(server, "locked", Some(LockMode::Governance));
    let object = key("grows");
    store.create(&object, Bytes::from_static(b"x").into()).await.unwrap();
    let found = only_version(&store, object.as_str()).await;
    let (name, version) = (found.name.as_str(), &found.version);
    let first = store.lock_of(name, version).await.unwrap().unwrap();

    let shorter = ObjectLock { until: first.until - SignedDuration::from_hours(24), ..first };
    assert_eq!(store.extend_lock(name, version, shorter).await.unwrap(), first);
    assert_eq!(store.lock_of(name, version).await.unwrap(), Some(first));

    let longer = ObjectLock { until: first.until + SignedDuration::from_hours(24), ..first };
    assert_eq!(store.extend_lock(name, version, longer).await.unwrap(), longer);
    assert_eq!(store.lock_of(name, version).await.unwrap(), Some(longer));
    assert_eq!(store.delete_version(name, version).await.unwrap(), Deletion::Locked);

    // What never had a lock gets one.
    let bare = key("bare");
    store.unlocked().create(&bare, Bytes::from_static(b"x").into()).await.unwrap();
    let found = only_version(&store, bare.as_str()).await;
    assert_eq!(store.extend_lock(&found.name, &found.version, longer).await.unwrap(), longer);
    assert_eq!(store.delete_version(&found.name, &found.version).await.unwrap(), Deletion::Locked);
}

/// The server's clock can't be moved: this one waits for a lock of seconds to lapse.
async fn what_has_lapsed_is_deleted_and_nothing_newer_with_it(server: &S3Server) {
    // A server that is taken at its word lets the new content be written after the deletion.
    let store = open(server, "locked", Some(LockMode::Compliance)).with_guarantees(Guarantees::all());
    let week = SignedDuration::from_hours(24 * i64::from(DAYS));
    let soon = Timestamp::now() + SignedDuration::from_secs(3);
    let object = key("lapses");
    let early = store.with_clock(Clock::Fixed(soon - week));
    early.create(&object, Bytes::from_static(b"old").into()).await.unwrap();
    let old = only_version(&store, object.as_str()).await;
    assert_eq!(store.delete_version(&old.name, &old.version).await.unwrap(), Deletion::Locked);
    // A plain deletion puts a marker in front; what comes then is a newer version.
    store.delete(&object).await.unwrap();
    store.create(&object, Bytes::from_static(b"new").into()).await.unwrap();
    let all = versions(&store, object.as_str()).await;
    assert_eq!(all.iter().filter(|version| version.kind == VersionKind::DeleteMarker).count(), 1, "{all:?}");
    assert_eq!(all.len(), 3);
    assert_eq!(store.get_version(&old.name, &old.version, 10).await.unwrap(), "old");

    let deadline = Timestamp::now() + SignedDuration::from_secs(30);
    while store.delete_version(&old.name, &old.version).await.unwrap() == Deletion::Locked {
        assert!(Timestamp::now() < deadline, "the lock does not lapse");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(Timestamp::now() >= soon, "deleted before its time");
    let marker = all.iter().find(|version| version.kind == VersionKind::DeleteMarker).unwrap();
    assert_eq!(store.delete_version(&marker.name, &marker.version).await.unwrap(), Deletion::Deleted);
    let left = only_version(&store, object.as_str()).await;
    assert!(left.is_latest);
    assert_eq!(store.get(&object, 10).await.unwrap(), "new");
}

async fn a_bucket_without_object_lock_is_told(server: &S3Server) {
    let store = open(server, "plain", Some(LockMode::Compliance));
    let one = store.create(&key("x"), Bytes::from_static(b"x").into()).await.unwrap_err();
    let other = match store.upload(&key("y")).await {
        Err(error) => error,
        Ok(mut upload) => {
            upload.put_part(Bytes::from_static(b"y")).await.unwrap();
            upload.finish().await.unwrap_err()
        }
    };
    for error in [one, other] {
        assert!(matches!(error, StoreError::Misconfigured { .. }), "{error:?}");
        assert!(error.to_string().contains("mode = \"none\""), "{error}");
    }
}

async fn pending_uploads_are_found_and_ended(server: &S3Server) {
    let store = open(server, "locked", None);
    for number in 0..3 {
        let path = format!("/locked/one/cluster/check/pending-{number}");
        server.client().request("POST", &path, &[("uploads", "")], &[], b"").unwrap().success().unwrap();
    }
    let found = store.pending_uploads("check/pending-").await.unwrap();
    let mut names: Vec<&str> = found.iter().map(|upload| upload.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["check/pending-0", "check/pending-1", "check/pending-2"]);
    for upload in &found {
        let age = Timestamp::now().duration_since(upload.begun);
        assert!(age.abs() < SignedDuration::from_mins(2), "{age}");
        store.abort_pending(upload).await.unwrap();
        store.abort_pending(upload).await.unwrap();
    }
    assert_eq!(store.pending_uploads("").await.unwrap(), []);
}

async fn long_lists_of_versions_are_complete(server: &S3Server) {
    let store = open(server, "locked", None);
    futures::stream::iter((0..1100).map(Ok))
        .try_for_each_concurrent(16, |n| {
            let store = store.clone();
            async move {
                let object = key(&format!("many-{n:04}"));
                store.create(&object, Bytes::from_static(b"x").into()).await.map(|_| ())
            }
        })
        .await
        .unwrap();
    let names: Vec<String> =
        versions(&store, "check/many-").await.into_iter().map(|version| version.name).collect();
    let expected: Vec<String> = (0..1100).map(|n| format!("check/many-{n:04}")).collect();
    assert_eq!(names, expected);
}

/// What the trials of `wald repo check` rest on.
async fn flawed_bodies_are_refused(server: &S3Server) {
    let store = open(server, "locked", None);
    assert!(store.refuses(&key("flawed"), Flaw::Checksum).await.unwrap());
    // SeaweedFS 4.48 takes the signed digest without a look at the body.
    let _ = store.refuses(&key("flawed"), Flaw::Signature).await.unwrap();
    assert_eq!(versions(&store, "check/flawed").await, []);
    assert_eq!(store.pending_uploads("").await.unwrap(), []);
}

async fn a_lock_that_the_server_drops_is_set_afterwards(server: &S3Server) {
    let careful = open(server, "locked", Some(LockMode::Compliance));
    let trusting = careful.with_guarantees(Guarantees::all());
    for (store, name) in [(careful, "careful"), (trusting, "trusting")] {
        let faults = Faults::none();
        let faulty = store.with_faults(&faults);
        let begun = Timestamp::now();
        faults.once(Operation::Create, Fault::LockDropped);
        let single = key(&format!("dropped-{name}-single"));
        assert_eq!(faulty.create(&single, Bytes::from_static(b"x").into()).await.unwrap(), Created::Stored);
        faults.once(Operation::Upload, Fault::LockDropped);
        let parts = key(&format!("dropped-{name}-parts"));
        let mut upload = faulty.upload(&parts).await.unwrap();
        upload.put_part(vec![7; 9 * MIB].into()).await.unwrap();
        upload.finish().await.unwrap();
        assert_eq!(faults.injected(), 2);
        for object in [single, parts] {
            let found = only_version(&store, object.as_str()).await;
            let lock = store.lock_of(&found.name, &found.version).await.unwrap();
            let locked = lock.is_some_and(|lock| is_as_asked(lock, LockMode::Compliance, begun));
            assert_eq!(locked, name == "careful", "{object}: {lock:?}");
        }
    }
}

async fn of_sixteen_rivals_one_wins_and_none_is_lied_to(server: &S3Server) {
    for (round, same) in [(0, false), (1, true)] {
        let store = open(server, "locked", Some(LockMode::Governance)).with_guarantees(Guarantees::none());
        let object = key(&format!("race-{round}"));
        let tries = (0..16u8).map(|n| {
            let (store, object) = (store.clone(), object.clone());
            let body = vec![if same { 1 } else { n }; 50_000];
            tokio::spawn(async move { store.create(&object, Bytes::from(body).into()).await })
        });
        let outcomes: Vec<_> =
            futures::future::join_all(tries).await.into_iter().map(|outcome| outcome.unwrap()).collect();
        let won = |outcome: &Result<Created, StoreError>| matches!(outcome, Ok(Created::Stored));
        assert_eq!(outcomes.iter().filter(|outcome| won(outcome)).count(), 1, "{outcomes:?}");
        let winner = outcomes.iter().position(won).unwrap();
        let stored = store.get(&object, 50_000).await.unwrap();
        assert!(stored.iter().all(|byte| same || usize::from(*byte) == winner));
        let found = only_version(&store, object.as_str()).await;
        assert!(store.lock_of(&found.name, &found.version).await.unwrap().is_some());
    }
}

async fn what_was_there_without_a_lock_gets_one(server: &S3Server) {
    let store = open(server, "locked", Some(LockMode::Governance)).with_guarantees(Guarantees::all());
    let object = key("unlocked-before");
    let body = || Bytes::from_static(b"x").into();
    store.unlocked().create(&object, body()).await.unwrap();
    let found = only_version(&store, object.as_str()).await;
    let lock = async || store.lock_of(&found.name, &found.version).await.unwrap();
    assert_eq!(lock().await, None);
    let begun = Timestamp::now();
    assert_eq!(store.create(&object, body()).await.unwrap(), Created::Exists);
    let first = lock().await.unwrap();
    assert!(is_as_asked(first, LockMode::Governance, begun), "{first}");
    // A moment later it is long enough, and two days later it is not.
    let later = |hours| store.with_clock(Clock::Fixed(begun + SignedDuration::from_hours(hours)));
    assert_eq!(later(1).create(&object, body()).await.unwrap(), Created::Exists);
    assert_eq!(lock().await, Some(first));
    assert_eq!(later(48).create(&object, body()).await.unwrap(), Created::Exists);
    assert!(lock().await.unwrap().until > first.until);
}

/// This server keeps the second of two away, unless the first hides behind a delete marker. Then it
/// is as on a server that knows no "only if absent".
async fn a_rival_with_another_content_is_told(server: &S3Server) {
    let store = open(server, "locked", Some(LockMode::Governance)).with_guarantees(Guarantees::none());
    let body = |text: &'static [u8]| Bytes::from_static(text).into();
    let object = key("contested");
    assert_eq!(store.create(&object, body(b"theirs")).await.unwrap(), Created::Stored);
    let theirs = only_version(&store, object.as_str()).await.version;
    store.delete(&object).await.unwrap();
    // And again: what is stored now is what was to be stored, and still it is no success.
    for _ in 0..2 {
        match store.create(&object, body(b"ours!!")).await.unwrap_err() {
            StoreError::Contested { other, .. } => assert_eq!(other, theirs),
            error => panic!("{error:?}"),
        }
    }
    assert_eq!(store.get_version(object.as_str(), &theirs, 10).await.unwrap(), "theirs");
    // A plain read gives the one who came too late; nobody was told that it is stored.
    assert_eq!(store.get(&object, 10).await.unwrap(), "ours!!");
    match store.get_judged(&object, 10, &Sameness::of_bytes()).await.unwrap_err() {
        StoreError::Contested { ours, .. } => assert_eq!(ours, theirs),
        error => panic!("{error:?}"),
    }
    let agreed = Sameness::judged(10, |_, _| std::future::ready(true));
    assert_eq!(store.get_judged(&object, 10, &agreed).await.unwrap(), "theirs");
    let again = store.create_judged(&object, body(b"ours!!"), &agreed).await;
    assert_eq!(again.unwrap(), Created::Exists);
    assert_eq!(versions(&store, object.as_str()).await.len(), 3);

    let object = key("agreed");
    assert_eq!(store.create(&object, body(b"same")).await.unwrap(), Created::Stored);
    store.delete(&object).await.unwrap();
    assert_eq!(store.create(&object, body(b"same")).await.unwrap(), Created::Exists);
}

/// Everything that a run leaves in the bucket, whatever part of wald wrote it.
#[test]
fn each_object_of_a_backup_and_its_wal_is_locked_and_stays() -> anyhow::Result<()> {
    let settings = Settings::new().set_text("repository.lock", "mode", "governance");
    let mut scene = Scene::open(Plot { on_s3: true, settings, ..Plot::small() })?;
    let begun = Timestamp::now() - SignedDuration::from_mins(10);
    scene.write_segments(3)?;
    scene.agent.succeed(&["backup"])?;
    scene.write_segments(3)?;
    scene.cluster.wait_archived()?;

    let server = scene.server.as_ref().context("a server")?;
    let mut options = options(server, &format!("wald-scene/{PREFIX}"));
    options.lock = None;
    let store = Store::open(&options)?;
    run(async {
        let found = versions(&store, "").await;
        let kinds: BTreeSet<&str> =
            found.iter().filter_map(|version| version.name.split('/').next()).collect();
        assert!(
            kinds.contains("wal") && kinds.contains("catalog") && kinds.contains("wald.json"),
            "{kinds:?}"
        );
        assert!(found.iter().any(|version| version.name.ends_with("/backup_manifest")), "{found:?}");
        assert!(found.iter().any(|version| version.name.ends_with("/base-0001.tar.zst")), "{found:?}");
        for version in found.iter().filter(|version| !version.name.starts_with("check/")) {
            let name = &version.name;
            let lock = store.lock_of(name, &version.version).await.unwrap();
            let lock = lock.unwrap_or_else(|| panic!("{name} has no lock"));
            assert!(is_as_asked(lock, LockMode::Governance, begun), "{name}: {lock}");
            assert_eq!(
                store.delete_version(name, &version.version).await.unwrap(),
                Deletion::Locked,
                "{name}"
            );
        }
    });
    Ok(())
}
