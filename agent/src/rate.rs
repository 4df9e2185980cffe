//! A limit to the bytes that are read per second, of a verification or of a backup.
//!
//! Threads that share it wait, each for what it has read itself, so that together they keep to it.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A wait is cut into pieces of this length, so that giving up takes no longer.
const NAP: Duration = Duration::from_millis(100);

/// Shared by all threads that read.
#[derive(Debug)]
pub struct RateLimit {
    bytes_per_second: Option<u64>,
    /// When what was read so far would have been read at the limit.
    paid_until: Mutex<Instant>,
}

impl RateLimit {
    /// No limit where `bytes_per_second` is absent.
    pub fn new(bytes_per_second: Option<u64>) -> Self {
        Self { bytes_per_second, paid_until: Mutex::new(Instant::now()) }
    }

    /// Blocks for as long as `bytes` more are too many, or until `given_up` says so.
    pub fn wait(&self, bytes: u64, given_up: impl Fn() -> bool) {
        let Some(until) = self.pay(bytes, Instant::now()) else { return };
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || given_up() {
                return;
            }
            std::thread::sleep(left.min(NAP));
        }
    }

    fn pay(&self, bytes: u64, now: Instant) -> Option<Instant> {
        let rate = self.bytes_per_second?.max(1);
        let nanoseconds = u128::from(bytes) * 1_000_000_000 / u128::from(rate);
        let cost = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        let mut paid_until = self.paid_until.lock().unwrap_or_else(PoisonError::into_inner);
        // Time in which nothing was read is not saved up.
        *paid_until = (*paid_until).max(now).checked_add(cost).unwrap_or(now);
        Some(*paid_until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_threads_together_keep_to_the_limit() {
        let limit = RateLimit::new(Some(1000));
        let begin = Instant::now();
        let mut until = begin;
        for _ in 0..10 {
            until = limit.pay(500, begin).unwrap();
        }
        let seconds = until.duration_since(begin).as_secs_f64();
        assert!((4.9..5.1).contains(&seconds), "{seconds}");
        // A pause earns nothing.
        let later = until + Duration::from_secs(60);
        assert_eq!(limit.pay(1000, later), Some(later + Duration::from_secs(1)));
    }

    #[test]
    fn who_gives_up_waits_no_longer() {
        let limit = RateLimit::new(Some(1));
        let begin = Instant::now();
        limit.wait(3600, || true);
        assert!(begin.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn without_a_limit_nothing_waits() {
        assert_eq!(RateLimit::new(None).pay(u64::MAX, Instant::now()), None);
    }
}
