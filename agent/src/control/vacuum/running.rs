//! Vacuums that run now, by hand or by autovacuum.

use crate::database::{Database, DatabaseError, Right, value};
use serde::Serialize;

const ACTION: &str = "tell which vacuums are running";

/// `pg_stat_progress_vacuum` knows a table by its oid; the name is only known in its database.
const RUNNING_QUERY: &str = "\
    SELECT p.pid, p.datname::text AS database, p.relid, p.phase, p.heap_blks_total, p.heap_blks_scanned, \
           p.heap_blks_vacuumed, p.index_vacuum_count, a.query, \
           coalesce(extract(epoch FROM pg_catalog.clock_timestamp() - a.xact_start), 0)::float8 AS seconds \
    FROM pg_catalog.pg_stat_progress_vacuum AS p \
         LEFT JOIN pg_catalog.pg_stat_activity AS a ON a.pid = p.pid ORDER BY p.pid";

/// A vacuum that runs.
#[derive(Debug, Serialize)]
pub struct Running {
    /// Its process.
    pub pid: i32,
    /// Where.
    pub database: String,
    /// Its table.
    #[serde(skip)]
    pub oid: u32,
    /// The same by name, once its database was looked at.
    pub table: Option<String>,
    /// As PostgreSQL calls it.
    pub phase: String,
    /// Pages of the table.
    pub pages: i64,
    /// Pages scanned.
    pub pages_scanned: i64,
    /// Pages vacuumed.
    pub pages_vacuumed: i64,
    /// Passes over the indexes; more than one means that the memory for dead rows was too small.
    pub index_passes: i64,
    /// Whether it prevents a wraparound, and so can't be cancelled by a lock.
    pub for_wraparound: bool,
    /// Since when, in seconds.
    pub seconds: f64,
}

/// All of them.
pub async fn read(session: &Database) -> Result<Vec<Running>, DatabaseError> {
    let rows = session.query(ACTION, Right::Monitor, RUNNING_QUERY, &[]).await?;
    rows.iter()
        .map(|row| {
            let query: Option<String> = value(row, "query", ACTION)?;
            Ok(Running {
                pid: value(row, "pid", ACTION)?,
                database: value(row, "database", ACTION)?,
                oid: value(row, "relid", ACTION)?,
                table: None,
                phase: value(row, "phase", ACTION)?,
                pages: value(row, "heap_blks_total", ACTION)?,
                pages_scanned: value(row, "heap_blks_scanned", ACTION)?,
                pages_vacuumed: value(row, "heap_blks_vacuumed", ACTION)?,
                index_passes: value(row, "index_vacuum_count", ACTION)?,
                // So autovacuum calls it in its activity.
                for_wraparound: query.is_some_and(|query| query.contains("(to prevent wraparound)")),
                seconds: value(row, "seconds", ACTION)?,
            })
        })
        .collect()
}
