//! The review as a person reads it, and pastes from it: what is not SQL stands behind `--`.

use super::{DatabaseReport, Report};
use std::fmt;
use wald_core::quantity::Bytes;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.standby {
            writeln!(f, "-- This is a standby: run the statements on its primary.")?;
        }
        for database in &self.databases {
            database.print(f)?;
        }
        for missed in &self.skipped {
            writeln!(f, "\n-- not looked into: {}: {}", missed.database, missed.why)?;
        }
        Ok(())
    }
}

impl DatabaseReport {
    fn print(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n-- database {}", self.name)?;
        if self.is_fine() {
            return writeln!(f, "--   nothing to mend");
        }
        for index in &self.invalid {
            writeln!(
                f,
                "-- invalid: {} on {}, {}: {}",
                index.index,
                index.table,
                Bytes(index.bytes),
                index.remark
            )?;
            writeln!(f, "{}", index.statement)?;
        }
        for group in &self.duplicate {
            for other in &group.superfluous {
                write!(
                    f,
                    "-- duplicate: {} is the same as {}, {}",
                    other.index,
                    group.keep,
                    Bytes(other.bytes)
                )?;
                print_end(f, other.statement.as_deref(), other.remark)?;
            }
        }
        if !self.unused.is_empty() {
            self.print_unused(f)?;
        }
        for key in &self.missing {
            writeln!(
                f,
                "-- missing: foreign key {} of {} ({}) has no index: deleting from {} reads all of it",
                key.foreign_key,
                key.table,
                Bytes(key.table_bytes),
                key.referenced
            )?;
            writeln!(f, "{}", key.statement)?;
        }
        Ok(())
    }

    fn print_unused(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.statistics_since, self.statistics_days) {
            (Some(since), Some(days)) => writeln!(
                f,
                "-- unused on this server since {} ({days:.1} days)",
                since.strftime("%Y-%m-%d %H:%MZ")
            )?,
            _ => writeln!(f, "-- unused on this server; since when is not known")?,
        }
        writeln!(
            f,
            "-- Standbys have statistics of their own: run this on each of them before dropping anything."
        )?;
        for index in &self.unused {
            write!(f, "-- unused: {} on {}, {}", index.index, index.table, Bytes(index.bytes))?;
            print_end(f, index.statement.as_deref(), index.remark)?;
        }
        Ok(())
    }

    fn is_fine(&self) -> bool {
        self.invalid.is_empty()
            && self.duplicate.is_empty()
            && self.unused.is_empty()
            && self.missing.is_empty()
    }
}

fn print_end(f: &mut fmt::Formatter<'_>, statement: Option<&str>, remark: Option<&str>) -> fmt::Result {
    match remark {
        Some(remark) => writeln!(f, ": {remark}")?,
        None => writeln!(f)?,
    }
    statement.map_or(Ok(()), |statement| writeln!(f, "{statement}"))
}
