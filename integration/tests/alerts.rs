//! The alert rules and the dashboard: what the real `promtool` says of them, that each alert is
//! tested both ways, and that what they name is what running agents serve.

use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Duration;
use wald_integration::account::clean_command;
use wald_integration::agent::Agent;
use wald_integration::http_client::{Answer, get};
use wald_integration::parts::{checkout, tool};
use wald_integration::ports::Reserved;
use wald_integration::postgres::{Cluster, ClusterOptions};
use wald_integration::run::{Finished, run};
use wald_integration::sandbox::Sandbox;
use wald_integration::scene::{Plot, Scene};
use wald_integration::wait;
use wald_integration::wald::{Settings, Wald};

const DEADLINE: Duration = Duration::from_secs(120);

fn file(name: &str) -> PathBuf {
    checkout().join("systemd").join(name)
}

fn read(name: &str) -> Result<String> {
    fs::read_to_string(file(name)).with_context(|| format!("reading systemd/{name}"))
}

fn promtool(arguments: &[&str]) -> Result<Command> {
    let mut command = clean_command(tool("promtool")?);
    command.args(arguments).current_dir(checkout().join("systemd"));
    Ok(command)
}

fn alerts(rules: &str) -> BTreeSet<&str> {
    rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect()
}

/// For each alert that is tested: in how many tests it fires, and in how many it does not.
fn tested(tests: &str) -> BTreeMap<&str, (u32, u32)> {
    let mut found: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
    let mut alert = "";
    for line in tests.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("alertname: ") {
            alert = name;
        } else if line == "exp_alerts: []" {
            found.entry(alert).or_default().1 += 1;
        } else if line == "exp_alerts:" {
            found.entry(alert).or_default().0 += 1;
        }
    }
    found
}

#[test]
fn promtool_accepts_the_rules_and_every_alert_fires_when_it_should_and_only_then() -> Result<()> {
    run(promtool(&["check", "rules", "alerts.yml"])?)?.success()?;
    let said = run(promtool(&["test", "rules", "alerts_test.yml"])?)?.success()?.said();
    assert!(said.contains("SUCCESS"), "{said}");
    let (rules, tests) = (read("alerts.yml")?, read("alerts_test.yml")?);
    let (alerts, tested) = (alerts(&rules), tested(&tests));
    assert!(alerts.len() >= 20, "{alerts:?}");
    for alert in &alerts {
        let (fires, quiet) = tested.get(alert).copied().unwrap_or_default();
        assert!(fires > 0, "no test in which {alert} fires");
        assert!(quiet > 0, "no test in which {alert} does not fire");
    }
    assert!(tested.keys().all(|alert| alerts.contains(alert)), "a test of an alert that is none");
    Ok(())
}

/// Otherwise the test above could not fail.
#[test]
fn promtool_tells_of_a_rule_that_does_not_do_what_its_test_says() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let broken = read("alerts.yml")?
        .replace("wald_archive_backlog_oldest_seconds > 300", "wald_archive_backlog_oldest_seconds > 400");
    sandbox.write("alerts.yml", &broken)?;
    sandbox.write("alerts_test.yml", &read("alerts_test.yml")?)?;
    let mut command = promtool(&["test", "rules", "alerts_test.yml"])?;
    command.current_dir(sandbox.path());
    let tested = run(command)?;
    assert!(tested.code() != 0 && tested.said().contains("WaldRpoExceeded"), "{}", tested.said());
    Ok(())
}

#[test]
fn every_alert_says_what_to_type() -> Result<()> {
    let rules = read("alerts.yml")?;
    let mut alert = "";
    let mut described = 0;
    for line in rules.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("- alert: ") {
            alert = name;
        } else if let Some(description) = line.strip_prefix("description: ") {
            described += 1;
            assert!(description.contains("wald "), "{alert} names no command: {description}");
        }
    }
    assert_eq!(described, alerts(&rules).len());
    Ok(())
}

/// The names of wald's metrics in an expression.
fn names(expression: &str) -> impl Iterator<Item = &str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    expression.split(move |c| !is_part(c)).filter(|word| word.starts_with("wald_"))
}

fn named_by_alerts(rules: &str) -> BTreeSet<String> {
    let expressions = rules.lines().filter_map(|line| line.trim().strip_prefix("expr: "));
    expressions.flat_map(names).map(str::to_owned).collect()
}

/// All values of `expr`, and what fills the variables.
fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value.as_str() {
                    Some(text) if name == "expr" || name == "definition" => found.push(text.to_owned()),
                    _ => expressions(value, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| expressions(value, found)),
        _ => {}
    }
}

fn named_by_dashboard() -> Result<BTreeSet<String>> {
    let dashboard: Value = serde_json::from_str(&read("dashboard.json")?).context("dashboard.json")?;
    assert_eq!(dashboard.get("title"), Some(&"DB & WAL".into()));
    let mut found = Vec::new();
    expressions(&dashboard, &mut found);
    assert!(found.len() > 20, "{found:?}");
    Ok(found.iter().flat_map(|expression| names(expression)).map(str::to_owned).collect())
}

/// The names of the samples in a page.
fn served(page: &str) -> BTreeSet<String> {
    let samples = page.lines().filter(|line| !line.starts_with('#'));
    samples.filter_map(|line| line.split(['{', ' ']).next()).map(str::to_owned).collect()
}

fn lint(sandbox: &Sandbox, page: &str) -> Result<Finished> {
    let page = sandbox.write("metrics.txt", page)?;
    let mut command = clean_command("sh");
    command.args(["-c", "\"$1\" check metrics < \"$2\"", "sh"]).arg(tool("promtool")?).arg(page);
    run(command)
}

fn free_addresses() -> Result<[SocketAddr; 2]> {
    match Reserved::new(2)?.release().as_slice() {
        [one, other] => Ok([*one, *other].map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))),
        _ => bail!("no two ports"),
    }
}

fn listening_on(address: SocketAddr) -> Settings {
    Settings::new().set_text("http", "listen", address.to_string())
}

/// A standby of the scene's cluster that streams through a slot, and the agent on its host.
fn standby(scene: &Scene, address: SocketAddr) -> Result<(Cluster, Agent)> {
    scene.cluster.exec("select pg_create_physical_replication_slot('far', true)")?;
    let mut standby = scene.cluster.standby(&scene.sandbox, "standby")?;
    standby.configure("primary_slot_name = 'far'")?;
    standby.set_environment(&scene.agent.environment());
    standby.start()?;
    let settings = listening_on(address);
    let wald = Wald::configure(&scene.sandbox, "other", &standby, &scene.place, settings)?;
    let agent = Agent::start(&scene.sandbox, "other", wald)?;
    Ok((standby, agent))
}

/// What commands that are under way, and a restore of before, leave on the disk.
fn leave_records(scene: &Scene) -> Result<()> {
    // What the commands that are under way leave on the disk.
    let controls = scene.sandbox.dir("wald-state/controls")?;
    let boost = r#"{"since":"2026-01-01T00:00:00Z","until":"2026-01-01T02:00:00Z"}"#;
    let promotion = r#"{"ended":null,"steps":[{"act":"fence"}]}"#;
    for (name, journal) in [("boost", boost), ("promotion", promotion)] {
        let path = controls.join(format!("{name}.json"));
        fs::write(&path, journal)?;
        scene.sandbox.account().own(&path)?;
    }

    // A restore of before: 1 GiB in 10 s.
    let rates = scene.sandbox.dir("wald-state/rates")?;
    let rate = r#"{"measured_at":"2026-01-01T00:00:00Z","bytes":1073741824,"seconds":10.0}"#;
    fs::write(rates.join("restore.json"), rate)?;
    scene.sandbox.account().own(&rates.join("restore.json"))?;
    Ok(())
}

/// What the metrics say of the one backup that was just taken.
fn of_the_backup(on_primary: &Answer) -> Result<()> {
    // New locks last for 7 days; the run of `expire` added a second or more, and its 30 hours.
    let horizon = on_primary.sample("wald_lock_horizon_timestamp_seconds").context("a horizon")?;
    let end = on_primary.sample("wald_last_backup_end_timestamp_seconds").context("an end")?;
    assert!((8.25..8.3).contains(&((horizon - end) / 86_400.0)), "{horizon} {end}");
    let from = on_primary.sample("wald_recovery_window_start_timestamp_seconds").context("a start")?;
    let until = on_primary.sample("wald_recovery_window_end_timestamp_seconds").context("an end")?;
    assert!(from <= until && (end - from).abs() < 60.0, "{from} {until} {end}");
    // More than the fixed costs, and not by much for so small a cluster.
    let rto = on_primary.sample("wald_rto_estimate_seconds").context("an estimate")?;
    assert!((120.0..300.0).contains(&rto), "{rto}");
    Ok(())
}

#[test]
fn what_alerts_and_dashboard_name_is_served_by_running_agents_and_promtool_likes_it() -> Result<()> {
    let [here, there] = free_addresses()?;
    let cluster = Plot::small().cluster.setting("max_slot_wal_keep_size = '256MB'");
    let cluster: ClusterOptions = cluster.setting("archive_timeout = 60");
    let scene = Scene::open(Plot { cluster, settings: listening_on(here), on_s3: true })?;
    let (_standby, _other) = standby(&scene, there)?;
    scene.write_segments(1)?;
    scene.agent.succeed(&["backup"])?;
    scene.agent.succeed(&["verify"])?;
    // A lock ends with a whole second: an `expire` within the same one has nothing to extend.
    thread::sleep(Duration::from_secs(2));
    scene.agent.succeed(&["expire"])?;
    leave_records(&scene)?;

    let wanted: BTreeSet<String> =
        named_by_alerts(&read("alerts.yml")?).into_iter().chain(named_by_dashboard()?).collect();
    assert!(wanted.len() > 30, "{wanted:?}");
    let mut missing = Vec::new();
    let all_served = wait::until_true("everything to be served", DEADLINE, || {
        // A rate of WAL, and with it the time that a slot has left, needs WAL.
        scene.write_segments(1)?;
        let names: BTreeSet<String> =
            [here, there].iter().flat_map(|address| served(&page(*address))).collect();
        missing = wanted.difference(&names).cloned().collect();
        let measured = get(here, "/metrics")?.sample("wald_rto_rate_is_measured{phase=\"restore\"}");
        Ok(missing.is_empty() && measured == Some(1.0))
    });
    all_served.with_context(|| format!("nobody serves {missing:?}"))?;

    for address in [here, there] {
        let page = page(address);
        let linted = lint(&scene.sandbox, &page)?;
        assert!(linted.code() == 0 && linted.said().trim().is_empty(), "{}", linted.said());
    }
    let (on_primary, on_standby) = (get(here, "/metrics")?, get(there, "/metrics")?);
    for (series, value) in [
        ("wald_boost_active", 1.0),
        ("wald_promotion_in_progress", 1.0),
        ("wald_promotion_step_info{step=\"fence\"}", 1.0),
        ("wald_backups", 1.0),
        ("wald_slot_active{slot=\"far\"}", 1.0),
        ("wald_slot_lost{slot=\"far\"}", 0.0),
        ("wald_last_run_good{run=\"verify\"}", 1.0),
        ("wald_archive_timeout_seconds", 60.0),
        ("wald_rto_rate_is_measured{phase=\"restore\"}", 1.0),
        ("wald_rto_rate_bytes_per_second{phase=\"restore\"}", 107_374_182.4),
        ("wald_rto_rate_is_measured{phase=\"replay\"}", 0.0),
    ] {
        assert_eq!(on_primary.sample(series), Some(value), "{series} in\n{}", on_primary.body);
    }
    for (series, value) in [
        ("wald_database_in_recovery", 1.0),
        ("wald_wal_receiver_streaming", 1.0),
        ("wald_archive_mode_enabled", 0.0),
        ("wald_boost_active", 0.0),
    ] {
        assert_eq!(on_standby.sample(series), Some(value), "{series} in\n{}", on_standby.body);
    }
    of_the_backup(&on_primary)
}

/// Empty while the agent does not listen yet.
fn page(address: SocketAddr) -> String {
    get(address, "/metrics").map(|answer| answer.body).unwrap_or_default()
}
