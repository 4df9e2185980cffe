//! The session with PostgreSQL that a base backup is taken in.
//!
//! Invariant: the server is in backup mode exactly as long as [`Session`] lives between
//! [`Session::start`] and [`Session::stop`]. PostgreSQL ends a backup whose session ends
//! (<https://www.postgresql.org/docs/15/continuous-archiving.html#BACKUP-LOWLEVEL-BASE-BACKUP>),
//! so dropping the value is how a backup is given up, and a lost connection ends it too.

use super::options::CheckpointMode;
use crate::database::{DatabaseError, Link, SERVER_VERSION_MIN, parsed, value};
use jiff::Timestamp;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;
use wald_core::lsn::Lsn;
use wald_core::system_id::SystemId;

/// The functions were renamed in PostgreSQL 15, which also dropped the exclusive mode.
const RENAMED_FUNCTIONS_VERSION: u32 = 150_000;

/// A session that is ready for a backup, or in one.
pub struct Session {
    link: Link,
    server: ServerFacts,
}

/// What the server says about itself.
#[derive(Clone, Debug)]
pub struct ServerFacts {
    /// `server_version_num`, as 150018.
    pub version_num: u32,
    /// The cluster's identity.
    pub system_id: SystemId,
    /// Whether the server is a standby.
    pub in_recovery: bool,
    /// Whether WAL is archived by this server: `archive_mode` and a command or library.
    pub archiving: Archiving,
}

/// Whether a server archives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Archiving {
    /// It archives the WAL that it writes.
    On,
    /// `archive_mode` is off.
    ModeOff,
    /// `archive_mode` is on, and there is neither a command nor a library.
    NoCommand,
}

/// What `pg_backup_stop` returned.
#[derive(Clone, Debug)]
pub struct StopAnswer {
    /// Where the backup ended.
    pub stop_lsn: Lsn,
    /// The text of `backup_label`.
    pub label: String,
    /// The text of `tablespace_map`, empty without tablespaces.
    pub tablespace_map: String,
    /// The server's clock afterwards.
    pub stopped_at: Timestamp,
}

/// In one row: version, identity, recovery, archiving. A library can archive since 15.
const FACTS_QUERY: &str = "\
    SELECT current_setting('server_version_num')::text, s.system_identifier::text, \
           pg_catalog.pg_is_in_recovery(), current_setting('archive_mode') <> 'off', \
           current_setting('archive_command') NOT IN ('', '(disabled)') \
             OR coalesce(current_setting('archive_library', true), '') <> '' \
    FROM pg_catalog.pg_control_system() AS s";

const CLOCK_QUERY: &str =
    "SELECT (extract(epoch FROM pg_catalog.clock_timestamp()) * 1000000)::pg_catalog.int8";

/// Limits that an administrator may have set for ordinary sessions: one that rightly waits
/// for hours must not fall to them. `idle_session_timeout` exists since PostgreSQL 14.
const NO_TIMEOUTS: &str = "\
    SET statement_timeout = 0; SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0; \
    SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings \
    WHERE name IN ('idle_session_timeout', 'transaction_timeout')";

impl Session {
    /// Connects and asks the server about itself.
    pub async fn connect(connection: &str) -> Result<Self, DatabaseError> {
        // From here on dropping the link ends the session.
        let link = Link::connect(connection, "wald backup", None).await?;
        let server = ask_facts(link.client()).await?;
        Ok(Self { link, server })
    }

    /// What the server said about itself.
    pub fn server(&self) -> &ServerFacts {
        &self.server
    }

    /// Cancelled when the connection is gone; with it the backup mode.
    pub fn lost(&self) -> CancellationToken {
        self.link.lost()
    }

    /// The server's clock.
    pub async fn clock(&self) -> Result<Timestamp, DatabaseError> {
        const ACTION: &str = "tell the time";
        let row = self
            .link
            .client()
            .query_one(CLOCK_QUERY, &[])
            .await
            .map_err(|source| DatabaseError::Query { action: ACTION, source })?;
        let micros: i64 = value(&row, 0, ACTION)?;
        Timestamp::from_microsecond(micros)
            .map_err(|_| DatabaseError::Answer { action: ACTION, found: micros.to_string() })
    }

    /// Enters backup mode; returns where replay of the backup will begin. Waits for a
    /// checkpoint (on a standby: a restart point).
    pub async fn start(&self, label: &str, checkpoint: CheckpointMode) -> Result<Lsn, DatabaseError> {
        const ACTION: &str = "start a backup";
        let fast = checkpoint == CheckpointMode::Fast;
        let query = if self.server.version_num >= RENAMED_FUNCTIONS_VERSION {
            "SELECT pg_catalog.pg_backup_start($1, $2)::text"
        } else {
            "SELECT pg_catalog.pg_start_backup($1, $2, false)::text"
        };
        let row = self
            .link
            .client()
            .query_one(query, &[&label, &fast])
            .await
            .map_err(|source| DatabaseError::Query { action: ACTION, source })?;
        parsed(&row, 0, ACTION)
    }

    /// Leaves backup mode and ends the session. Does not wait for the archiver: whether the
    /// WAL is there is for the repository to say, not for the server.
    pub async fn stop(self) -> Result<StopAnswer, DatabaseError> {
        const ACTION: &str = "stop the backup";
        let query = if self.server.version_num >= RENAMED_FUNCTIONS_VERSION {
            "SELECT lsn::text, labelfile, spcmapfile FROM pg_catalog.pg_backup_stop(false)"
        } else {
            "SELECT lsn::text, labelfile, spcmapfile FROM pg_catalog.pg_stop_backup(false, false)"
        };
        let row = self
            .link
            .client()
            .query_one(query, &[])
            .await
            .map_err(|source| DatabaseError::Query { action: ACTION, source })?;
        Ok(StopAnswer {
            stop_lsn: parsed(&row, 0, ACTION)?,
            label: value(&row, 1, ACTION)?,
            tablespace_map: value::<Option<String>>(&row, 2, ACTION)?.unwrap_or_default(),
            stopped_at: self.clock().await?,
        })
    }
}

async fn ask_facts(client: &Client) -> Result<ServerFacts, DatabaseError> {
    const ACTION: &str = "tell its version and identity";
    let query_error = |source| DatabaseError::Query { action: ACTION, source };
    client.batch_execute(NO_TIMEOUTS).await.map_err(query_error)?;
    let row = client.query_one(FACTS_QUERY, &[]).await.map_err(query_error)?;
    let version_num: u32 = parsed(&row, 0, ACTION)?;
    if version_num < SERVER_VERSION_MIN {
        return Err(DatabaseError::TooOld { found: version_num });
    }
    let archiving = match (value::<bool>(&row, 3, ACTION)?, value::<bool>(&row, 4, ACTION)?) {
        (false, _) => Archiving::ModeOff,
        (true, false) => Archiving::NoCommand,
        (true, true) => Archiving::On,
    };
    Ok(ServerFacts {
        version_num,
        system_id: parsed(&row, 1, ACTION)?,
        in_recovery: value(&row, 2, ACTION)?,
        archiving,
    })
}
