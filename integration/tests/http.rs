//! What a running agent tells monitoring: the pages, who may read them, and what they say while the
//! repository is away.

use anyhow::{Context, Result};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;
use wald_integration::certificate::Certificate;
use wald_integration::fault_proxy::{Failure, Fault, FaultProxy, Requests, When};
use wald_integration::http_client::{Answer, exchange, get, get_tls, request};
use wald_integration::ports::Reserved;
use wald_integration::postgres::{Cluster, Shutdown};
use wald_integration::sandbox::Sandbox;
use wald_integration::scene::{Plot, Scene};
use wald_integration::seaweed::S3Server;
use wald_integration::wait;
use wald_integration::wald::{Place, Settings};

const DEADLINE: Duration = Duration::from_secs(90);

fn free_address() -> Result<SocketAddr> {
    let port = Reserved::new(1)?.release().into_iter().next().context("a port")?;
    Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}

fn listening_on(address: SocketAddr) -> Settings {
    Settings::new().set_text("http", "listen", address.to_string()).set_text(
        "repository",
        "retry_timeout",
        "1s",
    )
}

fn scene(address: SocketAddr) -> Result<Scene> {
    Scene::open(Plot { settings: listening_on(address), ..Plot::small() })
}

/// Waits for an answer that is as it should be.
fn until(what: &str, address: SocketAddr, path: &str, good: impl Fn(&Answer) -> bool) -> Result<Answer> {
    let mut last = None;
    let found = wait::until(what, DEADLINE, || {
        // The agent may not listen yet.
        let answer = get(address, path).ok();
        last.clone_from(&answer);
        Ok(answer.filter(|answer| good(answer)))
    });
    found.with_context(|| format!("the last answer: {last:?}"))
}

#[test]
fn the_pages_are_served_and_nothing_else_is() -> Result<()> {
    let address = free_address()?;
    let scene = scene(address)?;
    scene.write_segments(2)?;
    until("the agent to be ready", address, "/readyz", |answer| answer.status == 200)?;
    let alive = get(address, "/healthz")?;
    assert_eq!((alive.status, alive.body.as_str()), (200, "alive\n"));
    let metrics = until("PostgreSQL to be looked at", address, "/metrics", |answer| {
        answer.sample("wald_database_up") == Some(1.0)
            && answer.sample("wald_archived_files_total").is_some_and(|files| files >= 2.0)
    })?;
    assert!(metrics.head.contains("content-type: text/plain; version=0.0.4"), "{}", metrics.head);
    for (series, value) in [
        ("wald_archive_failing", 0.0),
        ("wald_repository_up", 1.0),
        ("wald_database_in_recovery", 0.0),
        ("wald_archive_mode_enabled", 1.0),
        ("wald_boost_active", 0.0),
        ("wald_promotion_in_progress", 0.0),
    ] {
        assert_eq!(metrics.sample(series), Some(value), "{series} in {}", metrics.body);
    }
    assert!(metrics.sample("wald_connections_max").is_some_and(|max| max > 30.0 && max < 40.0));
    assert!(metrics.body.contains("wald_build_info{version=\""));
    assert!(metrics.body.contains("wald_archive_seconds_bucket{le=\"0.1\"}"));
    let status: serde_json::Value = serde_json::from_str(&get(address, "/status.json")?.body)?;
    assert_eq!((&status["ready"], &status["observed"]["database"]["up"]), (&true.into(), &true.into()));
    assert_eq!(status["observed"]["database"]["lag"]["role"], "primary");
    assert!(status["agent"]["archived_files"].as_u64().is_some_and(|files| files >= 2), "{status}");

    // The head of an answer alone, and nothing that could change anything.
    let head = exchange(address, &request("HEAD", "/metrics", ""))?;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
        let refused = exchange(address, &request(method, "/metrics", "Content-Length: 0\r\n"))?;
        assert_eq!(refused.status, 405, "{method}");
        assert!(refused.head.contains("allow: get, head"), "{}", refused.head);
    }
    assert_eq!(get(address, "/../etc/passwd")?.status, 404);
    assert_eq!(get(address, "/")?.status, 404);
    assert!(matches!(exchange(address, "this is not HTTP\r\n\r\n")?.status, 0 | 400));
    assert!(matches!(
        exchange(address, &request("GET", &format!("/{}", "x".repeat(1 << 20)), ""))?.status,
        0 | 400..500
    ));

    // Connections that say nothing do not keep others from being served.
    let silent: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(address)).collect::<Result<_, _>>()?;
    assert_eq!(get(address, "/healthz")?.status, 200);
    drop(silent);
    Ok(())
}

#[test]
fn an_outage_is_told_while_it_lasts_and_after_a_restart_in_it() -> Result<()> {
    let address = free_address()?;
    let mut scene = scene(address)?;
    scene.write_segments(1)?;
    scene.cluster.wait_archived()?;
    until("the agent to be ready", address, "/readyz", |answer| answer.status == 200)?;
    let (here, away) = (scene.repository(), scene.repository().with_extension("away"));
    fs::rename(&here, &away)?;
    scene.write_segments(3)?;
    let waiting = until("the backlog to be seen", address, "/metrics", |answer| {
        answer.sample("wald_archive_backlog_files").is_some_and(|files| files >= 3.0)
            && answer.sample("wald_archive_backlog_oldest_seconds").is_some_and(|age| age > 0.0)
            && answer.sample("wald_archive_failing") == Some(1.0)
            && answer.sample("wald_repository_up") == Some(0.0)
    })?;
    let bytes = waiting.sample("wald_archive_backlog_bytes").context("bytes")?;
    assert!(bytes >= f64::from(3 << 20), "{bytes}");
    let refused = get(address, "/readyz")?;
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.body.contains("the repository does not answer"), "{}", refused.body);
    assert!(refused.body.contains("archiving fails"), "{}", refused.body);
    assert_eq!(get(address, "/healthz")?.status, 200);

    // An agent that starts now serves nobody but those who look.
    scene.agent.kill_hard()?;
    scene.agent.launch()?;
    until("the new agent to tell of the outage", address, "/metrics", |answer| {
        answer.sample("wald_repository_up") == Some(0.0)
            && answer.sample("wald_archive_backlog_files").is_some_and(|files| files >= 3.0)
    })?;
    let refused = get(address, "/readyz")?;
    assert!(refused.status == 503 && refused.body.contains("waits for the repository"), "{refused:?}");

    fs::rename(&away, &here)?;
    // The archiver, which has given up for a minute, is woken by the next segment.
    until("the agent to take requests again", address, "/status.json", |answer| {
        answer.body.contains("\"serving\": true")
    })?;
    scene.write_segments(1)?;
    until("the backlog to be gone", address, "/metrics", |answer| {
        answer.sample("wald_archive_backlog_files") == Some(0.0)
            && answer.sample("wald_archive_backlog_oldest_seconds") == Some(0.0)
            && answer.sample("wald_archive_failing") == Some(0.0)
            && answer.sample("wald_repository_up") == Some(1.0)
    })?;
    assert_eq!(get(address, "/readyz")?.status, 200);
    Ok(())
}

#[test]
fn a_port_that_is_taken_stops_no_archiving_and_is_used_when_it_is_free() -> Result<()> {
    let address = free_address()?;
    let taken = TcpListener::bind(address)?;
    let mut scene = scene(address)?;
    scene.write_segments(1)?;
    scene.cluster.wait_archived()?;
    let log = scene.agent.log_text();
    assert!(log.contains("[http] listen") && log.contains("archiving goes on"), "{log}");
    drop(taken);
    until("the metrics to be served", address, "/metrics", |answer| answer.status == 200)?;
    // A server that is down is told, and is no reason not to be ready.
    scene.cluster.stop(Shutdown::Fast)?;
    until("PostgreSQL to be told as down", address, "/metrics", |answer| {
        answer.sample("wald_database_up") == Some(0.0) && answer.sample("wald_connections_used").is_none()
    })?;
    until("the agent to be ready", address, "/readyz", |answer| answer.status == 200)?;
    Ok(())
}

#[test]
fn tries_that_come_to_nothing_are_counted_by_their_cause() -> Result<()> {
    let address = free_address()?;
    let sandbox = Sandbox::new()?;
    let server = S3Server::start(&sandbox)?;
    let place = Place::locked_bucket(&server, "wald-tries")?;
    let proxy = FaultProxy::start(&server.address())?;
    let settings = listening_on(address).set_text("repository", "endpoint", proxy.endpoint());
    let scene = Scene::open_at(place, Plot { settings, ..Plot::small() })?;
    until("the agent to be ready", address, "/readyz", |answer| answer.status == 200)?;
    let series = |cause: &str| format!("wald_repository_failed_tries_total{{cause=\"{cause}\"}}");
    let (throttled, server_error, cut) = (series("throttled"), series("server"), series("interrupted"));
    let before = get(address, "/metrics")?;
    assert_eq!(before.sample(&throttled), Some(0.0), "{}", before.body);
    proxy.add(Requests::creations(), When::First(2), Fault::Answer(Failure::SLOW_DOWN));
    scene.write_segments(1)?;
    until("throttling to be counted", address, "/metrics", |answer| {
        answer.sample(&throttled).is_some_and(|tries| tries >= 2.0)
    })?;
    proxy.add(Requests::creations(), When::First(1), Fault::Answer(Failure::INTERNAL_ERROR));
    scene.write_segments(1)?;
    let counted = until("an error of the server to be counted", address, "/metrics", |answer| {
        answer.sample(&server_error).is_some_and(|tries| tries >= 1.0)
    })?;
    assert!(counted.sample(&cut).is_some(), "{}", counted.body);
    Ok(())
}

#[test]
fn a_recovery_through_the_agent_is_measured() -> Result<()> {
    let address = free_address()?;
    let mut scene = scene(address)?;
    let data_dir = scene.sandbox.path().join("copy-data");
    let target = data_dir.to_str().context("a path")?;
    let options = ["--checkpoint=fast", "--no-sync", "--wal-method=none", "-D", target];
    scene.cluster.run("pg_basebackup", &options)?.success()?;
    scene.write_segments(24)?;
    scene.cluster.wait_archived()?;
    let mut copy = Cluster::adopt(&scene.sandbox, "copy", &data_dir)?;
    copy.configure("archive_mode = off")?;
    copy.configure(&format!("restore_command = '{}'", scene.agent.restore_command()))?;
    fs::write(data_dir.join("recovery.signal"), "")?;
    scene.sandbox.account().own(&data_dir.join("recovery.signal"))?;
    copy.launch()?;
    copy.wait_primary(DEADLINE)?;
    // It is over when nothing was asked for for a while.
    let path = scene.sandbox.path().join("wald-state/rates/replay.json");
    let measured = wait::until("the rate to be recorded", DEADLINE, || Ok(fs::read_to_string(&path).ok()))?;
    let rate: serde_json::Value = serde_json::from_str(&measured)?;
    let (bytes, seconds) =
        (rate["bytes"].as_u64().context("bytes")?, rate["seconds"].as_f64().context("seconds")?);
    assert!(bytes >= 24 << 20 && seconds > 0.0, "{rate}");
    Ok(())
}

#[test]
fn with_tls_and_passwords_only_who_has_both_is_told() -> Result<()> {
    let address = free_address()?;
    let files = Sandbox::new()?;
    let tls = Certificate::make(&files.dir("tls")?)?;
    for path in [&tls.certificate, &tls.key] {
        files.account().own(path)?;
    }
    // printf %s secret | sha256sum
    let users =
        "# who may ask\nprometheus:2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b\n";
    let users = files.write("users", users)?;
    let settings = listening_on(address)
        .set_text("http", "tls_cert", tls.certificate.to_string_lossy())
        .set_text("http", "tls_key", tls.key.to_string_lossy())
        .set_text("http", "basic_auth_file", users.to_string_lossy());
    let _scene = Scene::open(Plot { settings, ..Plot::small() })?;
    let ask = |path: &str, headers: &str| get_tls(address, &tls.certificate, path, headers);
    // base64 of prometheus:secret and of prometheus:guess
    let (right, wrong) = (
        "Authorization: Basic cHJvbWV0aGV1czpzZWNyZXQ=\r\n",
        "Authorization: Basic cHJvbWV0aGV1czpndWVzcw==\r\n",
    );
    wait::until_true("the port to be served", DEADLINE, || Ok(ask("/healthz", "")?.status == 200))?;
    for path in ["/metrics", "/readyz", "/status.json", "/nothing"] {
        for headers in ["", wrong] {
            let refused = ask(path, headers)?;
            assert_eq!(refused.status, 401, "{path}");
            assert!(refused.head.contains("www-authenticate: basic"), "{}", refused.head);
            assert!(!refused.body.contains("wald_"));
        }
    }
    let told = ask("/metrics", right)?;
    assert!(told.status == 200 && told.body.contains("wald_build_info"), "{told:?}");
    // Without TLS nothing is said at all.
    let plain = exchange(address, &request("GET", "/metrics", right))?;
    assert!(!plain.body.contains("wald_") && plain.status != 200, "{plain:?}");
    Ok(())
}

#[test]
fn an_address_that_others_reach_is_refused_without_tls_and_passwords() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let config = |http: &str| {
        let text = format!("[repository]\nurl = \"file:///srv/wald\"\n[http]\n{http}");
        let path = sandbox.write("wald.toml", &text)?;
        let mut command =
            sandbox.account().command(wald_integration::binaries::Binaries::install(&sandbox)?.wald());
        command.arg("--config").arg(path).args(["config", "check"]);
        wald_integration::run::run(command)
    };
    let said = config("listen = \"0.0.0.0:9899\"\n")?.exited_with(2)?.said();
    assert!(said.contains("http.listen") && said.contains("loopback"), "{said}");
    config("listen = \"0.0.0.0:9899\"\ntls_cert = \"/c\"\ntls_key = \"/k\"\n")?.exited_with(2)?;
    config("listen = \"0.0.0.0:9899\"\ntls_cert = \"/c\"\ntls_key = \"/k\"\nbasic_auth_file = \"/u\"\n")?
        .success()?;
    config("listen = \"none\"\n")?.success()?;
    Ok(())
}
