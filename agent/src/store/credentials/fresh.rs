//! Keeps credentials fresh while the agent runs, without making its requests wait.
//!
//! Invariants: files are looked at again at most [`LOOK_AGAIN`] after a change, and at once after
//! the server has refused a key as expired or unknown; one attempt runs at a time, in a task of its
//! own, and while it does, requests go on with a credential that still lasts; a source that fails
//! is left alone for a while; a credential that has run out is never used.

use super::{Choice, CredentialsError, ProfileFiles, choose, process};
use crate::store::secrets::{AwsEnvironment, Secrets};
use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use object_store::CredentialProvider;
use object_store::aws::{AwsCredential, AwsCredentialProvider};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::watch;

/// A changed file is seen after this long at most. After refusals as well nothing is read more
/// often, since many requests are refused at once.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// After a failure without anything to go on with, the next attempt comes this much later.
pub(super) const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(5);
/// A credential with less time left than this is replaced, so that no long request outlives it.
const TIME_LEFT_MIN: SignedDuration = SignedDuration::from_mins(5);
/// Files are read faster than this: a request waits so long for what is probably newer, and then
/// goes on with what it has.
const PATIENCE: Duration = Duration::from_secs(1);
/// The same after a refusal, when what it has is probably worth nothing.
const PATIENCE_AFTER_REFUSAL: Duration = Duration::from_secs(5);
/// An attempt that ends without a result, as when the program ends, is not waited for more often.
const ROUNDS_MAX: usize = 8;

/// The credentials of one repository.
pub(in crate::store) struct Credentials {
    ambient: AwsCredentialProvider,
    pub(super) keeper: Arc<Keeper>,
}

/// What the attempts and the requests share.
pub(super) struct Keeper {
    environment: AwsEnvironment,
    pub(super) secrets: Secrets,
    state: Mutex<State>,
}

#[derive(Default)]
pub(super) struct State {
    known: Option<Arc<Current>>,
    /// When the last attempt ended, or found that nothing has changed.
    pub(super) looked: Option<Instant>,
    /// The last attempt's error, where it left nothing to go on with.
    pub(super) failed: Option<(Arc<CredentialsError>, Instant)>,
    attempt: Option<Attempt>,
    refused: bool,
    /// When the last attempt began that a refusal has caused.
    pub(super) read_after_refusal: Option<Instant>,
}

/// One that runs, or has ended.
#[derive(Clone)]
struct Attempt {
    /// Closed at its end.
    end: watch::Receiver<()>,
    patient_until: Instant,
}

/// What was chosen last.
struct Current {
    /// `None` where object_store's own sources are asked each time; they keep a cache.
    credential: Option<Arc<AwsCredential>>,
    expires: Option<Timestamp>,
    files: Vec<(PathBuf, Option<Print>)>,
}

/// What shows that a file is another one than before.
#[derive(Clone, PartialEq, Eq)]
struct Print {
    modified: Option<SystemTime>,
    bytes: u64,
    inode: u64,
}

/// What a request does next.
enum Next {
    Use(Arc<Current>),
    Fail(Arc<CredentialsError>),
    Wait { attempt: Attempt, has_some: bool },
}

impl Credentials {
    /// `ambient` is asked where neither the environment nor a profile has keys.
    pub(in crate::store) fn new(
        environment: AwsEnvironment,
        ambient: AwsCredentialProvider,
        secrets: Secrets,
    ) -> Self {
        Self { ambient, keeper: Arc::new(Keeper { environment, secrets, state: Mutex::default() }) }
    }

    /// Tells that the server does not know the key any more: the next request gets a fresh one.
    pub(super) fn were_refused(&self) {
        self.keeper.state().refused = true;
    }

    async fn current(&self) -> Result<Arc<Current>, Arc<CredentialsError>> {
        for _ in 0..ROUNDS_MAX {
            match self.keeper.next() {
                Next::Use(current) => return Ok(current),
                Next::Fail(error) => return Err(error),
                Next::Wait { mut attempt, has_some } => {
                    let end = attempt.end.changed();
                    if has_some {
                        // Late or done: the next round sees which.
                        let _ = tokio::time::timeout_at(attempt.patient_until.into(), end).await;
                    } else {
                        let _ = end.await;
                    }
                }
            }
        }
        Err(Arc::new(CredentialsError::Reading("it was given up again and again".to_owned())))
    }
}

impl Keeper {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins an attempt where one is due.
    fn next(self: &Arc<Self>) -> Next {
        let mut state = self.state();
        let usable = state.known.clone().filter(|known| known.lasts());
        state.attempt = state.attempt.take().filter(|attempt| attempt.end.has_changed().is_ok());
        let passed = |since: Option<Instant>, pause: Duration| since.is_none_or(|at| at.elapsed() >= pause);
        let resting = !passed(state.failed.as_ref().map(|(_, at)| *at), PAUSE_AFTER_FAILURE);
        let refused = state.refused && passed(state.read_after_refusal, LOOK_AGAIN);
        let due = usable.is_none() || refused || passed(state.looked, LOOK_AGAIN);
        if due && !resting && state.attempt.is_none() {
            state.attempt = Some(self.begin(refused));
            if refused {
                state.refused = false;
                state.read_after_refusal = Some(Instant::now());
            }
        }
        match (usable, state.attempt.clone(), &state.failed) {
            (Some(current), Some(attempt), _) if attempt.patient_until <= Instant::now() => {
                Next::Use(current)
            }
            (usable, Some(attempt), _) => Next::Wait { attempt, has_some: usable.is_some() },
            (Some(current), None, _) => Next::Use(current),
            (None, None, Some((error, _))) => Next::Fail(Arc::clone(error)),
            (None, None, None) => {
                Next::Fail(Arc::new(CredentialsError::Reading("nothing was begun".to_owned())))
            }
        }
    }

    /// In a task of its own: a request that is given up must not end what others wait for.
    fn begin(self: &Arc<Self>, refused: bool) -> Attempt {
        let (running, end) = watch::channel(());
        let keeper = Arc::clone(self);
        tokio::spawn(async move {
            keeper.refresh(refused).await;
            drop(running);
        });
        let patience = if refused { PATIENCE_AFTER_REFUSAL } else { PATIENCE };
        Attempt { end, patient_until: Instant::now() + patience }
    }

    async fn refresh(&self, refused: bool) {
        let before = self.state().known.clone();
        if let Some(before) = before.as_ref().filter(|before| !refused && before.lasts_long())
            && before.files_are_the_same().await
        {
            self.state().looked = Some(Instant::now());
            return;
        }
        let loaded = self.load().await;
        let mut state = self.state();
        state.looked = Some(Instant::now());
        match loaded {
            Ok(loaded) => {
                if before.is_some_and(|before| before.credential != loaded.credential) {
                    tracing::info!("other credentials of the repository are used from now on");
                }
                state.known = Some(Arc::new(loaded));
                state.failed = None;
            }
            // Half a file, written just now: what worked a moment ago still does.
            Err(error) if !refused && before.is_some_and(|before| before.lasts()) => {
                tracing::warn!(error = %error, "the repository's credentials can't be read again; using the old ones");
            }
            Err(error) => {
                state.known = None;
                state.failed = Some((Arc::new(error), Instant::now()));
            }
        }
    }

    async fn load(&self) -> Result<Current, CredentialsError> {
        let environment = self.environment.clone();
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
        Ok(Current { credential, expires, files })
    }
}

impl Current {
    fn time_left(&self) -> Option<SignedDuration> {
        self.expires.map(|expires| expires.duration_since(Timestamp::now()))
    }

    fn lasts(&self) -> bool {
        self.time_left().is_none_or(|left| left.is_positive())
    }

    fn lasts_long(&self) -> bool {
        self.time_left().is_none_or(|left| left > TIME_LEFT_MIN)
    }

    async fn files_are_the_same(&self) -> bool {
        let files = self.files.clone();
        let compared =
            tokio::task::spawn_blocking(move || files.iter().all(|(path, before)| print(path) == *before));
        compared.await.unwrap_or(false)
    }
}

fn print(path: &Path) -> Option<Print> {
    use std::os::unix::fs::MetadataExt;
    let found = std::fs::metadata(path).ok()?;
    Some(Print { modified: found.modified().ok(), bytes: found.len(), inode: found.ino() })
}

#[async_trait]
impl CredentialProvider for Credentials {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        match self.current().await {
            Ok(current) => match &current.credential {
                Some(credential) => Ok(Arc::clone(credential)),
                None => self.ambient.get_credential().await,
            },
            Err(error) => Err(object_store::Error::Generic { store: "S3", source: Box::new(error) }),
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({:?})", self.keeper.environment)
    }
}
