//! The way back on a real PostgreSQL: what is served is proven, and an outage or a damage is
//! never the end of the WAL.

use anyhow::{Context, Result};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use wald_integration::postgres::{Cluster, Shutdown};
use wald_integration::run::{Finished, run};
use wald_integration::scene::{Plot, Scene};
use wald_integration::wait;
use wald_integration::wald::{Settings, Wald};

const DEADLINE: Duration = Duration::from_secs(60);

/// A copy of the running cluster, made by the stock `pg_basebackup` without its WAL, to be
/// recovered from the archive.
fn copy_of(scene: &Scene, name: &str) -> Result<Cluster> {
    let data_dir = scene.sandbox.path().join(format!("{name}-data"));
    let target = data_dir.to_str().context("a path")?;
    let options = ["--checkpoint=fast", "--no-sync", "--wal-method=none", "-D", target];
    scene.cluster.run("pg_basebackup", &options)?.success()?;
    let mut copy = Cluster::adopt(&scene.sandbox, name, &data_dir)?;
    copy.configure("archive_mode = off")?;
    recover_through(&mut copy, &scene.agent)?;
    Ok(copy)
}

fn recover_through(cluster: &mut Cluster, wald: &Wald) -> Result<()> {
    cluster.set_environment(&wald.environment());
    cluster.configure(&format!("restore_command = '{}'", wald.restore_command()))?;
    signal(cluster.data_dir(), "recovery.signal")
}

/// Puts a signal file that belongs to the cluster's account.
fn signal(data_dir: &Path, name: &str) -> Result<()> {
    let path = data_dir.join(name);
    fs::write(&path, "")?;
    let owner = fs::metadata(data_dir)?;
    use std::os::unix::fs::MetadataExt;
    std::os::unix::fs::chown(&path, Some(owner.uid()), Some(owner.gid()))?;
    Ok(())
}

fn impatient() -> Settings {
    Settings::new()
        .set_text("restore", "patience", "3s")
        .set_text("restore", "standby_patience", "1s")
        .set_text("repository", "retry_timeout", "1s")
}

fn segments(repository: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(repository.join("wal"))?;
    let mut paths: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "zst"));
    paths.sort();
    Ok(paths)
}

/// Asks as PostgreSQL would, with the agent and without.
fn ask(scene: &Scene, data_dir: &Path, name: &str, target: &str) -> Result<Finished> {
    run(scene.agent.restore_shim(data_dir, name, &format!("pg_wal/{target}")))
}

#[test]
fn a_recovery_reads_the_whole_archive_and_finds_segments_prefetched() -> Result<()> {
    let mut scene = Scene::open(Plot::small())?;
    let mut copy = copy_of(&scene, "copy")?;
    scene.write_segments(20)?;
    scene.cluster.wait_archived()?;
    let wanted = scene.cluster.fingerprint()?;
    copy.launch()?;
    copy.wait_primary(DEADLINE)?;
    assert!(
        wanted.differences(&copy.fingerprint()?).is_empty(),
        "{:?}",
        wanted.differences(&copy.fingerprint()?)
    );
    let status = scene.agent.json(&["status"])?;
    let hits = status["agent"]["prefetch_hits"].as_u64().context("a count")?;
    let waits = status["agent"]["prefetch_waits"].as_u64().context("a count")?;
    assert!(hits + waits >= 10, "{status}");
    let segment = copy.data_dir().join("pg_wal");
    for entry in fs::read_dir(segment)? {
        let entry = entry?;
        if entry.file_name().len() == 24 {
            assert_eq!(entry.metadata()?.permissions().mode() & 0o777, 0o600);
        }
    }
    Ok(())
}

#[test]
fn a_recovery_without_an_agent_reads_the_whole_archive_too() -> Result<()> {
    let mut scene = Scene::open(Plot::small())?;
    let mut copy = copy_of(&scene, "copy")?;
    scene.write_segments(3)?;
    scene.cluster.wait_archived()?;
    let wanted = scene.cluster.fingerprint()?;
    scene.agent.kill_hard()?;
    copy.launch()?;
    copy.wait_primary(DEADLINE)?;
    assert!(wanted.differences(&copy.fingerprint()?).is_empty());
    Ok(())
}

#[test]
fn a_repository_that_is_gone_stops_a_recovery_and_opens_nothing() -> Result<()> {
    for with_agent in [true, false] {
        let mut scene = Scene::open(Plot { settings: impatient(), ..Plot::small() })?;
        let mut copy = copy_of(&scene, "copy")?;
        scene.write_segments(3)?;
        scene.cluster.wait_archived()?;
        let wanted = scene.cluster.fingerprint()?;
        if !with_agent {
            scene.agent.kill_hard()?;
        }
        let (here, away) = (scene.repository(), scene.repository().with_extension("away"));
        fs::rename(&here, &away)?;
        copy.launch()?;
        assert!(!copy.wait_end(DEADLINE)?.success());
        assert!(copy.data_dir().join("recovery.signal").exists(), "the recovery counts as ended");
        assert!(copy.log_text().contains("exit code 200"), "{}", copy.log_text());
        // And after the outage it goes on as if nothing had been.
        fs::rename(&away, &here)?;
        copy.launch()?;
        copy.wait_primary(DEADLINE)?;
        assert!(wanted.differences(&copy.fingerprint()?).is_empty());
    }
    Ok(())
}

#[test]
fn a_damaged_object_is_never_served() -> Result<()> {
    let mut scene = Scene::open(Plot { settings: impatient(), ..Plot::small() })?;
    let copy = copy_of(&scene, "copy")?;
    scene.write_segments(3)?;
    scene.cluster.wait_archived()?;
    let object = segments(&scene.repository())?.into_iter().next().context("a segment")?;
    let name = object.file_stem().and_then(|stem| stem.to_str()).context("a name")?.to_owned();
    let good = fs::read(&object)?;
    let mut bodies = vec![Vec::new(), good.get(..good.len() / 2).unwrap_or_default().to_vec()];
    for bit in (0..good.len() * 8).step_by(good.len() * 8 / 12) {
        let mut damaged = good.clone();
        *damaged.get_mut(bit / 8).context("a byte")? ^= 1 << (bit % 8);
        bodies.push(damaged);
    }
    let placed = copy.data_dir().join("pg_wal/RECOVERYXLOG");
    for with_agent in [true, false] {
        if !with_agent {
            scene.agent.kill_hard()?;
        }
        for body in &bodies {
            fs::write(&object, body)?;
            let answer = ask(&scene, copy.data_dir(), &name, "RECOVERYXLOG")?.exited_with(200)?;
            assert!(answer.said().contains(&name), "{}", answer.said());
            assert!(!placed.exists());
        }
        // An object under another object's name is a good object, but the wrong one.
        let other = segments(&scene.repository())?.into_iter().nth(1).context("another")?;
        fs::copy(other, &object)?;
        ask(&scene, copy.data_dir(), &name, "RECOVERYXLOG")?.exited_with(200)?;
        // A standby is told to look elsewhere, and gets no damaged byte either.
        signal(copy.data_dir(), "standby.signal")?;
        ask(&scene, copy.data_dir(), &name, "RECOVERYXLOG")?.exited_with(1)?;
        assert!(!placed.exists());
        fs::remove_file(copy.data_dir().join("standby.signal"))?;
        fs::write(&object, &good)?;
        ask(&scene, copy.data_dir(), &name, "RECOVERYXLOG")?.success()?;
        assert!(placed.exists());
        fs::remove_file(&placed)?;
    }
    Ok(())
}

#[test]
fn only_an_absence_that_the_repository_vouches_for_is_not_there() -> Result<()> {
    let mut scene = Scene::open(Plot { settings: impatient(), ..Plot::small() })?;
    let copy = copy_of(&scene, "copy")?;
    scene.write_segments(2)?;
    scene.cluster.wait_archived()?;
    let dir = copy.data_dir().to_owned();
    let absent = "0000000100000000000000EE";
    let repository = scene.repository();
    for with_agent in [true, false] {
        if !with_agent {
            scene.agent.kill_hard()?;
        }
        ask(&scene, &dir, absent, "RECOVERYXLOG")?.exited_with(1)?;
        ask(&scene, &dir, "00000007.history", "RECOVERYHISTORY")?.exited_with(1)?;
        // Without its identity the directory is anybody's: an unmounted disk looks like this.
        let identity = repository.join("wald.json");
        fs::rename(&identity, repository.join("aside"))?;
        ask(&scene, &dir, absent, "RECOVERYXLOG")?.exited_with(200)?;
        fs::rename(repository.join("aside"), &identity)?;
        // Refused requests don't end a recovery either.
        for (name, target) in
            [(absent, "../postgresql.conf"), ("postgresql.conf", "RECOVERYXLOG"), (absent, "x")]
        {
            ask(&scene, &dir, name, target)?.exited_with(200)?;
        }
        signal(&dir, "standby.signal")?;
        fs::rename(&identity, repository.join("aside"))?;
        ask(&scene, &dir, absent, "RECOVERYXLOG")?.exited_with(1)?;
        fs::rename(repository.join("aside"), &identity)?;
        fs::remove_file(dir.join("standby.signal"))?;
    }
    // A command line that makes no sense must not read as "not there".
    let nonsense = scene.agent.run(&["archive-get", absent])?.code();
    assert_eq!(nonsense, 200);
    Ok(())
}

#[test]
fn a_promotion_leaves_a_partial_segment_that_is_served_by_that_name_only() -> Result<()> {
    let mut scene = Scene::open(Plot::small())?;
    let mut standby = scene.cluster.standby(&scene.sandbox, "standby")?;
    standby.set_environment(&scene.agent.environment());
    standby.start()?;
    scene.cluster.exec("create table on_both (i int); insert into on_both values (1)")?;
    scene.write_segments(1)?;
    scene.cluster.exec("insert into on_both values (2)")?;
    let lsn = scene.cluster.scalar("select pg_current_wal_flush_lsn()")?;
    wait::until_true("the standby to replay", DEADLINE, || {
        Ok(standby.scalar(&format!("select pg_last_wal_replay_lsn() >= '{lsn}'"))? == "t")
    })?;
    scene.cluster.kill_hard()?;
    standby.promote()?;
    // The promoted standby has its own pg_wal; its WAL goes without the agent of the first host.
    let promoted = Wald::configure(&scene.sandbox, "promoted", &standby, &scene.place, Settings::new())?;
    standby.set_environment(&promoted.environment());
    standby.configure(&format!("archive_command = '{}'", promoted.archive_command()))?;
    standby.reload()?;
    standby.exec("insert into on_both values (3); select pg_switch_wal()")?;
    standby.wait_archived()?;
    let partial = segments(&scene.repository())?
        .into_iter()
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .find(|name| name.ends_with(".partial"))
        .context("a .partial in the repository")?;
    let full = partial.trim_end_matches(".partial").to_owned();
    let dir = standby.data_dir().to_owned();
    ask(&scene, &dir, &full, "RECOVERYXLOG")?.exited_with(1)?;
    // Its own one is in its pg_wal still, and is not replaced.
    ask(&scene, &dir, &partial, &partial)?.exited_with(200)?;
    fs::rename(dir.join("pg_wal").join(&partial), dir.join("pg_wal/aside"))?;
    ask(&scene, &dir, &partial, &partial)?.success()?;
    assert_eq!(fs::read(dir.join("pg_wal").join(&partial))?, fs::read(dir.join("pg_wal/aside"))?);
    fs::remove_file(dir.join("pg_wal").join(&partial))?;
    let history = fs::read(scene.repository().join("wal/00000002.history"))?;
    assert_eq!(history, fs::read(dir.join("pg_wal/00000002.history"))?);
    // A history file that was tampered with is not served.
    fs::write(
        scene.repository().join("wal/00000002.history"),
        "1\t0/1000000\tno recovery target specified\n",
    )?;
    fs::remove_file(dir.join("standby.signal")).ok();
    ask(&scene, &dir, "00000002.history", "RECOVERYHISTORY")?.exited_with(200)?;
    standby.stop(Shutdown::Fast)?;
    Ok(())
}

#[test]
fn pg_rewind_fetches_target_wal_through_the_shim() -> Result<()> {
    let mut scene = Scene::open(Plot::small())?;
    let mut standby = scene.cluster.standby(&scene.sandbox, "standby")?;
    standby.start()?;
    scene.write_segments(2)?;
    let lsn = scene.cluster.scalar("select pg_current_wal_flush_lsn()")?;
    wait::until_true("the standby to replay", DEADLINE, || {
        Ok(standby.scalar(&format!("select pg_last_wal_replay_lsn() >= '{lsn}'"))? == "t")
    })?;
    standby.promote()?;
    standby.exec("create table after_promotion (i int); checkpoint")?;
    // The old primary goes its own way for a while, then loses the WAL it has on disk.
    scene.write_segments(6)?;
    scene.cluster.wait_archived()?;
    scene.cluster.stop(Shutdown::Fast)?;
    let pg_wal = scene.cluster.data_dir().join("pg_wal");
    let mut local: Vec<PathBuf> = fs::read_dir(&pg_wal)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(|name| name.len() == 24))
        .filter(|path| {
            scene
                .repository()
                .join("wal")
                .join(format!("{}.zst", path.file_name().and_then(|n| n.to_str()).unwrap_or_default()))
                .exists()
        })
        .collect();
    local.sort();
    let removed = local.len();
    for path in local {
        fs::remove_file(path)?;
    }
    assert!(removed >= 6, "only {removed} archived segments were there to remove");
    scene.cluster.configure(&format!("restore_command = '{}'", scene.agent.restore_command()))?;
    let target = scene.cluster.data_dir().to_str().context("a path")?.to_owned();
    let source = standby.connection();
    let arguments = ["--restore-target-wal", "--no-sync", "-D", &target, "--source-server", &source];
    let mut rewind = standby.command("pg_rewind")?;
    rewind.envs(scene.agent.environment()).args(arguments).current_dir("/");
    let rewound = run(rewind)?.success()?;
    assert!(rewound.said().contains("Done!"), "{}", rewound.said());
    Ok(())
}

#[test]
fn an_agent_that_starts_during_an_outage_keeps_nobody_waiting() -> Result<()> {
    let mut scene = Scene::open(Plot { settings: impatient(), ..Plot::small() })?;
    let copy = copy_of(&scene, "copy")?;
    scene.write_segments(1)?;
    scene.cluster.wait_archived()?;
    scene.agent.kill_hard()?;
    let (here, away) = (scene.repository(), scene.repository().with_extension("away"));
    fs::rename(&here, &away)?;
    scene.agent.launch()?;
    let name = "0000000100000000000000EE";
    // Until the repository is back, requests end as they do without an agent, in good time.
    for (standby, code) in [(false, 200), (true, 1)] {
        if standby {
            signal(copy.data_dir(), "standby.signal")?;
        }
        let answer = ask(&scene, copy.data_dir(), name, "RECOVERYXLOG")?.exited_with(code)?;
        assert!(answer.elapsed < Duration::from_secs(20), "{:?}", answer.elapsed);
    }
    fs::rename(&away, &here)?;
    wait::until_true("the agent to answer", DEADLINE, || Ok(scene.agent.run(&["status"])?.code() == 0))?;
    Ok(())
}

#[test]
fn a_segment_of_a_running_server_is_never_replaced() -> Result<()> {
    let mut scene = Scene::open(Plot::small())?;
    scene.write_segments(2)?;
    scene.cluster.wait_archived()?;
    let object = segments(&scene.repository())?.into_iter().next().context("a segment")?;
    let name = object.file_stem().and_then(|stem| stem.to_str()).context("a name")?.to_owned();
    let dir = scene.cluster.data_dir().to_owned();
    let segment = dir.join("pg_wal").join(&name);
    use std::os::unix::fs::MetadataExt;
    let before = fs::metadata(&segment)?.ino();
    for with_agent in [true, false] {
        if !with_agent {
            scene.agent.kill_hard()?;
        }
        let answer = ask(&scene, &dir, &name, &name)?.exited_with(200)?;
        assert!(answer.said().contains("is there already"), "{}", answer.said());
        assert_eq!(fs::metadata(&segment)?.ino(), before, "the server lost the file that it knows");
        assert_eq!(left_by_wald(&dir)?, [""; 0]);
    }
    Ok(())
}

#[test]
fn another_cluster_on_the_host_is_not_told_that_its_wal_ends() -> Result<()> {
    let mut scene = Scene::open(Plot { settings: impatient(), ..Plot::small() })?;
    let other = Cluster::create(&scene.sandbox, "other", &Plot::small().cluster)?;
    let system = |cluster: &Cluster| -> Result<String> {
        let target = cluster.data_dir().to_str().context("a path")?;
        let said = cluster.run("pg_controldata", &["-D", target])?.success()?.stdout;
        let line = said.lines().find(|line| line.contains("system identifier")).context("a line")?;
        Ok(line.rsplit(' ').next().unwrap_or_default().to_owned())
    };
    let systems = [system(&scene.cluster)?, system(&other)?];
    let dir = other.data_dir().to_owned();
    scene.write_segments(1)?;
    scene.cluster.wait_archived()?;
    for with_agent in [true, false] {
        if !with_agent {
            scene.agent.kill_hard()?;
        }
        for (name, target) in [
            ("000000010000000000000001", "RECOVERYXLOG"),
            ("0000000100000000000000EE", "RECOVERYXLOG"),
            ("00000002.history", "RECOVERYHISTORY"),
        ] {
            let answer = ask(&scene, &dir, name, target)?.exited_with(200)?;
            for system in &systems {
                assert!(answer.said().contains(system.as_str()), "{}", answer.said());
            }
            assert!(!dir.join("pg_wal").join(target).exists());
        }
    }
    Ok(())
}

#[test]
fn what_a_killed_fetch_left_is_swept_by_the_next() -> Result<()> {
    let mut scene = Scene::open(Plot { settings: impatient(), ..Plot::small() })?;
    let copy = copy_of(&scene, "copy")?;
    scene.write_segments(1)?;
    scene.cluster.wait_archived()?;
    scene.agent.kill_hard()?;
    let dir = copy.data_dir();
    let object = segments(&scene.repository())?.into_iter().next().context("a segment")?;
    let name = object.file_stem().and_then(|stem| stem.to_str()).context("a name")?.to_owned();
    signal(&dir.join("pg_wal"), "wald-tmp.1.0.RECOVERYXLOG")?;
    ask(&scene, dir, &name, "RECOVERYXLOG")?.success()?;
    assert!(dir.join("pg_wal/RECOVERYXLOG").exists());
    assert_eq!(left_by_wald(dir)?, [""; 0]);
    Ok(())
}

/// Files in a `pg_wal` that wald makes and must not leave.
fn left_by_wald(data_dir: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(data_dir.join("pg_wal"))?;
    let names: Vec<_> =
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect::<Result<_>>()?;
    Ok(names.into_iter().filter(|name| name.starts_with("wald-")).collect())
}
