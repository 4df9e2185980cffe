//! What `archive_command` costs for a segment that push-ahead has stored already, against the least that
//! any command can cost: a program that does nothing, built as the shims are.

use super::{Play, plain, shown};
use crate::figures::{Column, Figures, Row, Table};
use crate::many::Many;
use crate::tool::{Job, RepositoryState};
use crate::tools::programs;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};
use wald_integration::account::Account;

const COLUMNS: [Column; 2] = [shown("median_us", "µs", 0), plain("tenth_us", "fastest tenth µs", 0)];
const CALLS: u64 = 150;
/// More than push-ahead takes for the few small segments of its window.
const PUSHED_AHEAD_WITHIN: Duration = Duration::from_millis(25);
const SHELL: &str = "/bin/sh";

/// Each call beside one of the program that does nothing.
pub fn compare(play: &Play, many: &Many) -> Table {
    let names =
        ["wald-archive, confirmed ahead", "a program that does nothing, built the same way", "/bin/true"];
    let mut rows: Vec<Row> = names.into_iter().map(Row::new).collect();
    for round in 0..play.rounds {
        play.stage.say(&format!("archive_command, round {}", round + 1));
        match measure(play, many) {
            Ok(timed) => {
                for (row, times) in rows.iter_mut().zip(timed) {
                    row.add(summary(times));
                }
            }
            Err(error) => {
                if let Some(row) = rows.first_mut() {
                    row.failures.push(format!("{error:#}"));
                }
            }
        }
    }
    let title = format!("One archive_command through `sh -c`, median of {CALLS} calls");
    Table { key: "command", title, notes: Vec::new(), columns: COLUMNS.into(), rows }
}

fn measure(play: &Play, many: &Many) -> Result<[Vec<Duration>; 3]> {
    let stage = play.stage;
    let tool = play.tools.iter().find(|tool| tool.name() == "wald").context("wald does not take part")?;
    let nothing = programs().map(|dir| dir.join("nothing")).filter(|path| path.is_file());
    let nothing = nothing.context("the program that does nothing is not built: run benches/compare")?;
    let name = stage.name("c");
    let repository = tool.make_repository(stage, &name)?;
    let (cluster, segments) = many.copy(stage, &name, CALLS + 1)?;
    let (state, workers, endpoint) = (RepositoryState::New, play.workers, stage.endpoint()?);
    let job = Job { name: &name, cluster: &cluster, repository: &repository, state, workers, endpoint };
    let installed = tool.install(stage, &job)?;
    // Where the account can reach it: beside wald, which was installed there.
    let reachable = stage.path("bin/nothing");
    fs::copy(&nothing, &reachable).context("copying the program that does nothing")?;
    let command = installed.archive_command().context("it does not archive")?;
    let account = stage.sandbox().account();
    let mut times = [Vec::new(), Vec::new(), Vec::new()];
    let [confirmed, idle, system] = &mut times;
    for (at, segment) in segments.iter().enumerate() {
        let path = format!("pg_wal/{segment}");
        let took = call(account, cluster.data_dir(), &command.replace("%p", &path))?;
        // As the archiver does once the command has succeeded.
        let mark = cluster.data_dir().join("pg_wal/archive_status").join(segment);
        fs::rename(mark.with_extension("ready"), mark.with_extension("done")).context("renaming a mark")?;
        // The first is shipped while the command waits; it begins the pushing ahead.
        if at > 0 {
            confirmed.push(took);
        }
        // A call after a pause is slower than one after another call, so each has its pause.
        thread::sleep(PUSHED_AHEAD_WITHIN);
        idle.push(call(account, cluster.data_dir(), &format!("{} {path}", reachable.display()))?);
        thread::sleep(PUSHED_AHEAD_WITHIN);
        system.push(call(account, cluster.data_dir(), "/bin/true")?);
        thread::sleep(PUSHED_AHEAD_WITHIN);
    }
    drop(installed);
    stage.remove(cluster.data_dir())?;
    Ok(times)
}

fn call(account: &Account, directory: &Path, line: &str) -> Result<Duration> {
    let mut command = account.command(SHELL);
    command.args(["-c", line]).current_dir(directory).stdin(Stdio::null());
    let started = Instant::now();
    let status = command.status().with_context(|| format!("running {line}"))?;
    let took = started.elapsed();
    if !status.success() {
        bail!("{line} ended with {status}");
    }
    Ok(took)
}

fn summary(mut times: Vec<Duration>) -> Result<Figures> {
    times.sort();
    let at =
        |index: usize| times.get(index).map(|time| time.as_secs_f64() * 1e6).context("no call was timed");
    Ok(Figures::from([("median_us", at(times.len() / 2)?), ("tenth_us", at(times.len() / 10)?)]))
}
