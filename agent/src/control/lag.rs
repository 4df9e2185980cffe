//! What a server says of its replication, as a [`Sample`] for the rules in `wald_core::lag`.
//!
//! Invariants: a few short queries, which read shared memory and no table; whether the server is a
//! standby is asked each time, since it may be promoted meanwhile; a role that sees only a part of
//! the statistics gets an error that names the right, and never a lag of 0.

mod print;

use crate::database::{Database, DatabaseError, Right, parsed, value};
use jiff::Timestamp;
use std::time::Duration;
use tokio_postgres::Row;
use wald_core::lag::{Conflicts, Pause, Receiver, Replica, Sample, Slot, Stage, StandbySample};
use wald_core::lsn::Lsn;

pub use print::Shown;

/// Since when `pg_get_wal_replay_pause_state` exists.
const PAUSE_STATE_SINCE: u32 = 140_000;

/// Why there is no sample.
#[derive(Debug, thiserror::Error)]
pub enum LagError {
    /// No session, or no answer.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The statistics hide from the role what counts.
    #[error("the role {role} does not see replication: {grant}; `wald role sql` prints all that wald needs")]
    Hidden {
        /// Who asked.
        role: String,
        /// What mends it.
        grant: String,
    },
}

/// Asks a server.
pub async fn sample(database: &Database) -> Result<Sample, LagError> {
    const ACTION: &str = "tell where its WAL ends";
    let query = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8 AS at, \
         pg_is_in_recovery() AS in_recovery, \
         pg_has_role('pg_read_all_stats', 'USAGE') AND pg_has_role('pg_read_all_settings', 'USAGE') AS sees, \
         (CASE WHEN pg_is_in_recovery() THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) \
          ELSE pg_current_wal_lsn() END)::text AS position, \
         current_setting('synchronous_standby_names') AS synchronous";
    let row = database.query_one(ACTION, Right::Monitor, query, &[]).await?;
    if !value::<bool>(&row, "sees", ACTION)? {
        let role = database.facts().role.clone();
        let grant = Right::Monitor.grant(&role);
        return Err(LagError::Hidden { role, grant });
    }
    let in_recovery = value(&row, "in_recovery", ACTION)?;
    let micros: i64 = value(&row, "at", ACTION)?;
    let at = Timestamp::from_microsecond(micros)
        .map_err(|_| DatabaseError::Answer { action: ACTION, found: micros.to_string() })?;
    Ok(Sample {
        at,
        position: lsn(&row, "position", ACTION)?,
        standby: if in_recovery { Some(standby(database).await?) } else { None },
        synchronous_standby_names: if in_recovery { None } else { value(&row, "synchronous", ACTION)? },
        replicas: replicas(database).await?,
        slots: slots(database).await?,
    })
}

async fn standby(database: &Database) -> Result<StandbySample, LagError> {
    const ACTION: &str = "tell how far it has replayed";
    let pause = if database.facts().version_num >= PAUSE_STATE_SINCE {
        "pg_get_wal_replay_pause_state()"
    } else {
        "CASE WHEN pg_is_wal_replay_paused() THEN 'paused' ELSE 'not paused' END"
    };
    // What is received is read first: then replay can only seem further, and never behind what it
    // has not seen yet.
    let query = format!(
        "SELECT pg_last_wal_receive_lsn()::text AS received, pg_last_wal_replay_lsn()::text AS replayed, \
         extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp())::float8 AS age, \
         {pause} AS pause, \
         (SELECT setting::int8 FROM pg_settings WHERE name = 'recovery_min_apply_delay') AS delay_millis, \
         (SELECT setting::int8 FROM pg_settings WHERE name = 'wal_receiver_timeout') AS timeout_millis, \
         (SELECT setting <> '' FROM pg_settings WHERE name = 'primary_conninfo') AS streams"
    );
    let row = database.query_one(ACTION, Right::Monitor, &query, &[]).await?;
    let pause = match value::<String>(&row, "pause", ACTION)?.as_str() {
        "not paused" => Pause::NotPaused,
        "pause requested" => Pause::Requested,
        _ => Pause::Paused,
    };
    let millis = |column| value::<Option<i64>>(&row, column, ACTION).map(unsigned);
    let timeout = millis("timeout_millis")?.filter(|millis| *millis > 0).map(Duration::from_millis);
    Ok(StandbySample {
        received: lsn(&row, "received", ACTION)?,
        replayed: lsn(&row, "replayed", ACTION)?,
        last_transaction_age: age(&row, "age", ACTION)?,
        receiver: receiver(database, timeout).await?,
        streams: value::<Option<bool>>(&row, "streams", ACTION)?.unwrap_or(false),
        pause,
        apply_delay: Duration::from_millis(millis("delay_millis")?.unwrap_or(0)),
        conflicts: conflicts(database).await?,
    })
}

async fn receiver(database: &Database, timeout: Option<Duration>) -> Result<Option<Receiver>, LagError> {
    const ACTION: &str = "tell of its WAL receiver";
    let query = "SELECT status, latest_end_lsn::text AS latest_end, \
         extract(epoch FROM clock_timestamp() - last_msg_receipt_time)::float8 AS silent, \
         sender_host || ':' || sender_port AS sender, slot_name FROM pg_stat_wal_receiver";
    let rows = database.query(ACTION, Right::Monitor, query, &[]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    Ok(Some(Receiver {
        status: value::<Option<String>>(row, "status", ACTION)?.unwrap_or_default(),
        latest_end: lsn(row, "latest_end", ACTION)?,
        silent_for: span(row, "silent", ACTION)?,
        timeout,
        sender: value(row, "sender", ACTION)?,
        slot: value(row, "slot_name", ACTION)?,
    }))
}

async fn conflicts(database: &Database) -> Result<Conflicts, LagError> {
    const ACTION: &str = "tell of recovery conflicts";
    let query = "SELECT coalesce(sum(confl_tablespace), 0)::int8 AS tablespace, coalesce(sum(confl_lock), 0)::int8 AS lock, \
         coalesce(sum(confl_snapshot), 0)::int8 AS snapshot, coalesce(sum(confl_bufferpin), 0)::int8 AS bufferpin, \
         coalesce(sum(confl_deadlock), 0)::int8 AS deadlock FROM pg_stat_database_conflicts";
    let row = database.query_one(ACTION, Right::Monitor, query, &[]).await?;
    let count = |column| value::<Option<i64>>(&row, column, ACTION).map(|count| unsigned(count).unwrap_or(0));
    Ok(Conflicts {
        tablespace: count("tablespace")?,
        lock: count("lock")?,
        snapshot: count("snapshot")?,
        bufferpin: count("bufferpin")?,
        deadlock: count("deadlock")?,
    })
}

async fn replicas(database: &Database) -> Result<Vec<Replica>, LagError> {
    const ACTION: &str = "tell of its standbys";
    let query = "SELECT coalesce(application_name, '') AS name, host(client_addr) AS address, \
         coalesce(state, '') AS state, coalesce(sync_state, '') AS sync_state, \
         write_lsn::text AS write_lsn, extract(epoch FROM write_lag)::float8 AS write_lag, \
         flush_lsn::text AS flush_lsn, extract(epoch FROM flush_lag)::float8 AS flush_lag, \
         replay_lsn::text AS replay_lsn, extract(epoch FROM replay_lag)::float8 AS replay_lag \
         FROM pg_stat_replication ORDER BY name, pid";
    let rows = database.query(ACTION, Right::Monitor, query, &[]).await?;
    let stage = |row: &Row, position, late| -> Result<Stage, DatabaseError> {
        Ok(Stage { position: lsn(row, position, ACTION)?, lag: span(row, late, ACTION)? })
    };
    let replica = |row: &Row| -> Result<Replica, LagError> {
        Ok(Replica {
            name: value(row, "name", ACTION)?,
            address: value(row, "address", ACTION)?,
            state: value(row, "state", ACTION)?,
            sync_state: value(row, "sync_state", ACTION)?,
            write: stage(row, "write_lsn", "write_lag")?,
            flush: stage(row, "flush_lsn", "flush_lag")?,
            replay: stage(row, "replay_lsn", "replay_lag")?,
        })
    };
    rows.iter().map(replica).collect()
}

async fn slots(database: &Database) -> Result<Vec<Slot>, LagError> {
    const ACTION: &str = "tell of its replication slots";
    let query = "SELECT slot_name::text AS name, slot_type AS kind, active, restart_lsn::text AS restart, \
         wal_status, safe_wal_size AS safe FROM pg_replication_slots ORDER BY name";
    let rows = database.query(ACTION, Right::Monitor, query, &[]).await?;
    let slot = |row: &Row| -> Result<Slot, LagError> {
        Ok(Slot {
            name: value(row, "name", ACTION)?,
            kind: value(row, "kind", ACTION)?,
            active: value(row, "active", ACTION)?,
            restart: lsn(row, "restart", ACTION)?,
            wal_status: value(row, "wal_status", ACTION)?,
            // Below 0 where the slot may be lost at any moment.
            safe_bytes: value::<Option<i64>>(row, "safe", ACTION)?
                .map(|safe| u64::try_from(safe).unwrap_or(0)),
        })
    };
    rows.iter().map(slot).collect()
}

/// A position that may be unknown.
fn lsn(row: &Row, column: &str, action: &'static str) -> Result<Option<Lsn>, DatabaseError> {
    match value::<Option<String>>(row, column, action)?.as_deref() {
        None | Some("0/0") => Ok(None),
        Some(_) => parsed(row, column, action).map(Some),
    }
}

/// Seconds that may be unknown; less than none, by clocks that differ, is none.
fn span(row: &Row, column: &str, action: &'static str) -> Result<Option<Duration>, DatabaseError> {
    let seconds: Option<f64> = value(row, column, action)?;
    Ok(seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).ok()))
}

/// An age by another server's clock. One of less than nothing says that the clocks differ, and nothing
/// about the age.
fn age(row: &Row, column: &str, action: &'static str) -> Result<Option<Duration>, DatabaseError> {
    let seconds: Option<f64> = value(row, column, action)?;
    Ok(seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()))
}

fn unsigned(number: Option<i64>) -> Option<u64> {
    number.and_then(|number| u64::try_from(number).ok())
}
