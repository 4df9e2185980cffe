//! What is done where a server was not seen to keep its promises, against servers that don't.

use super::{SpliceHeader, canned, http, key, options, s3_error};
use crate::store::{Created, Guarantees, Sameness, Store, StoreError};
use bytes::Bytes;
use std::sync::atomic::{AtomicBool, Ordering};
use wald_core::object_lock::{LockMode, LockPolicy};

/// A server with one name in it, which takes every PUT whatever its conditions.
#[derive(Clone, Default)]
struct Weak {
    /// Versions besides the one that is put, with their content.
    others: Vec<(&'static str, &'static str)>,
    /// What is read back instead of what was put.
    damaged: Option<&'static str>,
    /// Whether a plain read finds anything before the PUT.
    visible: bool,
    /// Whether a lock that is written is there afterwards.
    locks: bool,
    /// Whether the listing of versions is refused.
    secretive: bool,
    /// Whether it does keep "only if absent".
    refuses: bool,
}

const OURS: &str = "ours";

impl Weak {
    async fn open(self, guarantees: Guarantees) -> (Store, super::Canned) {
        let (stored, locked) = (AtomicBool::new(false), AtomicBool::new(false));
        let server = canned(move |_, head| self.answer(head, &stored, &locked)).await;
        let mut options = options(&server.endpoint);
        options.lock = Some(LockPolicy { mode: LockMode::Compliance, days: 7 });
        (Store::open(&options).unwrap().with_guarantees(guarantees), server)
    }

    fn answer(&self, head: &str, stored: &AtomicBool, locked: &AtomicBool) -> Vec<u8> {
        let request = head.lines().next().unwrap_or_default();
        let is_stored = stored.load(Ordering::SeqCst);
        let (from, to) = asked_range(head).unwrap_or((0, usize::MAX));
        let object = |text: &str| {
            let last = to.min(text.len() - 1);
            http("206 Partial Content", text.get(from..=last).unwrap_or_default())
                .splice_header(&format!("content-range: bytes {from}-{last}/{}", text.len()))
                .splice_header("etag: \"e\"")
                .splice_header("last-modified: Sun, 22 Nov 2026 21:26:13 GMT")
        };
        match request.split(' ').next().unwrap_or_default() {
            "PUT" if request.contains("?retention") => {
                locked.store(self.locks, Ordering::SeqCst);
                http("200 OK", "")
            }
            "PUT" if self.refuses => s3_error("412 Precondition Failed", "PreconditionFailed"),
            "PUT" => {
                stored.store(true, Ordering::SeqCst);
                http("200 OK", "").splice_header("etag: \"e\"").splice_header("x-amz-version-id: ours")
            }
            "GET" if request.contains("?retention") && locked.load(Ordering::SeqCst) => http(
                "200 OK",
                "<Retention><Mode>COMPLIANCE</Mode><RetainUntilDate>2999-01-01T00:00:00Z</RetainUntilDate></Retention>",
            ),
            "GET" if request.contains("?retention") => {
                s3_error("404 Not Found", "NoSuchObjectLockConfiguration")
            }
            "GET" if request.contains("?versions") && self.secretive => {
                s3_error("403 Forbidden", "AccessDenied")
            }
            "GET" if request.contains("?versions") => self.list(is_stored),
            "GET" if request.contains("versionId=ours") => object(self.damaged.unwrap_or("content")),
            "GET" if request.contains("versionId=") => {
                let other = self.others.iter().find(|(id, _)| request.contains(&format!("versionId={id}")));
                other.map_or_else(|| s3_error("404 Not Found", "NoSuchVersion"), |(_, text)| object(text))
            }
            "GET" | "HEAD" if is_stored || self.visible => object("content"),
            _ => s3_error("404 Not Found", "NoSuchKey"),
        }
    }

    fn list(&self, is_stored: bool) -> Vec<u8> {
        let mut text = String::new();
        let ours = is_stored.then_some((OURS, "content"));
        let all: Vec<(&str, &str)> = self.others.iter().copied().chain(ours).collect();
        // The newest comes first.
        for (place, (id, content)) in all.iter().enumerate().rev() {
            let kind = if content.is_empty() { "DeleteMarker" } else { "Version" };
            text += &format!(
                "<{kind}><Key>prefix/check/key</Key><VersionId>{id}</VersionId><IsLatest>{}</IsLatest>\
                 <LastModified>2026-11-22T21:26:13Z</LastModified><Size>{}</Size></{kind}>",
                place + 1 == all.len(),
                content.len()
            );
        }
        // Another object, whose name begins with ours.
        text += "<Version><Key>prefix/check/key-2</Key><VersionId>x</VersionId><IsLatest>true</IsLatest>\
                 <LastModified>2026-11-22T21:26:13Z</LastModified><Size>1</Size></Version>";
        http(
            "200 OK",
            &format!("<ListVersionsResult><IsTruncated>false</IsTruncated>{text}</ListVersionsResult>"),
        )
    }
}

/// The first and the last byte that a request asks for.
fn asked_range(head: &str) -> Option<(usize, usize)> {
    let line = head.lines().find_map(|line| line.strip_prefix("range: bytes="))?;
    let (from, to) = line.trim().split_once('-')?;
    Some((from.parse().ok()?, to.parse().ok()?))
}

async fn created(weak: Weak, guarantees: Guarantees) -> (Result<Created, StoreError>, Vec<String>) {
    let (store, server) = weak.open(guarantees).await;
    let created = store.create(&key(), Bytes::from_static(b"content").into()).await;
    let asked = |head: &String| head.split(" HTTP/").next().unwrap_or_default().to_owned();
    let asked = server.heads.lock().unwrap().iter().map(asked).collect();
    (created, asked)
}

#[tokio::test]
async fn a_server_that_keeps_its_promises_is_sent_one_request() {
    let (created, asked) = created(Weak::default(), Guarantees::all()).await;
    assert_eq!(created.unwrap(), Created::Stored);
    assert_eq!(asked, ["PUT /bucket/prefix/check/key"]);
}

#[tokio::test]
async fn without_guarantees_an_object_counts_once_all_of_it_was_seen() {
    let (created, asked) = created(Weak { locks: true, ..Weak::default() }, Guarantees::none()).await;
    assert_eq!(created.unwrap(), Created::Stored);
    let steps: Vec<&str> = asked.iter().map(|line| line.split('&').next().unwrap()).collect();
    assert_eq!(
        steps,
        [
            "HEAD /bucket/prefix/check/key",
            "PUT /bucket/prefix/check/key",
            "GET /bucket?versions=",
            "GET /bucket/prefix/check/key?versionId=ours",
            "GET /bucket/prefix/check/key?retention=",
            "PUT /bucket/prefix/check/key?retention=",
            "GET /bucket/prefix/check/key?retention=",
        ]
    );
}

#[tokio::test]
async fn a_lock_that_does_not_stay_is_no_success() {
    let guarantees = Guarantees { lock_on_put: false, ..Guarantees::all() };
    let (created, asked) = created(Weak { locks: false, ..Weak::default() }, guarantees).await;
    assert!(matches!(created.unwrap_err(), StoreError::BadAnswer { .. }));
    assert!(asked.iter().any(|line| line.starts_with("PUT") && line.contains("versionId=ours")), "{asked:?}");
}

#[tokio::test]
async fn damage_on_the_way_is_found_where_the_server_does_not_compare() {
    for (checksums, signed_payload) in [(false, false), (true, false), (false, true)] {
        let guarantees = Guarantees { checksums, signed_payload, ..Guarantees::all() };
        for damaged in ["contenX", "content and more"] {
            let (created, _) = created(Weak { damaged: Some(damaged), ..Weak::default() }, guarantees).await;
            let is_found = matches!(created, Err(StoreError::BadAnswer { .. }));
            assert_eq!(is_found, !checksums && !signed_payload, "{created:?}");
        }
    }
}

#[tokio::test]
async fn a_rival_is_told_by_its_content() {
    let careful = Guarantees { create_only: false, ..Guarantees::all() };
    for (others, visible, expected) in [
        (vec![], false, "Stored"),
        (vec![("m", "")], false, "Stored"),
        (vec![("a", "content")], false, "Exists"),
        (vec![("a", "another")], false, "Contested"),
        (vec![("a", "content"), ("b", "longer content")], false, "Contested"),
        // Nothing is sent where a look finds something; of two that differ one may be ours.
        (vec![("a", "another")], true, "Exists"),
        (vec![("a", "another"), ("b", "content")], true, "Contested"),
    ] {
        let weak = Weak { others: others.clone(), visible, ..Weak::default() };
        let (created, asked) = created(weak, careful).await;
        let shown = match &created {
            Ok(created) => format!("{created:?}"),
            Err(StoreError::Contested { .. }) => "Contested".to_owned(),
            Err(error) => format!("{error:?}"),
        };
        assert_eq!(shown, expected, "{others:?}");
        let puts = |line: &String| line.starts_with("PUT") && !line.contains("retention");
        assert_eq!(asked.iter().any(puts), !visible, "{asked:?}");
    }
}

/// As with two levels of compression: the same letters, whatever their case.
fn letters() -> Sameness {
    Sameness::judged(100, |one: Bytes, other: Bytes| {
        std::future::ready(one.to_ascii_lowercase() == other.to_ascii_lowercase())
    })
}

#[tokio::test]
async fn of_several_versions_the_first_is_read_and_another_content_is_told() {
    let careful = Guarantees { create_only: false, ..Guarantees::all() };
    for (others, guarantees, expected, requests) in [
        (vec![("a", "content")], careful, "content", 2),
        (vec![("a", "CONTENT"), ("b", "content")], careful, "CONTENT", 4),
        (vec![("a", "another"), ("b", "content")], careful, "Contested", 4),
        // Larger than it may be: not even read.
        (vec![("a", "content"), ("b", "content, and more of it")], careful, "Contested", 3),
        // A server that was seen to keep the second away is believed.
        (vec![("a", "another"), ("b", "content")], Guarantees::all(), "content", 1),
    ] {
        let weak = || Weak { others: others.clone(), visible: true, ..Weak::default() };
        let (store, server) = weak().open(guarantees).await;
        let shown = match store.get_judged(&key(), 10, &letters()).await {
            Ok(read) => String::from_utf8(read.to_vec()).unwrap(),
            Err(StoreError::Contested { .. }) => "Contested".to_owned(),
            Err(error) => format!("{error:?}"),
        };
        assert_eq!(shown, expected, "{others:?}");
        assert_eq!(server.heads.lock().unwrap().len(), requests, "{others:?}");

        let (store, _server) = weak().open(guarantees).await;
        let in_pieces = match store.open_judged(&key(), 3, 10, &letters()).await {
            Ok((object, first)) => {
                let rest = object.read(3..object.size_bytes()).await.unwrap();
                String::from_utf8([first, rest].concat()).unwrap()
            }
            Err(StoreError::Contested { .. }) => "Contested".to_owned(),
            Err(error) => format!("{error:?}"),
        };
        assert_eq!(in_pieces, expected, "{others:?}");
    }
}

#[tokio::test]
async fn what_is_larger_than_it_may_be_is_not_opened() {
    let weak = Weak { others: vec![("a", "content")], visible: true, ..Weak::default() };
    let (store, _server) = weak.open(Guarantees::all()).await;
    let opened = store.open_judged(&key(), 3, 6, &letters()).await.map(|_| ());
    assert!(matches!(opened, Err(StoreError::TooLarge { size_bytes: 7, max_bytes: 6, .. })), "{opened:?}");
}

#[tokio::test]
async fn the_lock_of_what_was_there_already_is_seen_to_and_keeps_nobody_from_archiving() {
    for (locks, secretive, is_locked) in [(true, false, true), (false, false, true), (true, true, false)] {
        let others = vec![("a", "content")];
        let weak = Weak { others, visible: true, refuses: true, locks, secretive, ..Weak::default() };
        let (created, asked) = created(weak, Guarantees::all()).await;
        assert_eq!(created.unwrap(), Created::Exists);
        let put = asked.iter().any(|line| line.starts_with("PUT") && line.contains("retention"));
        assert_eq!(put, is_locked, "{asked:?}");
    }
}

#[tokio::test]
async fn two_who_write_the_same_in_other_bytes_are_no_rivals() {
    let careful = Guarantees { create_only: false, ..Guarantees::all() };
    let letters = letters();
    for (others, visible, is_contest) in [
        (vec![("a", "CONTENT")], false, false),
        (vec![("a", "CONTENT"), ("b", "Content")], true, false),
        (vec![("a", "another")], false, true),
        (vec![("a", "CONTENT"), ("b", "another")], true, true),
    ] {
        let weak = Weak { others: others.clone(), visible, ..Weak::default() };
        let (store, _server) = weak.open(careful).await;
        let created = store.create_judged(&key(), Bytes::from_static(b"content").into(), &letters).await;
        match created {
            Ok(created) => assert_eq!((created, is_contest), (Created::Exists, false), "{others:?}"),
            Err(StoreError::Contested { .. }) => assert!(is_contest, "{others:?}"),
            Err(error) => panic!("{others:?}: {error:?}"),
        }
    }
}

#[tokio::test]
async fn a_rival_that_can_not_be_looked_for_is_no_success() {
    let careful = Guarantees { create_only: false, ..Guarantees::all() };
    let (created, _) = created(Weak { secretive: true, ..Weak::default() }, careful).await;
    assert!(matches!(created.unwrap_err(), StoreError::Refused { .. }));
}

#[tokio::test]
async fn where_a_deletion_looks_like_an_absence_the_versions_tell() {
    let silent = Guarantees { tells_delete_markers: false, ..Guarantees::all() };
    let deleted = [("a", "content"), ("m", "")];
    for (others, secretive, guarantees, expected) in [
        (&[][..], false, silent, "Absent"),
        (&deleted[..], false, silent, "Deleted"),
        (&deleted[..1], false, silent, "BadAnswer"),
        (&deleted[..], true, silent, "Refused"),
        (&deleted[..], true, Guarantees::all(), "Absent"),
    ] {
        let weak = Weak { others: others.to_vec(), secretive, ..Weak::default() };
        let (store, _server) = weak.open(guarantees).await;
        for error in [
            store.get(&key(), 10).await.unwrap_err(),
            store.get_start(&key(), 10).await.unwrap_err(),
            store.get_stream(&key()).await.err().unwrap(),
            store.stat(&key()).await.unwrap_err(),
        ] {
            assert!(format!("{error:?}").starts_with(expected), "{expected}: {error:?}");
            let text = crate::explain::chain(&error);
            assert!(expected != "Refused" || text.contains("s3:ListBucketVersions"), "{text}");
        }
    }
}
