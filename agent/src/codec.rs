//! Hashing, compression and decompression, on threads of their own.
//!
//! The threads are nicer than the rest of the process, as far as they are told to: the database's own
//! work goes first. Small work with files goes [`aside`], so that it never waits behind a compression.
//!
//! Invariants: CPU-heavy work never runs on the I/O runtime's threads; the queue is bounded
//! by permits, so a caller waits instead of the queue growing; a job whose caller went away
//! still ends, its result dropped. What is done to the bytes stands in [`seal`] and [`open`],
//! two mirrors that know nothing of repositories or PostgreSQL.

pub mod compressor;
pub mod open;
pub mod open_stream;
pub mod same;
pub mod seal;

use crossbeam_channel::{Receiver, Sender, bounded};
use std::sync::Arc;
use tokio::sync::{Semaphore, oneshot};

/// Jobs that may wait or run, for each thread.
const JOBS_PER_THREAD: usize = 16;

/// By how much the pool's threads let others go first, as in nice(1): 0 to 19.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Niceness(u8);

impl Niceness {
    /// The most.
    pub const MAX: u8 = 19;

    /// At most [`Self::MAX`].
    pub fn new(nice: u8) -> Self {
        Self(nice.min(Self::MAX))
    }

    /// For the calling thread: on Linux each has a niceness of its own, setpriority(2).
    fn apply(self) {
        if self.0 > 0 {
            // To be less nice than wished for is no reason to do nothing.
            let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), self.0.into());
        }
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// A handle to the pool; cheap to clone. The threads end when the last handle is dropped.
#[derive(Clone)]
pub struct Codec {
    jobs: Sender<Job>,
    room: Arc<Semaphore>,
}

/// A job ended without a result: it panicked, which the log has above.
#[derive(Debug, thiserror::Error)]
#[error("a defect in wald: a compression job ended without a result; please report the log above")]
pub struct CodecGone;

impl Codec {
    /// Starts a pool with one thread per core that this process may use.
    pub fn start(niceness: Niceness) -> std::io::Result<Self> {
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let capacity = threads * JOBS_PER_THREAD;
        let (jobs, queue) = bounded::<Job>(capacity);
        for number in 0..threads {
            let queue: Receiver<Job> = queue.clone();
            std::thread::Builder::new().name(format!("codec-{number}")).spawn(move || {
                niceness.apply();
                for job in queue {
                    // A job that panics has said so; its caller is told by the answer's loss, and
                    // this thread goes on, or the pool would end unnoticed one by one.
                    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
                }
            })?;
        }
        Ok(Self { jobs, room: Arc::new(Semaphore::new(capacity)) })
    }

    /// Runs `job` on the pool and gives its result.
    pub async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, CodecGone> {
        let permit = Arc::clone(&self.room).acquire_owned().await.map_err(|_| CodecGone)?;
        let (answer, result) = oneshot::channel();
        let job = Box::new(move || {
            // A caller that has gone away is no error: nobody is left to be told.
            let _ = answer.send(job());
            drop(permit);
        });
        // The permits are as many as places in the channel, so this never blocks.
        self.jobs.try_send(job).map_err(|_| CodecGone)?;
        result.await.map_err(|_| CodecGone)
    }
}

/// Runs a small job that waits for files and needs no processor to speak of, on a thread for such.
pub async fn aside<T: Send + 'static>(job: impl FnOnce() -> T + Send + 'static) -> Result<T, CodecGone> {
    tokio::task::spawn_blocking(job).await.map_err(|_| CodecGone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn more_jobs_than_places_all_run() {
        let codec = Codec::start(Niceness::default()).unwrap();
        let jobs = (0..500u32).map(|number| {
            let codec = codec.clone();
            tokio::spawn(async move { codec.run(move || number).await.unwrap() })
        });
        let mut sum = 0;
        for job in jobs.collect::<Vec<_>>() {
            sum += job.await.unwrap();
        }
        assert_eq!(sum, 499 * 500 / 2);
    }

    #[tokio::test]
    async fn jobs_that_panic_take_no_thread_with_them() {
        let codec = Codec::start(Niceness::default()).unwrap();
        for _ in 0..64 {
            assert!(codec.run(|| panic!("on purpose")).await.is_err());
        }
        assert_eq!(codec.run(|| 7).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn the_threads_are_as_nice_as_they_are_told_to_be() {
        let nice = || rustix::process::getpriority_process(Some(rustix::thread::gettid())).unwrap();
        let before = nice();
        let codec = Codec::start(Niceness::new(200)).unwrap();
        assert_eq!(codec.run(nice).await.unwrap(), i32::from(Niceness::MAX));
        assert_eq!(nice(), before);
    }
}
