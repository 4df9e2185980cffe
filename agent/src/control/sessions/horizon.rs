//! What keeps vacuum from removing dead rows: prepared transactions, old snapshots, the feedback of
//! standbys, replication slots.

use super::Session;
use crate::database::{Database, DatabaseError, Right, value};
use serde::Serialize;

const PREPARED_QUERY: &str = "\
    SELECT gid, owner::text AS owner, database::text AS database, pg_catalog.age(transaction)::int8 AS age, \
           extract(epoch FROM pg_catalog.clock_timestamp() - prepared)::float8 AS seconds \
    FROM pg_catalog.pg_prepared_xacts ORDER BY prepared";

const SLOTS_QUERY: &str = "\
    SELECT slot_name::text AS name, active, \
           greatest(pg_catalog.age(xmin), pg_catalog.age(catalog_xmin))::int8 AS age \
    FROM pg_catalog.pg_replication_slots WHERE xmin IS NOT NULL OR catalog_xmin IS NOT NULL";

/// So many holders of an old horizon are told.
const HOLDERS_MAX: usize = 5;

/// A prepared transaction.
#[derive(Debug, Serialize)]
pub struct Prepared {
    /// Its name: `COMMIT PREPARED` or `ROLLBACK PREPARED` ends it, in its database.
    pub gid: String,
    /// Its owner.
    pub owner: String,
    /// Its database.
    pub database: String,
    /// In transaction ids.
    pub age: i64,
    /// In seconds.
    pub seconds: f64,
}

/// What keeps dead rows from being removed.
#[derive(Debug, Serialize)]
pub struct Holder {
    /// What it is, in words.
    pub what: String,
    /// How old its horizon is, in transaction ids.
    pub age: i64,
}

/// All prepared transactions, the oldest first.
pub async fn prepared(database: &Database) -> Result<Vec<Prepared>, DatabaseError> {
    const ACTION: &str = "list prepared transactions";
    let rows = database.query(ACTION, Right::Login, PREPARED_QUERY, &[]).await?;
    rows.iter()
        .map(|row| {
            Ok(Prepared {
                gid: value(row, "gid", ACTION)?,
                owner: value(row, "owner", ACTION)?,
                database: value(row, "database", ACTION)?,
                age: value(row, "age", ACTION)?,
                seconds: value(row, "seconds", ACTION)?,
            })
        })
        .collect()
}

/// The oldest horizons, the oldest first.
pub async fn holders(
    database: &Database,
    sessions: &[Session],
    prepared: &[Prepared],
) -> Result<Vec<Holder>, DatabaseError> {
    const ACTION: &str = "list replication slots";
    let rows = database.query(ACTION, Right::Monitor, SLOTS_QUERY, &[]).await?;
    let mut holders = Vec::new();
    for row in &rows {
        let (name, active): (String, bool) = (value(row, "name", ACTION)?, value(row, "active", ACTION)?);
        let used = if active { "in use" } else { "NOT IN USE" };
        let age: Option<i64> = value(row, "age", ACTION)?;
        holders.push(Holder { what: format!("replication slot {name}, {used}"), age: age.unwrap_or(0) });
    }
    for session in sessions {
        if let Some(age) = session.xmin_age {
            let what = match session.backend_type.as_str() {
                "walsender" => format!("a standby's feedback ({}, pid {})", session.application, session.pid),
                _ => format!("{session}"),
            };
            holders.push(Holder { what, age });
        }
    }
    for transaction in prepared {
        let what = format!("prepared transaction {:?} in {}", transaction.gid, transaction.database);
        holders.push(Holder { what, age: transaction.age });
    }
    holders.sort_by_key(|holder| std::cmp::Reverse(holder.age));
    holders.truncate(HOLDERS_MAX);
    Ok(holders)
}
