//! Uploading an object in parts, for what is too large for one request.
//!
//! Invariants: nothing is visible under the key before [`Upload::finish`] returned `Ok`, and then
//! it is durable and as long as what was given; the memory held is bounded by
//! [`PARTS_IN_FLIGHT`] parts. No server makes the completion of an upload exclusive (S3 has
//! no create-only upload that is enforced everywhere), so an upload's key must be one that only
//! its writer can use; that it is free is looked up before the upload and again before its end.
//! What the server was not seen to keep is read back ([`super::Guarantees`]).

use super::backend::{Inner, Kind, Store};
use super::error::{Operation, StoreError};
use super::http::time_to_send;
use super::versions::VersionId;
use blake3::Hasher;
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::{MultipartUpload, ObjectStore, PutMultipartOptions, PutPayload};
use std::sync::Arc;
use tokio::task::{JoinError, JoinSet};
use wald_core::object_key::ObjectKey;
use wald_core::object_lock::ObjectLock;

/// Parts on their way at the same time.
pub const PARTS_IN_FLIGHT: usize = 4;
/// Size of the first parts. S3 takes no less than 5 MiB but for the last.
pub const PART_BYTES: usize = 8 << 20;
/// After this many parts the size of the following ones doubles: S3 takes 10,000 in all, which
/// so becomes 496 GiB.
const PARTS_PER_SIZE: u32 = 2000;

/// An upload under way. Dropped without [`Upload::finish`] it is aborted, as far as a task can
/// still be started; what a crash leaves behind is invisible and expires with the bucket's rule
/// for incomplete uploads.
pub struct Upload {
    inner: Arc<Inner>,
    key: ObjectKey,
    /// Taken by whichever of finish, abort and drop comes first.
    parts: Option<Box<dyn MultipartUpload>>,
    /// Asked for when it began.
    lock: Option<ObjectLock>,
    /// Of what was given, where the server was not seen to compare checksums.
    hash: Option<Box<Hasher>>,
    in_flight: JoinSet<object_store::Result<()>>,
    waiting: Vec<Bytes>,
    waiting_bytes: usize,
    parts_sent: u32,
    sent_bytes: u64,
}

impl Store {
    /// Begins an upload.
    pub async fn upload(&self, key: &ObjectKey) -> Result<Upload, StoreError> {
        self.inner.check_free(key).await?;
        let path = self.inner.path(key.as_str());
        // The object gets its lock with the first request of its upload, not with the last.
        let lock = self.inner.lock_now();
        let options = PutMultipartOptions { extensions: Inner::asking_for(lock), ..Default::default() };
        let begun = self.inner.objects.put_multipart_opts(&path, options);
        let parts = match self.inner.within_deadline(Operation::Upload, key.as_str(), begun).await? {
            Ok(parts) => parts,
            Err(error) => return Err(self.inner.error(Operation::Upload, key.as_str(), &error).await),
        };
        Ok(Upload {
            inner: Arc::clone(&self.inner),
            key: key.clone(),
            parts: Some(parts),
            lock,
            hash: self.inner.guarantees.reads_back().then(Box::default),
            in_flight: JoinSet::new(),
            waiting: Vec::new(),
            waiting_bytes: 0,
            parts_sent: 0,
            sent_bytes: 0,
        })
    }
}

impl Upload {
    /// Appends bytes, of any length. Waits while too many parts are on their way. After an error
    /// the upload can only be aborted.
    pub async fn put_part(&mut self, mut bytes: Bytes) -> Result<(), StoreError> {
        while !bytes.is_empty() {
            let room = self.part_bytes().saturating_sub(self.waiting_bytes);
            let piece = bytes.split_to(room.min(bytes.len()));
            self.waiting_bytes += piece.len();
            self.waiting.push(piece);
            if self.waiting_bytes >= self.part_bytes() {
                self.send_waiting().await?;
            }
        }
        Ok(())
    }

    /// Completes the upload and returns the stored object's size in bytes.
    pub async fn finish(mut self) -> Result<u64, StoreError> {
        if !self.waiting.is_empty() {
            self.send_waiting().await?;
        }
        while !self.in_flight.is_empty() {
            self.wait_for_one().await?;
        }
        self.inner.check_free(&self.key).await?;
        let Some(mut parts) = self.parts.take() else {
            return Err(self.inner.bad_answer(Operation::Upload, self.key.as_str(), "it was ended before"));
        };
        // No deadline of ours: a directory syncs the whole file here, and S3 may need minutes to
        // put the parts together. The S3 client bounds its own requests.
        let version = match parts.complete().await {
            Ok(stored) => stored.version.map(VersionId::new),
            Err(error) => {
                // The answer may be lost, and a second try then finds no upload any more. The key
                // was free just now and nobody else uses it, so an object of the right size is
                // ours; each part was checked when it was sent. A directory's error may be that of
                // its sync.
                let in_directory = matches!(self.inner.kind, Kind::Directory(_));
                if in_directory || self.check_size().await.is_err() {
                    self.parts = Some(parts);
                    // Somebody was faster, between our look and the server's.
                    if matches!(error, object_store::Error::Precondition { .. }) {
                        return Err(self.inner.occupied(self.key.as_str()));
                    }
                    return Err(self.inner.error(Operation::Upload, self.key.as_str(), &error).await);
                }
                None
            }
        };
        let anchored = self
            .inner
            .on_directory(Operation::Upload, self.key.as_str(), |directory, file| directory.anchor(&file));
        anchored.await?;
        let size_bytes = self.check_size().await?;
        self.make_sure(version).await?;
        Ok(size_bytes)
    }

    /// Does afterwards what the server was not seen to do itself.
    async fn make_sure(&mut self, version: Option<VersionId>) -> Result<(), StoreError> {
        let store = Store { inner: Arc::clone(&self.inner) };
        if let Some(hash) = self.hash.take() {
            let mut read = store.get_stream(&self.key).await?;
            let mut stored: Box<Hasher> = Box::default();
            while let Some(piece) = read.try_next().await? {
                stored = self.inner.hashed(&self.key, stored, piece.into()).await?;
            }
            if stored.finalize() != hash.finalize() {
                let problem = "what was uploaded reads back as something else";
                return Err(self.inner.bad_answer(Operation::Upload, self.key.as_str(), problem));
            }
        }
        match self.lock.filter(|_| !self.inner.guarantees.lock_on_upload) {
            Some(lock) => store.lock_afterwards(self.key.as_str(), version, lock).await,
            None => Ok(()),
        }
    }

    /// Ends the upload without an object.
    pub async fn abort(mut self) -> Result<(), StoreError> {
        self.in_flight.shutdown().await;
        let Some(mut parts) = self.parts.take() else { return Ok(()) };
        let aborted = parts.abort();
        match self.inner.within_deadline(Operation::Upload, self.key.as_str(), aborted).await? {
            Ok(()) => Ok(()),
            Err(error) => Err(self.inner.error(Operation::Upload, self.key.as_str(), &error).await),
        }
    }

    /// How many bytes are collected before they are sent as one.
    pub fn part_bytes(&self) -> usize {
        PART_BYTES << (self.parts_sent / PARTS_PER_SIZE).min(5)
    }

    async fn send_waiting(&mut self) -> Result<(), StoreError> {
        while self.in_flight.len() >= PARTS_IN_FLIGHT {
            self.wait_for_one().await?;
        }
        let payload: PutPayload = std::mem::take(&mut self.waiting).into_iter().collect();
        if let Some(hash) = self.hash.take() {
            self.hash = Some(self.inner.hashed(&self.key, hash, payload.clone()).await?);
        }
        self.sent_bytes += u64::try_from(self.waiting_bytes).unwrap_or(0);
        self.waiting_bytes = 0;
        self.parts_sent += 1;
        if let Some(parts) = &mut self.parts {
            self.in_flight.spawn(parts.put_part(payload));
        }
        Ok(())
    }

    async fn wait_for_one(&mut self) -> Result<(), StoreError> {
        // The parts on their way share the line.
        let in_flight = self.part_bytes().saturating_mul(PARTS_IN_FLIGHT);
        let sending = time_to_send(u64::try_from(in_flight).unwrap_or(u64::MAX));
        // Three tries, of which each may take the time that sending takes.
        let limit = self.inner.deadline + self.inner.patience + sending * 3;
        let next = self.in_flight.join_next();
        match self.inner.within(limit, Operation::Upload, self.key.as_str(), next).await? {
            None | Some(Ok(Ok(()))) => Ok(()),
            Some(Ok(Err(error))) => Err(self.inner.error(Operation::Upload, self.key.as_str(), &error).await),
            Some(Err(ended)) => {
                Err(self.inner.bad_answer(Operation::Upload, self.key.as_str(), &ended.to_string()))
            }
        }
    }

    /// `&mut` though nothing changes: a shared borrow would have to be `Sync` for the future to
    /// move between threads, which `MultipartUpload` is not.
    async fn check_size(&mut self) -> Result<u64, StoreError> {
        let meta = self.inner.meta(Operation::Upload, &self.key).await?;
        if meta.size == self.sent_bytes {
            return Ok(meta.size);
        }
        let problem = format!("{} bytes were sent and {} are stored", self.sent_bytes, meta.size);
        Err(self.inner.bad_answer(Operation::Upload, self.key.as_str(), &problem))
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.in_flight.abort_all();
        let (Some(mut parts), Ok(runtime)) = (self.parts.take(), tokio::runtime::Handle::try_current())
        else {
            return;
        };
        // Best effort: nobody is left to tell, and what stays is invisible.
        runtime.spawn(async move { parts.abort().await });
    }
}

impl Inner {
    /// Nothing is overwritten: a deleted version stays below, as with a creation.
    async fn check_free(&self, key: &ObjectKey) -> Result<(), StoreError> {
        if self.is_occupied(key).await? { Err(self.occupied(key.as_str())) } else { Ok(()) }
    }

    /// Hashes on a thread of its own: this is more than the runtime's should do at once.
    async fn hashed(
        &self,
        key: &ObjectKey,
        mut hash: Box<Hasher>,
        payload: PutPayload,
    ) -> Result<Box<Hasher>, StoreError> {
        let hashing = tokio::task::spawn_blocking(move || {
            for piece in &payload {
                hash.update(piece);
            }
            hash
        });
        let ended = |ended: JoinError| self.bad_answer(Operation::Upload, key.as_str(), &ended.to_string());
        hashing.await.map_err(ended)
    }
}
