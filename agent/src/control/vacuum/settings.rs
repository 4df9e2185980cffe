//! The server's settings that decide when autovacuum begins.

use crate::database::{Database, DatabaseError, Right, value};
use std::collections::BTreeMap;
use wald_core::autovacuum::ServerSettings;

const ACTION: &str = "show its autovacuum settings";

const SETTINGS_QUERY: &str = "\
    SELECT name, setting FROM pg_catalog.pg_settings \
    WHERE name LIKE 'autovacuum%' OR name IN ('block_size')";

/// What was found.
#[derive(Clone, Debug)]
pub struct Settings {
    /// For the rules.
    pub server: ServerSettings,
    /// Bytes in a page.
    pub page_size: u64,
}

/// Reads them.
pub async fn read(session: &Database) -> Result<Settings, DatabaseError> {
    let rows = session.query(ACTION, Right::Login, SETTINGS_QUERY, &[]).await?;
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    for row in &rows {
        found.insert(value(row, "name", ACTION)?, value(row, "setting", ACTION)?);
    }
    let text = |name: &str| found.get(name).map(String::as_str).unwrap_or_default();
    let number = |name: &'static str| {
        let answer = || DatabaseError::Answer { action: ACTION, found: format!("{name} = {:?}", text(name)) };
        text(name).parse::<f64>().map_err(|_| answer())
    };
    let count = |name: &'static str| {
        let answer = || DatabaseError::Answer { action: ACTION, found: format!("{name} = {:?}", text(name)) };
        text(name).parse::<u64>().map_err(|_| answer())
    };
    let server = ServerSettings {
        enabled: text("autovacuum") == "on",
        vacuum_threshold: number("autovacuum_vacuum_threshold")?,
        vacuum_scale_factor: number("autovacuum_vacuum_scale_factor")?,
        vacuum_max_threshold: text("autovacuum_vacuum_max_threshold").parse().unwrap_or(-1.0),
        insert_threshold: number("autovacuum_vacuum_insert_threshold")?,
        insert_scale_factor: number("autovacuum_vacuum_insert_scale_factor")?,
        freeze_max_age: count("autovacuum_freeze_max_age")?,
        multixact_freeze_max_age: count("autovacuum_multixact_freeze_max_age")?,
    };
    Ok(Settings { server, page_size: count("block_size")? })
}
