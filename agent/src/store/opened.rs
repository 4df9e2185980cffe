//! An object that was opened for reading, of which any range can be read, also several at once.
//!
//! Invariant: all that is read of it is of the object that was opened (its ETag must match), or it
//! is an error.

use super::backend::{Inner, Store};
use super::error::{Operation, StoreError};
use super::read::{Start, Target, Told};
use super::versions::VersionId;
use bytes::Bytes;
use object_store::ObjectMeta;
use std::ops::Range;
use std::sync::Arc;
use wald_core::object_key::ObjectKey;
use wald_core::object_lock::ObjectLock;

/// An object as the first answer described it.
#[derive(Clone)]
pub struct OpenedObject {
    inner: Arc<Inner>,
    key: ObjectKey,
    meta: ObjectMeta,
    told: Told,
    /// The version that is asked for, if not the newest.
    pinned: Option<VersionId>,
}

impl Store {
    /// Opens an object with a first read; the range ends with the object if that is shorter.
    pub async fn open_object(
        &self,
        key: &ObjectKey,
        first: Range<u64>,
    ) -> Result<(OpenedObject, Bytes), StoreError> {
        let target = Target { name: key.as_str(), version: None };
        let read = self.inner.read_start(target, first).await;
        let start = self.believed(Operation::Read, key, read).await?;
        Ok(self.opened(key, None, start))
    }

    /// The same for one version, whatever is newer.
    pub(super) async fn open_version(
        &self,
        key: &ObjectKey,
        version: VersionId,
        first: Range<u64>,
    ) -> Result<(OpenedObject, Bytes), StoreError> {
        let target = Target { name: key.as_str(), version: Some(&version) };
        let start = self.inner.read_start(target, first).await?;
        Ok(self.opened(key, Some(version), start))
    }

    fn opened(&self, key: &ObjectKey, pinned: Option<VersionId>, start: Start) -> (OpenedObject, Bytes) {
        let Start { meta, bytes, told } = start;
        let inner = Arc::clone(&self.inner);
        (OpenedObject { inner, key: key.clone(), meta, told, pinned }, bytes)
    }
}

impl OpenedObject {
    /// The object's whole size.
    pub const fn size_bytes(&self) -> u64 {
        self.meta.size
    }

    /// The object's lock, if the answer told it. `Some(None)` is told of a repository without
    /// locks only: a server leaves the lock out where there is none and where the reader may not
    /// see it, and only [`Store::lock_of`] knows which.
    pub const fn lock(&self) -> Option<Option<ObjectLock>> {
        self.told.lock
    }

    /// The version that is being read, if the answer told it.
    pub const fn version(&self) -> Option<&VersionId> {
        self.told.version.as_ref()
    }

    /// Bytes of the object; exactly those, or an error. One request.
    pub async fn read(&self, range: Range<u64>) -> Result<Bytes, StoreError> {
        let target = Target { name: self.key.as_str(), version: self.pinned.as_ref() };
        self.inner.read_range(target, &self.meta, range).await
    }

    /// The error of a read that came to no end.
    pub fn not_read(&self, problem: &str) -> StoreError {
        self.inner.bad_answer(Operation::Read, self.key.as_str(), problem)
    }
}
