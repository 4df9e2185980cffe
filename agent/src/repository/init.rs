//! Making a repository: `wald.json`, create-only.
//!
//! Invariant: an existing identity is compared and never replaced; doing it twice is harmless.

use super::{Repository, RepositoryError};
use crate::store::{Created, Store, StoreError};
use wald_core::identity::Identity;
use wald_core::object_key::ObjectKey;

/// What came of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Initialised {
    /// It was made.
    Made,
    /// It was there, for the same cluster.
    Already,
}

/// Makes `store` the repository of `identity`'s cluster.
pub async fn init(store: Store, identity: Identity) -> Result<Initialised, RepositoryError> {
    let place = store.describe().to_owned();
    let bytes =
        identity.render().map_err(|source| RepositoryError::Identity { place: place.clone(), source })?;
    match store.create(&ObjectKey::identity(), bytes.into()).await? {
        Created::Stored => Ok(Initialised::Made),
        Created::Exists => {
            let found = match Repository::open(store).await {
                Ok(repository) => repository,
                // "Exists" and "absent" in one breath: two of us at once, or a store that errs.
                Err(RepositoryError::NotInitialised { .. }) => {
                    return Err(RepositoryError::Store(StoreError::Misconfigured {
                        repository: place,
                        problem: "it says that wald.json exists and that it does not; try again".to_owned(),
                    }));
                }
                Err(error) => return Err(error),
            };
            if found.identity().is_same_cluster(&identity) {
                Ok(Initialised::Already)
            } else {
                let (expected, found) = ((&identity).into(), found.identity().into());
                Err(RepositoryError::OtherCluster { place, expected, found })
            }
        }
    }
}
