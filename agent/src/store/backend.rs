//! The operations of a repository, over whichever kind of `ObjectStore` stands behind it.

use super::directory::Directory;
use super::error::{Cause, Operation, StoreError};
use super::guarantees::Guarantees;
use super::options::{Place, StoreOptions};
use super::s3_requests::S3Requests;
use super::secrets::Secrets;
use super::versions::VersionId;
use super::{ObjectStat, s3};
use crate::clock::Clock;
use jiff::Timestamp;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{Extensions, GetOptions, GetResult, ObjectMeta, ObjectStore, ObjectStoreExt};
use std::fmt;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use wald_core::object_key::ObjectKey;
use wald_core::object_lock::{LockPolicy, ObjectLock};

/// One repository. Cheap to clone; clones share connections.
#[derive(Clone)]
pub struct Store {
    pub(super) inner: Arc<Inner>,
}

#[derive(Clone)]
pub(super) struct Inner {
    pub(super) objects: Arc<dyn ObjectStore>,
    pub(super) kind: Kind,
    /// The URL, without credentials.
    pub(super) name: String,
    /// In front of every key; empty for a directory.
    pub(super) prefix: String,
    pub(super) secrets: Secrets,
    /// Longest wait for one operation, with all its tries.
    pub(super) deadline: Duration,
    /// Added to it for a part of an upload, which is tried for longer.
    pub(super) patience: Duration,
    /// How what is written is locked; not at all where absent.
    pub(super) lock: Option<LockPolicy>,
    /// Locks count from its time.
    pub(super) clock: Clock,
    /// What the server was seen to keep.
    pub(super) guarantees: Guarantees,
    /// How the server is reached, if there is one.
    pub(super) access: Option<Arc<s3::Access>>,
}

/// What decides how an answer is read.
#[derive(Clone)]
pub(super) enum Kind {
    Memory,
    Directory(Directory),
    S3(S3Requests),
}

/// Added to what the time-outs allow, so that the more telling error comes first.
const DEADLINE_MARGIN: Duration = Duration::from_secs(5);
/// For a repository in memory, which has no options.
const MEMORY_DEADLINE: Duration = Duration::from_secs(60);

impl Store {
    /// Opens a repository. A directory must exist; a bucket is not asked for yet.
    pub fn open(options: &StoreOptions) -> Result<Self, StoreError> {
        let place = Place::parse(&options.url)?;
        let name = place.to_string();
        let secrets = options.s3.environment.secrets();
        let deadline =
            options.connect_timeout + options.request_timeout + options.retry_timeout + DEADLINE_MARGIN;
        let mut access = None;
        let (objects, kind, prefix): (Arc<dyn ObjectStore>, _, _) = match place {
            Place::S3 { bucket, prefix } => {
                let server = s3::Access::open(options, &bucket, &name, &secrets)?;
                let connected =
                    server.connect(Guarantees::none()).map_err(|error| StoreError::Misconfigured {
                        repository: name.clone(),
                        problem: Cause::of(&error, &secrets).to_string(),
                    })?;
                access = Some(Arc::new(server));
                (Arc::new(connected.objects), Kind::S3(connected.requests), prefix)
            }
            Place::Directory(path) => {
                let misconfigured = |error: &dyn fmt::Display| StoreError::Misconfigured {
                    repository: name.clone(),
                    problem: format!("{error}; create the directory, or mount its disk"),
                };
                let directory = Directory::open(&path).map_err(|error| misconfigured(&error))?;
                let files = LocalFileSystem::new_with_prefix(directory.root())
                    .map_err(|error| misconfigured(&error))?
                    .with_fsync(true);
                (Arc::new(files), Kind::Directory(directory), String::new())
            }
        };
        let lock = options.lock.filter(|_| matches!(kind, Kind::S3(_)));
        let clock = Clock::System;
        let guarantees = if access.is_some() { Guarantees::none() } else { Guarantees::all() };
        let patience = s3::patience(options);
        let inner = Inner {
            objects,
            kind,
            name,
            prefix,
            secrets,
            deadline,
            patience,
            lock,
            clock,
            guarantees,
            access,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// A repository that lives in this process, for tests.
    pub fn memory() -> Self {
        Self {
            inner: Arc::new(Inner {
                objects: Arc::new(InMemory::new()),
                kind: Kind::Memory,
                name: "memory".to_owned(),
                prefix: String::new(),
                secrets: Secrets::default(),
                deadline: MEMORY_DEADLINE,
                patience: Duration::ZERO,
                lock: None,
                clock: Clock::System,
                guarantees: Guarantees::all(),
                access: None,
            }),
        }
    }

    /// The same repository with something between it and its objects.
    pub(super) fn in_front(&self, wrap: impl FnOnce(Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore>) -> Self {
        let objects = wrap(Arc::clone(&self.inner.objects));
        Self { inner: Arc::new(Inner { objects, ..(*self.inner).clone() }) }
    }

    /// The same repository; what is written through this one is not locked. For trials, which are
    /// to be removed again. A bucket may have a lock of its own that it gives to every object.
    #[must_use]
    pub fn unlocked(&self) -> Self {
        Self { inner: Arc::new(Inner { lock: None, ..(*self.inner).clone() }) }
    }

    /// The same repository with another clock, from which locks count.
    #[must_use]
    pub fn with_clock(&self, clock: Clock) -> Self {
        Self { inner: Arc::new(Inner { clock, ..(*self.inner).clone() }) }
    }

    /// How what is written is locked.
    pub fn lock_policy(&self) -> Option<LockPolicy> {
        self.inner.lock
    }

    /// The repository's URL, without credentials, for messages.
    pub fn describe(&self) -> &str {
        &self.inner.name
    }

    /// An object's size and date.
    pub async fn stat(&self, key: &ObjectKey) -> Result<ObjectStat, StoreError> {
        let meta = self.inner.meta(Operation::Stat, key).await;
        let meta = self.believed(Operation::Stat, key, meta).await?;
        self.inner.stat_of(&meta)
    }

    /// Removes an object. One that is not there counts as removed.
    pub async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.delete_name(key.as_str()).await
    }

    pub(super) async fn delete_name(&self, name: &str) -> Result<(), StoreError> {
        let inner = &self.inner;
        inner.check_place(Operation::Delete, name).await?;
        let path = inner.path(name);
        let removed = inner.objects.delete(&path);
        if let Err(error) = inner.within_deadline(Operation::Delete, name, removed).await? {
            let error = inner.error(Operation::Delete, name, &error).await;
            return if error.is_absent() { Ok(()) } else { Err(error) };
        }
        inner.on_directory(Operation::Delete, name, |directory, file| directory.anchor(&file)).await
    }
}

/// Whether an error may be one whose cause only a body could tell.
pub(super) fn is_wordless(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::NotFound { .. }) || error.to_string().contains(" 400 ")
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({})", self.inner.name)
    }
}

impl Inner {
    /// The lock of an object whose storing begins now.
    pub(super) fn lock_now(&self) -> Option<ObjectLock> {
        self.lock.map(|policy| policy.lock_at(self.clock.now()))
    }

    /// A lock as [`super::signing`] looks for it.
    pub(super) fn asking_for(lock: Option<ObjectLock>) -> Extensions {
        let mut extensions = Extensions::new();
        if let Some(lock) = lock {
            extensions.insert(lock);
        }
        extensions
    }

    /// The name of an object in the whole bucket, as S3 has it.
    pub(super) fn key_in_bucket(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_owned() } else { format!("{}/{name}", self.prefix) }
    }

    /// The same the other way round; none for what is not in this repository.
    pub(super) fn name_in_bucket<'k>(&self, key: &'k str) -> Option<&'k str> {
        if self.prefix.is_empty() { Some(key) } else { key.strip_prefix(&self.prefix)?.strip_prefix('/') }
    }

    /// The name of a key, or of a folder without its last slash, in the whole bucket.
    pub(super) fn path(&self, key: &str) -> Path {
        if self.prefix.is_empty() { Path::from(key) } else { Path::from(format!("{}/{key}", self.prefix)) }
    }

    /// Size, date and ETag of an object.
    pub(super) async fn meta(&self, operation: Operation, key: &ObjectKey) -> Result<ObjectMeta, StoreError> {
        self.check_place(operation, key.as_str()).await?;
        self.describe(operation, key.as_str(), None).await.map(|found| found.meta)
    }

    /// The same of a certain version; its bytes are left where they are.
    pub(super) async fn describe(
        &self,
        operation: Operation,
        name: &str,
        version: Option<&VersionId>,
    ) -> Result<GetResult, StoreError> {
        let path = self.path(name);
        let version = version.map(VersionId::to_string);
        let ask = |head| GetOptions { head, version: version.clone(), ..GetOptions::default() };
        let asked = self.objects.get_opts(&path, ask(true));
        let asked = match self.within_deadline(operation, name, asked).await? {
            // The answer to a HEAD has no body that could say what is not found, or what was wrong:
            // credentials that have expired are a 400 as much as a malformed request.
            Err(error) if matches!(self.kind, Kind::S3(_)) && is_wordless(&error) => {
                self.within_deadline(operation, name, self.objects.get_opts(&path, ask(false))).await?
            }
            asked => asked,
        };
        match asked {
            Ok(found) => Ok(found),
            Err(error) => Err(self.error(operation, name, &error).await),
        }
    }

    pub(super) fn stat_of(&self, meta: &ObjectMeta) -> Result<ObjectStat, StoreError> {
        let seconds = meta.last_modified.timestamp();
        let modified = i32::try_from(meta.last_modified.timestamp_subsec_nanos())
            .ok()
            .and_then(|nanoseconds| Timestamp::new(seconds, nanoseconds).ok());
        // object_store fills in 1970 where the date is missing, as in a log-in page of a proxy.
        let modified = modified.filter(|modified| *modified != Timestamp::UNIX_EPOCH);
        let problem = "its date is missing";
        let modified =
            modified.ok_or_else(|| self.bad_answer(Operation::Stat, meta.location.as_ref(), problem))?;
        Ok(ObjectStat { size_bytes: meta.size, modified })
    }

    /// Before anything else in a directory: is it there at all?
    pub(super) async fn check_place(&self, operation: Operation, subject: &str) -> Result<(), StoreError> {
        self.on_directory(operation, subject, |directory, _| directory.check()).await
    }

    /// Runs a blocking check on the directory and the subject's place in it; nothing elsewhere.
    pub(super) async fn on_directory(
        &self,
        operation: Operation,
        subject: &str,
        check: impl FnOnce(Directory, std::path::PathBuf) -> io::Result<()> + Send + 'static,
    ) -> Result<(), StoreError> {
        let Kind::Directory(directory) = &self.kind else { return Ok(()) };
        let file = directory.root().join(subject);
        let directory = directory.clone();
        let task = tokio::task::spawn_blocking(move || check(directory, file));
        let done = self.within_deadline(operation, subject, task).await?;
        let done = done.unwrap_or_else(|panicked| Err(io::Error::other(panicked)));
        done.map_err(|error| self.io_failure(operation, subject, &error))
    }

    /// Bounds what has no time-out of its own: a file system that hangs.
    pub(super) async fn within_deadline<T>(
        &self,
        operation: Operation,
        subject: &str,
        work: impl Future<Output = T>,
    ) -> Result<T, StoreError> {
        self.within(self.deadline, operation, subject, work).await
    }

    /// The same where more is sent than one usual request holds.
    pub(super) async fn within<T>(
        &self,
        limit: Duration,
        operation: Operation,
        subject: &str,
        work: impl Future<Output = T>,
    ) -> Result<T, StoreError> {
        tokio::time::timeout(limit, work).await.map_err(|_| {
            self.unreachable(operation, subject, Cause::new(format!("no answer within {limit:?}")))
        })
    }
}
