//! What a run would do or did, for people and for programs.

use super::RetainOptions;
use super::execute::Outcome;
use super::gather::{Gathered, Problem};
use super::summary::Summary;
use crate::repository::Repository;
use crate::store::VersionId;
use jiff::Timestamp;
use serde::Serialize;
use std::fmt;
use wald_core::backup_id::BackupId;
use wald_core::object_lock::ObjectLock;
use wald_core::quantity::{Bytes, Count};
use wald_core::retention::{BackupReason, WaitsFor};

/// A plan, with the names of all versions.
#[derive(Clone, Debug, Serialize)]
pub struct Planned {
    /// The repository's URL.
    pub repository: String,
    /// The time that the plan goes by.
    pub now: Timestamp,
    /// The earliest target.
    pub window_begin: Timestamp,
    /// So many of the newest backups are kept at least.
    pub full_backups_min: u32,
    /// Why nothing is deleted, if so.
    pub refusal: Option<String>,
    /// What can't be understood or could not be asked.
    pub problems: Vec<Problem>,
    /// Every backup.
    pub backups: Vec<PlannedBackup>,
    /// In a few lines.
    pub summary: Summary,
    /// In full.
    pub details: Details,
}

/// A backup and its fate.
#[derive(Clone, Debug, Serialize)]
pub struct PlannedBackup {
    /// Its name.
    pub id: BackupId,
    /// Whether it is needed.
    pub needed: bool,
    /// Why, if it is.
    pub reason: Option<BackupReason>,
    /// The same in words.
    pub because: Option<String>,
    /// Until when, by what is known now.
    pub until: Option<Timestamp>,
}

/// Every version by name.
#[derive(Clone, Debug, Serialize)]
pub struct Details {
    /// What is needed.
    pub keep: Vec<Detail>,
    /// Locks to be extended.
    pub extend: Vec<ExtendDetail>,
    /// Delete markers to be removed.
    pub heal: Vec<Detail>,
    /// What goes, in this order.
    pub delete: Vec<Detail>,
    /// What would go and has to wait.
    pub later: Vec<Detail>,
    /// What is left alone for now.
    pub pending: Vec<Detail>,
    /// Names that wald does not know.
    pub unknown: Vec<Detail>,
}

/// One version.
#[derive(Clone, Debug, Serialize)]
pub struct Detail {
    /// The object's name.
    pub name: String,
    /// Which version.
    pub version: VersionId,
    /// Its size.
    pub bytes: u64,
    /// Why it has this fate.
    pub why: Option<String>,
    /// Until when it is needed, locked or left alone, as far as that is known.
    pub until: Option<Timestamp>,
}

/// One lock.
#[derive(Clone, Debug, Serialize)]
pub struct ExtendDetail {
    /// The object's name.
    pub name: String,
    /// Which version.
    pub version: VersionId,
    /// The lock that it has.
    pub from: Option<ObjectLock>,
    /// The lock that it gets.
    pub to: ObjectLock,
}

/// A run that is over.
#[derive(Clone, Debug, Serialize)]
pub struct RunReport {
    /// What was planned.
    #[serde(flatten)]
    pub planned: Planned,
    /// What was done.
    pub outcome: Outcome,
    /// The object that records the run.
    pub record: Option<String>,
}

impl Planned {
    /// Whether all was understood and nothing held back.
    pub fn is_good(&self) -> bool {
        self.refusal.is_none() && self.problems.is_empty()
    }
}

impl RunReport {
    /// Whether all was done that there was to do.
    pub fn is_good(&self) -> bool {
        let done = &self.outcome;
        // What was planned as free and is held, by a legal hold perhaps, will never go by itself.
        let all = done.failed == 0 && done.skipped == 0 && done.locked == 0;
        self.planned.is_good() && all && !done.interrupted
    }

    /// For a status line.
    pub fn in_one_line(&self) -> String {
        let done = &self.outcome;
        let mut line = format!(
            "{} extended, {} deleted ({})",
            Count(done.extended, "lock"),
            Count(done.deleted, "version"),
            Bytes(done.deleted_bytes)
        );
        if done.healed > 0 {
            line.push_str(&format!(
                "; {} had been deleted by name though needed",
                Count(done.healed, "object")
            ));
        }
        if done.interrupted {
            line.push_str("; interrupted");
        }
        let problem =
            self.planned.problems.first().map(|problem| format!("{}: {}", problem.key, problem.reason));
        let failure = done.failures.first().map(ToString::to_string);
        for trouble in [self.planned.refusal.clone(), problem, failure].into_iter().flatten() {
            line.push_str("; ");
            line.push_str(&trouble);
        }
        line
    }
}

pub(super) fn planned(repository: &Repository, options: &RetainOptions, gathered: &Gathered) -> Planned {
    let backups = gathered.needed.backups().map(|(id, kept)| PlannedBackup {
        id: id.clone(),
        needed: kept.is_some() || gathered.needed.everything().is_some(),
        reason: kept.map(|(reason, _)| reason),
        because: kept
            .map(|(reason, _)| reason.to_string())
            .or_else(|| gathered.needed.everything().map(ToString::to_string)),
        until: kept.map(|(_, until)| until),
    });
    Planned {
        repository: repository.store().describe().to_owned(),
        now: gathered.time.now,
        window_begin: gathered.needed.window_begin(),
        full_backups_min: options.policy.full_backups_min.get(),
        refusal: gathered.plan.refusal.as_ref().map(ToString::to_string),
        problems: gathered.problems.clone(),
        backups: backups.collect(),
        summary: Summary::of(gathered),
        details: details(gathered),
    }
}

fn details(gathered: &Gathered) -> Details {
    let plan = &gathered.plan;
    let detail = |index: usize, why: Option<String>, until: Option<Timestamp>| {
        let version = gathered.versions.get(index)?;
        let (name, bytes) = (version.name.clone(), version.size_bytes);
        Some(Detail { name, version: version.id.clone(), bytes, why, until })
    };
    let extensions = plan.extend.iter().filter_map(|extension| {
        let version = gathered.versions.get(extension.version)?;
        let (from, to) = (extension.from, extension.to);
        Some(ExtendDetail { name: version.name.clone(), version: version.id.clone(), from, to })
    });
    let waits = |waits: &WaitsFor| match waits {
        WaitsFor::Lock(until) => Some(*until),
        WaitsFor::Backup(_, until) => *until,
        WaitsFor::UnknownLock => None,
    };
    let (keep, later) = (plan.keep.iter(), plan.later.iter());
    Details {
        keep: keep.filter_map(|k| detail(k.version, Some(k.reason.to_string()), Some(k.until))).collect(),
        extend: extensions.collect(),
        heal: plan.heal.iter().filter_map(|index| detail(*index, None, None)).collect(),
        delete: plan.delete.iter().filter_map(|r| detail(r.version, Some(r.why.to_string()), None)).collect(),
        later: later.filter_map(|l| detail(l.version, Some(l.why.to_string()), waits(&l.waits))).collect(),
        pending: plan
            .pending
            .iter()
            .filter_map(|left| detail(left.version, Some(left.pending.to_string()), Some(left.until)))
            .collect(),
        unknown: plan.unknown.iter().filter_map(|index| detail(*index, None, None)).collect(),
    }
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "repository  {}", self.repository)?;
        writeln!(f, "window      from {} to {}", self.window_begin, self.now)?;
        for backup in &self.backups {
            let fate = if backup.needed { "keep" } else { "expired" };
            write!(f, "{fate:11} backup {}", backup.id)?;
            match &backup.because {
                Some(because) => writeln!(f, " {because}")?,
                None => writeln!(f, " is needed by no target in the window")?,
            }
        }
        let summary = &self.summary;
        // Backups that are kept have a line of their own already.
        for group in summary.keep.iter().filter(|group| !group.what.starts_with("backup ")) {
            writeln!(f, "keep        {group}")?;
        }
        for name in &summary.heal {
            writeln!(
                f,
                "HEAL        {name} is needed, and a delete marker hides it: find out who deleted it"
            )?;
        }
        for (label, groups) in [
            ("extend", &summary.extend),
            ("delete", &summary.delete),
            ("later", &summary.later),
            ("leave", &summary.pending),
        ] {
            for group in groups {
                writeln!(f, "{label:11} {group}")?;
            }
        }
        for name in &summary.abort {
            writeln!(f, "abort       an upload of {name} that was never completed")?;
        }
        if summary.unknown > 0 {
            writeln!(
                f,
                "unknown     {} that wald does not know, never touched",
                Count(summary.unknown, "object")
            )?;
        }
        for problem in &self.problems {
            writeln!(f, "PROBLEM     {}: {}", problem.key, problem.reason)?;
        }
        match &self.refusal {
            Some(refusal) => writeln!(f, "REFUSED     {refusal}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for RunReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let done = &self.outcome;
        write!(f, "{}", self.planned)?;
        writeln!(
            f,
            "done        {} extended, {} deleted ({}), {} found locked, {} brought to light, {} aborted",
            Count(done.extended, "lock"),
            Count(done.deleted, "version"),
            Bytes(done.deleted_bytes),
            done.locked,
            done.healed,
            Count(done.aborted, "upload"),
        )?;
        for failure in &done.failures {
            writeln!(f, "FAILED      {failure}")?;
        }
        let untold = done.failed.saturating_sub(u64::try_from(done.failures.len()).unwrap_or(0));
        if untold > 0 {
            writeln!(f, "FAILED      and {untold} more")?;
        }
        if done.skipped > 0 {
            writeln!(f, "skipped     {}: run wald expire again", Count(done.skipped, "step"))?;
        }
        if done.interrupted {
            writeln!(f, "INTERRUPTED the repository is right as it is; run wald expire again")?;
        }
        match &self.record {
            Some(record) => writeln!(f, "record      {record}"),
            None => Ok(()),
        }
    }
}
