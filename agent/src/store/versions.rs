//! Versions of objects, their locks, and uploads that were never completed: what retention needs
//! to know and to remove, beyond what object_store offers.
//!
//! Invariants: a lock is only ever made longer; a version is deleted by its own id, never by the
//! name alone, so that nothing newer goes with it; a version that is locked stays, and that is an
//! answer, not an error. A directory keeps one version of each object and no locks.

use super::backend::{Kind, Store};
use super::error::{Operation, StoreError};
use super::s3_lock;
use super::s3_pages::PagesSeen;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use std::fmt;
use std::sync::Arc;
use wald_core::object_lock::ObjectLock;

/// The id that S3 gives to a version; `null` where a repository keeps none.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct VersionId(String);

impl VersionId {
    /// What S3 calls the only version of an object in a bucket without versions.
    pub fn null() -> Self {
        Self("null".to_owned())
    }

    /// An id as the server told it.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for VersionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a version is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VersionKind {
    /// Stored bytes.
    Object {
        /// Their number.
        size_bytes: u64,
    },
    /// The mark of a deletion, which hides the versions before it.
    DeleteMarker,
}

/// One version of one object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ObjectVersion {
    /// The object's name relative to the repository's URL. Not every one is wald's.
    pub name: String,
    /// Which version.
    pub version: VersionId,
    /// Whether it is the one that a plain read sees.
    pub is_latest: bool,
    /// What it is.
    pub kind: VersionKind,
    /// When it was stored, by the repository's clock.
    pub modified: Timestamp,
}

/// An upload in parts that was begun and neither completed nor aborted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PendingUpload {
    /// The name that the object would have, relative to the repository's URL.
    pub name: String,
    /// S3's id of the upload.
    pub upload_id: String,
    /// When it was begun, by the repository's clock.
    pub begun: Timestamp,
}

/// What became of a version that was to be deleted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deletion {
    /// It is gone, or was not there any more.
    Deleted,
    /// The repository refused: its lock has not lapsed, or somebody put a legal hold on it.
    Locked,
}

impl Store {
    /// Lists every version of the objects whose names begin with `prefix`, delete markers
    /// included, in no order that could be relied on. Ends after the first error; a list that ends
    /// without one is complete.
    pub fn versions(&self, prefix: &str) -> BoxStream<'static, Result<ObjectVersion, StoreError>> {
        let Kind::S3(requests) = &self.inner.kind else {
            let only = |object: super::ListedObject| ObjectVersion {
                name: object.name,
                version: VersionId::null(),
                is_latest: true,
                kind: VersionKind::Object { size_bytes: object.stat.size_bytes },
                modified: object.stat.modified,
            };
            return self.list(prefix).map_ok(only).boxed();
        };
        let start = (Arc::clone(&self.inner), requests.clone(), Some(None), PagesSeen::default());
        let prefix = self.inner.key_in_bucket(prefix);
        let pages = stream::try_unfold(start, move |(inner, requests, from, mut seen)| {
            let prefix = prefix.clone();
            async move {
                let Some(from) = from else { return Ok(None) };
                let page = s3_lock::versions_page(&inner, &requests, &prefix, from.as_ref(), &mut seen);
                let (page, next) = page.await?;
                let page = stream::iter(page.into_iter().map(Ok));
                Ok(Some((page, (inner, requests, next.map(Some), seen))))
            }
        });
        pages.try_flatten().boxed()
    }

    /// The lock of a version, lapsed or not; `None` if it has none.
    pub async fn lock_of(&self, name: &str, version: &VersionId) -> Result<Option<ObjectLock>, StoreError> {
        match &self.inner.kind {
            Kind::S3(requests) => s3_lock::lock_of(&self.inner, requests, name, version).await,
            Kind::Memory | Kind::Directory(_) => Ok(None),
        }
    }

    /// Makes the lock of a version at least `wanted`, never shorter or weaker than it is. Returns
    /// the lock that it then has, read back.
    pub async fn extend_lock(
        &self,
        name: &str,
        version: &VersionId,
        wanted: ObjectLock,
    ) -> Result<ObjectLock, StoreError> {
        match &self.inner.kind {
            Kind::S3(requests) => s3_lock::extend_lock(&self.inner, requests, name, version, wanted).await,
            Kind::Memory | Kind::Directory(_) => Err(self.not_offered(Operation::Lock, name)),
        }
    }

    /// Deletes one version, if its lock has lapsed.
    pub async fn delete_version(&self, name: &str, version: &VersionId) -> Result<Deletion, StoreError> {
        match &self.inner.kind {
            Kind::S3(requests) => s3_lock::delete_version(&self.inner, requests, name, version).await,
            Kind::Memory | Kind::Directory(_) => self.delete_name(name).await.map(|()| Deletion::Deleted),
        }
    }

    /// Uploads in parts that were begun and never ended.
    pub async fn pending_uploads(&self, prefix: &str) -> Result<Vec<PendingUpload>, StoreError> {
        match &self.inner.kind {
            Kind::S3(requests) => {
                let prefix = self.inner.key_in_bucket(prefix);
                s3_lock::pending_uploads(&self.inner, requests, &prefix).await
            }
            Kind::Memory | Kind::Directory(_) => Ok(Vec::new()),
        }
    }

    /// Ends such an upload and removes its parts. One that is not there any more counts as ended.
    pub async fn abort_pending(&self, upload: &PendingUpload) -> Result<(), StoreError> {
        match &self.inner.kind {
            Kind::S3(requests) => s3_lock::abort_pending(&self.inner, requests, upload).await,
            Kind::Memory | Kind::Directory(_) => Err(self.not_offered(Operation::Upload, &upload.name)),
        }
    }

    fn not_offered(&self, operation: Operation, subject: &str) -> StoreError {
        self.inner.bad_answer(operation, subject, "this repository has no such function")
    }
}
