//! The record of what the server keeps of its promises: written by `wald repo init` and
//! `wald repo check`, which try, and read by whoever opens the repository.
//!
//! Invariants: a record that is missing or can't be read means that nothing is taken for granted,
//! which is slower and never wrong; the newest record counts.

use crate::clock::Clock;
use crate::store::{Guarantees, Store, StoreError};
use futures::TryStreamExt;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use wald_core::object_key::ObjectKey;

/// A record is never larger.
const RECORD_BYTES_MAX: u64 = 64 << 10;
/// The version of the record's format.
const RECORD_FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Record {
    format: u32,
    tried_at: Timestamp,
    /// The version of wald that tried.
    wald: String,
    guarantees: Guarantees,
}

/// What the newest record says; nothing is granted where there is none. A repository without a
/// server is not asked.
pub(super) async fn read(store: &Store) -> Guarantees {
    match newest(store).await {
        Ok(found) => found.unwrap_or_default(),
        Err(error) => {
            let why = crate::explain::chain(&error);
            tracing::debug!(error = %why, "can't read what is known of the server; nothing is taken for granted");
            Guarantees::none()
        }
    }
}

/// What the newest record says, if there is one that can be understood.
pub(super) async fn newest(store: &Store) -> Result<Option<Guarantees>, StoreError> {
    let names = store.list(ObjectKey::GUARANTEES_PREFIX);
    let names: Vec<String> = names.map_ok(|object| object.name).try_collect().await?;
    let newest = names.iter().filter_map(|name| ObjectKey::guarantees_listed(name)).max();
    let Some(key) = newest else { return Ok(None) };
    let bytes = store.get(&key, RECORD_BYTES_MAX).await?;
    let record: Option<Record> = serde_json::from_slice(&bytes).ok();
    Ok(record.filter(|record| record.format == RECORD_FORMAT).map(|record| record.guarantees))
}

/// Writes a record.
pub(super) async fn write(store: &Store, guarantees: Guarantees, clock: &Clock) -> Result<(), StoreError> {
    let tried_at = clock.now();
    let wald = env!("CARGO_PKG_VERSION").to_owned();
    let record = Record { format: RECORD_FORMAT, tried_at, wald, guarantees };
    // These fields can't fail to become JSON; an empty record would grant nothing.
    let bytes = serde_json::to_vec_pretty(&record).unwrap_or_default();
    // One of the same second is another's who has just tried as well.
    store.create(&ObjectKey::guarantees(tried_at), bytes.into()).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Clock {
        Clock::Fixed(text.parse().unwrap())
    }

    #[tokio::test]
    async fn the_newest_record_counts_and_a_damaged_one_grants_nothing() {
        let store = Store::memory();
        assert_eq!(newest(&store).await.unwrap(), None);
        write(&store, Guarantees::all(), &at("2026-11-22T20:00:00Z")).await.unwrap();
        assert_eq!(read(&store).await, Guarantees::all());
        write(&store, Guarantees::none(), &at("2026-11-22T21:00:00Z")).await.unwrap();
        assert_eq!(read(&store).await, Guarantees::none());
        write(&store, Guarantees::all(), &at("2026-11-22T22:00:00Z")).await.unwrap();
        assert_eq!(read(&store).await, Guarantees::all());
        let damaged = ObjectKey::guarantees("2026-11-22T23:00:00Z".parse().unwrap());
        store.create(&damaged, bytes::Bytes::from_static(b"{").into()).await.unwrap();
        assert_eq!(read(&store).await, Guarantees::none());
    }
}
