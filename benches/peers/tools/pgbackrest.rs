//! pgBackRest: asynchronous archiving, as its user guide recommends where throughput counts.

use crate::stage::Stage;
use crate::tool::{Installed, Job, Repository, RepositoryState, Restore, Tool};
use anyhow::{Context, Result, bail};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use wald_integration::account::{Account, clean_command};
use wald_integration::parts;
use wald_integration::run::run;
use wald_integration::s3_client::S3Client;
use wald_integration::seaweed::{ACCESS_KEY, SECRET_KEY};

const STANZA: &str = "main";

/// pgBackRest.
#[derive(Debug)]
pub struct PgBackRest;

impl Tool for PgBackRest {
    fn name(&self) -> &'static str {
        "pgbackrest"
    }

    fn about(&self) -> Result<Vec<String>> {
        let mut command = clean_command(program()?);
        command.arg("version");
        let version = run(command)?.success()?.stdout.trim().to_owned();
        Ok(vec![
            format!("{version}, Debian's package"),
            "archive-async, spool-path, process-max as many as the others have workers, compress-type=zst, \
             compress-level=1, repo1-bundle, start-fast, archive-get-queue-max=1GiB, \
             archive-push-queue-max=1TiB (so that nothing is dropped)"
                .to_owned(),
            "it speaks TLS only, and pays for it here; no object lock".to_owned(),
        ])
    }

    fn make_repository(&self, stage: &Stage, name: &str) -> Result<Repository> {
        let bucket = format!("pgbackrest-{name}");
        stage.server().client().create_bucket(&bucket)?;
        Ok(Repository::Bucket(bucket))
    }

    fn install(&self, stage: &Stage, job: &Job) -> Result<Box<dyn Installed>> {
        let Repository::Bucket(bucket) = job.repository else { bail!("pgBackRest is compared on S3") };
        let program = program()?;
        let dir = stage.sandbox().dir(&format!("{}-pgbackrest", job.name))?;
        for below in ["spool", "lock", "log"] {
            stage.sandbox().dir(&format!("{}-pgbackrest/{below}", job.name))?;
        }
        let config = stage
            .sandbox()
            .write(&format!("{}-pgbackrest.conf", job.name), &configuration(&dir, bucket, job))?;
        let installed = PgBackRestOn {
            program,
            config,
            account: stage.sandbox().account().clone(),
            client: stage.server().client(),
            bucket: bucket.clone(),
        };
        if job.state == RepositoryState::New {
            // Without the server: it reads what it needs from pg_control.
            let mut command = installed.command();
            command.args(["--no-online", "stanza-create"]);
            run(command)?.success().context("creating the stanza")?;
        }
        Ok(Box::new(installed))
    }
}

fn program() -> Result<PathBuf> {
    parts::tool("pgbackrest").context("not installed: apt-get install pgbackrest")
}

fn configuration(dir: &Path, bucket: &str, job: &Job) -> String {
    let mut text = String::from("[global]\n");
    let mut set = |key: &str, value: &str| {
        let _ = writeln!(text, "{key}={value}");
    };
    set("repo1-type", "s3");
    set("repo1-path", "/pgbackrest");
    set("repo1-s3-bucket", bucket);
    set("repo1-s3-endpoint", "127.0.0.1");
    set("repo1-storage-port", &job.endpoint.tls.to_string());
    // The server's certificate signs itself.
    set("repo1-storage-verify-tls", "n");
    set("repo1-s3-uri-style", "path");
    set("repo1-s3-region", "us-east-1");
    set("repo1-s3-key", ACCESS_KEY);
    set("repo1-s3-key-secret", SECRET_KEY);
    set("repo1-bundle", "y");
    set("repo1-retention-full", "9999999");
    set("compress-type", "zst");
    set("compress-level", "1");
    set("process-max", &job.workers.to_string());
    set("start-fast", "y");
    set("archive-async", "y");
    set("archive-push-queue-max", "1TiB");
    set("archive-get-queue-max", "1GiB");
    for (key, below) in [("spool-path", "spool"), ("lock-path", "lock"), ("log-path", "log")] {
        set(key, &dir.join(below).to_string_lossy());
    }
    set("log-level-console", "warn");
    set("log-level-file", "off");
    let _ = writeln!(
        text,
        "[{STANZA}]\npg1-path={}\npg1-socket-path={}\npg1-port=5432\npg1-user=postgres",
        job.cluster.data_dir().display(),
        job.cluster.socket_dir().display()
    );
    text
}

struct PgBackRestOn {
    program: PathBuf,
    config: PathBuf,
    account: Account,
    client: S3Client,
    bucket: String,
}

impl PgBackRestOn {
    fn command(&self) -> Command {
        let mut command = self.account.command(&self.program);
        command.arg(format!("--config={}", self.config.display())).arg(format!("--stanza={STANZA}"));
        command
    }

    fn line(&self, rest: &str) -> String {
        format!("{} --config={} --stanza={STANZA} {rest}", self.program.display(), self.config.display())
    }
}

impl Installed for PgBackRestOn {
    fn archive_command(&self) -> Option<String> {
        Some(self.line("archive-push %p"))
    }

    fn restore_command(&self) -> Option<String> {
        Some(self.line("archive-get %f \"%p\""))
    }

    fn backup(&self) -> Option<Command> {
        let mut command = self.command();
        command.args(["--type=full", "backup"]);
        Some(command)
    }

    fn restore(&self, to: &Path, how: Restore) -> Option<Command> {
        let mut command = self.command();
        command.arg(format!("--pg1-path={}", to.display()));
        if how == Restore::Delta {
            command.arg("--delta");
        }
        command.arg("restore");
        Some(command)
    }

    fn stored(&self) -> Result<Vec<(String, u64)>> {
        self.client.list(&self.bucket, "")
    }

    fn is_wal(&self, name: &str) -> bool {
        name.starts_with("pgbackrest/archive/")
    }
}
