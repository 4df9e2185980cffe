//! How long a repository that can't be reached is asked again.
//!
//! Invariants: only "unreachable" is asked again; an absence, a damage or a local failure is
//! an answer. A time-out is "unreachable", never "absent".

use super::RestoreError;
use crate::explain::chain;
use std::future::Future;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};
use wald_core::outcome::RestoreFinding;
use wald_core::wal_file::WalFile;

/// The pause before the first repetition; it doubles up to [`RETRY_DELAY_MAX`].
const RETRY_DELAY_MIN: Duration = Duration::from_millis(200);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(10);

/// What is left of the patience for one request.
#[derive(Clone, Copy)]
pub(super) struct Patience {
    whole: Duration,
    ends: Instant,
}

impl Patience {
    /// All of it, from now on.
    pub(super) fn begin(whole: Duration) -> Self {
        Self { whole, ends: Instant::now() + whole }
    }

    /// Waits for `work` while patience lasts, then drops it.
    pub(super) async fn wait<T>(
        &self,
        file: WalFile,
        work: impl Future<Output = T>,
    ) -> Result<T, RestoreError> {
        timeout_at(self.ends, work).await.map_err(|_| RestoreError::NoAnswer { file, after: self.whole })
    }

    /// Repeats `attempt` while the repository is unreachable and patience lasts.
    pub(super) async fn repeat<T, F>(
        &self,
        file: WalFile,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, RestoreError>
    where
        F: Future<Output = Result<T, RestoreError>>,
    {
        let mut delay = RETRY_DELAY_MIN;
        loop {
            let error = match self.wait(file, attempt()).await? {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            if error.finding() != RestoreFinding::Unreachable || Instant::now() + delay >= self.ends {
                return Err(error);
            }
            tracing::warn!(%file, error = %chain(&error), "the repository can't be reached; asking again");
            sleep(delay).await;
            delay = (delay * 2).min(RETRY_DELAY_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn file() -> WalFile {
        WalFile::parse("00000002.history").unwrap()
    }

    fn no_answer() -> RestoreError {
        RestoreError::NoAnswer { file: file(), after: Duration::ZERO }
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_shorter_than_patience_is_waited_out() {
        let asked = AtomicU32::new(0);
        let attempt =
            || async { if asked.fetch_add(1, Ordering::Relaxed) < 20 { Err(no_answer()) } else { Ok(()) } };
        Patience::begin(Duration::from_secs(600)).repeat(file(), attempt).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_longer_outage_and_a_hang_are_unreachable_not_absent() {
        let outage: Result<(), _> =
            Patience::begin(Duration::from_secs(60)).repeat(file(), || async { Err(no_answer()) }).await;
        assert_eq!(outage.unwrap_err().finding(), RestoreFinding::Unreachable);
        let hang: Result<(), _> =
            Patience::begin(Duration::from_secs(60)).repeat(file(), std::future::pending).await;
        assert_eq!(hang.unwrap_err().finding(), RestoreFinding::Unreachable);
    }

    #[tokio::test(start_paused = true)]
    async fn patience_is_for_the_whole_request() {
        let patience = Patience::begin(Duration::from_secs(60));
        let began = Instant::now();
        patience.wait(file(), sleep(Duration::from_secs(50))).await.unwrap();
        patience.repeat(file(), std::future::pending::<Result<(), _>>).await.unwrap_err();
        assert_eq!(began.elapsed(), Duration::from_secs(60));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_not_asked_for_again() {
        let asked = AtomicU32::new(0);
        let attempt = || async {
            asked.fetch_add(1, Ordering::Relaxed);
            Err::<(), _>(RestoreError::Absent { file: file() })
        };
        Patience::begin(Duration::from_secs(60)).repeat(file(), attempt).await.unwrap_err();
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }
}
