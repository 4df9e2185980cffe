//! Waits until the repository holds every WAL segment from a backup's start to its stop.
//!
//! Without them the backup can't be restored, so the catalog entry is not written before. The
//! repository is asked, not the server: what counts is what a restore will find. Nothing here
//! archives; that is the business of `archive_command`.
//!
//! A name is not believed. A clone of the cluster has its system identifier and writes segments
//! of the same names, so an object counts only if its header names this segment of this cluster
//! and, as long as the server still has the segment, the very bytes of it (see [`local`]).

mod error;
mod local;

use crate::store::{Store, StoreError};
pub use error::WalWaitError;
use futures::StreamExt;
use local::{LocalWal, Mark};
use std::path::Path;
use std::time::{Duration, Instant};
use wald_core::frame::{FrameHeader, HEADER_BYTES_MAX};
use wald_core::lsn::Lsn;
use wald_core::object_key::ObjectKey;
use wald_core::segment::{SegmentName, SegmentSize};
use wald_core::system_id::SystemId;
use wald_core::timeline::TimelineId;
use wald_core::wal_file::WalFile;

/// How many segments are looked up at the same time.
const LOOKUPS_AT_ONCE: usize = 8;
/// How long to wait before asking again: first, which is soon because the last segment is being
/// archived just now, and at most.
const POLL_FIRST: Duration = Duration::from_millis(20);
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
    /// The cluster that wrote it.
    pub system_id: SystemId,
    /// Whether the backup was taken on a standby, which does not archive this WAL itself.
    pub from_standby: bool,
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

/// A segment that has not been found yet.
struct Awaited {
    segment: SegmentName,
    /// The object is there and right; what is missing is PostgreSQL's mark that it knows.
    stored: bool,
}

/// Returns when all segments are there, or when none has come for `timeout`. `data_dir` is
/// where the server keeps those that it has not recycled.
pub async fn wait_for_wal(
    store: &Store,
    span: &WalSpan,
    data_dir: &Path,
    timeout: Duration,
) -> Result<usize, WalWaitError> {
    let local = LocalWal::new(data_dir);
    let awaited = |segment| Awaited { segment, stored: false };
    let mut missing: Vec<Awaited> = segments(span)?.into_iter().map(awaited).collect();
    let wanted = missing.len();
    let mut last_came = Instant::now();
    let mut delay = POLL_FIRST;
    loop {
        let before = missing.len();
        let trouble = keep_missing(store, span, &local, &mut missing).await?;
        let Some(first) = missing.first() else { return Ok(wanted) };
        if missing.len() < before {
            last_came = Instant::now();
            delay = POLL_FIRST;
        }
        let waited = last_came.elapsed();
        if waited >= timeout {
            let segment = first.segment;
            return Err(match trouble {
                Some((segment, source)) => WalWaitError::Store { segment, source },
                None if first.stored => WalWaitError::NotConfirmed { segment, waited },
                None => {
                    let present = wanted - missing.len();
                    let from_standby = span.from_standby;
                    WalWaitError::Missing { segment, present, wanted, waited, from_standby }
                }
            });
        }
        tokio::time::sleep(delay.min(timeout - waited)).await;
        delay = (delay * 2).min(POLL_MAX);
    }
}

/// What one look at a segment found.
enum Look {
    Archived,
    /// The object is right, and PostgreSQL still marks the segment as not archived.
    Stored,
    Absent,
    Trouble(StoreError),
}

/// Drops from `missing` what is archived; returns the first failure to ask. What could not be
/// asked for stays missing. An object that is not what it should be is an error at once: it
/// will never be replaced.
async fn keep_missing(
    store: &Store,
    span: &WalSpan,
    local: &LocalWal,
    missing: &mut Vec<Awaited>,
) -> Result<Option<(SegmentName, StoreError)>, WalWaitError> {
    let mut lookups = futures::stream::iter(std::mem::take(missing))
        .map(|awaited| async move {
            let found = look(store, span, local, &awaited).await;
            (awaited.segment, found)
        })
        .buffered(LOOKUPS_AT_ONCE);
    let mut trouble = None;
    while let Some((segment, found)) = lookups.next().await {
        match found? {
            Look::Archived => {}
            Look::Stored => missing.push(Awaited { segment, stored: true }),
            Look::Absent => missing.push(Awaited { segment, stored: false }),
            Look::Trouble(error) => {
                missing.push(Awaited { segment, stored: false });
                trouble.get_or_insert((segment, error));
            }
        }
    }
    Ok(trouble)
}

async fn look(
    store: &Store,
    span: &WalSpan,
    local: &LocalWal,
    awaited: &Awaited,
) -> Result<Look, WalWaitError> {
    let segment = awaited.segment;
    // Before the object is read: what is marked as archived by then is in the repository.
    let mark = local.mark(segment).await?;
    let waits_for_mark = mark == Some(Mark::Ready) && !span.from_standby;
    // Hashed once; objects don't change.
    if !awaited.stored {
        let key = ObjectKey::wal(WalFile::Segment(segment));
        let header_max = u64::try_from(HEADER_BYTES_MAX).unwrap_or(u64::MAX);
        let start = match store.get_start(&key, header_max).await {
            Ok(start) => start,
            Err(error) if error.is_absent() => return Ok(Look::Absent),
            Err(error) => return Ok(Look::Trouble(error)),
        };
        let header = check_header(span, segment, &start)?;
        if mark.is_some()
            && let Some(found) = local.hash(segment).await?
            && found != header.raw_blake3
        {
            let (stored, local) = (Box::new(header.raw_blake3), Box::new(found));
            return Err(WalWaitError::OtherContent { segment, stored, local });
        }
    }
    Ok(if waits_for_mark { Look::Stored } else { Look::Archived })
}

/// The object must be this segment of this cluster by its own account.
fn check_header(span: &WalSpan, segment: SegmentName, start: &[u8]) -> Result<FrameHeader, WalWaitError> {
    let (header, _) =
        FrameHeader::decode(start).map_err(|source| WalWaitError::NotSealed { segment, source })?;
    let right_file = header.file == WalFile::Segment(segment);
    let right_size = header.raw_bytes == u64::from(span.segment_size.bytes());
    if right_file && right_size && header.system_id == span.system_id {
        return Ok(header);
    }
    Err(WalWaitError::Foreign {
        segment,
        found_file: header.file,
        found_bytes: header.raw_bytes,
        found: header.system_id,
        expected: span.system_id,
        segment_size: span.segment_size,
    })
}

#[cfg(test)]
mod tests;
