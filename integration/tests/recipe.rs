//! The way out of wald: the README's recipe, taken from the README and run as it is written,
//! with the stock `aws`, `zstd` and `tar` against a real S3 server.

use anyhow::{Context, Result};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;
use wald_integration::parts;
use wald_integration::postgres::Cluster;
use wald_integration::run::run;
use wald_integration::scene::{Plot, Scene};

/// The first code block behind a heading of the README.
fn block_behind(heading: &str) -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = fs::read_to_string(path)?;
    let (_, behind) = readme.split_once(heading).context("the heading")?;
    let (_, block) = behind.split_once("```sh\n").context("a block")?;
    let (block, _) = block.split_once("```").context("its end")?;
    Ok(block.to_owned())
}

#[test]
fn a_cluster_with_a_tablespace_is_restored_without_wald_as_the_readme_says() -> Result<()> {
    let mut scene = Scene::open(Plot { on_s3: true, ..Plot::small() })?;
    let space = scene.sandbox.dir("space")?;
    scene.cluster.exec(&format!("create tablespace space location '{}'", space.display()))?;
    scene.cluster.exec("create table apart tablespace space as select g from generate_series(1, 5000) g")?;
    scene.agent.succeed(&["backup"])?;
    scene.cluster.exec("create table t as select g, md5(g::text) from generate_series(1, 5000) g")?;
    scene.write_segments(20)?;
    scene.cluster.wait_archived()?;
    let wanted = scene.cluster.fingerprint()?;
    let oid = scene.cluster.scalar("select oid from pg_tablespace where spcname = 'space'")?;
    let listing = scene.agent.json(&["list"])?;
    let id = listing.get("backups").and_then(|b| b.get(0)?.get("id")?.as_str()).context("an id")?.to_owned();

    // The loss: the cluster, its tablespace, and wald.
    scene.agent.kill_hard()?;
    scene.cluster.kill_hard()?;
    fs::remove_dir_all(scene.cluster.data_dir())?;
    fs::remove_dir_all(&space)?;

    let data_dir = scene.sandbox.path().join("by-hand");
    let (year, month, day) = (id.get(..4), id.get(4..6), id.get(6..8));
    let date = [year, month, day].into_iter().collect::<Option<Vec<_>>>().context("a date")?.join("/");
    let recipe = block_behind("## Restore without wald")?
        .replace("s3://my-bucket/my-cluster", &scene.place.url())
        .replace("20261122T020000Z-full", &id)
        .replace("2026/11/22", &date)
        .replace("/var/lib/postgresql/15/restored", data_dir.to_str().context("a path")?)
        .replace("16400", &oid)
        .replace("/place", space.to_str().context("a path")?)
        .replace("# mkdir", "mkdir")
        .replace("pg_ctl -D \"$dir\" start", "true");
    let script = scene.sandbox.write("recipe.sh", &format!("set -euo pipefail\n{recipe}"))?;
    let work = scene.sandbox.dir("work")?;
    let pg_bin = parts::postgres_program("postgres")?.parent().context("a directory")?.to_owned();
    let endpoint = scene.server.as_ref().context("a server")?.endpoint();
    // Debian's aws takes the endpoint of another store than Amazon's as an option only.
    let aws = Path::new("/usr/bin/aws");
    anyhow::ensure!(aws.exists(), "{} is missing: run integration/parts", aws.display());
    let bin = scene.sandbox.dir("stock-bin")?;
    let wrapper = scene.sandbox.write(
        "stock-bin/aws",
        &format!("#!/bin/sh\nexec {} --endpoint-url {endpoint} \"$@\"\n", aws.display()),
    )?;
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755))?;
    let path = format!("{}:{}:/usr/bin:/bin", bin.display(), pg_bin.display());
    let home = work.to_string_lossy().into_owned();
    let mut environment = scene.agent.environment();
    environment.extend([("PATH", path.as_str()), ("AWS_DEFAULT_REGION", "us-east-1"), ("HOME", &home)]);
    let mut bash = scene.sandbox.account().command("bash");
    bash.envs(environment.clone()).arg(&script).current_dir(&work);
    let ran = run(bash)?.success()?;
    assert!(ran.said().contains("successfully verified"), "{}", ran.said());

    let mut copy = Cluster::adopt(&scene.sandbox, "by-hand", &data_dir)?;
    copy.set_environment(&environment);
    copy.launch()?;
    copy.wait_primary(Duration::from_secs(180))?;
    let differences = wanted.differences(&copy.fingerprint()?);
    assert!(differences.is_empty(), "{differences:?}");
    Ok(())
}
