//! The repository, as far as a promotion asks for it.

use super::options::PromoteOptions;
use crate::explain::chain;
use crate::inventory::{self, Inventory};
use crate::repository::Repository;
use crate::store::Store;
use std::time::Duration;
use wald_core::history::TimelineHistory;
use wald_core::lsn::Lsn;
use wald_core::object_key::ObjectKey;
use wald_core::segment::SegmentName;
use wald_core::timeline::TimelineId;
use wald_core::wal_file::WalFile;

/// Opening and listing; a repository that takes longer can't be asked in an emergency.
const TIMEOUT: Duration = Duration::from_secs(60);
/// One look at one object, while clients wait.
const LOOK_TIMEOUT: Duration = Duration::from_secs(3);
/// A history has a line per promotion.
const HISTORY_BYTES_MAX: u64 = 1 << 20;

/// Opens the repository; the error is for a person.
pub(super) async fn open(options: &PromoteOptions) -> Result<Repository, String> {
    let opened = async {
        let store = Store::open(&options.repository).map_err(|error| chain(&error))?;
        Repository::open(store).await.map_err(|error| chain(&error))
    };
    match tokio::time::timeout(TIMEOUT, opened).await {
        Ok(opened) => opened,
        Err(_) => Err(format!("no answer within {} s", TIMEOUT.as_secs())),
    }
}

/// Lists it.
pub(super) async fn list(repository: &Repository) -> Result<Inventory, String> {
    match tokio::time::timeout(TIMEOUT, inventory::read(repository)).await {
        Ok(read) => read.map_err(|error| chain(&error)),
        Err(_) => Err(format!("it was not listed within {} s", TIMEOUT.as_secs())),
    }
}

/// Whether the whole segment that holds `lsn` is stored.
pub(super) async fn holds_segment_of(
    repository: &Repository,
    timeline: TimelineId,
    lsn: Lsn,
) -> Result<bool, String> {
    let name = SegmentName::containing(timeline, lsn, repository.segment_size());
    holds(repository, WalFile::Segment(name)).await
}

async fn holds(repository: &Repository, file: WalFile) -> Result<bool, String> {
    let key = ObjectKey::wal(file);
    match tokio::time::timeout(LOOK_TIMEOUT, repository.store().get_start(&key, 1)).await {
        Ok(Ok(_)) => Ok(true),
        Ok(Err(error)) if error.is_absent() => Ok(false),
        Ok(Err(error)) => Err(chain(&error)),
        Err(_) => Err(format!("no answer within {} s", LOOK_TIMEOUT.as_secs())),
    }
}

/// The history of a timeline; `None` if it is not there yet.
pub(super) async fn history(
    repository: &Repository,
    timeline: TimelineId,
) -> Result<Option<TimelineHistory>, String> {
    let key = ObjectKey::wal(WalFile::History(timeline));
    let read = repository.store().get(&key, HISTORY_BYTES_MAX);
    match tokio::time::timeout(LOOK_TIMEOUT, read).await {
        Ok(Ok(text)) => TimelineHistory::parse(timeline, &text).map(Some).map_err(|error| chain(&error)),
        Ok(Err(error)) if error.is_absent() => Ok(None),
        Ok(Err(error)) => Err(chain(&error)),
        Err(_) => Err(format!("no answer within {} s", LOOK_TIMEOUT.as_secs())),
    }
}
