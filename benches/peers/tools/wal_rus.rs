//! WAL-RUS, WAL-G's successor in Rust: through its daemon, and started anew for each file.

use crate::stage::Stage;
use crate::tool::{Installed, Job, Repository, Restore, Tool};
use anyhow::{Context, Result, bail};
use std::env;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use wald_integration::account::{Account, clean_command};
use wald_integration::process::Process;
use wald_integration::run::run;
use wald_integration::s3_client::S3Client;
use wald_integration::seaweed::{ACCESS_KEY, SECRET_KEY};
use wald_integration::wait;

const LISTENS_WITHIN: Duration = Duration::from_secs(30);
const PREFIX: &str = "walrus";

/// One of the two ways to run it.
#[derive(Debug)]
pub struct WalRus {
    name: &'static str,
    daemon: bool,
}

impl WalRus {
    /// `walrus daemon` with `walrus daemon-client` as the command.
    pub fn through_daemon() -> Self {
        Self { name: "wal-rus", daemon: true }
    }

    /// `walrus wal-fetch`, which starts `walrus wal-prefetch` in the background.
    pub fn by_itself() -> Self {
        Self { name: "wal-rus-fetch", daemon: false }
    }
}

impl Tool for WalRus {
    fn name(&self) -> &'static str {
        self.name
    }

    fn about(&self) -> Result<Vec<String>> {
        let mut command = clean_command(program()?);
        command.arg("--version");
        let version = run(command)?.success()?.stdout.trim().to_owned();
        let how = if self.daemon {
            "through `walrus daemon`; WALG_THREADS=2, which its default of one thread for the daemon is not"
        } else {
            "`walrus wal-fetch`, started for each file, with prefetch; archiving and backups are the daemon's rows"
        };
        Ok(vec![
            format!("{version}, from crates.io, release build"),
            format!(
                "{how}; WALG_COMPRESSION_METHOD=zstd, WALG_COMPRESSION_LEVEL=1, WALG_UPLOAD_CONCURRENCY and \
                 WALG_DOWNLOAD_CONCURRENCY as many as the others have workers; `backup-push PGDATA --full`"
            ),
            "plain HTTP; no object lock".to_owned(),
        ])
    }

    fn reads_from(&self) -> &'static str {
        "wal-rus"
    }

    fn make_repository(&self, stage: &Stage, name: &str) -> Result<Repository> {
        let bucket = format!("walrus-{name}");
        stage.server().client().create_bucket(&bucket)?;
        Ok(Repository::Bucket(bucket))
    }

    fn install(&self, stage: &Stage, job: &Job) -> Result<Box<dyn Installed>> {
        let Repository::Bucket(bucket) = job.repository else { bail!("WAL-RUS is compared on S3") };
        let sandbox = stage.sandbox();
        let config = sandbox.write(&format!("{}-walrus.env", job.name), &configuration(bucket, job))?;
        let mut installed = WalRusOn {
            program: program()?,
            config,
            socket: sandbox.dir(&format!("{}-walrus", job.name))?.join("s"),
            data_dir: job.cluster.data_dir().to_owned(),
            account: sandbox.account().clone(),
            client: stage.server().client(),
            bucket: bucket.clone(),
            daemon: None,
        };
        if self.daemon {
            installed.start(&stage.path(&format!("{}-walrus.log", job.name)))?;
        }
        Ok(Box::new(installed))
    }
}

/// `benches/compare` installs it and says where.
fn program() -> Result<PathBuf> {
    let dir = env::var_os("WALRUS_DIR").map(PathBuf::from).context("not installed: WALRUS_DIR is not set")?;
    let program = dir.join("walrus");
    if !program.is_file() {
        bail!("not installed: cargo install wal-rus did not succeed, there is no {}", program.display());
    }
    Ok(program)
}

fn configuration(bucket: &str, job: &Job) -> String {
    let workers = job.workers.to_string();
    let mut text = String::new();
    for (name, value) in [
        ("WALG_S3_PREFIX", format!("s3://{bucket}/{PREFIX}")),
        ("AWS_ENDPOINT", format!("http://127.0.0.1:{}", job.endpoint.http)),
        ("AWS_REGION", "us-east-1".to_owned()),
        ("AWS_S3_FORCE_PATH_STYLE", "true".to_owned()),
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
        ("WALG_COMPRESSION_METHOD", "zstd".to_owned()),
        ("WALG_COMPRESSION_LEVEL", "1".to_owned()),
        ("WALG_UPLOAD_CONCURRENCY", workers.clone()),
        ("WALG_DOWNLOAD_CONCURRENCY", workers),
        ("WALG_LOG_LEVEL", "NORMAL".to_owned()),
        ("PGDATA", job.cluster.data_dir().to_string_lossy().into_owned()),
        ("PGHOST", job.cluster.socket_dir().to_string_lossy().into_owned()),
        ("PGPORT", "5432".to_owned()),
        ("PGUSER", "postgres".to_owned()),
        ("PGDATABASE", "postgres".to_owned()),
    ] {
        let _ = writeln!(text, "{name}={value}");
    }
    text
}

struct WalRusOn {
    program: PathBuf,
    config: PathBuf,
    socket: PathBuf,
    data_dir: PathBuf,
    account: Account,
    client: S3Client,
    bucket: String,
    daemon: Option<Process>,
}

impl WalRusOn {
    fn command(&self, words: &[&str]) -> Command {
        let mut command = self.account.command(&self.program);
        command.arg("--config").arg(&self.config).args(words);
        command
    }

    fn start(&mut self, log: &Path) -> Result<()> {
        let mut command = self.command(&["--threads", "2", "daemon", "--socket"]);
        command.arg(&self.socket);
        let mut daemon = Process::spawn("WAL-RUS's daemon", command, log)?;
        wait::until_true("WAL-RUS's daemon to listen", LISTENS_WITHIN, || {
            daemon.must_run()?;
            Ok(self.socket.exists())
        })?;
        self.daemon = Some(daemon);
        Ok(())
    }

    fn client_line(&self, rest: &str) -> String {
        format!("{} daemon-client --socket {} {rest}", self.program.display(), self.socket.display())
    }
}

impl Installed for WalRusOn {
    fn archive_command(&self) -> Option<String> {
        self.daemon.as_ref()?;
        Some(self.client_line(&format!("wal-push {}/%p", self.data_dir.display())))
    }

    fn restore_command(&self) -> Option<String> {
        Some(match self.daemon {
            Some(_) => self.client_line(&format!("wal-fetch %f {}/%p", self.data_dir.display())),
            None => format!("{} --config {} wal-fetch %f %p", self.program.display(), self.config.display()),
        })
    }

    fn backup(&self) -> Option<Command> {
        self.daemon.as_ref()?;
        let mut command = self.command(&["backup-push"]);
        command.arg(&self.data_dir).arg("--full");
        Some(command)
    }

    fn restore(&self, to: &Path, how: Restore) -> Option<Command> {
        if how == Restore::Delta {
            return None;
        }
        let mut command = self.command(&["backup-fetch"]);
        command.arg(to).arg("LATEST");
        Some(command)
    }

    fn stored(&self) -> Result<Vec<(String, u64)>> {
        self.client.list(&self.bucket, "")
    }

    fn is_wal(&self, name: &str) -> bool {
        name.starts_with("walrus/wal_005/")
    }
}
