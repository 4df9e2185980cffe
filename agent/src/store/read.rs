//! Reading objects, in requests of bounded size.
//!
//! Invariants: a range is read only from the object that the first answer described (its ETag
//! must match); as many bytes arrive as the repository announced, or it is an error. Each request
//! has the time-out to itself, so that a large object on a slow line is read as long as it makes
//! progress.

use super::backend::{Inner, Kind, Store};
use super::error::{Operation, StoreError};
use super::s3_answer::{S3Verdict, s3_verdict};
use super::signing::ToldLock;
use super::versions::VersionId;
use bytes::{Bytes, BytesMut};
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use object_store::{GetOptions, GetRange, GetResult, ObjectMeta, PutPayload};
use std::collections::VecDeque;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};
use wald_core::object_key::ObjectKey;
use wald_core::object_lock::ObjectLock;

/// Bytes asked for in one request. At the default time-out of 60 s this makes do with 140 KiB/s.
const RANGE_BYTES: u64 = 8 << 20;

/// An object being read.
pub struct ObjectStream {
    size_bytes: u64,
    parts: BoxStream<'static, Result<Bytes, StoreError>>,
}

impl ObjectStream {
    /// The object's whole size. The stream yields exactly that, or an error.
    pub const fn size_bytes(&self) -> u64 {
        self.size_bytes
    }
}

/// What the answer to a read says besides the object.
#[derive(Clone, Default)]
pub(super) struct Told {
    pub lock: Option<Option<ObjectLock>>,
    pub version: Option<VersionId>,
}

/// What is read: the newest version, or a certain one.
#[derive(Clone, Copy)]
pub(super) struct Target<'t> {
    pub name: &'t str,
    pub version: Option<&'t VersionId>,
}

/// What is read first of an object, with its description.
pub(super) struct Start {
    pub meta: ObjectMeta,
    pub bytes: Bytes,
    pub told: Told,
}

impl Stream for ObjectStream {
    type Item = Result<Bytes, StoreError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.parts.poll_next_unpin(context)
    }
}

impl Store {
    /// A whole object, which must not be larger than `max_bytes`: a larger one is refused before
    /// its bytes are read.
    pub async fn get(&self, key: &ObjectKey, max_bytes: u64) -> Result<Bytes, StoreError> {
        self.get_told(key, max_bytes).await.map(|(whole, _)| whole)
    }

    /// The same with the version that was read, if the answer told it.
    pub(super) async fn get_told(
        &self,
        key: &ObjectKey,
        max_bytes: u64,
    ) -> Result<(Bytes, Option<VersionId>), StoreError> {
        let read = self.inner.read_whole(Target { name: key.as_str(), version: None }, max_bytes).await;
        self.believed(Operation::Read, key, read).await
    }

    /// One whole version of an object, whatever is newer, under the same bound.
    pub async fn get_version(
        &self,
        name: &str,
        version: &VersionId,
        max_bytes: u64,
    ) -> Result<Bytes, StoreError> {
        let has_versions = matches!(self.inner.kind, Kind::S3(_));
        if !has_versions && *version != VersionId::null() {
            return Err(self.inner.absent(name));
        }
        let version = has_versions.then_some(version);
        self.inner.read_whole(Target { name, version }, max_bytes).await.map(|(whole, _)| whole)
    }

    /// The first `bytes` of an object, or all of it if it is shorter.
    pub async fn get_start(&self, key: &ObjectKey, bytes: u64) -> Result<Bytes, StoreError> {
        if bytes == 0 {
            return self.stat(key).await.map(|_| Bytes::new());
        }
        let target = Target { name: key.as_str(), version: None };
        let read = self.inner.read_start(target, 0..bytes.min(RANGE_BYTES)).await;
        let Start { meta, bytes: start, .. } = self.believed(Operation::Read, key, read).await?;
        let wanted = bytes.min(meta.size);
        if size_of(&start) == wanted {
            return Ok(start);
        }
        let mut whole = BytesMut::from(start);
        while size_of(&whole) < wanted {
            let from = size_of(&whole);
            whole.extend_from_slice(
                &self.inner.read_range(target, &meta, from..wanted.min(from + RANGE_BYTES)).await?,
            );
        }
        Ok(whole.freeze())
    }

    /// A whole object as a stream, for what does not fit into memory. At most one part of a few
    /// MiB is held at a time.
    pub async fn get_stream(&self, key: &ObjectKey) -> Result<ObjectStream, StoreError> {
        let (object, start) = self.open_object(key, 0..RANGE_BYTES).await?;
        let size_bytes = object.size_bytes();
        let state = (object, size_of(&start));
        let rest = stream::try_unfold(state, |(object, from)| async move {
            if from >= object.size_bytes() {
                return Ok(None);
            }
            let to = object.size_bytes().min(from + RANGE_BYTES);
            let part = object.read(from..to).await?;
            Ok(Some((part, (object, to))))
        });
        let first = stream::iter((!start.is_empty()).then_some(Ok(start)));
        Ok(ObjectStream { size_bytes, parts: first.chain(rest).boxed() })
    }
}

impl Inner {
    async fn read_whole(
        &self,
        target: Target<'_>,
        max_bytes: u64,
    ) -> Result<(Bytes, Option<VersionId>), StoreError> {
        let first = RANGE_BYTES.min(max_bytes.max(1));
        let Start { meta, bytes: start, told } = self.read_start(target, 0..first).await?;
        if meta.size > max_bytes {
            return Err(self.too_large(target.name, meta.size, max_bytes));
        }
        if size_of(&start) == meta.size {
            return Ok((start, told.version));
        }
        let mut whole = BytesMut::with_capacity(usize::try_from(meta.size).unwrap_or(0));
        whole.extend_from_slice(&start);
        while size_of(&whole) < meta.size {
            let from = size_of(&whole);
            let part = self.read_range(target, &meta, from..meta.size.min(from + RANGE_BYTES)).await?;
            whole.extend_from_slice(&part);
        }
        Ok((whole.freeze(), told.version))
    }

    /// Whether a version, or the newest, holds exactly these bytes. A bounded part of it is held
    /// at a time.
    pub(super) async fn holds(
        &self,
        name: &str,
        version: Option<&VersionId>,
        payload: &PutPayload,
    ) -> Result<bool, StoreError> {
        let target = Target { name, version };
        let Start { meta, bytes, .. } = self.read_start(target, 0..RANGE_BYTES).await?;
        if meta.size != u64::try_from(payload.content_length()).unwrap_or(u64::MAX) {
            return Ok(false);
        }
        let mut expected: VecDeque<Bytes> = payload.iter().cloned().collect();
        let mut part = bytes;
        let mut from = 0;
        loop {
            from += size_of(&part);
            if !is_next(&mut expected, part) {
                return Ok(false);
            }
            if from >= meta.size {
                return Ok(true);
            }
            part = self.read_range(target, &meta, from..meta.size.min(from + RANGE_BYTES)).await?;
        }
    }

    /// The description of an object with a range of it (of at least 1 byte), or less if it ends
    /// before.
    pub(super) async fn read_start(
        &self,
        target: Target<'_>,
        range: Range<u64>,
    ) -> Result<Start, StoreError> {
        let name = target.name;
        self.check_place(Operation::Read, name).await?;
        let options = GetOptions {
            range: Some(GetRange::Bounded(range.clone())),
            version: target.version.map(VersionId::to_string),
            ..GetOptions::default()
        };
        let path = self.path(name);
        let reading = async {
            let found = self.objects.get_opts(&path, options).await?;
            let (meta, told) = (found.meta.clone(), self.told(&found));
            Ok(Start { meta, bytes: found.bytes().await?, told })
        };
        match self.within_deadline(Operation::Read, name, reading).await? {
            Ok(start)
                if size_of(&start.bytes) == range.end.min(start.meta.size).saturating_sub(range.start) =>
            {
                Ok(start)
            }
            Ok(_) => Err(self.bad_answer(Operation::Read, name, "its length is not what it announced")),
            Err(error) if self.may_be_empty(&error) => {
                let found = self.describe(Operation::Read, name, target.version).await?;
                if found.meta.size == 0 {
                    let told = self.told(&found);
                    Ok(Start { meta: found.meta, bytes: Bytes::new(), told })
                } else {
                    Err(self.error(Operation::Read, name, &error).await)
                }
            }
            Err(error) if target.version.is_some() && s3_verdict(&error) == S3Verdict::NoSuchVersion => {
                Err(self.absent(name))
            }
            Err(error) => Err(self.error(Operation::Read, name, &error).await),
        }
    }

    fn told(&self, found: &GetResult) -> Told {
        let lock = match self.kind {
            Kind::S3(_) => found.extensions.get::<ToldLock>().map(|told| Some(told.0)),
            Kind::Memory | Kind::Directory(_) => Some(None),
        };
        Told { lock, version: found.meta.version.clone().map(VersionId::new) }
    }

    /// Every range lies outside of an empty object, and stores say so in different ways.
    fn may_be_empty(&self, error: &object_store::Error) -> bool {
        let generic = matches!(error, object_store::Error::Generic { .. });
        let text = || error.to_string();
        match self.kind {
            Kind::S3(_) => {
                s3_verdict(error) == S3Verdict::RangeOutside
                    || (generic && (text().contains(" 416 ") || text().contains("non-partial response")))
            }
            Kind::Memory | Kind::Directory(_) => generic && text().to_lowercase().contains("range"),
        }
    }

    /// Bytes of the object that `meta` describes.
    pub(super) async fn read_range(
        &self,
        target: Target<'_>,
        meta: &ObjectMeta,
        range: Range<u64>,
    ) -> Result<Bytes, StoreError> {
        let name = target.name;
        self.check_place(Operation::Read, name).await?;
        let options = GetOptions {
            range: Some(GetRange::Bounded(range.clone())),
            if_match: meta.e_tag.clone(),
            version: target.version.map(VersionId::to_string),
            ..GetOptions::default()
        };
        let path = self.path(name);
        let reading = async { self.objects.get_opts(&path, options).await?.bytes().await };
        match self.within_deadline(Operation::Read, name, reading).await? {
            Ok(part) if size_of(&part) == range.end - range.start => Ok(part),
            Ok(_) => Err(self.bad_answer(Operation::Read, name, "a part of it is missing")),
            Err(object_store::Error::Precondition { .. }) => {
                Err(self.bad_answer(Operation::Read, name, "it changed while it was read"))
            }
            Err(error) => Err(self.error(Operation::Read, name, &error).await),
        }
    }
}

/// Takes as many bytes as `part` has off the front, and says whether they are the same.
fn is_next(expected: &mut VecDeque<Bytes>, mut part: Bytes) -> bool {
    while !part.is_empty() {
        let Some(piece) = expected.front_mut() else { return false };
        let length = piece.len().min(part.len());
        if piece.split_to(length) != part.split_to(length) {
            return false;
        }
        if piece.is_empty() {
            expected.pop_front();
        }
    }
    true
}

fn size_of(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}
