//! The chunks in which parts are sent, and the memory that all of them together may take.
//!
//! Invariants: no more chunks exist at a time than the pool was made for, except those of an upload
//! whose parts have grown past a chunk ([`Chunk::outside_pool`]): a worker that finds none waits until
//! an upload has sent one. The BLAKE3 is over the chunks exactly as they are sent.

use super::progress::Progress;
use bytes::Bytes;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// The size of a chunk: what an upload sends at once, so that none is copied together there.
pub const CHUNK_BYTES: usize = 8 << 20;
/// How often a worker that waits for memory looks whether the backup was given up.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Memory for a fixed number of chunks, used again and again: pages that were touched once cost
/// nothing the second time.
#[derive(Clone, Debug)]
pub struct ChunkPool {
    free: Receiver<Vec<u8>>,
    back: Sender<Vec<u8>>,
}

impl ChunkPool {
    /// Room for `count` chunks, of which none is allocated yet.
    pub fn new(count: usize) -> Self {
        let (back, free) = bounded(count);
        for _ in 0..count {
            // There is room for exactly so many.
            let _ = back.try_send(Vec::new());
        }
        Self { free, back }
    }

    fn take(&self, cancel: &CancellationToken) -> io::Result<Chunk> {
        loop {
            match self.free.recv_timeout(LOOK_EVERY) {
                Ok(mut bytes) => {
                    bytes.reserve_exact(CHUNK_BYTES);
                    return Ok(Chunk { bytes, back: self.back.clone() });
                }
                Err(RecvTimeoutError::Timeout) if !cancel.is_cancelled() => {}
                Err(_) => return Err(io::Error::other("the backup was cancelled")),
            }
        }
    }
}

/// Bytes of a part. Its memory goes back to the pool when nobody holds it any more.
#[derive(Debug)]
pub struct Chunk {
    bytes: Vec<u8>,
    back: Sender<Vec<u8>>,
}

impl Chunk {
    /// The bytes, which count until the last of them is dropped.
    pub fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }

    /// The bytes, which count no longer: for an upload that collects several chunks before it
    /// sends them. If those counted, all workers could come to wait for each other.
    pub fn outside_pool(mut self) -> Bytes {
        Bytes::from(std::mem::take(&mut self.bytes))
    }
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        // There is room: it was taken from there.
        let _ = self.back.try_send(bytes);
    }
}

/// Cuts a stream into chunks and sends them.
pub struct ChunkWriter {
    pool: ChunkPool,
    chunks: mpsc::Sender<Chunk>,
    current: Option<Chunk>,
    blake3: blake3::Hasher,
    written_bytes: u64,
    progress: Arc<Progress>,
    cancel: CancellationToken,
}

impl ChunkWriter {
    /// Writes into `chunks`, with memory from `pool`, until `cancel` says otherwise.
    pub fn new(
        pool: &ChunkPool,
        chunks: mpsc::Sender<Chunk>,
        progress: Arc<Progress>,
        cancel: CancellationToken,
    ) -> Self {
        let blake3 = blake3::Hasher::new();
        Self { pool: pool.clone(), chunks, current: None, blake3, written_bytes: 0, progress, cancel }
    }

    /// Bytes that were written.
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// Appends bytes. Waits while too many chunks are on their way.
    pub fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let mut chunk = match self.current.take() {
                Some(chunk) => chunk,
                None => self.pool.take(&self.cancel)?,
            };
            let room = CHUNK_BYTES.saturating_sub(chunk.bytes.len());
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            chunk.bytes.extend_from_slice(now);
            self.written_bytes = self.written_bytes.saturating_add(size_of(now));
            bytes = later;
            if chunk.bytes.len() >= CHUNK_BYTES {
                self.send(chunk)?;
            } else {
                self.current = Some(chunk);
            }
        }
        Ok(())
    }

    fn send(&mut self, chunk: Chunk) -> io::Result<()> {
        self.blake3.update(&chunk.bytes);
        let bytes = size_of(&chunk.bytes);
        let ended = |_| io::Error::new(io::ErrorKind::BrokenPipe, "the upload has ended");
        self.chunks.blocking_send(chunk).map_err(ended)?;
        self.progress.stored(bytes);
        Ok(())
    }

    /// Sends what is left; returns the number and the hash of all bytes.
    pub fn finish(mut self) -> io::Result<(u64, blake3::Hash)> {
        if let Some(chunk) = self.current.take() {
            self.send(chunk)?;
        }
        Ok((self.written_bytes, self.blake3.finalize()))
    }
}

fn size_of(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer(pool: &ChunkPool, cancel: &CancellationToken) -> (ChunkWriter, mpsc::Receiver<Chunk>) {
        let (chunks, queue) = mpsc::channel(8);
        (ChunkWriter::new(pool, chunks, Progress::new(), cancel.clone()), queue)
    }

    #[test]
    fn memory_that_was_sent_is_used_again_and_no_more_is_made() {
        let pool = ChunkPool::new(2);
        let (mut writer, mut queue) = writer(&pool, &CancellationToken::new());
        let content = vec![7; 5 * CHUNK_BYTES + 3];
        let (sum, sent) = std::thread::scope(|scope| {
            let sent = scope.spawn(move || {
                let mut sent = Vec::new();
                while let Some(chunk) = queue.blocking_recv() {
                    let bytes = chunk.into_bytes();
                    sent.push((bytes.as_ptr() as usize, bytes.len()));
                }
                sent
            });
            writer.write(&content).unwrap();
            (writer.finish().unwrap(), sent.join().unwrap())
        });
        assert_eq!(sum, (content.len() as u64, blake3::hash(&content)));
        assert_eq!(sent.iter().map(|(_, bytes)| bytes).sum::<usize>(), content.len());
        let places: std::collections::BTreeSet<usize> = sent.iter().map(|(place, _)| *place).collect();
        assert!(sent.len() == 6 && places.len() <= 2, "{sent:?}");
    }

    #[test]
    fn a_worker_that_waits_for_memory_sees_that_the_backup_was_given_up() {
        let (pool, cancel) = (ChunkPool::new(1), CancellationToken::new());
        let (mut first, mut queue) = writer(&pool, &cancel);
        first.write(&vec![1; CHUNK_BYTES]).unwrap();
        let held = queue.try_recv().unwrap().into_bytes();
        let waiting = std::thread::spawn(move || first.write(b"more"));
        cancel.cancel();
        assert!(waiting.join().unwrap().is_err());
        drop(held);
        let (mut second, _queue) = writer(&pool, &CancellationToken::new());
        second.write(b"there is memory again").unwrap();
    }

    #[test]
    fn what_is_collected_outside_of_the_pool_holds_nobody_up() {
        let pool = ChunkPool::new(1);
        let (mut writer, mut queue) = writer(&pool, &CancellationToken::new());
        let mut collected = Vec::new();
        for _ in 0..4 {
            writer.write(&vec![1; CHUNK_BYTES]).unwrap();
            collected.push(queue.try_recv().unwrap().outside_pool());
        }
        assert_eq!(collected.iter().map(Bytes::len).sum::<usize>(), 4 * CHUNK_BYTES);
    }
}
