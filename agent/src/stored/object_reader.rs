//! An object as it arrives, for a thread that reads it.
//!
//! A task reads from the repository into a channel that holds a few pieces; the thread takes them
//! through [`ObjectReader`], which is a [`Read`]. Several requests are on their way at once, as far
//! as there is room for what they bring: one alone is as fast as the line is short.

use crate::store::{OpenedObject, Store, StoreError, VersionId};
use bytes::{Buf, Bytes};
use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::task::AbortOnDropHandle;
use wald_core::object_key::ObjectKey;
use wald_core::object_lock::ObjectLock;
use wald_core::stored_range::StoredRange;

/// Pieces of an object that wait for their thread.
const PIECES_WAITING: usize = 1;
/// Pieces of an object that are asked for at the same time, where there is room.
const REQUESTS_AT_ONCE: usize = 4;
/// What is asked for in one request: no piece is larger.
pub const PIECE_BYTES_MAX: usize = 8 << 20;

/// A piece, and its share of the memory that all downloads together may use.
#[derive(Debug)]
pub struct Piece {
    bytes: Bytes,
    /// With the first piece.
    told: Option<Told>,
    _room: OwnedSemaphorePermit,
}

/// What the repository's answer told besides the object.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Told {
    /// Its lock, if the answer told one.
    pub lock: Option<ObjectLock>,
    /// The version that was read, if the answer told it.
    pub version: Option<VersionId>,
}

/// The pieces of an object in order. An error is the last one.
pub type Pieces = mpsc::Receiver<Result<Piece, StoreError>>;

/// What is read of an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extent {
    /// All of it, however long it is.
    Whole,
    /// Exactly these bytes.
    Range(StoredRange),
}

/// Begins to read an object; must be called on the runtime. The task ends by itself when the receiver
/// is gone. A permit of `room` is taken for each piece before it is asked for, and given back when the
/// piece was used up: the sum over all downloads has a limit.
pub fn download(
    runtime: &tokio::runtime::Handle,
    store: &Store,
    key: &ObjectKey,
    extent: Extent,
    room: Arc<Semaphore>,
) -> Pieces {
    let (sender, receiver) = mpsc::channel(PIECES_WAITING);
    let (store, key) = (store.clone(), key.clone());
    runtime.spawn(async move {
        if let Err(error) = send_pieces(&store, &key, extent, room, &sender).await {
            // The receiver may be gone: then nobody wants to know.
            let _ = sender.send(Err(error)).await;
        }
    });
    receiver
}

async fn send_pieces(
    store: &Store,
    key: &ObjectKey,
    extent: Extent,
    room: Arc<Semaphore>,
    pieces: &mpsc::Sender<Result<Piece, StoreError>>,
) -> Result<(), StoreError> {
    // The semaphore is never closed.
    let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return Ok(()) };
    let (begin, end) = match extent {
        Extent::Whole => (0, u64::MAX),
        Extent::Range(range) => (range.offset(), range.end()),
    };
    let (object, first) = store.open_object(key, begin..piece_end(begin, end)).await?;
    let end = end.min(object.size_bytes());
    let told = Told { lock: object.lock().flatten(), version: object.version().cloned() };
    let mut next = begin.saturating_add(size_of(&first));
    let first = Piece { bytes: first, told: Some(told), _room: permit };
    let mut asked: VecDeque<AbortOnDropHandle<Result<Piece, StoreError>>> = VecDeque::new();
    let mut ready = Some(first);
    loop {
        while next < end && asked.len() < REQUESTS_AT_ONCE {
            let permit = match Arc::clone(&room).try_acquire_owned() {
                Ok(permit) => permit,
                // One is always waited for: the pieces before it are, or will be, used up.
                Err(_) if asked.is_empty() && ready.is_none() => {
                    let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return Ok(()) };
                    permit
                }
                Err(_) => break,
            };
            let to = piece_end(next, end);
            // A task of its own goes on while the thread is slow to take the pieces before it.
            let asking = tokio::spawn(ask(object.clone(), next..to, permit));
            asked.push_back(AbortOnDropHandle::new(asking));
            next = to;
        }
        if let Some(piece) = ready.take() {
            // An error says that the receiver is gone.
            if pieces.send(Ok(piece)).await.is_err() {
                return Ok(());
            }
            continue;
        }
        let Some(asking) = asked.pop_front() else { return Ok(()) };
        let piece = asking.await.unwrap_or_else(|ended| Err(object.not_read(&ended.to_string())));
        ready = Some(piece?);
    }
}

async fn ask(
    object: OpenedObject,
    range: std::ops::Range<u64>,
    room: OwnedSemaphorePermit,
) -> Result<Piece, StoreError> {
    Ok(Piece { bytes: object.read(range).await?, told: None, _room: room })
}

/// Where the piece ends that begins at `from`, of what ends at `end`.
fn piece_end(from: u64, end: u64) -> u64 {
    end.min(from.saturating_add(u64::try_from(PIECE_BYTES_MAX).unwrap_or(u64::MAX)))
}

fn size_of(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// The bytes of an object as they arrive, hashed on the way.
pub struct ObjectReader<'a> {
    pieces: Pieces,
    current: Option<Piece>,
    told: Told,
    hasher: blake3::Hasher,
    bytes: u64,
    failure: Option<StoreError>,
    arrived: &'a (dyn Fn(u64) + Sync),
    given_up: &'a AtomicBool,
}

impl<'a> ObjectReader<'a> {
    /// Takes what arrives from `pieces`; `arrived` is told how much, and `given_up` ends it.
    pub fn new(pieces: Pieces, arrived: &'a (dyn Fn(u64) + Sync), given_up: &'a AtomicBool) -> Self {
        Self {
            pieces,
            current: None,
            told: Told::default(),
            hasher: blake3::Hasher::new(),
            bytes: 0,
            failure: None,
            arrived,
            given_up,
        }
    }

    /// Bytes that have arrived.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What the repository's answer told, once the first bytes have arrived.
    pub fn told(&self) -> &Told {
        &self.told
    }

    /// Length and hash of the whole object, or why it could not be read to its end; no error
    /// if it was given up.
    pub fn finish(mut self) -> Result<(u64, blake3::Hash), Option<StoreError>> {
        while self.failure.is_none() {
            match self.next_piece() {
                Ok(true) => {}
                Ok(false) => return Ok((self.bytes, self.hasher.finalize())),
                Err(_) => break,
            }
        }
        Err(self.failure)
    }

    /// Takes the next piece; false at the end.
    fn next_piece(&mut self) -> io::Result<bool> {
        if self.given_up.load(Ordering::Relaxed) {
            return Err(io::Error::other("given up"));
        }
        // The memory of the last one is free before the next is waited for.
        self.current = None;
        match self.pieces.blocking_recv() {
            None => Ok(false),
            Some(Ok(mut piece)) => {
                self.told = piece.told.take().unwrap_or_else(|| std::mem::take(&mut self.told));
                self.hasher.update(&piece.bytes);
                let bytes = size_of(&piece.bytes);
                self.bytes += bytes;
                (self.arrived)(bytes);
                self.current = Some(piece);
                Ok(true)
            }
            Some(Err(error)) => {
                self.failure = Some(error);
                Err(io::Error::other("the object can't be read on"))
            }
        }
    }
}

impl Read for ObjectReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(piece) = self.current.as_mut().filter(|piece| !piece.bytes.is_empty()) {
                let length = piece.bytes.len().min(buffer.len());
                piece.bytes.copy_to_slice(buffer.get_mut(..length).unwrap_or_default());
                return Ok(length);
            }
            if self.failure.is_some() {
                return Err(io::Error::other("the object can't be read on"));
            }
            if !self.next_piece()? {
                return Ok(0);
            }
        }
    }
}
