//! `wald indexes`: invalid, duplicate, unused and missing indexes of every database, with the
//! statements that mend them.
//!
//! Invariant: nothing is changed; a person runs the statements.

mod print;

use crate::clock::Clock;
use crate::control::databases::{self, DatabaseEntry, STATEMENT_TIMEOUT, Skipped};
use crate::database::{Database, DatabaseError, Right, value};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use tokio_postgres::Row;
use wald_core::index_review::{
    Duplicate, ForeignKey, Index, Invalid, Missing, StatisticsAge, Unused, duplicates, invalid, missing,
    unused,
};

const COMMAND: &str = "indexes";
const ACTION: &str = "describe its indexes";
const KEYS_ACTION: &str = "describe its foreign keys";
const SINCE_ACTION: &str = "tell since when it counts";

/// Sizes are of the last vacuum or analyze, because asking for them takes locks. `being_built` is told of
/// a table's indexes together: REINDEX CONCURRENTLY names only one of those that it is at.
/// `{NULLS}` is a column since PostgreSQL 15.
const INDEXES_QUERY: &str = "\
    SELECT i.indexrelid AS oid, i.indrelid AS table_oid, \
           pg_catalog.format('%I.%I', n.nspname, c.relname) AS name, \
           pg_catalog.format('%I.%I', tn.nspname, t.relname) AS table_name, \
           pg_catalog.concat_ws(E'\\n', am.amname, i.indnkeyatts, i.indkey, i.indclass, i.indcollation, i.indoption, \
               coalesce(pg_catalog.pg_get_expr(i.indexprs, i.indrelid), ''), \
               coalesce(pg_catalog.pg_get_expr(i.indpred, i.indrelid), ''), \
               (SELECT pg_catalog.string_agg(coalesce(a.attoptions::text, ''), ',' ORDER BY a.attnum) \
                FROM pg_catalog.pg_attribute AS a WHERE a.attrelid = i.indexrelid)) AS sameness, \
           ARRAY(SELECT k.number FROM pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY AS k (number, place) \
                 WHERE k.place <= i.indnkeyatts ORDER BY k.place) AS columns, \
           am.amname::text AS method, i.indpred IS NOT NULL AS partial, i.indexprs IS NOT NULL AS expressions, \
           i.indisunique AS is_unique, i.indimmediate AS immediate, {NULLS} AS nulls_not_distinct, \
           EXISTS (SELECT FROM pg_catalog.pg_constraint AS con WHERE con.conindid = i.indexrelid) AS is_constraint, \
           i.indisreplident AS replica_identity, c.relispartition AS attached, \
           i.indisvalid AND i.indisready AS valid, \
           EXISTS (SELECT FROM pg_catalog.pg_stat_progress_create_index AS p WHERE p.relid = i.indrelid \
                   AND p.datname = pg_catalog.current_database()) AS being_built, \
           c.relpages::int8 * current_setting('block_size')::int8 AS bytes, \
           coalesce(pg_catalog.pg_stat_get_numscans(i.indexrelid), 0) AS scans \
    FROM pg_catalog.pg_index AS i \
         JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid \
         JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
         JOIN pg_catalog.pg_am AS am ON am.oid = c.relam \
         JOIN pg_catalog.pg_class AS t ON t.oid = i.indrelid \
         JOIN pg_catalog.pg_namespace AS tn ON tn.oid = t.relnamespace \
    WHERE c.relkind = 'i' AND t.relkind IN ('r', 'm') AND t.relpersistence <> 't' \
      AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') \
    ORDER BY i.indexrelid";

/// A partitioned table's keys are its partitions' too: those are the ones that can get an index
/// without a lock.
const KEYS_QUERY: &str = "\
    SELECT pg_catalog.quote_ident(con.conname) AS name, con.conrelid AS table_oid, \
           pg_catalog.format('%I.%I', n.nspname, c.relname) AS table_name, \
           pg_catalog.format('%I.%I', rn.nspname, r.relname) AS referenced, con.conkey AS columns, \
           ARRAY(SELECT pg_catalog.quote_ident(a.attname) \
                 FROM pg_catalog.unnest(con.conkey) WITH ORDINALITY AS k (number, place) \
                      JOIN pg_catalog.pg_attribute AS a ON a.attrelid = con.conrelid AND a.attnum = k.number \
                 ORDER BY k.place) AS column_names, \
           c.relpages::int8 * current_setting('block_size')::int8 AS bytes \
    FROM pg_catalog.pg_constraint AS con \
         JOIN pg_catalog.pg_class AS c ON c.oid = con.conrelid \
         JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
         JOIN pg_catalog.pg_class AS r ON r.oid = con.confrelid \
         JOIN pg_catalog.pg_namespace AS rn ON rn.oid = r.relnamespace \
    WHERE con.contype = 'f' AND c.relkind = 'r' ORDER BY con.oid";

/// A database whose statistics were never reset does not say since when they are; a crash of the server
/// begins all anew, and that the background writer's say.
const SINCE_QUERY: &str = "\
    SELECT (extract(epoch FROM d.stats_reset) * 1000000)::int8 AS database_us, \
           (extract(epoch FROM b.stats_reset) * 1000000)::int8 AS server_us \
    FROM pg_catalog.pg_stat_database AS d, pg_catalog.pg_stat_bgwriter AS b \
    WHERE d.datname = pg_catalog.current_database()";

/// What the review looks at.
#[derive(Clone, Debug)]
pub struct IndexOptions {
    /// A libpq connection string.
    pub connection: String,
    /// Only this database.
    pub database: Option<String>,
    /// Statistics younger than this tell nothing about use.
    pub unused_for: SignedDuration,
}

/// All of it.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Whether the server is a standby.
    pub standby: bool,
    /// Every database.
    pub databases: Vec<DatabaseReport>,
    /// Databases that were not looked into, and why.
    pub skipped: Vec<Skipped>,
}

/// One database.
#[derive(Debug, Serialize)]
pub struct DatabaseReport {
    /// Its name.
    pub name: String,
    /// Since when its statistics have been counted, on this server.
    pub statistics_since: Option<Timestamp>,
    /// The same in days.
    pub statistics_days: Option<f64>,
    /// What a failed CONCURRENTLY left behind.
    pub invalid: Vec<Invalid>,
    /// Indexes of which one would do.
    pub duplicate: Vec<Duplicate>,
    /// Indexes that no query used here.
    pub unused: Vec<Unused>,
    /// Foreign keys without an index.
    pub missing: Vec<Missing>,
}

/// Looks at all databases.
pub async fn collect(options: &IndexOptions, clock: Clock) -> Result<Report, DatabaseError> {
    let session = Database::connect(&options.connection, COMMAND, STATEMENT_TIMEOUT).await?;
    // Without it indexes that are being built would look like broken ones.
    session.demand("see which indexes are being built", Right::Monitor).await?;
    let standby = session.facts().in_recovery;
    let entries = databases::list(&session, options.database.as_deref()).await?;
    drop(session);
    let mut report = Report { standby, databases: Vec::new(), skipped: Vec::new() };
    for entry in entries.iter().filter(|entry| !entry.is_closed_template()) {
        match review(options, entry, clock).await {
            Ok(found) => report.databases.push(found),
            Err(missed) => report.skipped.push(missed),
        }
    }
    Ok(report)
}

async fn review(
    options: &IndexOptions,
    entry: &DatabaseEntry,
    clock: Clock,
) -> Result<DatabaseReport, Skipped> {
    let session = entry.open(&options.connection, COMMAND).await?;
    let failed = |error| entry.failed(&error);
    let nulls = if session.facts().version_num >= 150_000 { "i.indnullsnotdistinct" } else { "false" };
    let query = INDEXES_QUERY.replace("{NULLS}", nulls);
    let rows = session.query(ACTION, Right::Login, &query, &[]).await.map_err(failed)?;
    let indexes: Vec<Index> = rows.iter().map(index).collect::<Result<_, _>>().map_err(failed)?;
    let rows = session.query(KEYS_ACTION, Right::Login, KEYS_QUERY, &[]).await.map_err(failed)?;
    let keys: Vec<ForeignKey> = rows.iter().map(foreign_key).collect::<Result<_, _>>().map_err(failed)?;
    let statistics_since = since(&session).await.map_err(failed)?;
    let age = statistics_since.map(|since| clock.now().duration_since(since));
    let old_enough = if age.is_some_and(|age| age >= options.unused_for) {
        StatisticsAge::Sufficient
    } else {
        StatisticsAge::TooYoung
    };
    let duplicate = duplicates(&indexes);
    // One line for each index: what goes as a duplicate is not told again.
    let goes = |name: &str| {
        let mut superfluous = duplicate.iter().flat_map(|group| &group.superfluous);
        superfluous.any(|other| other.statement.is_some() && other.index == name)
    };
    let mut unused = unused(&indexes, &keys, old_enough);
    unused.retain(|index| !goes(&index.index));
    Ok(DatabaseReport {
        name: entry.name.clone(),
        statistics_since,
        statistics_days: age.map(|age| age.as_secs_f64() / 86_400.0),
        invalid: invalid(&indexes),
        duplicate,
        unused,
        missing: missing(&keys, &indexes),
    })
}

async fn since(session: &Database) -> Result<Option<Timestamp>, DatabaseError> {
    let row = session.query_one(SINCE_ACTION, Right::Login, SINCE_QUERY, &[]).await?;
    let (database, server): (Option<i64>, Option<i64>) =
        (value(&row, "database_us", SINCE_ACTION)?, value(&row, "server_us", SINCE_ACTION)?);
    Ok(database.or(server).and_then(|micros| Timestamp::from_microsecond(micros).ok()))
}

fn index(row: &Row) -> Result<Index, DatabaseError> {
    let bytes: i64 = value(row, "bytes", ACTION)?;
    Ok(Index {
        oid: value(row, "oid", ACTION)?,
        table_oid: value(row, "table_oid", ACTION)?,
        name: value(row, "name", ACTION)?,
        table: value(row, "table_name", ACTION)?,
        sameness: value(row, "sameness", ACTION)?,
        columns: value(row, "columns", ACTION)?,
        method: value(row, "method", ACTION)?,
        partial: value(row, "partial", ACTION)?,
        expressions: value(row, "expressions", ACTION)?,
        unique: value(row, "is_unique", ACTION)?,
        immediate: value(row, "immediate", ACTION)?,
        nulls_not_distinct: value(row, "nulls_not_distinct", ACTION)?,
        constraint: value(row, "is_constraint", ACTION)?,
        replica_identity: value(row, "replica_identity", ACTION)?,
        attached: value(row, "attached", ACTION)?,
        valid: value(row, "valid", ACTION)?,
        being_built: value(row, "being_built", ACTION)?,
        bytes: u64::try_from(bytes).unwrap_or(0),
        scans: value(row, "scans", ACTION)?,
    })
}

fn foreign_key(row: &Row) -> Result<ForeignKey, DatabaseError> {
    let bytes: i64 = value(row, "bytes", KEYS_ACTION)?;
    Ok(ForeignKey {
        name: value(row, "name", KEYS_ACTION)?,
        table_oid: value(row, "table_oid", KEYS_ACTION)?,
        table: value(row, "table_name", KEYS_ACTION)?,
        referenced: value(row, "referenced", KEYS_ACTION)?,
        columns: value(row, "columns", KEYS_ACTION)?,
        column_names: value(row, "column_names", KEYS_ACTION)?,
        table_bytes: u64::try_from(bytes).unwrap_or(0),
    })
}
