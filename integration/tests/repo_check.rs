//! `wald repo check`: finds by trying what a bucket, a server or a pair of keys lacks, and says
//! what to do; `repo init` learns the same.

use anyhow::{Context, Result};
use wald_integration::agent::{Agent, archive_through};
use wald_integration::postgres::Cluster;
use wald_integration::run::run;
use wald_integration::sandbox::Sandbox;
use wald_integration::scene::Plot;
use wald_integration::seaweed::{Identity, S3Server};
use wald_integration::wald::{Place, Settings, Wald};
use wald_integration::weak_store::{WeakStore, Weakness};

const READER: Identity =
    Identity { access_key: "reader", secret_key: "the-secret-of-reader", actions: &["Read", "List"] };
const WRITER: Identity =
    Identity { access_key: "writer", secret_key: "the-secret-of-writer", actions: &["Write"] };

/// A server, a cluster that does not run, and what is needed to configure wald for both.
struct Stage {
    cluster: Cluster,
    server: S3Server,
    sandbox: Sandbox,
}

impl Stage {
    fn new() -> Result<Stage> {
        let sandbox = Sandbox::new()?;
        let server = S3Server::start_with(&sandbox, &[Identity::SUITE, READER, WRITER], None)?;
        server.client().create_locked_bucket("good")?;
        let cluster = Cluster::create(&sandbox, "primary", &Plot::small().cluster)?;
        Ok(Stage { cluster, server, sandbox })
    }

    fn wald(&self, endpoint: String, bucket: &str, keys: &Identity, lock: &str) -> Result<Wald> {
        self.named("wald", endpoint, bucket, keys, lock)
    }

    /// Several can be at work at the same time under names of their own.
    fn named(&self, name: &str, endpoint: String, bucket: &str, keys: &Identity, lock: &str) -> Result<Wald> {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let credentials = vec![
            pair("AWS_ACCESS_KEY_ID", keys.access_key),
            pair("AWS_SECRET_ACCESS_KEY", keys.secret_key),
            pair("AWS_REGION", "us-east-1"),
        ];
        let place = Place::Bucket { endpoint, bucket: bucket.to_owned(), credentials };
        let settings = Settings::new().set_text("repository.lock", "mode", lock).set_text(
            "repository",
            "retry_timeout",
            "2s",
        );
        Wald::configure(&self.sandbox, name, &self.cluster, &place, settings)
    }

    /// For the bucket with lock, through whatever stands at `endpoint`.
    fn at(&self, endpoint: String) -> Result<Wald> {
        self.wald(endpoint, "good", &Identity::SUITE, "compliance")
    }
}

/// What `repo check --json` reports.
struct Report {
    text: String,
    value: serde_json::Value,
    code: i32,
}

fn check(wald: &Wald, options: &[&str]) -> Result<Report> {
    let finished = wald.run(&[&["repo", "check", "--json"], options].concat())?;
    let value = serde_json::from_str(&finished.stdout).with_context(|| finished.said())?;
    Ok(Report { text: finished.said(), value, code: finished.code() })
}

impl Report {
    fn verdict_of(&self, part: &str) -> Option<&str> {
        let findings = self.value.get("findings")?.as_array()?;
        let text = |finding: &&serde_json::Value| {
            finding.get("text").and_then(|text| text.as_str()).is_some_and(|text| text.contains(part))
        };
        findings.iter().find(text)?.get("verdict")?.as_str()
    }

    fn must_say(&self, verdict: &str, part: &str) {
        assert_eq!(self.verdict_of(part), Some(verdict), "{part}: {}", self.text);
    }

    fn must_end(&self, code: i32) {
        assert_eq!(self.code, code, "{}", self.text);
        assert_eq!(self.value.get("good"), Some(&serde_json::Value::Bool(code == 0)), "{}", self.text);
    }

    fn guarantee(&self, name: &str) -> bool {
        self.value.pointer(&format!("/guarantees/{name}")) == Some(&serde_json::Value::Bool(true))
    }
}

#[test]
fn a_good_bucket_is_good_in_every_point_and_nothing_but_the_record_is_left() -> Result<()> {
    let stage = Stage::new()?;
    let wald = stage.at(stage.server.endpoint())?;
    let init = wald.succeed(&["repo", "init"])?;
    assert!(!init.said().contains("BAD"), "{}", init.said());
    let report = check(&wald, &[])?;
    report.must_end(0);
    for part in [
        "clock agrees",
        "keeps every version",
        "can lock objects",
        "refuses to overwrite",
        "lets one of 16 win",
        "checksum (x-amz-checksum-*) is wrong",
        "lists the versions",
        "locks are there on objects",
        "locks are there on what is uploaded",
        "made longer",
        "refuses to delete what is locked",
        "removed what was stored",
    ] {
        report.must_say("good", part);
    }
    for name in ["create_only", "checksums", "lock_on_put", "lock_on_upload"] {
        assert!(report.guarantee(name), "{name}: {}", report.text);
    }
    // In this SeaweedFS is no S3.
    report.must_say("note", "says of a deleted object that it never was");
    report.must_say("note", "takes a body that is not the one that was signed");
    let left = stage.server.client().list("good", "wald/check/")?;
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(left.iter().all(|(name, _)| name.contains("check/guarantees-")), "{left:?}");
    check(&wald, &["--for", "expire"])?.must_end(0);
    Ok(())
}

#[test]
fn a_bucket_without_lock_or_versions_is_bad_where_a_lock_is_configured_and_a_note_where_not() -> Result<()> {
    let stage = Stage::new()?;
    stage.server.client().create_bucket("plain")?;
    let locking = stage.wald(stage.server.endpoint(), "plain", &Identity::SUITE, "compliance")?;
    let report = check(&locking, &[])?;
    report.must_end(1);
    report.must_say("bad", "does not keep versions");
    report.must_say("bad", "no object lock");
    assert!(report.text.contains("--object-lock-enabled-for-bucket"), "{}", report.text);

    let without = stage.wald(stage.server.endpoint(), "plain", &Identity::SUITE, "none")?;
    without.succeed(&["repo", "init"])?;
    let report = check(&without, &[])?;
    report.must_end(0);
    report.must_say("note", "does not keep versions");
    report.must_say("note", "whoever has the keys can delete");

    let missing = stage.wald(stage.server.endpoint(), "nowhere", &Identity::SUITE, "none")?;
    let report = check(&missing, &[])?;
    report.must_end(1);
    assert!(report.text.contains("no such bucket"), "{}", report.text);
    Ok(())
}

#[test]
fn keys_that_may_only_read_or_only_write_are_told_apart() -> Result<()> {
    let stage = Stage::new()?;
    stage.at(stage.server.endpoint())?.succeed(&["repo", "init"])?;
    let reader = stage.wald(stage.server.endpoint(), "good", &READER, "compliance")?;
    let report = check(&reader, &[])?;
    report.must_end(1);
    report.must_say("bad", "can't store objects (s3:PutObject)");
    let report = check(&reader, &["--for", "restore"])?;
    report.must_end(0);
    report.must_say("good", "lists objects");
    let writer = stage.wald(stage.server.endpoint(), "good", &WRITER, "compliance")?;
    let report = check(&writer, &[])?;
    report.must_end(1);
    report.must_say("bad", "wald.json can't be read (s3:GetObject)");
    report.must_say("bad", "(s3:ListBucket)");
    Ok(())
}

/// What these keys may not do, what is said of that, and whether it is bad for archiving and for
/// retention.
type Missing = (&'static [Weakness], &'static [&'static str], bool, bool);

const MISSING: [Missing; 8] = [
    (&[Weakness::Refuses("PUT", "")], &["can't store objects (s3:PutObject)"], true, true),
    (&[Weakness::Refuses("GET", "")], &["wald.json can't be read (s3:GetObject)"], true, true),
    (&[Weakness::Refuses("GET", "list-type")], &["can't list objects (s3:ListBucket)"], true, true),
    (
        &[Weakness::Refuses("GET", "versions")],
        &["s3:ListBucketVersions is needed to tell a deleted"],
        true,
        true,
    ),
    (&[Weakness::RefusesLockedObjects], &["a condition on it is below repository.lock.days"], true, true),
    (&[Weakness::Refuses("GET", "retention")], &["(s3:GetObjectRetention)"], true, true),
    (
        &[Weakness::Refuses("PUT", "retention"), Weakness::Refuses("DELETE", "versionId")],
        &["can't make a lock longer (s3:PutObjectRetention)", "what was stored for this check stays"],
        false,
        true,
    ),
    (
        &[Weakness::Refuses("GET", "versioning"), Weakness::Refuses("GET", "object-lock")],
        &["(s3:GetBucketVersioning)", "(s3:GetBucketObjectLockConfiguration)"],
        false,
        false,
    ),
];

#[test]
fn rights_that_are_missing_are_named_one_by_one() -> Result<()> {
    let stage = Stage::new()?;
    stage.at(stage.server.endpoint())?.succeed(&["repo", "init"])?;
    let one = |index: usize, purpose: &str, (weaknesses, said, archive, expire): Missing| {
        let weak = WeakStore::start(stage.server.client(), weaknesses)?;
        let name = format!("wald-{index}-{purpose}");
        let wald = stage.named(&name, weak.endpoint(), "good", &Identity::SUITE, "compliance")?;
        let report = check(&wald, &["--for", purpose])?;
        let bad = if purpose == "archive" { archive } else { expire };
        report.must_end(i32::from(bad));
        if purpose == "expire" && weaknesses.contains(&Weakness::Refuses("DELETE", "versionId")) {
            report.must_say("bad", "can't make a lock longer (s3:PutObjectRetention)");
            report.must_say("bad", "can't remove versions (s3:DeleteObjectVersion)");
        } else {
            said.iter().for_each(|said| report.must_say(if bad { "bad" } else { "note" }, said));
        }
        Ok::<(), anyhow::Error>(())
    };
    let mut cases = Vec::new();
    for (index, missing) in MISSING.into_iter().enumerate() {
        let (_, _, archive, _) = missing;
        // What is bad for archiving is bad for retention, which needs every right.
        let purposes: &[&str] = if archive { &["archive"] } else { &["archive", "expire"] };
        cases.extend(purposes.iter().map(|purpose| (index, *purpose, missing)));
    }
    // Most of a check is waiting until its locks lapse, which are short: as many at once as don't hold each
    // other up for longer than that.
    for batch in cases.chunks(4) {
        std::thread::scope(|scope| {
            let one = &one;
            let running: Vec<_> = batch
                .iter()
                .map(|(index, purpose, missing)| scope.spawn(move || one(*index, purpose, *missing)))
                .collect();
            for run in running {
                run.join().map_err(|_| anyhow::anyhow!("a verdict was another, as told above"))??;
            }
            Ok::<(), anyhow::Error>(())
        })?;
    }
    Ok(())
}

#[test]
fn keys_with_the_least_rights_for_their_work_are_good_for_it() -> Result<()> {
    let stage = Stage::new()?;
    let no_deletion = [Weakness::Refuses("DELETE", "versionId"), Weakness::Refuses("DELETE", "")];
    let weak = WeakStore::start(stage.server.client(), &no_deletion)?;
    let wald = stage.at(weak.endpoint())?;
    wald.succeed(&["repo", "init"])?;
    let report = check(&wald, &[])?;
    report.must_end(0);
    report.must_say("note", "what was stored for this check stays");
    // A refusal for want of the right is no proof of a lock.
    assert_eq!(report.verdict_of("refuses to delete what is locked"), None, "{}", report.text);
    report.must_say("note", "whether locks hold can't be tried");
    report.must_say("note", "whether it tells a deleted object from one that never was can't be tried");

    let left = || Ok::<_, anyhow::Error>(stage.server.client().list("good", "wald/check/")?.len());
    let before = left()?;
    weak.becomes(&[Weakness::Refuses("PUT", "")]);
    let report = check(&wald, &["--for", "expire"])?;
    report.must_end(0);
    report.must_say("good", "locks can be read and made longer");
    report.must_say("good", "removes versions whose lock has lapsed");
    assert_eq!(left()?, before - 1);
    for (refused, said) in [("PUT", "can't make a lock longer"), ("DELETE", "can't remove versions")] {
        let parameter = if refused == "PUT" { "retention" } else { "versionId" };
        weak.becomes(&[Weakness::Refuses("PUT", ""), Weakness::Refuses(refused, parameter)]);
        let report = check(&wald, &["--for", "expire"])?;
        report.must_say("bad", said);
        report.must_end(1);
    }
    Ok(())
}

#[test]
fn a_clock_that_is_off_is_noted_and_one_that_is_far_off_is_bad() -> Result<()> {
    let stage = Stage::new()?;
    let weak = WeakStore::start(stage.server.client(), &[])?;
    let wald = stage.at(weak.endpoint())?;
    wald.succeed(&["repo", "init"])?;
    for (seconds, verdict, said) in [
        (60, "note", "behind the server's"),
        (-60, "note", "ahead of the server's"),
        (400, "bad", "behind the server's"),
        (-400, "bad", "ahead of the server's"),
    ] {
        weak.becomes(&[Weakness::ClockOff(seconds)]);
        let report = check(&wald, &["--for", "restore"])?;
        report.must_say(verdict, said);
        report.must_end(if verdict == "bad" { 1 } else { 0 });
    }
    Ok(())
}

#[test]
fn on_a_weak_store_wald_is_careful_and_says_which_promise_rests_on_what() -> Result<()> {
    let Stage { mut cluster, server, sandbox } = Stage::new()?;
    let weak = WeakStore::start(
        server.client(),
        &[
            Weakness::IgnoresIfNoneMatch,
            Weakness::DropsLockOfUploads,
            Weakness::IgnoresChecksums,
            Weakness::HidesDeleteMarkers,
        ],
    )?;
    let place = Place::Bucket {
        endpoint: weak.endpoint(),
        bucket: "good".to_owned(),
        credentials: server.credentials().map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
    };
    let wald = Wald::configure(&sandbox, "wald", &cluster, &place, Settings::new())?;
    let init = wald.succeed(&["repo", "init"])?;
    assert!(init.stdout.contains("wald looks before it writes"), "{}", init.said());
    let report = check(&wald, &[])?;
    report.must_end(0);
    report.must_say("note", "overwrites objects although told not to");
    report.must_say("note", "wald looks before it writes");
    report.must_say("note", "wald reads everything back");
    report.must_say("note", "uploads in parts are locked when");
    report.must_say("note", "wald lists the versions of what is not there");
    for name in ["create_only", "checksums", "signed_payload", "lock_on_upload", "tells_delete_markers"] {
        assert!(!report.guarantee(name), "{name}: {}", report.text);
    }
    assert!(report.guarantee("lock_on_put"), "{}", report.text);

    let agent = Agent::start(&sandbox, "wald", wald)?;
    assert!(agent.log_text().contains("wald looks before it writes"), "{}", agent.log_text());
    let status = agent.run(&["status"])?;
    assert!(status.stdout.contains("wald looks before it writes"), "{}", status.said());
    archive_through(&mut cluster, &agent)?;
    cluster.start()?;
    cluster.exec("create table t (i int)")?;
    cluster.exec("select pg_switch_wal()")?;
    cluster.wait_archived()?;

    // Other bytes under a name that is archived: refused, and what is stored stays.
    let name = cluster.scalar("select last_archived_wal from pg_stat_archiver")?;
    let path = cluster.data_dir().join("pg_wal").join(&name);
    let mut bytes = std::fs::read(&path).with_context(|| format!("reading {name}"))?;
    *bytes.last_mut().context("a segment")? ^= 1;
    std::fs::write(&path, &bytes).context("changing a segment")?;
    let stored = format!("wal/{name}.zst");
    let before = place_read(&server, &stored)?;
    let mut push = agent.command(&["archive-push", &format!("pg_wal/{name}")]);
    push.current_dir(cluster.data_dir());
    let refused = run(push)?.exited_with(1)?;
    assert!(refused.said().contains("another content"), "{}", refused.said());
    assert_eq!(place_read(&server, &stored)?, before);

    // A server that was mended, or replaced, is trusted again after the next check.
    weak.becomes(&[]);
    let report = check(&agent, &[])?;
    report.must_end(0);
    assert!(report.guarantee("create_only"), "{}", report.text);
    assert!(!agent.run(&["status"])?.stdout.contains("wald looks before it writes"));
    Ok(())
}

fn place_read(server: &S3Server, name: &str) -> Result<Vec<u8>> {
    Ok(server.client().get("good", &format!("wald/{name}"))?.success()?.body)
}

#[test]
fn a_weak_store_that_keeps_no_versions_is_bad() -> Result<()> {
    let stage = Stage::new()?;
    stage.server.client().create_bucket("plain")?;
    let weak = WeakStore::start(stage.server.client(), &[Weakness::IgnoresIfNoneMatch])?;
    let wald = stage.wald(weak.endpoint(), "plain", &Identity::SUITE, "none")?;
    wald.run(&["repo", "init"])?;
    let report = check(&wald, &[])?;
    report.must_say("bad", "overwrites objects although told not to");
    report.must_end(1);
    Ok(())
}
