//! Where an S3 repository's keys come from, on a real server with several identities: profiles,
//! commands and files, their rotation under a running agent; and the ways to the server: a proxy
//! from the environment, buckets as hosts.

use anyhow::{Context, Result};
use wald_integration::agent::{Agent, archive_through};
use wald_integration::forward_proxy::ForwardProxy;
use wald_integration::postgres::Cluster;
use wald_integration::run::run;
use wald_integration::sandbox::Sandbox;
use wald_integration::scene::Plot;
use wald_integration::seaweed::{Identity, S3Server};
use wald_integration::wald::{Place, Settings, Wald};

const ALL: &[&str] = &["Read", "Write", "List", "Tagging", "Admin"];
const FIRST: Identity =
    Identity { access_key: "first-key", secret_key: "the-first-secret-of-two", actions: ALL };
const SECOND: Identity =
    Identity { access_key: "second-key", secret_key: "the-second-secret-of-two", actions: ALL };
const BUCKET: &str = "wald-keys";

/// Where an identity's keys are written to, and the environment that leads there.
#[derive(Clone, Copy)]
enum Source {
    Profile,
    Process,
    EnvironmentFile,
}

impl Source {
    fn write(self, sandbox: &Sandbox, identity: &Identity) -> Result<()> {
        let (key, secret) = (identity.access_key, identity.secret_key);
        let text = match self {
            Source::Profile => {
                format!("[wald]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n")
            }
            Source::Process => serde_json::json!({
                "Version": 1, "AccessKeyId": key, "SecretAccessKey": secret,
                "Expiration": "2999-01-01T00:00:00Z",
            })
            .to_string(),
            Source::EnvironmentFile => {
                format!("AWS_ACCESS_KEY_ID={key}\nAWS_SECRET_ACCESS_KEY=\"{secret}\"\n")
            }
        };
        sandbox.write("keys.new", &text)?;
        std::fs::rename(sandbox.path().join("keys.new"), sandbox.path().join("keys"))?;
        Ok(())
    }

    fn environment(self, sandbox: &Sandbox) -> Result<Vec<(String, String)>> {
        let keys = sandbox.path().join("keys").display().to_string();
        let config = match self {
            // As systemd starts it: with a copy of the file in the environment.
            Source::EnvironmentFile => {
                let copy =
                    [("AWS_ACCESS_KEY_ID", FIRST.access_key), ("AWS_SECRET_ACCESS_KEY", FIRST.secret_key)];
                return Ok(copy.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
            }
            Source::Profile => "[profile wald]\nregion = us-east-1\n".to_owned(),
            Source::Process => format!("[profile wald]\ncredential_process = cat '{keys}'\n"),
        };
        let config = sandbox.write("aws-config", &config)?.display().to_string();
        let mut variables = vec![("AWS_PROFILE", "wald".to_owned()), ("AWS_CONFIG_FILE", config)];
        if matches!(self, Source::Profile) {
            variables.push(("AWS_SHARED_CREDENTIALS_FILE", keys));
        }
        Ok(variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }
}

/// Archives with one identity's keys, then takes that identity away from the server and writes the
/// other's keys: the agent goes on, the same process, and says no secret.
fn keys_are_rotated_under_a_running_agent(source: Source) -> Result<()> {
    let sandbox = Sandbox::new()?;
    let mut server = S3Server::start_with(&sandbox, &[Identity::SUITE, FIRST], None)?;
    server.client().create_locked_bucket(BUCKET)?;
    source.write(&sandbox, &FIRST)?;
    let credentials = source.environment(&sandbox)?;
    let place = Place::Bucket { endpoint: server.endpoint(), bucket: BUCKET.to_owned(), credentials };
    let plot = Plot::small();
    let mut cluster = Cluster::create(&sandbox, "primary", &plot.cluster)?;
    let mut settings = plot.settings;
    if matches!(source, Source::EnvironmentFile) {
        let keys = sandbox.path().join("keys");
        settings = settings.set_text("repository", "environment_file", keys.to_string_lossy());
    }
    let wald = Wald::configure(&sandbox, "wald", &cluster, &place, settings)?;
    wald.succeed(&["repo", "init"])?;
    let mut agent = Agent::start(&sandbox, "wald", wald)?;
    archive_through(&mut cluster, &agent)?;
    cluster.start()?;
    cluster.exec("create table t as select 1 as one")?;
    cluster.exec("select pg_switch_wal()")?;
    cluster.wait_archived()?;
    let id = agent.id()?;

    server.restart_with(&[Identity::SUITE, SECOND])?;
    source.write(&sandbox, &SECOND)?;
    for _ in 0..3 {
        cluster.exec("insert into t values (2)")?;
        cluster.exec("select pg_switch_wal()")?;
    }
    cluster.wait_archived()?;
    assert_eq!(agent.id()?, id);
    let log = agent.log_text();
    for secret in [FIRST.secret_key, SECOND.secret_key] {
        assert!(!log.contains(secret), "{log}");
    }
    assert!(log.contains("other credentials"), "{log}");
    Ok(())
}

#[test]
fn keys_of_a_profile_are_rotated_under_a_running_agent() -> Result<()> {
    keys_are_rotated_under_a_running_agent(Source::Profile)
}

#[test]
fn keys_that_a_command_prints_are_rotated_under_a_running_agent() -> Result<()> {
    keys_are_rotated_under_a_running_agent(Source::Process)
}

#[test]
fn keys_in_the_environment_file_are_rotated_under_a_running_agent() -> Result<()> {
    keys_are_rotated_under_a_running_agent(Source::EnvironmentFile)
}

/// A bucket and an installation, without a cluster that runs.
struct Bucket {
    sandbox: Sandbox,
    server: S3Server,
    cluster: Cluster,
}

impl Bucket {
    fn new(domain: Option<&'static str>) -> Result<Bucket> {
        let sandbox = Sandbox::new()?;
        let server = S3Server::start_with(&sandbox, &[Identity::SUITE], domain)?;
        server.client().create_locked_bucket(BUCKET)?;
        let cluster = Cluster::create(&sandbox, "primary", &Plot::small().cluster)?;
        Ok(Bucket { sandbox, server, cluster })
    }

    fn wald(&self, endpoint: String, credentials: Vec<(String, String)>, settings: Settings) -> Result<Wald> {
        let place = Place::Bucket { endpoint, bucket: BUCKET.to_owned(), credentials };
        Wald::configure(&self.sandbox, "wald", &self.cluster, &place, settings)
    }

    fn keys(&self) -> Vec<(String, String)> {
        let pair = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        self.server.credentials().map(pair).into()
    }
}

#[test]
fn a_broken_profile_is_told_with_its_file_its_line_and_its_name() -> Result<()> {
    let bucket = Bucket::new(None)?;
    let file = bucket.sandbox.path().join("keys").display().to_string();
    let variables = [("AWS_PROFILE", "wald"), ("AWS_SHARED_CREDENTIALS_FILE", &file)];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let wald = bucket.wald(bucket.server.endpoint(), variables.into(), Settings::new())?;
    for (text, wanted) in [
        ("[other]\n", vec!["no profile \"wald\"", "AWS_PROFILE"]),
        ("[wald]\naws_access_key_id = x\naws_secret_access_key a-secret\n", vec!["line 3", "NAME = VALUE"]),
        ("[wald]\naws_access_key_id = x\n", vec!["the profile \"wald\"", "not aws_secret_access_key"]),
        ("[wald]\ncredential_process = echo a-secret; exit 4\n", vec!["the profile \"wald\"", "status: 4"]),
    ] {
        bucket.sandbox.write("keys", text)?;
        let said = wald.run(&["repo", "check"])?.exited_with(1)?.said();
        for wanted in wanted.into_iter().chain([file.as_str()]) {
            assert!(said.contains(wanted), "{wanted} is missing: {said}");
        }
        assert!(!said.contains("a-secret"), "{said}");
    }
    Ok(())
}

#[test]
fn a_bucket_that_is_a_host_is_reached_through_the_proxy_of_the_environment() -> Result<()> {
    let bucket = Bucket::new(Some("localhost"))?;
    let port = bucket.server.address().rsplit_once(':').context("a port")?.1.to_owned();
    let settings = Settings::new().set("repository", "path_style", "false");
    let wald = bucket.wald(format!("http://localhost:{port}"), bucket.keys(), settings)?;
    let proxy = ForwardProxy::start()?;
    let through_proxy = |arguments: &[&str], no_proxy: &str| {
        let mut command = wald.command(arguments);
        command.env("http_proxy", proxy.url()).env("no_proxy", no_proxy);
        run(command)
    };
    through_proxy(&["repo", "init"], "")?.success()?;
    let host = format!("PUT http://{BUCKET}.localhost:{port}/wald/wald.json ");
    let seen = proxy.seen();
    assert!(seen.iter().any(|line| line.starts_with(&host)), "{seen:?}");
    through_proxy(&["list"], "elsewhere.example")?.success()?;
    assert!(proxy.seen().len() > seen.len());

    // Hosts that no_proxy names are asked directly: by address, which needs no resolver.
    let direct = bucket.wald(bucket.server.endpoint(), bucket.keys(), Settings::new())?;
    let seen = proxy.seen().len();
    let mut command = direct.command(&["list"]);
    command.env("http_proxy", proxy.url()).env("no_proxy", "127.0.0.1");
    run(command)?.success()?;
    assert_eq!(proxy.seen().len(), seen);
    Ok(())
}

#[test]
fn a_proxy_that_is_away_is_an_outage_and_not_passed_by() -> Result<()> {
    let bucket = Bucket::new(None)?;
    let settings = Settings::new().set_text("repository", "retry_timeout", "1s");
    let wald = bucket.wald(bucket.server.endpoint(), bucket.keys(), settings)?;
    wald.succeed(&["repo", "init"])?;
    let mut command = wald.command(&["repo", "check"]);
    // Port 9 is "discard", which nobody serves.
    command.env("http_proxy", "http://127.0.0.1:9");
    let said = run(command)?.exited_with(1)?.said();
    assert!(said.contains("can't be reached"), "{said}");
    Ok(())
}
