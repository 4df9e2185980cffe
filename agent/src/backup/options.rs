//! What a base backup needs to know before it begins.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;
use wald_core::segment::SegmentSize;
use wald_core::system_id::SystemId;

/// How the server makes the checkpoint that a backup begins with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CheckpointMode {
    /// At once: more I/O, and the backup begins within seconds.
    Fast,
    /// Spread over `checkpoint_completion_target` of `checkpoint_timeout`: minutes.
    Spread,
}

/// The cluster that the repository belongs to; a backup of any other is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClusterIdentity {
    /// The cluster's system identifier.
    pub system_id: SystemId,
    /// The size of its WAL segments.
    pub segment_size: SegmentSize,
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
    /// Bytes of files that are read per second, by all workers together.
    pub rate_max_bytes: Option<u64>,
    /// zstd's level.
    pub compression_level: i32,
    /// The checkpoint at the beginning.
    pub checkpoint: CheckpointMode,
    /// How long to wait for the next missing WAL segment after the files are stored.
    pub wal_timeout: Duration,
}
