//! Settings in `postgresql.auto.conf`: read as they stand in the file, changed with `ALTER SYSTEM`,
//! and put in force by a reload.
//!
//! Invariant: what is in the file and what is in force are never taken for each other: between a
//! change and its reload, and where a command line overrules the file, they differ.

use crate::database::{Database, DatabaseError, Right, quote_literal, value};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const FILE_ACTION: &str = "tell what postgresql.auto.conf holds";
const FORCE_ACTION: &str = "tell which settings are in force";
const CHANGE_ACTION: &str = "change a setting with ALTER SYSTEM";
const RELOAD_ACTION: &str = "reload its configuration";

/// The right to read the files' content.
const FILE_RIGHT: Right = Right::Execute("pg_show_all_file_settings()");

/// The function reads the files anew, so that a change that was not reloaded is seen. The last entry
/// of a name counts.
const FILE_QUERY: &str = "\
    SELECT name, setting FROM pg_catalog.pg_show_all_file_settings() \
    WHERE sourcefile LIKE '%/postgresql.auto.conf' AND name = ANY ($1) ORDER BY seqno";

const FORCE_QUERY: &str = "SELECT name, setting FROM pg_catalog.pg_settings WHERE name = ANY ($1)";

/// The server's processes have read their configuration long before.
const RELOADED_WITHIN: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The settings that a boost may change; a role is granted each of them by name.
pub const BOOSTABLE: [&str; 5] = [
    "autovacuum_max_workers",
    "maintenance_work_mem",
    "autovacuum_work_mem",
    "autovacuum_vacuum_cost_limit",
    "autovacuum_vacuum_cost_delay",
];

/// What `postgresql.auto.conf` says of these; those that it does not name are left out.
pub async fn in_file(
    session: &Database,
    names: &[String],
) -> Result<BTreeMap<String, String>, DatabaseError> {
    let rows = session.query(FILE_ACTION, FILE_RIGHT, FILE_QUERY, &[&names]).await?;
    let mut found = BTreeMap::new();
    for row in &rows {
        found.insert(value(row, "name", FILE_ACTION)?, value(row, "setting", FILE_ACTION)?);
    }
    Ok(found)
}

/// The values in force, as `pg_settings.setting` shows them; names that this server does not know are
/// left out.
pub async fn in_force(session: &Database, names: &[String]) -> Result<BTreeMap<String, f64>, DatabaseError> {
    let rows = session.query(FORCE_ACTION, Right::Login, FORCE_QUERY, &[&names]).await?;
    let mut found = BTreeMap::new();
    for row in &rows {
        let text: String = value(row, "setting", FORCE_ACTION)?;
        let number = text.parse().map_err(|_| DatabaseError::Answer { action: FORCE_ACTION, found: text })?;
        found.insert(value(row, "name", FORCE_ACTION)?, number);
    }
    Ok(found)
}

/// Writes a setting into the file, or takes it out of it (`None`).
pub async fn alter(session: &Database, name: &str, setting: Option<&str>) -> Result<(), DatabaseError> {
    let known = BOOSTABLE.into_iter().find(|known| *known == name);
    let Some(known) = known else {
        let found = format!("{name} is no setting of a boost");
        return Err(DatabaseError::Answer { action: CHANGE_ACTION, found });
    };
    let statement = match setting {
        Some(setting) => format!("ALTER SYSTEM SET {known} = {}", quote_literal(setting)),
        None => format!("ALTER SYSTEM RESET {known}"),
    };
    session.execute(CHANGE_ACTION, Right::AlterSystem(known), &statement).await
}

/// Puts the files in force and waits until `done` agrees with what is; false if it never does.
pub async fn reload(
    session: &Database,
    names: &[String],
    done: impl Fn(&BTreeMap<String, f64>) -> bool,
) -> Result<bool, DatabaseError> {
    let query = "SELECT pg_catalog.pg_reload_conf()";
    session.query_one(RELOAD_ACTION, Right::Execute("pg_reload_conf()"), query, &[]).await?;
    let asked = Instant::now();
    loop {
        // A session sees the new values with the first statement after the signal reached it.
        if done(&in_force(session, names).await?) {
            return Ok(true);
        }
        if asked.elapsed() > RELOADED_WITHIN {
            return Ok(false);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Whether two values of a setting are the same.
pub fn same(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-6
}
