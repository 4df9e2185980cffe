//! `wald sessions`: what all sessions are doing, who blocks whom, who sleeps in a transaction, and
//! what keeps vacuum from removing dead rows.
//!
//! Invariant: nothing is changed here; ending sessions is in [`end`].

pub mod horizon;
pub mod end;
mod print;

use crate::control::databases::STATEMENT_TIMEOUT;
use crate::database::{Database, DatabaseError, Right, value};
use horizon::{Holder, Prepared};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio_postgres::Row;
use wald_core::blockers::{Blocker, PREPARED, forest};

/// As in the session's name, `wald sessions`.
pub const COMMAND: &str = "sessions";
const ACTION: &str = "show its sessions";

/// `pg_blocking_pids` stops the lock manager for a moment: it is only asked about those that wait for a
/// lock. Which sessions are wald's own is told by their names: `wald …`, or the one that the connection
/// string gives.
const SESSIONS_QUERY: &str = "\
    SELECT a.pid, a.backend_type, coalesce(a.usename::text, '') AS role, coalesce(a.datname::text, '') AS database, \
           coalesce(a.application_name, '') AS application, coalesce(a.client_addr::text, '') AS address, \
           coalesce(a.state, '') AS state, coalesce(a.wait_event_type, '') AS wait_type, \
           coalesce(a.wait_event, '') AS wait, \
           (extract(epoch FROM a.backend_start) * 1000000)::int8 AS started_us, \
           extract(epoch FROM pg_catalog.clock_timestamp() - a.xact_start)::float8 AS transaction_s, \
           extract(epoch FROM pg_catalog.clock_timestamp() - a.state_change)::float8 AS state_s, \
           pg_catalog.age(a.backend_xmin)::int8 AS xmin_age, \
           coalesce(pg_catalog.left(a.query, 200), '') AS query, \
           CASE WHEN a.wait_event_type = 'Lock' THEN pg_catalog.pg_blocking_pids(a.pid) ELSE '{}' END AS blocked_by, \
           a.application_name LIKE 'wald %' OR a.application_name = current_setting('application_name') AS own, \
           coalesce(r.rolsuper, false) AND current_setting('is_superuser') <> 'on' AS beyond \
    FROM pg_catalog.pg_stat_activity AS a LEFT JOIN pg_catalog.pg_roles AS r ON r.oid = a.usesysid \
    WHERE a.pid <> pg_catalog.pg_backend_pid() ORDER BY a.pid";

/// One process of the server.
#[derive(Clone, Debug, Serialize)]
pub struct Session {
    /// Its process id.
    pub pid: i32,
    /// `client backend`, `walsender`, `autovacuum worker`, …
    pub backend_type: String,
    /// Its role.
    pub role: String,
    /// Its database.
    pub database: String,
    /// `application_name`
    pub application: String,
    /// Where its client is; empty for a Unix socket.
    pub address: String,
    /// `active`, `idle`, `idle in transaction`, …
    pub state: String,
    /// What kind of thing it waits for; empty where it does not.
    pub wait_type: String,
    /// What it waits for.
    pub wait: String,
    /// When it began, in microseconds since 1970: with the pid its identity.
    pub started_us: i64,
    /// How long its transaction is open, in seconds.
    pub transaction_s: Option<f64>,
    /// How long it has been in its state, in seconds.
    pub state_s: Option<f64>,
    /// How old its snapshot is, in transaction ids.
    pub xmin_age: Option<i64>,
    /// The beginning of its last statement.
    pub query: String,
    /// Those that it waits for.
    pub blocked_by: Vec<i32>,
    /// Whether it is wald's.
    pub own: bool,
    /// Whether it is a superuser's and wald's role is none.
    pub beyond: bool,
}

/// How many do the same.
#[derive(Debug, Serialize)]
pub struct Kind {
    /// Their state, or the backend type of what is no client's.
    pub state: String,
    /// What kind of thing they wait for.
    pub wait_type: String,
    /// What they wait for.
    pub wait: String,
    /// How many.
    pub sessions: usize,
}

/// A blocker with what is known of it.
#[derive(Debug, Serialize)]
pub struct BlockerNode {
    /// Its process id; 0 is a prepared transaction.
    pub pid: i32,
    /// The session, unless it ended meanwhile or is a prepared transaction.
    pub session: Option<Session>,
    /// Others that it waits for beside the one that it stands under.
    pub also_waits_for: Vec<i32>,
    /// Those that wait for it are shown elsewhere.
    pub shown_elsewhere: bool,
    /// Those that wait for it.
    pub waiting: Vec<BlockerNode>,
}

/// A session that sleeps in a transaction.
#[derive(Debug, Serialize)]
pub struct IdleInTransaction {
    /// The session.
    pub session: Session,
    /// Why it would not be ended.
    pub kept: Option<&'static str>,
}

/// All of it.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Sessions by state and wait, the most frequent first.
    pub kinds: Vec<Kind>,
    /// Who blocks whom.
    pub blockers: Vec<BlockerNode>,
    /// Those that have slept in a transaction for longer than was asked for.
    pub idle_in_transaction: Vec<IdleInTransaction>,
    /// For how long, in seconds.
    pub idle_longer_than_s: f64,
    /// Prepared transactions.
    pub prepared: Vec<Prepared>,
    /// The oldest horizons, the oldest first.
    pub horizon_holders: Vec<Holder>,
}

/// A session that may look at all others.
pub async fn connect(connection: &str) -> Result<Database, DatabaseError> {
    let session = Database::connect(connection, COMMAND, STATEMENT_TIMEOUT).await?;
    session.demand("see what other roles' sessions are doing", Right::Monitor).await?;
    Ok(session)
}

/// Looks at all sessions.
pub async fn collect(database: &Database, idle_longer_than: Duration) -> Result<Report, DatabaseError> {
    let rows = database.query(ACTION, Right::Monitor, SESSIONS_QUERY, &[]).await?;
    let sessions: Vec<Session> = rows.iter().map(session).collect::<Result<_, _>>()?;
    let prepared = horizon::prepared(database).await?;
    let holders = horizon::holders(database, &sessions, &prepared).await?;
    let idle_longer_than_s = idle_longer_than.as_secs_f64();
    let idle = sessions.iter().filter(|session| session.slept_in_transaction_s() >= Some(idle_longer_than_s));
    let mut idle_in_transaction: Vec<IdleInTransaction> =
        idle.map(|session| IdleInTransaction { kept: session.kept(), session: session.clone() }).collect();
    idle_in_transaction
        .sort_by(|a, b| b.session.state_s.unwrap_or(0.0).total_cmp(&a.session.state_s.unwrap_or(0.0)));
    Ok(Report {
        kinds: kinds(&sessions),
        blockers: blockers(&sessions),
        idle_in_transaction,
        idle_longer_than_s,
        prepared,
        horizon_holders: holders,
    })
}

fn session(row: &Row) -> Result<Session, DatabaseError> {
    Ok(Session {
        pid: value(row, "pid", ACTION)?,
        backend_type: value(row, "backend_type", ACTION)?,
        role: value(row, "role", ACTION)?,
        database: value(row, "database", ACTION)?,
        application: value(row, "application", ACTION)?,
        address: value(row, "address", ACTION)?,
        state: value(row, "state", ACTION)?,
        wait_type: value(row, "wait_type", ACTION)?,
        wait: value(row, "wait", ACTION)?,
        started_us: value(row, "started_us", ACTION)?,
        transaction_s: value(row, "transaction_s", ACTION)?,
        state_s: value(row, "state_s", ACTION)?,
        xmin_age: value(row, "xmin_age", ACTION)?,
        query: value(row, "query", ACTION)?,
        blocked_by: value(row, "blocked_by", ACTION)?,
        own: value::<Option<bool>>(row, "own", ACTION)?.unwrap_or(false),
        beyond: value(row, "beyond", ACTION)?,
    })
}

impl Session {
    fn is_client(&self) -> bool {
        self.backend_type == "client backend"
    }

    /// How long it has slept in a transaction, in seconds.
    fn slept_in_transaction_s(&self) -> Option<f64> {
        (self.is_client() && self.state.starts_with("idle in transaction")).then_some(self.state_s).flatten()
    }

    /// Why it is not ended, whoever asks.
    fn kept(&self) -> Option<&'static str> {
        match (self.own, self.beyond) {
            (true, _) => Some("it is wald's own"),
            (false, true) => Some("it is a superuser's, and only a superuser may end it"),
            (false, false) if matches!(self.application.as_str(), "pg_dump" | "pg_dumpall") => {
                // The leader of a parallel dump sleeps in its transaction until all of it is done.
                Some("it is a dump's, which holds its snapshot by it")
            }
            (false, false) => None,
        }
    }
}

fn kinds(sessions: &[Session]) -> Vec<Kind> {
    let mut counts: BTreeMap<(&str, &str, &str), usize> = BTreeMap::new();
    for session in sessions {
        let state = if session.is_client() { &session.state } else { &session.backend_type };
        *counts.entry((state, &session.wait_type, &session.wait)).or_default() += 1;
    }
    let mut kinds: Vec<Kind> = counts
        .into_iter()
        .map(|((state, wait_type, wait), sessions)| Kind {
            state: state.to_owned(),
            wait_type: wait_type.to_owned(),
            wait: wait.to_owned(),
            sessions,
        })
        .collect();
    kinds.sort_by_key(|kind| std::cmp::Reverse(kind.sessions));
    kinds
}

fn blockers(sessions: &[Session]) -> Vec<BlockerNode> {
    let waits: BTreeMap<i32, Vec<i32>> = sessions
        .iter()
        .filter(|session| !session.blocked_by.is_empty())
        .map(|session| (session.pid, session.blocked_by.clone()))
        .collect();
    let by_pid: BTreeMap<i32, &Session> = sessions.iter().map(|session| (session.pid, session)).collect();
    forest(&waits).into_iter().map(|blocker| node(blocker, &by_pid)).collect()
}

fn node(blocker: Blocker, by_pid: &BTreeMap<i32, &Session>) -> BlockerNode {
    let session = by_pid.get(&blocker.pid).filter(|_| blocker.pid != PREPARED);
    BlockerNode {
        pid: blocker.pid,
        session: session.map(|session| (*session).clone()),
        also_waits_for: blocker.also_waits_for,
        shown_elsewhere: blocker.shown_elsewhere,
        waiting: blocker.waiting.into_iter().map(|below| node(below, by_pid)).collect(),
    }
}
