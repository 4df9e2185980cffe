//! Which backup a recovery begins with, and which history it follows.

use super::{Holdings, PlanError, PlanRequest};
use crate::backup_id::BackupId;
use crate::catalog::CatalogEntry;
use crate::history::TimelineHistory;
use crate::recovery_window::{history_of, timelines};
use crate::target::{RecoveryTarget, TimelineChoice};
use crate::timeline::TimelineId;
use std::cmp::Reverse;

/// A backup that can reach the target.
pub(super) struct Choice<'a> {
    pub entry: &'a CatalogEntry,
    pub history: TimelineHistory,
    /// The next older backup of the same history.
    pub older: Option<BackupId>,
}

/// The newest backup that ends before the target and lies in the history that is followed, or
/// the one that was named.
pub(super) fn choose<'a>(holdings: Holdings<'a>, request: &PlanRequest) -> Result<Choice<'a>, PlanError> {
    let mut entries: Vec<&CatalogEntry> = holdings.catalog.iter().collect();
    entries.sort_by_key(|entry| Reverse((entry.stopped_at(), entry.stop_lsn())));
    let known = || entries.iter().map(|entry| entry.id().clone()).collect::<Vec<_>>();
    if let Some(id) = &request.backup {
        let named = entries.iter().find(|entry| entry.id() == id);
        let entry = named.ok_or_else(|| PlanError::UnknownBackup { id: id.clone(), known: known() })?;
        return judge(holdings, request, entry);
    }
    let mut refusals = Vec::new();
    let mut accepted: Option<Choice<'a>> = None;
    for entry in &entries {
        match (judge(holdings, request, entry), &mut accepted) {
            (Ok(choice), None) => accepted = Some(choice),
            (Ok(choice), Some(newest)) if choice.history == newest.history => {
                newest.older = Some(choice.entry.id().clone());
                break;
            }
            (Ok(_), Some(_)) => {}
            (Err(refusal), _) => refusals.push(refusal),
        }
    }
    accepted.ok_or_else(|| worst(refusals))
}

/// The refusal that tells most: that of the oldest backup which is on the right timeline, for
/// it says what the earliest target is.
fn worst(refusals: Vec<PlanError>) -> PlanError {
    let mut chosen: Option<PlanError> = None;
    for refusal in refusals {
        let weight = |error: &PlanError| match error {
            PlanError::BeforeBackupEnd { .. } => 2,
            PlanError::NotOnTimeline { .. } | PlanError::UnknownTimeline { .. } => 1,
            _ => 0,
        };
        if chosen.as_ref().is_none_or(|best| weight(&refusal) >= weight(best)) {
            chosen = Some(refusal);
        }
    }
    chosen.unwrap_or(PlanError::NoBackup)
}

fn judge<'a>(
    holdings: Holdings<'a>,
    request: &PlanRequest,
    entry: &'a CatalogEntry,
) -> Result<Choice<'a>, PlanError> {
    if entry.system_id() != holdings.system_id {
        return Err(PlanError::OtherSystem {
            id: entry.id().clone(),
            backup: entry.system_id(),
            repository: holdings.system_id,
        });
    }
    let history = followed(holdings, request.goal.timeline(), entry)?;
    if !history.contains(entry.timeline(), entry.stop_lsn()) {
        return Err(PlanError::NotOnTimeline {
            id: entry.id().clone(),
            timeline: history.timeline(),
            backup_timeline: entry.timeline(),
            stop_lsn: entry.stop_lsn(),
            switch_point: history.switch_point(entry.timeline()),
            possible: possible(holdings, entry),
        });
    }
    let target = request.goal.target();
    let early = match target {
        RecoveryTarget::Time(time) => *time < entry.stopped_at(),
        RecoveryTarget::Lsn(lsn) => *lsn < entry.stop_lsn(),
        RecoveryTarget::EndOfWal
        | RecoveryTarget::Immediate
        | RecoveryTarget::Xid(_)
        | RecoveryTarget::Name(_) => false,
    };
    if early {
        return Err(PlanError::BeforeBackupEnd {
            id: entry.id().clone(),
            target: target.clone(),
            stopped_at: entry.stopped_at(),
            stop_lsn: entry.stop_lsn(),
            older: older_for(holdings, request, entry),
        });
    }
    Ok(Choice { entry, history, older: None })
}

/// Another backup that would do, for the refusal of one that was named.
fn older_for(holdings: Holdings<'_>, request: &PlanRequest, entry: &CatalogEntry) -> Option<BackupId> {
    request.backup.as_ref()?;
    let any = PlanRequest { backup: None, ..request.clone() };
    choose(holdings, &any).ok().map(|c| c.entry.id().clone()).filter(|id| id != entry.id())
}

/// The history that is followed from this backup.
fn followed(
    holdings: Holdings<'_>,
    choice: TimelineChoice,
    entry: &CatalogEntry,
) -> Result<TimelineHistory, PlanError> {
    let known = timelines(holdings.catalog, holdings.histories);
    let timeline = match choice {
        TimelineChoice::Current => entry.timeline(),
        TimelineChoice::Latest => known.last().copied().unwrap_or(entry.timeline()),
        TimelineChoice::Id(id) if known.contains(&id) => id,
        TimelineChoice::Id(id) => {
            return Err(PlanError::UnknownTimeline { timeline: id, known: known.into_iter().collect() });
        }
    };
    Ok(history_of(timeline, holdings.histories))
}

/// The timelines that can be followed from a backup.
fn possible(holdings: Holdings<'_>, entry: &CatalogEntry) -> Vec<TimelineId> {
    let all = timelines(holdings.catalog, holdings.histories);
    let holds = |timeline: &TimelineId| {
        history_of(*timeline, holdings.histories).contains(entry.timeline(), entry.stop_lsn())
    };
    all.into_iter().filter(holds).collect()
}
