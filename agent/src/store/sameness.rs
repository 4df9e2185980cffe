//! Several versions of one object where only one should be, and what tells whether they are the
//! same: a server that does not create only if absent lets two writers have one name.
//!
//! Invariant: two versions are the same if their bytes are, or if whoever knows what they mean
//! says so; what can't be read or understood is another.

use super::backend::Store;
use super::error::StoreError;
use super::versions::{ObjectVersion, VersionKind};
use bytes::{Bytes, BytesMut};
use futures::future::{BoxFuture, FutureExt};
use object_store::PutPayload;

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
