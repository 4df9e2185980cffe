//! Wall time comes from here and nowhere else.

use jiff::Timestamp;

/// Where the time comes from.
#[derive(Clone, Copy, Debug)]
pub enum Clock {
    /// The host's clock.
    System,
    /// Always this time; for tests.
    Fixed(Timestamp),
}

impl Clock {
    /// The time now.
    pub fn now(&self) -> Timestamp {
        match self {
            Clock::System => Timestamp::now(),
            Clock::Fixed(now) => *now,
        }
    }
}
