//! PostgreSQL, asked over one connection every 15 s.
//!
//! Invariant: a server that does not answer is asked less and less often, and its figures are absent
//! meanwhile: the last ones would read as if all were well.

use super::{Observatory, SeenDatabase, repeat};
use crate::control::lag::{LagError, sample};
use crate::database::{Database, DatabaseError, Right, value};
use crate::explain::chain;
use crate::metrics::{Observer, Seen, figures, seconds};
use std::time::Duration;
use wald_core::lag::{Pause, ReplicaReport, Report, SlotReport, StandbyReport, Streaming, Watcher};

const LOOK_EVERY: Duration = Duration::from_secs(15);
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);
/// All questions of one look together.
const LOOK_WITHIN: Duration = Duration::from_secs(20);
const RETRY_FIRST: Duration = Duration::from_secs(2);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// What else is asked for.
struct Vitals {
    freeze_age: i64,
    multixact_age: i64,
    connections_used: i64,
    connections_max: i64,
    archive_timeout: i64,
    archive_mode: String,
}

struct Session {
    database: Option<Database>,
    watcher: Watcher,
    retry: Duration,
}

pub(super) async fn watch(at: Observatory) {
    let at = &at;
    let session = tokio::sync::Mutex::new(Session {
        database: None,
        watcher: Watcher::new(at.options.thresholds),
        retry: RETRY_FIRST,
    });
    repeat(|| async {
        let mut session = session.lock().await;
        let looked = tokio::time::timeout(LOOK_WITHIN, look(at, &mut session)).await;
        let error = match looked {
            Ok(Ok((report, vitals))) => {
                session.retry = RETRY_FIRST;
                publish(at, report, &vitals);
                return LOOK_EVERY;
            }
            Ok(Err(error)) => chain(&error),
            Err(_) => format!("PostgreSQL gave no answer within {} s", LOOK_WITHIN.as_secs()),
        };
        session.database = None;
        publish_down(at, error);
        let pause = session.retry;
        session.retry = (pause * 2).min(RETRY_MAX);
        pause
    })
    .await;
}

async fn look(at: &Observatory, session: &mut Session) -> Result<(Report, Vitals), LagError> {
    let database = match &mut session.database {
        Some(database) => database,
        absent => {
            let connection = &at.options.connection;
            absent.insert(Database::connect(connection, "agent", STATEMENT_TIMEOUT).await?)
        }
    };
    let report = session.watcher.look(&sample(database).await?);
    let vitals = vitals(database).await?;
    Ok((report, vitals))
}

async fn vitals(database: &Database) -> Result<Vitals, DatabaseError> {
    const ACTION: &str = "tell the age of its transactions and its connections";
    // Shared memory and a catalog with a row for each database: a millisecond.
    let query = "SELECT (SELECT max(age(datfrozenxid)) FROM pg_database)::int8 AS freeze_age, \
         (SELECT max(mxid_age(datminmxid)) FROM pg_database)::int8 AS multixact_age, \
         (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')::int8 AS used, \
         (SELECT sum(CASE name WHEN 'max_connections' THEN setting::int8 ELSE -setting::int8 END) FROM pg_settings \
          WHERE name IN ('max_connections', 'superuser_reserved_connections', 'reserved_connections'))::int8 AS usable, \
         (SELECT setting::int8 FROM pg_settings WHERE name = 'archive_timeout') AS archive_timeout, \
         current_setting('archive_mode') AS archive_mode";
    let row = database.query_one(ACTION, Right::Monitor, query, &[]).await?;
    let number = |column| value::<Option<i64>>(&row, column, ACTION).map(Option::unwrap_or_default);
    Ok(Vitals {
        freeze_age: number("freeze_age")?,
        multixact_age: number("multixact_age")?,
        connections_used: number("used")?,
        connections_max: number("usable")?,
        archive_timeout: number("archive_timeout")?,
        archive_mode: value(&row, "archive_mode", ACTION)?,
    })
}

fn publish_down(at: &Observatory, error: String) {
    let mut seen = Seen::default();
    seen.set(&figures::DATABASE_UP, 0.0);
    at.metrics.publish(Observer::Database, seen);
    let mut observed = at.lock();
    if observed.database.error.is_none() {
        tracing::warn!(%error, "PostgreSQL can't be observed; archiving goes on");
    }
    observed.database = SeenDatabase { up: false, error: Some(error), lag: None };
}

fn publish(at: &Observatory, report: Report, vitals: &Vitals) {
    let mut seen = Seen::default();
    let is_standby = report.standby.is_some();
    let archives = match vitals.archive_mode.as_str() {
        "always" => true,
        "on" => !is_standby,
        _ => false,
    };
    seen.set(&figures::DATABASE_UP, 1.0);
    seen.set(&figures::DATABASE_SAMPLED, seconds(at.clock.now()));
    seen.set(&figures::IN_RECOVERY, flag(is_standby));
    seen.set(&figures::LAG_STATE, f64::from(report.state.exit_code()));
    seen.set_known(&figures::WAL_RATE, report.wal_bytes_per_second);
    seen.set(&figures::FREEZE_AGE, vitals.freeze_age as f64);
    seen.set(&figures::MULTIXACT_AGE, vitals.multixact_age as f64);
    seen.set(&figures::CONNECTIONS_USED, vitals.connections_used as f64);
    seen.set(&figures::CONNECTIONS_MAX, vitals.connections_max as f64);
    seen.set(&figures::ARCHIVE_MODE, flag(archives));
    seen.set(&figures::ARCHIVE_TIMEOUT, vitals.archive_timeout as f64);
    if let Some(standby) = &report.standby {
        set_standby(&mut seen, standby);
    } else {
        let synchronous = report.synchronous.as_ref();
        seen.set(&figures::SYNC_REQUIRED, synchronous.map_or(0.0, |sync| f64::from(sync.required)));
        seen.set(&figures::SYNC_STREAMING, synchronous.map_or(0.0, |sync| f64::from(sync.streaming)));
    }
    report.replicas.iter().for_each(|replica| set_replica(&mut seen, replica));
    report.slots.iter().for_each(|slot| set_slot(&mut seen, slot));
    at.metrics.publish(Observer::Database, seen);
    let mut observed = at.lock();
    if observed.database.error.is_some() {
        tracing::info!("PostgreSQL answers again");
    }
    observed.database = SeenDatabase { up: true, error: None, lag: Some(report) };
}

fn set_standby(seen: &mut Seen, standby: &StandbyReport) {
    seen.set_known(&figures::REPLAY_LAG_SECONDS, standby.replay_lag.map(|lag| lag.as_secs_f64()));
    seen.set(&figures::REPLAY_LAG_KNOWN, flag(standby.replay_lag_is_exact));
    seen.set_known(&figures::REPLAY_LAG_BYTES, standby.replay_lag_bytes.map(float));
    seen.set_known(&figures::RECEIVE_LAG_BYTES, standby.receive_lag_bytes.map(float));
    seen.set(&figures::REPLAY_PAUSED, flag(standby.pause != Pause::NotPaused));
    seen.set(&figures::RECEIVER_STREAMING, flag(standby.receiver == Streaming::Streaming));
    seen.set(&figures::APPLY_DELAY, standby.apply_delay.as_secs_f64());
    let conflicts = standby.conflicts;
    for (cause, count) in [
        ("tablespace", conflicts.tablespace),
        ("lock", conflicts.lock),
        ("snapshot", conflicts.snapshot),
        ("bufferpin", conflicts.bufferpin),
        ("deadlock", conflicts.deadlock),
    ] {
        seen.set_for(&figures::CONFLICTS, &[cause], float(count));
    }
}

fn set_replica(seen: &mut Seen, replica: &ReplicaReport) {
    let name = replica.name.as_str();
    seen.set_for(&figures::STANDBY_STREAMING, &[name], flag(replica.is_streaming()));
    for (stage, lag) in [("write", replica.write), ("flush", replica.flush), ("replay", replica.replay)] {
        if let Some(seconds) = lag.seconds {
            seen.set_for(&figures::STANDBY_LAG_SECONDS, &[name, stage], seconds.as_secs_f64());
        }
        if let Some(bytes) = lag.bytes {
            seen.set_for(&figures::STANDBY_LAG_BYTES, &[name, stage], float(bytes));
        }
    }
}

fn set_slot(seen: &mut Seen, slot: &SlotReport) {
    let name = slot.name.as_str();
    seen.set_for(&figures::SLOT_ACTIVE, &[name], flag(slot.active));
    seen.set_for(&figures::SLOT_LOST, &[name], flag(slot.is_lost()));
    if let Some(retained) = slot.retained_bytes {
        seen.set_for(&figures::SLOT_RETAINED, &[name], float(retained));
    }
    if let Some(safe) = slot.safe_bytes {
        seen.set_for(&figures::SLOT_SAFE, &[name], float(safe));
    }
    if let Some(until) = slot.until_lost {
        seen.set_for(&figures::SLOT_UNTIL_LOST, &[name], until.as_secs_f64());
    }
}

fn flag(is_set: bool) -> f64 {
    if is_set { 1.0 } else { 0.0 }
}

fn float(number: u64) -> f64 {
    number as f64
}
