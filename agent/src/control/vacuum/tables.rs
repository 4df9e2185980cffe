//! The tables of a database as the catalogs and the statistics have them.

use crate::database::{Database, DatabaseError, Right, value};
use jiff::Timestamp;
use tokio_postgres::Row;

const ACTION: &str = "describe its tables";

/// Ages count the TOAST table with its owner: autovacuum must freeze both. Sizes are of the last
/// vacuum or analyze, because asking for them takes a lock on every table. Temporary tables are
/// included: nobody but their own session can freeze them. Tables of an access method that knows no
/// freezing have no id there.
const TABLES_QUERY: &str = "\
    SELECT c.oid, pg_catalog.format('%I.%I', n.nspname, c.relname) AS name, \
           n.nspname IN ('pg_catalog', 'information_schema') AS system, \
           c.relpersistence = 't' AS temporary, c.relkind = 'm' AS materialized, \
           c.reltuples::float8 AS rows, c.relpages::int8 AS pages, c.relnatts::int4 AS columns, \
           greatest(pg_catalog.age(c.relfrozenxid), pg_catalog.age(t.relfrozenxid))::int8 AS freeze_age, \
           greatest(pg_catalog.mxid_age(c.relminmxid), pg_catalog.mxid_age(t.relminmxid))::int8 AS multixact_age, \
           coalesce(c.reloptions, '{}') AS options, \
           pg_catalog.pg_stat_get_dead_tuples(c.oid) AS dead_rows, \
           pg_catalog.pg_stat_get_ins_since_vacuum(c.oid) AS inserted_rows, \
           pg_catalog.pg_stat_get_tuples_updated(c.oid) + pg_catalog.pg_stat_get_tuples_deleted(c.oid) AS changed_rows, \
           (extract(epoch FROM pg_catalog.pg_stat_get_last_vacuum_time(c.oid)) * 1000000)::int8 AS vacuumed_us, \
           (extract(epoch FROM pg_catalog.pg_stat_get_last_autovacuum_time(c.oid)) * 1000000)::int8 AS autovacuumed_us \
    FROM pg_catalog.pg_class AS c \
         JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
         LEFT JOIN pg_catalog.pg_class AS t ON t.oid = c.reltoastrelid \
    WHERE c.relkind IN ('r', 'm') AND c.relfrozenxid <> '0'";

/// A table.
#[derive(Clone, Debug)]
pub struct Table {
    /// Its oid.
    pub oid: u32,
    /// Schema and name, quoted as in SQL.
    pub name: String,
    /// Whether it is one of PostgreSQL's own.
    pub system: bool,
    /// Whether it is a session's own.
    pub temporary: bool,
    /// Whether it is a materialized view.
    pub materialized: bool,
    /// `reltuples`, negative where it was never counted.
    pub rows: f64,
    /// `relpages`
    pub pages: u64,
    /// Columns, dropped ones included.
    pub columns: u32,
    /// In transaction ids.
    pub freeze_age: u64,
    /// In multixacts.
    pub multixact_age: u64,
    /// `reloptions`
    pub options: Vec<String>,
    /// `n_dead_tup`
    pub dead_rows: u64,
    /// `n_ins_since_vacuum`
    pub inserted_rows: u64,
    /// Updated and deleted since the statistics began.
    pub changed_rows: u64,
    /// By hand.
    pub vacuumed_at: Option<Timestamp>,
    /// By autovacuum.
    pub autovacuumed_at: Option<Timestamp>,
}

/// All tables of the session's database.
pub async fn read(session: &Database) -> Result<Vec<Table>, DatabaseError> {
    let rows = session.query(ACTION, Right::Login, TABLES_QUERY, &[]).await?;
    rows.iter().map(table).collect()
}

fn table(row: &Row) -> Result<Table, DatabaseError> {
    let count = |column: &str| {
        value::<Option<i64>>(row, column, ACTION).map(|n| u64::try_from(n.unwrap_or(0)).unwrap_or(0))
    };
    let time = |column: &str| {
        let micros: Option<i64> = value(row, column, ACTION)?;
        Ok::<_, DatabaseError>(micros.and_then(|micros| Timestamp::from_microsecond(micros).ok()))
    };
    let columns: i32 = value(row, "columns", ACTION)?;
    Ok(Table {
        oid: value(row, "oid", ACTION)?,
        name: value(row, "name", ACTION)?,
        system: value(row, "system", ACTION)?,
        temporary: value(row, "temporary", ACTION)?,
        materialized: value(row, "materialized", ACTION)?,
        rows: value(row, "rows", ACTION)?,
        pages: count("pages")?,
        columns: u32::try_from(columns).unwrap_or(0),
        freeze_age: count("freeze_age")?,
        multixact_age: count("multixact_age")?,
        options: value(row, "options", ACTION)?,
        dead_rows: count("dead_rows")?,
        inserted_rows: count("inserted_rows")?,
        changed_rows: count("changed_rows")?,
        vacuumed_at: time("vacuumed_us")?,
        autovacuumed_at: time("autovacuumed_us")?,
    })
}
