//! Believing an absence where the server does not tell a deleted object from one that never was.
//!
//! S3 marks its 404 for an object whose newest version is a delete marker; SeaweedFS up to 4.48
//! does not. To a recovery the difference is that between WAL that somebody removed and the end of
//! the WAL (DESIGN 1.3). So there the versions are asked as well, after an absence only.

use super::backend::Store;
use super::error::{Operation, StoreError};
use super::versions::VersionKind;
use wald_core::object_key::ObjectKey;

impl Store {
    /// What was read, or the error it ended with; an absence only where it is one.
    pub(super) async fn believed<T>(
        &self,
        operation: Operation,
        key: &ObjectKey,
        read: Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        match read {
            Err(error) if error.is_absent() && !self.inner.guarantees.tells_delete_markers => {
                Err(self.absent_or_deleted(operation, key.as_str(), error).await)
            }
            read => read,
        }
    }

    async fn absent_or_deleted(&self, operation: Operation, name: &str, absent: StoreError) -> StoreError {
        let versions = match self.versions_of(name).await {
            Ok(versions) => versions,
            Err(StoreError::Refused { cause, .. }) => {
                return self.inner.refused(operation, name, cause.but(NEEDED_RIGHT));
            }
            Err(error) => return error,
        };
        let newest = versions.iter().find(|version| version.is_latest);
        match newest.or(versions.first()).map(|version| version.kind) {
            None => absent,
            Some(VersionKind::DeleteMarker) => self.inner.deleted(name),
            // It came in between, or the server contradicts itself; asking again tells.
            Some(VersionKind::Object { .. }) => {
                self.inner.bad_answer(operation, name, "it is not there and has a version; try again")
            }
        }
    }
}

const NEEDED_RIGHT: &str = "the right s3:ListBucketVersions is needed to tell a deleted object from one that \
    never was, since this server's answers do not";
