//! The configuration: one TOML file, read once at start.
//!
//! Sources → [`raw::RawConfig`] (unknown keys refused) → validation that collects *all*
//! errors → [`Config`]. Nothing here holds a secret: credentials come from the environment
//! (see [`crate::store`]), so printing a configuration is always safe but for a password in
//! `cluster.connection`, which [`Config::display`] hides.
//!
//! A module never sees the whole: it takes its own options, made from this by `cli`.

mod amount;
mod check;
mod connections;
mod http;
mod lag;
mod promotion;
mod raw;
mod vacuum;

use crate::store::StoreOptions;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use check::ConfigError;
pub use connections::Connections;
pub use http::Http;
pub use lag::Lag;
pub use promotion::{HaProxy, OldSessions, PgBouncer, Promotion};
pub use vacuum::Vacuum;

/// Where the configuration is looked for when neither `--config` nor `WALD_CONFIG` names one.
pub const DEFAULT_PATH: &str = "/etc/wald/wald.toml";

/// A checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file that it was read from.
    pub path: PathBuf,
    /// Where `AWS_…` variables stand that the environment does not have.
    pub environment_file: Option<PathBuf>,
    /// Where and how the repository is reached.
    pub repository: StoreOptions,
    /// The cluster that is archived.
    pub cluster: Cluster,
    /// The agent's own place on the host.
    pub agent: Agent,
    /// What `[archive]` says.
    pub archive: Archive,
    /// What `[restore]` says.
    pub restore: Restore,
    /// What `[backup]` says.
    pub backup: Backup,
    /// What `[retention]` says.
    pub retention: Retention,
    /// What `[verify]` says.
    pub verify: Verify,
    /// What `[http]` says.
    pub http: Http,
    /// What `[lag]` says.
    pub lag: Lag,
    /// What `[vacuum]` says.
    pub vacuum: Vacuum,
    /// What `[connections]` says.
    pub connections: Connections,
    /// What `[promotion]` says.
    pub promotion: Promotion,
}

/// `[cluster]`
#[derive(Clone, Debug)]
pub struct Cluster {
    /// The data directory; absent on a host that only restores.
    pub data_dir: Option<PathBuf>,
    /// A libpq connection string.
    pub connection: String,
}

/// `[agent]`
#[derive(Clone, Debug)]
pub struct Agent {
    /// The Unix socket.
    pub socket: PathBuf,
    /// Users that may use the socket beside root and the agent's own.
    pub allow_uids: Vec<u32>,
    /// What must survive a restart stands here.
    pub state_dir: PathBuf,
    /// How nice the threads are that hash and compress, as in nice(1).
    pub nice: u8,
}

/// Whether and how WAL is compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compression {
    /// zstd at this level.
    Zstd(i32),
    /// Stored as it is, still inside a zstd frame so that every object proves itself alike.
    None,
}

/// `[archive]`
#[derive(Clone, Debug)]
pub struct Archive {
    /// How many files are shipped at once.
    pub concurrency: usize,
    /// Bytes of objects that may be in memory at once.
    pub memory_max_bytes: u64,
    /// More waiting WAL than this is given up; never, where absent.
    pub queue_max_bytes: Option<u64>,
    /// How segments are compressed.
    pub compression: Compression,
    /// After this a request is answered "try again".
    pub timeout: Duration,
}

/// `[restore]`
#[derive(Clone, Debug)]
pub struct Restore {
    /// How many files are fetched at once.
    pub concurrency: usize,
    /// Where prefetched files wait.
    pub spool_dir: PathBuf,
    /// How many bytes may wait there.
    pub spool_max_bytes: u64,
    /// How long a recovery waits for a repository that can't be reached.
    pub patience: Duration,
    /// The same for a standby, which has another source.
    pub standby_patience: Duration,
}

/// How `pg_backup_start` makes its checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Checkpoint {
    /// At once, at the cost of a burst of writes.
    Fast,
    /// Spread over `checkpoint_completion_target`.
    Spread,
}

/// `[backup]`
#[derive(Clone, Debug)]
pub struct Backup {
    /// Parts that are read, compressed and sent at once.
    pub workers: usize,
    /// Raw bytes in one part, about.
    pub part_size_bytes: u64,
    /// Raw bytes read per second at most.
    pub rate_max_bytes: Option<u64>,
    /// zstd level of the parts.
    pub compression_level: i32,
    /// How the backup begins.
    pub checkpoint: Checkpoint,
    /// How long to wait until the WAL that the backup needs is in the repository.
    pub wal_timeout: Duration,
}

/// `[retention]`
#[derive(Clone, Debug)]
pub struct Retention {
    /// Any second of the last so many days shall be a possible recovery target.
    pub window_days: u32,
    /// So many of the newest backups are kept, however old they are.
    pub full_backups_min: u32,
}

/// `[verify]`
#[derive(Clone, Debug)]
pub struct Verify {
    /// Every object is read again within so many days.
    pub reread_days: u32,
    /// A run that repeats reads no more stored bytes than this of what was verified before; what
    /// is new is always read.
    pub max_bytes: Option<u64>,
    /// Stored bytes read per second at most.
    pub rate_max_bytes: Option<u64>,
    /// Objects that are read and proven at once.
    pub workers: usize,
}

impl Config {
    /// Reads and checks `path`.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(path, &text)
    }

    /// Checks a configuration's text; `path` is for messages only.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        check::check(path, raw::parse(path, text)?)
    }

    /// The data directory, or why a command that needs it can't run.
    pub fn data_dir(&self) -> Result<&Path, ConfigError> {
        self.cluster.data_dir.as_deref().ok_or_else(|| ConfigError::Missing {
            path: self.path.clone(),
            key: "cluster.data_dir",
            wanted: "the data directory of the cluster, such as \"/var/lib/postgresql/15/main\"",
        })
    }

    /// The effective configuration as TOML, defaults filled in, a password hidden.
    pub fn display(&self) -> String {
        let mut text = String::new();
        // Writing to a String can't fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "# effective configuration of {}", self.path.display())?;
        let repository = &self.repository;
        writeln!(out, "\n[repository]\nurl = {:?}", repository.url)?;
        if let Some(endpoint) = &repository.s3.endpoint {
            writeln!(out, "endpoint = {endpoint:?}")?;
        }
        if let Some(region) = &repository.s3.region {
            writeln!(out, "region = {region:?}")?;
        }
        writeln!(out, "path_style = {}", repository.s3.path_style)?;
        if let Some(ca_file) = &repository.s3.ca_file {
            writeln!(out, "ca_file = {ca_file:?}")?;
        }
        if let Some(environment_file) = &self.environment_file {
            writeln!(out, "environment_file = {environment_file:?}")?;
        }
        writeln!(out, "connect_timeout = \"{}\"", amount::duration(repository.connect_timeout))?;
        writeln!(out, "request_timeout = \"{}\"", amount::duration(repository.request_timeout))?;
        writeln!(out, "retry_timeout = \"{}\"", amount::duration(repository.retry_timeout))?;
        match repository.lock {
            Some(lock) => {
                writeln!(out, "\n[repository.lock]\nmode = \"{}\"\ndays = {}", lock.mode, lock.days)?
            }
            None => writeln!(out, "\n[repository.lock]\nmode = \"none\"")?,
        }
        writeln!(out, "\n[cluster]")?;
        if let Some(data_dir) = &self.cluster.data_dir {
            writeln!(out, "data_dir = {data_dir:?}")?;
        }
        writeln!(out, "connection = {:?}", hide_password(&self.cluster.connection))?;
        let agent = &self.agent;
        writeln!(out, "\n[agent]\nsocket = {:?}\nallow_uids = {:?}", agent.socket, agent.allow_uids)?;
        writeln!(out, "state_dir = {:?}\nnice = {}", agent.state_dir, agent.nice)?;
        let archive = &self.archive;
        writeln!(out, "\n[archive]\nconcurrency = {}", archive.concurrency)?;
        writeln!(out, "memory_max = \"{}\"", amount::bytes(archive.memory_max_bytes))?;
        if let Some(queue_max) = archive.queue_max_bytes {
            writeln!(out, "queue_max = \"{}\"", amount::bytes(queue_max))?;
        }
        match archive.compression {
            Compression::Zstd(level) => {
                writeln!(out, "compression = \"zstd\"\ncompression_level = {level}")?;
            }
            Compression::None => writeln!(out, "compression = \"none\"")?,
        }
        writeln!(out, "timeout = \"{}\"", amount::duration(archive.timeout))?;
        let restore = &self.restore;
        writeln!(out, "\n[restore]\nconcurrency = {}", restore.concurrency)?;
        writeln!(out, "spool_dir = {:?}", restore.spool_dir)?;
        writeln!(out, "spool_max = \"{}\"", amount::bytes(restore.spool_max_bytes))?;
        writeln!(out, "patience = \"{}\"", amount::duration(restore.patience))?;
        writeln!(out, "standby_patience = \"{}\"", amount::duration(restore.standby_patience))?;
        let backup = &self.backup;
        writeln!(out, "\n[backup]\nworkers = {}", backup.workers)?;
        writeln!(out, "part_size = \"{}\"", amount::bytes(backup.part_size_bytes))?;
        if let Some(rate_max) = backup.rate_max_bytes {
            writeln!(out, "rate_max = \"{}\"", amount::bytes(rate_max))?;
        }
        writeln!(out, "compression_level = {}", backup.compression_level)?;
        let checkpoint = match backup.checkpoint {
            Checkpoint::Fast => "fast",
            Checkpoint::Spread => "spread",
        };
        writeln!(out, "checkpoint = \"{checkpoint}\"")?;
        writeln!(out, "wal_timeout = \"{}\"", amount::duration(backup.wal_timeout))?;
        writeln!(out, "\n[retention]\nwindow_days = {}", self.retention.window_days)?;
        writeln!(out, "full_backups_min = {}", self.retention.full_backups_min)?;
        let verify = &self.verify;
        writeln!(out, "\n[verify]\nreread_days = {}", verify.reread_days)?;
        if let Some(max_bytes) = verify.max_bytes {
            writeln!(out, "max_bytes = \"{}\"", amount::bytes(max_bytes))?;
        }
        if let Some(rate_max) = verify.rate_max_bytes {
            writeln!(out, "rate_max = \"{}\"", amount::bytes(rate_max))?;
        }
        writeln!(out, "workers = {}", verify.workers)?;
        self.http.write(out)?;
        self.lag.write(out)?;
        self.vacuum.write(out)?;
        self.connections.write(out)?;
        self.promotion.write(out)
    }
}

/// Replaces what follows `password=` (quoted or not), and the password of a URI.
fn hide_password(connection: &str) -> String {
    let Ok(parsed) = connection.parse::<tokio_postgres::Config>() else {
        return "(hidden: not a valid connection string)".to_owned();
    };
    match parsed.get_password() {
        None => connection.to_owned(),
        Some(_) => "(hidden: it holds a password; better put it into ~/.pgpass)".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALLEST: &str = "[repository]\nurl = \"file:///srv/wald\"\n";

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(Path::new("wald.toml"), text)
    }

    #[test]
    fn a_url_is_enough() {
        let config = parse(SMALLEST).unwrap();
        assert_eq!(config.archive.concurrency, 4);
        assert_eq!(config.restore.patience, Duration::from_secs(600));
        assert!(config.data_dir().unwrap_err().to_string().contains("cluster.data_dir"));
    }

    #[test]
    fn what_is_displayed_reads_back_as_the_same() {
        let text = format!(
            "{SMALLEST}[cluster]\ndata_dir = \"/pg\"\n[archive]\ncompression = \"none\"\n[restore]\nspool_max = \"100MiB\"\npatience = \"90s\"\n[backup]\nrate_max = \"50MiB\"\n"
        );
        let config = parse(&text).unwrap();
        let shown = config.display();
        assert_eq!(parse(&shown).unwrap().display(), shown);
        assert!(shown.contains("patience = \"90s\"") && shown.contains("spool_max = \"100MiB\""), "{shown}");
        assert_eq!(config.backup.rate_max_bytes, Some(50 << 20));
    }

    #[test]
    fn every_error_is_told_at_once() {
        let error = parse(
            "[repository]\nurl = \"ftp://x\"\nconnect_timeout = \"soon\"\n[archive]\nconcurrency = 0\ncompression = \"lz4\"\n[backup]\npart_size = \"1KiB\"\n",
        )
        .unwrap_err()
        .to_string();
        for key in [
            "repository.url",
            "repository.connect_timeout",
            "archive.concurrency",
            "archive.compression",
            "backup.part_size",
        ] {
            assert!(error.contains(key), "{key} is missing in: {error}");
        }
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let error = parse(&format!("{SMALLEST}[archive]\nconcurency = 4\n")).unwrap_err().to_string();
        assert!(error.contains("concurency") && error.contains("wald.toml"), "{error}");
    }

    #[test]
    fn a_password_is_not_shown() {
        for connection in ["host=/tmp password=hunter2", "postgresql://u:hunter2@h/db", "password = 'hunter2"]
        {
            let text = format!("{SMALLEST}[cluster]\nconnection = \"{connection}\"\n");
            match parse(&text) {
                Ok(config) => assert!(!config.display().contains("hunter2"), "{connection}"),
                Err(error) => assert!(!error.to_string().contains("hunter2"), "{connection}"),
            }
        }
    }
}
