//! How the answers to wald's own requests are read: lists of versions, retention, deletion.

use super::{SECRET, SpliceHeader, TOKEN, canned, http, key, open, options, s3_error};
use crate::store::{BucketLock, Deletion, Store, StoreError, VersionId, Versioning};
use futures::TryStreamExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use wald_core::object_lock::{LockMode, LockPolicy, ObjectLock};

const NAME: &str = "check/key";

async fn store(answer: impl Fn(usize, &str) -> Vec<u8> + Send + Sync + 'static) -> (Store, super::Canned) {
    let server = canned(answer).await;
    (open(&options(&server.endpoint)), server)
}

fn page(inside: &str) -> Vec<u8> {
    http(
        "200 OK",
        &format!("<?xml version=\"1.0\"?>\n<ListVersionsResult xmlns=\"x\">{inside}</ListVersionsResult>"),
    )
}

fn version(key: &str, id: &str) -> String {
    format!(
        "<Version><Key>{key}</Key><VersionId>{id}</VersionId><IsLatest>true</IsLatest>\
         <LastModified>2026-11-22T21:26:13.123Z</LastModified><ETag>\"e\"</ETag><Size>7</Size>\
         <Owner><ID>o</ID></Owner><StorageClass>STANDARD</StorageClass></Version>"
    )
}

fn marker(key: &str, id: &str) -> String {
    format!(
        "<DeleteMarker><Key>{key}</Key><VersionId>{id}</VersionId><IsLatest>false</IsLatest>\
         <LastModified>2026-11-22T21:26:13Z</LastModified></DeleteMarker>"
    )
}

async fn listed(store: &Store) -> Result<Vec<String>, StoreError> {
    let shown =
        |found: crate::store::ObjectVersion| format!("{} {} {:?}", found.name, found.version, found.kind);
    let mut found: Vec<String> = store.versions("wal/").map_ok(shown).try_collect().await?;
    found.sort();
    Ok(found)
}

#[tokio::test]
async fn versions_are_listed_page_by_page_with_names_as_they_are() {
    let (store, server) = store(|_, head| {
        let request = head.lines().next().unwrap_or_default();
        if request.contains("key-marker=prefix%2Fwal%2Fa%20b%26%2B&version-id-marker=i%2F2") {
            return page(&format!("<IsTruncated>false</IsTruncated>{}", version("prefix/wal/z", "i3")));
        }
        assert!(!request.contains("marker"), "{request}");
        assert!(request.contains("prefix=prefix%2Fwal%2F&") && request.contains("encoding-type=url"), "{request}");
        page(&format!(
            "<EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>\
             <NextKeyMarker>prefix%2Fwal%2Fa+b%26%2B</NextKeyMarker><NextVersionIdMarker>i/2</NextVersionIdMarker>\
             {}{}{}{}",
            version("prefix%2Fwal%2Fa+b%26%2B", "i1"),
            marker("prefix%2Fwal%2Fa+b%26%2B", "i/2"),
            version("prefix%2Fwal%2F%C3%BC", "i4"),
            version("elsewhere%2Fwal%2Fx", "i5"),
        ))
    })
    .await;
    assert_eq!(
        listed(&store).await.unwrap(),
        [
            "wal/a b&+ i/2 DeleteMarker",
            "wal/a b&+ i1 Object { size_bytes: 7 }",
            "wal/z i3 Object { size_bytes: 7 }",
            "wal/ü i4 Object { size_bytes: 7 }",
        ]
    );
    assert_eq!(server.requests.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn what_is_no_whole_list_of_versions_is_an_error() {
    let whole = version("prefix/wal/x", "i");
    let bad = [
        page(""),
        page(&format!("<IsTruncated>true</IsTruncated>{whole}")),
        page(&format!("<IsTruncated>true</IsTruncated><NextKeyMarker></NextKeyMarker>{whole}")),
        page("<IsTruncated>false</IsTruncated><Version><Key>prefix/wal/x</Key></Version>"),
        page("<IsTruncated>false</IsTruncated><EncodingType>base64</EncodingType>"),
        page("<EncodingType>url</EncodingType><IsTruncated>false</IsTruncated>%FF")
            .into_iter()
            .take(30)
            .collect(),
        http("200 OK", "<ListVersionsResult><IsTruncated>false</IsTruncated>"),
        http("200 OK", "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"),
        http("200 OK", "<html>please log in</html>"),
        http("200 OK", ""),
        http("404 Not Found", ""),
        s3_error("404 Not Found", "NoSuchKey"),
        s3_error("503 Slow Down", "SlowDown"),
    ];
    for answer in bad {
        let shown = String::from_utf8_lossy(&answer).into_owned();
        let (store, _server) = store(move |_, _| answer.clone()).await;
        let error = listed(&store).await.unwrap_err();
        let doubt = matches!(error, StoreError::BadAnswer { .. } | StoreError::Unreachable { .. });
        assert!(doubt, "{shown}: {error:?}");
    }
    // The same page for ever.
    let again =
        page(&format!("<IsTruncated>true</IsTruncated><NextKeyMarker>prefix/wal/x</NextKeyMarker>{whole}"));
    let (store, _server) = store(move |_, _| again.clone()).await;
    assert!(matches!(listed(&store).await.unwrap_err(), StoreError::BadAnswer { .. }));
}

fn retention(mode: &str, until: &str) -> Vec<u8> {
    http(
        "200 OK",
        &format!("<Retention><Mode>{mode}</Mode><RetainUntilDate>{until}</RetainUntilDate></Retention>"),
    )
}

fn lock(mode: LockMode, until: &str) -> ObjectLock {
    ObjectLock { mode, until: until.parse().unwrap() }
}

async fn lock_told(answer: Vec<u8>) -> Result<Option<ObjectLock>, StoreError> {
    let (store, server) = store(move |_, _| answer.clone()).await;
    let told = store.lock_of(NAME, &VersionId::new("v+1")).await;
    let head = server.heads.lock().unwrap().concat();
    assert!(head.starts_with("GET /bucket/prefix/check/key?retention=&versionId=v%2B1 "), "{head}");
    told
}

#[tokio::test]
async fn only_the_servers_word_makes_an_object_unlocked() {
    let told = lock_told(retention("GOVERNANCE", "2026-11-29T21:00:00Z")).await.unwrap();
    assert_eq!(told, Some(lock(LockMode::Governance, "2026-11-29T21:00:00Z")));
    assert_eq!(lock_told(s3_error("404 Not Found", "NoSuchObjectLockConfiguration")).await.unwrap(), None);
    let missing = "<Error><Code>InvalidRequest</Code><Message>Bucket is missing Object Lock Configuration</Message></Error>";
    assert_eq!(lock_told(http("400 Bad Request", missing)).await.unwrap(), None);
    assert!(lock_told(s3_error("404 Not Found", "NoSuchVersion")).await.unwrap_err().is_absent());
    for answer in [
        http("404 Not Found", ""),
        http("404 Not Found", "<html>NoSuchObjectLockConfiguration</html>"),
        http("200 OK", ""),
        http("200 OK", "<html>please log in</html>"),
        retention("LEGAL", "2026-11-29T21:00:00Z"),
        retention("GOVERNANCE", "soon"),
        s3_error("500 Internal Server Error", "InternalError"),
    ] {
        let error = lock_told(answer).await.unwrap_err();
        let doubt = matches!(error, StoreError::BadAnswer { .. } | StoreError::Unreachable { .. });
        assert!(doubt, "{error:?}");
    }
    let error = lock_told(s3_error("403 Forbidden", "AccessDenied")).await.unwrap_err();
    assert!(matches!(error, StoreError::Refused { .. }), "{error:?}");
}

#[tokio::test]
async fn a_longer_lock_is_written_and_counts_once_it_is_read_back() {
    let (old, new) = ("2026-11-29T21:00:00Z", "2026-12-09T21:00:00Z");
    for (read_back, is_well) in [(new, true), (old, false)] {
        let written = AtomicBool::new(false);
        let (store, server) = store(move |_, head| {
            if head.starts_with("PUT") {
                written.store(true, Ordering::SeqCst);
                return http("200 OK", "");
            }
            retention("COMPLIANCE", if written.load(Ordering::SeqCst) { read_back } else { old })
        })
        .await;
        // The weaker mode asked for makes the lock no weaker.
        let wanted = lock(LockMode::Governance, new);
        let extended = store.extend_lock(NAME, &VersionId::new("v"), wanted).await;
        match extended {
            Ok(has) => assert!(is_well && has == lock(LockMode::Compliance, new), "{has}"),
            Err(error) => assert!(!is_well && matches!(error, StoreError::BadAnswer { .. }), "{error:?}"),
        }
        let heads = server.heads.lock().unwrap().clone();
        let put = heads.iter().find(|head| head.starts_with("PUT")).unwrap().to_lowercase();
        assert!(put.starts_with("put /bucket/prefix/check/key?retention=&versionid=v "), "{put}");
        assert!(put.contains("x-amz-checksum-sha256: ") && !put.contains("bypass"), "{put}");
    }
}

#[tokio::test]
async fn a_lock_that_is_long_enough_is_left_alone() {
    let (store, server) = store(|_, _| retention("COMPLIANCE", "2026-12-09T21:00:00Z")).await;
    for wanted in ["2026-12-09T21:00:00Z", "2026-11-29T21:00:00Z"] {
        let has = store.extend_lock(NAME, &VersionId::new("v"), lock(LockMode::Governance, wanted)).await;
        assert_eq!(has.unwrap(), lock(LockMode::Compliance, "2026-12-09T21:00:00Z"));
    }
    assert!(server.heads.lock().unwrap().iter().all(|head| head.starts_with("GET")));
}

#[tokio::test]
async fn a_stronger_mode_that_is_refused_still_gives_the_longer_time_and_an_error() {
    let puts = std::sync::atomic::AtomicUsize::new(0);
    let (store, server) = store(move |_, head| {
        if head.starts_with("PUT") && puts.fetch_add(1, Ordering::SeqCst) == 0 {
            return s3_error("403 Forbidden", "AccessDenied");
        }
        if head.starts_with("PUT") {
            http("200 OK", "")
        } else {
            retention("GOVERNANCE", "2026-11-29T21:00:00Z")
        }
    })
    .await;
    let wanted = lock(LockMode::Compliance, "2026-12-09T21:00:00Z");
    let error = store.extend_lock(NAME, &VersionId::new("v"), wanted).await.unwrap_err();
    assert!(matches!(error, StoreError::Refused { .. }), "{error:?}");
    assert_eq!(server.heads.lock().unwrap().iter().filter(|head| head.starts_with("PUT")).count(), 2);
}

/// What becomes of a deletion that is answered so, of a version that is locked so.
async fn deletion(refusal: Vec<u8>, retained: Vec<u8>, hold: &'static str) -> Result<Deletion, StoreError> {
    let (store, server) = store(move |_, head| {
        if head.starts_with("DELETE") {
            return refusal.clone();
        }
        if head.contains("?legal-hold") {
            return http("200 OK", &format!("<LegalHold><Status>{hold}</Status></LegalHold>"));
        }
        retained.clone()
    })
    .await;
    let outcome = store.delete_version(NAME, &VersionId::new("v")).await;
    let first = server.heads.lock().unwrap()[0].clone();
    assert!(first.starts_with("DELETE /bucket/prefix/check/key?versionId=v "), "{first}");
    assert!(!first.to_lowercase().contains("bypass"), "{first}");
    outcome
}

#[tokio::test]
async fn a_lock_is_told_from_a_missing_right_by_looking_at_it() {
    let unlocked = || s3_error("404 Not Found", "NoSuchObjectLockConfiguration");
    let (held, lapsed) = (
        || retention("GOVERNANCE", "2999-01-01T00:00:00Z"),
        || retention("GOVERNANCE", "2001-01-01T00:00:00Z"),
    );
    for refusal in [
        s3_error("403 Forbidden", "AccessDenied"),
        s3_error("400 Bad Request", "ObjectLocked"),
        s3_error("400 Bad Request", "InvalidRequest"),
    ] {
        assert_eq!(deletion(refusal, held(), "OFF").await.unwrap(), Deletion::Locked);
    }
    for retained in [lapsed(), unlocked(), s3_error("403 Forbidden", "AccessDenied")] {
        let refusal = || s3_error("403 Forbidden", "AccessDenied");
        let error = deletion(refusal(), retained.clone(), "OFF").await.unwrap_err();
        assert!(matches!(error, StoreError::Refused { .. }), "{error:?}");
        assert_eq!(deletion(refusal(), retained, "ON").await.unwrap(), Deletion::Locked);
    }
    // By the server's clock, which is the one that decides.
    let then = s3_error("403 Forbidden", "AccessDenied");
    let then = super::SpliceHeader::splice_header(then, "date: Mon, 01 Jan 2001 00:00:00 GMT");
    let retained = retention("GOVERNANCE", "2001-01-01T00:00:01Z");
    assert_eq!(deletion(then, retained, "OFF").await.unwrap(), Deletion::Locked);
}

#[tokio::test]
async fn a_version_is_deleted_only_if_the_server_says_so() {
    let unlocked = || s3_error("404 Not Found", "NoSuchObjectLockConfiguration");
    for done in [http("204 No Content", ""), s3_error("404 Not Found", "NoSuchVersion")] {
        assert_eq!(deletion(done, unlocked(), "OFF").await.unwrap(), Deletion::Deleted);
    }
    for doubt in [
        http("404 Not Found", "<html>no such page</html>"),
        s3_error("404 Not Found", "NoSuchBucket"),
        s3_error("503 Slow Down", "SlowDown"),
        http("301 Moved", ""),
    ] {
        assert!(deletion(doubt, unlocked(), "OFF").await.is_err());
    }
}

#[tokio::test]
async fn a_stumbling_server_is_asked_again_and_a_refusal_is_not() {
    for (answer, tries) in [
        (s3_error("503 Slow Down", "SlowDown"), 3),
        (s3_error("429 Too Many Requests", "SlowDown"), 3),
        (s3_error("500 Internal Server Error", "InternalError"), 3),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n<Re".to_vec(), 1),
        (s3_error("403 Forbidden", "AccessDenied"), 1),
        (s3_error("501 Not Implemented", "NotImplemented"), 1),
    ] {
        let first = answer.clone();
        let server =
            canned(
                move |request, _| {
                    if request < 2 { first.clone() } else { retention("GOVERNANCE", "2026-11-29T21:00:00Z") }
                },
            )
            .await;
        let mut options = options(&server.endpoint);
        options.retry_timeout = Duration::from_secs(20);
        let told = open(&options).lock_of(NAME, &VersionId::new("v")).await;
        let shown = String::from_utf8_lossy(&answer).into_owned();
        if tries == 3 {
            assert!(told.is_ok(), "{shown}: {told:?}");
            assert_eq!(server.requests.load(Ordering::SeqCst), 3, "{shown}");
        } else if shown.contains("Error>") {
            assert!(told.is_err(), "{shown}: {told:?}");
            assert_eq!(server.requests.load(Ordering::SeqCst), 1, "{shown}");
        }
    }
}

#[tokio::test]
async fn no_message_about_such_a_request_shows_a_secret() {
    let mut shown = String::new();
    for code in ["SignatureDoesNotMatch", "NoSuchBucket", "InternalError", TOKEN, SECRET] {
        let answer = s3_error("403 Forbidden", code);
        let (store, _server) = store(move |_, _| answer.clone()).await;
        for error in [
            store.lock_of(NAME, &VersionId::new("v")).await.unwrap_err(),
            store.delete_version(NAME, &VersionId::new("v")).await.unwrap_err(),
            store.pending_uploads("").await.unwrap_err(),
            store.versioning().await.unwrap_err(),
            listed(&store).await.unwrap_err(),
        ] {
            shown += &format!("{error} {error:?} {}\n", crate::explain::chain(&error));
        }
    }
    assert!(shown.contains("SignatureDoesNotMatch"), "the test looks at nothing: {shown}");
    assert!(!shown.contains(SECRET) && !shown.contains(TOKEN), "{shown}");
}

#[tokio::test]
async fn a_buckets_settings_are_what_the_server_says() {
    let versioning = async |answer: Vec<u8>| store(move |_, _| answer.clone()).await.0.versioning().await;
    let configured = |inside: &str| {
        http("200 OK", &format!("<VersioningConfiguration xmlns=\"x\">{inside}</VersioningConfiguration>"))
    };
    assert_eq!(versioning(configured("<Status>Enabled</Status>")).await.unwrap(), Versioning::On);
    assert_eq!(versioning(configured("<Status>Suspended</Status>")).await.unwrap(), Versioning::Suspended);
    assert_eq!(versioning(configured("")).await.unwrap(), Versioning::Off);
    assert_eq!(versioning(http("200 OK", "<VersioningConfiguration/>")).await.unwrap(), Versioning::Off);
    let none = s3_error("501 Not Implemented", "NotImplemented");
    assert_eq!(versioning(none).await.unwrap(), Versioning::NotOffered);
    assert!(versioning(http("200 OK", "<html>please log in</html>")).await.is_err());
    assert!(versioning(configured("<Status>Perhaps</Status>")).await.is_err());

    let locking =
        async |answer: Vec<u8>| store(move |_, _| answer.clone()).await.0.lock_configuration().await;
    let configured = |inside: &str| {
        http("200 OK", &format!("<ObjectLockConfiguration xmlns=\"x\">{inside}</ObjectLockConfiguration>"))
    };
    let enabled = "<ObjectLockEnabled>Enabled</ObjectLockEnabled>";
    assert_eq!(locking(configured(enabled)).await.unwrap(), BucketLock::On { default: None });
    assert_eq!(locking(configured("")).await.unwrap(), BucketLock::Off);
    for (duration, days) in [("<Days>30</Days>", 30), ("<Years>2</Years>", 732)] {
        let rule = format!(
            "{enabled}<Rule><DefaultRetention><Mode>GOVERNANCE</Mode>{duration}</DefaultRetention></Rule>"
        );
        let default = Some(LockPolicy { mode: LockMode::Governance, days });
        assert_eq!(locking(configured(&rule)).await.unwrap(), BucketLock::On { default });
    }
    let off = s3_error("404 Not Found", "ObjectLockConfigurationNotFoundError");
    assert_eq!(locking(off).await.unwrap(), BucketLock::Off);
    for doubt in [http("404 Not Found", ""), s3_error("403 Forbidden", "AccessDenied"), http("200 OK", "")] {
        assert!(locking(doubt).await.is_err());
    }
}

#[tokio::test]
async fn the_servers_time_comes_with_whatever_it_says() {
    let date = "date: Sun, 22 Nov 2026 21:26:13 GMT";
    for answer in [
        http("200 OK", "<VersioningConfiguration/>"),
        s3_error("403 Forbidden", "RequestTimeTooSkewed"),
        s3_error("404 Not Found", "NoSuchBucket"),
    ] {
        let answer = super::SpliceHeader::splice_header(answer, date);
        let (store, _server) = store(move |_, _| answer.clone()).await;
        let told = store.server_time().await.unwrap();
        assert_eq!(told, Some("2026-11-22T21:26:13Z".parse().unwrap()));
    }
    let page = super::SpliceHeader::splice_header(http("403 Forbidden", "<html>proxy</html>"), date);
    for answer in [http("200 OK", "<VersioningConfiguration/>"), page] {
        let (store, _server) = store(move |_, _| answer.clone()).await;
        assert!(store.server_time().await.is_err());
    }
    assert_eq!(Store::memory().server_time().await.unwrap(), None);
}

#[tokio::test]
async fn an_error_in_the_answer_to_a_completed_upload_is_an_error() {
    let assembled = "<CompleteMultipartUploadResult><ETag>\"e\"</ETag></CompleteMultipartUploadResult>";
    for (answer, is_well) in [
        (http("200 OK", assembled), true),
        (http("200 OK", &format!("<?xml version=\"1.0\"?>\n\n   {assembled}")), true),
        (s3_error("200 OK", "AccessDenied"), false),
        (s3_error("200 OK", "InternalError"), false),
        (http("200 OK", "<html>please log in</html>"), false),
        (http("200 OK", ""), false),
        (http("200 OK", "<CompleteMultipartUploadResult></CompleteMultipartUploadResult>"), false),
    ] {
        let shown = String::from_utf8_lossy(&answer).into_owned();
        let completed = AtomicBool::new(false);
        let (store, _server) = store(move |_, head| {
            let begun =
                "<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>";
            let etag = |answer| super::SpliceHeader::splice_header(answer, "etag: \"e\"");
            match head.split(' ').next().unwrap_or_default() {
                "POST" if head.contains("?uploads") => http("200 OK", begun),
                "POST" => {
                    assert!(head.to_lowercase().contains("if-none-match: *"), "{head}");
                    completed.store(is_well, Ordering::SeqCst);
                    answer.clone()
                }
                "PUT" => etag(http("200 OK", "")),
                "HEAD" if completed.load(Ordering::SeqCst) => etag(
                    b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 4\r\n\
                      last-modified: Sun, 22 Nov 2026 21:26:13 GMT\r\n\r\n"
                        .to_vec(),
                ),
                "HEAD" => b"HTTP/1.1 404 Not Found\r\nconnection: close\r\n\r\n".to_vec(),
                "DELETE" => http("204 No Content", ""),
                _ => s3_error("404 Not Found", "NoSuchKey"),
            }
        })
        .await;
        let mut upload = store.upload(&key()).await.unwrap();
        upload.put_part(bytes::Bytes::from_static(b"part")).await.unwrap();
        let finished = upload.finish().await;
        assert_eq!(finished.is_ok(), is_well, "{shown}: {finished:?}");
    }
}

#[tokio::test]
async fn a_part_that_stalls_is_sent_again_after_its_time_out() {
    let (parts, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let (sent, finished) = (Arc::clone(&parts), Arc::clone(&done));
    let server = canned(move |_, head| {
        let object = || {
            http("200 OK", "")
                .splice_header("etag: \"e\"")
                .splice_header("last-modified: Sun, 22 Nov 2026 21:26:13 GMT")
        };
        match head.split(' ').next().unwrap_or_default() {
            "POST" if head.contains("?uploads") => http(
                "200 OK",
                "<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>",
            ),
            "PUT" if sent.fetch_add(1, Ordering::SeqCst) == 0 => {
                // The second one has nearly as long as the first had.
                std::thread::sleep(Duration::from_millis(2200));
                http("200 OK", "")
            }
            "PUT" => object(),
            "POST" => {
                finished.store(true, Ordering::SeqCst);
                http(
                    "200 OK",
                    "<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>",
                )
            }
            "HEAD" if finished.load(Ordering::SeqCst) => {
                let text = String::from_utf8(object()).unwrap();
                text.replace("content-length: 0", "content-length: 4").into_bytes()
            }
            _ => s3_error("404 Not Found", "NoSuchKey"),
        }
    })
    .await;
    let mut options = options(&server.endpoint);
    options.request_timeout = Duration::from_secs(2);
    let store = open(&options);
    let mut upload = store.upload(&key()).await.unwrap();
    upload.put_part(bytes::Bytes::from_static(b"part")).await.unwrap();
    assert_eq!(upload.finish().await.unwrap(), 4);
    assert_eq!(parts.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_page_that_answers_every_look_is_not_an_object_in_the_way() {
    let (store, _server) = store(|_, _| http("200 OK", "<html>please log in</html>")).await;
    let error = store.upload(&key()).await.err().unwrap();
    assert!(matches!(error, StoreError::BadAnswer { .. }), "{error:?}");
    let careful = store.with_guarantees(super::Guarantees::none());
    let error = careful.create(&key(), bytes::Bytes::from_static(b"x").into()).await.unwrap_err();
    assert!(matches!(error, StoreError::BadAnswer { .. }), "{error:?}");
}
