//! `wald promote` on real servers behind a real PgBouncer and HAProxy: under load, with conditions
//! that are not met, and with hooks that fail.

use anyhow::{Context, Result};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use wald_integration::agent::archive_through;
use wald_integration::pair::{Pair, end_of};
use wald_integration::parts;
use wald_integration::postgres::Shutdown;
use wald_integration::process::Process;
use wald_integration::run::run;
use wald_integration::wait;
use wald_integration::wald::{Settings, Wald};

const DEADLINE: Duration = Duration::from_secs(120);
/// How long clients write; the promotion falls into it.
const LOAD_SECONDS: &str = "20";

/// pgbench writing rows that it counts by itself, through one of PgBouncer's databases.
fn start_load(pair: &Pair, database: &str) -> Result<Process> {
    let script = format!("\\set n :n + 1\nINSERT INTO acked VALUES ('{database}', :client_id, :n);\n");
    let script = pair.sandbox.write(&format!("{database}.pgbench"), &script)?;
    let mut pgbench = pair.bouncer.client("pgbench", database)?;
    pgbench.args(["-n", "-c", "4", "-j", "1", "-R", "150", "-D", "n=0", "-T", LOAD_SECONDS, "-l"]);
    pgbench
        .arg("-f")
        .arg(script)
        .arg("--log-prefix")
        .arg(pair.sandbox.path().join(format!("log-{database}")));
    Process::spawn("pgbench", pgbench, &pair.sandbox.path().join(format!("{database}.out")))
}

/// What pgbench was told to be committed: its log has a line for each, with the client, the
/// transaction's number from 1, and when it ended.
struct Acknowledged {
    rows: BTreeSet<String>,
    ended_micros: Vec<u64>,
}

fn acknowledged(dir: &Path, database: &str) -> Result<Acknowledged> {
    let (mut rows, mut ended_micros) = (BTreeSet::new(), Vec::new());
    let prefix = format!("log-{database}.");
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if !path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(&prefix)) {
            continue;
        }
        for line in fs::read_to_string(&path)?.lines() {
            let fields: Vec<u64> = line.split(' ').map(|field| field.parse().unwrap_or(0)).collect();
            let [client, number, _, _, second, micros, ..] = fields.as_slice() else { continue };
            rows.insert(format!("{database} {client} {number}"));
            ended_micros.push(second * 1_000_000 + micros);
        }
    }
    ended_micros.sort_unstable();
    Ok(Acknowledged { rows, ended_micros })
}

/// The longest time in which nothing was acknowledged, in seconds.
fn longest_gap(ended_micros: &[u64]) -> f64 {
    let gaps = ended_micros.iter().zip(ended_micros.iter().skip(1)).map(|(a, b)| b - a);
    gaps.max().unwrap_or(0) as f64 / 1e6
}

#[test]
fn under_load_writes_stop_for_a_moment_and_no_acknowledged_one_is_lost() -> Result<()> {
    let mut pair = Pair::open()?;
    let port = wald_integration::ports::Reserved::new(1)?.release().into_iter().next().context("a port")?;
    let other = pair.primary.add_standby(&pair.sandbox, &pair.place, "c", port)?;
    pair.primary.wait_streaming("c")?;
    pair.primary.cluster.exec("create table acked (via text, client int, n bigint)")?;
    pair.primary.cluster.configure("synchronous_standby_names = 'b'")?;
    pair.primary.cluster.reload()?;
    let sync =
        "select count(*) from pg_stat_replication where application_name = 'b' and sync_state = 'sync'";
    wait::until_true("b to be synchronous", DEADLINE, || Ok(pair.primary.cluster.scalar(sync)? == "1"))?;
    let secret = pair.sandbox.path().join("secret");
    let settings = pair
        .settings()
        .set_text("promotion", "secret_command", format!("echo $WALD_NEW_PRIMARY > {}", secret.display()))
        .set("promotion", "smoke_sql", "[\"SELECT count(*) FROM acked\"]")
        .set("promotion", "smoke_commands", "[\"test -n \\\"$WALD_PROMOTION_ID\\\"\"]");
    let wald = pair.wald(settings)?;

    let load = [start_load(&pair, "app")?, start_load(&pair, "direct")?];
    let counted = |cluster: &wald_integration::postgres::Cluster| -> Result<u64> {
        Ok(cluster.scalar("select count(*) from acked")?.parse()?)
    };
    wait::until_true("the load to write", DEADLINE, || Ok(counted(&pair.primary.cluster)? > 300))?;
    let promoted = wald.run(&["promote", "--yes"])?.success()?;
    let rows_then = counted(&pair.standby.cluster)?;
    println!("{}", promoted.stdout);
    for process in load {
        let (code, said) = end_of(process, DEADLINE)?;
        assert_eq!(code, 0, "a client failed: {said}");
        assert!(said.contains("number of failed transactions: 0"), "{said}");
    }

    pair.turn_over();
    assert!(counted(&pair.primary.cluster)? > rows_then, "no client went on");
    let stored = pair.primary.cluster.rows("select via || ' ' || client || ' ' || n from acked")?;
    let stored: Vec<String> = stored.into_iter().flatten().collect();
    let stored_set: BTreeSet<String> = stored.iter().cloned().collect();
    assert_eq!(stored.len(), stored_set.len(), "a row was written twice");
    let mut all = 0;
    for database in ["app", "direct"] {
        let acked = acknowledged(pair.sandbox.path(), database)?;
        let lost: Vec<&String> = acked.rows.difference(&stored_set).collect();
        assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
        all += acked.rows.len();
        let gap = longest_gap(&acked.ended_micros);
        println!(
            "{database}: {} acknowledged, none lost; the longest time without one: {gap:.3} s",
            acked.rows.len()
        );
    }
    assert!(all > 600, "the load was hardly one: {all}");
    pair.assert_one_primary()?;

    let report = report_of(&promoted.stdout, &pair)?;
    assert_eq!(report["end"], "promoted");
    assert!(report["seconds_without_writes"].as_f64().is_some_and(|seconds| seconds > 0.0), "{report}");
    assert_eq!(report["facts"]["timeline_before"], 1);
    assert_eq!(report["facts"]["timeline_after"], 2);
    assert!(report["facts"]["switch_lsn"].is_string() && report["facts"]["primary_lsn"].is_string());
    assert_eq!(
        fs::read_to_string(&secret)?.trim(),
        format!("host=127.0.0.1 port={}", pair.primary.cluster.port())
    );
    let history = pair.sandbox.path().join("repository/wal/00000002.history");
    assert!(history.exists(), "the new timeline's history is not in the repository");

    // The other standby is led to the new primary as the report says.
    let conninfo = format!("alter system set primary_conninfo = '{}'", pair.primary.cluster.connection());
    other.cluster.exec(&conninfo)?;
    other.cluster.exec("select pg_reload_conf()")?;
    pair.primary.wait_streaming("c")?;
    assert_eq!(counted(&other.cluster)?, counted(&pair.primary.cluster)?);
    rewind_by_the_report(&mut pair, &report)
}

/// The JSON form of the only report below the state directory that the Markdown was made from.
fn report_of(markdown: &str, pair: &Pair) -> Result<Value> {
    let dir = pair.sandbox.path().join("promote-1-state/promotions");
    let id =
        markdown.split_once("# Promotion ").and_then(|(_, rest)| rest.split_once(':')).context("an id")?.0;
    assert_eq!(fs::read_to_string(dir.join(format!("{id}.md")))?.trim(), markdown.trim());
    Ok(serde_json::from_str(&fs::read_to_string(dir.join(format!("{id}.json")))?)?)
}

/// Has the old primary go its own way for a moment, and brings it back with the command that the
/// report has ready.
fn rewind_by_the_report(pair: &mut Pair, report: &Value) -> Result<()> {
    pair.standby.cluster.start()?;
    // Nobody is its standby any more: it must not wait for one.
    pair.standby.cluster.exec("set synchronous_commit = local; create table astray as select 1 as x")?;
    pair.standby.cluster.stop(Shutdown::Fast)?;
    pair.primary.cluster.exec("checkpoint")?;
    let to_do = report["to_do"].as_array().context("things to do")?;
    let command = to_do.iter().filter_map(Value::as_str).find_map(|text| text.split("```").nth(1));
    let command = command.context("a command to paste")?.trim();
    assert!(command.starts_with("pg_rewind ") && command.contains("--restore-target-wal"), "{command}");
    let bin = parts::postgres_program("pg_rewind")?;
    let bin = bin.parent().context("a directory")?.display().to_string();
    let mut shell = pair.sandbox.account().command("sh");
    shell.args(["-c", &format!("PATH={bin}:$PATH; {command}")]);
    let rewound = run(shell)?.success()?;
    assert!(rewound.said().contains("Done!"), "{}", rewound.said());
    // Its configuration is the new primary's now, as the report says.
    let agent = &pair.standby.agent;
    archive_through(&mut pair.standby.cluster, agent)?;
    pair.standby.cluster.configure(&format!("restore_command = '{}'", agent.restore_command()))?;
    pair.standby.cluster.configure("cluster_name = 'a'")?;
    pair.standby.cluster.start()?;
    pair.primary.wait_streaming("a")?;
    assert_eq!(pair.standby.cluster.scalar("select to_regclass('astray') is null")?, "t");
    Ok(())
}

/// One condition of a dry run: its verdict, with what was seen; and the exit code.
fn condition(wald: &Wald, name: &str, arguments: &[&str]) -> Result<(String, String, i32)> {
    let all: Vec<&str> = ["promote", "--dry-run", "--json"].iter().chain(arguments).copied().collect();
    let finished = wald.run(&all)?;
    let value: Value = serde_json::from_str(&finished.stdout).with_context(|| finished.said())?;
    let conditions = value.get("conditions").and_then(Value::as_array).context("conditions")?;
    // There is one for each router: what is not met comes first.
    let mut found: Vec<&Value> =
        conditions.iter().filter(|found| found.get("condition").is_some_and(|found| found == name)).collect();
    found.sort_by_key(|found| found.get("verdict").is_some_and(|verdict| verdict == "met"));
    let found = found.first().with_context(|| format!("no condition {name} in {value}"))?;
    let text = |key: &str| found.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok((text("verdict"), text("detail"), finished.code()))
}

fn refused(wald: &Wald, name: &str) -> Result<()> {
    let (verdict, detail, code) = condition(wald, name, &[])?;
    assert_eq!((verdict.as_str(), code), ("unmet", 1), "{name}: {detail}");
    println!("{name}: {detail}");
    Ok(())
}

fn met(wald: &Wald) -> Result<()> {
    let finished = wald.run(&["promote", "--dry-run"])?;
    assert_eq!(finished.code(), 0, "{}", finished.said());
    Ok(())
}

/// Everything that a promotion could change, to be compared.
fn what_is(pair: &Pair) -> Result<(String, String, String)> {
    // Name, target, and whether it is paused; the rest counts connections.
    let databases = pair.bouncer.console("SHOW DATABASES")?;
    let kept = |line: &str| {
        let fields: Vec<&str> = line.split('|').collect();
        [0, 1, 2, 11].iter().filter_map(|at| fields.get(*at).copied()).collect::<Vec<_>>().join(" ")
    };
    let databases: Vec<String> = databases.lines().map(kept).collect();
    Ok((fs::read_to_string(pair.bouncer.config())?, pair.proxy.server_line()?, databases.join("\n")))
}

#[test]
fn conditions_that_are_not_met_are_named_and_a_dry_run_changes_nothing() -> Result<()> {
    let mut pair = Pair::open()?;
    pair.primary.cluster.exec("create table filler (t text)")?;
    for _ in 0..4 {
        pair.primary.cluster.exec("insert into filler values ('x')")?;
        pair.primary.cluster.wait_archived()?;
    }
    pair.wait_streaming()?;
    let before = what_is(&pair)?;
    // Where replay is not held up on purpose, it may take its time.
    let wald = pair.wald(pair.settings().set_text("promotion", "lag_max", "1s"))?;
    met(&wald)?;
    let state_dir = pair.sandbox.path().join("promote-1-state");
    assert_eq!(fs::read_dir(&state_dir)?.count(), 0, "a dry run wrote into the state directory");
    assert_eq!(what_is(&pair)?, before);

    // Not a standby.
    let on_primary = pair.primary.agent.config().to_owned();
    let mut command = pair.sandbox.account().command(wald.binaries().wald());
    let primary_config = fs::read_to_string(&on_primary)? + "[promotion]\nprimary = \"host=/tmp\"\n";
    let primary_config = pair.sandbox.write("on-primary.toml", &primary_config)?;
    command.arg("--config").arg(primary_config).args(["promote", "--yes", "--force", "lag"]);
    let finished = run(command)?.exited_with(1)?;
    assert!(finished.said().contains("is a primary"), "{}", finished.said());

    // Another primary than the one that it streams from.
    let wrong = pair.wald(pair.settings().set_text("promotion", "primary", "host=/nowhere port=1"))?;
    refused(&wrong, "upstream")?;

    // A primary that takes writes, and no hook; that can't be forced either.
    let unfenced = pair.wald(without_fence(&pair))?;
    refused(&unfenced, "old-primary-silent")?;
    let (verdict, ..) = condition(&unfenced, "old-primary-silent", &["--force", "old-primary-silent"])?;
    assert_eq!(verdict, "unmet", "a primary that takes writes was forced to count as fenced");

    refused(&pair.wald(pair.settings().set_text("promotion", "disk_free_min", "100000TiB"))?, "disk-space")?;

    lag_and_replay(&mut pair, &wald)?;
    archive(&pair, &wald)?;
    backup(&pair, &wald)?;

    // A router that does not answer.
    let text = "[{ socket = \"/nowhere.sock\", backend = \"b\", server = \"s\", address = \"127.0.0.1:1\" }]";
    let lost = pair.wald(pair.settings().set("promotion", "haproxy", text))?;
    refused(&lost, "routers")?;
    let (verdict, _, code) = condition(&lost, "routers", &["--force", "routers"])?;
    assert_eq!((verdict.as_str(), code), ("forced", 0));

    // A condition that nobody knows, and one that can't be forced, are refused on the command line.
    for name in ["lagg", "standby"] {
        wald.run(&["promote", "--yes", "--force", name])?.exited_with(2)?;
    }
    // Nobody to ask: nothing happens.
    let finished = wald.run(&["promote"])?.exited_with(1)?;
    assert!(finished.said().contains("--yes"), "{}", finished.said());
    assert_eq!(what_is(&pair)?, before);
    pair.assert_one_primary()
}

fn without_fence(pair: &Pair) -> Settings {
    pair.settings_without("fence_command")
}

fn lag_and_replay(pair: &mut Pair, wald: &Wald) -> Result<()> {
    let (primary, standby) = (&pair.primary.cluster, &pair.standby.cluster);
    standby.exec("select pg_wal_replay_pause()")?;
    primary.exec("insert into filler select repeat('x', 100) from generate_series(1, 1000)")?;
    refused(wald, "lag")?;
    refused(wald, "replay-paused")?;
    let forced = ["--force", "lag", "--force", "replay-paused"];
    let (verdict, _, code) = condition(wald, "lag", &forced)?;
    assert_eq!((verdict.as_str(), code), ("forced", 0));
    standby.exec("select pg_wal_replay_resume()")?;
    standby.exec("alter system set recovery_min_apply_delay = '1h'")?;
    standby.exec("select pg_reload_conf()")?;
    wait::until_true("the delay to be in force", DEADLINE, || {
        Ok(standby.scalar("show recovery_min_apply_delay")? == "1h")
    })?;
    primary.exec("insert into filler values ('delayed')")?;
    refused(wald, "apply-delay")?;
    refused(wald, "lag")?;
    standby.exec("alter system reset recovery_min_apply_delay")?;
    standby.exec("select pg_reload_conf()")?;
    pair.wait_streaming()?;
    // A receiver that is stopped: what is received is replayed, and it is lag all the same.
    pair.standby.cluster.exec("alter system set primary_conninfo = 'host=/nowhere'")?;
    pair.standby.cluster.exec("select pg_reload_conf()")?;
    wait::until_true("the receiver to end", DEADLINE, || {
        Ok(pair
            .standby
            .cluster
            .scalar("select count(*) from pg_stat_wal_receiver where status = 'streaming'")?
            == "0")
    })?;
    pair.primary.cluster.exec("insert into filler values ('not received')")?;
    refused(wald, "lag")?;
    refused(wald, "upstream")?;
    let conninfo = format!("alter system set primary_conninfo = '{}'", pair.primary.cluster.connection());
    pair.standby.cluster.exec(&conninfo)?;
    pair.standby.cluster.exec("select pg_reload_conf()")?;
    pair.wait_streaming()?;
    met(wald)
}

fn archive(pair: &Pair, wald: &Wald) -> Result<()> {
    let repository = pair.sandbox.path().join("repository");
    let mut segments: Vec<_> = fs::read_dir(repository.join("wal"))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "zst"))
        .collect();
    segments.sort();
    let middle = segments.get(segments.len() / 2).context("a segment")?;
    let away = pair.sandbox.path().join("away.zst");
    fs::rename(middle, &away)?;
    refused(wald, "archive-gap")?;
    let (verdict, _, code) = condition(wald, "archive-gap", &["--force", "archive-gap"])?;
    assert_eq!((verdict.as_str(), code), ("forced", 0));
    fs::rename(&away, middle)?;
    // Another standby was promoted already.
    let name = middle.file_name().and_then(|name| name.to_str()).context("a name")?;
    let taken = repository.join("wal").join(name.replacen("00000001", "00000002", 1));
    fs::copy(middle, &taken)?;
    refused(wald, "timeline")?;
    fs::remove_file(&taken)?;
    let gone = pair.sandbox.path().join("repository-away");
    fs::rename(&repository, &gone)?;
    refused(wald, "archive-reachable")?;
    fs::rename(&gone, &repository)?;
    met(wald)
}

fn backup(pair: &Pair, wald: &Wald) -> Result<()> {
    let target = pair.sandbox.path().join("slow-backup");
    let mut slow: Command = pair.standby.cluster.command("pg_basebackup")?;
    slow.args(["--checkpoint=fast", "--wal-method=none", "--max-rate=32k", "--no-sync", "-D"]).arg(&target);
    let mut slow = Process::spawn("pg_basebackup", slow, &pair.sandbox.path().join("slow-backup.log"))?;
    wait::until_true("the backup to begin", DEADLINE, || {
        slow.must_run()?;
        Ok(pair.standby.cluster.scalar("select count(*) from pg_stat_progress_basebackup")? == "1")
    })?;
    refused(wald, "backup-running")?;
    slow.kill_hard()?;
    wait::until_true("the backup to be gone", DEADLINE, || {
        Ok(pair.standby.cluster.scalar("select count(*) from pg_stat_progress_basebackup")? == "0")
    })?;
    met(wald)
}

#[test]
fn a_failure_before_the_promotion_takes_everything_back_and_writes_go_on() -> Result<()> {
    let mut pair = Pair::open()?;
    let before = what_is(&pair)?;
    let fences = [
        ("exit 7", "exit code 7"),
        // It says that the primary is fenced, and it is not.
        ("true", "still takes writes"),
        ("sleep 600", "killed after"),
    ];
    for (fence, said) in fences {
        let settings = pair.settings().set_text("promotion", "fence_command", fence);
        let limit = if fence.starts_with("sleep") { "1s" } else { "60s" };
        let wald = pair.wald(settings.set_text("promotion", "hook_timeout", limit))?;
        let finished = wald.run(&["promote", "--yes"])?.exited_with(1)?;
        assert!(finished.said().contains(said), "{}", finished.said());
        assert!(finished.said().contains("rolled back"), "{}", finished.said());
        assert_eq!(what_is(&pair)?, before, "after {fence}");
        pair.assert_one_primary()?;
        // It has ended: nothing is left to resume, and a new one may begin.
        wald.run(&["promote", "--resume", "--yes"])?.exited_with(1)?;
        met(&wald)?;
    }
    let audit = fs::read_to_string(pair.sandbox.path().join("promote-1-state/audit.log"))?;
    for stage in ["intended", "failed", "reverted"] {
        assert!(audit.contains(&format!("\"stage\":\"{stage}\"")), "{stage} is missing in {audit}");
    }

    // A transaction that does not end: the clients are let go again.
    let mut idle = pair.bouncer.client("psql", "app")?;
    idle.args(["-q", "-c", "begin; select pg_sleep(600)"]);
    let idle = Process::spawn("psql", idle, &pair.sandbox.path().join("idle.log"))?;
    wait::until_true("the transaction", DEADLINE, || {
        let sql = "select count(*) from pg_stat_activity where query like '%pg_sleep(600)%' and pid <> pg_backend_pid()";
        Ok(pair.primary.cluster.scalar(sql)? == "1")
    })?;
    let wald = pair.wald(pair.settings().set_text("promotion", "pause_timeout", "500ms"))?;
    let finished = wald.run(&["promote", "--yes"])?.exited_with(1)?;
    assert!(finished.said().contains("--force clients-held"), "{}", finished.said());
    drop(idle);
    assert_eq!(what_is(&pair)?, before);
    pair.assert_one_primary()?;

    // The same on an old primary that is dead without any hook: silence, and an archive that has
    // been silent for long enough, are proof; and the routers are optional.
    pair.primary.cluster.wait_archived()?;
    pair.wait_streaming()?;
    pair.primary.cluster.kill_hard()?;
    let silence = |duration: &str| without_fence(&pair).set_text("promotion", "fence_silence", duration);
    let (early, late) = (silence("1h"), silence("1ms"));
    let early = pair.wald(early)?;
    refused(&early, "old-primary-silent")?;
    let (verdict, _, code) = condition(&early, "old-primary-silent", &["--force", "old-primary-silent"])?;
    assert_eq!((verdict.as_str(), code), ("forced", 0));
    let late = pair.wald(late)?;
    late.run(&["promote", "--yes"])?.success()?;
    pair.turn_over();
    pair.assert_one_primary()
}
