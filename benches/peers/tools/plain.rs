//! What PostgreSQL's own documentation shows: `cp` to and from a directory, and `pg_basebackup`. No S3,
//! no compression of WAL, no check of anything: a reference, not a peer.

use crate::stage::Stage;
use crate::tool::{Installed, Job, Repository, Tool};
use anyhow::{Result, bail};
use std::path::PathBuf;
use std::process::Command;
use wald_integration::wald::Place;

/// `cp` and `pg_basebackup`.
#[derive(Debug)]
pub struct Plain;

impl Tool for Plain {
    fn name(&self) -> &'static str {
        "cp"
    }

    fn about(&self) -> Result<Vec<String>> {
        Ok(vec![
            "a reference: archive_command = 'cp %p DIRECTORY/%f', restore_command = 'cp DIRECTORY/%f %p', raw \
             segments on the same disk"
                .to_owned(),
            "the backup is pg_basebackup --format=tar --compress=client-zstd:level=1,workers=2 --no-sync into a \
             directory"
                .to_owned(),
        ])
    }

    fn make_repository(&self, stage: &Stage, name: &str) -> Result<Repository> {
        Ok(Repository::Directory(stage.sandbox().dir(&format!("{name}-plain"))?))
    }

    fn install(&self, _stage: &Stage, job: &Job) -> Result<Box<dyn Installed>> {
        let Repository::Directory(dir) = job.repository else { bail!("cp knows no S3") };
        let mut backup = job.cluster.command("pg_basebackup")?;
        backup
            .args(["--format=tar", "--wal-method=none", "--checkpoint=fast", "--no-sync"])
            .arg(format!("--compress=client-zstd:level=1,workers={}", job.workers))
            .arg("-D")
            .arg(dir.join("backup"));
        Ok(Box::new(PlainOn { dir: dir.clone(), backup: std::cell::Cell::new(Some(backup)) }))
    }
}

struct PlainOn {
    dir: PathBuf,
    backup: std::cell::Cell<Option<Command>>,
}

impl Installed for PlainOn {
    fn archive_command(&self) -> Option<String> {
        Some(format!("cp %p {}/%f", self.dir.display()))
    }

    fn restore_command(&self) -> Option<String> {
        Some(format!("cp {}/%f %p", self.dir.display()))
    }

    fn backup(&self) -> Option<Command> {
        self.backup.take()
    }

    fn stored(&self) -> Result<Vec<(String, u64)>> {
        let place = Place::Directory(self.dir.clone());
        Ok(place.objects("")?.into_iter().map(|stored| (stored.name, stored.bytes)).collect())
    }

    fn is_wal(&self, name: &str) -> bool {
        !name.starts_with("backup/")
    }
}
