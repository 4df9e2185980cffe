//! What only S3 has: versions, delete markers and locks.

use super::{entries, finding, findings, object, segments, verify};
use anyhow::{Context, Result};
use wald_integration::s3_client::Answer;
use wald_integration::scene::{Plot, Scene};
use wald_integration::wald::{PREFIX, Place, Settings};

/// A cluster that archives into a locked bucket, with a backup.
fn on_s3(mode: &str) -> Result<Scene> {
    let settings = Settings::new().set_text("repository.lock", "mode", mode);
    let mut scene = Scene::open(Plot { on_s3: true, settings, ..Plot::small() })?;
    scene.agent.succeed(&["backup"])?;
    scene.write_segments(3)?;
    scene.cluster.wait_archived()?;
    Ok(scene)
}

/// A request for an object of the scene's bucket.
fn request(
    scene: &Scene,
    method: &str,
    name: &str,
    query: &[(&str, &str)],
    headers: &[(&str, &str)],
    body: &str,
) -> Result<Answer> {
    let Place::Bucket { bucket, .. } = &scene.place else { anyhow::bail!("not on S3") };
    let client = scene.server.as_ref().context("a server")?.client();
    client.request(method, &format!("/{bucket}/{PREFIX}/{name}"), query, headers, body.as_bytes())?.success()
}

#[test]
fn on_s3_locks_are_asked_for_once_and_deleted_and_overwritten_objects_are_found() -> Result<()> {
    let scene = on_s3("compliance")?;
    let first = verify(&scene, &[], 0)?;
    let second = verify(&scene, &[], 0)?;
    // Only what is new: the first run's ledger.
    assert_eq!(second["locks_asked"], 1, "{first:#} {second:#}");
    let names = segments(&scene)?;
    let victim = names.get(names.len() - 2).context("a segment")?;
    let good = scene.place.read(victim)?;

    let deleted = request(&scene, "DELETE", victim, &[], &[], "")?;
    let marker = deleted.header("x-amz-version-id").context("the marker's version")?.to_owned();
    // The listing shows it and so does the attempt to read it: told once.
    let report = verify(&scene, &["--full"], 1)?;
    assert_eq!(findings(&report), [(victim.clone(), "deleted".to_owned())], "{report:#}");
    assert!(finding(&report, victim)?["lost"][0]["from_lsn"].is_string(), "{report:#}");
    request(&scene, "DELETE", victim, &[("versionId", &marker)], &[], "")?;
    verify(&scene, &[], 0)?;

    scene.place.tamper(victim, b"not what was archived")?;
    let report = verify(&scene, &[], 1)?;
    let found = findings(&report);
    for damage in ["content", "overwritten", "lock_too_short"] {
        assert!(found.contains(&(victim.clone(), damage.to_owned())), "{damage}: {report:#}");
    }
    assert_eq!(scene.place.read(victim)?.len(), 21);
    assert!(good.len() > 21);
    Ok(())
}

#[test]
fn on_s3_a_lock_that_somebody_shortened_is_found() -> Result<()> {
    let scene = on_s3("governance")?;
    verify(&scene, &[], 0)?;
    let entry = entries(&scene)?.remove(0);
    let part = object(&entry, "base-0001.tar.zst")?;
    let until = jiff::Timestamp::now().checked_add(jiff::SignedDuration::from_hours(3))?;
    let until = until.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let retention =
        format!("<Retention><Mode>GOVERNANCE</Mode><RetainUntilDate>{until}</RetainUntilDate></Retention>");
    let bypass = [("x-amz-bypass-governance-retention", "true")];
    request(&scene, "PUT", &part, &[("retention", "")], &bypass, &retention)?;
    let report = verify(&scene, &[], 1)?;
    assert_eq!(findings(&report), [(part.clone(), "lock_too_short".to_owned())], "{report:#}");
    let found = finding(&report, &part)?;
    assert_eq!(found["found"]["until"], until.as_str(), "{found:#}");
    assert_eq!(found["lost"], serde_json::json!([]), "{found:#}");
    Ok(())
}
