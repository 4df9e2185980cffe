//! What every kind of repository promises, on memory, a directory and a real S3 server: one
//! suite, run unchanged on each.
// Clippy knows tests by their attribute, and the steps of a suite carry none.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use wald::clock::Clock;
use wald::repository::{check, init};
use wald::store::fault::{Fault, Faults};
use wald::store::{AwsEnvironment, Created, Guarantees, Operation, Store, StoreError, StoreOptions};
use wald_core::identity::Identity;
use wald_core::object_key::ObjectKey;
use wald_core::segment::SegmentSize;
use wald_core::system_id::SystemId;
use wald_integration::sandbox::Sandbox;
use wald_integration::seaweed::{ACCESS_KEY, S3Server, SECRET_KEY};

const MIB: usize = 1 << 20;

fn key(name: &str) -> ObjectKey {
    ObjectKey::check(name).unwrap()
}

/// Bytes that neither repeat nor compress.
fn noise(length: usize, seed: u64) -> Bytes {
    let mut state = seed;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&state.rotate_left(29).to_le_bytes());
    }
    bytes.truncate(length);
    bytes.into()
}

async fn names(store: &Store, prefix: &str) -> BTreeSet<String> {
    store.list(prefix).map_ok(|object| object.name).try_collect().await.unwrap()
}

async fn contract(store: &Store) {
    nothing_is_there_at_first(store).await;
    the_first_creation_stays(store).await;
    reads_are_whole_partial_and_bounded(store).await;
    an_empty_object_is_an_object(store).await;
    large_objects_are_read_in_ranges(store).await;
    listings_are_complete(store).await;
    uploads_appear_at_their_end(store).await;
    uploads_that_do_not_finish_leave_nothing(store).await;
    an_upload_never_replaces_an_object(store).await;
    deleting_twice_is_no_error(store).await;
    of_many_creators_one_wins(store).await;
}

async fn nothing_is_there_at_first(store: &Store) {
    assert_eq!(names(store, "").await, BTreeSet::new());
    assert_eq!(names(store, "check/").await, BTreeSet::new());
    let absent = key("absent");
    assert!(store.get(&absent, 10).await.unwrap_err().is_absent());
    assert!(store.get_start(&absent, 10).await.unwrap_err().is_absent());
    assert!(store.get_start(&absent, 0).await.unwrap_err().is_absent());
    assert!(store.stat(&absent).await.unwrap_err().is_absent());
    assert!(store.get_stream(&absent).await.err().unwrap().is_absent());
}

async fn the_first_creation_stays(store: &Store) {
    let key = key("first");
    assert_eq!(store.create(&key, Bytes::from_static(b"first").into()).await.unwrap(), Created::Stored);
    assert_eq!(store.create(&key, Bytes::from_static(b"second").into()).await.unwrap(), Created::Exists);
    assert_eq!(store.create(&key, Bytes::from_static(b"first").into()).await.unwrap(), Created::Exists);
    assert_eq!(store.get(&key, 100).await.unwrap(), "first");
}

async fn reads_are_whole_partial_and_bounded(store: &Store) {
    let key = key("reads");
    let bytes = noise(100_000, 1);
    store.create(&key, bytes.clone().into()).await.unwrap();
    assert_eq!(store.get(&key, 100_000).await.unwrap(), bytes);
    assert_eq!(store.get_start(&key, 64).await.unwrap(), bytes.slice(..64));
    assert_eq!(store.get_start(&key, 0).await.unwrap(), "");
    assert_eq!(store.get_start(&key, 100_000).await.unwrap(), bytes);
    assert_eq!(store.get_start(&key, 100_001).await.unwrap(), bytes);
    for limit in [0, 1, 99_999] {
        let error = store.get(&key, limit).await.unwrap_err();
        assert!(
            matches!(error, StoreError::TooLarge { size_bytes: 100_000, max_bytes, .. } if max_bytes == limit),
            "{error}"
        );
    }
    let stat = store.stat(&key).await.unwrap();
    assert_eq!(stat.size_bytes, 100_000);
    let age = jiff::Timestamp::now().duration_since(stat.modified);
    assert!(age.abs() < jiff::SignedDuration::from_mins(2), "{age}");
}

async fn an_empty_object_is_an_object(store: &Store) {
    let key = key("empty");
    assert_eq!(store.create(&key, Bytes::new().into()).await.unwrap(), Created::Stored);
    assert_eq!(store.get(&key, 10).await.unwrap(), "");
    assert_eq!(store.get(&key, 0).await.unwrap(), "");
    assert_eq!(store.get_start(&key, 10).await.unwrap(), "");
    assert_eq!(store.stat(&key).await.unwrap().size_bytes, 0);
    let stream = store.get_stream(&key).await.unwrap();
    assert_eq!(stream.size_bytes(), 0);
    assert_eq!(stream.try_collect::<Vec<_>>().await.unwrap().concat(), b"");
}

async fn large_objects_are_read_in_ranges(store: &Store) {
    for (name, length) in [("range-16", 16 * MIB), ("range-17", 17 * MIB + 1)] {
        let bytes = noise(length, 2);
        let key = key(name);
        store.create(&key, bytes.clone().into()).await.unwrap();
        assert!(store.get(&key, length as u64).await.unwrap() == bytes);
        assert!(store.get_start(&key, 9 * MIB as u64).await.unwrap() == bytes.slice(..9 * MIB));
        let mut stream = store.get_stream(&key).await.unwrap();
        assert_eq!(stream.size_bytes(), length as u64);
        let mut whole = Vec::new();
        while let Some(part) = stream.next().await {
            whole.extend_from_slice(&part.unwrap());
        }
        assert!(whole == bytes);
    }
}

async fn listings_are_complete(store: &Store) {
    let expected: BTreeSet<String> = (0..1100).map(|n| format!("check/many-{n:04}")).collect();
    futures::stream::iter(0..1100)
        .for_each_concurrent(16, |n| async move {
            store.create(&key(&format!("many-{n:04}")), Bytes::from_static(b"x").into()).await.unwrap();
        })
        .await;
    assert_eq!(names(store, "check/many-").await, expected);
    assert!(names(store, "check/").await.is_superset(&expected));
    assert!(names(store, "").await.is_superset(&expected));
    let hundred: BTreeSet<String> = (0..100).map(|n| format!("check/many-{n:04}")).collect();
    assert_eq!(names(store, "check/many-00").await, hundred);
    assert_eq!(names(store, "chec").await, names(store, "check/").await);
    assert_eq!(names(store, "check/nothing-").await, BTreeSet::new());
    assert_eq!(names(store, "no/such/folder/").await, BTreeSet::new());
    let sizes: Vec<u64> =
        store.list("check/many-").map_ok(|object| object.stat.size_bytes).try_collect().await.unwrap();
    assert!(sizes.iter().all(|size| *size == 1));
}

async fn uploads_appear_at_their_end(store: &Store) {
    for (name, lengths) in [
        ("upload-parts", vec![3 * MIB, 9 * MIB, 1, 70 * MIB, 5]),
        ("upload-small", vec![10]),
        ("upload-empty", vec![]),
        ("upload-border", vec![8 * MIB]),
    ] {
        let key = key(name);
        let pieces: Vec<Bytes> = lengths.iter().zip(7..).map(|(length, seed)| noise(*length, seed)).collect();
        let mut upload = store.upload(&key).await.unwrap();
        for piece in &pieces {
            upload.put_part(piece.clone()).await.unwrap();
        }
        assert!(store.stat(&key).await.unwrap_err().is_absent(), "{name} shows before its end");
        assert_eq!(names(store, &format!("check/{name}")).await, BTreeSet::new());
        let whole = pieces.concat();
        assert_eq!(upload.finish().await.unwrap(), whole.len() as u64, "{name}");
        assert!(store.get(&key, whole.len() as u64).await.unwrap() == whole, "{name}");
    }
}

async fn uploads_that_do_not_finish_leave_nothing(store: &Store) {
    for (name, length) in [("abort-early", 1), ("abort-late", 17 * MIB)] {
        let mut upload = store.upload(&key(name)).await.unwrap();
        upload.put_part(noise(length, 3)).await.unwrap();
        upload.abort().await.unwrap();
        let mut upload = store.upload(&key(name)).await.unwrap();
        upload.put_part(noise(length, 4)).await.unwrap();
        drop(upload);
        assert!(store.stat(&key(name)).await.unwrap_err().is_absent());
        assert_eq!(names(store, "check/abort-").await, BTreeSet::new());
        assert_eq!(
            store.create(&key(name), Bytes::from_static(b"later").into()).await.unwrap(),
            Created::Stored
        );
        store.delete(&key(name)).await.unwrap();
    }
}

async fn an_upload_never_replaces_an_object(store: &Store) {
    let key = key("occupied");
    let mut late = store.upload(&key).await.unwrap();
    late.put_part(Bytes::from_static(b"late")).await.unwrap();
    store.create(&key, Bytes::from_static(b"first").into()).await.unwrap();
    let refused = store.upload(&key).await.err().unwrap();
    assert!(matches!(refused, StoreError::Occupied { .. }), "{refused}");
    let refused = late.finish().await.unwrap_err();
    assert!(matches!(refused, StoreError::Occupied { .. }), "{refused}");
    assert_eq!(store.get(&key, 10).await.unwrap(), "first");
}

async fn deleting_twice_is_no_error(store: &Store) {
    let key = key("delete");
    store.create(&key, Bytes::from_static(b"x").into()).await.unwrap();
    store.delete(&key).await.unwrap();
    assert!(is_gone(&store.get(&key, 1).await.unwrap_err()));
    store.delete(&key).await.unwrap();
}

async fn of_many_creators_one_wins(store: &Store) {
    let key = key("race");
    let tries = (0..8u8).map(|n| {
        let (store, key) = (store.clone(), key.clone());
        tokio::spawn(async move { store.create(&key, Bytes::from(vec![n; 50_000]).into()).await.unwrap() })
    });
    let outcomes = futures::future::join_all(tries).await;
    let winners: Vec<usize> = (0..8).filter(|n| *outcomes[*n].as_ref().unwrap() == Created::Stored).collect();
    assert_eq!(winners.len(), 1, "{outcomes:?}");
    let stored = store.get(&key, 50_000).await.unwrap();
    assert!(stored.iter().all(|byte| usize::from(*byte) == winners[0]));
}

/// The agent's kind of runtime.
fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().unwrap().block_on(test)
}

fn on_s3(server: &S3Server, bucket_and_prefix: &str, secret: &str) -> StoreOptions {
    let mut options = StoreOptions::new(format!("s3://{bucket_and_prefix}"));
    options.s3.endpoint = Some(server.endpoint());
    options.s3.region = Some("us-east-1".to_owned());
    options.s3.path_style = true;
    options.s3.allow_http = true;
    options.s3.environment = AwsEnvironment::with_key_pair(ACCESS_KEY, secret);
    options.retry_timeout = Duration::from_secs(5);
    options
}

#[test]
fn memory_keeps_the_contract() {
    run(async { contract(&Store::memory()).await });
}

#[test]
fn a_store_whose_script_holds_no_faults_keeps_the_contract() {
    run(async { contract(&Store::memory().with_faults(&Faults::none())).await });
}

#[test]
fn a_slow_store_keeps_the_contract() {
    let slow = [Fault::Slow(Duration::from_millis(3))];
    run(async { contract(&Store::memory().with_faults(&Faults::seeded(1, 300, &slow))).await });
}

#[test]
fn a_directory_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&StoreOptions::new(format!("file://{}", dir.path().display()))).unwrap();
    run(contract(&store));
}

#[test]
fn s3_keeps_the_contract_and_says_what_is_wrong() {
    let sandbox = Sandbox::new().unwrap();
    let mut server = S3Server::start(&sandbox).unwrap();
    server.client().create_locked_bucket("locked").unwrap();
    server.client().create_bucket("plain").unwrap();
    run(async {
        // Once taken at its word, but for what SeaweedFS is known not to tell, and once not at all.
        let seen = Guarantees { tells_delete_markers: false, ..Guarantees::all() };
        let trusted = Store::open(&on_s3(&server, "plain", SECRET_KEY)).unwrap().with_guarantees(seen);
        contract(&trusted).await;
        contract(&Store::open(&on_s3(&server, "locked/one/cluster", SECRET_KEY)).unwrap()).await;
        a_delete_marker_does_not_stand_in_the_way(&server).await;
        // The same bucket holds two repositories that do not see each other.
        let other = Store::open(&on_s3(&server, "locked/other", SECRET_KEY)).unwrap();
        nothing_is_there_at_first(&other).await;

        for place in ["plain", "locked/one/cluster"] {
            let store = Store::open(&on_s3(&server, place, SECRET_KEY)).unwrap();
            init(store.clone(), identity()).await.unwrap();
            let report = check(&store, &Clock::System).await;
            assert!(report.is_good(), "{report}");
        }
        for bucket in ["plain", "locked"] {
            no_upload_is_left(&server, bucket).await;
        }

        let no_bucket = Store::open(&on_s3(&server, "no-such-bucket", SECRET_KEY)).unwrap();
        every_operation_fails(&no_bucket, |e| matches!(e, StoreError::Misconfigured { .. })).await;
        let wrong_key = Store::open(&on_s3(&server, "plain", "not-the-secret-key")).unwrap();
        every_operation_fails(&wrong_key, |e| matches!(e, StoreError::Refused { .. })).await;
    });
    let mut options = on_s3(&server, "plain", SECRET_KEY);
    options.retry_timeout = Duration::from_millis(200);
    let store = Store::open(&options).unwrap();
    server.kill().unwrap();
    run(every_operation_fails(&store, |e| matches!(e, StoreError::Unreachable { .. })));
}

/// A plain deletion in a bucket with versions, which a lock does not prevent. Amazon's S3 marks its
/// 404 then (tested with a canned server, in `store/tests.rs`); SeaweedFS up to 4.48 does not, and
/// is asked for the versions.
async fn a_delete_marker_does_not_stand_in_the_way(server: &S3Server) {
    let store = Store::open(&on_s3(server, "locked/versions", SECRET_KEY)).unwrap();
    let (key, body) = (key("deleted"), || Bytes::from_static(b"x"));
    // Whoever looks at the versions finds the same content in the deleted one.
    for created in [Created::Stored, Created::Exists] {
        assert_eq!(store.create(&key, body().into()).await.unwrap(), created);
        assert_eq!(store.get(&key, 1).await.unwrap(), body());
        let path = "/locked/versions/check/deleted";
        server.client().request("DELETE", path, &[], &[], b"").unwrap().success().unwrap();
        for error in [
            store.get(&key, 1).await.unwrap_err(),
            store.get_start(&key, 1).await.unwrap_err(),
            store.get_stream(&key).await.err().unwrap(),
            store.stat(&key).await.unwrap_err(),
        ] {
            assert!(matches!(error, StoreError::Deleted { .. }), "{error:?}");
        }
    }
    let mut upload = store.upload(&key).await.unwrap();
    upload.put_part(body()).await.unwrap();
    assert_eq!(upload.finish().await.unwrap(), 1);
}

/// A bucket with versions keeps what was deleted, and may say so.
fn is_gone(error: &StoreError) -> bool {
    error.is_absent() || matches!(error, StoreError::Deleted { .. })
}

fn identity() -> Identity {
    let system = SystemId::new(7_654_321).unwrap();
    Identity::new(system, SegmentSize::DEFAULT, jiff::Timestamp::now(), "suite")
}

/// Aborted and dropped uploads end: what they leave is invisible, and is paid for.
async fn no_upload_is_left(server: &S3Server, bucket: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let path = format!("/{bucket}");
        let answer = server.client().request("GET", &path, &[("uploads", "")], &[], b"").unwrap();
        let body = String::from_utf8(answer.success().unwrap().body).unwrap();
        assert!(body.contains("ListMultipartUploadsResult"), "{body}");
        if !body.contains("<UploadId>") {
            return;
        }
        assert!(Instant::now() < deadline, "{body}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Every operation ends with the wanted error and with no claim about any object.
async fn every_operation_fails(store: &Store, wanted: impl Fn(&StoreError) -> bool) {
    let key = key("first");
    let errors = [
        store.create(&key, Bytes::from_static(b"x").into()).await.unwrap_err(),
        store.get(&key, 100).await.unwrap_err(),
        store.get_start(&key, 100).await.unwrap_err(),
        store.get_stream(&key).await.err().unwrap(),
        store.stat(&key).await.unwrap_err(),
        store.upload(&key).await.err().unwrap(),
        store.list("check/").try_collect::<Vec<_>>().await.unwrap_err(),
        store.list("").try_collect::<Vec<_>>().await.unwrap_err(),
        store.delete(&key).await.unwrap_err(),
    ];
    for (place, error) in errors.iter().enumerate() {
        assert!(wanted(error), "operation {place}: {error:?}");
        let text = format!("{error} {error:?}");
        assert!(!text.contains(SECRET_KEY) && !text.contains("not-the-secret-key"), "{text}");
    }
}

#[test]
fn a_directory_that_went_away_is_unreachable_and_not_empty() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("repository");
    std::fs::create_dir(&root).unwrap();
    let store = Store::open(&StoreOptions::new(format!("file://{}", root.display()))).unwrap();
    let unreachable = |e: &StoreError| matches!(e, StoreError::Unreachable { .. });
    run(async {
        store.create(&ObjectKey::identity(), Bytes::from_static(b"{}").into()).await.unwrap();
        store.create(&key("first"), Bytes::from_static(b"x").into()).await.unwrap();

        let away = dir.path().join("away");
        std::fs::rename(&root, &away).unwrap();
        every_operation_fails(&store, unreachable).await;
        assert!(!root.exists(), "the repository was made again on the wrong disk");

        // An empty mount point is what an unmounted disk leaves behind.
        std::fs::create_dir(&root).unwrap();
        every_operation_fails(&store, unreachable).await;
        assert_eq!(std::fs::read_dir(&root).unwrap().count(), 0);

        // The disk comes back, as another device.
        std::fs::remove_dir(&root).unwrap();
        std::fs::create_dir(&root).unwrap();
        std::fs::copy(away.join("wald.json"), root.join("wald.json")).unwrap();
        assert!(store.get(&key("first"), 1).await.unwrap_err().is_absent());
        assert_eq!(store.get(&ObjectKey::identity(), 10).await.unwrap(), "{}");
    });
}

#[test]
fn what_stands_in_the_way_in_a_directory_is_not_absence() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&StoreOptions::new(format!("file://{}", dir.path().display()))).unwrap();
    let unreachable = |e: &StoreError| matches!(e, StoreError::Unreachable { .. });
    run(async {
        // A file where a folder belongs.
        std::fs::write(dir.path().join("check"), "").unwrap();
        assert!(unreachable(&store.get(&key("x"), 1).await.unwrap_err()));
        assert!(unreachable(&store.list("check/").try_collect::<Vec<_>>().await.unwrap_err()));
        std::fs::remove_file(dir.path().join("check")).unwrap();
        // A link to a disk that is not there.
        std::os::unix::fs::symlink(dir.path().join("gone"), dir.path().join("check")).unwrap();
        assert!(unreachable(&store.get(&key("x"), 1).await.unwrap_err()));
        assert!(unreachable(&store.stat(&key("x")).await.unwrap_err()));
        assert!(unreachable(&store.list("check/").try_collect::<Vec<_>>().await.unwrap_err()));
        std::fs::remove_file(dir.path().join("check")).unwrap();
        // A folder where a file belongs.
        std::fs::create_dir_all(dir.path().join("check/x")).unwrap();
        assert!(unreachable(&store.get(&key("x"), 1).await.unwrap_err()));
        let created = store.create(&key("x"), Bytes::from_static(b"x").into()).await;
        assert!(unreachable(&created.unwrap_err()));
    });
}

#[test]
fn a_missing_directory_is_not_opened() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("file://{}", dir.path().join("missing").display());
    let error = Store::open(&StoreOptions::new(url)).unwrap_err();
    assert!(matches!(error, StoreError::Misconfigured { .. }), "{error}");
}

#[test]
fn faults_are_what_they_are_called() {
    run(async {
        let faults = Faults::none();
        let plain = Store::memory();
        let store = plain.with_faults(&faults);
        let body = || Bytes::from_static(b"body").into();

        faults.once(Operation::Create, Fault::AnswerLost);
        assert!(matches!(store.create(&key("lost"), body()).await, Err(StoreError::Unreachable { .. })));
        assert_eq!(plain.get(&key("lost"), 10).await.unwrap(), "body");
        assert_eq!(store.create(&key("lost"), body()).await.unwrap(), Created::Exists);

        faults.once(Operation::Create, Fault::ExistsWithoutObject);
        assert_eq!(store.create(&key("none"), body()).await.unwrap(), Created::Exists);
        assert!(store.get(&key("none"), 10).await.unwrap_err().is_absent());

        faults.once(Operation::Read, Fault::CorruptRead);
        assert_eq!(store.get(&key("lost"), 10).await.unwrap(), "boey");
        assert_eq!(store.get(&key("lost"), 10).await.unwrap(), "body");

        faults.once(Operation::Read, Fault::NotFoundByProxy);
        assert!(matches!(store.get(&key("lost"), 10).await, Err(StoreError::Unreachable { .. })));

        store.create(&key("second"), body()).await.unwrap();
        faults.once(Operation::List, Fault::AnswerLost);
        let listed: Vec<_> = store.list("check/").collect().await;
        assert!(listed.last().unwrap().is_err(), "{listed:?}");

        faults.cut();
        every_operation_fails(&store, |e| matches!(e, StoreError::Unreachable { .. })).await;
        faults.clear();
        assert_eq!(store.get(&key("lost"), 10).await.unwrap(), "body");
        assert!(faults.injected() > 10);
    });
}

#[test]
fn an_upload_with_a_lost_part_fails_and_leaves_nothing() {
    run(async {
        let faults = Faults::none();
        let store = Store::memory().with_faults(&faults);
        let mut upload = store.upload(&key("broken")).await.unwrap();
        faults.once(Operation::Upload, Fault::Unreachable);
        let sent = async {
            upload.put_part(noise(40 * MIB, 1)).await?;
            upload.finish().await
        };
        assert!(matches!(sent.await, Err(StoreError::Unreachable { .. })));
        assert!(store.get(&key("broken"), 1).await.unwrap_err().is_absent());
    });
}

#[test]
fn an_upload_whose_last_answer_is_lost_is_still_complete() {
    run(async {
        let faults = Faults::none();
        let store = Store::memory().with_faults(&faults);
        let bytes = noise(9 * MIB, 1);
        let mut upload = store.upload(&key("lost")).await.unwrap();
        upload.put_part(bytes.clone()).await.unwrap();
        // Two parts come first: the rest of the second is sent by `finish`.
        faults.once(Operation::Upload, Fault::Slow(Duration::from_millis(1)));
        faults.once(Operation::Upload, Fault::AnswerLost);
        assert_eq!(upload.finish().await.unwrap(), bytes.len() as u64);
        assert!(store.get(&key("lost"), 9 * MIB as u64).await.unwrap() == bytes);
        assert_eq!(faults.injected(), 2);
    });
}

#[test]
fn an_upload_that_never_completes_fails() {
    run(async {
        let faults = Faults::none();
        let store = Store::memory().with_faults(&faults);
        let mut upload = store.upload(&key("never")).await.unwrap();
        upload.put_part(noise(9 * MIB, 1)).await.unwrap();
        faults.once(Operation::Upload, Fault::Slow(Duration::from_millis(1)));
        faults.once(Operation::Upload, Fault::Unreachable);
        assert!(matches!(upload.finish().await, Err(StoreError::Unreachable { .. })));
        assert!(store.get(&key("never"), 1).await.unwrap_err().is_absent());
    });
}
