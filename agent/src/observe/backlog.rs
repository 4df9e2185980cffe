//! What waits to be archived, from the marks in `archive_status`: the RPO at this moment.

use super::{Observatory, SeenBacklog, repeat};
use crate::archive::admit::PgWal;
use crate::codec::aside;
use crate::explain::chain;
use crate::fs::FsError;
use crate::metrics::{Observer, Seen, figures, seconds};
use jiff::Timestamp;
use std::path::PathBuf;
use std::time::Duration;
use wald_core::wal_file::WalFile;

/// Listing the marks of a long backlog costs some milliseconds.
const LOOK_EVERY: Duration = Duration::from_secs(5);

pub(super) async fn watch(at: Observatory, data_dir: PathBuf) {
    let at = &at;
    let pg_wal = PgWal::of(&data_dir);
    repeat(|| {
        let pg_wal = pg_wal.clone();
        async move {
            let looked = match aside(move || look(&pg_wal)).await {
                Ok(Ok(backlog)) => Ok(backlog),
                Ok(Err(error)) => Err(chain(&error)),
                Err(gone) => Err(chain(&gone)),
            };
            publish(at, looked);
            LOOK_EVERY
        }
    })
    .await;
}

fn look(pg_wal: &PgWal) -> Result<SeenBacklog, FsError> {
    let backlog = pg_wal.backlog()?;
    // Segments have one size, and the rest is small: one of them stands for all.
    let size = backlog.newest_segment.and_then(|name| pg_wal.size_of(WalFile::Segment(name))).unwrap_or(0);
    Ok(SeenBacklog {
        files: backlog.files,
        bytes: size.saturating_mul(backlog.files),
        oldest: backlog.oldest.map(|file| file.to_string()),
        // Archived a moment ago if its mark is gone.
        oldest_since: backlog.oldest.and_then(|file| pg_wal.ready_since(file)),
    })
}

fn publish(at: &Observatory, looked: Result<SeenBacklog, String>) {
    let mut seen = Seen::default();
    if let Ok(backlog) = &looked {
        seen.set(&figures::BACKLOG_FILES, backlog.files as f64);
        seen.set(&figures::BACKLOG_BYTES, backlog.bytes as f64);
        seen.set(
            &figures::BACKLOG_OLDEST,
            backlog.oldest_since.map_or(0.0, |since| age(since, at.clock.now())),
        );
    }
    at.metrics.publish(Observer::Backlog, seen);
    let (backlog, error) = looked.map_or_else(|error| (None, Some(error)), |backlog| (Some(backlog), None));
    let mut observed = at.lock();
    if error.is_some() && observed.backlog_error != error {
        tracing::warn!(error, "can't see what waits to be archived");
    }
    (observed.backlog, observed.backlog_error) = (backlog, error);
}

/// In seconds; 0 for what is in the future.
pub(super) fn age(since: Timestamp, now: Timestamp) -> f64 {
    (seconds(now) - seconds(since)).max(0.0)
}
