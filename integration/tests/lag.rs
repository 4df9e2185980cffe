//! `wald lag` on a real primary and two real standbys, one of them synchronous: an idle primary is
//! no lag, real lag is told, and what can't be known is not made up.

// Steps of a test stand in functions of their own, and read JSON as a test does.
#![allow(clippy::indexing_slicing)]

use anyhow::{Context, Result};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;
use wald_integration::postgres::{Cluster, ClusterOptions, Shutdown};
use wald_integration::process::Process;
use wald_integration::run::run;
use wald_integration::sandbox::Sandbox;
use wald_integration::wait;
use wald_integration::wald::{Place, Settings, Wald};

const DEADLINE: Duration = Duration::from_secs(60);

/// A primary that waits for `near`, and `far`, which it does not wait for. Each host has its wald.
struct Pair {
    primary: Cluster,
    near: Cluster,
    far: Cluster,
    on_primary: Wald,
    on_near: Wald,
    on_far: Wald,
    _sandbox: Sandbox,
}

fn limits() -> Settings {
    Settings::new().set_text("lag", "warning", "1s").set_text("lag", "critical", "4s")
}

impl Pair {
    fn start() -> Result<Pair> {
        let sandbox = Sandbox::new()?;
        let options = ClusterOptions { segment_size_mib: 1, ..ClusterOptions::default() };
        let options = options
            .setting("wal_level = replica")
            .setting("wal_keep_size = '64MB'")
            .setting("max_slot_wal_keep_size = '64MB'")
            .setting("wal_receiver_status_interval = 1")
            .setting("wal_retrieve_retry_interval = 200");
        let mut primary = Cluster::create(&sandbox, "primary", &options)?;
        primary.start()?;
        primary.exec("create table t (i int); select pg_create_physical_replication_slot('far', true)")?;
        let mut near = standby(&primary, &sandbox, "near", "")?;
        let mut far = standby(&primary, &sandbox, "far", "primary_slot_name = 'far'")?;
        near.start()?;
        far.start()?;
        primary.configure("synchronous_standby_names = 'FIRST 1 (near)'")?;
        primary.reload()?;
        let place = Place::directory(&sandbox)?;
        let wald = |name: &str, cluster| Wald::configure(&sandbox, name, cluster, &place, limits());
        let (on_primary, on_near, on_far) =
            (wald("wald-p", &primary)?, wald("wald-n", &near)?, wald("wald-f", &far)?);
        Ok(Pair { primary, near, far, on_primary, on_near, on_far, _sandbox: sandbox })
    }

    /// Waits until `wald lag --check` on a host ends with this code, and gives its line.
    fn wait_check(wald: &Wald, code: i32) -> Result<String> {
        let mut last = String::new();
        let found = wait::until(&format!("wald lag --check to exit with {code}"), DEADLINE, || {
            let checked = wald.run(&["lag", "--check"])?;
            last = checked.said();
            Ok((checked.code() == code).then(|| checked.stdout.clone()))
        });
        found.with_context(|| format!("it said: {last}"))
    }
}

/// A standby that calls itself by its name.
fn standby(primary: &Cluster, sandbox: &Sandbox, name: &str, more: &str) -> Result<Cluster> {
    let cluster = primary.standby(sandbox, name)?;
    cluster.configure(&format!("primary_conninfo = '{} application_name={name}'", primary.connection()))?;
    if !more.is_empty() {
        cluster.configure(more)?;
    }
    // pg_basebackup wrote its own, which would win.
    let auto: PathBuf = cluster.data_dir().join("postgresql.auto.conf");
    fs::write(&auto, "").with_context(|| format!("emptying {}", auto.display()))?;
    Ok(cluster)
}

fn number(value: &Value) -> Result<f64> {
    value.as_f64().with_context(|| format!("a number, not {value}"))
}

#[test]
fn lag_is_told_as_it_is_on_an_idle_a_late_a_paused_and_a_cut_off_standby() -> Result<()> {
    let mut pair = Pair::start()?;
    an_idle_primary_is_no_lag(&pair)?;
    a_delayed_standby_is_late(&mut pair)?;
    a_paused_replay_is_told(&mut pair)?;
    a_receiver_that_is_down_is_never_no_lag(&mut pair)?;
    a_missing_synchronous_standby_is_critical(&mut pair)?;
    a_server_that_does_not_answer_is_unknown(&mut pair)
}

fn an_idle_primary_is_no_lag(pair: &Pair) -> Result<()> {
    pair.primary.exec("insert into t values (1)")?;
    for wald in [&pair.on_primary, &pair.on_near, &pair.on_far] {
        let line = Pair::wait_check(wald, 0)?;
        assert!(line.starts_with("LAG OK - ") && line.lines().count() == 1, "{line}");
    }
    // The last transaction grows older than both limits, and that is no lag.
    wait::until_true("the last transaction to be old", DEADLINE, || {
        let lag = pair.on_near.json(&["lag"])?;
        assert_eq!(lag["state"], "ok", "{lag}");
        assert_eq!(lag["standby"]["receiver"], "streaming", "{lag}");
        // What PostgreSQL writes by itself every 15 s may be on its way just now.
        let in_time = number(&lag["standby"]["replay_lag_seconds"])? == 0.0;
        Ok(in_time && number(&lag["standby"]["last_transaction_age_seconds"])? > 4.5)
    })?;
    let lag = wait::until("nothing on its way", DEADLINE, || {
        let lag = pair.on_primary.json(&["lag"])?;
        let replicas = lag["replicas"].as_array().context("replicas")?;
        let in_time = replicas.iter().all(|replica| replica["replay"]["bytes"] == 0);
        Ok(in_time.then_some(lag))
    })?;
    assert_eq!((&lag["role"], &lag["state"]), (&"primary".into(), &"ok".into()), "{lag}");
    assert_eq!(lag["synchronous"]["streaming"], 1, "{lag}");
    let replicas = lag["replicas"].as_array().context("replicas")?;
    let of = |name: &str| replicas.iter().find(|replica| replica["name"] == name);
    assert_eq!(of("near").context("near")?["sync_state"], "sync", "{lag}");
    let far = of("far").context("far")?;
    assert_eq!((&far["state"], &far["sync_state"]), (&"streaming".into(), &"async".into()), "{lag}");
    assert_eq!((&far["replay"]["seconds"], &far["replay"]["bytes"]), (&0.0.into(), &0.into()), "{lag}");
    assert_eq!(
        (&lag["slots"][0]["name"], &lag["slots"][0]["active"]),
        (&"far".into(), &true.into()),
        "{lag}"
    );
    // One sample has no rate.
    assert!(lag["slots"][0]["seconds_until_lost"].is_null(), "{lag}");
    let text = pair.on_primary.succeed(&["lag"])?.stdout;
    assert!(text.contains("primary     OK") && text.contains("slot        far"), "{text}");
    Ok(())
}

fn a_delayed_standby_is_late(pair: &mut Pair) -> Result<()> {
    pair.far.configure("recovery_min_apply_delay = '20s'")?;
    pair.far.reload()?;
    wait::until_true("the delay to be in force", DEADLINE, || {
        Ok(pair.far.scalar("show recovery_min_apply_delay")? == "20s")
    })?;
    pair.primary.exec("insert into t values (2)")?;
    let line = Pair::wait_check(&pair.on_far, 2)?;
    assert!(line.contains("replay is behind by") && line.contains("replay_lag="), "{line}");
    let lag = pair.on_far.json(&["lag"])?;
    assert!(number(&lag["standby"]["replay_lag_bytes"])? > 0.0, "{lag}");
    assert_eq!(lag["standby"]["recovery_min_apply_delay_seconds"], 20.0, "{lag}");
    // The primary sees it as well; what it says it measured. The other standby is in time.
    Pair::wait_check(&pair.on_near, 0)?;
    pair.far.configure("recovery_min_apply_delay = 0")?;
    pair.far.reload()?;
    Pair::wait_check(&pair.on_far, 0)?;
    wait::until_true("the other standby's figures", DEADLINE, || {
        Ok(Pair::wait_check(&pair.on_primary, 0)?.contains("replay_lag_near=0.000s;1;4;0"))
    })?;
    Ok(())
}

fn a_paused_replay_is_told(pair: &mut Pair) -> Result<()> {
    pair.far.exec("select pg_wal_replay_pause()")?;
    // A warning by itself; critical if something that PostgreSQL writes by itself waits already.
    wait::until_true("the pause to be told", DEADLINE, || {
        let told = pair.on_far.run(&["lag", "--check"])?;
        let paused = ["replay is paused", "pause of replay was requested"];
        let expected = if told.stdout.contains("replay is behind by") { [1, 2].as_slice() } else { &[1] };
        Ok(expected.contains(&told.code()) && paused.iter().any(|paused| told.stdout.contains(paused)))
    })?;
    // What comes now waits, first for the warning and then for longer.
    pair.primary.exec("insert into t values (3)")?;
    Pair::wait_check(&pair.on_far, 2)?;
    let lag = pair.on_far.json(&["lag"])?;
    assert_eq!(lag["standby"]["pause"], "paused", "{lag}");
    // The primary knows how late it is from what it has not confirmed.
    wait::until_true("the primary to know it", DEADLINE, || {
        let seen = pair.on_primary.json(&["lag"])?;
        let replicas = seen["replicas"].as_array().context("replicas")?;
        let far = replicas.iter().find(|replica| replica["name"] == "far").context("far")?;
        assert!(number(&far["replay"]["bytes"])? > 0.0, "{seen}");
        Ok(far["flush"]["bytes"] == 0)
    })?;
    // Whether PostgreSQL has measured it or not: that is never told as no lag.
    wait::until_true("the primary to tell of it", DEADLINE, || {
        Ok(pair.on_primary.run(&["lag", "--check"])?.code() != 0)
    })?;
    pair.far.exec("select pg_wal_replay_resume()")?;
    Pair::wait_check(&pair.on_far, 0)?;
    Ok(())
}

fn a_receiver_that_is_down_is_never_no_lag(pair: &mut Pair) -> Result<()> {
    let good = format!("primary_conninfo = '{} application_name=far'", pair.primary.connection());
    pair.far.configure("primary_conninfo = 'host=/nonexistent port=5432 user=postgres'")?;
    pair.far.reload()?;
    wait::until_true("the receiver to be gone", DEADLINE, || {
        let lag = pair.on_far.json(&["lag"])?;
        Ok(lag["standby"]["receiver"] == "down")
    })?;
    let line = Pair::wait_check(&pair.on_far, 2)?;
    assert!(line.contains("the WAL receiver is down"), "{line}");
    // Everything received is replayed, and still it is not 0.
    let lag = pair.on_far.json(&["lag"])?;
    assert_eq!(lag["standby"]["replay_lag_bytes"], 0, "{lag}");
    assert!(number(&lag["standby"]["replay_lag_seconds"])? > 1.0, "{lag}");
    assert_eq!(lag["standby"]["replay_lag_is_exact"], false, "{lag}");
    // Its slot is not used, and the primary counts what it keeps.
    pair.primary.exec("insert into t select generate_series(1, 1000); select pg_switch_wal()")?;
    let seen = pair.on_primary.json(&["lag"])?;
    assert_eq!(seen["slots"][0]["active"], false, "{seen}");
    assert!(number(&seen["slots"][0]["retained_bytes"])? > 0.0, "{seen}");
    assert!(number(&seen["slots"][0]["safe_bytes"])? > 0.0, "{seen}");
    pair.far.configure(&good)?;
    pair.far.reload()?;
    Pair::wait_check(&pair.on_far, 0)?;
    Ok(())
}

fn a_missing_synchronous_standby_is_critical(pair: &mut Pair) -> Result<()> {
    pair.near.stop(Shutdown::Fast)?;
    let line = Pair::wait_check(&pair.on_primary, 2)?;
    assert!(line.contains("0 of 1 synchronous standbys"), "{line}");
    assert!(line.contains("synchronous_standbys=0;;1:;0"), "{line}");
    pair.near.start()?;
    Pair::wait_check(&pair.on_primary, 0)?;
    Ok(())
}

fn a_server_that_does_not_answer_is_unknown(pair: &mut Pair) -> Result<()> {
    // The standbys notice that their primary is gone.
    pair.primary.stop(Shutdown::Immediate)?;
    Pair::wait_check(&pair.on_near, 2)?;
    let line = Pair::wait_check(&pair.on_primary, 3)?;
    assert!(line.starts_with("LAG UNKNOWN - "), "{line}");
    assert_eq!(pair.on_primary.run(&["lag"])?.code(), 1);
    Ok(())
}

#[test]
fn a_role_that_sees_nothing_is_told_so_and_watching_sees_a_rate() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let mut primary = Cluster::create(&sandbox, "primary", &ClusterOptions::default())?;
    primary.start()?;
    primary.exec("create role poor login; create table t (i int)")?;
    let place = Place::directory(&sandbox)?;
    let poor = primary.connection().replace("user=postgres", "user=poor");
    let blind = Wald::configure(
        &sandbox,
        "blind",
        &primary,
        &place,
        Settings::new().set_text("cluster", "connection", poor.clone()),
    )?;
    let said = blind.run(&["lag", "--check"])?.exited_with(3)?.stdout;
    assert!(said.contains("GRANT pg_monitor TO \"poor\""), "{said}");
    // With no more than `wald role sql` gives, it sees.
    primary.exec("grant pg_monitor to poor")?;
    blind.run(&["lag", "--check"])?.exited_with(0)?;

    // Two samples have a rate; the watch goes on until it is interrupted.
    let log = sandbox.path().join("watch.log");
    let mut watch = Process::spawn("wald lag --watch", blind.command(&["lag", "--watch", "--json"]), &log)?;
    wait::until_true("a second sample with a rate", DEADLINE, || {
        watch.must_run()?;
        primary.exec("insert into t select generate_series(1, 1000)")?;
        let text = watch.log_text();
        let mut reports = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        Ok(reports.any(|report| report["wal_bytes_per_second"].as_f64().is_some_and(|rate| rate > 0.0)))
    })?;
    let ended = watch.stop(Signal::INT, DEADLINE)?;
    assert_eq!(ended.code(), Some(0), "{}", watch.log_text());
    // A configuration that can't be read is no CRITICAL.
    let mut command = sandbox.account().command(blind.binaries().wald());
    command.args(["--config", "/nonexistent", "lag", "--check"]);
    run(command)?.exited_with(3)?;
    Ok(())
}
