//! The record of what the server keeps of its promises: written by `wald repo init` and
//! `wald repo check`, which try, and read by whoever opens the repository.
//!
//! Invariants: a record that is missing, can't be read or is of another server means that nothing
//! is taken for granted, which is slower and never wrong; of this server's the record counts that
//! the server has stored last, by its own clock, whatever the writer's clock has put into its name.

use crate::store::{Guarantees, ListedObject, Store, StoreError};
use futures::TryStreamExt;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use wald_core::object_key::ObjectKey;

/// A record is never larger.
const RECORD_BYTES_MAX: u64 = 64 << 10;
/// The version of the record's format.
const RECORD_FORMAT: u32 = 1;
/// A record from further ahead was stored while a clock was wrong, and would count until that time.
const AHEAD_MAX: SignedDuration = SignedDuration::from_mins(5);
/// Records of other servers are passed over as far back as this.
const LOOKED_AT_MAX: usize = 8;

#[derive(Serialize, Deserialize)]
struct Record {
    format: u32,
    /// By the server's clock.
    tried_at: Timestamp,
    /// The version of wald that tried.
    wald: String,
    /// Which server was tried, by the bucket's address: a copy of the bucket elsewhere has the
    /// record too, and not what it tells.
    #[serde(default)]
    server: Option<String>,
    guarantees: Guarantees,
}

/// What the newest record says; nothing is granted where there is none. A repository without a
/// server is not asked.
pub(super) async fn read(store: &Store) -> Guarantees {
    match newest(store).await {
        Ok(found) => found.unwrap_or_default(),
        Err(error) => {
            let why = crate::explain::chain(&error);
            tracing::warn!(error = %why, "can't read what is known of the server; nothing is taken for granted");
            Guarantees::none()
        }
    }
}

/// What the newest record about this server says, if it can be understood.
pub(super) async fn newest(store: &Store) -> Result<Option<Guarantees>, StoreError> {
    let listed: Vec<ListedObject> = store.list(ObjectKey::GUARANTEES_PREFIX).try_collect().await?;
    for key in newest_first(listed, Timestamp::now()).iter().take(LOOKED_AT_MAX) {
        let bytes = store.get(key, RECORD_BYTES_MAX).await?;
        let Ok(record) = serde_json::from_slice::<Record>(&bytes) else { return Ok(None) };
        if record.format != RECORD_FORMAT {
            return Ok(None);
        }
        if record.server.as_deref() == store.server() {
            return Ok(Some(record.guarantees));
        }
    }
    Ok(None)
}

fn newest_first(mut listed: Vec<ListedObject>, now: Timestamp) -> Vec<ObjectKey> {
    listed.retain(|object| object.stat.modified.duration_since(now) <= AHEAD_MAX);
    listed.sort_by(|a, b| (b.stat.modified, &b.name).cmp(&(a.stat.modified, &a.name)));
    listed.iter().filter_map(|object| ObjectKey::guarantees_listed(&object.name)).collect()
}

/// Writes a record of what was seen at this time of the server's clock.
pub(super) async fn write(
    store: &Store,
    guarantees: Guarantees,
    tried_at: Timestamp,
) -> Result<(), StoreError> {
    let wald = env!("CARGO_PKG_VERSION").to_owned();
    let server = store.server().map(str::to_owned);
    let record = Record { format: RECORD_FORMAT, tried_at, wald, server, guarantees };
    // These fields can't fail to become JSON; an empty record would grant nothing.
    let bytes = serde_json::to_vec_pretty(&record).unwrap_or_default();
    // One of the same second is another's who has just tried as well.
    store.create(&ObjectKey::guarantees(tried_at), bytes.into()).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::ObjectStat;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn the_record_that_was_stored_last_counts_and_a_damaged_one_grants_nothing() {
        let store = Store::memory();
        assert_eq!(newest(&store).await.unwrap(), None);
        write(&store, Guarantees::all(), at("2999-11-22T20:00:00Z")).await.unwrap();
        assert_eq!(read(&store).await, Guarantees::all());
        // By a clock that is right: what its name says is earlier, and it counts.
        write(&store, Guarantees::none(), at("2026-11-22T21:00:00Z")).await.unwrap();
        assert_eq!(read(&store).await, Guarantees::none());
        write(&store, Guarantees::all(), at("2026-11-22T22:00:00Z")).await.unwrap();
        assert_eq!(read(&store).await, Guarantees::all());
        let damaged = ObjectKey::guarantees(at("2026-11-22T23:00:00Z"));
        store.create(&damaged, bytes::Bytes::from_static(b"{").into()).await.unwrap();
        assert_eq!(read(&store).await, Guarantees::none());
    }

    #[tokio::test]
    async fn a_record_of_another_server_is_passed_over() {
        let store = Store::memory();
        write(&store, Guarantees::none(), at("2026-11-22T21:00:00Z")).await.unwrap();
        let record = Record {
            format: RECORD_FORMAT,
            tried_at: at("2026-11-22T22:00:00Z"),
            wald: "0.1.0".to_owned(),
            server: Some("https://elsewhere.example/bucket".to_owned()),
            guarantees: Guarantees::all(),
        };
        let bytes = serde_json::to_vec(&record).unwrap();
        store.create(&ObjectKey::guarantees(record.tried_at), bytes.into()).await.unwrap();
        assert_eq!(newest(&store).await.unwrap(), Some(Guarantees::none()));
    }

    #[test]
    fn a_record_from_the_future_is_passed_over() {
        let listed = |name: &str, modified: &str| ListedObject {
            name: format!("{}{name}.json", ObjectKey::GUARANTEES_PREFIX),
            stat: ObjectStat { size_bytes: 1, modified: at(modified) },
        };
        let all = vec![
            listed("c", "2026-11-22T11:00:00Z"),
            listed("b", "2026-11-22T12:04:00Z"),
            listed("a", "2026-11-22T12:06:00Z"),
        ];
        let names = newest_first(all, at("2026-11-22T12:00:00Z"));
        let names: Vec<&str> = names.iter().map(ObjectKey::as_str).collect();
        assert_eq!(names, ["check/guarantees-b.json", "check/guarantees-c.json"]);
    }
}
