//! The connections as a person reads them.

use super::Report;
use super::pgbouncer::{Console, ConsoleRow};
use std::fmt;
use wald_core::connection_policy::{LimitState, Usage};

/// So many groups are printed; JSON has all.
const GROUPS_SHOWN: usize = 20;

/// What a person looks for first; JSON has all columns.
const POOL_COLUMNS: [&str; 10] = [
    "database",
    "user",
    "cl_active",
    "cl_waiting",
    "sv_active",
    "sv_idle",
    "sv_used",
    "sv_login",
    "maxwait",
    "pool_mode",
];
const STATS_COLUMNS: [&str; 8] = [
    "database",
    "total_xact_count",
    "total_query_count",
    "total_wait_time",
    "avg_xact_count",
    "avg_query_count",
    "avg_query_time",
    "avg_wait_time",
];

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "server     {} of {} connections are used, {} of them reserved: {} left for ordinary roles{}",
            self.used,
            self.max_connections,
            self.reserved,
            self.headroom,
            mark(self.server_state)
        )?;
        writeln!(f, "policy     {} of {} in all{}", self.used, self.max_total, mark(self.total_state))?;
        for limit in &self.limits {
            writeln!(f, "  {}", Shown(limit))?;
        }
        writeln!(f, "\nconnections (active)  role  application  database")?;
        for group in self.groups.iter().take(GROUPS_SHOWN) {
            let application = if group.application.is_empty() { "(no name)" } else { &group.application };
            writeln!(
                f,
                "  {:>5} ({})  {}  {application}  {}",
                group.connections, group.active, group.role, group.database
            )?;
        }
        let more = self.groups.len().saturating_sub(GROUPS_SHOWN);
        if more > 0 {
            writeln!(f, "  and {more} more groups (--json has all)")?;
        }
        match (&self.pgbouncer, &self.pgbouncer_error) {
            (Some(console), _) => console.print(f),
            (None, Some(error)) => writeln!(f, "\nPgBouncer: {error}"),
            (None, None) => Ok(()),
        }
    }
}

fn mark(state: LimitState) -> &'static str {
    match state {
        LimitState::Ok => "",
        LimitState::Near => "  NEARLY USED UP",
        LimitState::Passed => "  PASSED",
    }
}

struct Shown<'a>(&'a Usage);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shown(usage) = self;
        write!(f, "{}: {}", usage.name, usage.used)?;
        if let Some(max) = usage.max {
            write!(f, " of {max}")?;
        }
        write!(f, "{}", mark(usage.state))?;
        if usage.misplaced {
            write!(f, ": they belong on a standby, and this is the primary")
        } else {
            Ok(())
        }
    }
}

impl Console {
    fn print(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print_rows(f, "PgBouncer's pools", &POOL_COLUMNS, &self.pools)?;
        print_rows(
            f,
            "PgBouncer's statistics (times in microseconds, averages per second)",
            &STATS_COLUMNS,
            &self.stats,
        )?;
        for pool in self.pools.iter().filter(|pool| number(pool, "cl_waiting") > 0) {
            let of = |column: &str| pool.get(column).cloned().unwrap_or_default();
            let (user, database) = (of("user"), of("database"));
            let (waiting, longest) = (of("cl_waiting"), of("maxwait"));
            writeln!(
                f,
                "\nwarning: {waiting} clients of {user} in {database} wait for a server connection, the longest for {longest} s"
            )?;
        }
        Ok(())
    }
}

fn number(row: &ConsoleRow, column: &str) -> u64 {
    row.get(column).and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn print_rows(f: &mut fmt::Formatter<'_>, title: &str, columns: &[&str], rows: &[ConsoleRow]) -> fmt::Result {
    writeln!(f, "\n{title}")?;
    // A version that lacks a column is shown without it.
    let columns: Vec<&str> =
        columns.iter().copied().filter(|column| rows.iter().any(|row| row.contains_key(*column))).collect();
    let cell = |row: &ConsoleRow, column: &str| row.get(column).cloned().unwrap_or_default();
    let widths: Vec<usize> = columns
        .iter()
        .map(|column| rows.iter().map(|row| cell(row, column).len()).max().unwrap_or(0).max(column.len()))
        .collect();
    write!(f, " ")?;
    for (column, width) in columns.iter().zip(&widths) {
        write!(f, " {column:>width$}")?;
    }
    writeln!(f)?;
    for row in rows {
        write!(f, " ")?;
        for (column, width) in columns.iter().zip(&widths) {
            write!(f, " {:>width$}", cell(row, column))?;
        }
        writeln!(f)?;
    }
    Ok(())
}
