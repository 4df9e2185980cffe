//! Draining a backlog: segments wait, the archiver is let loose, and the clock stops when none waits any
//! more. PostgreSQL's archiver asks for one segment at a time, whatever the tool does ahead of it.

use super::{Play, figures_of, plain, shown};
use crate::figures::{Column, Figures, Row, Table, number};
use crate::stage::Stage;
use crate::template::{Backlog, SEGMENT_BYTES};
use crate::tool::{Installed, Job, Pace, Repository, RepositoryState, Tool, stored_bytes};
use anyhow::{Context, Result, bail};
use std::thread;
use std::time::{Duration, Instant};
use wald_integration::postgres::Cluster;

/// How often the clock is looked at; what it adds is below a thousandth of a drain.
const LOOK_EVERY: Duration = Duration::from_millis(2);
const DRAINED_WITHIN: Duration = Duration::from_secs(600);
/// What a slow tool is given.
const FEW_SEGMENTS: usize = 16;

const COLUMNS: [Column; 10] = [
    plain("mib_per_second", "MiB/s", 0),
    shown("ms_per_segment", "ms/segment", 1),
    shown("cpu_ms_per_segment", "CPU ms/segment", 1),
    plain("cpu_of_postgres_ms_per_segment", "of it PostgreSQL", 1),
    plain("cpu_of_server_ms_per_segment", "beside it the S3 server", 1),
    shown("memory_peak_mib", "memory MiB", 0),
    plain("memory_largest_mib", "largest process MiB", 0),
    shown("stored_kib_per_segment", "stored KiB/segment", 0),
    plain("segments", "segments", 0),
    plain("failed", "failed tries", 0),
];

/// All tools in turn, again and again.
pub fn compare(play: &Play, backlog: &Backlog, count: usize) -> Table {
    let title = format!("Drain a backlog of {count} segments, {} at a time", play.workers);
    table(play, "drain", title, backlog, count)
}

/// The same with WAL that can't be compressed, where memory is what counts.
pub fn compare_noise(play: &Play, key: &'static str, backlog: &Backlog) -> Table {
    let count = backlog.segments();
    let title = format!("Drain {count} segments of random bytes, {} at a time", play.workers);
    table(play, key, title, backlog, count)
}

fn table(play: &Play, key: &'static str, title: String, backlog: &Backlog, count: usize) -> Table {
    let mut rows: Vec<Row> = play.tools.iter().map(|tool| Row::new(tool.name())).collect();
    for round in 0..play.rounds {
        for (tool, row) in play.tools.iter().zip(&mut rows) {
            let slow = tool.pace() == Pace::Slow;
            if !row.failures.is_empty() || (slow && round > 0) {
                continue;
            }
            play.stage.say(&format!("{key}, round {}: {}", round + 1, tool.name()));
            let count = if slow { count.min(FEW_SEGMENTS) } else { count };
            match drain(play.stage, tool.as_ref(), backlog, count, play.workers) {
                Ok(Some((figures, _))) => row.add(Ok(figures)),
                Ok(None) => {}
                Err(error) => row.add(Err(error)),
            }
        }
    }
    let notes = vec![
        "CPU is that of the whole process tree: daemon, commands, what they fork, and PostgreSQL's own; the S3 server works on the same cores. Memory is \
         the tool's processes at one time (PSS); the largest process by its high-water mark, mapped files \
         included. fsync is off, for PostgreSQL and the S3 server."
            .to_owned(),
    ];
    Table { key, title, notes, columns: COLUMNS.into(), rows }
}

/// One drain; `None` for a tool that does not archive. The repository is filled afterwards.
pub fn drain(
    stage: &Stage,
    tool: &dyn Tool,
    backlog: &Backlog,
    count: usize,
    workers: u32,
) -> Result<Option<(Figures, Repository)>> {
    let name = stage.name("d");
    let repository = tool.make_repository(stage, &name)?;
    let (mut cluster, segments) = backlog.copy(stage, &name, count)?;
    let endpoint = stage.endpoint()?;
    let state = RepositoryState::New;
    let job = Job { name: &name, cluster: &cluster, repository: &repository, state, workers, endpoint };
    let installed = tool.install(stage, &job)?;
    let outcome = match installed.archive_command() {
        Some(command) => {
            let loose = let_loose(stage, &mut cluster, installed.as_ref(), &command, &segments);
            loose.and_then(|figures| checked(figures, installed.as_ref(), &segments)).map(Some)
        }
        None => Ok(None),
    };
    cluster.kill_hard()?;
    drop(installed);
    stage.settle(None)?;
    stage.remove(cluster.data_dir())?;
    Ok(outcome?.map(|figures| (figures, repository)))
}

fn let_loose(
    stage: &Stage,
    cluster: &mut Cluster,
    installed: &dyn Installed,
    command: &str,
    segments: &[String],
) -> Result<Figures> {
    let environment = installed.environment();
    let environment: Vec<(&str, &str)> = environment.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    cluster.set_environment(&environment);
    cluster.start()?;
    cluster.configure(&format!("archive_command = '{command}'"))?;
    let meter = stage.meter();
    cluster.reload()?;
    wait_drained(cluster, segments)?;
    let usage = meter.finish();
    let failed = cluster.scalar("select failed_count from pg_stat_archiver")?;
    let count = number(u64::try_from(segments.len())?);
    let mut figures = figures_of(&usage, SEGMENT_BYTES * u64::try_from(segments.len())?);
    figures.insert("segments", count);
    figures.insert("ms_per_segment", usage.elapsed.as_secs_f64() * 1e3 / count);
    figures.insert("cpu_ms_per_segment", usage.cpu.as_secs_f64() * 1e3 / count);
    figures.insert("cpu_of_postgres_ms_per_segment", usage.cpu_of_postgres.as_secs_f64() * 1e3 / count);
    figures.insert("cpu_of_server_ms_per_segment", usage.cpu_apart.as_secs_f64() * 1e3 / count);
    figures.insert("failed", failed.parse().context("a count of failed tries")?);
    Ok(figures)
}

/// Waits until the archiver is done with the last of the segments: it takes them in order.
pub fn wait_drained(cluster: &mut Cluster, segments: &[String]) -> Result<()> {
    let last = segments.last().context("nothing to archive")?;
    let mark = cluster.data_dir().join("pg_wal/archive_status").join(format!("{last}.ready"));
    let started = Instant::now();
    while mark.exists() {
        if started.elapsed() > DRAINED_WITHIN || !cluster.is_running()? {
            bail!(
                "not drained after {} s:\n{}",
                started.elapsed().as_secs(),
                last_lines(&cluster.log_text())
            );
        }
        thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

/// A tool that said "done" must have stored each segment.
fn checked(mut figures: Figures, installed: &dyn Installed, segments: &[String]) -> Result<Figures> {
    let stored = stored_bytes(installed)?;
    if stored.segments < segments.len() {
        bail!("said to have archived {} segments, and {} are stored", segments.len(), stored.segments);
    }
    let count = number(u64::try_from(segments.len())?);
    figures.insert("stored_kib_per_segment", number(stored.wal) / 1024.0 / count);
    Ok(figures)
}

/// The end of a log.
pub fn last_lines(log: &str) -> String {
    wald_integration::process::tail(log, 12)
}
