//! Several versions of one object where only one should be, and what tells whether they are the
//! same: a server that does not create only if absent lets two writers have one name.
//!
//! Invariant: two versions are the same if their bytes are, or if whoever knows what they mean
//! says so; what can't be read or understood is another.

use super::backend::Store;
use super::error::{Operation, StoreError};
use super::opened::OpenedObject;
use super::versions::{ObjectVersion, VersionId, VersionKind};
use bytes::{Bytes, BytesMut};
use futures::future::{BoxFuture, FutureExt};
use object_store::PutPayload;
use wald_core::object_key::ObjectKey;

type Judge = Box<dyn Fn(Bytes, Bytes) -> BoxFuture<'static, bool> + Send + Sync>;

/// When two objects under one name have the same content.
pub struct Sameness {
    judge: Judge,
    bytes_max: u64,
}

impl Sameness {
    /// Each byte counts.
    pub fn of_bytes() -> Self {
        Self { judge: Box::new(|_, _| std::future::ready(false).boxed()), bytes_max: 0 }
    }

    /// Objects of different bytes, none larger than `bytes_max`, are the same if `judge` says so.
    pub fn judged<J, F>(bytes_max: u64, judge: J) -> Self
    where
        J: Fn(Bytes, Bytes) -> F + Send + Sync + 'static,
        F: Future<Output = bool> + Send + 'static,
    {
        Self { judge: Box::new(move |one, other| judge(one, other).boxed()), bytes_max }
    }

    async fn holds(&self, one: Bytes, other: Bytes) -> bool {
        one == other || (self.bytes_max > 0 && (self.judge)(one, other).await)
    }
}

impl Store {
    /// A whole object, as [`Store::get`] reads it. Where the server was not seen to create only if
    /// absent, the newest version may be that of somebody who came too late and was told so: there
    /// the first one is read, and another content in a later one is an error that names both.
    pub async fn get_judged(
        &self,
        key: &ObjectKey,
        max_bytes: u64,
        sameness: &Sameness,
    ) -> Result<Bytes, StoreError> {
        let (read, told) = self.get_told(key, max_bytes).await?;
        let true_one = self.judge_versions(key, told.as_ref(), max_bytes, sameness).await?;
        Ok(true_one.map_or(read, |(_, whole)| whole))
    }

    /// The same, opened with its first bytes, to be read piece by piece.
    pub async fn open_judged(
        &self,
        key: &ObjectKey,
        first_bytes: u64,
        max_bytes: u64,
        sameness: &Sameness,
    ) -> Result<(OpenedObject, Bytes), StoreError> {
        let (object, start) = self.open_object(key, 0..first_bytes).await?;
        if object.size_bytes() > max_bytes {
            return Err(self.inner.too_large(key.as_str(), object.size_bytes(), max_bytes));
        }
        match self.judge_versions(key, object.version(), max_bytes, sameness).await? {
            None => Ok((object, start)),
            Some((version, _)) => self.open_version(key, version, 0..first_bytes).await,
        }
    }

    /// The version that counts and its content, if there are several. `told` is the one that was read.
    async fn judge_versions(
        &self,
        key: &ObjectKey,
        told: Option<&VersionId>,
        max_bytes: u64,
        sameness: &Sameness,
    ) -> Result<Option<(VersionId, Bytes)>, StoreError> {
        if self.inner.guarantees.create_only {
            return Ok(None);
        }
        let name = key.as_str();
        let versions = self.objects_of(name).await?;
        // A list begins with the newest; of two with the same date the later one in it is the older.
        let first = versions.iter().rev().min_by_key(|version| (version.modified, version.is_latest));
        let missing =
            || self.inner.bad_answer(Operation::Read, name, "it is there and not listed; try again");
        let first = &first.ok_or_else(missing)?.version;
        if versions.len() == 1 && told.is_none_or(|told| told == first) {
            return Ok(None);
        }
        let whole = self.get_version(name, first, max_bytes).await?;
        for other in versions.iter().filter(|other| other.version != *first) {
            let fits = matches!(other.kind, VersionKind::Object { size_bytes } if size_bytes <= max_bytes);
            let is_same = fits && {
                let other = self.get_version(name, &other.version, max_bytes).await?;
                sameness.holds(whole.clone(), other).await
            };
            if !is_same {
                return Err(self.inner.contested(name, first, &other.version));
            }
        }
        Ok(Some((first.clone(), whole)))
    }

    /// Whether a version has the content of `payload`.
    pub(super) async fn is_copy(
        &self,
        version: &ObjectVersion,
        payload: &PutPayload,
        sameness: &Sameness,
    ) -> Result<bool, StoreError> {
        let VersionKind::Object { size_bytes } = version.kind else { return Ok(false) };
        let length = u64::try_from(payload.content_length()).unwrap_or(u64::MAX);
        let (name, id) = (version.name.as_str(), &version.version);
        if size_bytes == length && self.inner.holds(name, Some(id), payload).await? {
            return Ok(true);
        }
        if size_bytes > sameness.bytes_max {
            return Ok(false);
        }
        let stored = self.get_version(name, id, sameness.bytes_max).await?;
        Ok(sameness.holds(joined(payload), stored).await)
    }
}

fn joined(payload: &PutPayload) -> Bytes {
    let mut whole = BytesMut::with_capacity(payload.content_length());
    for piece in payload {
        whole.extend_from_slice(piece);
    }
    whole.freeze()
}
