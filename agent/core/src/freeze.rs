//! Freeze age: how far a table or a database is from the forced vacuum and from the end of the
//! transaction ids, and how many days that is at the present rate.
//!
//! Invariants: a rate is known only from two samples that are far enough apart; an unknown rate is
//! never taken for none. Where the limits come from:
//! <https://www.postgresql.org/docs/15/routine-vacuuming.html#VACUUM-FOR-WRAPAROUND>.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// At this age PostgreSQL takes no more commands that write: two billion, less the three million
/// ids that are kept for mending it (`xidStopLimit` in `varsup.c`; one million before 14, so that this
/// errs to the early side).
pub const STOP_AGE: u64 = (1 << 31) - 1 - 3_000_000;

/// Two samples nearer to each other say nothing about a day.
const SAMPLES_APART_MIN: SignedDuration = SignedDuration::from_secs(1);
const DAY_SECONDS: f64 = 86_400.0;

/// How a freeze age is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FreezeState {
    /// Below the warning.
    Ok,
    /// Past the warning.
    Warning,
    /// PostgreSQL forces a vacuum, also where autovacuum is off.
    Forced,
    /// Less than a tenth of the ids is left before PostgreSQL stops writing.
    Critical,
}

/// The ages at which something happens, in transaction ids or in multixacts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FreezeLimits {
    /// When a person is told.
    pub warning: u64,
    /// `autovacuum_freeze_max_age` or its multixact counterpart, as effective for the table.
    pub forced: u64,
}

impl FreezeLimits {
    /// The state of an age.
    pub fn judge(&self, age: u64) -> FreezeState {
        if age >= STOP_AGE / 10 * 9 {
            FreezeState::Critical
        } else if age >= self.forced {
            FreezeState::Forced
        } else if age >= self.warning {
            FreezeState::Warning
        } else {
            FreezeState::Ok
        }
    }
}

/// How far the counters were at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Sample {
    /// By the host's clock.
    pub at: Timestamp,
    /// The next transaction id, with its epoch.
    pub transactions: u64,
    /// The next multixact, which has no epoch and starts again after 2^32.
    pub multixacts: u32,
}

/// Ids used per day.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Rate {
    /// Transaction ids per day.
    pub transactions_per_day: f64,
    /// Multixacts per day.
    pub multixacts_per_day: f64,
    /// Over how many seconds that was measured.
    pub measured_over_s: f64,
}

impl Rate {
    /// From two samples of the same cluster; `None` where they can't tell: too near, or of a counter
    /// that went back, as after a restore.
    pub fn between(older: Sample, newer: Sample) -> Option<Self> {
        let apart = newer.at.duration_since(older.at);
        if apart < SAMPLES_APART_MIN {
            return None;
        }
        let transactions = newer.transactions.checked_sub(older.transactions)?;
        let multixacts = newer.multixacts.wrapping_sub(older.multixacts);
        let seconds = apart.as_secs_f64();
        let per_day = |count: f64| count / seconds * DAY_SECONDS;
        Some(Self {
            transactions_per_day: per_day(as_float(transactions)),
            multixacts_per_day: per_day(f64::from(multixacts)),
            measured_over_s: seconds,
        })
    }
}

/// Days until an age reaches a limit. 0 where it has; `None` where nothing is used, which is never.
pub fn days_until(age: u64, limit: u64, per_day: f64) -> Option<f64> {
    let left = limit.saturating_sub(age);
    if left == 0 {
        return Some(0.0);
    }
    (per_day > 0.0).then(|| as_float(left) / per_day)
}

/// Of the remembered samples the one that tells most about `newest`: the oldest of the last
/// `window`, or else the newest of those that are older.
pub fn best_base(samples: &[Sample], newest: Sample, window: SignedDuration) -> Option<Sample> {
    let usable = |sample: &&Sample| Rate::between(**sample, newest).is_some();
    let age = |sample: &Sample| newest.at.duration_since(sample.at);
    let within = samples.iter().filter(usable).filter(|s| age(s) <= window).min_by_key(|s| s.at);
    within.or_else(|| samples.iter().filter(usable).max_by_key(|s| s.at)).copied()
}

/// Ids are below 2^53 for the next thousands of years.
fn as_float(count: u64) -> f64 {
    #[allow(clippy::cast_precision_loss)] // A rate needs no more than 53 bits.
    let float = count as f64;
    float
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: FreezeLimits = FreezeLimits { warning: 150_000_000, forced: 200_000_000 };

    fn sample(second: i64, transactions: u64, multixacts: u32) -> Sample {
        Sample { at: Timestamp::from_second(second).unwrap(), transactions, multixacts }
    }

    #[test]
    fn an_age_is_judged_by_what_happens_at_it() {
        for (age, state) in [
            (0, FreezeState::Ok),
            (149_999_999, FreezeState::Ok),
            (150_000_000, FreezeState::Warning),
            (200_000_000, FreezeState::Forced),
            (1_999_999_999, FreezeState::Critical),
        ] {
            assert_eq!(LIMITS.judge(age), state, "{age}");
        }
    }

    #[test]
    fn a_rate_needs_two_samples_that_are_apart_and_a_counter_that_goes_on() {
        let rate = Rate::between(sample(0, 1000, 10), sample(86_400, 5000, 20)).unwrap();
        assert_eq!((rate.transactions_per_day, rate.multixacts_per_day), (4000.0, 10.0));
        assert_eq!(Rate::between(sample(0, 1000, 10), sample(0, 5000, 20)), None);
        assert_eq!(Rate::between(sample(0, 5000, 10), sample(60, 1000, 10)), None);
        assert_eq!(Rate::between(sample(60, 1000, 10), sample(0, 5000, 10)), None);
        let wrapped = Rate::between(sample(0, 0, u32::MAX), sample(86_400, 0, 1)).unwrap();
        assert_eq!(wrapped.multixacts_per_day, 2.0);
    }

    #[test]
    fn days_left_end_at_the_limit_and_are_never_guessed_without_use() {
        assert_eq!(days_until(100, 200, 10.0), Some(10.0));
        assert_eq!(days_until(300, 200, 10.0), Some(0.0));
        assert_eq!(days_until(100, 200, 0.0), None);
    }

    #[test]
    fn the_oldest_sample_of_the_window_is_the_base_or_the_newest_before() {
        let window = SignedDuration::from_hours(24);
        let hour = 3600;
        let newest = sample(100 * hour, 1000, 0);
        let samples =
            [sample(0, 1, 0), sample(50 * hour, 2, 0), sample(80 * hour, 3, 0), sample(90 * hour, 4, 0)];
        assert_eq!(best_base(&samples, newest, window), Some(samples[2]));
        assert_eq!(best_base(&samples[..2], newest, window), Some(samples[1]));
        let restored = [sample(90 * hour, 5000, 0)];
        assert_eq!(best_base(&restored, newest, window), None);
    }
}
