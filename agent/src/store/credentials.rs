//! Where the keys of an S3 repository come from; [`fresh`] keeps them so while the agent runs.
//!
//! The order: a key pair in the environment (or in `environment_file`); the profile that
//! `AWS_PROFILE` names; a web identity or a container's credentials, where the environment names
//! one; the profile `default`, where there is one; the machine's own (instance metadata). What
//! was named is used or is an error: a profile that is broken never falls through to the next.
//!
//! Invariant: no value is in an error, in `Debug` or in the log, and each is known to
//! [`super::secrets::Secrets`] before it is used.

mod fresh;
mod process;
mod profile;
mod refused;

use super::secrets::AwsEnvironment;
pub(super) use fresh::Credentials;
use jiff::Timestamp;
use object_store::aws::AwsCredential;
use profile::{Profile, ProfileFiles};
pub(super) use refused::RefusalWatch;
use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

/// Why there is nothing to sign a request with. Names files, profiles and variables, no values.
#[derive(Debug, thiserror::Error)]
pub(super) enum CredentialsError {
    /// One of a pair.
    #[error("{place} has {present} but not {missing}")]
    HalfAPair { place: String, present: &'static str, missing: &'static str },
    /// A file that is needed.
    #[error("{} can't be read: {source}; {why}", path.display())]
    Read { path: PathBuf, why: &'static str, source: std::io::Error },
    /// Not a file of profiles, or of variables.
    #[error("{}, {problem}", path.display())]
    Syntax { path: PathBuf, problem: String },
    /// The named profile is nowhere.
    #[error("there is no profile {name:?} in {files}; AWS_PROFILE names it")]
    NoProfile { name: String, files: String },
    /// The profile can't give credentials to wald.
    #[error("the profile {name:?} in {files} {problem}")]
    Profile { name: String, files: String, problem: String },
    /// A defect: the task that reads files ended early.
    #[error("a defect in wald: reading the credentials ended without a result: {0}")]
    Reading(String),
}

impl CredentialsError {
    /// Whether an error of a request says that there was nothing to sign it with.
    pub(super) fn is_below(error: &(dyn Error + 'static)) -> bool {
        let mut next = Some(error);
        while let Some(error) = next {
            // One attempt's error is told to all who waited for it.
            if error.is::<Self>() || error.is::<Arc<Self>>() {
                return true;
            }
            next = error.source();
        }
        false
    }
}

/// A credential, and until when it can be used.
struct Loaded {
    credential: AwsCredential,
    expires: Option<Timestamp>,
}

/// What the files and the environment say.
enum Choice {
    /// This key pair.
    Keys(Loaded),
    /// What a profile's command prints.
    Process { profile: Profile, command: String },
    /// object_store's own sources.
    Ambient,
}

/// Which source it is, and what it says; see the head of this file for the order.
fn choose(environment: &AwsEnvironment, files: &ProfileFiles) -> Result<Choice, CredentialsError> {
    let variable = |name| environment.variable(name);
    let (key_id, secret) = (variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY"));
    let place = || environment.place();
    match (key_id, secret) {
        (Some(key_id), Some(secret)) => {
            let token = variable("AWS_SESSION_TOKEN");
            return Ok(Choice::Keys(Loaded { credential: pair(key_id, secret, token), expires: None }));
        }
        (None, None) => {}
        (key_id, _) => {
            let names = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];
            let [present, missing] = if key_id.is_some() { names } else { [names[1], names[0]] };
            return Err(CredentialsError::HalfAPair { place: place(), present, missing });
        }
    }
    let named = variable("AWS_PROFILE").or_else(|| variable("AWS_DEFAULT_PROFILE"));
    if let Some(name) = named {
        return files.named(name)?.choice();
    }
    let container =
        ["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"].map(variable);
    if variable("AWS_WEB_IDENTITY_TOKEN_FILE").is_some() || container.iter().any(Option::is_some) {
        return Ok(Choice::Ambient);
    }
    files.default_profile()?.map_or(Ok(Choice::Ambient), Profile::choice)
}

fn pair(key_id: &str, secret: &str, token: Option<&str>) -> AwsCredential {
    AwsCredential {
        key_id: key_id.to_owned(),
        secret_key: secret.to_owned(),
        token: token.map(str::to_owned),
    }
}

#[cfg(test)]
mod tests;
