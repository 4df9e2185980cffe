//! The report as a person reads it, and its warnings in words.

use super::bloat::Method;
use super::report::{Age, DatabaseReport, Report, ReportOptions, TableReport};
use super::running::Running;
use std::fmt;
use wald_core::freeze::{FreezeState, STOP_AGE};
use wald_core::quantity::{Bytes, Count};

/// So many tables of a database are printed; JSON has all.
const TABLES_SHOWN: usize = 10;

/// What is past a threshold, the most urgent first.
pub(super) fn warnings(databases: &[DatabaseReport], options: &ReportOptions) -> Vec<String> {
    let mut ages: Vec<(FreezeState, String)> = Vec::new();
    let mut rest = Vec::new();
    for database in databases {
        let place = format!("database {}", database.name);
        age_warning(&mut ages, &place, &database.freeze, &database.multixact, options);
        let old = |table: &&TableReport| table.freeze.state.max(table.multixact.state) > FreezeState::Ok;
        // Where a database is old most of its tables are; the first ones stand for all of them.
        for table in database.tables.iter().filter(old).take(TABLES_SHOWN) {
            let place = format!("{}: {}", database.name, table.name);
            age_warning(&mut ages, &place, &table.freeze, &table.multixact, options);
        }
        let more = database.tables.iter().filter(old).count().saturating_sub(TABLES_SHOWN);
        if more > 0 {
            ages.push((FreezeState::Ok, format!("{}: {more} more tables are old", database.name)));
        }
        for table in &database.tables {
            table_warnings(&mut rest, &database.name, table, options);
        }
    }
    ages.sort_by_key(|(state, _)| std::cmp::Reverse(*state));
    ages.into_iter().map(|(_, text)| text).chain(rest).collect()
}

fn table_warnings(into: &mut Vec<String>, database: &str, table: &TableReport, options: &ReportOptions) {
    let place = format!("{database}: {}", table.name);
    if table.temporary && table.freeze.state > FreezeState::Ok {
        into.push(format!(
            "{place} is a temporary table: only its session can freeze it; end that session, or drop the table"
        ));
    }
    if table.vacuum_due && !table.autovacuum {
        into.push(format!("{place} needs a vacuum, and autovacuum is off for it"));
    }
    if let Some(percent) = bloated(table, options) {
        into.push(format!(
            "{place} is {percent:.0}% empty ({}): a VACUUM does not give that back; pg_repack on a replica and \
             then a switchover does (`wald promote`)",
            method(table)
        ));
    }
}

fn age_warning(
    into: &mut Vec<(FreezeState, String)>,
    place: &str,
    freeze: &Age,
    multixact: &Age,
    options: &ReportOptions,
) {
    for (age, unit) in [(freeze, "transaction"), (multixact, "multixact")] {
        let what = match age.state {
            FreezeState::Ok => continue,
            FreezeState::Warning => format!("the warning is at {}", options.freeze_age_warning),
            FreezeState::Forced => "PostgreSQL forces a vacuum".to_owned(),
            FreezeState::Critical => format!("PostgreSQL stops writing at {STOP_AGE}: VACUUM it now"),
        };
        let left =
            age.days_until_stop.map(|days| format!(", {days:.0} days before PostgreSQL stops writing"));
        let text = format!("{place} is {} old; {what}{}", Count(age.age, unit), left.unwrap_or_default());
        into.push((age.state, text));
    }
}

fn bloated(table: &TableReport, options: &ReportOptions) -> Option<f64> {
    let percent = table.bloat.as_ref()?.percent?;
    (percent >= f64::from(options.bloat_warning_percent)).then_some(percent)
}

fn method(table: &TableReport) -> &'static str {
    match table.bloat.as_ref().map(|bloat| bloat.method) {
        Some(Method::Statistics) => "estimated from statistics",
        Some(Method::Pgstattuple) => "counted by pgstattuple_approx",
        Some(Method::Unknown) | None => "not known",
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rate {
            Some(rate) => writeln!(
                f,
                "rate       {:.0} transactions and {:.0} multixacts a day, measured over {:.0} s",
                rate.transactions_per_day, rate.multixacts_per_day, rate.measured_over_s
            )?,
            None => writeln!(f, "rate       not known")?,
        }
        writeln!(
            f,
            "forced at  {} transactions, {} multixacts",
            self.freeze_max_age, self.multixact_freeze_max_age
        )?;
        for database in &self.databases {
            database.print(f)?;
        }
        writeln!(f, "\nrunning vacuums{}", if self.running.is_empty() { ": none" } else { "" })?;
        for vacuum in &self.running {
            writeln!(f, "  {vacuum}")?;
        }
        if let Some(boost) = &self.boost {
            writeln!(f, "\nboost {}", super::boost::in_words(boost))?;
        }
        for missed in &self.skipped {
            writeln!(f, "\nnot looked into: {}: {}", missed.database, missed.why)?;
        }
        for remark in &self.remarks {
            writeln!(f, "\nnote: {remark}")?;
        }
        for warning in &self.warnings {
            writeln!(f, "\nwarning: {warning}")?;
        }
        Ok(())
    }
}

impl DatabaseReport {
    fn print(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\ndatabase {}", self.name)?;
        writeln!(f, "  {:<10} {}", "freeze age", self.freeze)?;
        writeln!(f, "  {:<10} {}", "multixacts", self.multixact)?;
        for table in self.tables.iter().take(TABLES_SHOWN) {
            table.print(f)?;
        }
        let more = self.tables.len().saturating_sub(TABLES_SHOWN);
        if more > 0 {
            writeln!(f, "  and {more} more tables that need less attention (--json has all)")?;
        }
        Ok(())
    }
}

impl TableReport {
    fn print(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  {}  {}, age {}", self.name, Bytes(self.bytes), self.freeze)?;
        let dead = self.dead_rows.map_or("not known".to_owned(), |dead| dead.to_string());
        write!(f, "    dead rows {dead} of {:.0}", self.dead_rows_threshold)?;
        if let (Some(inserted), Some(threshold)) = (self.inserted_rows, self.inserted_rows_threshold) {
            write!(f, ", inserted {inserted} of {threshold:.0}")?;
        }
        let due = match (self.vacuum_due, self.autovacuum) {
            (true, true) => ", VACUUM DUE",
            (true, false) => ", VACUUM DUE, autovacuum off",
            (false, true) => "",
            (false, false) => ", autovacuum off",
        };
        write!(f, "{due}; last vacuum {}", time(self.vacuumed_at))?;
        write!(f, ", autovacuum {}", time(self.autovacuumed_at))?;
        if let Some(bloat) = &self.bloat {
            match bloat.percent {
                Some(percent) => write!(f, "; {percent:.0}% empty, {}", method(self))?,
                None => write!(f, "; bloat not known")?,
            }
            if let Some(remark) = &bloat.remark {
                write!(f, " ({remark})")?;
            }
        }
        if !self.options.is_empty() {
            write!(f, "; {}", self.options.join(", "))?;
        }
        writeln!(f)
    }
}

fn time(at: Option<jiff::Timestamp>) -> String {
    at.map_or("never".to_owned(), |at| at.strftime("%Y-%m-%d %H:%M:%SZ").to_string())
}

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.age)?;
        match self.state {
            FreezeState::Ok => {}
            FreezeState::Warning => write!(f, " WARNING")?,
            FreezeState::Forced => write!(f, " FORCED VACUUM")?,
            FreezeState::Critical => write!(f, " CRITICAL")?,
        }
        if let (Some(forced), Some(stop)) = (self.days_until_forced, self.days_until_stop) {
            write!(f, " ({forced:.1} days until a forced vacuum, {stop:.1} until writing stops)")?;
        }
        Ok(())
    }
}

impl fmt::Display for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = self.table.clone().unwrap_or_else(|| format!("oid {}", self.oid));
        write!(
            f,
            "{}: {table}, {}, {} of {} pages scanned",
            self.database, self.phase, self.pages_scanned, self.pages
        )?;
        write!(f, ", {} vacuumed, passes over its indexes: {}", self.pages_vacuumed, self.index_passes)?;
        write!(f, ", for {:.0} s (pid {})", self.seconds, self.pid)?;
        if self.for_wraparound { write!(f, ", to prevent wraparound") } else { Ok(()) }
    }
}
