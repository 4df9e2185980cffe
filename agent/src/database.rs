//! Sessions with PostgreSQL: how wald connects, and what it says when a right is missing.
//!
//! Invariants: a session ends when its [`Link`] is dropped, at once; a [`Database`] never waits
//! longer for an answer than its statement time-out; a missing right is named, with the line that
//! grants it, and never passed on as a bare "permission denied".

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::row::RowIndex;
use tokio_postgres::types::{FromSql, ToSql};
use tokio_postgres::{Client, Config, NoTls, Row};
use tokio_util::sync::CancellationToken;

/// The oldest server that wald works with, as `server_version_num`.
pub const SERVER_VERSION_MIN: u32 = 130_000;

/// How long a TCP connection may be silent before the kernel asks for the other side.
const KEEPALIVE_IDLE_MAX: Duration = Duration::from_secs(60);
/// A server that does not take a connection within this is down for whoever is on call.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Not a connection string.
    #[error("[cluster] connection is not a libpq connection string (keyword=value ...)")]
    ConnectionString(#[source] tokio_postgres::Error),
    /// TLS was asked for.
    #[error(
        "[cluster] connection asks for TLS (sslmode=require), which wald does not speak to PostgreSQL: \
         use the Unix socket of this host"
    )]
    Tls,
    /// No connection.
    #[error("can't connect to PostgreSQL: check [cluster] connection and that the server runs")]
    Connect(#[source] tokio_postgres::Error),
}

/// A client and the task that moves its bytes.
pub struct Link {
    client: Client,
    connection: JoinHandle<()>,
    lost: CancellationToken,
}

impl Drop for Link {
    /// Closes the socket at once. Merely dropping the client would first wait for the answer
    /// to a running query, such as a checkpoint that is spread over minutes.
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Link {
    /// Connects. `application` is the session's `application_name` unless `connection` has one;
    /// `database` replaces the one that `connection` names.
    pub async fn connect(
        connection: &str,
        application: &str,
        database: Option<&str>,
    ) -> Result<Self, ConnectError> {
        let mut config = Config::from_str(connection).map_err(ConnectError::ConnectionString)?;
        if config.get_ssl_mode() == SslMode::Require {
            return Err(ConnectError::Tls);
        }
        if config.get_application_name().is_none() {
            config.application_name(application);
        }
        if let Some(database) = database {
            config.dbname(database);
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        // A session may be silent for long; no firewall may forget it meanwhile.
        config.keepalives_idle(config.get_keepalives_idle().min(KEEPALIVE_IDLE_MAX));
        let (client, connection) = config.connect(NoTls).await.map_err(ConnectError::Connect)?;
        let lost = CancellationToken::new();
        let ended = lost.clone().drop_guard();
        let connection = tokio::spawn(async move {
            // Its error reaches the caller through the query that fails; between queries the
            // guard tells that the session is over.
            let _ended = ended;
            let _ = connection.await;
        });
        Ok(Self { client, connection, lost })
    }

    /// The client.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Cancelled when the connection is gone.
    pub fn lost(&self) -> CancellationToken {
        self.lost.clone()
    }
}

/// A right that wald's role needs; [`crate::control::role`] grants all of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Right {
    /// Nothing beside logging in.
    Login,
    /// Membership in `pg_monitor`.
    Monitor,
    /// Membership in `pg_signal_backend`.
    SignalBackend,
    /// EXECUTE on this function, with its argument types.
    Execute(&'static str),
    /// ALTER SYSTEM of this setting.
    AlterSystem(&'static str),
    /// What only a superuser or the owner of the table may do.
    Owner,
}

impl Right {
    /// What grants it to `role`.
    pub fn grant(self, role: &str) -> String {
        let role = quote_identifier(role);
        match self {
            Right::Login => format!("ALTER ROLE {role} LOGIN"),
            Right::Monitor => format!("GRANT pg_monitor TO {role}"),
            Right::SignalBackend => format!("GRANT pg_signal_backend TO {role}"),
            Right::Execute(function) => format!("GRANT EXECUTE ON FUNCTION pg_catalog.{function} TO {role}"),
            Right::AlterSystem(setting) => {
                format!("GRANT ALTER SYSTEM ON PARAMETER {setting} TO {role} (PostgreSQL 15 and later)")
            }
            Right::Owner => "run this as the owner of the table, or as a superuser".to_owned(),
        }
    }
}

/// Why a question to PostgreSQL has no answer.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// No session.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The role lacks a right.
    #[error("the role {role} has no right to {action}: {grant}; `wald role sql` prints all that wald needs")]
    Right {
        /// Who asked.
        role: String,
        /// What for.
        action: &'static str,
        /// What mends it.
        grant: String,
        /// PostgreSQL's answer.
        #[source]
        source: tokio_postgres::Error,
    },
    /// The role lacks a right without which PostgreSQL answers, but not with everything.
    #[error("the role {role} has no right to {action}: {grant}; `wald role sql` prints all that wald needs")]
    Lacks {
        /// Who asked.
        role: String,
        /// What for.
        action: &'static str,
        /// What mends it.
        grant: String,
    },
    /// A query failed.
    #[error("PostgreSQL did not {action}")]
    Query {
        /// What was asked for.
        action: &'static str,
        /// Its answer.
        #[source]
        source: tokio_postgres::Error,
    },
    /// An answer that can't be.
    #[error("PostgreSQL's answer when asked to {action} makes no sense: {found}")]
    Answer {
        /// What was asked for.
        action: &'static str,
        /// The value.
        found: String,
    },
    /// Too old.
    #[error("the server is PostgreSQL {}, wald works with 13 and later", found / 10_000)]
    TooOld {
        /// `server_version_num`.
        found: u32,
    },
}

/// What the server says about itself.
#[derive(Clone, Debug)]
pub struct Facts {
    /// `server_version_num`, as 150018.
    pub version_num: u32,
    /// Whether the server is a standby, when the session began.
    pub in_recovery: bool,
    /// Whom the session is logged in as.
    pub role: String,
}

/// A session that asks short questions.
pub struct Database {
    link: Link,
    facts: Facts,
}

impl Database {
    /// Connects to the database that `connection` names and asks the server about itself.
    /// `command` is what wald is doing, as in "lag": the session is called `wald lag`.
    pub async fn connect(
        connection: &str,
        command: &str,
        statement_timeout: Duration,
    ) -> Result<Self, DatabaseError> {
        Self::connect_to(connection, None, command, statement_timeout).await
    }

    /// The same with another database of the server.
    pub async fn connect_to(
        connection: &str,
        database: Option<&str>,
        command: &str,
        statement_timeout: Duration,
    ) -> Result<Self, DatabaseError> {
        const ACTION: &str = "tell its version";
        let link = Link::connect(connection, &format!("wald {command}"), database).await?;
        let query_error = |source| DatabaseError::Query { action: ACTION, source };
        let millis = statement_timeout.as_millis();
        // A lock that is not had soon is somebody else's work that wald must not stand in front of.
        let settings = format!("SET statement_timeout = {millis}; SET lock_timeout = {}", millis.min(2000));
        link.client.batch_execute(&settings).await.map_err(query_error)?;
        let query = "SELECT current_setting('server_version_num')::int4, pg_catalog.pg_is_in_recovery(), \
                     session_user::text";
        let row = link.client.query_one(query, &[]).await.map_err(query_error)?;
        let version: i32 = row.try_get(0).map_err(query_error)?;
        let version_num = u32::try_from(version)
            .map_err(|_| DatabaseError::Answer { action: ACTION, found: version.to_string() })?;
        if version_num < SERVER_VERSION_MIN {
            return Err(DatabaseError::TooOld { found: version_num });
        }
        let in_recovery = row.try_get(1).map_err(query_error)?;
        let role = row.try_get(2).map_err(query_error)?;
        Ok(Self { link, facts: Facts { version_num, in_recovery, role } })
    }

    /// What the server said about itself.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Cancelled when the connection is gone.
    pub fn lost(&self) -> CancellationToken {
        self.link.lost()
    }

    /// All rows of a query. `action` reads as in "PostgreSQL did not {action}", `right` is what the
    /// query needs beside logging in.
    pub async fn query(
        &self,
        action: &'static str,
        right: Right,
        sql: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, DatabaseError> {
        let rows = self.link.client.query(sql, values).await;
        rows.map_err(|source| self.explained(action, right, source))
    }

    /// The one row of a query.
    pub async fn query_one(
        &self,
        action: &'static str,
        right: Right,
        sql: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Row, DatabaseError> {
        let row = self.link.client.query_one(sql, values).await;
        row.map_err(|source| self.explained(action, right, source))
    }

    /// Statements without an answer, as they are written: for what takes no parameters.
    pub async fn execute(&self, action: &'static str, right: Right, sql: &str) -> Result<(), DatabaseError> {
        let done = self.link.client.batch_execute(sql).await;
        done.map_err(|source| self.explained(action, right, source))
    }

    /// Fails unless the role has this membership. The statistics' views leave out what a role may not
    /// see without saying so: whoever reads them asks here first.
    pub async fn demand(&self, action: &'static str, right: Right) -> Result<(), DatabaseError> {
        let membership = match right {
            Right::Monitor => "pg_monitor",
            Right::SignalBackend => "pg_signal_backend",
            _ => return Ok(()),
        };
        let query = "SELECT pg_catalog.pg_has_role($1::text::name, 'USAGE')";
        let row = self.query_one(action, right, query, &[&membership]).await?;
        if value(&row, "pg_has_role", action)? {
            return Ok(());
        }
        let role = self.facts.role.clone();
        let grant = right.grant(&role);
        Err(DatabaseError::Lacks { role, action, grant })
    }

    fn explained(&self, action: &'static str, right: Right, source: tokio_postgres::Error) -> DatabaseError {
        if source.code() != Some(&SqlState::INSUFFICIENT_PRIVILEGE) {
            return DatabaseError::Query { action, source };
        }
        let role = self.facts.role.clone();
        let grant = right.grant(&role);
        DatabaseError::Right { role, action, grant, source }
    }
}

/// The value of a column, named or counted from 0.
pub fn value<'r, T: FromSql<'r>>(
    row: &'r Row,
    column: impl RowIndex + Display,
    action: &'static str,
) -> Result<T, DatabaseError> {
    row.try_get(column).map_err(|source| DatabaseError::Query { action, source })
}

/// The value of a column that holds text which has a type of its own, such as an LSN.
pub fn parsed<T: FromStr>(
    row: &Row,
    column: impl RowIndex + Display,
    action: &'static str,
) -> Result<T, DatabaseError> {
    let text: String = value(row, column, action)?;
    text.parse().map_err(|_| DatabaseError::Answer { action, found: text })
}

/// A name as it stands in SQL, always in quotes.
pub fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text as it stands in SQL.
pub fn quote_literal(text: &str) -> String {
    let escaped = text.replace('\'', "''");
    if escaped.contains('\\') {
        format!("E'{}'", escaped.replace('\\', "\\\\"))
    } else {
        format!("'{escaped}'")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_texts_are_quoted_so_that_nothing_gets_out() {
        assert_eq!(quote_identifier("a\"b"), "\"a\"\"b\"");
        assert_eq!(quote_literal("it's"), "'it''s'");
        assert_eq!(quote_literal("a\\'b"), "E'a\\\\''b'");
    }
}
