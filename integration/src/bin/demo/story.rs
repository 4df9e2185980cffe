//! The story itself, step by step, each said before it is done.

use crate::load::{self, Spell};
use crate::report::{Figures, mib, seconds};
use crate::{Options, RepositoryKind};
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use wald_integration::agent::{Agent, archive_through};
use wald_integration::postgres::{Cluster, ClusterOptions, Fingerprint};
use wald_integration::process::tail;
use wald_integration::sandbox::Sandbox;
use wald_integration::seaweed::S3Server;
use wald_integration::wald::{Place, Settings, Wald};

const RECOVERED_WITHIN: Duration = Duration::from_secs(600);

/// Everything that the demo owns. Fields are dropped in this order: servers first, files last.
struct Stage {
    cluster: Cluster,
    agent: Agent,
    _s3: Option<S3Server>,
    place: Place,
    cold_dir: PathBuf,
    sandbox: Sandbox,
}

/// A second worth coming back to.
struct Noted {
    time: String,
    content: Fingerprint,
}

/// Tells it from the beginning to the end. `true` if everything came back.
pub fn tell(options: Options) -> Result<bool> {
    let started = Instant::now();
    println!("wald's demo: a PostgreSQL is archived, destroyed, and brought back to a chosen second.");
    let mut figures = Figures::default();
    let mut stage = set_up(options)?;
    let noted = acts(&mut stage, options, &mut figures).inspect_err(|_| show_logs(&stage))?;
    let wrong = compare(&stage, &noted, &mut figures)?;
    for line in &wrong {
        println!("   {line}");
    }
    println!("\n{}", figures.table());
    if wrong.is_empty() {
        println!(
            "Everything is back as it was at {}. The demo took {}.",
            noted.time,
            seconds(started.elapsed())
        );
    } else {
        println!("The database did NOT come back as it was at {}.", noted.time);
    }
    Ok(wrong.is_empty())
}

/// Everything that happens to the database.
fn acts(stage: &mut Stage, options: Options, figures: &mut Figures) -> Result<Noted> {
    let noted = live(stage, options, figures)?;
    lose(stage)?;
    bring_back(stage, &noted, figures)?;
    Ok(noted)
}

/// The files are gone when a reader sees the error: their last lines are not.
fn show_logs(stage: &Stage) {
    eprintln!("\nThe agent's log ended with:\n{}", tail(&stage.agent.log_text(), 15));
    eprintln!("\nPostgreSQL's log ended with:\n{}", tail(&stage.cluster.log_text(), 15));
}

fn step(words: &str) {
    println!("\n-> {words}");
}

fn note(words: &str) {
    println!("   {words}");
}

fn set_up(options: Options) -> Result<Stage> {
    let sandbox = Sandbox::new()?;
    step("Make a throw-away PostgreSQL 15, with page checksums and fsync on.");
    note(&format!(
        "it lives in {} and listens on a Unix socket there, nowhere else",
        sandbox.path().display()
    ));
    let settings =
        ["fsync = on", "shared_buffers = 128MB", "max_wal_size = 1GB", "checkpoint_timeout = 1min"];
    let cluster_options =
        settings.into_iter().fold(ClusterOptions::default(), |options, line| options.setting(line));
    let mut cluster = Cluster::create(&sandbox, "demo", &cluster_options)?;
    let cold_dir = sandbox.dir("cold-tablespace")?;

    let (s3, place) = match options.repository {
        RepositoryKind::Directory => {
            step("Make a repository for its backups in a directory, and start wald's agent.");
            (None, Place::directory(&sandbox)?)
        }
        RepositoryKind::LockedBucket => {
            step("Start a real S3 server, make a bucket with object lock, and start wald's agent.");
            let server = S3Server::start(&sandbox)?;
            note(&format!("SeaweedFS answers at {}", server.endpoint()));
            let place = Place::locked_bucket(&server, "demo")?;
            (Some(server), place)
        }
    };
    let wald = Wald::configure(&sandbox, "demo", &cluster, &place, Settings::new())?;
    wald.succeed(&["repo", "init"])?;
    note(&format!("wald repo init    made {}", place.url()));
    let agent = Agent::start(&sandbox, "demo", wald)?;
    note("wald agent        is up and answers on its socket");
    archive_through(&mut cluster, &agent)?;
    note("archive_command = 'wald-archive %p'");
    cluster.start()?;
    Ok(Stage { cluster, agent, _s3: s3, place, cold_dir, sandbox })
}

/// The database's life: filled, used, backed up, used, and spoiled.
fn live(stage: &mut Stage, options: Options, figures: &mut Figures) -> Result<Noted> {
    let spell = options.spell_seconds;
    step(&format!(
        "Fill it: pgbench's tables at scale {}, and documents, a ledger, large texts, and a tablespace.",
        options.scale
    ));
    let written_from = Instant::now();
    load::fill(&stage.cluster, &stage.cold_dir, options.scale)?;

    step(&format!("Let pgbench write for {} s, and take a base backup in the midst of it.", 2 * spell));
    let busy = Spell::start(&stage.sandbox, &stage.cluster, "during-backup", 2 * spell)?;
    figures.backup_raw_bytes = size_of(stage.cluster.data_dir())? + size_of(&stage.cold_dir)?;
    let backup = stage.agent.succeed(&["backup"])?;
    figures.backup_time = backup.elapsed;
    let committed = busy.finish()?;
    let in_catalog = stage.place.objects("catalog/")?;
    let entry = in_catalog.first().context("wald backup succeeded and no catalog entry is there")?;
    figures.backup_stored_bytes = backup_bytes(stage)?;
    note(&format!("pgbench committed {committed} transactions meanwhile"));
    note(&format!(
        "wald backup       wrote {} MiB in {}",
        mib(figures.backup_stored_bytes),
        seconds(backup.elapsed)
    ));
    note(&format!("its catalog entry is {}", entry.name));

    step(&format!("Go on writing for {spell} s: this is only in the archived WAL, not in the backup."));
    let committed = Spell::start(&stage.sandbox, &stage.cluster, "after-backup", spell)?.finish()?;
    note(&format!("pgbench committed {committed} transactions"));

    step("Note the time, and a fingerprint of every table.");
    let content = stage.cluster.fingerprint()?;
    let time = stage.cluster.scalar(
        "select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') || '+00'",
    )?;
    note(&format!("it is {time}; {} tables hold {} rows", content.tables.len(), content.rows()));

    step("Now the mistake: drop, truncate, delete, overwrite, and write more on top of it.");
    load::make_mistake(&stage.cluster)?;
    Spell::start(&stage.sandbox, &stage.cluster, "after-mistake", spell)?.finish()?;
    let last = stage.cluster.wait_archived()?;
    figures.wal_time = written_from.elapsed();
    note(&format!("the archive has caught up: {last} is in the repository"));
    let segments: Vec<_> = stage.place.objects("wal/")?.into_iter().filter(|s| is_segment(&s.name)).collect();
    figures.segments = u64::try_from(segments.len()).context("counting segments")?;
    figures.wal_raw_bytes = figures.segments << 24;
    figures.wal_stored_bytes = segments.iter().map(|s| s.bytes).sum();
    Ok(Noted { time, content })
}

fn lose(stage: &mut Stage) -> Result<()> {
    step("Disaster: kill PostgreSQL with SIGKILL, and delete its data directory and its tablespace.");
    stage.cluster.kill_hard()?;
    let data_dir = stage.cluster.data_dir();
    fs::remove_dir_all(data_dir).with_context(|| format!("deleting {}", data_dir.display()))?;
    fs::remove_dir_all(&stage.cold_dir).context("deleting the tablespace")?;
    stage.sandbox.dir("cold-tablespace")?;
    note(&format!("{} is gone", data_dir.display()));
    Ok(())
}

fn bring_back(stage: &mut Stage, noted: &Noted, figures: &mut Figures) -> Result<()> {
    step("Bring it back to the noted second.");
    let data_dir = stage.cluster.data_dir().to_string_lossy().into_owned();
    let arguments =
        ["restore", "--to", &data_dir, "--target-time", &noted.time, "--target-action", "promote"];
    let mut dry = arguments.to_vec();
    dry.push("--dry-run");
    let plan = stage.agent.succeed(&dry)?;
    note("wald restore --dry-run says:");
    for line in plan.stdout.lines() {
        note(&format!("  | {line}"));
    }
    let restore = stage.agent.succeed(&arguments)?;
    figures.restore_time = restore.elapsed;
    note(&format!("wald restore      put the base backup in place in {}", seconds(restore.elapsed)));
    let started = Instant::now();
    stage.cluster.start()?;
    stage.cluster.wait_primary(RECOVERED_WITHIN)?;
    figures.replay_time = started.elapsed();
    note(&format!("PostgreSQL replayed the archived WAL and opened in {}", seconds(figures.replay_time)));
    Ok(())
}

fn compare(stage: &Stage, noted: &Noted, figures: &mut Figures) -> Result<Vec<String>> {
    step("Compare every table with its fingerprint.");
    let found = stage.cluster.fingerprint()?;
    let wrong = noted.content.differences(&found);
    for (name, table) in &noted.content.tables {
        let verdict = if found.tables.get(name) == Some(table) { "same" } else { "DIFFERENT" };
        note(&format!("{verdict:<10} {name} ({} rows)", table.rows));
    }
    figures.tables = noted.content.tables.len();
    figures.rows = noted.content.rows();
    figures.tables_wrong = wrong.len();
    Ok(wrong)
}

/// The objects of the backup stand below the year.
fn backup_bytes(stage: &Stage) -> Result<u64> {
    let objects = stage.place.objects("")?;
    let of_backup = objects.iter().filter(|o| o.name.starts_with(|first: char| first.is_ascii_digit()));
    Ok(of_backup.map(|o| o.bytes).sum())
}

/// `wal/` and a name of 24 digits, compressed or not.
fn is_segment(name: &str) -> bool {
    let name = name.strip_prefix("wal/").unwrap_or(name);
    let bare = name.strip_suffix(".zst").unwrap_or(name);
    bare.len() == 24 && bare.bytes().all(|b| b.is_ascii_hexdigit())
}

/// The size of all files below a directory of a running server: files come and go meanwhile.
fn size_of(dir: &Path) -> Result<u64> {
    let mut total = 0;
    for entry in fs::read_dir(dir).with_context(|| format!("listing {}", dir.display()))?.flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        let wal = entry.file_name() == "pg_wal";
        if metadata.is_dir() && !wal {
            total += size_of(&entry.path()).unwrap_or(0);
        } else if metadata.is_file() {
            total += metadata.len();
        }
    }
    Ok(total)
}
