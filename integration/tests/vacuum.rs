//! `wald vacuum` on a real server: ages, dead rows and bloat that are real, thresholds that are given
//! to tables and taken back, and a boost that comes back whatever is killed.

use anyhow::{Context, Result};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::time::{Duration, Instant};
use wald_integration::postgres::{Cluster, ClusterOptions};
use wald_integration::process::Process;
use wald_integration::sandbox::Sandbox;
use wald_integration::scene::{Plot, Scene};
use wald_integration::wait;
use wald_integration::wald::{Place, Settings, Wald};

const DEADLINE: Duration = Duration::from_secs(60);

/// A cluster without an agent, and wald configured for it.
fn alone(options: &ClusterOptions, settings: Settings) -> Result<(Cluster, Wald, Sandbox)> {
    let sandbox = Sandbox::new()?;
    let mut cluster = Cluster::create(&sandbox, "primary", options)?;
    cluster.start()?;
    let place = Place::directory(&sandbox)?;
    let wald = Wald::configure(&sandbox, "wald", &cluster, &place, settings)?;
    Ok((cluster, wald, sandbox))
}

/// What a command that may have findings prints.
fn json(wald: &Wald, arguments: &[&str]) -> Result<Value> {
    let arguments: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
    let finished = wald.run(&arguments)?;
    serde_json::from_str(&finished.stdout)
        .with_context(|| format!("no JSON from {arguments:?}: {}", finished.said()))
}

fn named<'v>(list: &'v Value, key: &str, name: &str) -> Result<&'v Value> {
    let entries = list.as_array().context("a list")?;
    let found = entries.iter().find(|entry| entry[key] == name);
    found.with_context(|| format!("no {name} in {list:#}"))
}

fn table<'v>(report: &'v Value, database: &str, table: &str) -> Result<&'v Value> {
    named(&named(&report["databases"], "name", database)?["tables"], "name", table)
}

fn warned(report: &Value, of: &[&str]) -> bool {
    let warnings = report["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str);
    warnings.into_iter().any(|warning| of.iter().all(|word| warning.contains(word)))
}

fn options_of(cluster: &Cluster, database: &str, table: &str) -> Result<String> {
    let name = table.replace('\'', "''");
    let query = format!(
        "select coalesce(array_to_string(reloptions, ' '), '') from pg_class where oid = '{name}'::regclass"
    );
    let rows = cluster.rows_in(database, &query)?;
    Ok(rows.first().and_then(|row| row.first()).cloned().unwrap_or_default())
}

/// A psql that runs these one after the other and then sleeps in its session.
fn sleeper(cluster: &Cluster, sandbox: &Sandbox, name: &str, statements: &[&str]) -> Result<Process> {
    let mut psql = cluster.command("psql")?;
    psql.args(["--no-psqlrc", "--quiet"]);
    for statement in statements {
        psql.args(["--command", statement]);
    }
    psql.args(["--command", "\\! sleep 600"]);
    Process::spawn(name, psql, &sandbox.path().join(format!("{name}.log")))
}

#[test]
fn a_report_tells_age_dead_rows_bloat_and_what_it_cannot_know() -> Result<()> {
    let settings = Settings::new().set("vacuum", "freeze_age_warning", "2000").set_text(
        "vacuum",
        "bloat_size_min",
        "64KiB",
    );
    let (cluster, wald, sandbox) = alone(&ClusterOptions::default().setting("autovacuum = off"), settings)?;
    cluster.exec("create database shop")?;
    cluster.try_sql_in("shop", "create table elsewhere (id int)")?.success()?;
    cluster.exec("create table \"Bloated\" (id int, t text)")?;
    cluster.exec("insert into \"Bloated\" select g, repeat('x', 100) from generate_series(1, 20000) g")?;
    cluster.exec("delete from \"Bloated\" where id % 4 <> 0")?;
    cluster.exec("vacuum analyze \"Bloated\"")?;
    cluster.exec("create table dead (id int) with (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 10)")?;
    cluster.exec("insert into dead select generate_series(1, 1000)")?;
    cluster.exec("analyze dead")?;
    cluster.exec("update dead set id = id")?;

    let first = json(&wald, &["vacuum", "report"])?;
    assert!(first["rate"].is_null(), "{:#}", first["rate"]);
    assert!(first["remarks"].to_string().contains("not known yet"), "{:#}", first["remarks"]);
    // PostgreSQL publishes what a session counted when that ends, a moment later.
    let report = wait::until("the dead rows to be counted", DEADLINE, || {
        let report = json(&wald, &["vacuum", "report"])?;
        let counted = table(&report, "postgres", "public.dead")?["dead_rows"] == 1000;
        Ok(counted.then_some(report))
    })?;
    let dead = table(&report, "postgres", "public.dead")?;
    assert_eq!(
        (dead["dead_rows_threshold"].as_f64(), dead["vacuum_due"].as_bool()),
        (Some(20.0), Some(true))
    );
    assert!(warned(&report, &["public.dead", "autovacuum is off"]), "{:#}", report["warnings"]);
    let bloated = table(&report, "postgres", "public.\"Bloated\"")?;
    let percent = bloated["bloat"]["percent"].as_f64().context("a percentage")?;
    assert!((60.0..85.0).contains(&percent), "three of four rows are gone: {percent}");
    assert_eq!(bloated["bloat"]["method"], "statistics");
    assert!(!bloated["vacuumed_at"].is_null());
    assert!(warned(&report, &["Bloated", "empty", "pg_repack on a replica"]), "{:#}", report["warnings"]);
    table(&report, "shop", "public.elsewhere")?;
    assert!(!warned(&report, &["transactions old"]), "{:#}", report["warnings"]);

    // Real transactions, each with an id.
    cluster.exec("do $$ begin for i in 1..3000 loop perform txid_current(); commit; end loop; end $$")?;
    let old = wait::until("the rate to be known", DEADLINE, || {
        let report = json(&wald, &["vacuum", "report"])?;
        Ok((!report["rate"].is_null()).then_some(report))
    })?;
    assert!(old["rate"]["transactions_per_day"].as_f64().unwrap_or_default() > 0.0);
    let postgres = named(&old["databases"], "name", "postgres")?;
    assert_eq!(postgres["freeze"]["state"], "warning");
    let days = postgres["freeze"]["days_until_stop"].as_f64().context("days")?;
    assert!(days > 0.0, "{days}");
    assert!(warned(&old, &["database postgres", "transactions old", "days before"]), "{:#}", old["warnings"]);
    wald.run(&["vacuum", "report", "--check"])?.exited_with(1)?;
    let text = wald.succeed(&["vacuum", "report", "--measure", "1s"])?.stdout;
    for wanted in ["transactions and", "database shop", "VACUUM DUE", "% empty, estimated from statistics"] {
        assert!(text.contains(wanted), "{wanted} is missing in:\n{text}");
    }

    // With the extension the finding is counted and not estimated.
    cluster.exec("create extension pgstattuple")?;
    let counted = json(&wald, &["vacuum", "report", "--database", "postgres"])?;
    let bloat = &table(&counted, "postgres", "public.\"Bloated\"")?["bloat"];
    assert_eq!(bloat["method"], "pgstattuple");
    let percent = bloat["percent"].as_f64().context("a percentage")?;
    assert!((60.0..85.0).contains(&percent), "three of four rows are gone: {percent}");
    assert_eq!(counted["databases"].as_array().map(Vec::len), Some(1));

    // A vacuum that takes its time, as one that is throttled does.
    let slow = [
        "set vacuum_cost_delay = '100ms'",
        "set vacuum_cost_limit = 1",
        "vacuum (disable_page_skipping) \"Bloated\"",
    ];
    let vacuum = sleeper(&cluster, &sandbox, "vacuum", &slow)?;
    let running = wait::until("a running vacuum", DEADLINE, || {
        Ok(json(&wald, &["vacuum", "report"])?["running"]
            .as_array()
            .and_then(|running| running.first().cloned()))
    })?;
    assert_eq!(running["table"], "public.\"Bloated\"");
    assert_eq!(
        (running["database"].as_str(), running["for_wraparound"].as_bool()),
        (Some("postgres"), Some(false))
    );
    drop(vacuum);

    let mut standby = cluster.standby(&sandbox, "standby")?;
    standby.start()?;
    let place = Place::directory(&sandbox)?;
    let there = Wald::configure(&sandbox, "standby", &standby, &place, Settings::new())?;
    let report = json(&there, &["vacuum", "report"])?;
    assert_eq!(report["standby"], true);
    assert!(table(&report, "postgres", "public.dead")?["dead_rows"].is_null());
    assert!(report["remarks"].to_string().contains("this is a standby"), "{:#}", report["remarks"]);
    for refused in
        [&["vacuum", "tune"] as &[&str], &["vacuum", "boost", "--for", "1h", "--without-agent", "--yes"]]
    {
        let said = there.run(refused)?.exited_with(1)?.stderr;
        assert!(said.contains("this is a standby"), "{said}");
    }
    Ok(())
}

/// Rows that a table has, of which half were updated.
fn hot_table(cluster: &Cluster, database: &str, name: &str, with: &str) -> Result<()> {
    let sql = [
        format!("create table {name} (id int){with}"),
        format!("insert into {name} select generate_series(1, 2000)"),
        format!("analyze {name}"),
        format!("update {name} set id = id where id % 2 = 0"),
    ];
    for statement in sql {
        cluster.try_sql_in(database, &statement)?.success()?;
    }
    Ok(())
}

#[test]
fn tables_are_tuned_on_record_and_get_back_what_they_had() -> Result<()> {
    const TUNED: &str = "autovacuum_vacuum_scale_factor=0.02";
    let settings = Settings::new().set("vacuum", "large_rows", "1000").set("vacuum", "hot_percent", "10");
    let (cluster, wald, sandbox) =
        alone(&ClusterOptions::default().setting("autovacuum_naptime = 1h"), settings)?;
    cluster.exec("create database shop")?;
    hot_table(&cluster, "postgres", "plain", "")?;
    hot_table(&cluster, "postgres", "own", " with (fillfactor = 90, autovacuum_vacuum_scale_factor = 0.10)")?;
    hot_table(&cluster, "postgres", "changed", "")?;
    hot_table(&cluster, "postgres", "dropped", "")?;
    hot_table(&cluster, "postgres", "renamed", "")?;
    hot_table(&cluster, "postgres", "locked", "")?;
    hot_table(&cluster, "shop", "\"It's\"", "")?;
    hot_table(&cluster, "postgres", "low", " with (autovacuum_vacuum_scale_factor = 0.01)")?;
    cluster.exec("create table cold as select generate_series(1, 2000) as id")?;
    cluster.exec("analyze cold")?;

    let plan = wait::until("all changes to be counted", DEADLINE, || {
        let plan = json(&wald, &["vacuum", "tune"])?;
        Ok((plan["candidates"].as_array().map(Vec::len) == Some(7)).then_some(plan))
    })?;
    let plain = named(&plan["candidates"], "table", "public.plain")?;
    assert_eq!(plain["statement"], "ALTER TABLE public.plain SET (autovacuum_vacuum_scale_factor = '0.02');");
    assert_eq!(
        (plain["input"]["changed_rows"].as_u64(), plain["input"]["rows"].as_f64()),
        (Some(1000), Some(2000.0))
    );
    let text = wald.succeed(&["vacuum", "tune"])?.stdout;
    assert!(text.contains("-- in database shop") && text.contains("public.\"It's\""), "{text}");
    assert_eq!(options_of(&cluster, "postgres", "plain")?, "", "a proposal changes nothing");

    let refused = wald.run(&["vacuum", "tune", "--apply"])?.exited_with(1)?.stderr;
    assert!(refused.contains("--yes"), "{refused}");
    assert_eq!(options_of(&cluster, "postgres", "plain")?, "");

    // A table that somebody holds on to does not stop the others, and is not waited for long.
    let lock = sleeper(&cluster, &sandbox, "lock", &["begin", "lock table locked"])?;
    wait::until_true("the lock", DEADLINE, || {
        Ok(cluster.scalar("select count(*) from pg_locks where relation = 'locked'::regclass and granted")?
            == "1")
    })?;
    let said = wald.run(&["vacuum", "tune", "--apply", "--yes"])?.exited_with(1)?.stdout;
    assert!(said.contains("public.locked: NOT changed"), "{said}");
    drop(lock);
    for (database, table, options) in [
        ("postgres", "plain", TUNED),
        ("postgres", "own", "fillfactor=90 autovacuum_vacuum_scale_factor=0.02"),
        ("shop", "\"It's\"", TUNED),
        ("postgres", "locked", ""),
        ("postgres", "low", "autovacuum_vacuum_scale_factor=0.01"),
        ("postgres", "cold", ""),
    ] {
        assert_eq!(options_of(&cluster, database, table)?, options, "{table}");
    }
    // Once more for the one that was locked; what was before the first time stays on record.
    wald.succeed(&["vacuum", "tune", "--apply", "--yes"])?;
    assert_eq!(options_of(&cluster, "postgres", "locked")?, TUNED);

    cluster.exec("alter table changed set (autovacuum_vacuum_scale_factor = 0.3)")?;
    cluster.exec("drop table dropped")?;
    cluster.exec("alter table renamed rename to another_name")?;
    let said = wald.run(&["vacuum", "tune", "--revert", "--yes"])?.exited_with(1)?.stdout;
    assert!(said.contains("somebody has it set to 0.3 since"), "{said}");
    assert!(said.contains("the table is gone"), "{said}");
    for (database, table, options) in [
        ("postgres", "plain", ""),
        ("postgres", "own", "fillfactor=90 autovacuum_vacuum_scale_factor=0.10"),
        ("postgres", "changed", "autovacuum_vacuum_scale_factor=0.3"),
        ("postgres", "another_name", ""),
        ("postgres", "locked", ""),
        ("shop", "\"It's\"", ""),
    ] {
        assert_eq!(options_of(&cluster, database, table)?, options, "{table}");
    }
    let again = wald.succeed(&["vacuum", "tune", "--revert", "--yes"])?.stdout;
    assert!(again.contains("nothing to take back"), "{again}");
    let audit = fs::read_to_string(sandbox.path().join("wald-state/audit.log"))?;
    for stage in ["intended", "done", "failed", "reverted"] {
        assert!(audit.contains(&format!("\"stage\":\"{stage}\"")), "{stage} is missing in {audit}");
    }
    Ok(())
}

const BOOST: [&str; 9] =
    ["vacuum", "boost", "--workers", "8", "--maintenance-work-mem", "2GB", "--for", "2h", "--yes"];

/// What is in force, and what `postgresql.auto.conf` says.
fn state(cluster: &Cluster) -> Result<(String, String)> {
    let force = cluster.scalar(
        "select current_setting('maintenance_work_mem') || ' ' || current_setting('autovacuum_vacuum_cost_limit')",
    )?;
    let file = fs::read_to_string(cluster.data_dir().join("postgresql.auto.conf"))?;
    let lines = file
        .lines()
        .filter(|line| !line.starts_with('#') && (line.contains("work_mem") || line.contains("vacuum")));
    Ok((force, lines.collect::<Vec<_>>().join("\n")))
}

fn boosted(cluster: &Cluster) -> Result<bool> {
    Ok(state(cluster)?.0 == "2GB 2000")
}

/// Waits until the agent has taken the boost back, and off the record.
fn wait_over(cluster: &Cluster, wald: &Wald, before: &(String, String)) -> Result<()> {
    wait::until_true("the boost to be taken back", DEADLINE, || {
        let over = wald.run(&["vacuum", "boost"])?.stdout.contains("no boost is in force");
        Ok(over && state(cluster)? == *before)
    })
}

#[test]
fn a_boost_says_what_needs_a_restart_and_comes_back_when_it_is_told_or_its_time_is_over() -> Result<()> {
    let scene = Scene::open(Plot::small())?;
    let (cluster, wald) = (&scene.cluster, &scene.agent);
    cluster.exec("alter system set maintenance_work_mem = '80MB'")?;
    cluster.exec("select pg_reload_conf()")?;
    wait::until_true("the reload", DEADLINE, || Ok(state(cluster)?.0 == "80MB -1"))?;
    let before = state(cluster)?;

    let refused = wald.run(&["vacuum", "boost", "--for", "2h"])?.exited_with(1)?.stderr;
    assert!(refused.contains("--yes"), "{refused}");
    assert_eq!(state(cluster)?, before);

    let said = wald.succeed(&BOOST)?.stdout;
    assert!(said.contains("autovacuum_max_workers is 3") && said.contains("a restart"), "{said}");
    assert!(boosted(cluster)?, "{:?}", state(cluster)?);
    let shown = json(wald, &["vacuum", "boost"])?;
    assert_eq!(shown["boost"]["settings"][0]["before"], "80MB");
    let second = wald.run(&BOOST)?.exited_with(1)?.stderr;
    assert!(second.contains("a boost is in force until"), "{second}");
    let extended = json(wald, &["vacuum", "boost", "--extend", "--for", "3h", "--yes"])?;
    assert!(extended["boost"]["until"].as_str() > shown["boost"]["until"].as_str(), "{extended:#}");

    let said = wald.succeed(&["vacuum", "boost", "--revert", "--yes"])?.stdout;
    assert!(said.contains("maintenance_work_mem set to 80MB again"), "{said}");
    assert_eq!(state(cluster)?, before);

    // The agent takes it back by itself.
    wald.succeed(&["vacuum", "boost", "--maintenance-work-mem", "2GB", "--for", "1s", "--yes"])?;
    wait_over(cluster, wald, &before)?;
    // Until then the agent holds the claim.
    wait::until_true("the agent to be done", DEADLINE, || {
        Ok(wald.log_text().contains("the vacuum boost is over and was taken back"))
    })?;

    // What a person sets meanwhile is theirs.
    wald.succeed(&BOOST)?;
    cluster.exec("alter system set maintenance_work_mem = '3GB'")?;
    let said = wald.run(&["vacuum", "boost", "--revert", "--yes"])?.exited_with(1)?.stdout;
    assert!(said.contains("was set to 3GB by somebody since"), "{said}");
    assert_eq!(state(cluster)?.0, "3GB -1");
    let none = wald.succeed(&["vacuum", "boost"])?.stdout;
    assert!(none.contains("no boost is in force"), "{none}");

    // Where the server does not follow, the boost is taken back at once.
    cluster.exec("alter system set maintenance_work_mem = '80MB'")?;
    cluster.exec("alter role postgres set maintenance_work_mem = '100MB'")?;
    let said = wald.run(&BOOST)?.exited_with(1)?.stderr;
    assert!(said.contains("maintenance_work_mem") && said.contains("taken back"), "{said}");
    assert_eq!(state(cluster)?.1, before.1);
    Ok(())
}

#[test]
fn a_boost_comes_back_after_a_crash_of_agent_and_server_and_needs_an_agent() -> Result<()> {
    let mut scene = Scene::open(Plot::small())?;
    let before = state(&scene.cluster)?;
    scene.agent.succeed(&["vacuum", "boost", "--maintenance-work-mem", "2GB", "--for", "10s", "--yes"])?;
    assert!(boosted(&scene.cluster)?);
    scene.agent.kill_hard()?;
    scene.cluster.kill_hard()?;
    // While the server is away the agent tries and goes on trying.
    scene.agent.restart()?;
    wait::until_true("the agent to try in vain", DEADLINE, || {
        Ok(scene.agent.log_text().contains("can't be taken back yet"))
    })?;
    scene.cluster.start()?;
    wait_over(&scene.cluster, &scene.agent, &before)?;

    scene.agent.kill_hard()?;
    let said = scene.agent.run(&BOOST)?.exited_with(1)?.stderr;
    assert!(said.contains("no agent answers"), "{said}");
    assert_eq!(state(&scene.cluster)?, before);

    // Without an agent a boost that is overdue is told, and ends by hand.
    scene.agent.succeed(&[
        "vacuum",
        "boost",
        "--maintenance-work-mem",
        "2GB",
        "--for",
        "1s",
        "--without-agent",
        "--yes",
    ])?;
    wait::until_true("the boost to be overdue", DEADLINE, || {
        Ok(scene.agent.run(&["vacuum", "boost"])?.stdout.contains("OVERDUE"))
    })?;
    scene.agent.succeed(&["vacuum", "boost", "--revert", "--yes"])?;
    assert_eq!(state(&scene.cluster)?, before);
    Ok(())
}

#[test]
fn a_boost_that_is_killed_at_any_moment_can_be_taken_back() -> Result<()> {
    let (cluster, wald, sandbox) = alone(&ClusterOptions::default(), Settings::new())?;
    let before = state(&cluster)?;
    let arguments: Vec<&str> = BOOST.into_iter().chain(["--without-agent"]).collect();
    let whole = {
        let started = Instant::now();
        wald.succeed(&arguments)?;
        wald.succeed(&["vacuum", "boost", "--revert", "--yes"])?;
        started.elapsed() / 2
    };
    let journal = sandbox.path().join("wald-state/controls/boost.json");
    let (mut unfinished, mut untouched) = (0, 0);
    for step in 0..24 {
        let mut boost = Process::spawn("boost", wald.command(&arguments), &sandbox.path().join("boost.log"))?;
        // Kill it somewhere between its start and its end: what is asserted holds at every moment.
        let moment = Instant::now() + whole * step / 20;
        wait::until_true("the moment", DEADLINE, || Ok(Instant::now() >= moment))?;
        boost.signal(Signal::KILL)?;
        boost.wait_end(DEADLINE)?;
        let recorded = journal.exists();
        if state(&cluster)?.1 == before.1 {
            untouched += 1;
        } else {
            assert!(recorded, "something was changed and nothing is on record");
            unfinished += 1;
        }
        wald.succeed(&["vacuum", "boost", "--revert", "--yes"])?;
        assert_eq!(state(&cluster)?, before, "step {step}");
        assert!(!journal.exists());
    }
    eprintln!("killed before a change: {untouched}, after one: {unfinished}");

    // The two moments that a kill seldom meets: on record and not changed, changed and not reloaded.
    wald.succeed(&arguments)?;
    let record = fs::read(&journal)?;
    wald.succeed(&["vacuum", "boost", "--revert", "--yes"])?;
    for changed in [false, true] {
        if changed {
            cluster.exec("alter system set maintenance_work_mem = '2097152kB'")?;
            assert_eq!(state(&cluster)?.0, before.0, "not in force without a reload");
        }
        fs::write(&journal, &record)?;
        sandbox.account().own(&journal)?;
        wald.succeed(&["vacuum", "boost", "--revert", "--yes"])?;
        assert_eq!(state(&cluster)?, before);
        assert!(!journal.exists());
    }
    Ok(())
}
