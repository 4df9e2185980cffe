//! Where the keys of an S3 repository come from, and how they are kept fresh while the agent runs.
//!
//! The order: a key pair in the environment (or in `environment_file`); the profile that
//! `AWS_PROFILE` names; a web identity or a container's credentials, where the environment names
//! one; the profile `default`, where there is one; the machine's own (instance metadata). What
//! was named is used or is an error: a profile that is broken never falls through to the next.
//!
//! Invariants: files are looked at again at most [`LOOK_AGAIN`] after a change, and at once after
//! the server has refused a key as expired or unknown; while a file is being rewritten the keys
//! that worked are used on; a credential that has run out is never used. No value is in an error,
//! in `Debug` or in the log, and each is known to [`Secrets`] before it is used.

mod process;
mod profile;
mod refused;

use super::secrets::{AwsEnvironment, Secrets};
use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use object_store::CredentialProvider;
use object_store::aws::{AwsCredential, AwsCredentialProvider};
use profile::{Profile, ProfileFiles};
pub(super) use refused::RefusalWatch;
use std::error::Error;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::Mutex;

/// A changed file is seen after this long at most.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// A credential with less time left than this is replaced, so that no long request outlives it.
const TIME_LEFT_MIN: SignedDuration = SignedDuration::from_mins(5);

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
            if error.is::<Self>() {
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

/// What was chosen last.
struct Current {
    /// `None` where object_store's own sources are asked each time; they keep a cache.
    credential: Option<Arc<AwsCredential>>,
    expires: Option<Timestamp>,
    files: Vec<(PathBuf, Option<Print>)>,
    looked: Instant,
}

/// What shows that a file is another one than before.
#[derive(PartialEq, Eq)]
struct Print {
    modified: Option<SystemTime>,
    bytes: u64,
    inode: u64,
}

/// The credentials of one repository.
pub(super) struct Credentials {
    environment: AwsEnvironment,
    ambient: AwsCredentialProvider,
    secrets: Secrets,
    current: Mutex<Option<Current>>,
    refused: AtomicBool,
}

impl Credentials {
    /// `ambient` is asked where neither the environment nor a profile has keys.
    pub(super) fn new(environment: AwsEnvironment, ambient: AwsCredentialProvider, secrets: Secrets) -> Self {
        Self { environment, ambient, secrets, current: Mutex::new(None), refused: AtomicBool::new(false) }
    }

    /// Tells that the server does not know the key any more: the next request gets a fresh one.
    pub(super) fn were_refused(&self) {
        self.refused.store(true, Ordering::Relaxed);
    }

    async fn load(&self) -> Result<Current, CredentialsError> {
        let environment = self.environment.clone();
        let looked = Instant::now();
        let task = tokio::task::spawn_blocking(move || {
            let files = ProfileFiles::named_by(&environment);
            let paths = environment.file().into_iter().chain(files.paths()).map(|path| path.to_owned());
            // Before they are read: a change in between is seen the next time.
            let prints = paths.map(|path| (print(&path), path)).map(|(print, path)| (path, print)).collect();
            let environment = environment.read_again()?;
            let variables = environment.variables().map(|(n, v)| (n.to_owned(), v.to_owned()));
            choose(&environment, &files).map(|choice| (choice, prints, variables.collect::<Vec<_>>()))
        });
        let (choice, files, variables) =
            task.await.map_err(|ended| CredentialsError::Reading(ended.to_string()))??;
        let loaded = match choice {
            Choice::Ambient => None,
            Choice::Keys(loaded) => Some(loaded),
            Choice::Process { profile, command } => Some(process::run(&profile, &command, variables).await?),
        };
        let expires = loaded.as_ref().and_then(|loaded| loaded.expires);
        let credential = loaded.map(|loaded| Arc::new(loaded.credential));
        if let Some(credential) = &credential {
            self.secrets.learn(&credential.secret_key);
            self.secrets.learn(credential.token.as_deref().unwrap_or_default());
        }
        Ok(Current { credential, expires, files, looked })
    }

    async fn refreshed(&self) -> Result<Option<Arc<AwsCredential>>, CredentialsError> {
        let mut current = self.current.lock().await;
        let refused = self.refused.swap(false, Ordering::Relaxed);
        if let Some(known) = current.as_mut().filter(|known| !refused && known.lasts()) {
            if known.looked.elapsed() < LOOK_AGAIN {
                return Ok(known.credential.clone());
            }
            known.looked = Instant::now();
            if known.time_left().is_none_or(|left| left > TIME_LEFT_MIN) && known.files_are_the_same().await {
                return Ok(known.credential.clone());
            }
        }
        match (self.load().await, current.as_ref()) {
            (Ok(loaded), before) => {
                if before.is_some_and(|before| before.credential != loaded.credential) {
                    tracing::info!("other credentials of the repository are used from now on");
                }
                let credential = loaded.credential.clone();
                *current = Some(loaded);
                Ok(credential)
            }
            // Half a file, written just now: what worked a moment ago still does.
            (Err(error), Some(known)) if !refused && known.lasts() => {
                tracing::warn!(error = %error, "the repository's credentials can't be read again; using the old ones");
                Ok(known.credential.clone())
            }
            (Err(error), _) => {
                *current = None;
                Err(error)
            }
        }
    }
}

impl Current {
    fn time_left(&self) -> Option<SignedDuration> {
        self.expires.map(|expires| expires.duration_since(Timestamp::now()))
    }

    fn lasts(&self) -> bool {
        self.time_left().is_none_or(|left| left.is_positive())
    }

    async fn files_are_the_same(&mut self) -> bool {
        let files = std::mem::take(&mut self.files);
        let compared = tokio::task::spawn_blocking(move || {
            let same = files.iter().all(|(path, before)| print(path) == *before);
            (same, files)
        });
        match compared.await {
            Ok((same, files)) => {
                self.files = files;
                same
            }
            Err(_) => false,
        }
    }
}

fn print(path: &std::path::Path) -> Option<Print> {
    use std::os::unix::fs::MetadataExt;
    let found = std::fs::metadata(path).ok()?;
    Some(Print { modified: found.modified().ok(), bytes: found.len(), inode: found.ino() })
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

#[async_trait]
impl CredentialProvider for Credentials {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        match self.refreshed().await {
            Ok(Some(credential)) => Ok(credential),
            Ok(None) => self.ambient.get_credential().await,
            Err(error) => Err(object_store::Error::Generic { store: "S3", source: Box::new(error) }),
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({:?})", self.environment)
    }
}

#[cfg(test)]
mod tests;
