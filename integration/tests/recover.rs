//! A lost cluster brought back: every kind of target, either timeline, tablespaces, and the
//! plans that refuse before a byte is written.

use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use wald_integration::postgres::{Cluster, ClusterOptions, Shutdown};
use wald_integration::run::{Finished, run};
use wald_integration::sandbox::Sandbox;
use wald_integration::scene::{Plot, Scene};
use wald_integration::wait;
use wald_integration::wald::{Place, Settings, Wald};

const DEADLINE: Duration = Duration::from_secs(120);

/// `wald restore` into a new directory, and the arguments that the test adds.
fn restore(scene: &Scene, name: &str, arguments: &[&str]) -> Result<(PathBuf, Finished)> {
    let data_dir = scene.sandbox.path().join(format!("{name}-data"));
    let to = data_dir.to_str().context("a path")?;
    let arguments: Vec<&str> = ["restore", "--to", to].into_iter().chain(arguments.iter().copied()).collect();
    Ok((data_dir.clone(), scene.agent.run(&arguments)?))
}

/// Starts a restored directory and waits until it is open for writing.
fn open(scene: &Scene, name: &str, data_dir: &Path) -> Result<Cluster> {
    let mut cluster = Cluster::adopt(&scene.sandbox, name, data_dir)?;
    cluster.set_environment(&scene.agent.environment());
    cluster.launch()?;
    cluster.wait_primary(DEADLINE)?;
    Ok(cluster)
}

/// Restores, recovers, and gives what the table `t` holds.
fn recovered(scene: &Scene, name: &str, arguments: &[&str]) -> Result<String> {
    let (data_dir, restored) = restore(scene, name, arguments)?;
    restored.success()?;
    let mut cluster = open(scene, name, &data_dir)?;
    let held = cluster.scalar("select coalesce(string_agg(i::text, ',' order by i), '') from t")?;
    cluster.stop(Shutdown::Fast)?;
    Ok(held)
}

/// A cluster that was backed up while the table `t` held 1.
fn backed_up() -> Result<Scene> {
    let scene = Scene::open(Plot::small())?;
    scene.cluster.exec("create table t (i int); insert into t values (1)")?;
    scene.agent.succeed(&["backup"])?;
    Ok(scene)
}

/// The server's clock, with a pause on either side so that no commit shares its moment.
fn moment(cluster: &Cluster) -> Result<String> {
    let now = "select pg_sleep(0.05); select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') || '+00'";
    let time = cluster.rows(now)?.last().and_then(|row| row.last().cloned()).context("a time")?;
    cluster.exec("select pg_sleep(0.05)")?;
    Ok(time)
}

#[test]
fn every_kind_of_target_is_reached() -> Result<()> {
    let mut scene = backed_up()?;
    let cluster = &scene.cluster;
    cluster.exec("insert into t values (2)")?;
    let time = moment(cluster)?;
    cluster.exec("insert into t values (3)")?;
    let lsn = cluster.scalar("select pg_current_wal_insert_lsn()")?;
    cluster.exec("insert into t values (4)")?;
    cluster.exec("select pg_create_restore_point('before the deed')")?;
    let xid = cluster.scalar("insert into t values (5) returning pg_current_xact_id()")?;
    cluster.exec("insert into t values (6)")?;
    scene.write_segments(2)?;
    scene.cluster.wait_archived()?;
    scene.cluster.kill_hard()?;

    assert_eq!(recovered(&scene, "time", &["--target-time", &time])?, "1,2");
    assert_eq!(recovered(&scene, "lsn", &["--target-lsn", &lsn])?, "1,2,3");
    assert_eq!(recovered(&scene, "name", &["--target-name", "before the deed"])?, "1,2,3,4");
    assert_eq!(recovered(&scene, "xid", &["--target-xid", &xid])?, "1,2,3,4,5");
    assert_eq!(recovered(&scene, "until-xid", &["--target-xid", &xid, "--target-exclusive"])?, "1,2,3,4");
    assert_eq!(recovered(&scene, "immediate", &["--target", "immediate"])?, "1");
    assert_eq!(recovered(&scene, "end", &[])?, "1,2,3,4,5,6");
    // The agent of the lost cluster being gone too changes nothing.
    scene.agent.kill_hard()?;
    assert_eq!(recovered(&scene, "alone", &["--target-time", &time])?, "1,2");
    Ok(())
}

#[test]
fn after_a_promotion_either_timeline_can_be_followed() -> Result<()> {
    let mut scene = backed_up()?;
    let mut standby = scene.cluster.standby(&scene.sandbox, "standby")?;
    let promoted = Wald::configure(&scene.sandbox, "promoted", &standby, &scene.place, Settings::new())?;
    standby.set_environment(&promoted.environment());
    standby.configure(&format!("archive_command = '{}'", promoted.archive_command()))?;
    standby.start()?;
    scene.cluster.exec("insert into t values (2)")?;
    let lsn = scene.cluster.scalar("select pg_current_wal_flush_lsn()")?;
    wait::until_true("the standby to replay", DEADLINE, || {
        Ok(standby.scalar(&format!("select pg_last_wal_replay_lsn() >= '{lsn}'"))? == "t")
    })?;
    standby.promote()?;
    // The old primary goes on by itself, as after a split; both sides are archived.
    scene.cluster.exec("insert into t values (10)")?;
    standby.exec("insert into t values (20)")?;
    for cluster in [&mut scene.cluster, &mut standby] {
        cluster.exec("select pg_switch_wal()")?;
        cluster.exec("create table filler2 (); select pg_switch_wal()")?;
        cluster.wait_archived()?;
    }
    assert_eq!(recovered(&scene, "old", &["--target-timeline", "1"])?, "1,2,10");
    assert_eq!(recovered(&scene, "new", &["--target-timeline", "2"])?, "1,2,20");
    assert_eq!(recovered(&scene, "latest", &["--target-timeline", "latest"])?, "1,2,20");
    assert_eq!(recovered(&scene, "current", &["--target-timeline", "current"])?, "1,2,10");

    // A backup of the new timeline is not on the way to the end of the old one.
    let id = backup_id(&promoted)?;
    let (_, refused) = restore(&scene, "wrong", &["--target-timeline", "1", "--backup", &id])?;
    let refused = refused.exited_with(1)?;
    assert!(refused.said().contains("timeline"), "{}", refused.said());
    let (_, refused) = restore(&scene, "none", &["--target-timeline", "7"])?;
    assert!(refused.exited_with(1)?.said().contains('7'));
    Ok(())
}

/// Takes a backup and gives its name.
fn backup_id(wald: &Wald) -> Result<String> {
    wald.succeed(&["backup"])?;
    let listing = wald.json(&["list"])?;
    let backups = listing.get("backups").and_then(|backups| backups.as_array()).context("backups")?;
    let id = backups.last().and_then(|backup| backup.get("id")?.as_str());
    Ok(id.context("an id")?.to_owned())
}

/// A restore must be refused, in these words, without having written anything.
fn refuses(scene: &Scene, name: &str, arguments: &[&str], words: &[&str]) -> Result<()> {
    let (dir, answer) = restore(scene, name, arguments)?;
    let answer = answer.exited_with(1)?;
    for word in words {
        assert!(answer.said().contains(word), "{name}: {word} is missing in {}", answer.said());
    }
    assert!(!dir.exists(), "{name} wrote something");
    Ok(())
}

#[test]
fn a_plan_refuses_before_a_byte_is_written_and_says_why() -> Result<()> {
    let mut scene = Scene::open(Plot::small())?;
    let (dir, nothing) = restore(&scene, "nothing", &[])?;
    assert!(nothing.exited_with(1)?.said().contains("wald backup"));
    assert!(!dir.exists());
    let before = moment(&scene.cluster)?;
    scene.cluster.exec("create table t (i int); insert into t values (1)")?;
    scene.agent.succeed(&["backup"])?;
    let lsn_before = "0/100028";
    scene.write_segments(6)?;
    scene.cluster.wait_archived()?;
    refuses(&scene, "early", &["--target-time", &before], &["before"])?;
    refuses(&scene, "early-lsn", &["--target-lsn", lsn_before], &["before"])?;
    refuses(&scene, "future", &["--target-time", "2200-01-01 00:00:00+00"], &["2200"])?;
    refuses(&scene, "late-lsn", &["--target-lsn", "FF/1000028"], &["FF/1000028"])?;
    refuses(&scene, "unknown", &["--backup", "20200101T000000Z-full"], &["20200101T000000Z-full"])?;

    let now = moment(&scene.cluster)?;
    scene.write_segments(2)?;
    scene.cluster.wait_archived()?;
    let (dir, dry) = restore(&scene, "dry", &["--target-time", &now, "--dry-run"])?;
    assert!(dry.success()?.stdout.contains("recovery_target_time"));
    assert!(!dir.exists());

    // A gap: the WAL behind it can't be reached, what is before it can.
    let listing = scene.agent.json(&["list"])?;
    let last = listing["timelines"][0]["ranges"][0]["last"].as_str().context("a segment")?.to_owned();
    let mut segments: Vec<PathBuf> = fs::read_dir(scene.repository().join("wal"))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(|name| name.len() == 28))
        .collect();
    segments.sort();
    let missing = segments.iter().rev().nth(3).context("a segment")?.clone();
    fs::rename(&missing, scene.sandbox.path().join("kept.zst"))?;
    let name = missing.file_stem().and_then(|stem| stem.to_str()).context("a name")?;
    let size = 1 << 20;
    let position = u64::from_str_radix(last.get(16..24).context("a segment")?, 16)? * size;
    let target = format!("0/{:X}", position + 40);
    refuses(&scene, "gap", &["--target-lsn", &target], &[name])?;
    let listing = scene.agent.json(&["list"])?;
    assert_eq!(listing["timelines"][0]["gaps"][0]["first"], name, "{listing}");
    fs::rename(scene.sandbox.path().join("kept.zst"), &missing)?;

    // A directory that holds something, and one of a running server.
    let full = scene.sandbox.dir("full-data")?;
    fs::write(full.join("precious"), "x")?;
    let (_, answer) = restore(&scene, "full", &[])?;
    assert!(answer.exited_with(1)?.said().contains("full-data"));
    assert_eq!(fs::read(full.join("precious"))?, b"x");
    for delta in [&[][..], &["--delta"]] {
        let (_, answer) = restore(&scene, "primary", delta)?;
        answer.exited_with(1)?;
    }
    assert_eq!(scene.cluster.scalar("select i from t")?, "1");
    Ok(())
}

#[test]
fn a_restored_cluster_passes_pg_verifybackup_and_pg_amcheck_and_archives_nothing() -> Result<()> {
    let mut scene = Scene::open(Plot::small())?;
    let place = scene.sandbox.dir("space")?;
    scene.cluster.exec(&format!("create tablespace space location '{}'", place.display()))?;
    scene.cluster.exec(
        "create table t (i int primary key, t text); insert into t select g, md5(g::text) from generate_series(1, 20000) g; \
         create table elsewhere tablespace space as select * from t; create index on elsewhere (t)",
    )?;
    scene.agent.succeed(&["backup"])?;
    scene
        .cluster
        .exec("update t set t = 'changed' where i % 7 = 0; delete from elsewhere where i % 3 = 0")?;
    scene.write_segments(2)?;
    scene.cluster.wait_archived()?;
    let wanted = scene.cluster.fingerprint()?;
    let oid = scene.cluster.scalar("select oid from pg_tablespace where spcname = 'space'")?;
    // The old place is still taken: without a map that is refused.
    let (_, refused) = restore(&scene, "unmapped", &[])?;
    assert!(refused.exited_with(1)?.said().contains(&oid));

    let moved = scene.sandbox.path().join("moved");
    let map = format!("{oid}={}", moved.display());
    let (data_dir, restored) = restore(&scene, "copy", &["--tablespace-map", &map])?;
    restored.success()?;
    let dir = data_dir.to_str().context("a path")?;
    // The WAL is in the archive, not in pg_wal; everything else is what the manifest says.
    let verified =
        scene.cluster.run("pg_verifybackup", &["--no-parse-wal", "--ignore=tablespace_map", dir])?;
    assert!(verified.success()?.said().contains("successfully verified"));
    let mut copy = open(&scene, "copy", &data_dir)?;
    let differences = wanted.differences(&copy.fingerprint()?);
    assert!(differences.is_empty(), "{differences:?}");
    assert_eq!(copy.scalar("show archive_mode")?, "off");
    assert_eq!(fs::canonicalize(data_dir.join(format!("pg_tblspc/{oid}")))?, fs::canonicalize(&moved)?);
    copy.run("pg_amcheck", &["--all", "--install-missing", "--heapallindexed"])?.success()?;
    copy.stop(Shutdown::Fast)?;

    // Damage some, keep the rest: --delta mends what differs.
    let victim = data_dir.join("PG_VERSION");
    fs::write(&victim, "x")?;
    let (_, again) = restore(&scene, "copy", &["--delta", "--tablespace-map", &map])?;
    again.success()?;
    assert_eq!(fs::read_to_string(&victim)?.trim(), "15");
    let mut copy = open(&scene, "copy", &data_dir)?;
    assert!(wanted.differences(&copy.fingerprint()?).is_empty());
    copy.stop(Shutdown::Fast)?;
    Ok(())
}

#[test]
fn a_damaged_part_of_a_backup_is_refused_and_nothing_can_be_started() -> Result<()> {
    let scene = backed_up()?;
    let part = find(&scene.repository(), "base-0001.tar.zst")?;
    let good = fs::read(&part)?;
    for at in [good.len() / 3, good.len() - 3] {
        let mut damaged = good.clone();
        *damaged.get_mut(at).context("a byte")? ^= 4;
        fs::write(&part, &damaged)?;
        let (data_dir, refused) = restore(&scene, &format!("at-{at}"), &[])?;
        let refused = refused.exited_with(1)?;
        assert!(refused.said().contains("base-0001.tar.zst"), "{}", refused.said());
        assert!(!data_dir.join("global/pg_control").exists());
    }
    fs::remove_file(&part)?;
    let (_, refused) = restore(&scene, "missing", &[])?;
    assert!(refused.exited_with(1)?.said().contains("base-0001.tar.zst"));
    fs::write(&part, &good)?;
    assert_eq!(recovered(&scene, "whole", &[])?, "1");
    Ok(())
}

fn find(directory: &Path, name: &str) -> Result<PathBuf> {
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if path.is_dir() {
                directories.push(path);
            } else if path.file_name().is_some_and(|found| found == name) {
                return Ok(path);
            }
        }
    }
    anyhow::bail!("there is no {name}")
}

#[test]
fn a_backup_that_was_interrupted_does_not_exist() -> Result<()> {
    let scene = backed_up()?;
    scene
        .cluster
        .exec("create table big as select g, repeat(md5(g::text), 30) from generate_series(1, 60000) g")?;
    let before = scene.agent.json(&["list"])?["backups"].as_array().context("backups")?.len();
    for _ in 0..3 {
        // Killed in the middle by a deadline; how far it gets differs from run to run.
        let _ = scene.agent.run_within(&["backup"], Duration::from_millis(150));
    }
    let listing = scene.agent.json(&["list"])?;
    assert_eq!(listing["backups"].as_array().context("backups")?.len(), before, "{listing}");
    wait::until_true("the server to leave backup mode", DEADLINE, || {
        Ok(scene
            .cluster
            .scalar("select count(*) from pg_stat_activity where application_name like 'wald%'")?
            == "0")
    })?;
    scene.agent.succeed(&["backup"])?;
    Ok(())
}

#[test]
fn malformed_and_newer_metadata_is_a_clear_error() -> Result<()> {
    let scene = backed_up()?;
    let catalog = fs::read_dir(scene.repository().join("catalog"))?.next().context("an entry")??.path();
    let good = fs::read_to_string(&catalog)?;
    let newer =
        good.replacen("\"format\": 1", "\"format\": 2", 1).replacen("\"format\":1", "\"format\":2", 1);
    assert_ne!(newer, good);
    for (bad, words) in [(newer.as_str(), "newer"), ("{", "catalog"), ("", "catalog")] {
        fs::write(&catalog, bad)?;
        for arguments in [&["list"][..], &["restore", "--to", "/nonexistent/x"]] {
            let refused = scene.agent.run(arguments)?.exited_with(1)?;
            assert!(refused.said().contains(words), "{arguments:?}: {}", refused.said());
            assert!(!refused.said().contains("panicked"));
        }
    }
    fs::write(&catalog, good)?;
    let identity = scene.repository().join("wald.json");
    for bad in ["", "{", "{\"format\": 99}"] {
        fs::write(&identity, bad)?;
        let refused = scene.agent.run(&["list"])?.exited_with(1)?;
        assert!(refused.said().contains("wald.json"), "{}", refused.said());
    }
    Ok(())
}

#[test]
fn a_backup_of_a_standby_restores() -> Result<()> {
    let mut scene = backed_up()?;
    let mut standby = scene.cluster.standby(&scene.sandbox, "standby")?;
    standby.start()?;
    let wald = Wald::configure(&scene.sandbox, "standby", &standby, &scene.place, Settings::new())?;
    scene.cluster.exec("insert into t values (2); checkpoint")?;
    let mut taking = wald.command(&["backup"]);
    // The standby can't switch segments: the primary's WAL must move on meanwhile.
    let taken = std::thread::scope(|scope| -> Result<Finished> {
        let backup = scope.spawn(move || {
            taking.env("WALD_LOG", "info");
            run(taking)
        });
        while !backup.is_finished() {
            scene.cluster.exec("select pg_switch_wal()")?;
            scene.cluster.exec("insert into t values (3); delete from t where i = 3")?;
            std::thread::sleep(Duration::from_millis(200));
        }
        backup.join().map_err(|_| anyhow::anyhow!("the backup's thread panicked"))?
    })?;
    taken.success()?;
    scene.cluster.wait_archived()?;
    let listing = wald.json(&["list"])?;
    let last = listing["backups"].as_array().and_then(|backups| backups.last()).context("a backup")?.clone();
    assert_eq!(last["from_standby"], true, "{last}");
    let id = last["id"].as_str().context("an id")?;
    assert_eq!(recovered(&scene, "of-standby", &["--backup", id])?, "1,2");
    Ok(())
}

#[test]
fn other_segment_sizes_are_backed_up_and_restored() -> Result<()> {
    let cluster = ClusterOptions { segment_size_mib: 64, data_checksums: false, ..ClusterOptions::default() };
    let scene = Scene::open(Plot { cluster, ..Plot::default() })?;
    scene.cluster.exec("create table t (i int); insert into t values (1)")?;
    scene.agent.succeed(&["backup"])?;
    scene.cluster.exec("insert into t values (2)")?;
    scene.cluster.exec("select pg_switch_wal()")?;
    wait::until_true("the segment to be archived", DEADLINE, || Ok(scene.cluster.archive_backlog()? == 0))?;
    assert_eq!(recovered(&scene, "copy", &[])?, "1,2");
    Ok(())
}

/// What a restore writes stands in postgresql.auto.conf; postgresql.conf comes from the backup.
#[test]
fn what_postgresql_conf_says_about_recovery_is_out_of_force() -> Result<()> {
    let mut scene = Scene::open(Plot::small())?;
    let ran = scene.sandbox.path().join("ran");
    for line in [
        "recovery_min_apply_delay = '1d'".to_owned(),
        format!("recovery_end_command = 'touch {}'", ran.display()),
        format!("archive_cleanup_command = 'touch {}'", ran.display()),
        "primary_conninfo = 'host=/nonexistent'".to_owned(),
        "primary_slot_name = 'old'".to_owned(),
        "recovery_target_name = 'old'".to_owned(),
    ] {
        scene.cluster.configure(&line)?;
    }
    scene.cluster.exec("create table t (i int); insert into t values (1)")?;
    scene.agent.succeed(&["backup"])?;
    scene.cluster.exec("insert into t values (2)")?;
    scene.write_segments(2)?;
    scene.cluster.wait_archived()?;
    let (data_dir, restored) = restore(&scene, "copy", &[])?;
    restored.success()?;
    let mut copy = open(&scene, "copy", &data_dir)?;
    assert_eq!(copy.scalar("select string_agg(i::text, ',' order by i) from t")?, "1,2");
    assert_eq!(copy.scalar("show recovery_min_apply_delay")?, "0");
    for name in ["recovery_end_command", "archive_cleanup_command", "primary_conninfo", "primary_slot_name"] {
        assert_eq!(copy.scalar(&format!("show {name}"))?, "", "{name}");
    }
    copy.stop(Shutdown::Fast)?;
    assert!(!ran.exists(), "a command of the old server was run");
    Ok(())
}

#[test]
fn a_whole_loss_is_recovered_from_s3() -> Result<()> {
    let mut scene = Scene::open(Plot { on_s3: true, ..Plot::small() })?;
    scene.cluster.exec("create table t (i int); insert into t values (1)")?;
    scene.agent.succeed(&["backup"])?;
    scene.cluster.exec("insert into t values (2)")?;
    let time = moment(&scene.cluster)?;
    scene.cluster.exec("insert into t values (3)")?;
    scene.write_segments(3)?;
    scene.cluster.wait_archived()?;
    scene.cluster.kill_hard()?;
    fs::remove_dir_all(scene.cluster.data_dir())?;
    assert_eq!(recovered(&scene, "copy", &["--target-time", &time])?, "1,2");
    Ok(())
}

#[test]
fn a_configuration_says_all_that_is_wrong_and_hides_secrets() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let cluster = Cluster::create(&sandbox, "primary", &ClusterOptions::default())?;
    let place = Place::directory(&sandbox)?;
    let settings = Settings::new()
        .set("archive", "concurrency", "0")
        .set_text("restore", "patience", "soon")
        .set_text("repository", "url", "ftp://x");
    let wald = Wald::configure(&sandbox, "bad", &cluster, &place, settings)?;
    let refused = wald.run(&["config", "check"])?.exited_with(2)?;
    for key in ["bad.toml", "archive.concurrency", "restore.patience", "repository.url"] {
        assert!(refused.said().contains(key), "{key}: {}", refused.said());
    }
    let settings = Settings::new().set_text("cluster", "connection", "host=/tmp password=hunter2");
    let wald = Wald::configure(&sandbox, "good", &cluster, &place, settings)?;
    let shown = wald.succeed(&["config", "check"])?;
    assert!(!shown.said().contains("hunter2") && shown.stdout.contains("[archive]"), "{}", shown.said());
    let unknown = Settings::new().set("archive", "concurency", "4");
    let wald = Wald::configure(&sandbox, "unknown", &cluster, &place, unknown)?;
    assert!(wald.run(&["config", "check"])?.exited_with(2)?.said().contains("concurency"));
    Ok(())
}
