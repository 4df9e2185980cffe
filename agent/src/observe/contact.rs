//! Whether the repository answers: its small `wald.json`, read now and then.

use super::{Observatory, repeat};
use crate::codec::aside;
use crate::explain::chain;
use crate::metrics::{Observer, Seen, figures, seconds};
use crate::repository::{Repository, RepositoryError};
use crate::store::Store;
use std::time::Duration;
use wald_core::object_key::ObjectKey;

/// Some thousand small requests a day.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// What takes longer is no answer for whoever waits for one.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
const IDENTITY_BYTES_MAX: u64 = 64 << 10;

pub(super) async fn watch(at: Observatory) {
    let at = &at;
    // Opened once: it keeps its connections. Behind a lock because a look that is given up must
    // leave nothing half done.
    let opened = tokio::sync::Mutex::new(None);
    repeat(|| async {
        let mut opened = opened.lock().await;
        let answer = tokio::time::timeout(ANSWER_WITHIN, look(at, &mut opened)).await;
        let error = match answer {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(chain(&error)),
            Err(_) => Some(format!("it gave no answer within {} s", ANSWER_WITHIN.as_secs())),
        };
        publish(at, error);
        LOOK_EVERY
    })
    .await;
}

async fn look(at: &Observatory, opened: &mut Option<Repository>) -> Result<(), RepositoryError> {
    match opened {
        None => {
            *opened = Some(open(at).await?);
            Ok(())
        }
        Some(repository) => {
            repository.store().get(&ObjectKey::identity(), IDENTITY_BYTES_MAX).await?;
            Ok(())
        }
    }
}

/// Opens the repository, which may be a directory on a dead network disk.
pub(super) async fn open(at: &Observatory) -> Result<Repository, RepositoryError> {
    let options = at.options.repository.clone();
    let store = aside(move || Store::open(&options)).await;
    let store = store.map_err(|error| RepositoryError::Opening(error.to_string()))??;
    Repository::open(store).await
}

fn publish(at: &Observatory, error: Option<String>) {
    let mut observed = at.lock();
    let repository = &mut observed.repository;
    match (&error, &repository.error) {
        (Some(error), None) => tracing::warn!(%error, "the repository does not answer"),
        (None, Some(_)) => tracing::info!("the repository answers again"),
        _ => {}
    }
    if error.is_none() {
        repository.answered_at = Some(at.clock.now());
    }
    let mut seen = Seen::default();
    seen.set(&figures::REPOSITORY_UP, if error.is_none() { 1.0 } else { 0.0 });
    seen.set_known(&figures::REPOSITORY_CONTACT, repository.answered_at.map(seconds));
    repository.error = error;
    at.metrics.publish(Observer::Contact, seen);
}
