//! `credential_process`: a command of the operator's that prints a credential.
//! <https://docs.aws.amazon.com/sdkref/latest/guide/feature-process-credentials.html>
//!
//! Invariants: it ends, by itself or killed with all that it started; what it prints is bounded,
//! and neither that nor what it says on standard error is logged or repeated, since both may hold
//! keys.

use super::profile::Profile;
use super::{CredentialsError, Loaded, pair};
use jiff::Timestamp;
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::process::Command;

/// A command that takes longer waits for a person, or for a network that is away.
const TIME_MAX: Duration = Duration::from_secs(30);
/// A session token has about a thousand bytes.
const OUTPUT_BYTES_MAX: u64 = 64 << 10;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Printed {
    version: u32,
    access_key_id: String,
    secret_access_key: String,
    session_token: Option<String>,
    expiration: Option<String>,
}

/// Kills what the command has started, whichever way this ends.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // Gone already is what is wanted.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

/// Runs a profile's command with the variables of the environment file beside the process's own.
pub(super) async fn run(
    profile: &Profile,
    command: &str,
    variables: Vec<(String, String)>,
) -> Result<Loaded, CredentialsError> {
    run_within(TIME_MAX, profile, command, variables).await
}

pub(super) async fn run_within(
    limit: Duration,
    profile: &Profile,
    command: &str,
    variables: Vec<(String, String)>,
) -> Result<Loaded, CredentialsError> {
    let failed = |problem: String| {
        profile.problem(format!("has a credential_process that {problem}; run it by hand to see why"))
    };
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(command).envs(variables).stdin(Stdio::null()).stderr(Stdio::null());
    shell.stdout(Stdio::piped()).process_group(0).kill_on_drop(true);
    let mut child = shell.spawn().map_err(|error| failed(format!("can't be started ({error})")))?;
    let id = child.id().and_then(|id| i32::try_from(id).ok());
    let group = Group(id.and_then(Pid::from_raw));
    let output = child.stdout.take();
    let exchange = async {
        let mut bytes = Vec::new();
        if let Some(output) = output {
            output.take(OUTPUT_BYTES_MAX + 1).read_to_end(&mut bytes).await?;
        }
        let over = u64::try_from(bytes.len()).unwrap_or(u64::MAX) > OUTPUT_BYTES_MAX;
        // One that is not done writing would wait for a reader for ever.
        let status = if over { None } else { Some(child.wait().await?) };
        Ok::<_, std::io::Error>((bytes, status))
    };
    let ended = tokio::time::timeout(limit, exchange).await;
    drop(group);
    match ended {
        Err(_) => Err(failed(format!("did not end within {} s", limit.as_secs_f32()))),
        Ok(Err(error)) => Err(failed(format!("could not be read ({error})"))),
        Ok(Ok((_, None))) => Err(failed(format!("printed more than {OUTPUT_BYTES_MAX} bytes"))),
        Ok(Ok((_, Some(status)))) if !status.success() => Err(failed(format!("failed ({status})"))),
        Ok(Ok((bytes, Some(_)))) => read(&bytes).map_err(|problem| failed(problem.to_owned())),
    }
}

/// The parser's own words would repeat values.
fn read(bytes: &[u8]) -> Result<Loaded, &'static str> {
    let printed: Printed = serde_json::from_slice(bytes)
        .map_err(|_| "printed something else than JSON with Version, AccessKeyId and SecretAccessKey")?;
    if printed.version != 1 {
        return Err("printed another Version than 1");
    }
    let expires = match printed.expiration.as_deref() {
        None | Some("") => None,
        Some(text) => {
            Some(text.parse::<Timestamp>().map_err(|_| "printed an Expiration that is no time in RFC 3339")?)
        }
    };
    if expires.is_some_and(|expires| expires <= Timestamp::now()) {
        return Err("printed a credential that has expired; or this host's clock is wrong");
    }
    let token = printed.session_token.as_deref().filter(|token| !token.is_empty());
    Ok(Loaded { credential: pair(&printed.access_key_id, &printed.secret_access_key, token), expires })
}
