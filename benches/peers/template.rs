//! The clusters that all tools work on, made once: a backlog of pgbench's WAL with the base that it
//! starts from, a backlog of WAL that can't be compressed, and a database of some size.
//!
//! A run gets a copy. Segments that wait for the archiver are hard links to the template's: nobody
//! writes into them, for a checkpoint never comes to recycle one (`wal_recycle` is off as well).

use crate::stage::Stage;
use anyhow::{Context, Result, bail};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use wald_integration::postgres::{Cluster, ClusterOptions, Shutdown};

/// PostgreSQL's default, and that of the templates but one.
pub const SEGMENT_BYTES: u64 = 16 << 20;
const ROUND_SECONDS: u32 = 5;
/// More rounds than any machine needs; past them something is wrong.
const ROUNDS_MAX: u32 = 400;

/// A stopped cluster with segments that wait to be archived.
#[derive(Debug)]
pub struct Backlog {
    data_dir: PathBuf,
    /// A base backup from before the first of the segments, without WAL; if there is one.
    base: Option<PathBuf>,
    /// The names of the segments, in order.
    segments: Vec<String>,
}

impl Backlog {
    /// pgbench at `scale`, and then `count` segments of its transactions.
    pub fn of_pgbench(stage: &Stage, scale: u32, count: usize) -> Result<Backlog> {
        stage.say(&format!("making {count} segments of pgbench's WAL, scale {scale}"));
        let mut cluster = Cluster::create(stage.sandbox(), "backlog", &options())?;
        cluster.start()?;
        cluster.run("pgbench", &["--initialize", "--quiet", &format!("--scale={scale}")])?;
        let base = stage.path("base");
        let words = ["--wal-method=stream", "--checkpoint=fast", "--no-sync", "-D"];
        let mut take = cluster.command("pg_basebackup")?;
        take.args(words).arg(&base);
        wald_integration::run::run(take)?.success()?;
        let first = first_segment_of(&base)?;
        empty_wal(&base)?;
        let mut rounds = 0;
        while ready(cluster.data_dir())?.iter().filter(|name| **name >= first).count() < count {
            let seconds = format!("--time={ROUND_SECONDS}");
            cluster.run("pgbench", &["--client=8", "--jobs=2", "--no-vacuum", &seconds])?;
            rounds += 1;
            if rounds > ROUNDS_MAX {
                bail!("pgbench does not fill {count} segments");
            }
        }
        cluster.stop(Shutdown::Fast)?;
        Backlog::of(&cluster, Some(base), &first, count)
    }

    /// `count` segments full of random bytes.
    pub fn of_noise(stage: &Stage, count: usize) -> Result<Backlog> {
        stage.say(&format!("making {count} segments of WAL that can't be compressed"));
        let mut cluster = Cluster::create(stage.sandbox(), "noise", &options())?;
        cluster.start()?;
        cluster.exec("create extension pgcrypto")?;
        // Below 2 kB, so that the rows stay in the table; the WAL then holds little else.
        cluster.exec("create table noise (bytes bytea)")?;
        let first = cluster.scalar("select pg_walfile_name(pg_switch_wal() + 1)")?;
        while ready(cluster.data_dir())?.iter().filter(|name| **name >= first).count() < count {
            cluster.exec("insert into noise select gen_random_bytes(1000) from generate_series(1, 15000)")?;
        }
        cluster.stop(Shutdown::Fast)?;
        Backlog::of(&cluster, None, &first, count)
    }

    fn of(cluster: &Cluster, base: Option<PathBuf>, first: &str, count: usize) -> Result<Backlog> {
        let data_dir = cluster.data_dir().to_owned();
        let segments =
            ready(&data_dir)?.into_iter().filter(|name| name.as_str() >= first).take(count).collect();
        Ok(Backlog { data_dir, base, segments })
    }

    /// How many segments wait.
    pub fn segments(&self) -> usize {
        self.segments.len()
    }

    /// A copy of the cluster in which the first `count` segments wait. It is not started, and nothing is
    /// archived before it is told how.
    pub fn copy(&self, stage: &Stage, name: &str, count: usize) -> Result<(Cluster, Vec<String>)> {
        let segments: Vec<String> = self.segments.iter().take(count).cloned().collect();
        let to = stage.path(&format!("{name}-data"));
        copy_without(stage, &self.data_dir, &to, ready_or_nothing)?;
        let (from_wal, to_wal) = (self.data_dir.join("pg_wal"), to.join("pg_wal"));
        for segment in &segments {
            fs::hard_link(from_wal.join(segment), to_wal.join(segment))
                .with_context(|| format!("linking {segment}"))?;
            let mark = to_wal.join(format!("archive_status/{segment}.ready"));
            fs::write(&mark, "").with_context(|| format!("writing {}", mark.display()))?;
            stage.sandbox().account().own(&mark)?;
        }
        Ok((Cluster::adopt(stage.sandbox(), name, &to)?, segments))
    }

    /// A copy of the base backup, to be recovered.
    pub fn copy_base(&self, stage: &Stage, name: &str) -> Result<Cluster> {
        let base = self.base.as_deref().context("this backlog has no base backup")?;
        let to = stage.path(&format!("{name}-data"));
        stage.copy(base, &to)?;
        Cluster::adopt(stage.sandbox(), name, &to)
    }
}

/// A running cluster with a database of about `mib`: half pgbench's tables, half texts that
/// compress less well.
pub fn database(stage: &Stage, mib: u64) -> Result<Cluster> {
    stage.say(&format!("making a database of about {mib} MiB"));
    let mut cluster = Cluster::create(stage.sandbox(), "large", &options())?;
    cluster.start()?;
    // A unit of pgbench's scale is about 15 MiB, a row of ours about 270 bytes with its indexes.
    let (scale, rows) = ((mib / 2 / 15).max(1), mib / 2 * 3900);
    cluster.run("pgbench", &["--initialize", "--quiet", &format!("--scale={scale}")])?;
    cluster.exec(&format!(
        "create table documents as select g as id, gen_random_uuid() as key, md5(g::text) as digest, \
         jsonb_build_object('id', g, 'name', 'name ' || g % 1000, 'tags', array[md5((g * 7)::text), 'tag'], \
         'nested', jsonb_build_object('value', g % 97)) as document from generate_series(1, {rows}) g"
    ))?;
    // Each on its own: VACUUM refuses to be one of several.
    for statement in ["create index on documents (key)", "vacuum analyze", "checkpoint"] {
        cluster.exec(statement)?;
    }
    Ok(cluster)
}

fn options() -> ClusterOptions {
    let settings = [
        "shared_buffers = '256MB'",
        "wal_level = replica",
        "archive_mode = on",
        // Until a run says otherwise segments wait.
        "archive_command = ''",
        "wal_recycle = off",
        "autovacuum = off",
        "max_wal_size = '1GB'",
        "checkpoint_timeout = '1h'",
    ];
    settings.into_iter().fold(ClusterOptions::default(), ClusterOptions::setting)
}

/// Copies a data directory but for files of `pg_wal` that `keep` leaves out.
fn copy_without(
    stage: &Stage,
    from: &Path,
    to: &Path,
    keep: impl Fn(&Path) -> Result<Vec<String>>,
) -> Result<()> {
    fs::create_dir(to).with_context(|| format!("making {}", to.display()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o700)).context("closing a data directory")?;
    stage.sandbox().account().own(to)?;
    for name in names(from)? {
        if name != "pg_wal" && name != "postmaster.pid" {
            stage.copy(&from.join(&name), &to.join(&name))?;
        }
    }
    for dir in ["pg_wal", "pg_wal/archive_status"] {
        let dir = to.join(dir);
        fs::create_dir(&dir).with_context(|| format!("making {}", dir.display()))?;
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).context("closing a directory of WAL")?;
        stage.sandbox().account().own(&dir)?;
    }
    for name in keep(&from.join("pg_wal"))? {
        stage.copy(&from.join("pg_wal").join(&name), &to.join("pg_wal").join(&name))?;
    }
    Ok(())
}

/// The segments that are not complete: what the server needs to start after a clean end.
fn ready_or_nothing(wal: &Path) -> Result<Vec<String>> {
    let waiting = ready(wal.parent().context("a directory of WAL without a parent")?)?;
    let newest = waiting.last().cloned().unwrap_or_default();
    Ok(names(wal)?.into_iter().filter(|name| name.len() == 24 && *name > newest).collect())
}

/// The segments that wait for the archiver, in order.
pub fn ready(data_dir: &Path) -> Result<Vec<String>> {
    let mut found: Vec<String> = names(&data_dir.join("pg_wal/archive_status"))?
        .iter()
        .filter_map(|name| name.strip_suffix(".ready"))
        .filter(|name| name.len() == 24)
        .map(str::to_owned)
        .collect();
    found.sort();
    Ok(found)
}

fn names(dir: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(dir).with_context(|| format!("listing {}", dir.display()))?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
}

/// `START WAL LOCATION: 0/3000028 (file 000000010000000000000003)`
fn first_segment_of(base: &Path) -> Result<String> {
    let label = fs::read_to_string(base.join("backup_label")).context("reading a backup_label")?;
    let name = label.split_once("(file ").and_then(|(_, rest)| rest.split_once(')')).map(|(name, _)| name);
    name.map(str::to_owned).context("a backup_label without a first segment")
}

fn empty_wal(base: &Path) -> Result<()> {
    let wal = base.join("pg_wal");
    for name in names(&wal)?.into_iter().filter(|name| name.len() == 24) {
        fs::remove_file(wal.join(&name)).with_context(|| format!("removing {name}"))?;
    }
    for name in names(&wal.join("archive_status"))? {
        fs::remove_file(wal.join("archive_status").join(&name))
            .with_context(|| format!("removing {name}"))?;
    }
    Ok(())
}
