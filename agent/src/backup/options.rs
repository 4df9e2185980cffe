//! What a base backup needs to know before it begins.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

/// How the server makes the checkpoint that a backup begins with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CheckpointMode {
    /// At once: more I/O, and the backup begins within seconds.
    Fast,
    /// Spread over `checkpoint_completion_target` of `checkpoint_timeout`: minutes.
    Spread,
}

/// One backup.
#[derive(Clone, Debug)]
pub struct BackupOptions {
    /// The server's data directory, as this process sees it.
    pub data_dir: PathBuf,
    /// How to reach the server, in libpq's keywords and values: a Unix socket, or TCP without TLS.
    pub connection: String,
    /// Parts that are read, compressed and uploaded at the same time.
    pub workers: NonZeroUsize,
    /// About how many bytes of files go into one part.
    pub part_bytes: u64,
    /// zstd's level.
    pub compression_level: i32,
    /// The checkpoint at the beginning.
    pub checkpoint: CheckpointMode,
    /// How long to wait for the next missing WAL segment after the files are stored.
    pub wal_timeout: Duration,
}
