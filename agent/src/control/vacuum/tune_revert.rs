//! `wald vacuum tune --revert`: every table gets back what it had.
//!
//! Invariants: what somebody set since is left and said; a table that is gone is said and is no
//! failure; what could not be done stays in the journal for the next time.

use super::tune::{
    COMMAND, TuneError, TuneOptions, locked_options, reset_statement, session_in, set_statement,
};
use super::tune_journal::{Entry, Journal};
use crate::control::audit::{AuditLog, Stage};
use crate::control::claim::Claim;
use crate::control::databases::{self, STATEMENT_TIMEOUT};
use crate::database::{Database, DatabaseError, Right, value};
use crate::explain::chain;
use serde::Serialize;
use wald_core::autovacuum::option;
use wald_core::take_back::{TakeBack, take_back};

const ACTION: &str = "put a table's storage parameters back";

/// How one table fared.
#[derive(Debug, Serialize)]
pub struct Reverted {
    /// Its database.
    pub database: String,
    /// The table, as it is called now.
    pub table: String,
    /// The parameter.
    pub option: String,
    /// What came of it.
    pub outcome: Outcome,
    /// In words.
    pub detail: String,
}

/// What came of taking back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is as it was.
    Restored,
    /// It was so already.
    Unchanged,
    /// Somebody changed it since; it is left as it is.
    LeftAsChanged,
    /// The table or its database is gone.
    Gone,
    /// It could not be done, and stays on record.
    Failed,
}

/// What would be taken back.
pub fn pending(options: &TuneOptions) -> Result<Vec<Entry>, TuneError> {
    Ok(Journal::open(&options.state_dir)?.entries().to_vec())
}

/// Takes back everything in the journal.
pub async fn revert(options: &TuneOptions, audit: &AuditLog) -> Result<Vec<Reverted>, TuneError> {
    let _claim = Claim::take_to_undo(&options.state_dir, "tune")?;
    let mut journal = Journal::open(&options.state_dir)?;
    let session = Database::connect(&options.connection, "vacuum tune", STATEMENT_TIMEOUT).await?;
    if session.facts().in_recovery {
        return Err(TuneError::Standby);
    }
    let present = databases::list(&session, None).await?;
    drop(session);
    let mut held = None;
    let mut done = Vec::new();
    for entry in journal.entries().to_vec() {
        let line = format!("in database {}: {} of {}", entry.database, entry.option, entry.table);
        audit.write(COMMAND, Stage::Intended, &format!("take back {line}"))?;
        let found = if present.iter().any(|database| database.name == entry.database) {
            one(&mut held, &options.connection, &entry).await
        } else {
            Ok((entry.table.clone(), Outcome::Gone, "its database is gone".to_owned()))
        };
        let (table, outcome, detail) =
            found.unwrap_or_else(|error| (entry.table.clone(), Outcome::Failed, chain(&error)));
        let stage = if outcome == Outcome::Failed { Stage::Failed } else { Stage::Reverted };
        audit.write(COMMAND, stage, &format!("{line}: {detail}"))?;
        if outcome != Outcome::Failed {
            journal.forget(&entry)?;
        }
        let (database, option) = (entry.database, entry.option);
        done.push(Reverted { database, table, option, outcome, detail });
    }
    Ok(done)
}

async fn one(
    held: &mut Option<(String, Database)>,
    connection: &str,
    entry: &Entry,
) -> Result<(String, Outcome, String), DatabaseError> {
    let session = session_in(held, connection, &entry.database).await?;
    // By its oid: a table that was renamed is the same, one that took over the name is not.
    let query = "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) AS name, c.relkind = 'm' AS materialized \
                 FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
                 WHERE c.oid = $1 AND c.relkind IN ('r', 'm')";
    let rows = session.query(ACTION, Right::Owner, query, &[&entry.oid]).await?;
    let Some(row) = rows.first() else {
        return Ok((entry.table.clone(), Outcome::Gone, "the table is gone".to_owned()));
    };
    let (table, materialized): (String, bool) =
        (value(row, "name", ACTION)?, value(row, "materialized", ACTION)?);
    session.execute(ACTION, Right::Owner, "BEGIN").await?;
    let done = put_back(session, entry, &table, materialized).await;
    if done.is_err() {
        // The session may be gone, and with it the transaction.
        let _ = session.execute(ACTION, Right::Owner, "ROLLBACK").await;
    }
    let (outcome, detail) = done?;
    Ok((table, outcome, detail))
}

async fn put_back(
    session: &Database,
    entry: &Entry,
    table: &str,
    materialized: bool,
) -> Result<(Outcome, String), DatabaseError> {
    let options = locked_options(session, entry.oid, table, materialized).await?;
    let now = option(&options, &entry.option);
    let (statement, outcome, detail) = match take_back(entry.before.as_deref(), &entry.ours, now) {
        TakeBack::Nothing => (None, Outcome::Unchanged, "it was as before already".to_owned()),
        TakeBack::Set(before) => (
            Some(set_statement(materialized, table, &entry.option, before)),
            Outcome::Restored,
            format!("set to {before} again"),
        ),
        TakeBack::Reset => (
            Some(reset_statement(materialized, table, &entry.option)),
            Outcome::Restored,
            "reset: it was not set before".to_owned(),
        ),
        TakeBack::ChangedSince(now) => {
            let now = now.map_or("reset".to_owned(), |now| format!("set to {now}"));
            let before = entry.before.as_deref().unwrap_or("not set");
            let detail = format!(
                "somebody has it {now} since, wald had set {}: left so (before wald: {before})",
                entry.ours
            );
            (None, Outcome::LeftAsChanged, detail)
        }
    };
    if let Some(statement) = statement {
        session.execute(ACTION, Right::Owner, &statement).await?;
    }
    session.execute(ACTION, Right::Owner, "COMMIT").await?;
    Ok((outcome, detail))
}
