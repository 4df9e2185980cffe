//! wald on a weak store: Ceph's radosgw, in a bucket with object lock. Run by `integration/radosgw`
//! only, which installs it; not part of `integration/test`.

use anyhow::{Context, Result};
use std::time::Duration;
use wald_integration::agent::{Agent, archive_through};
use wald_integration::postgres::Cluster;
use wald_integration::radosgw::Radosgw;
use wald_integration::run::run;
use wald_integration::sandbox::Sandbox;
use wald_integration::scene::Plot;
use wald_integration::wald::{PREFIX, Place, Settings, Wald};

const DEADLINE: Duration = Duration::from_secs(120);
const BUCKET: &str = "wald-ceph";

#[test]
fn wald_is_right_on_radosgw_and_says_what_that_rests_on() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let ceph = Radosgw::start(&sandbox)?;
    ceph.client().create_locked_bucket(BUCKET)?;
    let place = Place::Bucket {
        endpoint: ceph.endpoint(),
        bucket: BUCKET.to_owned(),
        credentials: ceph.credentials(),
    };
    let mut cluster = Cluster::create(&sandbox, "primary", &Plot::small().cluster)?;
    let wald = Wald::configure(&sandbox, "wald", &cluster, &place, Settings::new())?;

    let init = wald.succeed(&["repo", "init"])?;
    println!("{}", init.said());
    let check = wald.run(&["repo", "check"])?;
    println!("{}", check.said());
    let report: serde_json::Value = serde_json::from_str(&wald.run(&["repo", "check", "--json"])?.stdout)?;
    assert_eq!(report["good"], true, "{report:#}");
    let seen = &report["guarantees"];
    assert_eq!(seen["create_only"], false, "{seen}");
    assert_eq!(seen["lock_on_upload"], false, "{seen}");
    assert_eq!(seen["checksums"], false, "{seen}");
    assert!(check.stdout.contains("wald looks before it writes"), "{}", check.stdout);

    let mut agent = Agent::start(&sandbox, "wald", wald)?;
    assert!(agent.log_text().contains("wald looks before it writes"), "{}", agent.log_text());
    archive_through(&mut cluster, &agent)?;
    cluster.start()?;
    cluster.exec("create table t as select g as i from generate_series(1, 1000) g")?;
    cluster.exec("select pg_switch_wal()")?;
    cluster.wait_archived()?;
    another_content_is_refused(&cluster, &mut agent)?;

    agent.succeed(&["backup"])?;
    cluster.exec("insert into t values (1001)")?;
    cluster.exec("select pg_switch_wal()")?;
    cluster.wait_archived()?;
    let wanted = cluster.fingerprint()?;
    every_object_is_locked(&ceph, &place)?;

    let data_dir = sandbox.path().join("copy-data");
    agent.succeed(&["restore", "--to", data_dir.to_str().context("a path")?])?;
    let mut copy = Cluster::adopt(&sandbox, "copy", &data_dir)?;
    copy.set_environment(&agent.environment());
    copy.launch()?;
    copy.wait_primary(DEADLINE)?;
    assert!(wanted.differences(&copy.fingerprint()?).is_empty());
    Ok(())
}

/// A segment with other bytes under a name that is archived: refused, with the agent and without,
/// and what is stored stays as it is.
fn another_content_is_refused(cluster: &Cluster, agent: &mut Agent) -> Result<()> {
    let name = cluster.scalar("select last_archived_wal from pg_stat_archiver")?;
    let path = cluster.data_dir().join("pg_wal").join(&name);
    let original = std::fs::read(&path).with_context(|| format!("reading {name}"))?;
    let mut other = original.clone();
    let last = other.last_mut().context("a segment")?;
    *last ^= 1;
    // The agent remembers what it has confirmed; started anew it has to look.
    agent.stop()?;
    std::fs::write(&path, &other).context("changing a segment")?;
    let pushed = |agent: &Agent| run(agent.archive_shim(cluster.data_dir(), &format!("pg_wal/{name}")));
    let refused = pushed(agent)?.exited_with(1)?;
    assert!(refused.said().contains("another content"), "{}", refused.said());
    std::fs::write(&path, &original).context("putting a segment back")?;
    agent.restart()?;
    pushed(agent)?.success()?;
    Ok(())
}

/// Every object that wald keeps has a lock of a week, read by another client.
fn every_object_is_locked(ceph: &Radosgw, place: &Place) -> Result<()> {
    let objects = place.objects("")?;
    let kept = objects.iter().filter(|object| !object.name.starts_with("check/"));
    let mut seen = 0;
    for object in kept {
        let path = format!("/{BUCKET}/{PREFIX}/{}", object.name);
        let answer = ceph.client().request("GET", &path, &[("retention", "")], &[], b"")?;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(answer.status == 200 && text.contains("COMPLIANCE"), "{}: {text}", object.name);
        seen += 1;
    }
    assert!(seen > 5, "{objects:?}");
    Ok(())
}
