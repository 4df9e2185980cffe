//! Gives a backup a name that no other backup has.
//!
//! A name is a second, and two backups may begin in the same one: from cron on two hosts, or by
//! hand beside a timer. Looking whether the name is free is no answer, because both may look
//! before either writes. So the name is taken by creating one object, `claim.json`, which a
//! repository creates once only; everything else of the backup is written by who holds it.
//!
//! The claim of a backup that was interrupted stays with its other objects.

use super::error::BackupError;
use crate::database::DatabaseError;
use crate::store::{Created, PutPayload, Store, StoreError};
use bytes::Bytes;
use jiff::Timestamp;
use std::fs::{self, File};
use std::io::{self, Read};
use std::time::Duration;
use wald_core::backup_id::{BackupId, BackupKind};
use wald_core::object_key::{ObjectKey, ObjectKeyError};

/// The claim, beside the parts.
const CLAIM: &str = "claim.json";
/// How many names are tried, one a second.
const NAME_ATTEMPTS_MAX: u32 = 10;
/// Random bytes that make a claim different from every other.
const NONCE_BYTES: usize = 16;

/// Why no name could be claimed, beside the repository's own reasons.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// No randomness.
    #[error("can't read random bytes from /dev/urandom, which tell this backup from others")]
    Random(#[source] io::Error),
    /// A name that can't be a key.
    #[error("the claim of the backup has an impossible name")]
    Name(#[from] ObjectKeyError),
}

/// Claims the present second, or the first one after it that nobody else has. `clock` is the
/// server's; a name and the time that it stands for come from the same reading.
pub async fn claim_name<F>(store: &Store, clock: impl Fn() -> F) -> Result<(BackupId, Timestamp), BackupError>
where
    F: Future<Output = Result<Timestamp, DatabaseError>>,
{
    let content = content()?;
    let mut attempt = 1;
    loop {
        let started_at = clock().await?;
        let id = BackupId::new(started_at, BackupKind::Full);
        if claim(store, &id, &content).await? {
            return Ok((id, started_at));
        }
        if attempt >= NAME_ATTEMPTS_MAX {
            return Err(BackupError::Exists(id));
        }
        attempt += 1;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Whether the name is ours now.
async fn claim(store: &Store, id: &BackupId, content: &Bytes) -> Result<bool, BackupError> {
    // A finished backup has the name even if its claim is gone.
    match store.stat(&ObjectKey::catalog(id)).await {
        Ok(_) => return Ok(false),
        Err(error) if error.is_absent() => {}
        Err(error) => return Err(BackupError::Repository(error)),
    }
    let key = ObjectKey::backup_object(id, CLAIM).map_err(ClaimError::from)?;
    match store.create(&key, PutPayload::from(content.clone())).await.map_err(BackupError::Repository)? {
        Created::Stored => Ok(true),
        // It may be our own first try, whose answer was lost: the nonce tells.
        Created::Exists => {
            let bytes_max = u64::try_from(content.len()).unwrap_or(u64::MAX);
            match store.get(&key, bytes_max).await {
                Ok(stored) => Ok(stored == *content),
                Err(StoreError::TooLarge { .. }) => Ok(false),
                // Another's request was under way and failed; what is not there is not ours.
                Err(error) if error.is_absent() => Ok(false),
                Err(error) => Err(BackupError::Repository(error)),
            }
        }
    }
}

/// What a claim says. Only the nonce counts; the rest is for people.
fn content() -> Result<Bytes, ClaimError> {
    let mut nonce = [0; NONCE_BYTES];
    File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut nonce))
        .map_err(ClaimError::Random)?;
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let claim = serde_json::json!({
        "format": 1,
        "nonce": format!("{:032x}", u128::from_be_bytes(nonce)),
        "host": host.trim_end(),
        "pid": std::process::id(),
    });
    Ok(Bytes::from(format!("{claim}\n")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::future::join_all;
    use std::collections::BTreeSet;

    fn start() -> Timestamp {
        "2026-11-22T18:00:00Z".parse().unwrap()
    }

    fn id(started_at: Timestamp) -> BackupId {
        BackupId::new(started_at, BackupKind::Full)
    }

    #[tokio::test(start_paused = true)]
    async fn backups_that_begin_in_the_same_second_get_different_names() {
        let store = Store::memory();
        let began = tokio::time::Instant::now();
        let clock = || async move { Ok(start() + jiff::SignedDuration::try_from(began.elapsed()).unwrap()) };
        let claims = join_all((0..8).map(|_| claim_name(&store, clock))).await;
        let ids: BTreeSet<BackupId> = claims
            .into_iter()
            .map(|claimed| {
                let (name, started_at) = claimed.unwrap();
                assert_eq!(name, id(started_at));
                name
            })
            .collect();
        assert_eq!(ids.len(), 8);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn one_second_is_claimed_once_whoever_asks_at_the_same_time() {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("file://{}", directory.path().display());
        let store = Store::open(&crate::store::StoreOptions::new(url)).unwrap();
        let claims = (0..16).map(|_| {
            let store = store.clone();
            tokio::spawn(async move { claim(&store, &id(start()), &content().unwrap()).await.unwrap() })
        });
        let won = join_all(claims).await.into_iter().filter(|won| *won.as_ref().unwrap()).count();
        assert_eq!(won, 1);
    }

    #[tokio::test]
    async fn a_claim_whose_answer_was_lost_is_recognised() {
        let store = Store::memory();
        let ours = content().unwrap();
        assert!(claim(&store, &id(start()), &ours).await.unwrap());
        assert!(claim(&store, &id(start()), &ours).await.unwrap());
        assert!(!claim(&store, &id(start()), &content().unwrap()).await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn a_finished_backup_keeps_its_name_and_the_attempts_end() {
        let store = Store::memory();
        store.create(&ObjectKey::catalog(&id(start())), "{}".into()).await.unwrap();
        let error = claim_name(&store, || async { Ok(start()) }).await.unwrap_err();
        assert!(matches!(&error, BackupError::Exists(name) if *name == id(start())), "{error}");
    }
}
