//! Waits until the repository holds every WAL segment from a backup's start to its stop.
//!
//! Without them the backup can't be restored, so the catalog entry is not written before. The
//! repository is asked, not the server: what counts is what a restore will find. Nothing here
//! archives; that is the business of `archive_command`.

use crate::store::{Store, StoreError};
use futures::StreamExt;
use std::time::{Duration, Instant};
use wald_core::lsn::Lsn;
use wald_core::object_key::ObjectKey;
use wald_core::segment::{SegmentName, SegmentSize};
use wald_core::timeline::TimelineId;
use wald_core::wal_file::WalFile;

/// How many segments are looked up at the same time.
const LOOKUPS_AT_ONCE: usize = 8;
/// How long to wait before asking again: first and at most.
const POLL_FIRST: Duration = Duration::from_millis(100);
const POLL_MAX: Duration = Duration::from_secs(2);

/// The WAL that a backup needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WalSpan {
    /// The timeline of the backup.
    pub timeline: TimelineId,
    /// Where replay begins.
    pub start: Lsn,
    /// Where the backup ended; the byte before it is needed.
    pub stop: Lsn,
    /// The size of segments.
    pub segment_size: SegmentSize,
    /// Whether the backup was taken on a standby, which matters for advice only.
    pub from_standby: bool,
}

/// Why WAL is missing.
#[derive(Debug, thiserror::Error)]
pub enum WalWaitError {
    /// A segment did not come.
    #[error(
        "WAL segment {segment} is not in the repository after {} s ({present} of {wanted} segments are); \
         without it the backup can't be restored, so it was not recorded: {}",
        waited.as_secs(), advice(*from_standby)
    )]
    Missing {
        /// The first that is missing.
        segment: SegmentName,
        /// How many of the segments are there.
        present: usize,
        /// How many are needed.
        wanted: usize,
        /// How long nothing has come.
        waited: Duration,
        /// Whether the backup was taken on a standby.
        from_standby: bool,
    },
    /// The repository could not be asked.
    #[error("can't tell whether the repository holds WAL segment {segment}, which the backup needs")]
    Store {
        /// The segment.
        segment: SegmentName,
        /// Why.
        #[source]
        source: StoreError,
    },
    /// No list of segments leads from start to stop.
    #[error("no WAL segments lead from {start} to {stop}")]
    Span {
        /// Where the backup began.
        start: Lsn,
        /// Where it ended.
        stop: Lsn,
    },
}

fn advice(from_standby: bool) -> &'static str {
    if from_standby {
        "check archiving on the primary (pg_stat_archiver and its log); a primary without writes archives its \
         last segment only after archive_timeout or SELECT pg_switch_wal() there"
    } else {
        "check pg_stat_archiver, PostgreSQL's log, and that archive_command uses this repository"
    }
}

/// The segments from start to stop.
pub fn segments(span: &WalSpan) -> Result<Vec<SegmentName>, WalWaitError> {
    let impossible = || WalWaitError::Span { start: span.start, stop: span.stop };
    let first = SegmentName::containing(span.timeline, span.start, span.segment_size);
    let last = SegmentName::ending_at(span.timeline, span.stop, span.segment_size);
    if last < first {
        return Err(impossible());
    }
    let mut segments = vec![first];
    let mut current = first;
    while current != last {
        current = current.next(span.segment_size).ok_or_else(impossible)?;
        segments.push(current);
    }
    Ok(segments)
}

/// Returns when all segments are there, or when none has come for `timeout`.
pub async fn wait_for_wal(store: &Store, span: &WalSpan, timeout: Duration) -> Result<usize, WalWaitError> {
    let mut missing = segments(span)?;
    let wanted = missing.len();
    let mut last_came = Instant::now();
    let mut delay = POLL_FIRST;
    loop {
        let before = missing.len();
        let trouble = keep_missing(store, &mut missing).await;
        let Some(segment) = missing.first().copied() else { return Ok(wanted) };
        if missing.len() < before {
            last_came = Instant::now();
            delay = POLL_FIRST;
        }
        let waited = last_came.elapsed();
        if waited >= timeout {
            return Err(match trouble {
                Some((segment, source)) => WalWaitError::Store { segment, source },
                None => {
                    let present = wanted - missing.len();
                    WalWaitError::Missing {
                        segment,
                        present,
                        wanted,
                        waited,
                        from_standby: span.from_standby,
                    }
                }
            });
        }
        tokio::time::sleep(delay.min(timeout - waited)).await;
        delay = (delay * 2).min(POLL_MAX);
    }
}

/// Drops from `missing` what the repository holds; returns the first failure to ask. What
/// could not be asked for stays missing.
async fn keep_missing(store: &Store, missing: &mut Vec<SegmentName>) -> Option<(SegmentName, StoreError)> {
    let mut lookups = futures::stream::iter(std::mem::take(missing))
        .map(|segment| async move { (segment, store.stat(&ObjectKey::wal(WalFile::Segment(segment))).await) })
        .buffered(LOOKUPS_AT_ONCE);
    let mut trouble = None;
    while let Some((segment, found)) = lookups.next().await {
        if let Err(error) = found {
            missing.push(segment);
            if !error.is_absent() {
                trouble.get_or_insert((segment, error));
            }
        }
    }
    trouble
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(start: &str, stop: &str) -> WalSpan {
        WalSpan {
            timeline: TimelineId::FIRST,
            start: start.parse().unwrap(),
            stop: stop.parse().unwrap(),
            segment_size: SegmentSize::DEFAULT,
            from_standby: false,
        }
    }

    async fn put(store: &Store, segment: SegmentName) {
        let key = ObjectKey::wal(WalFile::Segment(segment));
        store.create(&key, "sealed".into()).await.unwrap();
    }

    #[test]
    fn a_stop_on_a_border_needs_only_what_is_before_it() {
        let names = |start, stop| {
            segments(&span(start, stop)).unwrap().iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(names("0/2000028", "0/3000000"), ["000000010000000000000002"]);
        assert_eq!(
            names("0/FF000028", "1/1000028"),
            ["0000000100000000000000FF", "000000010000000100000000", "000000010000000100000001"]
        );
        assert!(segments(&span("0/5000028", "0/2000028")).is_err());
    }

    #[tokio::test]
    async fn the_missing_segment_is_named_with_advice() {
        let store = Store::memory();
        let wanted = segments(&span("0/2000028", "0/4000028")).unwrap();
        put(&store, wanted[0]).await;
        put(&store, wanted[2]).await;
        let timeout = Duration::from_millis(1);
        let error = wait_for_wal(&store, &span("0/2000028", "0/4000028"), timeout).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains("000000010000000000000003") && text.contains("2 of 3"), "{text}");
        assert!(text.contains("pg_stat_archiver"), "{text}");
    }

    #[tokio::test]
    async fn a_segment_that_comes_late_is_waited_for() {
        let store = Store::memory();
        let all = span("0/2000028", "0/4000028");
        let wanted = segments(&all).unwrap();
        let late = {
            let (store, wanted) = (store.clone(), wanted.clone());
            tokio::spawn(async move {
                for segment in wanted {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    put(&store, segment).await;
                }
            })
        };
        let count = wait_for_wal(&store, &all, Duration::from_secs(30)).await.unwrap();
        late.await.unwrap();
        assert_eq!(count, wanted.len());
    }
}
