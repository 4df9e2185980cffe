//! `wald expire` on real histories: backups of a real PostgreSQL and its WAL, in a directory that is
//! made to look old, and in a bucket with versions and locks.
// Clippy knows tests by their attribute, and the steps of a suite carry none.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use anyhow::{Context, Result};
use bytes::Bytes;
use futures::TryStreamExt;
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::{Duration, SystemTime};
use tokio_util::sync::CancellationToken;
use wald::clock::Clock;
use wald::repository::Repository;
use wald::retain::{self, Progress, RetainOptions, RunReport};
use wald::store::{AwsEnvironment, Deletion, ObjectVersion, Store, StoreOptions, VersionKind};
use wald_core::backup_id::{BackupId, BackupKind};
use wald_core::object_key::ObjectKey;
use wald_core::object_lock::{LockMode, LockPolicy, ObjectLock};
use wald_core::retention::Policy;
use wald_integration::postgres::{Cluster, Shutdown};
use wald_integration::process::{Process, was_killed};
use wald_integration::scene::{Plot, Scene};
use wald_integration::seaweed::{ACCESS_KEY, SECRET_KEY};
use wald_integration::wald::{PREFIX, Place, Settings};

const DEADLINE: Duration = Duration::from_secs(120);
const DAY: Duration = Duration::from_secs(86_400);

/// A cluster with backups A, B and C, WAL in between, and what the table `t` was told when.
struct Story {
    scene: Scene,
    a: String,
    b: String,
    c: String,
    /// A moment after B, when `t` held 1, 2 and 3.
    after_b: String,
}

fn backup(scene: &Scene) -> Result<String> {
    scene.agent.succeed(&["backup"])?;
    let listing = scene.agent.json(&["list"])?;
    let backups = listing["backups"].as_array().context("backups")?;
    Ok(backups.last().and_then(|backup| backup["id"].as_str()).context("an id")?.to_owned())
}

fn moment(cluster: &Cluster) -> Result<String> {
    let now = "select pg_sleep(0.05); select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') || '+00'";
    let time = cluster.rows(now)?.last().and_then(|row| row.last().cloned()).context("a time")?;
    cluster.exec("select pg_sleep(0.05)")?;
    Ok(time)
}

impl Story {
    fn tell(plot: Plot, segments: u32) -> Result<Story> {
        let settings = plot.settings.clone().set("retention", "window_days", "1");
        let settings = settings.set("retention", "full_backups_min", "1");
        let mut scene = Scene::open(Plot { settings, ..plot })?;
        scene.cluster.exec("create table t (i int); insert into t values (1)")?;
        let a = backup(&scene)?;
        scene.write_segments(segments)?;
        scene.cluster.exec("insert into t values (2)")?;
        let b = backup(&scene)?;
        scene.cluster.exec("insert into t values (3)")?;
        let after_b = moment(&scene.cluster)?;
        scene.cluster.exec("insert into t values (4)")?;
        scene.write_segments(2)?;
        let c = backup(&scene)?;
        scene.write_segments(1)?;
        scene.cluster.wait_archived()?;
        Ok(Story { scene, a, b, c, after_b })
    }

    fn names(&self) -> Result<BTreeSet<String>> {
        Ok(self.scene.place.objects("")?.into_iter().map(|stored| stored.name).collect())
    }

    /// The names without the records of runs, which every run adds to.
    fn content(&self) -> Result<BTreeSet<String>> {
        Ok(self.names()?.into_iter().filter(|name| !name.starts_with("expire/")).collect())
    }

    /// The name of the segment that a backup starts in.
    fn first_segment(&self, backup: &str) -> Result<String> {
        let entry = self.scene.place.read(&format!("catalog/{backup}.json"))?;
        let entry: serde_json::Value = serde_json::from_slice(&entry)?;
        let start = entry["start_lsn"].as_str().context("start_lsn")?;
        let low = u64::from_str_radix(start.split('/').nth(1).context("an LSN")?, 16)?;
        Ok(format!("wal/0000000100000000{:08X}.zst", low >> 20))
    }

    /// Restores to a time and gives what `t` held then.
    fn restored(&self, name: &str, time: &str) -> Result<String> {
        let data_dir = self.scene.sandbox.path().join(format!("{name}-data"));
        let to = data_dir.to_str().context("a path")?;
        self.scene.agent.succeed(&["restore", "--to", to, "--target-time", time])?;
        let mut cluster = Cluster::adopt(&self.scene.sandbox, name, &data_dir)?;
        cluster.set_environment(&self.scene.agent.environment());
        cluster.launch()?;
        cluster.wait_primary(DEADLINE)?;
        let held = cluster.scalar("select string_agg(i::text, ',' order by i) from t")?;
        cluster.stop(Shutdown::Fast)?;
        Ok(held)
    }

    /// Every backup of the catalog must have a plan to its own end.
    fn assert_backups_are_whole(&self) -> Result<()> {
        for entry in self.scene.place.objects("catalog/")? {
            let Some(id) = entry.name.trim_start_matches("catalog/").strip_suffix(".json") else { continue };
            let to = self.scene.sandbox.path().join("nowhere");
            let to = to.to_str().context("a path")?;
            let target = ["restore", "--to", to, "--dry-run", "--backup", id, "--target", "immediate"];
            self.scene.agent.succeed(&target)?;
        }
        Ok(())
    }

    /// Makes a repository in a directory look older: A was taken thirty days ago, B twenty, and
    /// all WAL before C was stored when it was written.
    fn grow_old(&self) -> Result<()> {
        let root = self.scene.repository();
        for (backup, days) in [(&self.a, 30), (&self.b, 20)] {
            let path = root.join(format!("catalog/{backup}.json"));
            let mut entry: serde_json::Value = serde_json::from_slice(&fs::read(&path)?)?;
            for field in ["started_at", "stopped_at"] {
                let time: Timestamp = entry[field].as_str().context("a time")?.parse()?;
                entry[field] = (time - SignedDuration::from_hours(24 * days)).to_string().into();
            }
            fs::write(&path, serde_json::to_vec_pretty(&entry)?)?;
            make_old(&path, u32::try_from(days)?)?;
            // Once the entry is gone, the rest is removed if it is older than a backup may run.
            let folder = |name: &str| name.split('/').nth_back(1) == Some(backup.as_str());
            for stored in self.scene.place.objects("20")?.iter().filter(|stored| folder(&stored.name)) {
                make_old(&root.join(&stored.name), u32::try_from(days)?)?;
            }
        }
        let floor = self.first_segment(&self.b)?;
        let of_c = self.first_segment(&self.c)?;
        for stored in self.scene.place.objects("wal/")? {
            let days = if stored.name < floor { 30 } else { 20 };
            if stored.name < of_c {
                make_old(&root.join(&stored.name), days)?;
            }
        }
        Ok(())
    }

    fn put(&self, name: &str, age_days: u32) -> Result<()> {
        let path = self.scene.repository().join(name);
        let account = self.scene.sandbox.account();
        let mut above: Vec<&Path> = path.ancestors().skip(1).take_while(|dir| !dir.exists()).collect();
        above.reverse();
        for dir in above {
            fs::create_dir(dir)?;
            account.own(dir)?;
        }
        fs::write(&path, b"x")?;
        account.own(&path)?;
        make_old(&path, age_days)
    }
}

fn make_old(path: &Path, days: u32) -> Result<()> {
    let file = File::options().write(true).open(path).with_context(|| path.display().to_string())?;
    file.set_modified(SystemTime::now() - DAY * days)?;
    Ok(())
}

#[test]
fn what_no_target_needs_goes_and_every_target_of_the_window_is_reached() -> Result<()> {
    let story = Story::tell(Plot::small(), 3)?;
    let agent = &story.scene.agent;
    let (floor, first) = (story.first_segment(&story.b)?, story.first_segment(&story.a)?);
    let young = agent.json(&["expire", "--dry-run"])?;
    // What was archived before the first backup began is of no use to anybody.
    let details = young["details"]["delete"].as_array().context("delete")?;
    assert!(
        details.iter().all(|detail| detail["name"].as_str().is_some_and(|name| *name < *first)),
        "{young}"
    );
    story.grow_old()?;
    let gap = format!("gap/{}.json", first.trim_start_matches("wal/").trim_end_matches(".zst"));
    let leftover = |days: i64| {
        let began = Timestamp::now() - SignedDuration::from_hours(24 * days);
        let id = BackupId::new(began, BackupKind::Full);
        ObjectKey::backup_object(&id, "base-0001.tar.zst").map(|key| key.to_string())
    };
    let (old, running) = (leftover(3)?, leftover(1)?);
    for (name, age_days) in [
        (gap.as_str(), 40),
        (&old, 3),
        (&running, 1),
        ("check/old", 2),
        ("check/young", 0),
        ("notes.txt", 300),
        ("wal/readme", 300),
        ("catalog/notes.txt", 300),
    ] {
        story.put(name, age_days)?;
    }
    let before = story.names()?;
    let shown = agent.succeed(&["expire", "--dry-run"])?.stdout;
    let planned = agent.json(&["expire", "--dry-run"])?;
    assert_eq!(story.names()?, before, "a dry run changed something");
    assert!(shown.contains(&format!("expired     backup {}", story.a)), "{shown}");
    assert!(
        shown.contains(&format!("backup {} is the newest whole one from before the window", story.b)),
        "{shown}"
    );
    assert!(shown.contains(&format!("backup {} ended inside the window", story.c)), "{shown}");
    assert!(shown.contains("unknown     3 objects"), "{shown}");

    agent.succeed(&["expire"])?;
    let left = story.content()?;
    let gone: BTreeSet<&str> =
        before.iter().filter(|name| !left.contains(*name)).map(String::as_str).collect();
    let details = planned["details"]["delete"].as_array().context("delete")?;
    let told: BTreeSet<&str> = details.iter().filter_map(|detail| detail["name"].as_str()).collect();
    assert_eq!(gone, told);
    for name in ["check/old", &gap, &old, &first, &format!("catalog/{}.json", story.a)] {
        assert!(gone.contains(name), "{name} is still there");
    }
    assert!(gone.iter().any(|name| name.contains(&format!("{}/base-0001", story.a))));
    // A label sorts before the segment that it belongs to.
    let lowest = floor.trim_end_matches(".zst");
    assert!(!gone.iter().any(|name| name.starts_with("wal/") && **name >= *lowest), "{gone:?}");
    assert!(!left.iter().any(|name| name.starts_with("wal/0") && **name < *lowest), "{left:?}");
    for name in [&running, "check/young", "notes.txt", "wal/readme", "catalog/notes.txt", "wald.json", &floor]
    {
        assert!(left.contains(name), "{name} is gone");
    }
    let again = agent.json(&["expire"])?;
    assert_eq!(again["outcome"]["deleted"], 0, "{again}");
    assert_eq!(again["record"].as_str().map(|name| name.starts_with("expire/")), Some(true));
    assert_eq!(story.scene.place.objects("expire/")?.len(), 2);
    story.assert_backups_are_whole()?;
    assert_eq!(story.restored("after-b", &story.after_b)?, "1,2,3");
    Ok(())
}

#[test]
fn an_entry_that_cannot_be_read_stops_the_run_before_anything_is_deleted() -> Result<()> {
    let story = Story::tell(Plot::small(), 1)?;
    story.grow_old()?;
    let entry = story.scene.repository().join(format!("catalog/{}.json", story.c));
    let whole = fs::read(&entry)?;
    fs::write(&entry, &whole[..whole.len() / 2])?;
    let before = story.content()?;
    let refused = story.scene.agent.run(&["expire"])?.exited_with(1)?;
    assert!(refused.stdout.contains("REFUSED"), "{}", refused.said());
    assert!(refused.stdout.contains(&story.c), "{}", refused.said());
    assert_eq!(story.content()?, before);
    fs::write(&entry, &whole)?;
    story.scene.agent.succeed(&["expire"])?;
    assert!(story.content()?.len() < before.len());
    Ok(())
}

#[test]
fn another_clusters_repository_is_not_expired() -> Result<()> {
    let story = Story::tell(Plot::small(), 1)?;
    let plot = Plot::small().cluster;
    let other = Cluster::create(&story.scene.sandbox, "other", &plot)?;
    let place = &story.scene.place;
    let stranger = wald_integration::wald::Wald::configure(
        &story.scene.sandbox,
        "stranger",
        &other,
        place,
        Settings::new(),
    )?;
    let before = story.names()?;
    let refused = stranger.run(&["expire"])?.exited_with(1)?;
    assert!(refused.said().contains("belongs to system"), "{}", refused.said());
    assert_eq!(story.names()?, before);
    Ok(())
}

/// A reproducible sequence that is random enough for moments.
fn next(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *seed >> 33
}

#[test]
fn killed_anywhere_or_run_twice_at_once_it_leaves_whole_backups_and_completes() -> Result<()> {
    let mut seed = std::env::var("WALD_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| u64::from(Timestamp::now().subsec_nanosecond().unsigned_abs()));
    eprintln!("WALD_SEED={seed}");
    let story = Story::tell(Plot::small(), 40)?;
    story.grow_old()?;
    let (agent, sandbox) = (&story.scene.agent, &story.scene.sandbox);
    let planned = agent.json(&["expire", "--dry-run"])?;
    let before = story.content()?;
    let mut killed = 0;
    for attempt in 0..12 {
        let log = sandbox.path().join(format!("expire-{attempt}.log"));
        let mut process = Process::spawn("wald expire", agent.command(&["expire"]), &log)?;
        let pause = Duration::from_millis(next(&mut seed) % 80);
        let started = std::time::Instant::now();
        while started.elapsed() < pause && process.ended()?.is_none() {
            std::thread::yield_now();
        }
        process.kill_hard()?;
        killed += usize::from(process.ended()?.is_none_or(was_killed));
        story.assert_backups_are_whole()?;
    }
    eprintln!("{killed} of 12 were killed before their end");
    let spawn = |name: &str| {
        let log = sandbox.path().join(format!("expire-{name}.log"));
        Process::spawn("wald expire", agent.command(&["expire"]), &log)
    };
    let (mut one, mut other) = (spawn("one")?, spawn("other")?);
    for process in [&mut one, &mut other] {
        let status = process.wait_end(DEADLINE)?;
        assert!(status.success(), "{}", process.log_text());
    }
    let left = story.content()?;
    let details = planned["details"]["delete"].as_array().context("delete")?;
    let told: BTreeSet<&str> = details.iter().filter_map(|detail| detail["name"].as_str()).collect();
    let gone: BTreeSet<&str> =
        before.iter().filter(|name| !left.contains(*name)).map(String::as_str).collect();
    assert_eq!(gone, told);
    assert!(gone.len() > 40);
    story.assert_backups_are_whole()?;
    assert_eq!(story.restored("after-kills", &story.after_b)?, "1,2,3");
    Ok(())
}

/// The repository of a story that plays on S3, as the library sees it.
struct Bucket<'a> {
    story: &'a Story,
    bucket: String,
    repository: Repository,
    /// The window begins here: B ended before, C after.
    begin: Timestamp,
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(work)
}

impl<'a> Bucket<'a> {
    async fn open(story: &'a Story) -> Bucket<'a> {
        let Place::Bucket { endpoint, bucket, .. } = &story.scene.place else { panic!("not on S3") };
        let mut options = StoreOptions::new(format!("s3://{bucket}/{PREFIX}"));
        options.s3.endpoint = Some(endpoint.clone());
        options.s3.region = Some("us-east-1".to_owned());
        options.s3.path_style = true;
        options.s3.allow_http = true;
        options.s3.environment = AwsEnvironment::with_key_pair(ACCESS_KEY, SECRET_KEY);
        let repository = Repository::open(Store::open(&options).unwrap()).await.unwrap();
        let begin = story.after_b.replace(' ', "T").replace("+00", "Z").parse().unwrap();
        Bucket { story, bucket: bucket.clone(), repository, begin }
    }

    fn store(&self) -> &Store {
        self.repository.store()
    }

    fn options(&self, now: Timestamp) -> RetainOptions {
        let policy = Policy {
            window: now.duration_since(self.begin),
            edge: SignedDuration::ZERO,
            ..Policy::new(1, 1)
        };
        let lock = Some(LockPolicy { mode: LockMode::Governance, days: 1 });
        RetainOptions { policy, lock, requests: NonZeroUsize::new(8).unwrap() }
    }

    async fn expire(&self) -> RunReport {
        let options = self.options(Timestamp::now());
        let (progress, cancel) = (Progress::silent(), CancellationToken::new());
        retain::run(&self.repository, &options, Clock::System, &progress, cancel).await.unwrap()
    }

    async fn versions(&self, prefix: &str) -> Vec<ObjectVersion> {
        self.store().versions(prefix).try_collect().await.unwrap()
    }

    /// By name alone, as `aws s3 rm` does.
    fn delete_by_name(&self, name: &str) {
        let client = self.story.scene.server.as_ref().unwrap().client();
        let path = format!("/{}/{PREFIX}/{name}", self.bucket);
        client.request("DELETE", &path, &[], &[], b"").unwrap().success().unwrap();
    }

    fn refuses_to_delete(&self, version: &ObjectVersion) -> bool {
        let client = self.story.scene.server.as_ref().unwrap().client();
        let path = format!("/{}/{PREFIX}/{}", self.bucket, version.name);
        let answer = client.request("DELETE", &path, &[("versionId", version.version.as_str())], &[], b"");
        answer.unwrap().status >= 400
    }
}

fn wal_of(versions: &[ObjectVersion]) -> Vec<&str> {
    versions.iter().map(|version| version.name.as_str()).filter(|name| name.starts_with("wal/0")).collect()
}

#[test]
fn in_a_locked_bucket_what_is_needed_is_locked_longer_and_the_rest_goes_by_version() -> Result<()> {
    let settings = Settings::new().set_text("repository.lock", "mode", "none");
    let story = Story::tell(Plot { on_s3: true, settings, ..Plot::small() }, 3)?;
    run(async {
        let bucket = Bucket::open(&story).await;
        what_can_wait_waits_for_its_lock(&bucket).await;
        what_is_needed_and_hidden_comes_to_light(&bucket).await;
        what_is_needed_is_locked_and_the_rest_is_gone(&bucket).await;
        an_old_upload_is_ended(&bucket).await;
    });
    assert_eq!(story.restored("after-expire", &story.after_b)?, "1,2,3");
    Ok(())
}

/// A part of A is locked for some seconds: so long A stays, with all of its WAL.
async fn what_can_wait_waits_for_its_lock(bucket: &Bucket<'_>) {
    let (store, story) = (bucket.store(), bucket.story);
    let first = story.first_segment(&story.a).unwrap();
    // Somebody wrote over a segment that is not needed, and deleted another by name.
    story.scene.place.tamper(&first, b"other").unwrap();
    let second = bucket.versions("wal/0").await;
    let second = wal_of(&second).into_iter().filter(|name| **name > *first).min().unwrap().to_owned();
    bucket.delete_by_name(&second);
    story.scene.place.tamper("notes.txt", b"mine").unwrap();
    let part =
        bucket.versions("").await.into_iter().find(|v| v.name.contains(&format!("{}/base-0001", story.a)));
    let part = part.unwrap();
    let until = Timestamp::now() + SignedDuration::from_secs(6);
    let held = ObjectLock { mode: LockMode::Compliance, until };
    store.extend_lock(&part.name, &part.version, held).await.unwrap();
    let planned = {
        let options = bucket.options(Timestamp::now());
        retain::plan(&bucket.repository, &options, Clock::System, &Progress::silent()).await.unwrap()
    };
    if planned.now < until {
        // What was archived before A began is of no use to anybody.
        assert!(planned.details.delete.iter().all(|detail| detail.name < first), "{planned}");
        assert!(planned.details.later.iter().any(|later| later.name == first), "{planned}");
    }
    let waiting = tokio::time::Instant::now();
    while !bucket.versions(&part.name).await.is_empty() {
        let report = bucket.expire().await;
        assert!(report.is_good(), "{report}");
        assert!(waiting.elapsed() < Duration::from_secs(60), "the lock does not lapse: {report}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(Timestamp::now() >= until, "deleted before its lock had lapsed");
    for prefix in [&first, &second, &format!("catalog/{}", story.a), "check/"] {
        let left = bucket.versions(prefix).await;
        assert!(left.iter().all(|version| version.name.starts_with("check/guarantees-")), "{left:?}");
    }
    assert!(!bucket.versions("").await.iter().any(|version| version.name.contains(&story.a)));
}

/// Somebody deleted by name what is needed: a segment, and with it the entry of a backup.
async fn what_is_needed_and_hidden_comes_to_light(bucket: &Bucket<'_>) {
    let story = bucket.story;
    let (segment, entry) = (story.first_segment(&story.b).unwrap(), format!("catalog/{}.json", story.b));
    for name in [&segment, &entry] {
        bucket.delete_by_name(name);
    }
    let visible = story.names().unwrap();
    assert!(!visible.contains(&segment) && !visible.contains(&entry));
    let options = bucket.options(Timestamp::now());
    let planned =
        retain::plan(&bucket.repository, &options, Clock::System, &Progress::silent()).await.unwrap();
    assert!(planned.refusal.is_some() && planned.details.delete.is_empty(), "{planned}");
    assert_eq!(planned.details.heal.len(), 2, "{planned}");
    let report = bucket.expire().await;
    // What nobody has seen in a plan is not deleted.
    assert!(report.outcome.healed == 2 && report.outcome.deleted == 0 && !report.is_good(), "{report}");
    let again = bucket.expire().await;
    assert!(again.outcome.healed == 0 && again.is_good(), "{again}");
    let visible = story.names().unwrap();
    assert!(visible.contains(&segment) && visible.contains(&entry));
}

async fn what_is_needed_is_locked_and_the_rest_is_gone(bucket: &Bucket<'_>) {
    let story = bucket.story;
    // Somebody wrote over a segment that is needed: the first version is the true one, both stay.
    let (floor, last) = (story.first_segment(&story.b).unwrap(), story.first_segment(&story.c).unwrap());
    let true_content = story.scene.place.read(&last).unwrap();
    story.scene.place.tamper(&last, b"other").unwrap();
    let report = bucket.expire().await;
    assert!(report.is_good() && report.outcome.extended >= 1, "{report}");
    let versions = bucket.versions("").await;
    assert_eq!(versions.iter().filter(|version| version.name == last).count(), 2);
    assert!(wal_of(&versions).into_iter().all(|name| name >= floor.trim_end_matches(".zst")), "{versions:?}");
    let markers = versions.iter().filter(|version| version.kind == VersionKind::DeleteMarker);
    let markers: Vec<_> = markers.collect();
    assert!(markers.is_empty(), "{markers:?}");
    let leaves =
        Timestamp::now() + Timestamp::now().duration_since(bucket.begin) - SignedDuration::from_mins(1);
    for version in &versions {
        let lock = bucket.store().lock_of(&version.name, &version.version).await.unwrap();
        if version.name == "notes.txt" {
            assert_eq!(lock, None);
            continue;
        }
        let needed = !version.name.starts_with("check/") && !version.name.starts_with("expire/");
        if !needed {
            continue;
        }
        let lock = lock.unwrap_or_else(|| panic!("{} has no lock", version.name));
        assert!(lock.mode == LockMode::Governance && lock.until >= leaves, "{}: {lock}", version.name);
        assert!(bucket.refuses_to_delete(version), "{} was deleted", version.name);
        let answer = bucket.store().delete_version(&version.name, &version.version).await.unwrap();
        assert_eq!(answer, Deletion::Locked, "{}", version.name);
    }
    let again = bucket.expire().await;
    assert_eq!(
        (again.outcome.extended, again.outcome.deleted),
        (1, 0),
        "the record of the last run: {again}"
    );
    // What was written over it is in the way of a restore, and the operator removes it.
    let newest = versions.iter().find(|version| version.name == last && version.is_latest).unwrap();
    let client = story.scene.server.as_ref().unwrap().client();
    let path = format!("/{}/{PREFIX}/{last}", bucket.bucket);
    let query = [("versionId", newest.version.as_str())];
    let bypass = [("x-amz-bypass-governance-retention", "true")];
    client.request("DELETE", &path, &query, &bypass, b"").unwrap().success().unwrap();
    assert_eq!(story.scene.place.read(&last).unwrap(), true_content);
}

async fn an_old_upload_is_ended(bucket: &Bucket<'_>) {
    let client = bucket.story.scene.server.as_ref().unwrap().client();
    for name in ["2026/11/01/20261101T000000Z-full/base-0001.tar.zst", "notes/mine"] {
        let path = format!("/{}/{PREFIX}/{name}", bucket.bucket);
        client.request("POST", &path, &[("uploads", "")], &[], b"").unwrap().success().unwrap();
    }
    let young = bucket.expire().await;
    assert_eq!(young.outcome.aborted, 0);
    let tomorrow = Timestamp::now() + SignedDuration::from_hours(25);
    let options = bucket.options(tomorrow);
    let (progress, cancel) = (Progress::silent(), CancellationToken::new());
    let report =
        retain::run(&bucket.repository, &options, Clock::Fixed(tomorrow), &progress, cancel).await.unwrap();
    assert_eq!(report.outcome.aborted, 1, "{report}");
    let left = bucket.store().pending_uploads("").await.unwrap();
    assert_eq!(left.iter().map(|upload| upload.name.as_str()).collect::<Vec<_>>(), ["notes/mine"]);
    let stat = bucket.store().get(&ObjectKey::identity(), 1 << 16).await;
    assert!(stat.is_ok_and(|bytes: Bytes| !bytes.is_empty()));
}
