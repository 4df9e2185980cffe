//! Tests of the wait: what counts as archived, and what is refused.

use super::*;
use crate::codec::seal::{Effort, seal};
use std::fs;
use tempfile::TempDir;

const SEGMENT_BYTES: usize = 1 << 20;
const SYSTEM_ID: u64 = 7_301_234_567_890_123_456;
/// So short that what is not there at once does not come.
const AT_ONCE: Duration = Duration::from_millis(1);

fn span(start: &str, stop: &str) -> WalSpan {
    WalSpan {
        timeline: TimelineId::FIRST,
        start: start.parse().unwrap(),
        stop: stop.parse().unwrap(),
        segment_size: SegmentSize::new(1 << 20).unwrap(),
        system_id: SystemId::new(SYSTEM_ID).unwrap(),
        from_standby: false,
    }
}

fn one() -> (WalSpan, SegmentName) {
    let span = span("0/200028", "0/200100");
    (span, segments(&span).unwrap()[0])
}

fn content(of: u8) -> Vec<u8> {
    vec![of; SEGMENT_BYTES]
}

/// Archives `raw` under the name of `segment` with a header that says what it is told to.
async fn put(store: &Store, segment: SegmentName, says: SegmentName, system_id: u64, raw: &[u8]) {
    let system_id = SystemId::new(system_id).unwrap();
    let sealed = seal(WalFile::Segment(says), system_id, raw, Effort::Level(1)).unwrap();
    let key = ObjectKey::wal(WalFile::Segment(segment));
    store.create(&key, sealed.pieces().collect()).await.unwrap();
}

async fn put_right(store: &Store, segment: SegmentName) {
    put(store, segment, segment, SYSTEM_ID, &content(1)).await;
}

/// A data directory that has the segment, with a mark.
fn keep(data: &TempDir, segment: SegmentName, of: u8, mark: &str) {
    let status = data.path().join("pg_wal/archive_status");
    fs::create_dir_all(&status).unwrap();
    fs::write(data.path().join(format!("pg_wal/{segment}")), content(of)).unwrap();
    for old in ["ready", "done"] {
        let _ = fs::remove_file(status.join(format!("{segment}.{old}")));
    }
    if !mark.is_empty() {
        fs::write(status.join(format!("{segment}.{mark}")), "").unwrap();
    }
}

fn recycled() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn a_stop_on_a_border_needs_only_what_is_before_it() {
    let names = |start, stop| {
        let span = WalSpan { segment_size: SegmentSize::DEFAULT, ..span(start, stop) };
        segments(&span).map(|names| names.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    assert_eq!(names("0/2000028", "0/3000000").unwrap(), ["000000010000000000000002"]);
    assert_eq!(
        names("0/FF000028", "1/1000028").unwrap(),
        ["0000000100000000000000FF", "000000010000000100000000", "000000010000000100000001"]
    );
    assert!(names("0/5000028", "0/2000028").is_err());
}

#[tokio::test]
async fn the_missing_segment_is_named_with_advice() {
    let (store, data) = (Store::memory(), recycled());
    let span = span("0/200028", "0/400028");
    let wanted = segments(&span).unwrap();
    put_right(&store, wanted[0]).await;
    put_right(&store, wanted[2]).await;
    let error = wait_for_wal(&store, &span, data.path(), AT_ONCE).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("000000010000000000000003") && text.contains("2 of 3"), "{text}");
    assert!(text.contains("pg_stat_archiver"), "{text}");
}

#[tokio::test]
async fn a_segment_that_comes_late_is_waited_for() {
    let (store, data) = (Store::memory(), recycled());
    let all = span("0/200028", "0/400028");
    let wanted = segments(&all).unwrap();
    let late = {
        let (store, wanted) = (store.clone(), wanted.clone());
        tokio::spawn(async move {
            for segment in wanted {
                tokio::time::sleep(Duration::from_millis(50)).await;
                put_right(&store, segment).await;
            }
        })
    };
    let count = wait_for_wal(&store, &all, data.path(), Duration::from_secs(30)).await.unwrap();
    late.await.unwrap();
    assert_eq!(count, wanted.len());
}

#[tokio::test]
async fn an_object_with_other_content_than_the_servers_segment_is_refused() {
    for (mark, from_standby) in [("ready", false), ("done", false), ("done", true)] {
        let (store, data) = (Store::memory(), recycled());
        let (span, segment) = one();
        let span = WalSpan { from_standby, ..span };
        put_right(&store, segment).await;
        keep(&data, segment, 2, mark);
        let error = wait_for_wal(&store, &span, data.path(), AT_ONCE).await.unwrap_err();
        let text = error.to_string();
        for of in [1, 2] {
            assert!(text.contains(&blake3::hash(&content(of)).to_string()), "{text}");
        }
        assert!(text.contains("a clone archives into this repository"), "{text}");
    }
}

#[tokio::test]
async fn a_segment_counts_once_postgresql_marks_it_as_archived() {
    let (store, data) = (Store::memory(), recycled());
    let (span, segment) = one();
    put_right(&store, segment).await;
    keep(&data, segment, 1, "ready");
    let error = wait_for_wal(&store, &span, data.path(), AT_ONCE).await.unwrap_err();
    assert!(matches!(error, WalWaitError::NotConfirmed { .. }), "{error}");
    let standby = WalSpan { from_standby: true, ..span };
    assert_eq!(wait_for_wal(&store, &standby, data.path(), AT_ONCE).await.unwrap(), 1);
    let marking = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        // As PostgreSQL does it.
        let mark = |of: &str| data.path().join(format!("pg_wal/archive_status/{segment}.{of}"));
        fs::rename(mark("ready"), mark("done")).unwrap();
    };
    let waiting = wait_for_wal(&store, &span, data.path(), Duration::from_secs(30));
    assert_eq!(tokio::join!(waiting, marking).0.unwrap(), 1);
}

#[tokio::test]
async fn a_segment_without_a_mark_is_not_complete_and_not_compared() {
    let (store, data) = (Store::memory(), recycled());
    let (span, segment) = one();
    put_right(&store, segment).await;
    keep(&data, segment, 2, "");
    assert_eq!(wait_for_wal(&store, &span, data.path(), AT_ONCE).await.unwrap(), 1);
}

#[tokio::test]
async fn an_object_that_says_it_is_something_else_is_refused() {
    let (span, segment) = one();
    let other = segment.next(span.segment_size).unwrap();
    let cases =
        [(other, SYSTEM_ID, content(1)), (segment, 5, content(1)), (segment, SYSTEM_ID, vec![1; 8192])];
    for (says, system_id, raw) in cases {
        let (store, data) = (Store::memory(), recycled());
        put(&store, segment, says, system_id, &raw).await;
        let error = wait_for_wal(&store, &span, data.path(), AT_ONCE).await.unwrap_err();
        assert!(matches!(error, WalWaitError::Foreign { .. }), "{error}");
    }
    let (store, data) = (Store::memory(), recycled());
    store.create(&ObjectKey::wal(WalFile::Segment(segment)), "not sealed".into()).await.unwrap();
    let error = wait_for_wal(&store, &span, data.path(), AT_ONCE).await.unwrap_err();
    assert!(matches!(error, WalWaitError::NotSealed { .. }), "{error}");
}
