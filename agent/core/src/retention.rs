//! What a repository has to keep, for how long, and why; what follows from that for `wald expire`
//! (DESIGN 8).
//!
//! The promise: as long as the window moves on by one second per second, every target inside
//! it that [`crate::recovery_plan::plan`] found a way to is still reached, by the same backup and
//! the same WAL. Invariants: what is not understood is kept; a backup whose WAL has a hole
//! never stands in for one that is whole; a name that wald does not know is nobody's garbage.
//!
//! The window is `[now - window, now]`. A *line* is a timeline with its ancestors. A line is
//! *followed* if a target in the window can lie on it: the latest line always is; another one is
//! if a backup of it can be recovered to some moment in the window. Of each line that is followed
//! are kept: the newest whole backup that ended at or before the window's start (the anchor), all
//! that ended after it, and the WAL from the first of their beginnings to the line's end. Where
//! there is no anchor, all its backups are kept. Beside that the newest whole backups are
//! kept, as many as the policy says, with the WAL that leads on from them.

mod name;
mod seen;
mod line;
mod choice;
mod guard;
mod need;
mod needed;

mod version;
mod survey;
mod locked;
mod sort;
mod plan;

#[cfg(test)]
mod tests;

pub use locked::WaitsFor;
pub use name::ObjectName;
pub use need::{BackupReason, Need, Pending, Reason, Unneeded};
pub use needed::{Basis, Needed, Unsound, needed};
pub use plan::{
    Deletions, Extension, Inputs, Kept, Later, LeftAlone, Plan, Refusal, Removal, locks_wanted, plan,
};
pub use seen::Seen;
pub use survey::Survey;
pub use version::{ListedUpload, ListedVersion, LockState, VersionKind};

use jiff::SignedDuration;
use std::num::NonZeroU32;

/// Clocks of the database, the repository and this host may differ by so much without harm.
const CLOCK_MARGIN: SignedDuration = SignedDuration::from_hours(1);

/// A restore to a target that was in the window when it began may take so long.
const RESTORE_GRACE: SignedDuration = SignedDuration::from_hours(24);

/// A backup that ended so far in the future tells of a wrong clock, and stands in for no other.
const CLOCK_AHEAD_MAX: SignedDuration = SignedDuration::from_hours(24);

/// Objects of a backup that has no catalog entry are left alone until nothing was added to
/// them for so long: it may still be running.
pub const LEFTOVER_AGE_MIN: SignedDuration = SignedDuration::from_hours(48);

/// What `wald repo check` tried out is removed after so long: another check may be running.
pub const TRIAL_AGE_MIN: SignedDuration = SignedDuration::from_hours(24);

/// A backup in progress may need WAL that was stored so long before it began: on a standby it
/// begins at the last restart point, and the repository's clock may be wrong.
const PENDING_WAL_BEFORE: SignedDuration = SignedDuration::from_hours(24);

/// What a run of `expire` or `verify` wrote down is kept at least for so long.
pub const RECORD_AGE_MIN: SignedDuration = SignedDuration::from_hours(90 * 24);

/// An upload in parts that was begun so long ago is not going to be completed.
pub const UPLOAD_AGE_MIN: SignedDuration = SignedDuration::from_hours(24);

/// A lock is extended by so much more than is needed: what is needed moves on with the time, and
/// with this much to spare a run every night, late or early by some hours, extends the lock
/// of an object every other night at most, and no lock ends between two runs.
pub const LOCK_SLACK: SignedDuration = SignedDuration::from_hours(30);

/// `[retention]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Policy {
    /// Any second of so long until now shall be a possible recovery target.
    pub window: SignedDuration,
    /// What ended so long before the window is not looked at any more: a restore that began when it
    /// was inside may be running, and clocks differ.
    pub edge: SignedDuration,
    /// So many of the newest whole backups are kept, however old they are.
    pub full_backups_min: NonZeroU32,
}

impl Policy {
    /// A window in days of 24 hours. At least one backup is always kept.
    pub fn new(window_days: u32, full_backups_min: u32) -> Self {
        Self {
            window: SignedDuration::from_hours(24 * i64::from(window_days)),
            edge: CLOCK_MARGIN.saturating_add(RESTORE_GRACE),
            full_backups_min: NonZeroU32::new(full_backups_min).unwrap_or(NonZeroU32::MIN),
        }
    }
}
