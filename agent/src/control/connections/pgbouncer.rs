//! PgBouncer's admin console: `SHOW POOLS` and `SHOW STATS`.
//!
//! The console speaks the simple query protocol only, and has neither settings nor functions
//! (<https://www.pgbouncer.org/usage.html#admin-console>): so a plain [`Link`] and nothing more. The
//! user must be one of `stats_users` or `admin_users`.

use crate::database::{ConnectError, Link};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio_postgres::SimpleQueryMessage;

/// It answers from memory.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// A row, by the names that PgBouncer gives its columns: they differ from version to version.
pub type ConsoleRow = BTreeMap<String, String>;

/// What it said.
#[derive(Debug, Serialize)]
pub struct Console {
    /// `SHOW POOLS`
    pub pools: Vec<ConsoleRow>,
    /// `SHOW STATS`
    pub stats: Vec<ConsoleRow>,
}

/// Why it said nothing.
#[derive(Debug, thiserror::Error)]
pub enum PgBouncerError {
    /// No session.
    #[error(
        "can't connect to PgBouncer's console: check [connections] pgbouncer, that it runs, and that the user is one of its \
         stats_users or admin_users"
    )]
    Connect(#[source] tokio_postgres::Error),
    /// Not a connection string that can be used.
    #[error("[connections] pgbouncer can't be used")]
    ConnectionString(#[source] ConnectError),
    /// It answered with an error.
    #[error("PgBouncer did not answer {command}")]
    Command {
        /// What it was told.
        command: &'static str,
        /// Its answer.
        #[source]
        source: tokio_postgres::Error,
    },
    /// It did not answer.
    #[error("PgBouncer's console did not answer within {} s", ANSWER_WITHIN.as_secs())]
    Silent,
}

/// Asks it.
pub async fn ask(connection: &str) -> Result<Console, PgBouncerError> {
    let asked = async {
        let link =
            Link::connect(connection, "wald connections", None).await.map_err(|error| match error {
                ConnectError::Connect(source) => PgBouncerError::Connect(source),
                other => PgBouncerError::ConnectionString(other),
            })?;
        let (pools, stats) = (show(&link, "SHOW POOLS").await?, show(&link, "SHOW STATS").await?);
        Ok(Console { pools, stats })
    };
    tokio::time::timeout(ANSWER_WITHIN, asked).await.unwrap_or(Err(PgBouncerError::Silent))
}

async fn show(link: &Link, command: &'static str) -> Result<Vec<ConsoleRow>, PgBouncerError> {
    let answer = link.client().simple_query(command).await;
    let messages = answer.map_err(|source| PgBouncerError::Command { command, source })?;
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    Ok(rows
        .map(|row| {
            let named = row.columns().iter().enumerate();
            named
                .map(|(at, column)| {
                    let text = row.try_get(at).ok().flatten().unwrap_or_default();
                    (column.name().to_owned(), text.to_owned())
                })
                .collect()
        })
        .collect())
}
