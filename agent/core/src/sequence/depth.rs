//! How many segments a recovery wants to have fetched ahead.
//!
//! Enough to bridge the time that a fetch takes, twice over, at the rate at which PostgreSQL takes
//! segments; more after PostgreSQL had to wait for one that was on its way, until it waits no
//! more. So a store that is near is not asked for what a recovery may never need, and one that is
//! far, or slow for a while, is not waited for. Never below the floor nor above the ceiling.

use std::time::Duration;

/// A gap between two requests says no more than this: recovery was paused, or waited for WAL.
const GAP_MAX: Duration = Duration::from_secs(10);

/// What was seen, and what follows from it.
#[derive(Clone, Debug)]
pub(super) struct Depth {
    floor: usize,
    ceiling: usize,
    now: usize,
    asked_at: Option<Duration>,
    /// How long PostgreSQL takes for a segment, on average.
    gap: Option<Duration>,
    /// How long a fetch takes, on average.
    fetch: Option<Duration>,
}

impl Depth {
    /// Begins with what keeps the fetches busy twice over.
    pub(super) fn new(in_flight_max: usize, ceiling: usize) -> Self {
        let ceiling = ceiling.max(1);
        let floor = in_flight_max.saturating_mul(2).clamp(1, ceiling);
        Self { floor, ceiling, now: floor, asked_at: None, gap: None, fetch: None }
    }

    /// How many segments may be held.
    pub(super) fn get(&self) -> usize {
        self.now
    }

    /// PostgreSQL asks at `now`, a time since any fixed moment; `late` if the segment is still on
    /// its way.
    pub(super) fn asked(&mut self, now: Duration, late: bool) {
        if let Some(before) = self.asked_at.replace(now) {
            self.gap = Some(average(self.gap, now.saturating_sub(before).min(GAP_MAX)));
        }
        if late {
            self.now = self.now.saturating_mul(2).min(self.ceiling);
        } else if self.now > self.wanted() {
            self.now -= 1;
        } else {
            self.now = self.wanted();
        }
    }

    /// A fetch took so long.
    pub(super) fn fetched(&mut self, took: Duration) {
        self.fetch = Some(average(self.fetch, took));
    }

    fn wanted(&self) -> usize {
        let (Some(fetch), Some(gap)) = (self.fetch, self.gap) else { return self.floor };
        let twice = fetch.as_micros().saturating_mul(2).div_ceil(gap.as_micros().max(1));
        usize::try_from(twice).unwrap_or(usize::MAX).clamp(self.floor, self.ceiling)
    }
}

/// A running average in which the last values count most.
fn average(before: Option<Duration>, new: Duration) -> Duration {
    before.map_or(new, |before| (before.saturating_mul(3).saturating_add(new)) / 4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Requests every `gap` that are answered from the spool.
    fn replayed(depth: &mut Depth, from: u64, gap: u64, requests: u64) -> u64 {
        for number in 0..requests {
            depth.asked(ms(from + number * gap), false);
        }
        from + requests * gap
    }

    #[test]
    fn a_store_that_is_far_is_asked_further_ahead() {
        let mut depth = Depth::new(4, 64);
        assert_eq!(depth.get(), 8);
        depth.fetched(ms(10));
        let now = replayed(&mut depth, 0, 25, 20);
        assert_eq!(depth.get(), 8, "near");
        for _ in 0..20 {
            depth.fetched(ms(500));
        }
        replayed(&mut depth, now, 25, 20);
        assert!((38..=40).contains(&depth.get()), "{}", depth.get());
    }

    #[test]
    fn a_wait_deepens_the_window_and_calm_makes_it_shallow_again() {
        let mut depth = Depth::new(4, 64);
        depth.fetched(ms(10));
        for number in 0..5 {
            depth.asked(ms(number * 25), true);
        }
        assert_eq!(depth.get(), 64);
        replayed(&mut depth, 125, 25, 100);
        assert_eq!(depth.get(), 8);
    }

    #[test]
    fn a_small_spool_is_the_limit() {
        let mut depth = Depth::new(4, 1);
        depth.asked(ms(0), true);
        assert_eq!(depth.get(), 1);
    }

    proptest! {
        #[test]
        fn it_stays_between_its_bounds(
            in_flight in 0usize..100, ceiling in 0usize..300,
            events in prop::collection::vec((any::<u64>(), any::<bool>(), any::<u64>()), 0..50),
        ) {
            let mut depth = Depth::new(in_flight, ceiling);
            for (now, late, took) in events {
                depth.asked(Duration::from_micros(now), late);
                depth.fetched(Duration::from_micros(took));
                prop_assert!((1..=ceiling.max(1)).contains(&depth.get()));
            }
        }
    }
}
