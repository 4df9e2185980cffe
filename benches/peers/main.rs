//! Compares wald with its peers: archiving, replay, backup and restore, each tool in turn, on one S3
//! server and on the same data. Started by `benches/compare`, which installs the peers.
//!
//! A tool that can't be found, or that fails, is named with its error, and the rest goes on. The exit code
//! is 0 if wald did everything that was asked.

mod options;

mod figures;
mod report;

mod processes;
mod meter;
mod relay;
mod stage;

mod template;
mod many;
mod tool;
mod tools;
mod phases;

use crate::figures::Table;
use crate::options::{Options, USAGE};
use crate::phases::{Play, backup, command, drain, replay, waiting};
use crate::report::{Machine, Report};
use crate::stage::Stage;
use crate::template::Backlog;
use crate::tool::Tool;
use anyhow::{Context, Result, bail};
use std::fs;
use std::process::ExitCode;

/// The number of files at a time, where memory is what counts.
const MANY_WORKERS: u32 = 16;
/// Enough for every worker to have one, and some to wait.
const NOISE_SEGMENTS: usize = 48;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let options = match Options::parse(words.iter().cloned()) {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(wrong) => {
            eprintln!("{wrong}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&options, &words) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("The comparison failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options, words: &[String]) -> Result<bool> {
    let mut report = Report {
        when: jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string(),
        command: std::iter::once("benches/compare")
            .chain(words.iter().map(String::as_str))
            .collect::<Vec<_>>()
            .join(" "),
        machine: Machine::here(),
        load: load(),
        tools: Vec::new(),
        left_out: Vec::new(),
        tables: Vec::new(),
    };
    processes::adopt_orphans()?;
    let tools = present(options, &mut report)?;
    let stage = Stage::set()?;
    let play = Play { stage: &stage, tools: &tools, rounds: options.repeat, workers: options.workers };
    let backlog = backlog(&stage, options)?;
    for subject in options::SUBJECTS.into_iter().filter(|subject| options.wants(subject)) {
        match tables(subject, &play, options, backlog.as_ref()) {
            Ok(tables) => report.tables.extend(tables),
            Err(error) => report.left_out.push((format!("The subject {subject}"), format!("{error:#}"))),
        }
        keep(&report, options)?;
    }
    stage.say("done");
    print!("{}", report.markdown());
    let failed =
        |table: &Table| table.rows.iter().any(|row| row.name.starts_with("wald") && !row.failures.is_empty());
    Ok(!report.tables.iter().any(failed)
        && !report.left_out.iter().any(|(name, _)| name.starts_with("The subject")))
}

/// Those that take part.
fn present(options: &Options, report: &mut Report) -> Result<Vec<Box<dyn Tool>>> {
    let all = tools::all();
    if let Some(unknown) =
        options.tools.iter().find(|name| !all.iter().any(|tool| tool.name() == name.as_str()))
    {
        bail!("there is no tool {unknown}");
    }
    let mut taking_part = Vec::new();
    for tool in all {
        if !options.tools.is_empty() && !options.tools.iter().any(|name| name == tool.name()) {
            report.left_out.push((tool.name().to_owned(), "not asked for".to_owned()));
            continue;
        }
        match tool.about() {
            Ok(lines) => {
                report.tools.push((tool.name().to_owned(), lines));
                taking_part.push(tool);
            }
            Err(error) => report.left_out.push((tool.name().to_owned(), format!("{error:#}"))),
        }
    }
    Ok(taking_part)
}

/// The WAL that is drained and replayed, if either is asked for.
fn backlog(stage: &Stage, options: &Options) -> Result<Option<Backlog>> {
    let of = |subject, count| if options.wants(subject) { count } else { 0 };
    let count = of("drain", options.segments).max(of("replay", options.replay));
    if count == 0 {
        return Ok(None);
    }
    Backlog::of_pgbench(stage, options.scale, count).map(Some)
}

fn tables(subject: &str, play: &Play, options: &Options, backlog: Option<&Backlog>) -> Result<Vec<Table>> {
    let stage = play.stage;
    match subject {
        "drain" => {
            let backlog = backlog.context("no backlog")?;
            Ok(vec![drain::compare(play, backlog, options.segments)])
        }
        "replay" => Ok(replay::compare(play, backlog.context("no backlog")?, options.replay)),
        "noise" => {
            let noise = Backlog::of_noise(stage, NOISE_SEGMENTS.min(options.segments))?;
            let many = Play { workers: MANY_WORKERS, rounds: 1, ..*play };
            let few = Play { rounds: 1, ..*play };
            Ok(vec![
                drain::compare_noise(&few, "noise", &noise),
                drain::compare_noise(&many, "noise_16", &noise),
            ])
        }
        "backup" => {
            let mut cluster = template::database(stage, options.database)?;
            backup::compare(play, &mut cluster)
        }
        "waiting" => Ok(vec![waiting::compare(play, &many::Many::make(stage, "waiting")?)]),
        "command" => Ok(vec![command::compare(play, &many::Many::make(stage, "command")?)]),
        other => bail!("there is no subject {other}"),
    }
}

/// After each subject: a run of half an hour that is broken off has said something.
fn keep(report: &Report, options: &Options) -> Result<()> {
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&report.json()).context("writing JSON")?;
        fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    if let Some(path) = &options.markdown {
        fs::write(path, report.markdown()).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}
