//! Whether a segment costs more when many wait behind it.

use super::{Play, plain, shown};
use crate::figures::{Column, Figures, Row, Table, number};
use crate::many::Many;
use crate::phases::drain::wait_drained;
use crate::tool::{Job, RepositoryState, Tool};
use anyhow::{Context, Result};

const COLUMNS: [Column; 4] = [
    shown("ms_per_segment", "ms/segment", 2),
    shown("cpu_ms_per_segment", "CPU ms/segment", 2),
    plain("cpu_of_postgres_ms_per_segment", "of it PostgreSQL", 2),
    plain("cpu_of_server_ms_per_segment", "beside it the S3 server", 2),
];

/// How many wait, and over how many the cost is measured.
const CASES: [(u64, u64); 3] = [(100, 100), (1_000, 1_000), (10_000, 1_000)];

/// wald alone.
pub fn compare(play: &Play, many: &Many) -> Table {
    let mut rows: Vec<Row> = CASES
        .iter()
        .map(|(waiting, over)| Row::new(format!("{waiting} waiting, over the first {over}")))
        .collect();
    for round in 0..play.rounds {
        for ((waiting, over), row) in CASES.iter().zip(&mut rows) {
            if let Some(tool) = play.tools.iter().find(|tool| tool.name() == "wald") {
                play.stage.say(&format!("waiting, round {}: {waiting}", round + 1));
                row.add(measure(play, tool.as_ref(), many, *waiting, *over));
            }
        }
    }
    let title =
        format!("Segments of 1 MiB, of which 64 KiB are real: the cost of one, {} at a time", play.workers);
    Table { key: "waiting", title, notes: Vec::new(), columns: COLUMNS.into(), rows }
}

fn measure(play: &Play, tool: &dyn Tool, many: &Many, waiting: u64, over: u64) -> Result<Figures> {
    let stage = play.stage;
    let name = stage.name("w");
    let repository = tool.make_repository(stage, &name)?;
    let (mut cluster, mut segments) = many.copy(stage, &name, waiting)?;
    let (state, workers, endpoint) = (RepositoryState::New, play.workers, stage.endpoint()?);
    let job = Job { name: &name, cluster: &cluster, repository: &repository, state, workers, endpoint };
    let installed = tool.install(stage, &job)?;
    let command = installed.archive_command().context("it does not archive")?;
    cluster.start()?;
    cluster.configure(&format!("archive_command = '{command}'"))?;
    segments.truncate(usize::try_from(over)?);
    let meter = stage.meter();
    cluster.reload()?;
    let drained = wait_drained(&mut cluster, &segments);
    let usage = meter.finish();
    cluster.kill_hard()?;
    drop(installed);
    stage.settle(None)?;
    stage.remove(cluster.data_dir())?;
    drained?;
    let per_segment = 1e3 / number(over);
    Ok(Figures::from([
        ("ms_per_segment", usage.elapsed.as_secs_f64() * per_segment),
        ("cpu_ms_per_segment", usage.cpu.as_secs_f64() * per_segment),
        ("cpu_of_postgres_ms_per_segment", usage.cpu_of_postgres.as_secs_f64() * per_segment),
        ("cpu_of_server_ms_per_segment", usage.cpu_apart.as_secs_f64() * per_segment),
    ]))
}
