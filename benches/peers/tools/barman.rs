//! Barman's cloud scripts: a Python started anew for each file. Only archiving is compared, and over few
//! segments: it is one at a time, and slow.

use crate::stage::Stage;
use crate::tool::{Installed, Job, Pace, Repository, Tool};
use anyhow::{Context, Result, bail};
use std::env;
use std::path::PathBuf;
use wald_integration::account::clean_command;
use wald_integration::run::run;
use wald_integration::s3_client::S3Client;

/// `barman-cloud-wal-archive`.
#[derive(Debug)]
pub struct Barman;

impl Tool for Barman {
    fn name(&self) -> &'static str {
        "barman-cloud"
    }

    fn about(&self) -> Result<Vec<String>> {
        let dir = directory()?;
        let mut command = clean_command(dir.join("bin/barman-cloud-wal-archive"));
        command.arg("--version").env("PYTHONPATH", &dir);
        let version = run(command)?.success()?.stdout.trim().to_owned();
        Ok(vec![
            format!("{version}, from PyPI"),
            "barman-cloud-wal-archive --zstd --compression-level low; it has no daemon and no concurrency; plain \
             HTTP; no object lock; few segments, one round"
                .to_owned(),
        ])
    }

    fn pace(&self) -> Pace {
        Pace::Slow
    }

    fn make_repository(&self, stage: &Stage, name: &str) -> Result<Repository> {
        let bucket = format!("barman-{name}");
        stage.server().client().create_bucket(&bucket)?;
        Ok(Repository::Bucket(bucket))
    }

    fn install(&self, stage: &Stage, job: &Job) -> Result<Box<dyn Installed>> {
        let Repository::Bucket(bucket) = job.repository else { bail!("Barman is compared on S3") };
        Ok(Box::new(BarmanOn {
            dir: directory()?,
            endpoint: format!("http://127.0.0.1:{}", job.endpoint.http),
            bucket: bucket.clone(),
            credentials: stage.server().credentials().map(|(n, v)| (n.to_owned(), v.to_owned())).into(),
            client: stage.server().client(),
        }))
    }
}

/// `benches/compare` installs it and says where.
fn directory() -> Result<PathBuf> {
    let dir = env::var_os("BARMAN_DIR").map(PathBuf::from).context("not installed: BARMAN_DIR is not set")?;
    if !dir.join("bin/barman-cloud-wal-archive").is_file() {
        bail!("not installed: pip install barman did not succeed");
    }
    Ok(dir)
}

struct BarmanOn {
    dir: PathBuf,
    endpoint: String,
    bucket: String,
    credentials: Vec<(String, String)>,
    client: S3Client,
}

impl Installed for BarmanOn {
    fn environment(&self) -> Vec<(String, String)> {
        let mut environment = self.credentials.clone();
        environment.push(("PYTHONPATH".to_owned(), self.dir.to_string_lossy().into_owned()));
        environment
    }

    fn archive_command(&self) -> Option<String> {
        Some(format!(
            "{}/bin/barman-cloud-wal-archive --cloud-provider aws-s3 --endpoint-url {} --zstd \
             --compression-level low s3://{}/barman main %p",
            self.dir.display(),
            self.endpoint,
            self.bucket
        ))
    }

    fn stored(&self) -> Result<Vec<(String, u64)>> {
        self.client.list(&self.bucket, "")
    }

    fn is_wal(&self, name: &str) -> bool {
        name.starts_with("barman/main/wals/")
    }
}
