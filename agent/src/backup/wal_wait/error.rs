//! Why a backup's WAL can't be counted on.

use super::local::LocalError;
use crate::store::StoreError;
use std::time::Duration;
use wald_core::frame::FrameError;
use wald_core::lsn::Lsn;
use wald_core::segment::{SegmentName, SegmentSize};
use wald_core::system_id::SystemId;
use wald_core::wal_file::WalFile;

/// Why WAL is missing, or is not this cluster's.
#[derive(Debug, thiserror::Error)]
pub enum WalWaitError {
    /// A segment did not come.
    #[error(
        "WAL segment {segment} is not in the repository after {} s ({present} of {wanted} segments are); \
         without it the backup can't be restored, so it was not recorded: {}",
        waited.as_secs(), advice(*from_standby)
    )]
    Missing {
        /// The first that is missing.
        segment: SegmentName,
        /// How many of the segments are there.
        present: usize,
        /// How many are needed.
        wanted: usize,
        /// How long nothing has come.
        waited: Duration,
        /// Whether the backup was taken on a standby.
        from_standby: bool,
    },
    /// The object is there, and PostgreSQL has not heard so.
    #[error(
        "WAL segment {segment} is in the repository, and after {} s PostgreSQL still has it marked as not \
         archived, so the backup was not recorded: check pg_stat_archiver and PostgreSQL's log",
        waited.as_secs()
    )]
    NotConfirmed {
        /// The first such segment.
        segment: SegmentName,
        /// How long nothing has come.
        waited: Duration,
    },
    /// The object is not a sealed WAL file.
    #[error(
        "what the repository holds as WAL segment {segment} can't be used, so the backup was not recorded: \
         only wald may archive into this repository"
    )]
    NotSealed {
        /// The segment.
        segment: SegmentName,
        /// What is wrong with the header.
        #[source]
        source: FrameError,
    },
    /// The object is something else's.
    #[error(
        "what the repository holds as WAL segment {segment} is {found_file} of {found_bytes} bytes of the \
         cluster with system identifier {found}, this cluster has {expected} and segments of {} bytes; the \
         backup was not recorded: each cluster needs a repository of its own",
        segment_size.bytes()
    )]
    Foreign {
        /// The segment.
        segment: SegmentName,
        /// The file that the header names.
        found_file: WalFile,
        /// Its length.
        found_bytes: u64,
        /// The cluster that the header names.
        found: SystemId,
        /// This cluster.
        expected: SystemId,
        /// The size of its segments.
        segment_size: SegmentSize,
    },
    /// The object has other content than the server's own segment.
    #[error(
        "the repository holds WAL segment {segment} with BLAKE3 {stored}, the server's own has {local}: another \
         cluster or a clone archives into this repository; the backup was not recorded, because it can't be \
         restored from there: give each cluster a repository of its own"
    )]
    OtherContent {
        /// The segment.
        segment: SegmentName,
        /// The hash in the object's header.
        stored: Box<blake3::Hash>,
        /// The hash of the server's file.
        local: Box<blake3::Hash>,
    },
    /// The server's own segment could not be read.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// The repository could not be asked.
    #[error("can't tell whether the repository holds WAL segment {segment}, which the backup needs")]
    Store {
        /// The segment.
        segment: SegmentName,
        /// Why.
        #[source]
        source: StoreError,
    },
    /// No list of segments leads from start to stop.
    #[error("no WAL segments lead from {start} to {stop}")]
    Span {
        /// Where the backup began.
        start: Lsn,
        /// Where it ended.
        stop: Lsn,
    },
}

fn advice(from_standby: bool) -> &'static str {
    if from_standby {
        "check archiving on the primary (pg_stat_archiver and its log); a primary without writes archives its \
         last segment only after archive_timeout or SELECT pg_switch_wal() there"
    } else {
        "check pg_stat_archiver, PostgreSQL's log, and that archive_command uses this repository"
    }
}
