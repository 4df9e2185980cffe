//! Whether a target time may lie on a timeline that the newest one left behind.
//!
//! A timeline that was begun at two o'clock says nothing of what the one before it committed
//! at one. Followed to a target of one o'clock, it ends where it branched off, and all that
//! the old one did from there on until the target is missing, without an error. Only the
//! operator knows which of the two is meant.

use super::choice::Choice;
use super::{Holdings, PlanError, PlanRequest};
use crate::history::Stretch;
use crate::lsn::Lsn;
use crate::target::{RecoveryTarget, TimelineChoice};
use jiff::Timestamp;

/// Refuses a time for which "latest" is no clear answer: the old timeline went on behind the
/// switch point, and nothing of the new one was stored before the target. A failover leaves
/// at most the segment of the switch on the old timeline, so it is never refused.
pub(super) fn refuse_ambiguous_time(
    holdings: Holdings<'_>,
    request: &PlanRequest,
    choice: &Choice<'_>,
) -> Result<(), PlanError> {
    let (RecoveryTarget::Time(target), TimelineChoice::Latest) =
        (request.goal.target(), request.goal.timeline())
    else {
        return Ok(());
    };
    let stretches = choice.history.stretches();
    let on_the_way: Vec<&Stretch> =
        stretches.iter().skip_while(|stretch| stretch.timeline != choice.entry.timeline()).collect();
    for (old, new) in on_the_way.iter().zip(on_the_way.iter().skip(1)) {
        let Some(switch_point) = new.begin else { continue };
        let size = u64::from(holdings.coverage.segment_size().bytes());
        let went_on =
            !holdings.coverage.between(old.timeline, switch_point.get().div_ceil(size), u64::MAX).is_empty();
        let own = holdings.coverage.between(new.timeline, switch_point.get() / size, u64::MAX);
        let begun = own.first().map(|segment| segment.stored_at);
        let before = begun.is_none_or(|begun| *target < begun);
        if went_on && before && !surely_before(holdings, choice, *target, switch_point) {
            return Err(PlanError::AbandonedTimeline {
                target: *target,
                abandoned: old.timeline,
                followed: choice.history.timeline(),
                next: new.timeline,
                switch_point,
                begun,
            });
        }
    }
    Ok(())
}

/// Whether a backup of this history ended after the target and still before the switch point.
/// Its times are the database's own; when a segment was stored proves nothing here, because
/// an archiver that was behind stores what came before the switch as late as what came after.
fn surely_before(holdings: Holdings<'_>, choice: &Choice<'_>, target: Timestamp, switch_point: Lsn) -> bool {
    holdings.catalog.iter().any(|entry| {
        entry.stopped_at() > target
            && entry.stop_lsn() <= switch_point
            && choice.history.contains(entry.timeline(), entry.stop_lsn())
    })
}
