//! Looking at both servers: what they are right now.
//!
//! Invariant: "it does not answer" is said only where nothing came back at the level of the
//! network; whatever answers at the address, in whatever way, is somebody who may take writes.

use super::options::PromoteOptions;
use crate::database::{ConnectError, Database, DatabaseError, Right, parsed, value};
use crate::explain::chain;
use std::time::Duration;
use tokio_postgres::Config;
use tokio_postgres::config::Host;
use wald_core::lsn::Lsn;
use wald_core::promotion::Server;
use wald_core::promotion::fence::Answer;
use wald_core::promotion::pgbouncer_file::Target;
use wald_core::system_id::SystemId;
use wald_core::timeline::TimelineId;

/// Clients wait while the old primary is looked at: one that is silent must not cost much.
const OLD_TIMEOUT: Duration = Duration::from_secs(2);
/// This server is on this host.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);

/// The old primary.
#[derive(Clone, Debug)]
pub(super) struct OldLook {
    pub answer: Answer,
    /// How far it has flushed its WAL; none unless it is a primary.
    pub lsn: Option<Lsn>,
    pub data_directory: Option<String>,
    pub system_id: Option<SystemId>,
    /// When its postmaster was started, as text to be compared only.
    started: Option<String>,
}

impl OldLook {
    fn only(answer: Answer) -> Self {
        Self { answer, lsn: None, data_directory: None, system_id: None, started: None }
    }
}

/// Asks the old primary what it is.
pub(super) async fn old_primary(options: &PromoteOptions) -> OldLook {
    // The text of a ConnectError speaks of [cluster] connection: its cause is what matters.
    let reason = |error: &DatabaseError| match error {
        DatabaseError::Connect(ConnectError::Connect(cause)) => chain(cause),
        error => chain(error),
    };
    match tokio::time::timeout(OLD_TIMEOUT, ask_old(&options.primary)).await {
        Err(_) => {
            OldLook::only(Answer::None { reason: format!("no answer within {} s", OLD_TIMEOUT.as_secs()) })
        }
        Ok(Ok(look)) => {
            // An address that moves, or a name, may lead here meanwhile: to ask oneself proves nothing.
            let here = here(options).await.started;
            if here.is_some() && here == look.started { OldLook::only(Answer::Itself) } else { look }
        }
        Ok(Err(error)) if is_silence(&error) => OldLook::only(Answer::None { reason: reason(&error) }),
        Ok(Err(error)) => OldLook::only(Answer::Unclear { reason: reason(&error) }),
    }
}

/// Whether nobody is there: an error of the network, and none that a server sent.
fn is_silence(error: &DatabaseError) -> bool {
    let DatabaseError::Connect(ConnectError::Connect(error)) = error else { return false };
    let mut cause = std::error::Error::source(error);
    while let Some(found) = cause {
        if let Some(io) = found.downcast_ref::<std::io::Error>() {
            // A connection that was taken and closed again was taken by somebody.
            return io.kind() != std::io::ErrorKind::UnexpectedEof;
        }
        cause = found.source();
    }
    false
}

async fn ask_old(connection: &str) -> Result<OldLook, DatabaseError> {
    const ACTION: &str = "tell whether the old primary takes writes";
    let database = Database::connect(connection, "promote", OLD_TIMEOUT).await?;
    let sql = "SELECT current_setting('default_transaction_read_only')::bool AS read_only, \
               current_setting('data_directory', true) AS data_directory, \
               (SELECT system_identifier::text FROM pg_catalog.pg_control_system()) AS system_id, \
               pg_catalog.pg_postmaster_start_time()::text AS started, \
               CASE WHEN pg_catalog.pg_is_in_recovery() THEN NULL \
                    ELSE pg_catalog.pg_current_wal_flush_lsn()::text END AS lsn";
    let row = database.query_one(ACTION, Right::Login, sql, &[]).await;
    // Where the data directory is may be hidden from wald's role, and is nice to know only.
    let row = match row {
        Ok(row) => row,
        Err(_) => {
            let sql = sql.replace("current_setting('data_directory', true)", "NULL::text");
            database.query_one(ACTION, Right::Login, &sql, &[]).await?
        }
    };
    let lsn: Option<String> = value(&row, "lsn", ACTION)?;
    let answer = match (&lsn, value::<bool>(&row, "read_only", ACTION)?) {
        (None, _) => Answer::InRecovery,
        (Some(_), true) => Answer::ReadOnly,
        (Some(_), false) => Answer::Writable,
    };
    Ok(OldLook {
        answer,
        lsn: lsn.and_then(|text| text.parse().ok()),
        data_directory: value(&row, "data_directory", ACTION)?,
        system_id: Some(parsed(&row, "system_id", ACTION)?),
        started: Some(value(&row, "started", ACTION)?),
    })
}

/// This server, and the session with it if it answers.
pub(super) struct HereLook {
    pub server: Server,
    /// When its postmaster was started, as text to be compared only.
    pub started: Option<String>,
    pub database: Option<Database>,
    /// Why there is no session.
    pub problem: Option<DatabaseError>,
}

/// Asks this server what it is.
pub(super) async fn here(options: &PromoteOptions) -> HereLook {
    match ask_here(options).await {
        Ok((server, started, database)) => {
            HereLook { server, started: Some(started), database: Some(database), problem: None }
        }
        Err(problem) => {
            HereLook { server: Server::Silent, started: None, database: None, problem: Some(problem) }
        }
    }
}

async fn ask_here(options: &PromoteOptions) -> Result<(Server, String, Database), DatabaseError> {
    const ACTION: &str = "tell when it was started";
    let database = Database::connect(&options.connection, "promote", STATEMENT_TIMEOUT).await?;
    let sql = "SELECT pg_catalog.pg_postmaster_start_time()::text AS started";
    let row = database.query_one(ACTION, Right::Login, sql, &[]).await?;
    let server = if database.facts().in_recovery { Server::Standby } else { Server::Primary };
    let started = value(&row, "started", ACTION)?;
    Ok((server, started, database))
}

/// How far a standby is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Positions {
    pub received: Option<Lsn>,
    pub replayed: Option<Lsn>,
    /// Whether a WAL receiver runs.
    pub receiving: bool,
}

/// Asks a standby how far it is.
pub(super) async fn positions(database: &Database) -> Result<Positions, DatabaseError> {
    const ACTION: &str = "tell how far it has replayed";
    // Replayed first: what is received can only be more by then, never less.
    let sql = "SELECT pg_catalog.pg_last_wal_replay_lsn()::text AS replayed, \
               pg_catalog.pg_last_wal_receive_lsn()::text AS received, \
               EXISTS (SELECT FROM pg_catalog.pg_stat_wal_receiver WHERE pid IS NOT NULL) AS receiving";
    let row = database.query_one(ACTION, Right::Monitor, sql, &[]).await?;
    let lsn = |column| -> Result<Option<Lsn>, DatabaseError> {
        let text: Option<String> = value(&row, column, ACTION)?;
        Ok(text.and_then(|text| text.parse().ok()))
    };
    Ok(Positions {
        replayed: lsn("replayed")?,
        received: lsn("received")?,
        receiving: value(&row, "receiving", ACTION)?,
    })
}

/// Timeline and position of a primary.
pub(super) async fn written(database: &Database) -> Result<(TimelineId, Lsn), DatabaseError> {
    const ACTION: &str = "tell its timeline";
    let sql = "SELECT substr(pg_catalog.pg_walfile_name(l), 1, 8) AS timeline, l::text AS lsn \
               FROM pg_catalog.pg_current_wal_lsn() AS l";
    let row = database.query_one(ACTION, Right::Login, sql, &[]).await?;
    let digits: String = value(&row, "timeline", ACTION)?;
    let timeline = u32::from_str_radix(&digits, 16).ok().and_then(TimelineId::new);
    let timeline = timeline.ok_or(DatabaseError::Answer { action: ACTION, found: digits })?;
    Ok((timeline, parsed(&row, "lsn", ACTION)?))
}

/// The first host and port of a connection string.
pub fn target_of(config: &Config) -> Option<Target> {
    let host = match config.get_hosts().first()? {
        Host::Tcp(name) => name.clone(),
        Host::Unix(path) => path.to_string_lossy().into_owned(),
    };
    Some(Target { host, port: config.get_ports().first().copied().unwrap_or(5432) })
}
