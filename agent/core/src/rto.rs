//! How long a recovery would take now: base bytes ÷ restore rate + WAL since ÷ replay rate + fixed
//! costs.
//!
//! Invariants: rates are those that were measured on this host, and the documented defaults until
//! then, which the estimate says of itself. A measurement that is too small to mean anything is not
//! one. The defaults are modest on purpose: an estimate that is too long is a reason to measure, one
//! that is too short a broken promise.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// DESIGN 1: the oldest committed byte that is not in the repository is never older.
pub const RPO_BUDGET: Duration = Duration::from_secs(300);
/// DESIGN 1: a recovery takes no longer.
pub const RTO_BUDGET: Duration = Duration::from_secs(900);

/// Bytes of a data directory that are restored in a second, until that was measured.
pub const RESTORE_RATE_DEFAULT: f64 = 50.0 * 1024.0 * 1024.0;
/// Bytes of WAL that are replayed in a second, until that was measured.
pub const REPLAY_RATE_DEFAULT: f64 = 16.0 * 1024.0 * 1024.0;
/// To decide, to type, to start a server, to reach consistency and to open the database.
pub const FIXED_COSTS: Duration = Duration::from_secs(120);

/// Less than this is over before it has a rate.
const MEASURED_BYTES_MIN: u64 = 16 << 20;
const MEASURED_TIME_MIN: Duration = Duration::from_millis(500);
/// No estimate is longer: a century.
const ESTIMATE_MAX: f64 = 3.2e9;

/// A rate that was measured on this host.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct MeasuredRate {
    /// When.
    pub measured_at: Timestamp,
    /// Over so many bytes.
    pub bytes: u64,
    /// In so many seconds.
    pub seconds: f64,
}

impl MeasuredRate {
    /// A measurement, if it is large enough to be one.
    pub fn new(measured_at: Timestamp, bytes: u64, took: Duration) -> Option<Self> {
        let enough = bytes >= MEASURED_BYTES_MIN && took >= MEASURED_TIME_MIN;
        enough.then_some(Self { measured_at, bytes, seconds: took.as_secs_f64() })
    }

    /// Bytes in a second; none for a file that was written by hand and makes no sense.
    pub fn bytes_per_second(&self) -> Option<f64> {
        let rate = self.bytes as f64 / self.seconds;
        (rate.is_finite() && rate >= 1.0).then_some(rate)
    }
}

/// What has to be moved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Work {
    /// The newest backup, as it stands on disk.
    pub base_bytes: u64,
    /// The WAL from its start to the end of what is archived.
    pub wal_bytes: u64,
}

/// How long a recovery would take.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct RtoEstimate {
    /// All of it, in seconds.
    pub seconds: f64,
    /// The rate that was reckoned with.
    pub restore_bytes_per_second: f64,
    /// Whether it was measured on this host.
    pub restore_is_measured: bool,
    /// The rate that was reckoned with.
    pub replay_bytes_per_second: f64,
    /// Whether it was measured on this host.
    pub replay_is_measured: bool,
}

/// Reckons.
pub fn estimate(work: Work, restore: Option<&MeasuredRate>, replay: Option<&MeasuredRate>) -> RtoEstimate {
    let restore = restore.and_then(MeasuredRate::bytes_per_second);
    let replay = replay.and_then(MeasuredRate::bytes_per_second);
    let restore_rate = restore.unwrap_or(RESTORE_RATE_DEFAULT);
    let replay_rate = replay.unwrap_or(REPLAY_RATE_DEFAULT);
    let seconds = work.base_bytes as f64 / restore_rate
        + work.wal_bytes as f64 / replay_rate
        + FIXED_COSTS.as_secs_f64();
    RtoEstimate {
        seconds: seconds.min(ESTIMATE_MAX),
        restore_bytes_per_second: restore_rate,
        restore_is_measured: restore.is_some(),
        replay_bytes_per_second: replay_rate,
        replay_is_measured: replay.is_some(),
    }
}

/// A recovery that was handed nothing for so long is over. A heavy segment takes seconds to replay.
const REPLAY_IDLE: Duration = Duration::from_secs(15);

/// The rate of a recovery, from how much was handed to PostgreSQL at moments that follow each other.
///
/// A span begins with the first look at which more was handed over, and is over when nothing was for
/// [`REPLAY_IDLE`]: then it is a measurement, if it is large enough. What it took ends with the last
/// growth, so that waiting for the end does not count.
#[derive(Debug, Default)]
pub struct ReplayMeter {
    last: Option<(Duration, u64)>,
    span: Option<Span>,
}

#[derive(Debug)]
struct Span {
    began: Duration,
    at_first: u64,
    grew: Duration,
    at_last: u64,
}

impl ReplayMeter {
    /// `now` counts from any fixed moment; `bytes` only grows. Gives bytes and time of a span that
    /// has just ended.
    pub fn look(&mut self, now: Duration, bytes: u64) -> Option<(u64, Duration)> {
        let (before, had) = self.last.replace((now, bytes))?;
        if bytes > had {
            // What came between two looks came at some time after the first of them.
            let span =
                self.span.get_or_insert(Span { began: before, at_first: had, grew: now, at_last: bytes });
            (span.grew, span.at_last) = (now, bytes);
            return None;
        }
        let span = self.span.take_if(|span| now.saturating_sub(span.grew) >= REPLAY_IDLE)?;
        Some((span.at_last.saturating_sub(span.at_first), span.grew.saturating_sub(span.began)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn rate(bytes: u64, seconds: u64) -> Option<MeasuredRate> {
        MeasuredRate::new(Timestamp::UNIX_EPOCH, bytes, Duration::from_secs(seconds))
    }

    #[test]
    fn an_estimate_is_the_sum_of_its_phases() {
        let work = Work { base_bytes: 10 * GIB, wal_bytes: GIB };
        let (restore, replay) = (rate(GIB, 10), rate(GIB, 20));
        let reckoned = estimate(work, restore.as_ref(), replay.as_ref());
        assert!((reckoned.seconds - (100.0 + 20.0 + 120.0)).abs() < 1e-6, "{reckoned:?}");
        assert!(reckoned.restore_is_measured && reckoned.replay_is_measured);
    }

    #[test]
    fn without_a_measurement_the_defaults_count_and_say_so() {
        let work = Work { base_bytes: 50 << 20, wal_bytes: 16 << 20 };
        let reckoned = estimate(work, None, None);
        assert!((reckoned.seconds - 122.0).abs() < 1e-6, "{reckoned:?}");
        assert!(!reckoned.restore_is_measured && !reckoned.replay_is_measured);
    }

    #[test]
    fn what_is_too_small_is_no_measurement() {
        assert_eq!(rate(1 << 20, 10), None);
        assert_eq!(MeasuredRate::new(Timestamp::UNIX_EPOCH, GIB, Duration::from_millis(10)), None);
        let broken = MeasuredRate { measured_at: Timestamp::UNIX_EPOCH, bytes: GIB, seconds: 0.0 };
        assert_eq!(broken.bytes_per_second(), None);
        assert!(!estimate(Work { base_bytes: 1, wal_bytes: 1 }, Some(&broken), None).restore_is_measured);
    }

    fn measured(looks: &[(u64, u64)]) -> Vec<(u64, Duration)> {
        let mut meter = ReplayMeter::default();
        let looks = looks.iter().map(|(second, bytes)| (Duration::from_secs(*second), *bytes));
        looks.filter_map(|(now, bytes)| meter.look(now, bytes)).collect()
    }

    #[test]
    fn a_recovery_is_measured_from_its_first_segment_to_its_last() {
        let looks = [(0, 0), (10, 0), (20, 100), (30, 400), (40, 500), (50, 500), (60, 500), (99, 500)];
        assert_eq!(measured(&looks), [(500, Duration::from_secs(30))]);
    }

    #[test]
    fn a_segment_that_takes_seconds_to_replay_does_not_end_a_recovery() {
        let looks = [(0, 0), (1, 16), (5, 16), (14, 16), (15, 32), (29, 32), (30, 32), (31, 32)];
        assert_eq!(measured(&looks), [(32, Duration::from_secs(15))]);
        assert_eq!(measured(&[(0, 7), (60, 7), (120, 7)]), []);
    }
}
