//! What is read tonight.
//!
//! New objects and those with open findings, always. Of the rest the oldest-verified first, so
//! that each is read again within [`Rotation::reread`]: every night at least the share that keeps up the pace, and all that
//! will be overdue before the next night; never more than [`Rotation::bytes_max`] of it.
//! What does not fit is counted, and the caller says so.

use super::{Depth, Object};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

/// Runs are expected once a day: what will be overdue tomorrow is read today.
const PACE: SignedDuration = SignedDuration::from_hours(24);

/// The rules of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rotation {
    /// When the run begins.
    pub now: Timestamp,
    /// How thoroughly it looks.
    pub depth: Depth,
    /// Within which time each object is read again.
    pub reread: SignedDuration,
    /// Stored bytes of the rotation that are read at most; no limit where absent.
    pub bytes_max: Option<u64>,
    /// Everything, whatever was proven before.
    pub full: bool,
}

/// Why an object is read.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// Something was wrong with it.
    Suspect,
    /// It was never verified so thoroughly.
    New,
    /// Its turn has come, or everything was asked for.
    Due,
}

/// What did not fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Postponed {
    /// Objects that will not have been read again in time.
    pub objects: u64,
    /// Their stored bytes.
    pub stored_bytes: u64,
    /// Those of them whose time is over already.
    pub overdue: u64,
}

/// The decision.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Schedule {
    /// Which objects to read, by their index among the candidates, in that order.
    pub read: Vec<(usize, Why)>,
    /// What should have been read and did not fit.
    pub postponed: Postponed,
}

/// Chooses among `candidates`; `suspect` tells of open findings.
pub fn schedule(candidates: &[&Object], suspect: impl Fn(&str) -> bool, rules: &Rotation) -> Schedule {
    let mut decided = Schedule::default();
    if rules.depth == Depth::Presence {
        return decided;
    }
    let mut rest: Vec<(i64, usize, u64)> = Vec::new();
    for (index, object) in candidates.iter().enumerate() {
        match object.verified(rules.depth) {
            _ if suspect(&object.name) => decided.read.push((index, Why::Suspect)),
            None => decided.read.push((index, Why::New)),
            Some(_) if rules.full => decided.read.push((index, Why::Due)),
            Some(verified) => rest.push((verified, index, object.bytes)),
        }
    }
    choose(rest, rules, &mut decided);
    decided.read.sort_unstable();
    decided
}

fn choose(mut rest: Vec<(i64, usize, u64)>, rules: &Rotation, decided: &mut Schedule) {
    // Those verified together stay together, in order of names: WAL is best read in order.
    rest.sort_unstable();
    let total = rest.iter().fold(0u64, |sum, (_, _, bytes)| sum.saturating_add(*bytes));
    let share = share(total, rules.reread);
    let patient = rules.reread.checked_sub(PACE).unwrap_or(SignedDuration::ZERO);
    let due_before = rules.now.checked_sub(patient).map_or(i64::MAX, Timestamp::as_second);
    let overdue_before = rules.now.checked_sub(rules.reread).map_or(i64::MIN, Timestamp::as_second);
    let limit = rules.bytes_max.unwrap_or(u64::MAX);
    let mut taken = 0u64;
    for (verified, index, bytes) in rest {
        let due = verified <= due_before;
        if !due && taken >= share {
            break;
        }
        let after = taken.saturating_add(bytes);
        // One object may be larger than the limit: then it is read alone, or it never would be.
        if after <= limit || taken == 0 {
            taken = after;
            decided.read.push((index, Why::Due));
        } else if due {
            decided.postponed.objects += 1;
            decided.postponed.overdue += u64::from(verified < overdue_before);
            decided.postponed.stored_bytes = decided.postponed.stored_bytes.saturating_add(bytes);
        } else {
            break;
        }
    }
}

/// The share of a night.
fn share(total: u64, reread: SignedDuration) -> u64 {
    let nights = u64::try_from(reread.as_secs() / PACE.as_secs()).unwrap_or(0).max(1);
    total.div_ceil(nights)
}
