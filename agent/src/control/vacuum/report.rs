//! `wald vacuum report`: ages, dead rows, bloat and running vacuums of every database.
//!
//! Invariant: what can't be known (on a standby, without a right, without a second sample) is said
//! to be unknown, with the reason.

use super::bloat::{self, Bloat, BloatOptions};
use super::boost_journal::{Boost, BoostJournal};
use super::running::{self, Running};
use super::settings::{self, Settings};
use super::tables::{self, Table};
use super::transactions;
use crate::clock::Clock;
use crate::control::databases::{self, DatabaseEntry, STATEMENT_TIMEOUT, Skipped};
use crate::database::{Database, DatabaseError, Right};
use crate::explain::chain;
use jiff::Timestamp;
use serde::Serialize;
use std::path::PathBuf;
use std::time::Duration;
use wald_core::autovacuum::TableSettings;
use wald_core::freeze::{FreezeLimits, FreezeState, Rate, STOP_AGE, days_until};

const COMMAND: &str = "vacuum report";
/// What the report looks at.
#[derive(Clone, Debug)]
pub struct ReportOptions {
    /// A libpq connection string.
    pub connection: String,
    /// Where samples of the transaction counters are remembered.
    pub state_dir: PathBuf,
    /// Only this database.
    pub database: Option<String>,
    /// Measure the rate over this time instead of asking earlier samples.
    pub measure: Option<Duration>,
    /// From this age on it is a warning.
    pub freeze_age_warning: u64,
    /// From so much empty space on it is a warning, in percent,
    pub bloat_warning_percent: u32,
    /// in tables of at least so many bytes.
    pub bloat_bytes_min: u64,
}

/// All of it.
#[derive(Debug, Serialize)]
pub struct Report {
    /// By the host's clock.
    pub taken_at: Timestamp,
    /// Whether the server is a standby.
    pub standby: bool,
    /// Ids per day, where known.
    pub rate: Option<Rate>,
    /// `autovacuum_freeze_max_age`
    pub freeze_max_age: u64,
    /// `autovacuum_multixact_freeze_max_age`
    pub multixact_freeze_max_age: u64,
    /// Every database.
    pub databases: Vec<DatabaseReport>,
    /// Vacuums that run now.
    pub running: Vec<Running>,
    /// The boost that may be in force.
    pub boost: Option<Boost>,
    /// What is past a threshold; the first is the most urgent.
    pub warnings: Vec<String>,
    /// What is not known, and why.
    pub remarks: Vec<String>,
    /// Databases that were not looked into, and why.
    pub skipped: Vec<Skipped>,
}

/// An age, and what it means.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Age {
    /// In transaction ids or multixacts.
    pub age: u64,
    /// The verdict.
    pub state: FreezeState,
    /// Days until PostgreSQL forces a vacuum, where the rate is known.
    pub days_until_forced: Option<f64>,
    /// Days until it stops writing.
    pub days_until_stop: Option<f64>,
}

/// One database.
#[derive(Debug, Serialize)]
pub struct DatabaseReport {
    /// Its name.
    pub name: String,
    /// `datfrozenxid`
    pub freeze: Age,
    /// `datminmxid`
    pub multixact: Age,
    /// Its tables, those that need most attention first.
    pub tables: Vec<TableReport>,
}

/// One table.
#[derive(Debug, Serialize)]
pub struct TableReport {
    /// Its oid.
    #[serde(skip)]
    pub oid: u32,
    /// Schema and name, quoted as in SQL.
    pub name: String,
    /// Whether it is a session's own, which autovacuum can't freeze.
    pub temporary: bool,
    /// `relfrozenxid`, of its TOAST table too.
    pub freeze: Age,
    /// `relminmxid`, of its TOAST table too.
    pub multixact: Age,
    /// Rows, where they were counted.
    pub rows: Option<f64>,
    /// Bytes at the last vacuum or analyze, without indexes and TOAST.
    pub bytes: u64,
    /// Dead rows; not known on a standby.
    pub dead_rows: Option<u64>,
    /// More dead rows than this wake autovacuum.
    pub dead_rows_threshold: f64,
    /// Rows inserted since the last vacuum; not known on a standby.
    pub inserted_rows: Option<u64>,
    /// More inserted rows than this wake autovacuum; absent where that is off.
    pub inserted_rows_threshold: Option<f64>,
    /// Whether autovacuum is on for it.
    pub autovacuum: bool,
    /// Whether a threshold is passed.
    pub vacuum_due: bool,
    /// Its own storage parameters.
    pub options: Vec<String>,
    /// Last vacuum by hand.
    pub vacuumed_at: Option<Timestamp>,
    /// Last autovacuum.
    pub autovacuumed_at: Option<Timestamp>,
    /// Empty space, of tables that are large enough.
    pub bloat: Option<Bloat>,
}

/// What all tables of a report are judged by.
struct Judge<'a> {
    options: &'a ReportOptions,
    settings: Settings,
    rate: Option<Rate>,
    standby: bool,
}

/// Looks at everything.
pub async fn collect(options: &ReportOptions, clock: Clock) -> Result<Report, DatabaseError> {
    let session = Database::connect(&options.connection, COMMAND, STATEMENT_TIMEOUT).await?;
    session.demand("see the statistics of all tables and sessions", Right::Monitor).await?;
    let settings = settings::read(&session).await?;
    let standby = session.facts().in_recovery;
    let (system_id, first) = transactions::sample(&session, clock.now()).await?;
    let (rate, mut remarks) = match options.measure {
        None => {
            let pace = transactions::pace(&options.state_dir, &system_id, first);
            (pace.rate, pace.remarks)
        }
        Some(time) => {
            tokio::time::sleep(time).await;
            let (_, second) = transactions::sample(&session, clock.now()).await?;
            (Rate::between(first, second), Vec::new())
        }
    };
    if standby {
        remarks.push(
            "this is a standby: dead rows, last vacuums and running vacuums are known to the primary only; ages and \
             bloat are the primary's as far as they were replayed"
                .to_owned(),
        );
    }
    let boost = BoostJournal::below(&options.state_dir).read().unwrap_or_else(|error| {
        remarks.push(format!("whether a boost is in force can't be told: {}", chain(&error)));
        None
    });
    let mut running = running::read(&session).await?;
    let entries = databases::list(&session, options.database.as_deref()).await?;
    // One session at a time is all that a report takes of max_connections.
    drop(session);
    let judge = Judge { options, settings, rate, standby };
    let (mut databases, mut skipped) = (Vec::new(), Vec::new());
    for entry in &entries {
        let tables = match judge.tables_of(entry).await {
            Ok(tables) => tables,
            Err(missed) => {
                if !entry.is_closed_template() {
                    skipped.push(missed);
                }
                Vec::new()
            }
        };
        for vacuum in running.iter_mut().filter(|vacuum| vacuum.database == entry.name) {
            vacuum.table =
                tables.iter().find(|table| table.oid == vacuum.oid).map(|table| table.name.clone());
        }
        let freeze = judge.freeze(entry.freeze_age, judge.settings.server.freeze_max_age);
        let multixact = judge.multixact(entry.multixact_age, judge.settings.server.multixact_freeze_max_age);
        databases.push(DatabaseReport { name: entry.name.clone(), freeze, multixact, tables });
    }
    let warnings = super::print::warnings(&databases, options);
    Ok(Report {
        taken_at: clock.now(),
        standby,
        rate,
        freeze_max_age: judge.settings.server.freeze_max_age,
        multixact_freeze_max_age: judge.settings.server.multixact_freeze_max_age,
        databases,
        running,
        boost,
        warnings,
        remarks,
        skipped,
    })
}

impl Judge<'_> {
    fn freeze(&self, age: u64, forced: u64) -> Age {
        self.age(age, forced, self.rate.map(|rate| rate.transactions_per_day))
    }

    fn multixact(&self, age: u64, forced: u64) -> Age {
        self.age(age, forced, self.rate.map(|rate| rate.multixacts_per_day))
    }

    fn age(&self, age: u64, forced: u64, per_day: Option<f64>) -> Age {
        let limits = FreezeLimits { warning: self.options.freeze_age_warning, forced };
        let days = |limit| per_day.and_then(|per_day| days_until(age, limit, per_day));
        let (days_until_forced, days_until_stop) = (days(forced), days(STOP_AGE));
        Age { age, state: limits.judge(age), days_until_forced, days_until_stop }
    }

    async fn tables_of(&self, entry: &DatabaseEntry) -> Result<Vec<TableReport>, Skipped> {
        let session = entry.open(&self.options.connection, COMMAND).await?;
        let failed = |error| entry.failed(&error);
        let tables = tables::read(&session).await.map_err(failed)?;
        let options = BloatOptions {
            bytes_min: self.options.bloat_bytes_min,
            warning_percent: self.options.bloat_warning_percent,
            page_size: self.settings.page_size,
        };
        let mut bloat = bloat::measure(&session, &tables, &options).await.map_err(failed)?;
        let mut reports: Vec<TableReport> =
            tables.iter().map(|table| self.table(table, bloat.remove(&table.oid))).collect();
        reports.sort_by(|a, b| b.urgency().cmp(&a.urgency()).then_with(|| a.name.cmp(&b.name)));
        Ok(reports)
    }

    fn table(&self, table: &Table, bloat: Option<Bloat>) -> TableReport {
        let own = TableSettings::new(self.settings.server, &table.options);
        let known = |count: u64| (!self.standby).then_some(count);
        let dead_rows_threshold = own.dead_rows_threshold(table.rows);
        let inserted_rows_threshold = own.inserted_rows_threshold(table.rows);
        #[allow(clippy::cast_precision_loss)] // Counts of rows need no more than 53 bits.
        let passed = |count: u64, threshold: f64| count as f64 > threshold;
        let due = passed(table.dead_rows, dead_rows_threshold)
            || inserted_rows_threshold.is_some_and(|threshold| passed(table.inserted_rows, threshold));
        TableReport {
            oid: table.oid,
            name: table.name.clone(),
            temporary: table.temporary,
            freeze: self.freeze(table.freeze_age, own.effective().freeze_max_age),
            multixact: self.multixact(table.multixact_age, own.effective().multixact_freeze_max_age),
            rows: (table.rows >= 0.0).then_some(table.rows),
            bytes: table.pages.saturating_mul(self.settings.page_size),
            dead_rows: known(table.dead_rows),
            dead_rows_threshold,
            inserted_rows: known(table.inserted_rows),
            inserted_rows_threshold,
            autovacuum: own.effective().enabled && !table.temporary,
            vacuum_due: due && !self.standby,
            options: table.options.clone(),
            vacuumed_at: table.vacuumed_at,
            autovacuumed_at: table.autovacuumed_at,
            bloat,
        }
    }
}

impl TableReport {
    /// Larger is more urgent: an age, then dead rows, then the size.
    fn urgency(&self) -> (FreezeState, bool, u64, u64) {
        let state = self.freeze.state.max(self.multixact.state);
        (state, self.vacuum_due, self.dead_rows.unwrap_or(0), self.bytes)
    }
}
