//! How much of each table is empty: estimated from the planner's statistics, and looked at with the
//! extension pgstattuple where that is installed and the estimate is a finding or unknown.
//!
//! Invariant: every figure says which of the two it is; what is not known says why.

use super::tables::Table;
use crate::database::{Database, DatabaseError, Right, quote_identifier, value};
use serde::Serialize;
use std::collections::BTreeMap;
use wald_core::autovacuum::option;
use wald_core::bloat::{TableWidths, estimate_percent};

const ACTION: &str = "tell how wide the rows of its tables are";
const APPROX_ACTION: &str = "look into a table with pgstattuple_approx";

/// Statistics of partitions' parents (`inherited`) are not about the table itself.
const WIDTHS_QUERY: &str = "\
    SELECT c.oid, coalesce(pg_catalog.has_table_privilege(c.oid, 'SELECT'), false) AS readable, \
           pg_catalog.count(s.attname) AS known, pg_catalog.count(*) AS columns, \
           coalesce(pg_catalog.sum((1 - s.null_frac) * s.avg_width), 0)::float8 AS width, \
           coalesce(pg_catalog.bool_or(s.null_frac > 0), false) AS has_nulls \
    FROM pg_catalog.pg_class AS c \
         JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
         JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
         LEFT JOIN pg_catalog.pg_stats AS s ON s.schemaname = n.nspname AND s.tablename = c.relname \
              AND s.attname = a.attname AND NOT s.inherited \
    WHERE c.relkind IN ('r', 'm') AND c.relpages >= $1 \
    GROUP BY c.oid";

const EXTENSION_QUERY: &str = "\
    SELECT n.nspname::text AS schema FROM pg_catalog.pg_extension AS e \
         JOIN pg_catalog.pg_namespace AS n ON n.oid = e.extnamespace \
         JOIN pg_catalog.pg_proc AS p ON p.pronamespace = n.oid AND p.proname = 'pgstattuple_approx' \
    WHERE e.extname = 'pgstattuple' AND pg_catalog.has_function_privilege(p.oid, 'EXECUTE')";

/// So many tables of a database are looked into at most: each look reads what of the table the
/// visibility map does not vouch for.
const LOOKS_MAX: usize = 50;

/// Where a figure comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Estimated from the planner's statistics.
    Statistics,
    /// `pgstattuple_approx` counted.
    Pgstattuple,
    /// It is not known.
    Unknown,
}

/// The empty space of one table.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Bloat {
    /// In percent of the table.
    pub percent: Option<f64>,
    /// How that is known.
    pub method: Method,
    /// Why it is not known, or not known better.
    pub remark: Option<String>,
}

/// What is worth looking at.
#[derive(Clone, Copy, Debug)]
pub struct BloatOptions {
    /// Smaller tables are left out, in bytes.
    pub bytes_min: u64,
    /// From so many percent on it is a finding.
    pub warning_percent: u32,
    /// Bytes in a page.
    pub page_size: u64,
}

/// The bloat of every table that is large enough, by oid.
pub async fn measure(
    session: &Database,
    tables: &[Table],
    options: &BloatOptions,
) -> Result<BTreeMap<u32, Bloat>, DatabaseError> {
    let mut found = estimate(session, tables, options).await?;
    let extension = session.query(ACTION, Right::Login, EXTENSION_QUERY, &[]).await?;
    let Some(extension) = extension.first() else { return Ok(found) };
    let schema: String = value(extension, "schema", ACTION)?;
    let doubtful = |bloat: &Bloat| bloat.percent.is_none_or(|p| p >= f64::from(options.warning_percent));
    let mut candidates: Vec<&Table> = tables
        .iter()
        .filter(|table| !table.temporary && found.get(&table.oid).is_some_and(doubtful))
        .collect();
    candidates.sort_by_key(|table| std::cmp::Reverse(table.pages));
    for table in candidates.into_iter().take(LOOKS_MAX) {
        match look(session, &schema, table).await {
            Ok(percent) => {
                let bloat = Bloat { percent: Some(percent), method: Method::Pgstattuple, remark: None };
                found.insert(table.oid, bloat);
            }
            Err(error) => {
                // A lock, a time-out: the estimate still stands.
                let why = crate::explain::chain(&error);
                if let Some(bloat) = found.get_mut(&table.oid) {
                    bloat.remark = Some(why);
                }
            }
        }
    }
    Ok(found)
}

async fn estimate(
    session: &Database,
    tables: &[Table],
    options: &BloatOptions,
) -> Result<BTreeMap<u32, Bloat>, DatabaseError> {
    let pages_min = i32::try_from(options.bytes_min.div_ceil(options.page_size.max(1))).unwrap_or(i32::MAX);
    let rows = session.query(ACTION, Right::Login, WIDTHS_QUERY, &[&pages_min]).await?;
    let by_oid: BTreeMap<u32, &Table> = tables.iter().map(|table| (table.oid, table)).collect();
    let mut found = BTreeMap::new();
    for row in &rows {
        let Some(table) = by_oid.get(&value::<u32>(row, "oid", ACTION)?) else { continue };
        let (known, columns): (i64, i64) = (value(row, "known", ACTION)?, value(row, "columns", ACTION)?);
        let bloat = if known < columns {
            unknown(table, value(row, "readable", ACTION)?, &session.facts().role)
        } else {
            let width = value(row, "width", ACTION)?;
            let widths = widths(table, options.page_size, width, value(row, "has_nulls", ACTION)?);
            Bloat { percent: estimate_percent(&widths), method: Method::Statistics, remark: None }
        };
        found.insert(table.oid, bloat);
    }
    Ok(found)
}

fn widths(table: &Table, page_size: u64, row_width: f64, has_nulls: bool) -> TableWidths {
    #[allow(clippy::cast_precision_loss)] // PostgreSQL has at most 2^32 pages.
    let (pages, page_size) = (table.pages as f64, page_size as f64);
    TableWidths {
        rows: table.rows,
        pages,
        page_size,
        fill_factor: fill_factor(table),
        row_width,
        columns: f64::from(table.columns),
        has_nulls,
    }
}

fn fill_factor(table: &Table) -> f64 {
    option(&table.options, "fillfactor").and_then(|value| value.parse().ok()).unwrap_or(100.0)
}

fn unknown(table: &Table, readable: bool, role: &str) -> Bloat {
    let remark = if readable {
        format!("the planner has no statistics on it: ANALYZE {};", table.name)
    } else {
        format!(
            "the role may not see its statistics: GRANT SELECT ON {} TO {}, or CREATE EXTENSION pgstattuple in this database",
            table.name,
            quote_identifier(role)
        )
    };
    Bloat { percent: None, method: Method::Unknown, remark: Some(remark) }
}

/// Free space and dead rows, without what the fill factor leaves free on purpose.
async fn look(session: &Database, schema: &str, table: &Table) -> Result<f64, DatabaseError> {
    let query = format!(
        "SELECT approx_free_percent + dead_tuple_percent AS percent \
         FROM {}.pgstattuple_approx($1::oid::regclass)",
        quote_identifier(schema)
    );
    let row = session.query_one(APPROX_ACTION, Right::Monitor, &query, &[&table.oid]).await?;
    let percent: f64 = value(&row, "percent", APPROX_ACTION)?;
    Ok((percent - (100.0 - fill_factor(table))).clamp(0.0, 100.0))
}
