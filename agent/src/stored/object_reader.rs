//! An object as it arrives, for a thread that reads it.
//!
//! A task reads from the repository into a channel that holds a few pieces; the thread takes them
//! through [`ObjectReader`], which is a [`Read`].

use crate::store::{Store, StoreError, VersionId};
use bytes::{Buf, Bytes};
use futures::StreamExt;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use wald_core::object_key::ObjectKey;
use wald_core::object_lock::ObjectLock;

/// Pieces of an object that wait for their thread.
const PIECES_WAITING: usize = 2;
/// No piece is larger: the store reads in requests of that size.
pub const PIECE_BYTES_MAX: usize = 8 << 20;

/// A piece, and its share of the memory that all downloads together may use.
#[derive(Debug)]
pub struct Piece {
    bytes: Bytes,
    /// With the first piece.
    told: Option<Told>,
    _room: Option<OwnedSemaphorePermit>,
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

/// Begins to read an object; must be called on the runtime. The task ends by itself when the receiver
/// is gone. With `room`, a permit is taken for each piece before it is asked for, and given back when the piece was
/// used up: the sum over all downloads has a limit.
pub fn download(
    runtime: &tokio::runtime::Handle,
    store: &Store,
    key: &ObjectKey,
    room: Option<Arc<Semaphore>>,
) -> Pieces {
    let (sender, receiver) = mpsc::channel(PIECES_WAITING);
    runtime.spawn(send_pieces(store.clone(), key.clone(), room, sender));
    receiver
}

async fn send_pieces(
    store: Store,
    key: ObjectKey,
    room: Option<Arc<Semaphore>>,
    pieces: mpsc::Sender<Result<Piece, StoreError>>,
) {
    let permit = async || match &room {
        // The semaphore is never closed.
        Some(room) => Arc::clone(room).acquire_owned().await.ok(),
        None => None,
    };
    let mut next_room = permit().await;
    let mut stream = match store.get_stream(&key).await {
        Ok(stream) => stream,
        Err(error) => {
            // The receiver may be gone: then nobody wants to know.
            let _ = pieces.send(Err(error)).await;
            return;
        }
    };
    let mut told = Some(Told { lock: stream.lock().flatten(), version: stream.version().cloned() });
    while let Some(piece) = stream.next().await {
        let last = piece.is_err();
        let piece = piece.map(|bytes| Piece { bytes, told: told.take(), _room: next_room.take() });
        if pieces.send(piece).await.is_err() || last {
            return;
        }
        next_room = permit().await;
    }
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
                let bytes = u64::try_from(piece.bytes.len()).unwrap_or(u64::MAX);
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
