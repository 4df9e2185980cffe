//! The configuration, cut into what each module needs.

use super::run::Failure;
use crate::archive::ArchiveOptions;
use crate::backup::{BackupOptions, CheckpointMode};
use crate::codec::Niceness;
use crate::codec::seal::Effort;
use crate::config::{Checkpoint, Compression, Config};
use crate::control::vacuum::boost::BoostOptions;
use crate::http::HttpOptions;
use crate::observe::ObserveOptions;
use crate::restore::RestoreOptions;
use crate::retain::RetainOptions;
use crate::supervise::AgentOptions;
use crate::verify::{VerifyArgs, VerifyOptions};
use jiff::SignedDuration;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use wald_core::backup_id::BackupId;
use wald_core::lag::Thresholds;
use wald_core::retention::Policy;
use wald_core::sequence::Limits;

/// Segments that may be confirmed ahead of PostgreSQL: a bound on what is remembered, far
/// beyond what concurrency and memory let be in flight.
const AHEAD_MAX: usize = 256;

/// Threads that wait for the network; the work is done on the codec's.
const IO_THREADS: usize = 2;

pub(super) fn archive(config: &Config, data_dir: PathBuf) -> ArchiveOptions {
    let archive = &config.archive;
    ArchiveOptions {
        data_dir,
        effort: match archive.compression {
            Compression::Zstd(level) => Effort::Level(level),
            Compression::None => Effort::Stored,
        },
        timeout: archive.timeout,
        memory_max_bytes: archive.memory_max_bytes,
        limits: Limits { in_flight_max: archive.concurrency, held_max: AHEAD_MAX },
    }
}

pub(super) fn restore(config: &Config) -> RestoreOptions {
    let restore = &config.restore;
    RestoreOptions {
        concurrency: restore.concurrency,
        spool_dir: restore.spool_dir.clone(),
        spool_max_bytes: restore.spool_max_bytes,
        patience: restore.patience,
        standby_patience: restore.standby_patience,
    }
}

pub(super) fn agent(config: &Config) -> AgentOptions {
    AgentOptions {
        repository: config.repository.clone(),
        socket: config.agent.socket.clone(),
        allow_uids: config.agent.allow_uids.clone(),
        archive: config.cluster.data_dir.clone().map(|data_dir| archive(config, data_dir)),
        queue_max_bytes: config.archive.queue_max_bytes,
        backup: config.cluster.data_dir.clone().map(|data_dir| backup(config, data_dir)),
        state_dir: config.agent.state_dir.clone(),
        boost: boost(config),
        restore: restore(config),
        niceness: niceness(config),
        http: http(config),
        observe: ObserveOptions {
            data_dir: config.cluster.data_dir.clone(),
            connection: config.cluster.connection.clone(),
            state_dir: config.agent.state_dir.clone(),
            repository: config.repository.clone(),
            thresholds: lag(config),
        },
    }
}

fn http(config: &Config) -> Option<HttpOptions> {
    let http = &config.http;
    Some(HttpOptions {
        listen: http.listen?,
        tls: http.tls.clone(),
        basic_auth_file: http.basic_auth_file.clone(),
    })
}

pub(super) fn boost(config: &Config) -> BoostOptions {
    BoostOptions { connection: config.cluster.connection.clone(), state_dir: config.agent.state_dir.clone() }
}

pub(super) fn niceness(config: &Config) -> Niceness {
    Niceness::new(config.agent.nice)
}

pub(super) fn backup(config: &Config, data_dir: PathBuf) -> BackupOptions {
    let backup = &config.backup;
    BackupOptions {
        data_dir,
        connection: config.cluster.connection.clone(),
        workers: NonZeroUsize::new(backup.workers).unwrap_or(NonZeroUsize::MIN),
        part_bytes: backup.part_size_bytes,
        rate_max_bytes: backup.rate_max_bytes,
        compression_level: backup.compression_level,
        checkpoint: match backup.checkpoint {
            Checkpoint::Fast => CheckpointMode::Fast,
            Checkpoint::Spread => CheckpointMode::Spread,
        },
        wal_timeout: backup.wal_timeout,
    }
}

pub(super) fn verify(config: &Config, args: &VerifyArgs, backup: Option<BackupId>) -> VerifyOptions {
    let verify = &config.verify;
    VerifyOptions {
        depth: args.depth.into(),
        full: args.full,
        backup,
        policy: Policy::new(config.retention.window_days, config.retention.full_backups_min),
        lock: config.repository.lock,
        reread: SignedDuration::from_hours(24 * i64::from(verify.reread_days)),
        max_bytes: verify.max_bytes,
        rate_max_bytes: verify.rate_max_bytes,
        workers: NonZeroUsize::new(verify.workers).unwrap_or(NonZeroUsize::MIN),
    }
}

/// Requests of `wald expire` that are in flight: locks are read and extended one by one, so the
/// time that an answer takes decides how long a run does.
const EXPIRE_REQUESTS: NonZeroUsize = match NonZeroUsize::new(32) {
    Some(requests) => requests,
    None => NonZeroUsize::MIN,
};

pub(super) fn retain(config: &Config) -> RetainOptions {
    RetainOptions {
        policy: Policy::new(config.retention.window_days, config.retention.full_backups_min),
        lock: config.repository.lock,
        requests: EXPIRE_REQUESTS,
    }
}

pub(super) fn lag(config: &Config) -> Thresholds {
    Thresholds { warning: config.lag.warning, critical: config.lag.critical }
}

/// The I/O runtime.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(IO_THREADS).enable_all().build()?)
}
