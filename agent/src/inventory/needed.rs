//! What a restore needs of an inventory in which something can't be understood.
//!
//! One damaged object must not stand between an operator and all backups, and no plan may be
//! made as if it said nothing. So: a damaged entry stops only the restore of its own backup,
//! or one that has no other; a damaged history stops a restore that follows it, or that
//! could have followed it, because "latest" is the highest timeline of all. Anything else that
//! is damaged is a note in the plan.

use super::{Inventory, InventoryError, Role, Unreadable};
use wald_core::recovery_plan::{PlanNote, PlanRequest, RecoveryPlan};
use wald_core::recovery_window::timelines;
use wald_core::target::TimelineChoice;
use wald_core::timeline::TimelineId;

impl Inventory {
    /// The inventory, if nothing is damaged that a plan for this request has to be made from.
    pub fn for_request(self, request: &PlanRequest) -> Result<Self, InventoryError> {
        let latest = timelines(&self.catalog, &self.histories).last().copied();
        for damaged in &self.unreadable {
            let instead = match &damaged.role {
                Role::Entry(id) if request.backup.as_ref() == Some(id) => Some("choose another --backup"),
                Role::Entry(_) if self.catalog.is_empty() => {
                    Some("no other backup is there; a newer wald, or another copy of this object, may help")
                }
                Role::History(timeline) => match request.goal.timeline() {
                    TimelineChoice::Latest if latest.is_none_or(|latest| *timeline >= latest) => {
                        Some("it could be the latest timeline: choose another one with --target-timeline")
                    }
                    TimelineChoice::Id(id) if id == *timeline => Some("choose another --target-timeline"),
                    _ => None,
                },
                Role::Entry(_) => None,
            };
            if let Some(instead) = instead {
                return Err(damaged.refusal(instead));
            }
            let Unreadable { key, reason, .. } = damaged;
            tracing::warn!("{key} can't be used, the plan is made without it: {reason}");
        }
        Ok(self)
    }

    /// Refuses a plan that follows a timeline whose history is damaged; PostgreSQL would be
    /// given it too. What else the plan was made without is added to its notes.
    pub fn admit(&self, plan: &mut RecoveryPlan) -> Result<(), InventoryError> {
        let followed = |timeline: TimelineId| plan.path.iter().any(|step| step.timeline == timeline);
        let on_the_way = |role: &Role| matches!(role, Role::History(timeline) if followed(*timeline));
        if let Some(damaged) = self.unreadable.iter().find(|damaged| on_the_way(&damaged.role)) {
            return Err(damaged.refusal("choose another --target-timeline, or a --backup of a later one"));
        }
        let without = self.unreadable.iter().cloned();
        plan.notes
            .extend(without.map(|Unreadable { key, reason, .. }| PlanNote::MadeWithout { key, reason }));
        Ok(())
    }
}

impl Unreadable {
    fn refusal(&self, instead: &'static str) -> InventoryError {
        InventoryError::Unreadable { key: self.key.clone(), reason: self.reason.clone(), instead }
    }
}
