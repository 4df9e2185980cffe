//! The harness itself: if these fail, no other suite says anything about wald.

use anyhow::Result;
use std::fs;
use std::time::Duration;
use wald_integration::postgres::{Cluster, ClusterOptions, Shutdown};
use wald_integration::sandbox::Sandbox;
use wald_integration::seaweed::S3Server;

#[test]
fn a_real_s3_server_enforces_conditions_and_locks_and_keeps_its_data() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let mut server = S3Server::start(&sandbox)?;
    let s3 = server.client();
    s3.create_locked_bucket("locked")?;

    s3.put("locked", "a/b", b"first")?.success()?;
    assert_eq!(s3.get("locked", "a/b")?.success()?.body, b"first");
    let only_if_absent = [("if-none-match", "*")];
    assert_eq!(s3.request("PUT", "/locked/a/b", &[], &only_if_absent, b"second")?.status, 412);
    assert_eq!(s3.get("locked", "a/b")?.success()?.body, b"first");
    assert_eq!(s3.get("locked", "a/none")?.status, 404);
    assert_eq!(s3.put("no-such-bucket", "a", b"x")?.status, 404);
    assert_eq!(s3.list("locked", "a/")?, [("a/b".to_owned(), 5)]);

    let until = (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1))
        .strftime("%Y-%m-%dT%H:%M:%SZ")
        .to_string();
    let lock =
        [("x-amz-object-lock-mode", "COMPLIANCE"), ("x-amz-object-lock-retain-until-date", until.as_str())];
    let stored = s3.request("PUT", "/locked/kept", &[], &lock, b"kept")?.success()?;
    let version = stored.header("x-amz-version-id").expect("a versioned bucket names versions").to_owned();
    let refused = s3.request("DELETE", "/locked/kept", &[("versionId", &version)], &[], b"")?;
    assert_eq!(refused.status, 403, "{}", String::from_utf8_lossy(&refused.body));

    server.kill()?;
    assert!(s3.get("locked", "kept").is_err(), "a killed server answers");
    server.restart()?;
    assert_eq!(s3.get("locked", "kept")?.success()?.body, b"kept");
    Ok(())
}

#[test]
fn an_s3_client_with_a_wrong_secret_is_refused() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let server = S3Server::start(&sandbox)?;
    server.client().create_bucket("plain")?;
    let stranger = wald_integration::s3_client::S3Client::new(&server.address(), "wald-suite", "wrong");
    assert_eq!(stranger.put("plain", "a", b"x")?.status, 403);
    Ok(())
}

fn archiving_by_copy(sandbox: &Sandbox) -> Result<(Cluster, std::path::PathBuf)> {
    let archive = sandbox.dir("archive")?;
    let options = ClusterOptions { segment_size_mib: 1, ..ClusterOptions::default() };
    let copy = format!("archive_command = 'test ! -f {0}/%f && cp %p {0}/%f'", archive.display());
    let mut cluster =
        Cluster::create(sandbox, "copied", &options.setting("archive_mode = on").setting(copy))?;
    cluster.start()?;
    Ok((cluster, archive))
}

#[test]
fn a_real_postgresql_archives_and_comes_back_after_a_kill() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let (mut cluster, archive) = archiving_by_copy(&sandbox)?;
    assert_eq!(cluster.scalar("show server_version_num")?.get(..2), Some("15"));
    assert_eq!(cluster.scalar("show wal_segment_size")?, "1MB");

    cluster.exec("create table t as select i, i::text as s from generate_series(1, 1000) i")?;
    let segment = cluster.wait_archived()?;
    assert_eq!(fs::metadata(archive.join(&segment))?.len(), 1 << 20);
    assert_eq!(cluster.archive_backlog()?, 0);

    let before = cluster.fingerprint()?;
    assert_eq!(before.rows(), 1000);
    cluster.kill_hard()?;
    assert!(!cluster.is_running()?);
    assert!(cluster.try_sql("select 1")?.code() != 0, "a killed server answers");
    cluster.start()?;
    assert!(cluster.log_text().contains("database system was not properly shut down"));
    assert_eq!(before.differences(&cluster.fingerprint()?), Vec::<String>::new());

    cluster.exec("update t set s = 'other' where i = 500")?;
    assert_eq!(before.differences(&cluster.fingerprint()?).len(), 1);
    cluster.stop(Shutdown::Fast)?;
    assert!(cluster.log_text().contains("database system is shut down"));
    Ok(())
}

#[test]
fn a_standby_follows_and_takes_writes_once_promoted() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let (mut primary, _archive) = archiving_by_copy(&sandbox)?;
    let mut standby = primary.standby(&sandbox, "standby")?;
    standby.start()?;
    primary.exec("create table followed as select 1 as i")?;
    wald_integration::wait::until_true("the standby to follow", Duration::from_secs(60), || {
        Ok(standby.try_sql("select i from followed")?.code() == 0)
    })?;
    primary.kill_hard()?;
    standby.promote()?;
    standby.exec("insert into followed values (2)")?;
    let segment = standby.scalar("select pg_walfile_name(pg_current_wal_lsn())")?;
    assert!(segment.starts_with("00000002"), "still on the old timeline: {segment}");
    Ok(())
}

#[test]
fn a_server_that_can_not_start_is_reported_with_its_log() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let mut cluster = Cluster::create(&sandbox, "broken", &ClusterOptions::default())?;
    cluster.configure("shared_buffers = nonsense")?;
    let error = format!("{:#}", cluster.start().expect_err("a broken configuration is accepted"));
    assert!(error.contains("shared_buffers"), "{error}");
    Ok(())
}
