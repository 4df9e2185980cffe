//! The same on a real S3 server with object lock, and what its death does.

use anyhow::{Context, Result};
use std::fs;
use std::time::Duration;
use wald_integration::postgres::Cluster;
use wald_integration::scene::{Plot, Scene};
use wald_integration::wait;
use wald_integration::wald::Settings;

const DEADLINE: Duration = Duration::from_secs(60);

#[test]
fn a_cluster_archives_to_s3_through_an_outage_and_recovers_from_there() -> Result<()> {
    let settings = Settings::new()
        .set_text("restore", "patience", "15s")
        .set_text("repository", "retry_timeout", "1s")
        .set_text("repository", "connect_timeout", "1s")
        .set_text("archive", "timeout", "5s");
    let mut scene = Scene::open(Plot { on_s3: true, settings, ..Plot::small() })?;
    let check = scene.agent.succeed(&["repo", "check"])?;
    assert!(check.stdout.contains("s3://"), "{}", check.stdout);
    let data_dir = scene.sandbox.path().join("copy-data");
    let target = data_dir.to_str().context("a path")?;
    let options = ["--checkpoint=fast", "--no-sync", "--wal-method=none", "-D", target];
    scene.cluster.run("pg_basebackup", &options)?.success()?;
    scene.write_segments(5)?;
    scene.cluster.wait_archived()?;

    // The server dies: nothing is acknowledged, and everything is there when it is back.
    scene.server.as_mut().context("a server")?.kill()?;
    scene.write_segments(5)?;
    wait::until_true("a failure to be counted", Duration::from_secs(30), || {
        Ok(scene.cluster.scalar("select failed_count > 0 from pg_stat_archiver")? == "t")
    })?;
    assert!(scene.cluster.archive_backlog()? >= 4);

    let mut copy = Cluster::adopt(&scene.sandbox, "copy", &data_dir)?;
    copy.set_environment(&scene.agent.environment());
    copy.configure("archive_mode = off")?;
    copy.configure(&format!("restore_command = '{}'", scene.agent.restore_command()))?;
    let signal = data_dir.join("recovery.signal");
    fs::write(&signal, "")?;
    copy.launch()?;
    assert!(!copy.wait_end(DEADLINE)?.success(), "a recovery ended without its repository");
    assert!(signal.exists());

    scene.server.as_mut().context("a server")?.restart()?;
    scene.write_segments(1)?;
    scene.cluster.wait_archived()?;
    let wanted = scene.cluster.fingerprint()?;
    copy.launch()?;
    copy.wait_primary(DEADLINE)?;
    assert!(wanted.differences(&copy.fingerprint()?).is_empty());
    Ok(())
}

#[test]
fn wrong_keys_are_refused_in_words_and_never_shown() -> Result<()> {
    let scene = Scene::open(Plot { on_s3: true, ..Plot::small() })?;
    let mut command = scene.agent.command(&["repo", "check"]);
    command.env("AWS_SECRET_ACCESS_KEY", "a-secret-that-must-not-be-shown");
    let refused = wald_integration::run::run(command)?.exited_with(1)?;
    assert!(!refused.said().contains("a-secret-that"), "{}", refused.said());
    assert!(refused.said().contains("refused"), "{}", refused.said());
    Ok(())
}
