//! The harness itself: if these fail, no other suite says anything about wald.

use anyhow::Result;
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
    assert_eq!(s3.keys("locked", "a/")?, ["a/b"]);

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
