//! Replaying WAL from the repository: a base backup is recovered to the end of what was archived. The
//! time is PostgreSQL's own, from its log: "redo done at ... elapsed".

use super::{Play, plain, shown};
use crate::figures::{Column, Figures, Row, Table, number};
use crate::phases::drain::{drain, last_lines};
use crate::stage::{Detour, Endpoint};
use crate::template::Backlog;
use crate::tool::{Job, Pace, Repository, RepositoryState, Tool};
use anyhow::{Context, Result, bail};
use std::collections::HashMap;
use std::fs;
use std::time::{Duration, Instant};
use wald_integration::wait;

const REPLAYED_WITHIN: Duration = Duration::from_secs(600);

const COLUMNS: [Column; 7] = [
    shown("redo_seconds", "redo s", 1),
    plain("until_redo_done_seconds", "since the start s", 1),
    shown("cpu_ms_per_segment", "CPU ms/segment", 1),
    plain("cpu_of_postgres_ms_per_segment", "of it PostgreSQL", 1),
    plain("cpu_of_server_ms_per_segment", "beside it the S3 server", 1),
    shown("memory_peak_mib", "memory MiB", 0),
    plain("restored", "segments", 0),
];

/// For JSON, the added latency, and what the table is called.
#[derive(Debug, Clone, Copy)]
pub struct Way {
    key: &'static str,
    latency: Option<Duration>,
}

/// The straight way to the server, and a long one.
pub const WAYS: [Way; 2] = [
    Way { key: "replay", latency: None },
    Way { key: "replay_20ms", latency: Some(Duration::from_millis(20)) },
];

/// Each tool's own repository, or why there is none.
type Filled = HashMap<&'static str, Result<Repository, String>>;

/// Fills a repository with each tool, and recovers from it along each way.
pub fn compare(play: &Play, backlog: &Backlog, count: usize) -> Vec<Table> {
    let mut filled = Filled::new();
    for tool in play.tools.iter().filter(|tool| tool.reads_from() == tool.name() && tool.pace() == Pace::Full)
    {
        play.stage.say(&format!("replay: {} fills its repository", tool.name()));
        let outcome = drain(play.stage, tool.as_ref(), backlog, count, play.workers);
        let repository = outcome.and_then(|made| Ok(made.context("it does not archive")?.1));
        filled.insert(tool.name(), repository.map_err(|error| format!("{error:#}")));
    }
    WAYS.iter().map(|way| table(play, backlog, count, *way, &filled)).collect()
}

fn table(play: &Play, backlog: &Backlog, count: usize, way: Way, filled: &Filled) -> Table {
    let tools: Vec<_> = play.tools.iter().filter(|tool| tool.pace() == Pace::Full).collect();
    let mut rows: Vec<Row> = tools.iter().map(|tool| Row::new(tool.name())).collect();
    for round in 0..play.rounds {
        for (tool, row) in tools.iter().zip(&mut rows) {
            if !row.failures.is_empty() {
                continue;
            }
            play.stage.say(&format!("{}, round {}: {}", way.key, round + 1, tool.name()));
            row.add(match filled.get(tool.reads_from()) {
                Some(Ok(repository)) => recover(play, tool.as_ref(), backlog, repository, way)
                    .and_then(|figures| whole(figures, count)),
                Some(Err(error)) => Err(anyhow::anyhow!("its repository could not be filled: {error}")),
                None => Err(anyhow::anyhow!(
                    "{} does not take part, which fills its repository",
                    tool.reads_from()
                )),
            });
        }
    }
    let latency = way.latency.map_or_else(String::new, |added| {
        format!(", {} ms added to each trip to the S3 server and back", added.as_millis())
    });
    let title = format!("Replay {count} segments, {} at a time{latency}", play.workers);
    let notes = vec![
        "fsync=off, hot_standby=off, shared_buffers=1GB. `cp` and `wald-file` read a local directory in both \
         tables."
            .to_owned(),
    ];
    Table { key: way.key, title, notes, columns: COLUMNS.into(), rows }
}

fn recover(
    play: &Play,
    tool: &dyn Tool,
    backlog: &Backlog,
    repository: &Repository,
    way: Way,
) -> Result<Figures> {
    let stage = play.stage;
    let detour: Option<Detour> = way.latency.map(|latency| stage.detour(latency)).transpose()?;
    let endpoint: Endpoint = match &detour {
        Some(detour) => detour.endpoint(),
        None => stage.endpoint()?,
    };
    let name = stage.name("r");
    let mut cluster = backlog.copy_base(stage, &name)?;
    let (state, workers) = (RepositoryState::Filled, play.workers);
    let job = Job { name: &name, cluster: &cluster, repository, state, workers, endpoint };
    let installed = tool.install(stage, &job)?;
    let command = installed.restore_command().context("it has no restore_command")?;
    for line in ["archive_mode = off", "hot_standby = off", "shared_buffers = '1GB'"] {
        cluster.configure(line)?;
    }
    cluster.configure(&format!("restore_command = '{command}'"))?;
    let signal = cluster.data_dir().join("recovery.signal");
    fs::write(&signal, "").with_context(|| format!("writing {}", signal.display()))?;
    stage.sandbox().account().own(&signal)?;
    let environment = installed.environment();
    let environment: Vec<(&str, &str)> = environment.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    cluster.set_environment(&environment);

    let meter = stage.meter();
    let started = Instant::now();
    cluster.launch()?;
    let done = wait::until("redo to be done", REPLAYED_WITHIN, || {
        let log = cluster.log_text();
        if !cluster.is_running()? {
            bail!("PostgreSQL has ended:\n{}", last_lines(&log));
        }
        Ok(redo_elapsed(&log))
    });
    let until = started.elapsed();
    let usage = meter.finish();
    let restored = restored(&cluster.log_text());
    cluster.kill_hard()?;
    drop(installed);
    stage.settle(None)?;
    stage.remove(cluster.data_dir())?;
    let done = done?;
    let count = number(u64::try_from(restored)?);
    Ok(Figures::from([
        ("redo_seconds", done),
        ("until_redo_done_seconds", until.as_secs_f64()),
        ("cpu_ms_per_segment", usage.cpu.as_secs_f64() * 1e3 / count),
        ("cpu_of_postgres_ms_per_segment", usage.cpu_of_postgres.as_secs_f64() * 1e3 / count),
        ("cpu_of_server_ms_per_segment", usage.cpu_apart.as_secs_f64() * 1e3 / count),
        ("memory_peak_mib", number(usage.memory_peak) / super::MIB),
        ("restored", count),
    ]))
}

/// A recovery that ended early is no recovery.
fn whole(figures: Figures, count: usize) -> Result<Figures> {
    let restored = figures.get("restored").copied().unwrap_or_default();
    if restored < number(u64::try_from(count)?) {
        bail!("only {restored} of {count} segments were replayed");
    }
    Ok(figures)
}

/// `redo done at 0/8A0 system usage: CPU: user: 1.02 s, system: 0.50 s, elapsed: 4.05 s`
fn redo_elapsed(log: &str) -> Option<f64> {
    let (_, rest) = log.split_once("redo done at ")?;
    let (_, rest) = rest.lines().next()?.split_once("elapsed: ")?;
    rest.strip_suffix(" s")?.parse().ok()
}

/// How many segments came from the repository.
fn restored(log: &str) -> usize {
    let names =
        log.lines().filter_map(|line| Some(line.split_once("restored log file \"")?.1.split_once('"')?.0));
    names.filter(|name| name.len() == 24).collect::<std::collections::BTreeSet<_>>().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_redo_is_read_from_the_log() {
        let log = "LOG:  restored log file \"000000010000000000000003\" from archive\n\
                   LOG:  redo done at 0/3A0 system usage: CPU: user: 1.02 s, system: 0.50 s, elapsed: 4.05 s\n";
        assert_eq!(redo_elapsed(log), Some(4.05));
        assert_eq!(restored(log), 1);
        assert_eq!(redo_elapsed("LOG:  redo starts at 0/3\n"), None);
    }
}
