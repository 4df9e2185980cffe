//! Hashing, compression and decompression, on threads of their own.
//!
//! Invariants: CPU-heavy work never runs on the I/O runtime's threads; the queue is bounded
//! by permits, so a caller waits instead of the queue growing; a job whose caller went away
//! still ends, its result dropped. What is done to the bytes stands in [`seal`] and [`open`],
//! two mirrors that know nothing of repositories or PostgreSQL.

pub mod open;
pub mod open_stream;
pub mod same;
pub mod seal;

use crossbeam_channel::{Receiver, Sender, bounded};
use std::sync::Arc;
use tokio::sync::{Semaphore, oneshot};

/// Jobs that may wait or run, for each thread.
const JOBS_PER_THREAD: usize = 16;

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
    pub fn start() -> std::io::Result<Self> {
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let capacity = threads * JOBS_PER_THREAD;
        let (jobs, queue) = bounded::<Job>(capacity);
        for number in 0..threads {
            let queue: Receiver<Job> = queue.clone();
            std::thread::Builder::new().name(format!("codec-{number}")).spawn(move || {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn more_jobs_than_places_all_run() {
        let codec = Codec::start().unwrap();
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
        let codec = Codec::start().unwrap();
        for _ in 0..64 {
            assert!(codec.run(|| panic!("on purpose")).await.is_err());
        }
        assert_eq!(codec.run(|| 7).await.unwrap(), 7);
    }
}
