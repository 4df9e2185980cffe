//! Waiting for something to become true: polled, with a deadline and a message that says what
//! did not happen. The suites never sleep for a fixed time instead.

use anyhow::{Result, bail};
use std::thread;
use std::time::{Duration, Instant};

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(20);

/// Polls `look` until it answers `Some`, and fails after `deadline` naming `what` was waited for.
/// An error from `look` ends the wait at once.
pub fn until<T>(what: &str, deadline: Duration, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let started = Instant::now();
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if started.elapsed() > deadline {
            bail!("waited {} s in vain for {what}", deadline.as_secs_f32());
        }
        thread::sleep(POLL);
    }
}

/// As [`until`], for a condition without a value.
pub fn until_true(what: &str, deadline: Duration, mut look: impl FnMut() -> Result<bool>) -> Result<()> {
    until(what, deadline, || Ok(look()?.then_some(())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_in_vain_says_for_what() {
        let error = until_true("the moon", Duration::ZERO, || Ok(false)).unwrap_err();
        assert!(error.to_string().contains("the moon"));
    }

    #[test]
    fn a_condition_that_comes_true_later_is_seen() {
        let mut looks = 0;
        let found = until("three", Duration::from_secs(5), || {
            looks += 1;
            Ok((looks == 3).then_some(looks))
        });
        assert_eq!(found.unwrap(), 3);
    }
}
