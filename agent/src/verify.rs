//! `wald verify`: proves that what is stored can be restored (DESIGN 8).
//!
//! One listing → what should be there → what is read tonight → read and prove → locks → findings with what
//! they cost → ledger.
//!
//! Invariants:
//! - "Clean" is said only if everything that was planned was read to its end and judged. Whatever
//!   could not be read makes the run incomplete (exit 2), and is never taken for damage or for good.
//! - A damaged object stays a finding, and is read again every run, until it is good or not needed.
//! - No request per object for what is only looked at; each object that is read is read as a
//!   stream. Memory does not grow with the size of objects: see [`lanes`], and `backup_job` for lists.
//! - Nothing in the repository is changed but for the ledger, which is a new object.

mod args;
mod error;

mod survey;
mod ledgers;
mod presence;
mod absence;
mod work;

mod lanes;
mod event;
mod rate;
mod wal_run;
mod bare;
mod backup_job;
mod part;
mod tonight;

mod locks;
mod losses;
mod progress;
mod report;
#[cfg(test)]
mod tests;

pub use args::VerifyArgs;
pub use error::VerifyError;
pub use ledgers::WriteError;
pub use progress::Progress;
pub use report::{Unread, Verdict, VerifyReport};

use crate::clock::Clock;
use crate::inventory::{self, Inventory};
use crate::repository::Repository;
use absence::{Confirmed, confirm};
use jiff::{SignedDuration, Timestamp};
use lanes::Lanes;
use ledgers::Known;
use presence::{Found, Presence, backup_objects};
use rate::RateLimit;
use report::REPORT_FORMAT;
use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use survey::{Survey, survey};
use tokio_util::sync::CancellationToken;
use tonight::Tonight;
use wald_core::backup_id::BackupId;
use wald_core::catalog::CatalogEntry;
use wald_core::ledger::{
    Damage, Depth, Finding, Head, LEDGER_FORMAT, Objects, Postponed, Rotation, WalkEnd, Why, schedule,
    still_open,
};
use wald_core::object_lock::LockPolicy;
use wald_core::retention::{Basis, Needed, Policy, needed};

/// What a verification is asked to do.
#[derive(Clone, Debug)]
pub struct VerifyOptions {
    /// How thoroughly.
    pub depth: Depth,
    /// Everything, whatever was proven before.
    pub full: bool,
    /// Only this backup is read, whatever was proven before.
    pub backup: Option<BackupId>,
    /// What is needed.
    pub policy: Policy,
    /// How objects should be locked; none: not at all.
    pub lock: Option<LockPolicy>,
    /// Within which time each object is read again.
    pub reread: SignedDuration,
    /// Stored bytes of the rotation that are read at most.
    pub max_bytes: Option<u64>,
    /// Stored bytes read per second at most.
    pub rate_max_bytes: Option<u64>,
    /// Objects that are read and proven at once.
    pub workers: NonZeroUsize,
}

/// What is known before anything is read.
struct Scene {
    begun: Timestamp,
    objects: Objects,
    odd: Vec<survey::Odd>,
    inventory: Inventory,
    known: Known,
    needed: Needed,
}

/// What was chosen to be read.
struct Chosen {
    names: BTreeSet<Box<str>>,
    candidates: u64,
    counts: [u64; 3],
    postponed: Postponed,
}

/// Verifies a repository. `cancel` ends it soon: what was proven by then is in the ledger, and
/// the report says that it is incomplete.
pub async fn run(
    repository: &Repository,
    options: &VerifyOptions,
    clock: &Clock,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<VerifyReport, VerifyError> {
    progress.say("listing");
    let mut scene = tokio::select! {
        scene = look(repository, options, clock) => scene?,
        () = cancel.cancelled() => return Err(VerifyError::Interrupted),
    };
    let presence = scene.presence();
    let (found, holes) = (presence.findings(), presence.holes());
    let kept: Vec<&CatalogEntry> = presence.kept_backups().collect();
    let Confirmed { found, holes, unread } =
        confirm(repository.store(), found, holes, repository.segment_size()).await;
    let (chosen, jobs) = scene.choose(options, &kept)?;
    let bytes =
        chosen.names.iter().filter_map(|name| scene.objects.get(name)).map(|object| object.bytes).sum();
    progress.expect(bytes);
    progress.say(&format!("reading {} objects, {} MiB", chosen.names.len(), bytes >> 20));
    let rate = RateLimit::new(options.rate_max_bytes);
    let lanes = Lanes::start(repository, options.depth, jobs, options.workers, rate, progress.clone());
    let lines = tokio::spawn(progress.clone().print_lines());
    let mut tonight = Tonight::listen(lanes, &mut scene.objects, options.depth, cancel).await;
    lines.abort();
    progress.finish();
    tonight.account_for(chosen.names.iter().cloned());
    tonight.unread.extend(unread);
    tonight.found.extend(found);
    scene.vanished(repository, &mut tonight).await;
    let mut asked = 0;
    if let Some(policy) = options.lock.filter(|_| !tonight.interrupted) {
        progress.say("checking locks");
        let Scene { objects, odd, needed, begun, .. } = &mut scene;
        let locks = locks::check(repository.store(), policy, objects, odd, needed, *begun).await;
        tonight.found.extend(locks.findings);
        tonight.unread.extend(locks.unread.into_iter().map(|(object, problem)| Unread { object, problem }));
        asked = locks.asked;
    }
    let mut findings = scene.findings(&tonight);
    let together = losses::Losses::new(&scene.inventory, &holes).work_out(&mut findings);
    tonight.note_proofs(&mut scene.objects, scene.begun);
    let mut report = scene.report(repository, options, clock, &chosen, &tonight, findings);
    report.lost_targets = together;
    report.locks_asked = asked;
    record(repository, scene, tonight, &mut report).await;
    Ok(report)
}

/// Lists, reads the catalog and the last ledgers, and finds out what is needed.
async fn look(repository: &Repository, options: &VerifyOptions, clock: &Clock) -> Result<Scene, VerifyError> {
    let begun = clock.now();
    let Survey { objects, odd, names, seen } = survey(repository).await?;
    let inventory = inventory::read_listed(repository, names).await?;
    let (objects, known) = ledgers::read(repository, objects).await?;
    let unreadable: Vec<String> = inventory.unreadable.iter().map(|object| object.key.clone()).collect();
    let basis = Basis { holdings: inventory.holdings(), unreadable: &unreadable, seen: &seen };
    let needed = needed(basis, options.policy, begun);
    Ok(Scene { begun, objects, odd, inventory, known, needed })
}

impl Scene {
    fn presence(&self) -> Presence<'_> {
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
    fn choose(
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
        let work = work::Work { objects: &self.objects, inventory: &self.inventory, known: &self.known };
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
    async fn vanished(&self, repository: &Repository, tonight: &mut Tonight) {
        let needed = |name: &&Box<str>| {
            let stored_at = self.objects.get(name).map_or(self.begun, presence::stored_at);
            matches!(self.needed.of(name, stored_at), wald_core::retention::Need::Needed { .. })
        };
        let missing = tonight.vanished.iter().filter(needed).map(|name| Found {
            object: name.to_string(),
            damage: Damage::Missing { needed_by: "the recovery window".to_owned() },
        });
        let size = repository.segment_size();
        let confirmed = confirm(repository.store(), missing.collect(), [], size).await;
        tonight.found.extend(confirmed.found);
        tonight.unread.extend(confirmed.unread);
    }

    /// Tonight's findings, and those of earlier runs that are open still.
    fn findings(&self, tonight: &Tonight) -> Vec<Finding> {
        let looked = |name: &str| match self.objects.get(name) {
            Some(_) => Some(tonight.looked(name).unwrap_or(Depth::Presence)),
            // It is gone: if it is needed, that is a finding of its own.
            None => Some(Depth::Records),
        };
        let earlier = &self.known.findings;
        let mut findings: Vec<Finding> = Vec::new();
        for Found { object, damage } in &tonight.found {
            let same = |known: &&Finding| known.object == *object && is_same_kind(&known.damage, damage);
            let before = earlier.iter().find(same);
            let stored = self.objects.get(object).or_else(|| self.known.gone.get(object.as_str()));
            findings.push(Finding {
                object: object.clone(),
                version: stored.map(|object| object.version.to_string()).filter(|version| version != "null"),
                damage: damage.clone(),
                found_at: before.map_or(self.begun, |before| before.found_at),
                last_good: stored.and_then(wald_core::ledger::Object::last_good),
                lost: Vec::new(),
            });
        }
        for open in still_open(earlier.clone(), looked) {
            let told = findings
                .iter()
                .any(|finding| finding.object == open.object && is_same_kind(&finding.damage, &open.damage));
            if !told {
                findings.push(open);
            }
        }
        leave_out_echoes(&mut findings);
        findings.sort_by(|a, b| a.object.cmp(&b.object));
        findings
    }

    fn report(
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
    fn walks(&self, tonight: &Tonight) -> Vec<WalkEnd> {
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

/// Writes the ledger and decides how the run ended.
async fn record(repository: &Repository, scene: Scene, tonight: Tonight, report: &mut VerifyReport) {
    let kept: BTreeSet<String> = scene
        .inventory
        .catalog
        .iter()
        .flat_map(|entry| backup_objects(entry).map(|(name, _)| name))
        .collect();
    let provable = |name: &str| kept.contains(name) || name.ends_with(".zst") && name.starts_with("wal/");
    let proofs =
        scene.objects.iter().filter(|object| provable(&object.name)).filter_map(|object| object.last_good());
    report.oldest_proof = proofs.min();
    let head = Head {
        format: LEDGER_FORMAT,
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        system_id: repository.system_id(),
        begun: report.begun,
        ended: report.ended,
        depth: report.depth,
        complete: !tonight.interrupted && report.unread.is_empty(),
        read: report.read,
        findings: report.findings.clone(),
        walks: scene.walks(&tonight),
        objects: u64::try_from(scene.objects.len()).unwrap_or(u64::MAX),
    };
    match ledgers::write(repository.store(), head, scene.objects).await {
        Ok(key) => report.ledger = Some(key.to_string()),
        Err(error) => {
            let problem = crate::explain::chain(&error);
            report.unread.push(Unread { object: "the ledger of this run".to_owned(), problem });
        }
    }
    report.verdict = if tonight.interrupted || !report.unread.is_empty() {
        Verdict::Incomplete
    } else if !report.findings.is_empty() {
        Verdict::Findings
    } else {
        Verdict::Clean
    };
}
