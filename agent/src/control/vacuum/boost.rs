//! `wald vacuum boost`: more memory and a higher cost limit for autovacuum, for a time.
//!
//! Crash consistency: the journal is durable before the first `ALTER SYSTEM`, and holds what the file
//! said before. From any point on, taking back compares each setting with both: what wald never
//! changed or took back already needs nothing, what wald changed goes back, and what somebody changed
//! since is left and said. So it can be repeated until it has succeeded once.

use super::boost_journal::{Boost, BoostJournal, BoostedSetting};
use super::boost_revert::undo;
use super::server_settings::{alter, in_file, in_force, reload, same};
use crate::clock::Clock;
use crate::control::audit::{AuditLog, Stage, who};
use crate::control::claim::{Claim, ClaimError};
use crate::control::databases::STATEMENT_TIMEOUT;
use crate::database::{Database, DatabaseError, Right, value};
use crate::fs::FsError;
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use wald_core::boost::{BoostPlan, BoostRequest, BoostableSettings, plan};

/// What the audit log calls it.
pub(super) const COMMAND: &str = "wald vacuum boost";
pub(super) const APPLICATION: &str = "vacuum boost";
const ACTION: &str = "tell its settings";

/// What a boost needs.
#[derive(Clone, Debug)]
pub struct BoostOptions {
    /// A libpq connection string.
    pub connection: String,
    /// Where the journal is.
    pub state_dir: PathBuf,
}

/// Why there is no boost, or why it is still there.
#[derive(Debug, thiserror::Error)]
pub enum BoostError {
    /// The database.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The state directory.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// The journal or the audit log.
    #[error(transparent)]
    Record(#[from] FsError),
    /// Autovacuum does not run here.
    #[error("this is a standby: its tables are vacuumed by the primary; run this there")]
    Standby,
    /// One at a time.
    #[error("a boost is in force until {until}: --extend --for makes it last longer, --revert ends it")]
    Active {
        /// Its end.
        until: Timestamp,
    },
    /// None at all.
    #[error("no boost is in force")]
    None,
    /// The journal is about another cluster.
    #[error(
        "the boost in {} was of the cluster with system id {expected} and the one that answers is {found}: connect to the \
         former, or remove the file if that cluster is gone", path.display()
    )]
    Another {
        /// The journal.
        path: PathBuf,
        /// Of the journal.
        expected: String,
        /// Of the server.
        found: String,
    },
    /// What was killed in the middle is not over yet.
    #[error("a session that was changing settings is still at it: try again in a moment")]
    Unsettled,
    /// ALTER SYSTEM and reload did nothing.
    #[error(
        "the server does not follow postgresql.auto.conf for {0}: is it on the server's command line, set for this role \
         or database, or is another line of the file in error? (pg_settings and pg_file_settings tell)"
    )]
    Overruled(String),
    /// It could not be put in force.
    #[error("the boost was not put in force, and is taken back")]
    Begin(#[source] Box<BoostError>),
    /// It could not be put in force, and taking back failed too.
    #[error(
        "the boost was not put in force; it could not be taken back yet either ({taking_back}): the agent tries again"
    )]
    Stuck {
        /// Why taking back failed.
        taking_back: String,
        /// Why it was to be taken back.
        #[source]
        source: Box<BoostError>,
    },
}

/// The boost that may be in force.
pub fn active(options: &BoostOptions) -> Result<Option<Boost>, BoostError> {
    Ok(BoostJournal::below(&options.state_dir).read()?)
}

/// What a boost would change.
pub async fn propose(options: &BoostOptions, request: &BoostRequest) -> Result<BoostPlan, BoostError> {
    let session = connect(options).await?;
    Ok(plan(request, &boostable(&session).await?))
}

/// Puts a plan in force for `time`, and takes it back at once if that fails.
pub async fn begin(
    options: &BoostOptions,
    plan: &BoostPlan,
    time: Duration,
    audit: &AuditLog,
    clock: Clock,
) -> Result<Boost, BoostError> {
    let _claim = Claim::take(&options.state_dir, "boost")?;
    let journal = BoostJournal::below(&options.state_dir);
    if let Some(active) = journal.read()? {
        return Err(BoostError::Active { until: active.until });
    }
    let session = connect(options).await?;
    let names: Vec<String> = plan.changes.iter().map(|change| change.name.to_owned()).collect();
    let (file, force) = (in_file(&session, &names).await?, in_force(&session, &names).await?);
    let settings = plan.changes.iter().map(|change| BoostedSetting {
        name: change.name.to_owned(),
        before: file.get(change.name).cloned(),
        ours: change.value.clone(),
        in_force_before: force.get(change.name).copied().unwrap_or(-1.0),
        in_force_ours: change.in_force,
    });
    let since = clock.now();
    let until = since
        .saturating_add(SignedDuration::try_from(time).unwrap_or(SignedDuration::MAX))
        .unwrap_or(Timestamp::MAX);
    let system_id = system_id(&session).await?;
    let boost = Boost { system_id, since, until, by: who(), settings: settings.collect() };
    let words = in_words(&boost);
    audit.write(COMMAND, Stage::Intended, &words)?;
    // Before the first change: whatever happens from here on, this file knows what was before.
    journal.write(&boost)?;
    match put_in_force(&session, &boost, &names).await {
        Ok(()) => {
            audit.write(COMMAND, Stage::Done, &words)?;
            Ok(boost)
        }
        Err(error) => {
            // Nothing may keep what was changed from being taken back, and the journal's end is there for
            // the case that this fails as well: then the agent goes on with it at once.
            let failed = format!("{words}: {}", crate::explain::chain(&error));
            if let Err(error) = audit.write(COMMAND, Stage::Failed, &failed) {
                tracing::error!(error = %crate::explain::chain(&error), "this is missing in the audit log: {failed}");
            }
            if let Err(error) = journal.write(&Boost { until: since, ..boost.clone() }) {
                tracing::error!(error = %crate::explain::chain(&error), "the boost's journal still has its old end");
            }
            let source = Box::new(error);
            Err(match undo(&session, &journal, &boost, audit).await {
                Ok(_) => BoostError::Begin(source),
                Err(error) => BoostError::Stuck { taking_back: crate::explain::chain(&error), source },
            })
        }
    }
}

async fn put_in_force(session: &Database, boost: &Boost, names: &[String]) -> Result<(), BoostError> {
    for setting in &boost.settings {
        alter(session, &setting.name, Some(&setting.ours)).await?;
    }
    let wanted = |force: &BTreeMap<String, f64>, setting: &BoostedSetting| {
        force.get(&setting.name).is_some_and(|value| same(*value, setting.in_force_ours))
    };
    let all = |force: &BTreeMap<String, f64>| boost.settings.iter().all(|setting| wanted(force, setting));
    if reload(session, names, all).await? {
        return Ok(());
    }
    let force = in_force(session, names).await?;
    let overruled = boost.settings.iter().filter(|setting| !wanted(&force, setting));
    Err(BoostError::Overruled(overruled.map(|setting| setting.name.clone()).collect::<Vec<_>>().join(", ")))
}

/// Makes the boost that is in force end `time` from now.
pub fn extend(
    options: &BoostOptions,
    time: Duration,
    audit: &AuditLog,
    clock: Clock,
) -> Result<Boost, BoostError> {
    let _claim = Claim::take(&options.state_dir, "boost")?;
    let journal = BoostJournal::below(&options.state_dir);
    let boost = journal.read()?.ok_or(BoostError::None)?;
    let time = SignedDuration::try_from(time).unwrap_or(SignedDuration::MAX);
    let until = clock.now().saturating_add(time).unwrap_or(Timestamp::MAX);
    audit.write(COMMAND, Stage::Intended, &format!("extend until {until}"))?;
    let boost = Boost { until, ..boost };
    journal.write(&boost)?;
    audit.write(COMMAND, Stage::Done, &format!("extended until {until}"))?;
    Ok(boost)
}

/// The boost in one line.
pub fn in_words(boost: &Boost) -> String {
    let settings: Vec<String> = boost
        .settings
        .iter()
        .map(|s| format!("{} = {} (before: {})", s.name, s.ours, s.before.as_deref().unwrap_or("not set")))
        .collect();
    format!("until {}: {}", boost.until, settings.join(", "))
}

async fn connect(options: &BoostOptions) -> Result<Database, BoostError> {
    let session = Database::connect(&options.connection, APPLICATION, STATEMENT_TIMEOUT).await?;
    if session.facts().in_recovery { Err(BoostError::Standby) } else { Ok(session) }
}

pub(super) async fn system_id(session: &Database) -> Result<String, DatabaseError> {
    let query = "SELECT system_identifier::text AS id FROM pg_catalog.pg_control_system()";
    value(&session.query_one(ACTION, Right::Login, query, &[]).await?, "id", ACTION)
}

async fn boostable(session: &Database) -> Result<BoostableSettings, DatabaseError> {
    let names = [
        "autovacuum_max_workers",
        "autovacuum_worker_slots",
        "maintenance_work_mem",
        "autovacuum_work_mem",
        "autovacuum_vacuum_cost_limit",
        "vacuum_cost_limit",
        "autovacuum_vacuum_cost_delay",
        "vacuum_cost_delay",
    ];
    let force = in_force(session, &names.map(str::to_owned)).await?;
    let get = |name: &str| force.get(name).copied().unwrap_or(-1.0);
    // -1 means "as the other one".
    let or = |name: &str, other: &str| if get(name) < 0.0 { get(other) } else { get(name) };
    let some = |name: &str| Some(get(name)).filter(|value| *value >= 0.0);
    Ok(BoostableSettings {
        version_num: session.facts().version_num,
        workers: whole(get("autovacuum_max_workers")),
        worker_slots: some("autovacuum_worker_slots").map(whole),
        maintenance_memory_kb: u64::from(whole(get("maintenance_work_mem"))),
        autovacuum_memory_kb: some("autovacuum_work_mem").map(|memory| u64::from(whole(memory))),
        cost_limit: whole(or("autovacuum_vacuum_cost_limit", "vacuum_cost_limit")),
        cost_delay_ms: or("autovacuum_vacuum_cost_delay", "vacuum_cost_delay"),
    })
}

/// These settings are integers below 2^31.
fn whole(value: f64) -> u32 {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // In range by the line above.
    let whole = value.clamp(0.0, f64::from(u32::MAX)) as u32;
    whole
}
