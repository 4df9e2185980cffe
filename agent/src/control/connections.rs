//! `wald connections`: how many connections there are, whose, and how many more may come.
//!
//! Invariant: only connections of clients count, as they do for PostgreSQL: its own processes and
//! WAL senders have places of their own.

pub mod pgbouncer;
mod print;

use crate::control::databases::STATEMENT_TIMEOUT;
use crate::database::{Database, DatabaseError, Right, value};
use pgbouncer::Console;
use serde::Serialize;
use std::collections::BTreeMap;
use wald_core::connection_policy::{Group, Limit, LimitState, Usage, judge};

const COMMAND: &str = "connections";
const ACTION: &str = "count its connections";

const GROUPS_QUERY: &str = "\
    SELECT coalesce(usename::text, '') AS role, coalesce(application_name, '') AS application, \
           coalesce(datname::text, '') AS database, pg_catalog.count(*) AS connections, \
           pg_catalog.count(*) FILTER (WHERE state = 'active') AS active \
    FROM pg_catalog.pg_stat_activity WHERE backend_type = 'client backend' \
    GROUP BY 1, 2, 3 ORDER BY 4 DESC, 1, 2, 3";

/// `reserved_connections` exists since PostgreSQL 16.
const SETTINGS_QUERY: &str = "\
    SELECT name, setting::int8 AS setting FROM pg_catalog.pg_settings \
    WHERE name IN ('max_connections', 'superuser_reserved_connections', 'reserved_connections')";

/// What is looked at.
#[derive(Clone, Debug)]
pub struct ConnectionOptions {
    /// A libpq connection string.
    pub connection: String,
    /// So many of clients in all.
    pub max_total: u32,
    /// From so many percent of a limit on it is near.
    pub warning_percent: u32,
    /// The policy.
    pub limits: Vec<Limit>,
    /// PgBouncer's admin console.
    pub pgbouncer: Option<String>,
}

/// All of it.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Whether the server is a standby.
    pub standby: bool,
    /// `max_connections`
    pub max_connections: u32,
    /// Kept for superusers and, since PostgreSQL 16, for `pg_use_reserved_connections`.
    pub reserved: u32,
    /// Connections of clients, this one included.
    pub used: u32,
    /// How many more ordinary roles can have.
    pub headroom: u32,
    /// The verdict about `max_connections` without what is reserved.
    pub server_state: LimitState,
    /// `[connections] max_total`
    pub max_total: u32,
    /// The verdict about that.
    pub total_state: LimitState,
    /// The policy's limits.
    pub limits: Vec<Usage>,
    /// Who has how many, the most first.
    pub groups: Vec<Group>,
    /// PgBouncer's own words, where it is configured.
    pub pgbouncer: Option<Console>,
    /// Why there are none.
    pub pgbouncer_error: Option<String>,
}

/// Counts, and asks PgBouncer.
pub async fn collect(options: &ConnectionOptions) -> Result<Report, DatabaseError> {
    let session = Database::connect(&options.connection, COMMAND, STATEMENT_TIMEOUT).await?;
    session.demand("see whose sessions are connected", Right::Monitor).await?;
    let rows = session.query(ACTION, Right::Login, SETTINGS_QUERY, &[]).await?;
    let mut settings: BTreeMap<String, u32> = BTreeMap::new();
    for row in &rows {
        let setting: i64 = value(row, "setting", ACTION)?;
        settings.insert(value(row, "name", ACTION)?, u32::try_from(setting).unwrap_or(0));
    }
    let setting = |name: &str| settings.get(name).copied().unwrap_or(0);
    let rows = session.query(ACTION, Right::Monitor, GROUPS_QUERY, &[]).await?;
    let mut groups = Vec::new();
    for row in &rows {
        let count = |column| value::<i64>(row, column, ACTION).map(|n| u32::try_from(n).unwrap_or(u32::MAX));
        groups.push(Group {
            role: value(row, "role", ACTION)?,
            application: value(row, "application", ACTION)?,
            database: value(row, "database", ACTION)?,
            connections: count("connections")?,
            active: count("active")?,
        });
    }
    let standby = session.facts().in_recovery;
    drop(session);
    let used = groups.iter().map(|group| group.connections).sum();
    let max_connections = setting("max_connections");
    let reserved = setting("superuser_reserved_connections") + setting("reserved_connections");
    let ordinary = max_connections.saturating_sub(reserved);
    let (pgbouncer, pgbouncer_error) = match &options.pgbouncer {
        None => (None, None),
        Some(connection) => match pgbouncer::ask(connection).await {
            Ok(console) => (Some(console), None),
            Err(error) => (None, Some(crate::explain::chain(&error))),
        },
    };
    let near = options.warning_percent;
    Ok(Report {
        standby,
        max_connections,
        reserved,
        used,
        headroom: ordinary.saturating_sub(used),
        server_state: judge(used, ordinary, near),
        max_total: options.max_total,
        total_state: judge(used, options.max_total, near),
        limits: options.limits.iter().map(|limit| limit.usage(&groups, standby, near)).collect(),
        groups,
        pgbouncer,
        pgbouncer_error,
    })
}

impl Report {
    /// Whether a limit is passed.
    pub fn is_passed(&self) -> bool {
        let states = [self.server_state, self.total_state];
        let mut states = states.into_iter().chain(self.limits.iter().map(|limit| limit.state));
        states.any(|state| state == LimitState::Passed)
    }
}
