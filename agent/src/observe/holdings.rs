//! What the repository holds: backups, the recovery window, the lock of the newest backup, and how
//! long a recovery would take. Read rarely, and at once after a backup or an expiry of this host.

use super::contact::open;
use super::{Observatory, SeenHoldings, repeat};
use crate::codec::aside;
use crate::explain::chain;
use crate::inventory::InventoryError;
use crate::list::{ListedBackup, Listing, collect};
use crate::metrics::{Observer, Seen, figures, seconds};
use crate::rates::{self, Phase};
use crate::repository::{Repository, RepositoryError};
use crate::runs::{self, RunKind};
use crate::store::StoreError;
use jiff::Timestamp;
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;
use wald_core::object_key::ObjectKey;
use wald_core::recovery_window::RecoveryWindow;
use wald_core::rto::{MeasuredRate, RtoEstimate, Work, estimate};

/// Two lists and the catalog's entries: cheap, and not for nothing.
const READ_EVERY: Duration = Duration::from_secs(600);
const READ_AGAIN: Duration = Duration::from_secs(60);
/// How often this host's records are looked at, which tell that something has changed.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What lets the repository be read before its time.
#[derive(Clone, PartialEq, Debug, Default)]
struct Changes {
    backup: Option<Timestamp>,
    expire: Option<Timestamp>,
    restore: Option<MeasuredRate>,
    replay: Option<MeasuredRate>,
}

impl Changes {
    fn below(state_dir: &Path) -> Self {
        let ended = |kind| runs::read(state_dir, kind).ok().flatten().map(|runs| runs.last.ended_at);
        let rate = |phase| rates::read(state_dir, phase).ok().flatten();
        Self {
            backup: ended(RunKind::Backup),
            expire: ended(RunKind::Expire),
            restore: rate(Phase::Restore),
            replay: rate(Phase::Replay),
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum HoldingsError {
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    #[error(transparent)]
    Inventory(#[from] InventoryError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

pub(super) async fn watch(at: Observatory) {
    let at = &at;
    let state = tokio::sync::Mutex::new((None::<Changes>, None::<Instant>));
    repeat(|| async {
        let mut state = state.lock().await;
        let state_dir = at.options.state_dir.clone();
        let Ok(now) = aside(move || Changes::below(&state_dir)).await else { return LOOK_EVERY };
        let (before, due) = &mut *state;
        let is_due = due.is_none_or(|due| Instant::now() >= due);
        if !is_due && before.as_ref() == Some(&now) {
            return LOOK_EVERY;
        }
        *due = Some(match read(at, &now).await {
            Ok(()) => Instant::now() + READ_EVERY,
            Err(error) => {
                tracing::warn!(error = %chain(&error), "can't read what the repository holds");
                // What was seen before is no longer known to be so.
                at.metrics.publish(Observer::Holdings, Seen::default());
                at.lock().holdings = None;
                Instant::now() + READ_AGAIN
            }
        });
        *before = Some(now);
        LOOK_EVERY
    })
    .await;
}

async fn read(at: &Observatory, changes: &Changes) -> Result<(), HoldingsError> {
    let repository = open(at).await?;
    let listing = collect(&repository).await?;
    let newest = newest(&listing);
    let locked_until = match newest {
        // Keys that restore may not be allowed to read locks; the rest is worth knowing all the same.
        Some(backup) => lock_of(&repository, backup).await.unwrap_or_else(|error| {
            tracing::debug!(error = %chain(&error), "can't read the lock of the newest backup");
            None
        }),
        None => None,
    };
    let rto = newest.map(|backup| rto(&listing, backup, changes));
    publish(at, &listing, newest, locked_until, rto);
    Ok(())
}

/// The newest backup that can be restored; else the newest.
fn newest(listing: &Listing) -> Option<&ListedBackup> {
    let newest = |backups: &mut dyn Iterator<Item = &'_ ListedBackup>| -> Option<usize> {
        backups
            .max_by_key(|backup| backup.stopped_at)
            .and_then(|newest| listing.backups.iter().position(|backup| backup.id == newest.id))
    };
    let complete = newest(&mut listing.backups.iter().filter(|backup| backup.wal_complete));
    listing.backups.get(complete.or_else(|| newest(&mut listing.backups.iter()))?)
}

/// The window that reaches furthest.
fn window(listing: &Listing) -> Option<&RecoveryWindow> {
    listing.recovery_windows.iter().max_by_key(|window| window.until_time)
}

fn rto(listing: &Listing, backup: &ListedBackup, changes: &Changes) -> RtoEstimate {
    let ends = listing.recovery_windows.iter().filter(|window| window.backups.contains(&backup.id));
    let end = ends.map(|window| window.until_lsn).max().unwrap_or(backup.stop_lsn);
    let work = Work { base_bytes: backup.raw_bytes, wal_bytes: end.bytes_since(backup.start_lsn) };
    estimate(work, changes.restore.as_ref(), changes.replay.as_ref())
}

async fn lock_of(repository: &Repository, backup: &ListedBackup) -> Result<Option<Timestamp>, StoreError> {
    let (store, key) = (repository.store(), ObjectKey::catalog(&backup.id));
    let (object, _) = store.open_object(&key, 0..1).await?;
    if let Some(Some(lock)) = object.lock() {
        return Ok(Some(lock.until));
    }
    let Some(version) = object.version() else { return Ok(None) };
    Ok(store.lock_of(key.as_str(), version).await?.map(|lock| lock.until))
}

fn publish(
    at: &Observatory,
    listing: &Listing,
    newest: Option<&ListedBackup>,
    locked_until: Option<Timestamp>,
    rto: Option<RtoEstimate>,
) {
    let now = at.clock.now();
    let gaps: usize = listing.timelines.iter().map(|timeline| timeline.gaps.len()).sum();
    let mut seen = Seen::default();
    seen.set(&figures::REPOSITORY_LISTED, seconds(now));
    seen.set(&figures::BACKUPS, listing.backups.len() as f64);
    seen.set(&figures::WAL_GAPS, gaps as f64);
    if let Some(backup) = newest {
        seen.set(&figures::BACKUP_END, seconds(backup.stopped_at));
        seen.set(&figures::BACKUP_RAW_BYTES, backup.raw_bytes as f64);
        seen.set(&figures::BACKUP_STORED_BYTES, backup.stored_bytes as f64);
        seen.set(&figures::BACKUP_DURATION, backup.duration_seconds as f64);
    }
    let window = window(listing);
    seen.set_known(&figures::WINDOW_START, window.map(|window| seconds(window.from_time)));
    seen.set_known(&figures::WINDOW_END, window.map(|window| seconds(window.until_time)));
    seen.set_known(&figures::LOCK_HORIZON, locked_until.map(seconds));
    if let Some(rto) = &rto {
        seen.set(&figures::RTO_ESTIMATE, rto.seconds);
        for (phase, rate, measured) in [
            (Phase::Restore, rto.restore_bytes_per_second, rto.restore_is_measured),
            (Phase::Replay, rto.replay_bytes_per_second, rto.replay_is_measured),
        ] {
            seen.set_for(&figures::RTO_RATE, &[phase.name()], rate);
            seen.set_for(&figures::RTO_MEASURED, &[phase.name()], if measured { 1.0 } else { 0.0 });
        }
    }
    at.metrics.publish(Observer::Holdings, seen);
    at.lock().holdings = Some(SeenHoldings {
        read_at: now,
        backups: listing.backups.len(),
        last_backup: newest.map(|backup| backup.id.to_string()),
        last_backup_ended_at: newest.map(|backup| backup.stopped_at),
        window_from: window.map(|window| window.from_time),
        window_until: window.map(|window| window.until_time),
        rto,
        locked_until,
    });
}
