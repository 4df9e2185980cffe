//! Step 6: whether the database does what it is for, through the way that the clients take.
//!
//! Invariants: all of it works through a pooler that gives a session's server to others after each
//! transaction, so nothing is set beyond a transaction and no statement is prepared; the session
//! that was reached must be on the new timeline, so that a route to another server is found out.

use super::drive::Run;
use super::error::PromoteError;
use crate::database::{Link, quote_identifier, quote_literal};
use crate::explain::chain;
use std::time::Duration;
use tokio_postgres::SimpleQueryMessage;

/// What the built-in test is called.
const BUILT_IN: &str = "write and read a sample row";

fn failed(test: &str, reason: impl Into<String>) -> PromoteError {
    PromoteError::Smoke { test: test.to_owned(), reason: reason.into() }
}

impl Run {
    /// All of them.
    pub(super) async fn smoke_test(&mut self) -> Result<(), PromoteError> {
        let timeout = self.options.smoke_timeout;
        let link = match tokio::time::timeout(
            timeout,
            Link::connect(&self.options.smoke_connection, "wald promote", None),
        )
        .await
        {
            Ok(Ok(link)) => link,
            Ok(Err(error)) => {
                let cause = std::error::Error::source(&error).map_or_else(|| error.to_string(), chain);
                return Err(failed("connect", format!("smoke_connection: {cause}")));
            }
            Err(_) => return Err(failed("connect", "smoke_connection: no answer in time")),
        };
        self.sample_row(&link, timeout).await?;
        self.note(BUILT_IN);
        for sql in self.options.smoke_sql.clone() {
            ask(&link, &sql, &in_transaction(&sql, timeout), timeout).await?;
            self.note(sql);
        }
        for command in self.options.smoke_commands.clone() {
            let said = self.hook("smoke_commands", &command, timeout).await?;
            self.note(format!("{command} {said}").trim_end().to_owned());
        }
        Ok(())
    }

    async fn sample_row(&self, link: &Link, timeout: Duration) -> Result<(), PromoteError> {
        let (schema, table) = &self.options.smoke_table;
        let name = format!("{}.{}", quote_identifier(schema), quote_identifier(table));
        // CREATE SCHEMA IF NOT EXISTS asks for the right before it looks.
        let exists = format!("SELECT to_regnamespace({})::text", quote_literal(&quote_identifier(schema)));
        let found = ask(link, BUILT_IN, &in_transaction(&exists, timeout), timeout).await?;
        if first(&found).is_none() {
            let create = format!("CREATE SCHEMA {}", quote_identifier(schema));
            ask(link, BUILT_IN, &in_transaction(&create, timeout), timeout).await?;
        }
        let id = quote_literal(&self.journal.id);
        let write = format!(
            "CREATE TABLE IF NOT EXISTS {name} (promotion text NOT NULL, written_at timestamptz NOT NULL); \
             DELETE FROM {name} WHERE promotion = {id}; \
             INSERT INTO {name} VALUES ({id}, now())"
        );
        ask(link, BUILT_IN, &in_transaction(&write, timeout), timeout).await?;
        let read = format!(
            "SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) FROM {name} WHERE promotion = {id}"
        );
        let rows = ask(link, BUILT_IN, &in_transaction(&read, timeout), timeout).await?;
        let Some(timeline) = first(&rows) else {
            return Err(failed(BUILT_IN, "the row that was written was not found"));
        };
        let expected = self.journal.facts.timeline_after.map(|timeline| format!("{:08X}", timeline.get()));
        if expected.is_some_and(|expected| expected != timeline) {
            return Err(failed(
                BUILT_IN,
                format!("smoke_connection leads to a server on timeline {timeline}, which is not this one"),
            ));
        }
        Ok(())
    }
}

/// Statements in a transaction with a time-out of its own.
fn in_transaction(sql: &str, timeout: Duration) -> String {
    let sql = sql.trim().trim_end_matches(';');
    format!("BEGIN; SET LOCAL statement_timeout = {}; {sql}; COMMIT", timeout.as_millis())
}

async fn ask(
    link: &Link,
    test: &str,
    sql: &str,
    timeout: Duration,
) -> Result<Vec<SimpleQueryMessage>, PromoteError> {
    match tokio::time::timeout(timeout, link.client().simple_query(sql)).await {
        Ok(Ok(messages)) => Ok(messages),
        Ok(Err(error)) => Err(failed(test, chain(&error))),
        Err(_) => Err(failed(
            test,
            format!(
                "no answer within {} s; a commit that waits may be waiting for synchronous_standby_names",
                timeout.as_secs_f32()
            ),
        )),
    }
}

/// The first column of the first row, if it is not null.
fn first(messages: &[SimpleQueryMessage]) -> Option<String> {
    messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.try_get(0).ok().flatten().map(str::to_owned),
        _ => None,
    })
}
