//! wald itself, on S3 in a bucket with object lock as it is meant to be run, and in a directory.

use crate::stage::Stage;
use crate::tool::{Installed, Job, Repository, RepositoryState, Restore, Tool};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;
use wald_integration::agent::Agent;
use wald_integration::s3_client::S3Client;
use wald_integration::seaweed::{ACCESS_KEY, SECRET_KEY};
use wald_integration::wald::{Place, Settings, Wald as Installation};

/// One of its two kinds of repository.
#[derive(Debug)]
pub struct Wald {
    name: &'static str,
    on_s3: bool,
}

impl Wald {
    /// With a bucket.
    pub fn on_s3() -> Self {
        Self { name: "wald", on_s3: true }
    }

    /// With a directory.
    pub fn in_a_directory() -> Self {
        Self { name: "wald-file", on_s3: false }
    }
}

impl Tool for Wald {
    fn name(&self) -> &'static str {
        self.name
    }

    fn about(&self) -> Result<Vec<String>> {
        let levels = "compression_level = 1 for WAL (the default is 3) and for backups: zstd's level 1 with a hash \
                      table of 16 KiB and matches from 5 bytes on";
        let place = if self.on_s3 {
            "a bucket with object lock, every object locked for 7 days in governance mode, created \
             only if absent, with a checksum; plain HTTP"
        } else {
            "a directory, every file and directory fsynced"
        };
        Ok(vec![format!("of this checkout, release build; {levels}"), place.to_owned()])
    }

    fn make_repository(&self, stage: &Stage, name: &str) -> Result<Repository> {
        if self.on_s3 {
            let bucket = format!("wald-{name}");
            stage.server().client().create_locked_bucket(&bucket)?;
            Ok(Repository::Bucket(bucket))
        } else {
            Ok(Repository::Directory(stage.sandbox().dir(&format!("{name}-repository"))?))
        }
    }

    fn install(&self, stage: &Stage, job: &Job) -> Result<Box<dyn Installed>> {
        let place = match job.repository {
            Repository::Directory(path) => Place::Directory(path.clone()),
            Repository::Bucket(bucket) => Place::Bucket {
                endpoint: format!("http://127.0.0.1:{}", job.endpoint.http),
                bucket: bucket.clone(),
                credentials: stage
                    .server()
                    .credentials()
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .into(),
            },
        };
        let workers = job.workers.to_string();
        let mut settings = Settings::new()
            .set("archive", "concurrency", &workers)
            .set("archive", "compression_level", "1")
            .set("restore", "concurrency", &workers)
            .set("backup", "workers", &workers);
        if self.on_s3 {
            settings = settings.set_text("repository.lock", "mode", "governance");
        }
        let wald = Installation::configure(stage.sandbox(), job.name, job.cluster, &place, settings)?;
        if job.state == RepositoryState::New {
            wald.succeed(&["repo", "init"])?;
        }
        let agent = Agent::start(stage.sandbox(), job.name, wald)?;
        Ok(Box::new(Running { agent, place }))
    }
}

struct Running {
    agent: Agent,
    place: Place,
}

impl Installed for Running {
    fn environment(&self) -> Vec<(String, String)> {
        self.agent
            .environment()
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    fn archive_command(&self) -> Option<String> {
        Some(self.agent.archive_command())
    }

    fn restore_command(&self) -> Option<String> {
        Some(self.agent.restore_command())
    }

    fn backup(&self) -> Option<Command> {
        Some(self.agent.command(&["backup"]))
    }

    fn restore(&self, to: &Path, how: Restore) -> Option<Command> {
        let mut command = self.agent.command(&["restore", "--to"]);
        command.arg(to);
        if how == Restore::Delta {
            command.arg("--delta");
        }
        Some(command)
    }

    fn stored(&self) -> Result<Vec<(String, u64)>> {
        stored_in(&self.place)
    }

    fn is_wal(&self, name: &str) -> bool {
        name.starts_with("wald/wal/") || name.starts_with("wal/")
    }
}

fn stored_in(place: &Place) -> Result<Vec<(String, u64)>> {
    match place {
        Place::Directory(_) => {
            Ok(place.objects("")?.into_iter().map(|stored| (stored.name, stored.bytes)).collect())
        }
        Place::Bucket { endpoint, bucket, .. } => {
            let address = endpoint.strip_prefix("http://").context("an endpoint without http://")?;
            S3Client::new(address, ACCESS_KEY, SECRET_KEY).list(bucket, "")
        }
    }
}

/// Where wald's programs are: they were built by `benches/compare`.
pub fn programs() -> Option<PathBuf> {
    std::env::var_os("WALD_BIN_DIR").map(PathBuf::from)
}
