//! What a run knows of the repository, and what it makes of it: what to read, which findings, which
//! report. Nothing is read here but for what has vanished in between.

use super::absence::confirm;
use super::ledgers::Known;
use super::presence::{self, Found, Presence};
use super::report::{REPORT_FORMAT, Verdict, VerifyReport};
use super::tonight::Tonight;
use super::{VerifyError, VerifyOptions, lanes, survey, work};
use crate::clock::Clock;
use crate::inventory::Inventory;
use crate::repository::Repository;
use jiff::Timestamp;
use std::collections::BTreeSet;
use wald_core::catalog::CatalogEntry;
use wald_core::ledger::{
    Damage, Depth, Finding, Objects, Postponed, Rotation, WalkEnd, Why, schedule, still_open,
};
use wald_core::retention::Needed;

/// What is known before anything is read.
pub(super) struct Scene {
    pub begun: Timestamp,
    pub objects: Objects,
    pub odd: Vec<survey::Odd>,
    pub inventory: Inventory,
    pub known: Known,
    pub needed: Needed,
}

/// What was chosen to be read.
pub(super) struct Chosen {
    pub names: BTreeSet<Box<str>>,
    pub candidates: u64,
    pub counts: [u64; 3],
    pub postponed: Postponed,
}

impl Scene {
    pub fn presence(&self) -> Presence<'_> {
        Presence {
            objects: &self.objects,
            odd: &self.odd,
            inventory: &self.inventory,
            needed: &self.needed,
            gone: &self.known.gone,
            now: self.begun,
        }
    }

    /// What is read, and the jobs that it makes.
    pub fn choose(
        &self,
        options: &VerifyOptions,
        kept: &[&CatalogEntry],
    ) -> Result<(Chosen, std::collections::VecDeque<lanes::Job>), VerifyError> {
        let only = match &options.backup {
            None => None,
            Some(id) => {
                let entry = work::entry_of(&self.inventory, id);
                Some(entry.ok_or_else(|| VerifyError::NoSuchBackup { id: id.clone() })?)
            }
        };
        let alone: Vec<&CatalogEntry> = only.into_iter().collect();
        let kept = if only.is_some() { alone.as_slice() } else { kept };
        let size = self.inventory.coverage.segment_size();
        let candidates = work::candidates(&self.objects, &self.needed, kept, only, size);
        let suspects: BTreeSet<&str> =
            self.known.findings.iter().map(|finding| finding.object.as_str()).collect();
        let rules = Rotation {
            now: self.begun,
            depth: options.depth,
            reread: options.reread,
            bytes_max: options.max_bytes,
            full: options.full || only.is_some(),
        };
        let decided = schedule(&candidates, |name| suspects.contains(name), &rules);
        let count =
            |why| u64::try_from(decided.read.iter().filter(|(_, of)| *of == why).count()).unwrap_or(u64::MAX);
        let counts = [Why::New, Why::Suspect, Why::Due].map(count);
        let chosen: Vec<_> =
            decided.read.iter().filter_map(|(index, _)| candidates.get(*index).copied()).collect();
        let work = work::Work {
            objects: &self.objects,
            inventory: &self.inventory,
            known: &self.known,
            needed: &self.needed,
        };
        let chosen = (
            Chosen {
                names: chosen.iter().map(|object| object.name.clone()).collect(),
                candidates: u64::try_from(candidates.len()).unwrap_or(u64::MAX),
                counts,
                postponed: decided.postponed,
            },
            work.jobs(&chosen),
        );
        Ok(chosen)
    }

    /// What was listed and then was not there: expire may have removed what was needed until today.
    pub async fn vanished(&self, repository: &Repository, tonight: &mut Tonight) {
        let needed = |name: &str| {
            let stored_at = self.objects.get(name).map_or(self.begun, presence::stored_at);
            matches!(self.needed.of(name, stored_at), wald_core::retention::Need::Needed { .. })
        };
        let missing = tonight.vanished.iter().filter(|name| needed(name)).map(|name| Found {
            object: name.to_string(),
            damage: Damage::Missing { needed_by: "the recovery window".to_owned() },
        });
        let size = repository.segment_size();
        let confirmed = confirm(repository.store(), missing.collect(), [], size).await;
        tonight.found.extend(confirmed.found);
        tonight.unread.extend(confirmed.unread);
    }

    /// Tonight's findings, each once, and those of earlier runs that are open still.
    pub fn findings(&self, tonight: &Tonight) -> Vec<Finding> {
        let presence = self.presence();
        let holes = presence.holes();
        let not_asked: BTreeSet<&str> = tonight.unread.iter().map(|unread| unread.object.as_str()).collect();
        let looked = |name: &str| match self.objects.get(name) {
            Some(_) => Some(tonight.looked(name).unwrap_or(Depth::Presence)),
            // Nothing makes it good but that it comes back.
            None if self.known.gone.contains_key(name) && !presence.is_in_one(&holes, name) => None,
            None if not_asked.contains(name) => None,
            // It is not needed, or that it is not there is told by a finding of tonight.
            None => Some(Depth::Records),
        };
        let mut earlier = self.known.findings.clone();
        earlier.sort_by(|a, b| a.object.cmp(&b.object));
        let mut found: Vec<&Found> = tonight.found.iter().collect();
        found.sort_by(|a, b| a.object.cmp(&b.object));
        let mut findings: Vec<Finding> = Vec::new();
        for Found { object, damage } in found {
            if of_object(&findings, object).iter().any(|finding| finding.damage == *damage) {
                continue;
            }
            let before = of_object(&earlier, object).iter().find(|known| is_same_kind(&known.damage, damage));
            let stored = self.objects.get(object).or_else(|| self.known.gone.get(object.as_str()));
            findings.push(Finding {
                object: object.clone(),
                version: stored.map(|object| object.version.to_string()).filter(|version| version != "null"),
                damage: damage.clone(),
                found_at: before.map_or(self.begun, |before| before.found_at),
                last_good: stored.and_then(wald_core::ledger::Object::last_good),
                lost: None,
            });
        }
        let mut open = still_open(earlier, looked);
        open.retain(|open| {
            let told = of_object(&findings, &open.object);
            !told.iter().any(|finding| is_same_kind(&finding.damage, &open.damage))
        });
        findings.append(&mut open);
        leave_out_echoes(&mut findings);
        findings.sort_by(|a, b| a.object.cmp(&b.object));
        findings
    }

    pub fn report(
        &self,
        repository: &Repository,
        options: &VerifyOptions,
        clock: &Clock,
        chosen: &Chosen,
        tonight: &Tonight,
        findings: Vec<Finding>,
    ) -> VerifyReport {
        let [new_objects, suspect_objects, due_objects] = chosen.counts;
        VerifyReport {
            format: REPORT_FORMAT,
            repository: repository.store().describe().to_owned(),
            verdict: Verdict::Clean,
            begun: self.begun,
            ended: clock.now(),
            depth: options.depth,
            full: options.full,
            objects: u64::try_from(self.objects.len()).unwrap_or(u64::MAX),
            provable_objects: chosen.candidates,
            new_objects,
            suspect_objects,
            due_objects,
            read: tonight.read,
            stored_bytes_per_second: tonight.read.stored_bytes_per_second(),
            locks_asked: 0,
            postponed: chosen.postponed,
            oldest_proof: None,
            findings,
            lost_targets: Vec::new(),
            unread: tonight.unread.clone(),
            notes: self.notes(tonight),
            ledger: None,
        }
    }

    fn notes(&self, tonight: &Tonight) -> Vec<String> {
        let mut notes = self.known.notes.clone();
        if tonight.interrupted {
            notes.push("the run was interrupted; the next one goes on from what was proven".to_owned());
        }
        for entry in &self.inventory.catalog {
            let bad = entry.facts().bad_pages.len();
            if bad > 0 {
                let id = entry.id();
                notes.push(format!(
                    "backup {id} has {bad} data pages that were damaged in the cluster already"
                ));
            }
        }
        for name in &self.inventory.foreign_entries {
            notes.push(format!("{name} is ignored: its name is not that of a catalog entry"));
        }
        notes
    }

    /// Where walks go on: the furthest along each timeline.
    pub fn walks(&self, tonight: &Tonight) -> Vec<WalkEnd> {
        let listed = |walk: &&WalkEnd| {
            let same = self.objects.get(&walk.object).is_some_and(|object| object.version == walk.version);
            same && !tonight.is_damaged(&walk.object)
        };
        let mut furthest = std::collections::BTreeMap::new();
        for walk in self.known.walks.values().chain(&tonight.walks).filter(listed) {
            // Names of one timeline sort by position, and begin with the timeline.
            let timeline: String = walk.object.chars().take("wal/00000000".len()).collect();
            let known = furthest.entry(timeline).or_insert_with(|| walk.clone());
            if known.object <= walk.object {
                *known = walk.clone();
            }
        }
        furthest.into_values().collect()
    }
}

/// The findings of one object, of those sorted by object.
fn of_object<'a>(findings: &'a [Finding], object: &str) -> &'a [Finding] {
    let begin = findings.partition_point(|finding| finding.object.as_str() < object);
    let rest = findings.get(begin..).unwrap_or_default();
    rest.get(..rest.partition_point(|finding| finding.object == object)).unwrap_or_default()
}

/// One damage may be seen in several ways: of those only the one that says most is told.
fn leave_out_echoes(findings: &mut Vec<Finding>) {
    let clearness = |damage: &Damage| match damage {
        Damage::Deleted => Some(0),
        Damage::Missing { .. } | Damage::MissingWal { .. } => Some(1),
        Damage::Size { .. } => Some(2),
        Damage::Content { .. } => Some(3),
        Damage::Unreadable { .. } => Some(4),
        Damage::Records { .. }
        | Damage::Pages { .. }
        | Damage::Overwritten { .. }
        | Damage::LockTooShort { .. } => None,
    };
    let mut clearest = std::collections::BTreeMap::new();
    for finding in findings.iter() {
        if let Some(clearness) = clearness(&finding.damage) {
            let best = clearest.entry(finding.object.clone()).or_insert(clearness);
            *best = clearness.min(*best);
        }
    }
    findings.retain(|finding| {
        clearness(&finding.damage).is_none_or(|own| clearest.get(&finding.object) == Some(&own))
    });
}

fn is_same_kind(a: &Damage, b: &Damage) -> bool {
    std::mem::discriminant(a) == std::mem::discriminant(b)
}
