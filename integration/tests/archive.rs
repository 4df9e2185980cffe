//! The way out on a real PostgreSQL: what is acknowledged is in the repository, and what is not
//! right is refused.

use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use wald_integration::agent::Agent;
use wald_integration::postgres::{Cluster, ClusterOptions, Shutdown};
use wald_integration::run::run;
use wald_integration::scene::{Plot, Scene};
use wald_integration::wait;
use wald_integration::wald::{Settings, Wald};

/// The WAL objects in a directory repository, by name.
fn stored(repository: &Path) -> Result<BTreeSet<String>> {
    let entries = fs::read_dir(repository.join("wal"))?;
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// What the stock `zstd` makes of an object.
fn unzstd(object: &Path) -> Result<Vec<u8>> {
    let output = Command::new("zstd").args(["-d", "-c", "-q"]).arg(object).output()?;
    anyhow::ensure!(output.status.success(), "zstd -d: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}

/// The name of a segment in `pg_wal` that PostgreSQL believes archived.
fn a_done_segment(cluster: &Cluster) -> Result<String> {
    for entry in fs::read_dir(cluster.data_dir().join("pg_wal/archive_status"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if let Some(name) = name.strip_suffix(".done").filter(|name| name.len() == 24) {
            return Ok(name.to_owned());
        }
    }
    anyhow::bail!("no segment is done")
}

#[test]
fn what_postgresql_believes_archived_is_in_the_repository_and_plain_zstd() -> Result<()> {
    for segment_size_mib in [1, 64] {
        let cluster =
            ClusterOptions { segment_size_mib, ..ClusterOptions::default() }.setting("wal_keep_size = '1GB'");
        let mut scene = Scene::open(Plot { cluster, ..Plot::default() })?;
        scene.write_segments(4)?;
        scene.cluster.wait_archived()?;
        let mut compared = 0;
        for entry in fs::read_dir(scene.cluster.data_dir().join("pg_wal/archive_status"))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let Some(name) = name.strip_suffix(".done") else { continue };
            let object = scene.repository().join(format!("wal/{name}.zst"));
            let raw = fs::read(scene.cluster.data_dir().join("pg_wal").join(name))?;
            assert!(unzstd(&object)? == raw, "{name} differs");
            compared += 1;
        }
        assert!(compared >= 4, "only {compared} segments");
        let status = scene.agent.json(&["status"])?;
        assert_eq!(status["agent"]["backlog_files"], 0, "{status}");
        assert!(status["agent"]["archived_files"].as_u64().context("a count")? >= 4, "{status}");
    }
    Ok(())
}

#[test]
fn the_same_bytes_are_archived_again_and_other_bytes_are_refused() -> Result<()> {
    let mut scene = Scene::open(Plot::small())?;
    scene.write_segments(2)?;
    scene.cluster.wait_archived()?;
    let name = a_done_segment(&scene.cluster)?;
    let path = scene.cluster.data_dir().join("pg_wal").join(&name);
    let object = scene.repository().join(format!("wal/{name}.zst"));
    let before = fs::read(&object)?;

    let again =
        run(scene.agent.archive_shim(scene.cluster.data_dir(), &format!("pg_wal/{name}")))?.success()?;
    assert!(again.said().contains("already, with the same content"), "{}", again.said());

    let mut other = fs::read(&path)?;
    *other.last_mut().context("a byte")? ^= 1;
    fs::write(&path, &other)?;
    for without_agent in [false, true] {
        if without_agent {
            scene.agent.kill_hard()?;
        }
        let shim = scene.agent.archive_shim(scene.cluster.data_dir(), &format!("pg_wal/{name}"));
        let refused = run(shim)?.exited_with(1)?;
        let raw = unzstd(&object)?;
        for hash in [blake3::hash(&raw), blake3::hash(&other)] {
            assert!(refused.said().contains(&hash.to_string()), "{hash} is missing in {}", refused.said());
        }
        assert!(fs::read(&object)? == before, "the stored object was touched");
    }
    Ok(())
}

/// Stops the cluster, and leaves segments in its `pg_wal` that nothing compresses, to be archived. Their names.
fn leave_noise(scene: &mut Scene, count: u64) -> Result<Vec<String>> {
    const SEGMENT_BYTES: u64 = 16 << 20;
    let pg_wal = scene.cluster.data_dir().join("pg_wal");
    let mut raw = fs::read(pg_wal.join(a_done_segment(&scene.cluster)?))?;
    scene.cluster.stop(Shutdown::Fast)?;
    (0x40..0x40 + count)
        .map(|number| {
            let (head, noise) = raw.split_at_mut(40);
            // Its place in the log, which the first page says.
            let place = head.get_mut(8..16).context("a page")?;
            place.copy_from_slice(&(number * SEGMENT_BYTES).to_le_bytes());
            blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(noise);
            let name = format!("0000000100000000{number:08X}");
            for (path, content) in
                [(name.clone(), raw.as_slice()), (format!("archive_status/{name}.ready"), &[])]
            {
                fs::write(pg_wal.join(&path), content)?;
                scene.sandbox.account().own(&pg_wal.join(&path))?;
            }
            Ok(name)
        })
        .collect()
}

/// A standby with `archive_mode = always` archives what its primary did: each segment is there
/// already and has to be compared.
#[test]
fn a_backlog_takes_no_more_memory_when_it_is_in_the_repository_already() -> Result<()> {
    let mut scene = Scene::open(Plot { on_s3: true, ..Plot::default() })?;
    scene.write_segments(1)?;
    scene.cluster.wait_archived()?;
    let backlog = leave_noise(&mut scene, 24)?;
    let mut archive = |is_there: bool| -> Result<u64> {
        scene.agent.stop()?;
        scene.agent.restart()?;
        for name in &backlog {
            let shim = scene.agent.archive_shim(scene.cluster.data_dir(), &format!("pg_wal/{name}"));
            let said = run(shim)?.success()?.said();
            assert_eq!(said.contains("already, with the same content"), is_there, "{said}");
        }
        let status = fs::read_to_string(format!("/proc/{}/status", scene.agent.id()?))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("a peak")?;
        Ok(peak.trim().trim_end_matches(" kB").parse()?)
    };
    let (new, there) = (archive(false)?, archive(true)?);
    // Of the program itself it has the same share, a large one here, and they differ by some MiB each time.
    assert!(there < new + new / 2, "{there} KiB at most, and {new} where all was new");
    Ok(())
}

#[test]
fn what_is_foreign_is_refused_by_name_and_nothing_is_stored() -> Result<()> {
    let mut scene = Scene::open(Plot::small())?;
    scene.write_segments(1)?;
    scene.cluster.wait_archived()?;
    let options = ClusterOptions { segment_size_mib: 1, ..ClusterOptions::default() };
    let other = Cluster::create(&scene.sandbox, "other", &options)?;
    let pg_wal = scene.cluster.data_dir().join("pg_wal");
    let before = stored(&scene.repository())?;
    let other_segment = fs::read_dir(other.data_dir().join("pg_wal"))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.is_file())
        .context("a segment")?;
    let own = fs::read(pg_wal.join(a_done_segment(&scene.cluster)?))?;

    let plant = |name: &str, bytes: &[u8]| -> Result<()> {
        fs::write(pg_wal.join(name), bytes)?;
        Ok(fs::write(pg_wal.join(format!("archive_status/{name}.done")), "")?)
    };
    plant("0000000100000000000000F1", &fs::read(&other_segment)?)?;
    plant("0000000100000000000000F2", &own)?;
    plant("0000000100000000000000F3", own.get(..1000).context("a part")?)?;
    plant("0000000100000000000000F4", &vec![0x5a; 1 << 20])?;
    plant("00000009.history", b"this is no history")?;
    symlink(&other_segment, pg_wal.join("0000000100000000000000F5"))?;
    fs::write(pg_wal.join("0000000100000000000000F6"), &own)?;
    let cases = [
        ("pg_wal/0000000100000000000000F1", "system"),
        ("pg_wal/0000000100000000000000F2", "0000000100000000000000F2"),
        ("pg_wal/0000000100000000000000F3", "1000 bytes"),
        ("pg_wal/0000000100000000000000F4", "0000000100000000000000F4"),
        ("pg_wal/0000000100000000000000F5", "regular file"),
        ("pg_wal/0000000100000000000000F6", "not marked it as complete"),
        ("pg_wal/00000009.history", "00000009.history"),
        ("postgresql.conf", "not the name of a WAL file"),
        ("base/0000000100000000000000F2", "0000000100000000000000F2"),
        (other_segment.to_str().context("a path")?, "is not in"),
    ];
    for without_agent in [false, true] {
        if without_agent {
            scene.agent.kill_hard()?;
        }
        for (path, why) in cases {
            let refused = run(scene.agent.archive_shim(scene.cluster.data_dir(), path))?.exited_with(1)?;
            assert!(refused.said().contains(why), "{path}: {}", refused.said());
        }
    }
    assert_eq!(stored(&scene.repository())?, before);
    Ok(())
}

#[test]
fn an_agent_killed_while_archiving_loses_nothing() -> Result<()> {
    let mut scene = Scene::open(Plot::small())?;
    for round in 0..4 {
        scene.write_segments(6)?;
        scene.agent.kill_hard()?;
        // On even rounds the shims find no agent and do the work themselves for a while.
        if round % 2 == 0 {
            scene.write_segments(2)?;
        }
        scene.agent.restart()?;
    }
    scene.write_segments(1)?;
    scene.cluster.wait_archived()?;
    let pg_wal = scene.cluster.data_dir().join("pg_wal");
    let mut compared = 0;
    for entry in fs::read_dir(pg_wal.join("archive_status"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        assert!(!name.ends_with(".ready"), "{name} is left");
        let Some(name) = name.strip_suffix(".done") else { continue };
        let raw = unzstd(&scene.repository().join(format!("wal/{name}.zst")))?;
        assert!(raw == fs::read(pg_wal.join(name))?, "{name} differs");
        compared += 1;
    }
    assert!(compared >= 29, "only {compared} segments");
    Ok(())
}

#[test]
fn a_repository_that_is_gone_is_not_success_and_its_return_catches_up() -> Result<()> {
    let settings =
        Settings::new().set_text("archive", "timeout", "5s").set_text("repository", "retry_timeout", "1s");
    let mut scene = Scene::open(Plot { settings, ..Plot::small() })?;
    scene.write_segments(1)?;
    scene.cluster.wait_archived()?;
    let (here, away) = (scene.repository(), scene.repository().with_extension("away"));
    fs::rename(&here, &away)?;
    scene.write_segments(3)?;
    wait::until_true("a failure to be counted", Duration::from_secs(30), || {
        let failed = scene.cluster.scalar("select failed_count from pg_stat_archiver")?;
        Ok(failed.parse::<u64>()? > 0)
    })?;
    assert!(scene.cluster.archive_backlog()? >= 3);
    assert!(!here.exists(), "the missing repository was made up");
    // Half of what it is asked can't be answered, which the exit code says too.
    let status: serde_json::Value =
        serde_json::from_str(&scene.agent.run(&["status", "--json"])?.exited_with(1)?.stdout)?;
    assert!(status["agent"]["last_failure"].is_string(), "{status}");
    assert!(status["repository_error"].is_string(), "{status}");
    fs::rename(&away, &here)?;
    scene.write_segments(1)?;
    scene.cluster.wait_archived()?;
    Ok(())
}

#[test]
fn past_queue_max_wal_is_given_up_on_record_and_a_backup_closes_the_gap() -> Result<()> {
    let settings = Settings::new()
        .set_text("archive", "queue_max", "4MiB")
        .set_text("archive", "timeout", "2s")
        .set_text("repository", "retry_timeout", "1s");
    let mut scene = Scene::open(Plot { settings, ..Plot::small() })?;
    scene.write_segments(2)?;
    scene.cluster.wait_archived()?;
    let before = stored(&scene.repository())?;
    let (here, away) = (scene.repository(), scene.repository().with_extension("away"));
    fs::rename(&here, &away)?;
    scene.write_segments(8)?;
    let deadline = Duration::from_secs(120);
    wait::until_true("the queue to be given up", deadline, || Ok(scene.cluster.archive_backlog()? <= 4))?;
    let journal = scene.sandbox.path().join("wald-state/given-up.jsonl");
    assert!(scene.agent.log_text().contains("NOT ARCHIVED"), "{}", scene.agent.log_text());
    // Nor does the disk fill up while no agent answers.
    scene.agent.kill_hard()?;
    let counted = || -> Result<usize> { Ok(fs::read_to_string(&journal)?.lines().count()) };
    let by_the_agent = counted()?;
    assert!(by_the_agent >= 4, "{by_the_agent} losses are on record");
    scene.write_segments(8)?;
    wait::until_true("the queue to be given up", deadline, || Ok(scene.cluster.archive_backlog()? <= 4))?;
    assert!(counted()? > by_the_agent);
    // The losses outlive the agent and the option, and the repository's return mends them without anybody's
    // help.
    let config = fs::read_to_string(scene.agent.config())?;
    let (option, others): (Vec<_>, Vec<_>) = config.lines().partition(|line| line.starts_with("queue_max"));
    assert_eq!(option.len(), 1);
    fs::write(scene.agent.config(), others.join("\n"))?;
    let lost: Vec<String> = fs::read_to_string(&journal)?
        .lines()
        .map(|line| {
            Ok(serde_json::from_str::<serde_json::Value>(line)?["file"]
                .as_str()
                .context("a file")?
                .to_owned())
        })
        .collect::<Result<_>>()?;
    assert_eq!(stored(&away)?, before, "something was stored meanwhile");
    fs::rename(&away, &here)?;
    scene.agent.restart()?;
    let given_up = scene.agent.json(&["status"])?["agent"]["given_up_files"].as_u64();
    assert!(given_up >= Some(lost.len() as u64), "{given_up:?} of {lost:?}");
    wait::until_true("a backup by itself", deadline, || {
        scene.write_segments(1)?;
        let listing = scene.agent.json(&["list"])?;
        Ok(listing
            .get("backups")
            .and_then(|backups| backups.as_array())
            .is_some_and(|backups| !backups.is_empty()))
    })?;
    wait::until_true("the journal to be empty", deadline, || Ok(fs::read_to_string(&journal)?.is_empty()))?;
    for file in lost {
        assert!(here.join(format!("gap/{file}.json")).exists(), "{file} is lost and not on record");
    }
    Ok(())
}

#[test]
fn the_socket_survives_whatever_is_sent_to_it() -> Result<()> {
    let mut scene = Scene::open(Plot::small())?;
    let connect = || UnixStream::connect(scene.agent.socket());
    let mut slow = connect()?;
    slow.write_all(b"WALD")?;
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"WALD\x01A\xff\xff",
        b"WALD\x02A\x00\x00",
        b"WALD\x01A\x00\x01x",
        &[0; 4096],
    ] {
        let mut stream = connect()?;
        // The agent may hang up before all is written.
        let _ = stream.write_all(garbage);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert_ne!(answer.get(5), Some(&0), "garbage was acknowledged: {answer:?}");
    }
    drop(connect()?);
    // Slow: the connection is ended by the agent.
    slow.set_read_timeout(Some(Duration::from_secs(20)))?;
    assert_eq!(slow.read(&mut [0; 16])?, 0);
    scene.agent.succeed(&["status"])?;
    scene.write_segments(2)?;
    scene.cluster.wait_archived()?;
    Ok(())
}

#[test]
fn help_beside_a_file_and_a_log_that_is_full_change_no_outcome() -> Result<()> {
    let mut scene = Scene::open(Plot::small())?;
    scene.write_segments(1)?;
    scene.cluster.wait_archived()?;
    scene.agent.kill_hard()?;
    let binaries = scene.agent.binaries();
    let socket = "/nonexistent/wald.sock";
    let as_shell = |program: &Path, arguments: &str| {
        let mut sh = Command::new("sh");
        sh.arg("-c").arg(format!("{} {arguments}", program.display()));
        run(sh)
    };
    // psql's habit: -h is the host.
    as_shell(&binaries.wald_archive(), &format!("-h {socket} pg_wal/000000010000000000000001"))?
        .exited_with(1)?;
    as_shell(&binaries.wald_restore(), &format!("-h {socket} 00000002.history x"))?.exited_with(200)?;
    as_shell(&binaries.wald(), "archive-push --help pg_wal/x")?.exited_with(2)?;
    as_shell(&binaries.wald(), "archive-get --help x y")?.exited_with(200)?;
    as_shell(&binaries.wald(), "archive-push --help")?.success()?;
    let no_agent = format!("--no-fallback --socket {socket}");
    as_shell(&binaries.wald_archive(), &format!("{no_agent} pg_wal/x 2>/dev/full"))?.exited_with(1)?;
    as_shell(&binaries.wald_restore(), &format!("{no_agent} 00000002.history pg_wal/x 2>/dev/full"))?
        .exited_with(200)?;
    as_shell(&binaries.wald(), "--config /nonexistent archive-push pg_wal/x 2>/dev/full")?.exited_with(1)?;
    as_shell(&binaries.wald(), "--config /nonexistent archive-get 00000002.history pg_wal/x 2>/dev/full")?
        .exited_with(200)?;
    Ok(())
}

#[test]
fn a_second_agent_is_refused_and_a_stale_socket_taken_over() -> Result<()> {
    let mut scene = Scene::open(Plot::small())?;
    let second = scene.agent.run(&["agent"])?.exited_with(1)?;
    assert!(second.said().contains("another agent is running"), "{}", second.said());
    scene.agent.succeed(&["status"])?;
    scene.agent.kill_hard()?;
    assert!(scene.agent.socket().exists(), "a killed agent leaves its socket");
    scene.agent.restart()?;
    assert!(scene.agent.stop()?.success());
    assert!(!scene.agent.socket().exists());
    Ok(())
}

#[test]
fn without_fallback_and_without_an_agent_nothing_is_acknowledged() -> Result<()> {
    let mut scene = Scene::open(Plot::small())?;
    scene.write_segments(1)?;
    scene.cluster.wait_archived()?;
    let name = a_done_segment(&scene.cluster)?;
    scene.agent.kill_hard()?;
    let shim = |option: Option<&str>| {
        let mut shim = scene.agent.archive_shim(scene.cluster.data_dir(), &format!("pg_wal/{name}"));
        shim.args(option);
        run(shim)
    };
    shim(Some("--no-fallback"))?.exited_with(1)?;
    shim(None)?.success()?;
    Ok(())
}

#[test]
fn a_repository_of_another_cluster_is_refused_at_the_start() -> Result<()> {
    let mut scene = Scene::open(Plot::small())?;
    scene.agent.succeed(&["repo", "init"])?;
    let other = Cluster::create(&scene.sandbox, "other", &ClusterOptions::default())?;
    let wald = Wald::configure(&scene.sandbox, "stranger", &other, &scene.place, Settings::new())?;
    let refused = wald.run(&["repo", "init"])?.exited_with(1)?;
    assert!(refused.said().contains("belongs to system"), "{}", refused.said());
    assert!(Agent::start(&scene.sandbox, "stranger", wald).is_err());
    scene.agent.stop()?;
    Ok(())
}
