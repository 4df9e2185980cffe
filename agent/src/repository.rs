//! One cluster's repository: a store and the identity that it is checked against.
//!
//! Invariant: whoever holds a [`Repository`] has read its `wald.json`; an absence counts only
//! while that identity can be read, so an unmounted disk, a removed bucket or a wrong prefix
//! is never taken for the end of the WAL.

mod init;

mod check;
mod bucket_trial;
mod object_trial;
mod lock_trial;
mod leftover_trial;
mod guarantees;
mod report;
#[cfg(test)]
mod tests;

use crate::store::{Store, StoreError, StoreOptions};
use std::fmt;
use std::time::Duration;
use wald_core::identity::{Identity, IdentityError};
use wald_core::object_key::ObjectKey;
use wald_core::segment::SegmentSize;
use wald_core::system_id::SystemId;

pub use check::{Purpose, check, check_for};
pub use init::{Initialised, init};
pub use report::{CheckReport, Finding, Verdict};

/// The pause between attempts to open a repository that can't be reached.
const OPEN_RETRY: Duration = Duration::from_secs(1);

/// `wald.json` is never larger.
const IDENTITY_BYTES_MAX: u64 = 64 << 10;

/// An opened repository; cheap to clone.
#[derive(Clone, Debug)]
pub struct Repository {
    store: Store,
    identity: Identity,
}

/// Why there is no repository.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// There is no `wald.json`.
    #[error(
        "{place} is not a repository yet (it has no wald.json): run `wald repo init` on the database host"
    )]
    NotInitialised {
        /// The repository's URL.
        place: String,
    },
    /// `wald.json` can't be understood.
    #[error("{place} can't be used")]
    Identity {
        /// The repository's URL.
        place: String,
        /// What is wrong.
        source: IdentityError,
    },
    /// It belongs to another cluster.
    #[error(
        "{place} belongs to {found}, not to {expected}: a repository serves one cluster; \
         give this one its own repository.url"
    )]
    OtherCluster {
        /// The repository's URL.
        place: String,
        /// The cluster at hand.
        expected: ClusterName,
        /// The repository's.
        found: ClusterName,
    },
    /// The attempt to open it ended without a result.
    #[error("a defect in wald: opening the repository ended without a result: {0}")]
    Opening(String),
    /// The store can't be asked.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A cluster as messages name it. Both parts matter: `initdb` makes a new system,
/// `pg_resetwal --wal-segsize` keeps the system and changes the size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClusterName {
    system_id: SystemId,
    segment_size: SegmentSize,
}

impl From<&Identity> for ClusterName {
    fn from(identity: &Identity) -> Self {
        Self { system_id: identity.system_id(), segment_size: identity.segment_size() }
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "system {} with segments of {} MiB", self.system_id, self.segment_size.bytes() >> 20)
    }
}

impl Repository {
    /// Reads the identity of the repository in `store`, and what is known of its server.
    pub async fn open(store: Store) -> Result<Self, RepositoryError> {
        let identity = read_identity(&store).await?;
        let guarantees = guarantees::read(&store).await;
        Ok(Self { store: store.with_guarantees(guarantees), identity })
    }

    /// Opens a repository that may not be reachable yet, again and again until it is: a disk
    /// that is not mounted, a server that is down, keys that are not there. `waiting` is told
    /// each time. A repository that answers and is not ours is an error at once.
    pub async fn open_patiently(
        options: &StoreOptions,
        mut waiting: impl FnMut(&StoreError),
    ) -> Result<Self, RepositoryError> {
        loop {
            // A directory on a dead network disk blocks: not on the runtime's threads.
            let blocking = options.clone();
            let opened = match tokio::task::spawn_blocking(move || Store::open(&blocking)).await {
                Ok(Ok(store)) => Self::open(store).await,
                Ok(Err(error)) => Err(error.into()),
                Err(ended) => Err(RepositoryError::Opening(ended.to_string())),
            };
            match opened {
                Err(RepositoryError::Store(error)) => waiting(&error),
                opened => return opened,
            }
            tokio::time::sleep(OPEN_RETRY).await;
        }
    }

    /// Where its objects are.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Which promise rests on what, where the server does not keep it: one sentence each.
    pub fn weaknesses(&self) -> Vec<String> {
        self.store.guarantees().explain_missing()
    }

    /// Whose it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Whose it is.
    pub fn system_id(&self) -> SystemId {
        self.identity.system_id()
    }

    /// The size of the cluster's segments.
    pub fn segment_size(&self) -> SegmentSize {
        self.identity.segment_size()
    }

    /// The most bytes that a sealed WAL object can have: incompressible data grows by less
    /// than a thousandth, and the header is small.
    pub fn sealed_bytes_max(&self) -> u64 {
        let raw = u64::from(self.segment_size().bytes());
        raw + raw / 64 + (64 << 10)
    }

    /// Whether an absence that the store reported for `key` may be believed: the repository
    /// must be readable, ours, and say so again. `Err` is why not, and is never "absent".
    pub async fn believed_absent(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let unsure = |problem: String| StoreError::Misconfigured {
            repository: self.store.describe().to_owned(),
            problem,
        };
        match read_identity(&self.store).await {
            Ok(identity) if identity == self.identity => {}
            Ok(_) => return Err(unsure("its wald.json is another one than at the start".to_owned())),
            Err(RepositoryError::Store(error)) => return Err(error),
            Err(error) => return Err(unsure(crate::explain::chain(&error))),
        }
        match self.store.get_start(key, 1).await {
            Err(error) if error.is_absent() => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Err(unsure(format!("{key} appeared while it was asked for"))),
        }
    }
}

async fn read_identity(store: &Store) -> Result<Identity, RepositoryError> {
    let place = || store.describe().to_owned();
    let bytes = match store.get(&ObjectKey::identity(), IDENTITY_BYTES_MAX).await {
        Ok(bytes) => bytes,
        Err(error) if error.is_absent() => return Err(RepositoryError::NotInitialised { place: place() }),
        Err(error) => return Err(error.into()),
    };
    Identity::parse(&bytes).map_err(|source| RepositoryError::Identity { place: place(), source })
}
