//! Asking a cluster, through the real `psql`.

use super::Cluster;
use crate::run::{Finished, run};
use anyhow::{Context, Result};

/// Separates the columns of a row; no text in the suites holds it.
const COLUMN_SEPARATOR: char = '\u{1f}';

impl Cluster {
    /// Runs statements, each on its own, stopping at the first error. Any exit code is `Ok`.
    pub fn try_sql(&self, sql: &str) -> Result<Finished> {
        self.try_sql_in("postgres", sql)
    }

    /// As [`Cluster::try_sql`], in another database.
    pub fn try_sql_in(&self, database: &str, sql: &str) -> Result<Finished> {
        let mut psql = self.command("psql")?;
        psql.args(["--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1"])
            .arg(format!("--field-separator={COLUMN_SEPARATOR}"))
            .arg(format!("--dbname={database}"))
            .args(["--command", sql]);
        run(psql)
    }

    /// Runs statements; an error of any of them is an error.
    pub fn exec(&self, sql: &str) -> Result<()> {
        self.try_sql(sql)?.success()?;
        Ok(())
    }

    /// The only value of the only row.
    pub fn scalar(&self, sql: &str) -> Result<String> {
        let value = self.rows(sql)?.into_iter().next().and_then(|row| row.into_iter().next());
        value.with_context(|| format!("no row from: {sql}"))
    }

    /// All rows, each with its columns as text; null is the empty text.
    pub fn rows(&self, sql: &str) -> Result<Vec<Vec<String>>> {
        self.rows_in("postgres", sql)
    }

    /// As [`Cluster::rows`], in another database.
    pub fn rows_in(&self, database: &str, sql: &str) -> Result<Vec<Vec<String>>> {
        let text = self.try_sql_in(database, sql)?.success()?.stdout;
        Ok(text.lines().map(|line| line.split(COLUMN_SEPARATOR).map(str::to_owned).collect()).collect())
    }
}
