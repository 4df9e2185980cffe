//! From raw to checked: every value against what is allowed, all errors collected, and the
//! defaults, each with its reason.

use super::amount::{parse_bytes, parse_duration};
use super::raw::RawConfig;
use super::{Agent, Archive, Backup, Checkpoint, Cluster, Compression, Config, Restore, Retention, Verify};
use crate::store::{AwsEnvironment, S3Options, StoreOptions, TryCounts};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use wald_core::object_lock::{LockMode, LockPolicy};

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("can't read the configuration {}; name another with --config or WALD_CONFIG", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not TOML, an unknown key, or a value of the wrong kind.
    #[error("{}: {detail}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and what.
        detail: String,
    },
    /// Values that are not allowed; all of them.
    #[error("{}: {} not allowed:{}", path.display(), plural(problems.len()), list(problems))]
    Values {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problems: Vec<Problem>,
    },
    /// A key that this command needs.
    #[error("{}: {key} is not set: expected {wanted}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// What should stand there.
        wanted: &'static str,
    },
}

/// One value that is not allowed.
#[derive(Debug)]
pub struct Problem {
    key: &'static str,
    found: String,
    wanted: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}: expected {}", self.key, self.found, self.wanted)
    }
}

fn plural(count: usize) -> String {
    if count == 1 { "1 value is".to_owned() } else { format!("{count} values are") }
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("\n  {problem}")).collect()
}

/// Collects what is wrong while values are taken.
pub(super) struct Checker {
    problems: Vec<Problem>,
}

impl Checker {
    pub(super) fn refuse(&mut self, key: &'static str, found: impl Into<String>, wanted: impl Into<String>) {
        self.problems.push(Problem { key, found: found.into(), wanted: wanted.into() });
    }

    pub(super) fn duration(
        &mut self,
        key: &'static str,
        text: Option<String>,
        default: Duration,
        max: Duration,
    ) -> Duration {
        let Some(text) = text else { return default };
        match parse_duration(&text) {
            Some(duration) if !duration.is_zero() && duration <= max => duration,
            _ => {
                let max = super::amount::duration(max);
                self.refuse(
                    key,
                    format!("{text:?}"),
                    format!("a duration above 0 and up to {max}, such as \"30s\" or \"10m\""),
                );
                default
            }
        }
    }

    pub(super) fn bytes(&mut self, key: &'static str, text: Option<String>, default: u64, min: u64) -> u64 {
        let Some(text) = text else { return default };
        match parse_bytes(&text) {
            Some(bytes) if bytes >= min => bytes,
            _ => {
                let min = super::amount::bytes(min);
                self.refuse(
                    key,
                    format!("{text:?}"),
                    format!("a size of at least {min}, such as \"64MiB\" or \"1GiB\""),
                );
                default
            }
        }
    }

    pub(super) fn number<T: TryFrom<i64> + Copy + fmt::Display + PartialOrd>(
        &mut self,
        key: &'static str,
        number: Option<i64>,
        default: T,
        (min, max): (T, T),
    ) -> T {
        let Some(number) = number else { return default };
        match T::try_from(number) {
            Ok(number) if (min..=max).contains(&number) => number,
            _ => {
                self.refuse(key, number.to_string(), format!("a whole number from {min} to {max}"));
                default
            }
        }
    }

    pub(super) fn absolute(&mut self, key: &'static str, path: Option<PathBuf>, default: &str) -> PathBuf {
        let path = path.unwrap_or_else(|| PathBuf::from(default));
        if !path.is_absolute() {
            self.refuse(key, format!("{path:?}"), "an absolute path");
        }
        path
    }
}

const DAY: Duration = Duration::from_secs(86_400);
pub(super) const HOUR: Duration = Duration::from_secs(3600);
/// A hundred years, which is the longest that S3 locks an object.
const WINDOW_DAYS_MAX: u32 = 36_500;

pub(super) fn check(path: &Path, raw: RawConfig) -> Result<Config, ConfigError> {
    let mut checker = Checker { problems: Vec::new() };
    let window_days =
        checker.number("retention.window_days", raw.retention.window_days, 7, (1, WINDOW_DAYS_MAX));
    let config = Config {
        path: path.to_owned(),
        environment_file: raw.repository.environment_file.clone(),
        repository: repository(&mut checker, raw.repository, window_days),
        cluster: cluster(&mut checker, raw.cluster),
        agent: Agent {
            socket: checker.absolute("agent.socket", raw.agent.socket, wald_client::shim::SOCKET_DEFAULT),
            allow_uids: raw.agent.allow_uids,
            state_dir: checker.absolute("agent.state_dir", raw.agent.state_dir, "/var/lib/wald"),
            // The database's own processes go first; on an idle processor nothing is lost by it.
            nice: checker.number("agent.nice", raw.agent.nice, 5, (0, 19)),
        },
        archive: archive(&mut checker, raw.archive),
        restore: restore(&mut checker, raw.restore),
        backup: backup(&mut checker, raw.backup),
        retention: Retention {
            window_days,
            full_backups_min: checker.number(
                "retention.full_backups_min",
                raw.retention.full_backups_min,
                2,
                (1, 10_000),
            ),
        },
        verify: verify(&mut checker, raw.verify, window_days),
        http: super::http::check(&mut checker, raw.http),
        lag: super::lag::check(&mut checker, raw.lag),
        vacuum: super::vacuum::check(&mut checker, raw.vacuum),
        connections: super::connections::check(&mut checker, raw.connections),
        promotion: super::promotion::check(&mut checker, raw.promotion),
    };
    if checker.problems.is_empty() {
        Ok(config)
    } else {
        Err(ConfigError::Values { path: path.to_owned(), problems: checker.problems })
    }
}

fn repository(checker: &mut Checker, raw: super::raw::RawRepository, window_days: u32) -> StoreOptions {
    let wanted = "\"s3://BUCKET[/PREFIX]\" or \"file:///DIRECTORY\"";
    let url = raw.url.unwrap_or_default();
    let known =
        url::Url::parse(&url).ok().filter(holds_no_credentials).is_some_and(|parsed| match parsed.scheme() {
            "s3" => parsed.host_str().is_some_and(|bucket| !bucket.is_empty()),
            "file" => parsed.host_str().unwrap_or_default().is_empty() && parsed.path().len() > 1,
            _ => false,
        });
    if !known {
        if may_hold_credentials(&url) {
            let wanted = format!(
                "{wanted} without credentials; put them into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            );
            checker.refuse("repository.url", "(not shown)", wanted);
        } else {
            checker.refuse("repository.url", format!("{url:?}"), wanted);
        }
    }
    if let Some(endpoint) = &raw.endpoint {
        let known = url::Url::parse(endpoint)
            .is_ok_and(|parsed| matches!(parsed.scheme(), "http" | "https") && holds_no_credentials(&parsed));
        if !known {
            checker.refuse(
                "repository.endpoint",
                "(not shown)",
                "an http:// or https:// URL without credentials",
            );
        }
    }
    let lock = lock(checker, raw.lock, url.starts_with("s3:"), window_days);
    StoreOptions {
        url,
        lock,
        s3: S3Options {
            // Stores other than Amazon's are commonly reached by an endpoint whose name does
            // not resolve per bucket.
            path_style: raw.path_style.unwrap_or(raw.endpoint.is_some()),
            // Naming an http:// endpoint is saying so.
            allow_http: raw.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://")),
            endpoint: raw.endpoint,
            region: raw.region,
            ca_file: raw.ca_file,
            environment: environment(checker, raw.environment_file),
        },
        connect_timeout: checker.duration(
            "repository.connect_timeout",
            raw.connect_timeout,
            Duration::from_secs(5),
            HOUR,
        ),
        // A segment of 16 MiB at 0.3 MiB/s; PostgreSQL asks again anyway.
        request_timeout: checker.duration(
            "repository.request_timeout",
            raw.request_timeout,
            Duration::from_secs(60),
            HOUR,
        ),
        retry_timeout: checker.duration(
            "repository.retry_timeout",
            raw.retry_timeout,
            Duration::from_secs(30),
            HOUR,
        ),
        tries: TryCounts::default(),
    }
}

/// On S3 an object is locked unless the configuration says otherwise; a directory has no locks.
fn lock(
    checker: &mut Checker,
    raw: Option<super::raw::RawLock>,
    on_s3: bool,
    window_days: u32,
) -> Option<LockPolicy> {
    let raw = raw.unwrap_or_default();
    let named = raw.mode.is_some();
    let mode = match raw.mode.as_deref() {
        None => Some(LockMode::Compliance),
        Some("none") => None,
        Some("governance") => Some(LockMode::Governance),
        Some("compliance") => Some(LockMode::Compliance),
        Some(other) => {
            let wanted = "\"compliance\", \"governance\" or \"none\"";
            checker.refuse("repository.lock.mode", format!("{other:?}"), wanted);
            None
        }
    };
    let days = checker.number("repository.lock.days", raw.days, window_days.max(7), (1, WINDOW_DAYS_MAX));
    let mode = mode?;
    if !on_s3 {
        if named {
            let wanted = "\"none\": a directory has no object lock";
            checker.refuse("repository.lock.mode", format!("\"{mode}\""), wanted);
        }
        return None;
    }
    if days < window_days {
        let wanted = format!("at least the {window_days} days of retention.window_days");
        checker.refuse("repository.lock.days", days.to_string(), wanted);
    }
    Some(LockPolicy { mode, days })
}

fn holds_no_credentials(url: &url::Url) -> bool {
    url.username().is_empty() && url.password().is_none()
}

/// Whether a refused text may hold a user or a password. It may be no URL at all: the secret of a
/// key pair often holds a slash, and then the parser finds the user's name to be a host's, with
/// the beginning of the secret for its port.
fn may_hold_credentials(text: &str) -> bool {
    let after_scheme = text.split_once(':').map_or("", |(_, rest)| rest);
    text.contains(['@', '%', '?']) || after_scheme.contains(':')
}

/// The process's own variables, and those of a file. The file's content is never part of a message.
fn environment(checker: &mut Checker, file: Option<PathBuf>) -> AwsEnvironment {
    const KEY: &str = "repository.environment_file";
    let process = AwsEnvironment::of_process();
    let Some(file) = file else { return process };
    match std::fs::read_to_string(&file) {
        Ok(text) => match process.clone().with_file_at(&file, &text) {
            Ok(environment) => return environment,
            Err(line) => checker.refuse(KEY, format!("{file:?}"), format!("NAME=VALUE in its line {line}")),
        },
        Err(error) => {
            checker.refuse(KEY, format!("{file:?}"), format!("a file that can be read here ({error})"));
        }
    }
    process
}

fn cluster(checker: &mut Checker, raw: super::raw::RawCluster) -> Cluster {
    if let Some(data_dir) = raw.data_dir.as_ref().filter(|data_dir| !data_dir.is_absolute()) {
        checker.refuse("cluster.data_dir", format!("{data_dir:?}"), "an absolute path");
    }
    let connection =
        raw.connection.unwrap_or_else(|| "host=/var/run/postgresql user=postgres dbname=postgres".to_owned());
    if connection.parse::<tokio_postgres::Config>().is_err() {
        checker.refuse(
            "cluster.connection",
            "(not shown)",
            "a libpq connection string such as \"host=/run/postgresql user=postgres\"",
        );
    }
    Cluster { data_dir: raw.data_dir, connection }
}

fn archive(checker: &mut Checker, raw: super::raw::RawArchive) -> Archive {
    // Level 3: what is sent in quiet times; ratio and speed as measured in FACTS.
    let level = checker.number("archive.compression_level", raw.compression_level, 3, (-7, 19));
    let compression = match raw.compression.as_deref() {
        None | Some("zstd") => Compression::Zstd(level),
        Some("none") => Compression::None,
        Some(other) => {
            checker.refuse("archive.compression", format!("{other:?}"), "\"zstd\" or \"none\"");
            Compression::Zstd(level)
        }
    };
    // Above 32 nothing is gained and memory is lost.
    let concurrency = checker.number("archive.concurrency", raw.concurrency, 4, (1, 64));
    Archive {
        concurrency,
        queue_max_bytes: raw.queue_max.map(|text| checker.bytes("archive.queue_max", Some(text), 0, 1 << 20)),
        memory_max_bytes: checker.bytes(
            "archive.memory_max",
            raw.memory_max,
            memory_for(concurrency),
            1 << 20,
        ),
        compression,
        timeout: checker.duration(
            "archive.timeout",
            raw.timeout,
            Duration::from_secs(60),
            Duration::from_secs(540),
        ),
    }
}

/// Two segments of 16 MiB that can't be compressed at all, and for each place more what one takes
/// that can.
fn memory_for(concurrency: usize) -> u64 {
    const TWO_SEGMENTS: u64 = 32 << 20;
    const COMPRESSED: u64 = 5 << 20;
    let more = u64::try_from(concurrency.saturating_sub(4)).unwrap_or(u64::MAX);
    TWO_SEGMENTS.saturating_add(COMPRESSED.saturating_mul(more))
}

fn restore(checker: &mut Checker, raw: super::raw::RawRestore) -> Restore {
    Restore {
        concurrency: checker.number("restore.concurrency", raw.concurrency, 4, (1, 64)),
        spool_dir: checker.absolute("restore.spool_dir", raw.spool_dir, "/var/lib/wald/spool"),
        spool_max_bytes: checker.bytes("restore.spool_max", raw.spool_max, 1 << 30, 1 << 20),
        // Long enough for a store's fail-over, short enough that a person is told in time. The
        // shim waits for an hour at most.
        patience: checker.duration("restore.patience", raw.patience, Duration::from_secs(600), HOUR),
        standby_patience: checker.duration(
            "restore.standby_patience",
            raw.standby_patience,
            Duration::from_secs(5),
            HOUR,
        ),
    }
}

fn backup(checker: &mut Checker, raw: super::raw::RawBackup) -> Backup {
    let checkpoint = match raw.checkpoint.as_deref() {
        None | Some("fast") => Checkpoint::Fast,
        Some("spread") => Checkpoint::Spread,
        Some(other) => {
            checker.refuse("backup.checkpoint", format!("{other:?}"), "\"fast\" or \"spread\"");
            Checkpoint::Fast
        }
    };
    Backup {
        workers: checker.number("backup.workers", raw.workers, 2, (1, 64)),
        part_size_bytes: checker.bytes("backup.part_size", raw.part_size, 1 << 30, 1 << 20),
        rate_max_bytes: raw.rate_max.map(|text| checker.bytes("backup.rate_max", Some(text), 0, 1 << 20)),
        compression_level: checker.number("backup.compression_level", raw.compression_level, 1, (-7, 19)),
        checkpoint,
        wal_timeout: checker.duration("backup.wal_timeout", raw.wal_timeout, Duration::from_secs(600), DAY),
    }
}

/// While one object is waited for, another one is proven: also where there is only one core.
const VERIFY_WORKERS: usize = 4;

fn verify(checker: &mut Checker, raw: super::raw::RawVerify, window_days: u32) -> Verify {
    Verify {
        reread_days: checker.number("verify.reread_days", raw.reread_days, window_days, (1, WINDOW_DAYS_MAX)),
        max_bytes: raw.max_bytes.map(|text| checker.bytes("verify.max_bytes", Some(text), 0, 1 << 20)),
        rate_max_bytes: raw.rate_max.map(|text| checker.bytes("verify.rate_max", Some(text), 0, 1 << 20)),
        workers: checker.number("verify.workers", raw.workers, VERIFY_WORKERS, (1, 64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::raw::RawConfig;

    fn refusal(url: &str, endpoint: Option<&str>) -> String {
        let mut raw = RawConfig::default();
        raw.repository.url = Some(url.to_owned());
        raw.repository.endpoint = endpoint.map(str::to_owned);
        check(Path::new("wald.toml"), raw).map(|_| "nothing").unwrap_err().to_string()
    }

    #[test]
    fn credentials_in_a_url_are_refused_and_not_shown() {
        for url in [
            "s3://KEYID:hunter2@bucket",
            "s3://KEYID:hun/ter2@bucket/prefix",
            "s3://KEYID@bucket",
            "s3://:hunter2@bucket",
            "s3://KEYID:hunter2%40bucket",
            "s3://KEYID:hunter2",
            "s3:KEYID:hunter2@bucket",
            "KEYID:hunter2@bucket",
            "https://bucket.example.org/x?X-Amz-Credential=KEYID&X-Amz-Signature=hunter2",
            "file://KEYID:hunter2@host/srv",
        ] {
            let error = refusal(url, None);
            assert!(error.contains("repository.url = (not shown)"), "{url}: {error}");
            for secret in ["hunter2", "ter2", "KEYID"] {
                assert!(!error.replace("AWS_ACCESS_KEY_ID", "").contains(secret), "{url}: {error}");
            }
        }
        for endpoint in ["http://KEYID:hunter2@host", "https://KEYID@host"] {
            let error = refusal("s3://bucket", Some(endpoint));
            assert!(error.contains("repository.endpoint = (not shown)"), "{endpoint}: {error}");
        }
    }

    fn with_lock(url: &str, mode: Option<&str>, days: Option<i64>) -> Result<Option<LockPolicy>, String> {
        let mut raw = RawConfig::default();
        raw.repository.url = Some(url.to_owned());
        raw.repository.lock = Some(super::super::raw::RawLock { mode: mode.map(str::to_owned), days });
        raw.retention.window_days = Some(10);
        let config = check(Path::new("wald.toml"), raw).map_err(|error| error.to_string())?;
        Ok(config.repository.lock)
    }

    #[test]
    fn on_s3_objects_are_locked_at_least_for_the_window_unless_told_otherwise() {
        let compliance = |days| Ok(Some(LockPolicy { mode: LockMode::Compliance, days }));
        assert_eq!(with_lock("s3://bucket", None, None), compliance(10));
        assert_eq!(with_lock("s3://bucket", Some("compliance"), Some(30)), compliance(30));
        assert_eq!(with_lock("s3://bucket", Some("none"), None), Ok(None));
        assert_eq!(with_lock("file:///srv", Some("none"), None), Ok(None));
        for (url, mode, days, wanted) in [
            ("s3://bucket", Some("legal"), None, "repository.lock.mode"),
            ("s3://bucket", Some("governance"), Some(9), "retention.window_days"),
            ("file:///srv", Some("governance"), None, "no object lock"),
        ] {
            let error = with_lock(url, mode, days).unwrap_err();
            assert!(error.contains(wanted), "{error}");
        }
    }

    #[test]
    fn a_refused_url_without_credentials_is_shown() {
        for url in ["", "bucket", "gs://bucket", "s3://", "file://srv/wald", "/srv/wald"] {
            let error = refusal(url, None);
            assert!(error.contains(&format!("repository.url = {url:?}")), "{error}");
        }
    }
}
