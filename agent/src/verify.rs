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
mod scene;

mod lanes;
mod event;
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
use crate::rate::RateLimit;
use crate::repository::Repository;
use absence::{Confirmed, confirm};
use jiff::SignedDuration;
use lanes::Lanes;
use presence::backup_objects;
use scene::Scene;
use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use survey::{Odd, Survey, survey};
use tokio_util::sync::CancellationToken;
use tonight::Tonight;
use wald_core::backup_id::BackupId;
use wald_core::catalog::CatalogEntry;
use wald_core::ledger::{Depth, Head, LEDGER_FORMAT, Objects, Postponed};
use wald_core::object_lock::LockPolicy;
use wald_core::quantity::Count;
use wald_core::retention::{Basis, Policy, Seen, needed};

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
    tonight.unread.extend(overdue(&chosen.postponed));
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
    let together = losses::Losses::new(&scene.inventory, &holes, &findings).work_out(&mut findings);
    tonight.note_proofs(&mut scene.objects, scene.begun);
    let mut report = scene.report(repository, options, clock, &chosen, &tonight, findings);
    report.lost_targets = together;
    report.locks_asked = asked;
    record(repository, scene, tonight, &mut report).await;
    Ok(report)
}

/// What was due before this run and is not read by it either makes the run incomplete: a limit
/// that is too low must not look like a proof.
fn overdue(postponed: &Postponed) -> Option<Unread> {
    let count = Count(postponed.overdue, "object");
    (postponed.overdue > 0).then(|| Unread {
        object: count.to_string(),
        problem: "not read again within verify.reread_days, and did not fit under verify.max_bytes: raise it"
            .to_owned(),
    })
}

async fn read_listed(repository: &Repository) -> Result<(Objects, Vec<Odd>, Seen, Inventory), VerifyError> {
    let Survey { objects, odd, names, seen } = survey(repository).await?;
    Ok((objects, odd, seen, inventory::read_listed(repository, names).await?))
}

/// Lists, reads the catalog and the last ledgers, and finds out what is needed.
async fn look(repository: &Repository, options: &VerifyOptions, clock: &Clock) -> Result<Scene, VerifyError> {
    let begun = clock.now();
    let listed = inventory::settled(|| read_listed(repository), |(.., inventory)| inventory);
    let (objects, odd, seen, inventory) = listed.await?;
    let (objects, mut known) = ledgers::read(repository, objects, begun).await?;
    let unreadable: Vec<String> = inventory.unreadable.iter().map(|object| object.key.clone()).collect();
    let basis = Basis { holdings: inventory.holdings(), unreadable: &unreadable, seen: &seen };
    let needed = needed(basis, options.policy, begun);
    known.keep_missed(&needed);
    Ok(Scene { begun, objects, odd, inventory, known, needed })
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
    let walks = scene.walks(&tonight);
    let objects = scene.objects.with(scene.known.gone.into_values());
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
        walks,
        objects: u64::try_from(objects.len()).unwrap_or(u64::MAX),
        knew: scene.known.knew.into_iter().collect(),
    };
    match ledgers::write(repository.store(), head, objects).await {
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
