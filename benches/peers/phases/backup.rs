//! A full backup of a database of some size, its restore into an empty directory, and its restore over a
//! data directory in which one file of twenty has changed.

use super::{Play, figures_of, plain, shown};
use crate::figures::{Column, Figures, Row, Table, number};
use crate::phases::MIB;
use crate::tool::{Installed, Job, Pace, Repository, RepositoryState, Restore, Tool, stored_bytes};
use anyhow::{Context, Result, bail};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use wald_integration::postgres::{Cluster, Shutdown};
use wald_integration::run::run_within;

/// Parts at the same time: what `wald backup` does by default, and what is compared.
pub const WORKERS: u32 = 2;
const WITHIN: Duration = Duration::from_secs(900);
/// Each twentieth file is changed: 5 in a hundred.
const CHANGED_ONE_OF: usize = 20;
/// In the order of size: a large one is among them.
const FIRST_CHANGED: usize = 3;

const COLUMNS: [Column; 11] = [
    shown("seconds", "s", 1),
    shown("on_disk_seconds", "until on disk s", 1),
    plain("mib_per_second", "MiB/s", 0),
    shown("cpu_seconds", "CPU s", 1),
    plain("cpu_of_postgres_seconds", "of it PostgreSQL", 1),
    plain("cpu_of_server_seconds", "beside it the S3 server", 1),
    shown("memory_peak_mib", "memory MiB", 0),
    plain("memory_largest_mib", "largest process MiB", 0),
    shown("stored_mib", "stored MiB", 0),
    plain("changed_mib", "changed MiB", 0),
    shown("received_mib", "fetched MiB", 1),
];

struct Tables {
    backup: Vec<Row>,
    restore: Vec<Row>,
    delta: Vec<Row>,
}

/// All tools in turn, again and again; each backup is restored before the next tool's turn.
pub fn compare(play: &Play, cluster: &mut Cluster) -> Result<Vec<Table>> {
    let raw = bytes_below(cluster.data_dir(), &|path| !path.starts_with("pg_wal"))?;
    let tools: Vec<_> =
        play.tools.iter().filter(|t| t.pace() == Pace::Full && t.reads_from() == t.name()).collect();
    let rows = || -> Vec<Row> { tools.iter().map(|tool| Row::new(tool.name())).collect() };
    let mut tables = Tables { backup: rows(), restore: rows(), delta: rows() };
    for round in 0..play.rounds {
        for (at, tool) in tools.iter().enumerate() {
            play.stage.say(&format!("backup and restore, round {}: {}", round + 1, tool.name()));
            let outcome = turn(play, tool.as_ref(), cluster, raw, &mut tables, at);
            if let (Err(error), Some(row)) = (outcome, tables.backup.get_mut(at)) {
                row.failures.push(format!("{error:#}"));
            }
            unplug(cluster)?;
            play.stage.settle(cluster.server_id())?;
        }
    }
    let mib = raw >> 20;
    let table = |key, title, notes, rows| Table { key, title, notes, columns: COLUMNS.into(), rows };
    Ok(vec![
        table(
            "backup",
            format!("Full backup of {mib} MiB, {WORKERS} workers, zstd level 1"),
            vec!["The row `cp` is pg_basebackup to a local directory.".to_owned()],
            tables.backup,
        ),
        table(
            "restore",
            format!("Restore of it into an empty directory, {WORKERS} workers"),
            vec![
                "`until on disk` adds a sync right after the tool has ended: wald and pgBackRest make one themselves, \
                 WAL-RUS leaves it to the kernel."
                    .to_owned(),
            ],
            tables.restore,
        ),
        table(
            "delta",
            format!("Restore over a data directory with one file of {CHANGED_ONE_OF} changed"),
            Vec::new(),
            tables.delta,
        ),
    ])
}

fn turn(
    play: &Play,
    tool: &dyn Tool,
    cluster: &mut Cluster,
    raw: u64,
    tables: &mut Tables,
    at: usize,
) -> Result<()> {
    let stage = play.stage;
    let name = stage.name("b");
    let repository = tool.make_repository(stage, &name)?;
    let job = Job {
        name: &name,
        cluster,
        repository: &repository,
        state: RepositoryState::New,
        workers: WORKERS,
        endpoint: stage.endpoint()?,
    };
    let installed = tool.install(stage, &job)?;
    let Some(command) = installed.backup() else { return Ok(()) };
    plug(cluster, installed.as_ref())?;
    let meter = stage.meter();
    let taken = run_within(command, WITHIN)?;
    let usage = meter.finish();
    taken.success()?;
    let mut figures = figures_of(&usage, raw);
    figures.insert("stored_mib", number(stored_bytes(installed.as_ref())?.other) / MIB);
    keep(&mut tables.backup, at, Ok(figures));

    let to = empty_directory(play, &format!("{name}-restored"))?;
    if let Some(command) = installed.restore(&to, Restore::Whole) {
        let whole = restore(play, command, cluster, &to, raw);
        let good = whole.is_ok();
        keep(&mut tables.restore, at, whole);
        if good && installed.restore(&to, Restore::Delta).is_some() {
            let delta = changed_and_restored(play, tool, cluster, &repository, &to, raw);
            keep(&mut tables.delta, at, delta);
        }
    }
    stage.remove(&to)?;
    if let Repository::Directory(dir) = &repository {
        stage.remove(dir)?;
    }
    Ok(())
}

fn keep(rows: &mut [Row], at: usize, run: Result<Figures>) {
    if let Some(row) = rows.get_mut(at) {
        row.add(run);
    }
}

fn restore(
    play: &Play,
    command: std::process::Command,
    cluster: &Cluster,
    to: &Path,
    raw: u64,
) -> Result<Figures> {
    let meter = play.stage.meter();
    let finished = run_within(command, WITHIN)?;
    let usage = meter.finish();
    finished.success()?;
    // A tool may end before what it wrote is on the disk, and the restored server can be lost with the power.
    let begun = Instant::now();
    rustix::fs::sync();
    let on_disk = usage.elapsed + begun.elapsed();
    let below_base = |path: &Path| path.starts_with("base") && !path.ends_with("pg_internal.init");
    let (wanted, got) = (bytes_below(cluster.data_dir(), &below_base)?, bytes_below(to, &below_base)?);
    if got < wanted {
        bail!("{got} of {wanted} bytes of tables and indexes are back");
    }
    let mut figures = figures_of(&usage, raw);
    figures.insert("on_disk_seconds", on_disk.as_secs_f64());
    Ok(figures)
}

/// Through a relay without latency, which counts what comes from the server.
fn changed_and_restored(
    play: &Play,
    tool: &dyn Tool,
    cluster: &Cluster,
    repository: &Repository,
    to: &Path,
    raw: u64,
) -> Result<Figures> {
    let changed = change_files(&to.join("base"))?;
    let detour = play.stage.detour(Duration::ZERO)?;
    let name = play.stage.name("t");
    let (state, endpoint) = (RepositoryState::Filled, detour.endpoint());
    let job = Job { name: &name, cluster, repository, state, workers: WORKERS, endpoint };
    let installed = tool.install(play.stage, &job)?;
    let before = detour.received();
    let command = installed.restore(to, Restore::Delta).context("it has no such restore")?;
    let mut figures = restore(play, command, cluster, to, raw)?;
    figures.insert("received_mib", number(detour.received() - before) / MIB);
    figures.insert("changed_mib", number(changed) / MIB);
    Ok(figures)
}

/// Changes a few bytes in each twentieth file, from the fourth-largest on down; returns how many bytes
/// these files have.
fn change_files(dir: &Path) -> Result<u64> {
    let mut files = Vec::new();
    walk(dir, &mut files)?;
    files.retain(|(_, bytes)| *bytes > 0);
    files.sort_by_key(|(path, bytes)| (*bytes, path.clone()));
    let mut changed = 0;
    for (path, bytes) in files.iter().rev().skip(FIRST_CHANGED).step_by(CHANGED_ONE_OF) {
        let file =
            File::options().write(true).open(path).with_context(|| format!("opening {}", path.display()))?;
        file.write_all_at(b"changed", bytes / 2).with_context(|| format!("changing {}", path.display()))?;
        changed += bytes;
    }
    Ok(changed)
}

/// Starts the cluster with the tool behind its `archive_command`, and empties its backlog.
fn plug(cluster: &mut Cluster, installed: &dyn Installed) -> Result<()> {
    let command = installed.archive_command().context("it does not archive")?;
    cluster.stop(Shutdown::Fast)?;
    let environment = installed.environment();
    let environment: Vec<(&str, &str)> = environment.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    cluster.set_environment(&environment);
    cluster.configure(&format!("archive_command = '{command}'"))?;
    cluster.start()?;
    cluster.wait_archived()?;
    cluster.exec("checkpoint")
}

/// So that its end does not wait for a tool that is gone.
fn unplug(cluster: &mut Cluster) -> Result<()> {
    cluster.configure("archive_command = ''")?;
    if cluster.is_running()? { cluster.reload() } else { cluster.start() }
}

fn empty_directory(play: &Play, name: &str) -> Result<PathBuf> {
    let dir = play.stage.sandbox().dir(name)?;
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).context("closing a data directory")?;
    Ok(dir)
}

fn bytes_below(dir: &Path, counts: &dyn Fn(&Path) -> bool) -> Result<u64> {
    let mut files = Vec::new();
    walk(dir, &mut files)?;
    let counted = files.iter().filter(|(path, _)| path.strip_prefix(dir).is_ok_and(counts));
    Ok(counted.map(|(_, bytes)| bytes).sum())
}

fn walk(dir: &Path, files: &mut Vec<(PathBuf, u64)>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("listing {}", dir.display()))?.flatten() {
        // What has vanished meanwhile is not counted.
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_dir() {
            walk(&entry.path(), files)?;
        } else if metadata.is_file() {
            files.push((entry.path(), metadata.len()));
        }
    }
    Ok(())
}
