//! The demo's closing table.

use std::time::Duration;

/// What was measured.
#[derive(Debug, Default)]
pub struct Figures {
    /// WAL segments in the repository when the server was killed.
    pub segments: u64,
    /// Their size before compression.
    pub wal_raw_bytes: u64,
    /// Their size in the repository.
    pub wal_stored_bytes: u64,
    /// From the first write until the archive had caught up.
    pub wal_time: Duration,
    /// The backup's objects.
    pub backup_stored_bytes: u64,
    /// The data directory and the tablespace when it was taken.
    pub backup_raw_bytes: u64,
    /// `wald backup`, from start to end.
    pub backup_time: Duration,
    /// `wald restore`, from start to end.
    pub restore_time: Duration,
    /// From the start of the restored server until it took writes.
    pub replay_time: Duration,
    /// Tables compared.
    pub tables: usize,
    /// Rows in them at the noted second.
    pub rows: u64,
    /// Tables that did not come back as they were.
    pub tables_wrong: usize,
}

impl Figures {
    /// The table, one line per figure.
    pub fn table(&self) -> String {
        let lines = [
            (
                "WAL archived",
                format!(
                    "{} segments, {} MiB, stored in {} MiB",
                    self.segments,
                    mib(self.wal_raw_bytes),
                    mib(self.wal_stored_bytes)
                ),
            ),
            (
                "  at",
                format!("{} MiB/s, as fast as it was written", per_second(self.wal_raw_bytes, self.wal_time)),
            ),
            (
                "base backup",
                format!(
                    "{} MiB, stored in {} MiB, in {} ({} MiB/s)",
                    mib(self.backup_raw_bytes),
                    mib(self.backup_stored_bytes),
                    seconds(self.backup_time),
                    per_second(self.backup_raw_bytes, self.backup_time)
                ),
            ),
            ("restore", seconds(self.restore_time)),
            ("replay to the second", seconds(self.replay_time)),
            ("compared", format!("{} tables, {} rows", self.tables, self.rows)),
            ("lost", self.lost()),
        ];
        lines.iter().map(|(name, value)| format!("  {name:<22}{value}\n")).collect()
    }

    fn lost(&self) -> String {
        match self.tables_wrong {
            0 => "0 rows".to_owned(),
            wrong => format!("{wrong} tables did not come back as they were"),
        }
    }
}

/// A duration in seconds with a tenth.
pub fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// Bytes in whole MiB, rounded up.
pub fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

fn per_second(bytes: u64, time: Duration) -> u64 {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
    mib(bytes).saturating_mul(1000) / millis
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_what_was_lost() {
        let good = Figures {
            segments: 3,
            wal_raw_bytes: 48 << 20,
            wal_time: Duration::from_secs(2),
            ..Figures::default()
        };
        assert!(good.table().contains("24 MiB/s"), "{}", good.table());
        assert!(good.table().contains("0 rows"));
        let bad = Figures { tables_wrong: 1, ..Figures::default() };
        assert!(!bad.table().contains("lost                  0 rows"));
    }
}
