//! What a restore did.

use serde::Serialize;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;
use wald_core::quantity::{Bytes, Count};
use wald_core::recovery_plan::RecoveryPlan;

/// A finished restore.
#[derive(Clone, Debug, Serialize)]
pub struct RecoverReport {
    /// What was planned.
    pub plan: RecoveryPlan,
    /// Where the data directory is.
    pub data_dir: PathBuf,
    /// Files that were written.
    pub files: u64,
    /// Their size.
    pub bytes: u64,
    /// Files that `--delta` found unchanged.
    pub kept_files: u64,
    /// Their size.
    pub kept_bytes: u64,
    /// Files and links that `--delta` removed because the backup has none of their name.
    pub removed_files: u64,
    /// Bytes that came from the repository.
    pub downloaded_bytes: u64,
    /// The major version of a cluster whose `postgresql.conf` stands outside of its data
    /// directory, as on Debian, and so is not in the backup: the server is to be told where it
    /// is.
    pub configuration_elsewhere: Option<String>,
    /// From the first look at the repository to the last sync.
    #[serde(serialize_with = "seconds")]
    pub took: Duration,
}

fn seconds<S: serde::Serializer>(took: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(took.as_secs_f64())
}

impl RecoverReport {
    /// Bytes written in a second.
    pub fn bytes_per_second(&self) -> u64 {
        let millis = self.took.as_millis().max(1);
        u64::try_from(u128::from(self.bytes) * 1000 / millis).unwrap_or(u64::MAX)
    }
}

impl fmt::Display for RecoverReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "restored {} to {}: {}, {} in {:.1} s ({}/s), {} downloaded",
            self.plan.backup.id,
            self.data_dir.display(),
            Count(self.files, "file"),
            Bytes(self.bytes),
            self.took.as_secs_f64(),
            Bytes(self.bytes_per_second()),
            Bytes(self.downloaded_bytes),
        )?;
        if self.kept_files > 0 {
            writeln!(f, "kept {}, {}", Count(self.kept_files, "unchanged file"), Bytes(self.kept_bytes))?;
        }
        if self.removed_files > 0 {
            writeln!(f, "removed {} that the backup does not have", Count(self.removed_files, "file"))?;
        }
        writeln!(f, "start the server to recover to {}", self.plan.target)?;
        let Some(major) = &self.configuration_elsewhere else { return Ok(()) };
        let directory = self.data_dir.display();
        writeln!(
            f,
            "no postgresql.conf is in {directory}, because the backed up cluster had it elsewhere. If it is in \
             /etc/postgresql/{major}/main, start the server with\n  \
             pg_ctl -D {directory} start -o \"-c config_file=/etc/postgresql/{major}/main/postgresql.conf \
             -c data_directory={directory}\"\n\
             or restore into the cluster's own directory, and start it with\n  \
             pg_ctlcluster {major} main start"
        )
    }
}
