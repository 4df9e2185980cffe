//! Ending sessions that sleep in a transaction.
//!
//! Invariants: only sessions of clients are ended, never wald's own and never a superuser's by a role
//! that is none; whether a session still is the one that was agreed to, and still sleeps, is decided
//! in the same statement that ends it.

use super::{IdleInTransaction, Session};
use crate::control::audit::{AuditLog, Stage};
use crate::database::{Database, DatabaseError, Right};
use crate::explain::chain;
use crate::fs::FsError;
use serde::Serialize;
use std::time::{Duration, Instant};

const COMMAND: &str = "wald sessions";
const ACTION: &str = "end a session that sleeps in a transaction";

/// A process id is used again; with the time of its start it is not. The conditions stand before the
/// call: PostgreSQL computes what is selected for the rows that fulfil them only.
const END_QUERY: &str = "\
    SELECT pg_catalog.pg_terminate_backend(a.pid) AS told \
    FROM pg_catalog.pg_stat_activity AS a JOIN pg_catalog.pg_roles AS r ON r.oid = a.usesysid \
    WHERE a.pid = $1 AND (extract(epoch FROM a.backend_start) * 1000000)::int8 = $2 \
      AND a.state IN ('idle in transaction', 'idle in transaction (aborted)') \
      AND extract(epoch FROM pg_catalog.clock_timestamp() - a.state_change)::float8 >= $3 \
      AND a.backend_type = 'client backend' AND a.pid <> pg_catalog.pg_backend_pid() \
      AND a.application_name NOT IN ('pg_dump', 'pg_dumpall') \
      AND a.application_name NOT LIKE 'wald %' AND a.application_name <> current_setting('application_name') \
      AND (NOT r.rolsuper OR current_setting('is_superuser') = 'on')";

const STILL_QUERY: &str = "\
    SELECT 1 FROM pg_catalog.pg_stat_activity \
    WHERE pid = $1 AND (extract(epoch FROM backend_start) * 1000000)::int8 = $2";

/// A session that was told to end rolls back and is gone in milliseconds.
const GONE_WITHIN: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What came of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is gone.
    Ended,
    /// It no longer sleeps, or is another one: left alone.
    LeftAlone,
    /// It was told to, and is still there.
    StillThere,
    /// It could not be told to.
    Failed,
}

/// One session.
#[derive(Debug, Serialize)]
pub struct Ended {
    /// Its process id.
    pub pid: i32,
    /// What came of it.
    pub outcome: Outcome,
    /// In words.
    pub detail: String,
}

/// Those that may be ended.
pub fn candidates(idle: &[IdleInTransaction]) -> Vec<Session> {
    idle.iter().filter(|idle| idle.kept.is_none()).map(|idle| idle.session.clone()).collect()
}

/// Ends each of them that still sleeps in a transaction for at least so long.
pub async fn end(
    database: &Database,
    sessions: &[Session],
    longer_than: Duration,
    audit: &AuditLog,
) -> Result<Vec<Ended>, FsError> {
    let mut done = Vec::new();
    for session in sessions {
        audit.write(COMMAND, Stage::Intended, &format!("end {session}"))?;
        let (outcome, detail) = match one(database, session, longer_than).await {
            Ok(Outcome::Ended) => (Outcome::Ended, "ended, its transaction was rolled back".to_owned()),
            Ok(Outcome::LeftAlone) => {
                (Outcome::LeftAlone, "left alone: it no longer sleeps in that transaction".to_owned())
            }
            Ok(outcome) => (outcome, "was told to end and is still there: look again".to_owned()),
            Err(error) => (Outcome::Failed, chain(&error)),
        };
        let stage =
            if matches!(outcome, Outcome::Ended | Outcome::LeftAlone) { Stage::Done } else { Stage::Failed };
        audit.write(COMMAND, stage, &format!("pid {}: {detail}", session.pid))?;
        done.push(Ended { pid: session.pid, outcome, detail });
    }
    Ok(done)
}

async fn one(
    database: &Database,
    session: &Session,
    longer_than: Duration,
) -> Result<Outcome, DatabaseError> {
    let seconds = longer_than.as_secs_f64();
    let told = database
        .query(ACTION, Right::SignalBackend, END_QUERY, &[&session.pid, &session.started_us, &seconds])
        .await?;
    if told.is_empty() {
        return Ok(Outcome::LeftAlone);
    }
    let since = Instant::now();
    loop {
        let still =
            database.query(ACTION, Right::Monitor, STILL_QUERY, &[&session.pid, &session.started_us]).await?;
        if still.is_empty() {
            return Ok(Outcome::Ended);
        }
        if since.elapsed() > GONE_WITHIN {
            return Ok(Outcome::StillThere);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
