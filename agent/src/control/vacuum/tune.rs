//! `wald vacuum tune`: tables that should have an autovacuum threshold of their own, and giving it
//! to them.
//!
//! Invariants: without `--apply` nothing is changed; each table is changed in a transaction of its
//! own under a lock that is not waited for long, after its journal entry is durable; one table that
//! can't be changed does not stop the others.

use super::settings::{self, Settings};
use super::tables::{self, Table};
use super::tune_journal::{Entry, Journal};
use crate::clock::Clock;
use crate::control::audit::{AuditLog, Stage};
use crate::control::claim::{Claim, ClaimError};
use crate::control::databases::{self, STATEMENT_TIMEOUT, Skipped};
use crate::database::{Database, DatabaseError, Right, value};
use crate::explain::chain;
use crate::fs::FsError;
use serde::Serialize;
use std::path::PathBuf;
use wald_core::autovacuum::{SCALE_FACTOR, TableSettings, option};
use wald_core::tuning::{Proposal, TuneInput, TuneRule};

/// What the audit log calls it.
pub const COMMAND: &str = "wald vacuum tune";
const APPLICATION: &str = "vacuum tune";
const ACTION: &str = "change a table's storage parameters";

/// What tuning needs.
#[derive(Clone, Debug)]
pub struct TuneOptions {
    /// A libpq connection string.
    pub connection: String,
    /// Where the journal is.
    pub state_dir: PathBuf,
    /// Only this database.
    pub database: Option<String>,
    /// The rule.
    pub rule: TuneRule,
}

/// Why tuning as a whole failed.
#[derive(Debug, thiserror::Error)]
pub enum TuneError {
    /// The database.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The state directory.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// The journal or the audit log.
    #[error("nothing is changed that can't be put on record first")]
    Record(#[from] FsError),
    /// A standby takes its tables from the primary.
    #[error("this is a standby: storage parameters come from its primary; run this there")]
    Standby,
}

/// The proposals.
#[derive(Debug, Serialize)]
pub struct Plan {
    /// What "large" and "hot" mean here.
    pub rule: TuneRule,
    /// The tables.
    pub candidates: Vec<Candidate>,
    /// Databases that were not looked into.
    pub skipped: Vec<Skipped>,
}

/// A table that should be changed.
#[derive(Debug, Serialize)]
pub struct Candidate {
    /// Its database.
    pub database: String,
    /// Its oid.
    #[serde(skip)]
    pub oid: u32,
    /// Whether it is a materialized view.
    #[serde(skip)]
    pub materialized: bool,
    /// Schema and name, quoted as in SQL.
    pub table: String,
    /// What the rule looked at.
    pub input: TuneInput,
    /// What it says.
    pub proposal: Proposal,
    /// The same as SQL.
    pub statement: String,
}

/// How one table fared.
#[derive(Debug, Serialize)]
pub struct Applied {
    /// Its database.
    pub database: String,
    /// The table.
    pub table: String,
    /// Why it was not changed, if so.
    pub error: Option<String>,
}

/// Looks at all tables.
pub async fn propose(options: &TuneOptions) -> Result<Plan, TuneError> {
    let session = Database::connect(&options.connection, APPLICATION, STATEMENT_TIMEOUT).await?;
    session.demand("see the statistics of all tables", Right::Monitor).await?;
    if session.facts().in_recovery {
        return Err(TuneError::Standby);
    }
    let settings = settings::read(&session).await?;
    let entries = databases::list(&session, options.database.as_deref()).await?;
    drop(session);
    let (mut candidates, mut skipped) = (Vec::new(), Vec::new());
    for entry in entries.iter().filter(|entry| !entry.is_closed_template()) {
        let looked = async {
            let session = entry.open(&options.connection, APPLICATION).await?;
            tables::read(&session).await.map_err(|error| entry.failed(&error))
        };
        match looked.await {
            Ok(tables) => {
                let found =
                    tables.iter().filter_map(|table| candidate(&entry.name, table, &settings, &options.rule));
                candidates.extend(found);
            }
            Err(missed) => skipped.push(missed),
        }
    }
    candidates.sort_by(|a, b| b.proposal.dead_rows_now.total_cmp(&a.proposal.dead_rows_now));
    Ok(Plan { rule: options.rule, candidates, skipped })
}

fn candidate(database: &str, table: &Table, settings: &Settings, rule: &TuneRule) -> Option<Candidate> {
    let own = TableSettings::new(settings.server, &table.options);
    // PostgreSQL's own tables take no storage parameters, and a threshold means nothing where
    // autovacuum does not come.
    if table.system || table.temporary || !own.effective().enabled {
        return None;
    }
    let input = TuneInput {
        rows: table.rows,
        bytes: table.pages.saturating_mul(settings.page_size),
        changed_rows: table.changed_rows,
        scale_factor: own.effective().vacuum_scale_factor,
    };
    let proposal = rule.propose(&input)?;
    let value = proposal.scale_factor.to_string();
    let statement = set_statement(table.materialized, &table.name, SCALE_FACTOR, &value);
    let (database, table_name) = (database.to_owned(), table.name.clone());
    let (oid, materialized) = (table.oid, table.materialized);
    Some(Candidate { database, oid, materialized, table: table_name, input, proposal, statement })
}

/// The statement that sets a storage parameter.
pub(super) fn set_statement(materialized: bool, table: &str, option: &str, value: &str) -> String {
    let value = crate::database::quote_literal(value);
    format!("ALTER {} {table} SET ({option} = {value});", kind(materialized))
}

/// The statement that makes the server's setting count again.
pub(super) fn reset_statement(materialized: bool, table: &str, option: &str) -> String {
    format!("ALTER {} {table} RESET ({option});", kind(materialized))
}

fn kind(materialized: bool) -> &'static str {
    if materialized { "MATERIALIZED VIEW" } else { "TABLE" }
}

/// Changes the tables of a plan.
pub async fn apply(
    options: &TuneOptions,
    plan: &Plan,
    audit: &AuditLog,
    clock: Clock,
) -> Result<Vec<Applied>, TuneError> {
    let _claim = Claim::take(&options.state_dir, "tune")?;
    let mut journal = Journal::open(&options.state_dir)?;
    let mut done = Vec::new();
    let mut session: Option<(String, Database)> = None;
    for candidate in &plan.candidates {
        let line = format!("in database {}: {}", candidate.database, candidate.statement);
        audit.write(COMMAND, Stage::Intended, &line)?;
        let changed = async {
            let session = session_in(&mut session, &options.connection, &candidate.database).await?;
            change(session, candidate, &mut journal, clock).await
        };
        let error = match changed.await {
            Ok(()) => {
                audit.write(COMMAND, Stage::Done, &line)?;
                None
            }
            // What can't be recorded must not be done, for this table or any other.
            Err(TuneError::Record(error)) => return Err(TuneError::Record(error)),
            Err(error) => {
                let why = chain(&error);
                audit.write(COMMAND, Stage::Failed, &format!("{line} {why}"))?;
                Some(why)
            }
        };
        done.push(Applied { database: candidate.database.clone(), table: candidate.table.clone(), error });
    }
    Ok(done)
}

/// The session in a database; the one before it ends first.
pub(super) async fn session_in<'s>(
    held: &'s mut Option<(String, Database)>,
    connection: &str,
    database: &str,
) -> Result<&'s Database, DatabaseError> {
    let current =
        held.as_ref().is_some_and(|(name, session)| name == database && !session.lost().is_cancelled());
    if !current {
        *held = None;
        let session =
            Database::connect_to(connection, Some(database), APPLICATION, STATEMENT_TIMEOUT).await?;
        *held = Some((database.to_owned(), session));
    }
    match held {
        Some((_, session)) => Ok(session),
        None => Err(DatabaseError::Answer { action: ACTION, found: "no session".to_owned() }),
    }
}

async fn change(
    session: &Database,
    candidate: &Candidate,
    journal: &mut Journal,
    clock: Clock,
) -> Result<(), TuneError> {
    let ours = candidate.proposal.scale_factor.to_string();
    session.execute(ACTION, Right::Owner, "BEGIN").await?;
    let changed = async {
        let options =
            locked_options(session, candidate.oid, &candidate.table, candidate.materialized).await?;
        let entry = Entry {
            database: candidate.database.clone(),
            oid: candidate.oid,
            table: candidate.table.clone(),
            option: SCALE_FACTOR.to_owned(),
            before: option(&options, SCALE_FACTOR).map(str::to_owned),
            ours,
            at: clock.now(),
        };
        // On record before the change: a crash after the commit must find it there.
        let known = journal.entries().to_vec();
        journal.record(entry)?;
        let done = session.execute(ACTION, Right::Owner, &candidate.statement).await;
        let committed = match done {
            Ok(()) => session.execute(ACTION, Right::Owner, "COMMIT").await,
            Err(error) => Err(error),
        };
        if let Err(error) = committed {
            // A commit whose answer was lost may have been done: only then the entry must stay, and
            // taking back finds out.
            if !session.lost().is_cancelled() {
                journal.restore(known)?;
            }
            return Err(error.into());
        }
        Ok(())
    };
    let changed: Result<(), TuneError> = changed.await;
    if changed.is_err() {
        // The session may be gone, and with it the transaction.
        let _ = session.execute(ACTION, Right::Owner, "ROLLBACK").await;
    }
    changed
}

/// `reloptions` of a table under the lock that changing them takes, so that nobody changes them
/// between the look and the change. In a transaction.
pub(super) async fn locked_options(
    session: &Database,
    oid: u32,
    table: &str,
    materialized: bool,
) -> Result<Vec<String>, DatabaseError> {
    // LOCK TABLE does not take materialized views; the look alone must do there.
    if !materialized {
        let lock = format!("LOCK TABLE ONLY {table} IN SHARE UPDATE EXCLUSIVE MODE");
        session.execute(ACTION, Right::Owner, &lock).await?;
    }
    let query = "SELECT coalesce(reloptions, '{}') AS options FROM pg_catalog.pg_class WHERE oid = $1";
    let row = session.query_one(ACTION, Right::Owner, query, &[&oid]).await?;
    value(&row, "options", ACTION)
}
