//! The number of a timeline: a line of history that begins at a promotion.

use std::fmt;
use std::num::NonZeroU32;

/// A timeline's number, never 0. The first timeline of a cluster is 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "formats", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "formats", serde(transparent))]
pub struct TimelineId(NonZeroU32);

impl TimelineId {
    /// The timeline that `initdb` makes.
    pub const FIRST: TimelineId = TimelineId(NonZeroU32::MIN);

    /// The timeline of this number, or `None` for 0.
    pub const fn new(number: u32) -> Option<Self> {
        match NonZeroU32::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

/// Decimal, as `recovery_target_timeline` takes it.
impl fmt::Display for TimelineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for TimelineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TimelineId({})", self.0)
    }
}
