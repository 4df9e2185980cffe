//! Reading objects, in requests of bounded size.
//!
//! Invariants: a range is read only from the object that the first answer described (its ETag
//! must match); as many bytes arrive as the repository announced, or it is an error. Each request
//! has the time-out to itself, so that a large object on a slow line is read as long as it makes
//! progress.

use super::backend::{Inner, Kind, Store};
use super::error::{Operation, StoreError};
use super::s3_answer::{S3Verdict, s3_verdict};
use bytes::{Bytes, BytesMut};
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use object_store::{GetOptions, GetRange, ObjectMeta};
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use wald_core::object_key::ObjectKey;

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
        let first = RANGE_BYTES.min(max_bytes.max(1));
        let (meta, start) = self.inner.read_start(key, first).await?;
        if meta.size > max_bytes {
            return Err(self.inner.too_large(key.as_str(), meta.size, max_bytes));
        }
        if size_of(&start) == meta.size {
            return Ok(start);
        }
        let mut whole = BytesMut::with_capacity(usize::try_from(meta.size).unwrap_or(0));
        whole.extend_from_slice(&start);
        while size_of(&whole) < meta.size {
            let from = size_of(&whole);
            let part = self.inner.read_range(key, &meta, from..meta.size.min(from + RANGE_BYTES)).await?;
            whole.extend_from_slice(&part);
        }
        Ok(whole.freeze())
    }

    /// The first `bytes` of an object, or all of it if it is shorter.
    pub async fn get_start(&self, key: &ObjectKey, bytes: u64) -> Result<Bytes, StoreError> {
        if bytes == 0 {
            return self.stat(key).await.map(|_| Bytes::new());
        }
        let (meta, start) = self.inner.read_start(key, bytes.min(RANGE_BYTES)).await?;
        let wanted = bytes.min(meta.size);
        if size_of(&start) == wanted {
            return Ok(start);
        }
        let mut whole = BytesMut::from(start);
        while size_of(&whole) < wanted {
            let from = size_of(&whole);
            whole.extend_from_slice(
                &self.inner.read_range(key, &meta, from..wanted.min(from + RANGE_BYTES)).await?,
            );
        }
        Ok(whole.freeze())
    }

    /// A whole object as a stream, for what does not fit into memory. At most one part of a few
    /// MiB is held at a time.
    pub async fn get_stream(&self, key: &ObjectKey) -> Result<ObjectStream, StoreError> {
        let (meta, start) = self.inner.read_start(key, RANGE_BYTES).await?;
        let size_bytes = meta.size;
        let state = (Arc::clone(&self.inner), key.clone(), meta, size_of(&start));
        let rest = stream::try_unfold(state, |(inner, key, meta, from)| async move {
            if from >= meta.size {
                return Ok(None);
            }
            let to = meta.size.min(from + RANGE_BYTES);
            let part = inner.read_range(&key, &meta, from..to).await?;
            Ok(Some((part, (inner, key, meta, to))))
        });
        let first = stream::iter((!start.is_empty()).then_some(Ok(start)));
        Ok(ObjectStream { size_bytes, parts: first.chain(rest).boxed() })
    }
}

impl Inner {
    /// The description of an object with its first `bytes` (at least 1), or fewer if it is
    /// shorter.
    async fn read_start(&self, key: &ObjectKey, bytes: u64) -> Result<(ObjectMeta, Bytes), StoreError> {
        self.check_place(Operation::Read, key.as_str()).await?;
        let options = GetOptions { range: Some(GetRange::Bounded(0..bytes)), ..GetOptions::default() };
        let path = self.path(key.as_str());
        let reading = async {
            let found = self.objects.get_opts(&path, options).await?;
            let meta = found.meta.clone();
            Ok((meta, found.bytes().await?))
        };
        match self.within_deadline(Operation::Read, key.as_str(), reading).await? {
            Ok((meta, start)) if size_of(&start) == bytes.min(meta.size) => Ok((meta, start)),
            Ok(_) => {
                Err(self.bad_answer(Operation::Read, key.as_str(), "its length is not what it announced"))
            }
            Err(error) if self.may_be_empty(&error) => {
                let meta = self.meta(Operation::Read, key).await?;
                if meta.size == 0 {
                    Ok((meta, Bytes::new()))
                } else {
                    Err(self.error(Operation::Read, key.as_str(), &error).await)
                }
            }
            Err(error) => Err(self.error(Operation::Read, key.as_str(), &error).await),
        }
    }

    /// Every range lies outside of an empty object, and stores say so in different ways.
    fn may_be_empty(&self, error: &object_store::Error) -> bool {
        let generic = matches!(error, object_store::Error::Generic { .. });
        let text = || error.to_string();
        match self.kind {
            Kind::S3 => {
                s3_verdict(error) == S3Verdict::RangeOutside
                    || (generic && (text().contains(" 416 ") || text().contains("non-partial response")))
            }
            Kind::Memory | Kind::Directory(_) => generic && text().to_lowercase().contains("range"),
        }
    }

    /// Bytes of the object that `meta` describes.
    async fn read_range(
        &self,
        key: &ObjectKey,
        meta: &ObjectMeta,
        range: Range<u64>,
    ) -> Result<Bytes, StoreError> {
        self.check_place(Operation::Read, key.as_str()).await?;
        let options = GetOptions {
            range: Some(GetRange::Bounded(range.clone())),
            if_match: meta.e_tag.clone(),
            ..GetOptions::default()
        };
        let path = self.path(key.as_str());
        let reading = async { self.objects.get_opts(&path, options).await?.bytes().await };
        match self.within_deadline(Operation::Read, key.as_str(), reading).await? {
            Ok(part) if size_of(&part) == range.end - range.start => Ok(part),
            Ok(_) => Err(self.bad_answer(Operation::Read, key.as_str(), "a part of it is missing")),
            Err(object_store::Error::Precondition { .. }) => {
                Err(self.bad_answer(Operation::Read, key.as_str(), "it changed while it was read"))
            }
            Err(error) => Err(self.error(Operation::Read, key.as_str(), &error).await),
        }
    }
}

fn size_of(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}
