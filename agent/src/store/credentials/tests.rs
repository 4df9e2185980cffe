//! Tests of the order of sources, of profiles, and of commands that print credentials.

use super::fresh::{LOOK_AGAIN, PAUSE_AFTER_FAILURE};
use super::*;
use crate::store::secrets::Secrets;
use async_trait::async_trait;
use jiff::SignedDuration;
use object_store::CredentialProvider;
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Files of profiles in a directory of their own.
struct Home(TempDir);

impl Home {
    fn new(config: &str, credentials: &str) -> Self {
        let home = Self(tempfile::tempdir().unwrap());
        home.write("config", config);
        home.write("credentials", credentials);
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Replaces a file as tools do: in one step, with another inode.
    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path("new"), text).unwrap();
        std::fs::rename(self.path("new"), self.path(name)).unwrap();
    }

    fn environment(&self) -> AwsEnvironment {
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        AwsEnvironment::default()
            .with("AWS_CONFIG_FILE", &text(self.path("config")))
            .with("AWS_SHARED_CREDENTIALS_FILE", &text(self.path("credentials")))
    }
}

#[derive(Debug)]
struct Ambient;

#[async_trait]
impl CredentialProvider for Ambient {
    type Credential = AwsCredential;
    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        Ok(Arc::new(pair("ambient", "ambient-secret", None)))
    }
}

fn credentials(environment: AwsEnvironment) -> Credentials {
    Credentials::new(environment, Arc::new(Ambient), Secrets::default())
}

async fn key_of(environment: AwsEnvironment) -> String {
    credentials(environment).get_credential().await.unwrap().key_id.clone()
}

async fn refusal(environment: AwsEnvironment) -> String {
    let credentials = credentials(environment);
    let error = credentials.get_credential().await.unwrap_err();
    assert!(CredentialsError::is_below(&error), "{error}");
    let said = format!("{error} {error:?} {credentials:?}");
    assert!(!said.contains("s3cr3t"), "{said}");
    crate::explain::chain(&error)
}

const KEYS: &str = "aws_access_key_id = the-key\naws_secret_access_key = s3cr3t/with+all=signs#;\n";

#[tokio::test]
async fn what_is_named_explicitly_wins_over_what_lies_about() {
    let config = "[profile named]\naws_access_key_id=in-config\naws_secret_access_key=s3cr3t-c\n";
    let home = Home::new(config, &format!("[default]\n{KEYS}"));
    let with = |environment: AwsEnvironment| {
        environment.with("AWS_ACCESS_KEY_ID", "explicit").with("AWS_SECRET_ACCESS_KEY", "s3cr3t-e")
    };
    assert_eq!(key_of(with(home.environment()).with("AWS_PROFILE", "named")).await, "explicit");
    assert_eq!(key_of(home.environment().with("AWS_PROFILE", "named")).await, "in-config");
    let container = home.environment().with("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/x");
    assert_eq!(key_of(container.clone().with("AWS_PROFILE", "named")).await, "in-config");
    assert_eq!(key_of(container).await, "ambient");
    assert_eq!(key_of(home.environment()).await, "the-key");
    let only_a_region = Home::new("[default]\nregion = eu-central-1\n", "");
    assert_eq!(key_of(only_a_region.environment()).await, "ambient");
}

#[tokio::test]
async fn the_credentials_file_goes_before_the_other_and_values_are_taken_as_they_are() {
    let config = "[profile p]\naws_access_key_id = old\nregion = x\ns3 =\n  aws_access_key_id = nested\n";
    let home = Home::new(config, &format!("# comment\n; comment\n[p]\n{KEYS}aws_session_token = t0ken #\n"));
    let found = credentials(home.environment().with("AWS_PROFILE", "p")).get_credential().await.unwrap();
    assert_eq!((found.key_id.as_str(), found.secret_key.as_str()), ("the-key", "s3cr3t/with+all=signs#;"));
    assert_eq!(found.token.as_deref(), Some("t0ken"));
}

#[tokio::test]
async fn what_is_wrong_with_a_profile_is_said_with_its_file_and_line() {
    for (config, file, wanted) in [
        ("", "[other]\nx = y\n", vec!["no profile \"p\"", "credentials", "AWS_PROFILE"]),
        ("", "[p\nx = y\n", vec!["credentials, line 1"]),
        (
            "",
            "[p]\naws_access_key_id = k\n\naws_secret_access_key s3cr3t\n",
            vec!["credentials, line 4", "NAME = VALUE"],
        ),
        ("", "[p]\naws_access_key_id = k\n", vec!["profile \"p\"", "not aws_secret_access_key"]),
        ("", "[p]\naws_secret_access_key = s3cr3t\n", vec!["profile \"p\"", "not aws_access_key_id"]),
        ("[profile p]\nregion = x\n", "", vec!["profile \"p\"", "/config ", "neither a key pair"]),
        (
            "[profile p]\nrole_arn = r\nsource_profile = q\n",
            "",
            vec!["assumes a role", "export-credentials --profile p"],
        ),
        ("[profile p]\nsso_session = s\n", "", vec!["SSO", "export-credentials --profile p"]),
    ] {
        let home = Home::new(config, file);
        let said = refusal(home.environment().with("AWS_PROFILE", "p")).await;
        for wanted in wanted {
            assert!(said.contains(wanted), "{file}: {said}");
        }
    }
    let home = Home::new("", "");
    std::fs::remove_file(home.path("credentials")).unwrap();
    let said = refusal(home.environment()).await;
    assert!(said.contains("AWS_SHARED_CREDENTIALS_FILE"), "{said}");
}

#[tokio::test]
async fn half_a_pair_names_the_other_half() {
    let home = Home::new("", "");
    let said = refusal(home.environment().with("AWS_SECRET_ACCESS_KEY", "s3cr3t-x")).await;
    assert!(said.contains("has AWS_SECRET_ACCESS_KEY but not AWS_ACCESS_KEY_ID"), "{said}");
}

fn process(home: &Home, command: &str) -> AwsEnvironment {
    home.write("config", &format!("[profile p]\ncredential_process = {command}\n"));
    home.environment().with("AWS_PROFILE", "p")
}

#[tokio::test]
async fn a_command_that_prints_credentials_is_run_once_and_again_when_they_run_out() {
    let home = Home::new("", "");
    let count = home.path("count");
    let script = |expiration: &str| {
        format!(
            "#!/bin/sh\necho x >> '{}'\necho '{{\"Version\": 1, \"AccessKeyId\": \"made\", \
             \"SecretAccessKey\": \"s3cr3t-p\", \"Expiration\": \"{expiration}\"}}'\n",
            count.display()
        )
    };
    let runs = || std::fs::read_to_string(&count).unwrap().lines().count();
    home.write("script", &script("2999-01-01T00:00:00Z"));
    let environment = process(&home, &format!("sh \"{}\" # no comment", home.path("script").display()));
    let provider = credentials(environment.clone());
    for _ in 0..3 {
        assert_eq!(provider.get_credential().await.unwrap().key_id, "made");
    }
    assert_eq!(runs(), 1);
    provider.were_refused();
    provider.get_credential().await.unwrap();
    provider.get_credential().await.unwrap();
    assert_eq!(runs(), 2);
    assert_eq!(provider.keeper.secrets.hide("a s3cr3t-p b"), "a [hidden] b");
    let past = Timestamp::now() - SignedDuration::from_secs(1);
    home.write("script", &script(&past.to_string()));
    assert!(refusal(environment).await.contains("has expired"));
}

#[tokio::test]
async fn a_command_that_fails_is_told_without_what_it_said() {
    let home = Home::new("", "");
    for (command, wanted) in [
        ("echo s3cr3t; exit 3", "exit status: 3"),
        ("echo s3cr3t", "something else than JSON"),
        ("echo '{\"Version\": \"s3cr3t\"}'", "something else than JSON"),
        ("head -c 100000 /dev/zero; sleep 60", "more than 65536 bytes"),
        ("/no/such/program s3cr3t-argument", "127"),
        (
            "echo '{\"Version\": 2, \"AccessKeyId\": \"a\", \"SecretAccessKey\": \"s3cr3t\"}'",
            "another Version",
        ),
    ] {
        let said = refusal(process(&home, command)).await;
        assert!(said.contains(wanted) && said.contains("profile \"p\""), "{command}: {said}");
    }
}

#[tokio::test]
async fn a_command_that_does_not_end_is_killed_with_what_it_started() {
    let home = Home::new("", "");
    let environment = process(&home, "sleep 600");
    let files = ProfileFiles::named_by(&environment);
    let profile = files.named("p").unwrap();
    let mark = home.path("pid");
    let command = format!("(sh -c 'echo $$ > {0}; exec sleep 600') & wait", mark.display());
    let mut id = None;
    // On a busy machine it may be killed before it has started anything.
    for milliseconds in [500, 3000, 15_000] {
        let limit = Duration::from_millis(milliseconds);
        let ended = process::run_within(limit, &profile, &command, Vec::new()).await;
        assert!(ended.is_err_and(|error| error.to_string().contains("did not end")));
        id = std::fs::read_to_string(&mark).ok().and_then(|id| id.trim().parse::<u32>().ok());
        if id.is_some() {
            break;
        }
    }
    let stat = PathBuf::from(format!("/proc/{}/stat", id.unwrap()));
    let gone = || std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "));
    let deadline = Instant::now() + Duration::from_secs(10);
    while !gone() {
        assert!(Instant::now() < deadline, "its child is still there");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Lets the pauses pass after which files are looked at again.
fn look_again(provider: &Credentials) {
    let mut state = provider.keeper.state();
    state.looked = state.looked.and_then(|at| at.checked_sub(LOOK_AGAIN));
    state.read_after_refusal = state.read_after_refusal.and_then(|at| at.checked_sub(LOOK_AGAIN));
    if let Some((_, at)) = &mut state.failed {
        *at = at.checked_sub(PAUSE_AFTER_FAILURE).unwrap();
    }
}

#[tokio::test]
async fn changed_files_are_read_again_and_broken_ones_change_nothing_until_the_key_is_refused() {
    let home = Home::new("", &format!("[default]\n{KEYS}"));
    home.write("environment", "AWS_X=1\n");
    let file = home.path("environment");
    let environment = home.environment().with_file_at(Path::new(&file), "AWS_X=1\n").unwrap();
    let provider = credentials(environment);
    let key = async || provider.get_credential().await.map(|found| found.key_id.clone());
    // The old one is given for as long as reading anew takes too long.
    let becomes = async |wanted| {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let found = key().await.unwrap();
            if found == wanted || Instant::now() > deadline {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert_eq!(key().await.unwrap(), "the-key");
    home.write("credentials", "[default]\naws_access_key_id = next\naws_secret_access_key = s3cr3t-n\n");
    assert_eq!(key().await.unwrap(), "the-key");
    look_again(&provider);
    assert_eq!(becomes("next").await, "next");
    home.write("environment", "AWS_ACCESS_KEY_ID=from-file\nAWS_SECRET_ACCESS_KEY=s3cr3t-f\n");
    look_again(&provider);
    assert_eq!(becomes("from-file").await, "from-file");
    home.write("environment", "AWS_ACCESS_KEY_ID=half\n");
    look_again(&provider);
    assert_eq!(key().await.unwrap(), "from-file");
    provider.were_refused();
    let said = crate::explain::chain(&key().await.unwrap_err());
    assert!(said.contains("AWS_SECRET_ACCESS_KEY") && said.contains("environment"), "{said}");
    home.write("environment", "AWS_ACCESS_KEY_ID=whole\nAWS_SECRET_ACCESS_KEY=s3cr3t-w\n");
    look_again(&provider);
    assert_eq!(becomes("whole").await, "whole");
}

/// A command that says on `count` when it is run, and then does what `then` says.
fn counting(home: &Home, then: &str) -> (AwsEnvironment, impl Fn() -> usize + use<>) {
    let count = home.path("count");
    std::fs::write(&count, "").unwrap();
    home.write("script", &format!("echo x >> '{}'\n{then}\n", count.display()));
    let environment = process(home, &format!("sh \"{}\"", home.path("script").display()));
    (environment, move || std::fs::read_to_string(&count).unwrap().lines().count())
}

fn printed(expires: &str) -> String {
    format!(
        "echo '{{\"Version\": 1, \"AccessKeyId\": \"made\", \"SecretAccessKey\": \"s3cr3t-p\", \
         \"Expiration\": \"{expires}\"}}'"
    )
}

#[tokio::test]
async fn while_a_command_hangs_requests_go_on_with_what_still_lasts() {
    let home = Home::new("", "");
    let soon = (Timestamp::now() + SignedDuration::from_mins(4)).to_string();
    let (environment, _) = counting(&home, &printed(&soon));
    let provider = credentials(environment);
    provider.get_credential().await.unwrap();
    home.write("script", "sleep 600\n");
    look_again(&provider);
    let begun = Instant::now();
    for _ in 0..5 {
        assert_eq!(provider.get_credential().await.unwrap().key_id, "made");
    }
    // The command is killed after 30 s; nobody has waited for that.
    assert!(begun.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn a_command_that_fails_is_left_alone_for_a_while_and_run_once_for_all_who_wait() {
    let home = Home::new("", "");
    let (environment, runs) = counting(&home, "exit 3");
    let provider = credentials(environment);
    let asked = futures::future::join_all((0..8).map(|_| provider.get_credential())).await;
    assert!(asked.iter().all(Result::is_err));
    let error = provider.get_credential().await.unwrap_err();
    assert!(CredentialsError::is_below(&error) && crate::explain::chain(&error).contains("exit status: 3"));
    assert_eq!(runs(), 1);
    look_again(&provider);
    assert!(provider.get_credential().await.is_err());
    assert_eq!(runs(), 2);
}

#[tokio::test]
async fn refusals_one_after_the_other_run_the_command_once() {
    let home = Home::new("", "");
    let (environment, runs) = counting(&home, &printed("2999-01-01T00:00:00Z"));
    let provider = credentials(environment);
    provider.get_credential().await.unwrap();
    for _ in 0..5 {
        provider.were_refused();
        provider.get_credential().await.unwrap();
    }
    assert_eq!(runs(), 2);
    look_again(&provider);
    provider.get_credential().await.unwrap();
    assert_eq!(runs(), 3);
}
