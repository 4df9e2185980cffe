//! The agent's eyes: it looks at the database, the repository and this host now and then, for the
//! metrics, `/readyz` and `/status.json`.
//!
//! Invariants: nothing here is on the way of a WAL file, and nothing that archives or restores waits
//! for it; PostgreSQL is asked over one connection with a statement time-out; what could not be seen
//! is absent or says so, and never a value of before. All of it begins before the repository
//! answers: an outage is when somebody looks.

mod backlog;
mod contact;
mod controls;
mod database;
mod holdings;
mod readiness;
mod replay;

use crate::clock::Clock;
use crate::metrics::{Metrics, Observer, Seen, figures};
use crate::store::StoreOptions;
use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use serde::Serialize;
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wald_core::lag::{Report, Thresholds};
use wald_core::rto::{RPO_BUDGET, RTO_BUDGET, RtoEstimate};

pub use readiness::not_ready;

/// What to look at.
#[derive(Clone, Debug)]
pub struct ObserveOptions {
    /// The cluster on this host; where there is none, neither `pg_wal` nor PostgreSQL is looked at.
    pub data_dir: Option<PathBuf>,
    /// A libpq connection string.
    pub connection: String,
    /// Where journals, runs and rates are.
    pub state_dir: PathBuf,
    /// The repository.
    pub repository: StoreOptions,
    /// When lag is too long.
    pub thresholds: Thresholds,
}

/// What was seen last.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Observed {
    /// Whether the agent takes requests.
    pub serving: bool,
    /// What waits to be archived.
    pub backlog: Option<SeenBacklog>,
    /// Why that could not be seen, the last time.
    pub backlog_error: Option<String>,
    /// Whether the repository answers.
    pub repository: SeenRepository,
    /// What it holds.
    pub holdings: Option<SeenHoldings>,
    /// PostgreSQL.
    pub database: SeenDatabase,
    /// What changes of the operators are under way.
    pub controls: SeenControls,
}

/// What waits to be archived.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct SeenBacklog {
    /// Files.
    pub files: u64,
    /// Their bytes, about.
    pub bytes: u64,
    /// The first of them.
    pub oldest: Option<String>,
    /// Since when it waits.
    pub oldest_since: Option<Timestamp>,
}

/// Whether the repository answers.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SeenRepository {
    /// When it last did.
    pub answered_at: Option<Timestamp>,
    /// Why it did not, the last time.
    pub error: Option<String>,
}

/// What the repository holds.
#[derive(Clone, Debug, Serialize)]
pub struct SeenHoldings {
    /// When this was read.
    pub read_at: Timestamp,
    /// Number of backups.
    pub backups: usize,
    /// The newest one.
    pub last_backup: Option<String>,
    /// When it ended.
    pub last_backup_ended_at: Option<Timestamp>,
    /// The earliest target.
    pub window_from: Option<Timestamp>,
    /// The latest.
    pub window_until: Option<Timestamp>,
    /// How long a recovery would take.
    pub rto: Option<RtoEstimate>,
    /// Until when the newest backup is locked.
    pub locked_until: Option<Timestamp>,
}

/// PostgreSQL, as it was seen last.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SeenDatabase {
    /// Whether it answered.
    pub up: bool,
    /// Why not.
    pub error: Option<String>,
    /// Its replication.
    pub lag: Option<Report>,
}

/// What changes of the operators are under way.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct SeenControls {
    /// Whether autovacuum is boosted.
    pub boost: bool,
    /// At which step a promotion is that has begun and is not over.
    pub promotion: Option<String>,
}

/// Where all observers work.
#[derive(Clone)]
pub struct Observatory {
    options: Arc<ObserveOptions>,
    observed: Arc<Mutex<Observed>>,
    metrics: Arc<Metrics>,
    clock: Clock,
}

impl Observatory {
    /// Begins to look; ends with `stop`.
    pub fn open(
        options: ObserveOptions,
        metrics: Arc<Metrics>,
        clock: Clock,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        let thresholds = options.thresholds;
        let observatory = Self { options: Arc::new(options), observed: Arc::default(), metrics, clock };
        let mut fixed = Seen::default();
        fixed.set_for(&figures::BUILD, &[env!("CARGO_PKG_VERSION")], 1.0);
        fixed.set(&figures::RPO_BUDGET, RPO_BUDGET.as_secs_f64());
        fixed.set(&figures::RTO_BUDGET, RTO_BUDGET.as_secs_f64());
        fixed.set(&figures::LAG_WARNING, thresholds.warning.as_secs_f64());
        fixed.set(&figures::LAG_CRITICAL, thresholds.critical.as_secs_f64());
        observatory.metrics.publish(Observer::Agent, fixed);
        let at = || observatory.clone();
        let mut watches: Vec<BoxFuture<'static, ()>> = vec![
            contact::watch(at()).boxed(),
            holdings::watch(at()).boxed(),
            controls::watch(at()).boxed(),
            replay::watch(at()).boxed(),
        ];
        if let Some(data_dir) = &observatory.options.data_dir {
            watches.push(backlog::watch(at(), data_dir.clone()).boxed());
            watches.push(database::watch(at()).boxed());
        }
        for watch in watches {
            let stop = stop.clone();
            tasks.spawn(async move { stop.run_until_cancelled(watch).await });
        }
        observatory
    }

    /// The agent takes requests from now on.
    pub fn serving(&self) {
        self.lock().serving = true;
    }

    /// What was seen last.
    pub fn observed(&self) -> Observed {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Observed> {
        // Plain values: a panic while the lock is held leaves them as they are.
        self.observed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks again and again, with the time between two looks that the last look asked for.
async fn repeat<F: Future<Output = Duration>>(mut look: impl FnMut() -> F) {
    loop {
        let pause = look().await;
        tokio::time::sleep(pause).await;
    }
}
