//! Requests that came to nothing and are tried again: counted by cause, for the metrics.
//!
//! Invariant: counting changes nothing about a request. Causes are a closed set.

use object_store::client::{HttpError, HttpErrorKind};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Why a try came to nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TryCause {
    /// No connection.
    Connect,
    /// No answer in time.
    Timeout,
    /// The connection broke.
    Interrupted,
    /// The server asked to slow down.
    Throttled,
    /// The server had an error of its own.
    Server,
    /// The server refused the keys.
    Refused,
    /// Anything else.
    Other,
}

impl TryCause {
    /// All of them.
    pub const ALL: [TryCause; 7] = [
        TryCause::Connect,
        TryCause::Timeout,
        TryCause::Interrupted,
        TryCause::Throttled,
        TryCause::Server,
        TryCause::Refused,
        TryCause::Other,
    ];

    /// As a label.
    pub const fn name(self) -> &'static str {
        match self {
            TryCause::Connect => "connect",
            TryCause::Timeout => "timeout",
            TryCause::Interrupted => "interrupted",
            TryCause::Throttled => "throttled",
            TryCause::Server => "server",
            TryCause::Refused => "refused",
            TryCause::Other => "other",
        }
    }

    pub(super) fn of_error(error: &HttpError) -> Self {
        match error.kind() {
            HttpErrorKind::Connect => TryCause::Connect,
            HttpErrorKind::Timeout => TryCause::Timeout,
            HttpErrorKind::Interrupted => TryCause::Interrupted,
            _ => TryCause::Other,
        }
    }

    /// `None` for an answer that says something: success, or that there is or is no such object.
    pub(super) fn of_status(status: u16) -> Option<Self> {
        match status {
            // S3 says 503 SlowDown:
            // https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
            429 | 503 => Some(TryCause::Throttled),
            408 => Some(TryCause::Timeout),
            401 | 403 => Some(TryCause::Refused),
            500..600 => Some(TryCause::Server),
            _ => None,
        }
    }
}

/// The counts of one process. Clones share them.
#[derive(Clone, Default)]
pub struct TryCounts {
    counts: Arc<[AtomicU64; TryCause::ALL.len()]>,
}

impl fmt::Debug for TryCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(TryCause::ALL.map(|cause| (cause.name(), self.of(cause)))).finish()
    }
}

impl TryCounts {
    /// How many came to nothing because of this.
    pub fn of(&self, cause: TryCause) -> u64 {
        self.place(cause).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    pub(super) fn add(&self, cause: TryCause) {
        if let Some(count) = self.place(cause) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn place(&self, cause: TryCause) -> Option<&AtomicU64> {
        let index = TryCause::ALL.iter().position(|one| *one == cause)?;
        self.counts.get(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_count_together_and_each_cause_by_itself() {
        let counts = TryCounts::default();
        counts.clone().add(TryCause::Server);
        counts.add(TryCause::Server);
        assert_eq!((counts.of(TryCause::Server), counts.of(TryCause::Other)), (2, 0));
    }

    #[test]
    fn an_answer_that_says_something_is_no_failed_try() {
        for status in [200, 204, 206, 304, 404, 409, 412] {
            assert_eq!(TryCause::of_status(status), None, "{status}");
        }
        assert_eq!(TryCause::of_status(503), Some(TryCause::Throttled));
        assert_eq!(TryCause::of_status(500), Some(TryCause::Server));
        assert_eq!(TryCause::of_status(403), Some(TryCause::Refused));
    }
}
