//! How far the archiver of a cluster has come, read from `pg_wal/archive_status`.

use super::Cluster;
use crate::wait;
use anyhow::{Context, Result};
use std::fs;
use std::time::Duration;

/// How long the archiver may take to hand over what is ready.
const ARCHIVED_WITHIN: Duration = Duration::from_secs(120);

impl Cluster {
    /// Ends the current segment and waits until the archiver has handed it over. Returns its name.
    pub fn wait_archived(&mut self) -> Result<String> {
        let name = self.scalar("select pg_walfile_name(pg_switch_wal())")?;
        let status_dir = self.data_dir.join("pg_wal/archive_status");
        let (ready, done) =
            (status_dir.join(format!("{name}.ready")), status_dir.join(format!("{name}.done")));
        let segment = self.data_dir.join("pg_wal").join(&name);
        wait::until_true(&format!("segment {name} to be archived"), ARCHIVED_WITHIN, || {
            self.running()?.must_run()?;
            // A checkpoint may have recycled the segment together with its `.done`.
            Ok(!ready.exists() && (done.exists() || !segment.exists()))
        })
        .with_context(|| self.log_tail())?;
        Ok(name)
    }

    /// How many files wait for the archiver.
    pub fn archive_backlog(&self) -> Result<usize> {
        let dir = self.data_dir.join("pg_wal/archive_status");
        let entries = fs::read_dir(&dir).with_context(|| format!("listing {}", dir.display()))?;
        Ok(entries.flatten().filter(|e| e.path().extension().is_some_and(|x| x == "ready")).count())
    }
}
