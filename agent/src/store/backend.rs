//! The operations of a repository, over whichever kind of `ObjectStore` stands behind it.

use super::directory::Directory;
use super::error::{Cause, Operation, StoreError};
use super::http::time_to_send;
use super::options::{Place, StoreOptions};
use super::secrets::Secrets;
use super::{Created, ObjectStat, s3};
use jiff::Timestamp;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use std::fmt;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use wald_core::object_key::ObjectKey;

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
}

/// What decides how an answer is read.
#[derive(Clone)]
pub(super) enum Kind {
    Memory,
    Directory(Directory),
    S3,
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
        let (objects, kind, prefix): (Arc<dyn ObjectStore>, _, _) = match place {
            Place::S3 { bucket, prefix } => {
                (Arc::new(s3::client(options, &bucket, &name, &secrets)?), Kind::S3, prefix)
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
        Ok(Self { inner: Arc::new(Inner { objects, kind, name, prefix, secrets, deadline }) })
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
            }),
        }
    }

    /// The same repository with something between it and its objects.
    pub(super) fn in_front(&self, wrap: impl FnOnce(Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore>) -> Self {
        let objects = wrap(Arc::clone(&self.inner.objects));
        Self { inner: Arc::new(Inner { objects, ..(*self.inner).clone() }) }
    }

    /// The repository's URL, without credentials, for messages.
    pub fn describe(&self) -> &str {
        &self.inner.name
    }

    /// Creates an object, only if there is none of this name.
    ///
    /// `Stored` means durable. In a directory, `Exists` means that the existing file was made
    /// durable too. An error says nothing about whether the object was stored.
    pub async fn create(&self, key: &ObjectKey, payload: PutPayload) -> Result<Created, StoreError> {
        let inner = &self.inner;
        let path = inner.path(key.as_str());
        inner.check_place(Operation::Create, key.as_str()).await?;
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let sending = inner.deadline + time_to_send(u64::try_from(payload.content_length()).unwrap_or(0));
        let put = inner.objects.put_opts(&path, payload, options);
        let created = match inner.within(sending, Operation::Create, key.as_str(), put).await? {
            Ok(_) => Created::Stored,
            Err(object_store::Error::AlreadyExists { .. }) => Created::Exists,
            Err(error) => return Err(inner.error(Operation::Create, key.as_str(), &error).await),
        };
        inner
            .on_directory(Operation::Create, key.as_str(), move |directory, file| match created {
                Created::Stored => directory.anchor_directories(&file),
                Created::Exists => directory.sync_existing(&file),
            })
            .await?;
        Ok(created)
    }

    /// An object's size and date.
    pub async fn stat(&self, key: &ObjectKey) -> Result<ObjectStat, StoreError> {
        self.inner.meta(Operation::Stat, key).await.and_then(|meta| self.inner.stat_of(&meta))
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
fn is_wordless(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::NotFound { .. }) || error.to_string().contains(" 400 ")
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({})", self.inner.name)
    }
}

impl Inner {
    /// The name of a key, or of a folder without its last slash, in the whole bucket.
    pub(super) fn path(&self, key: &str) -> Path {
        if self.prefix.is_empty() { Path::from(key) } else { Path::from(format!("{}/{key}", self.prefix)) }
    }

    /// Size, date and ETag of an object.
    pub(super) async fn meta(&self, operation: Operation, key: &ObjectKey) -> Result<ObjectMeta, StoreError> {
        self.check_place(operation, key.as_str()).await?;
        let path = self.path(key.as_str());
        match self.within_deadline(operation, key.as_str(), self.objects.head(&path)).await? {
            Ok(meta) => Ok(meta),
            // The answer to a HEAD has no body that could say what is not found, or what was wrong:
            // credentials that have expired are a 400 as much as a malformed request.
            Err(error) if matches!(self.kind, Kind::S3) && is_wordless(&error) => {
                self.meta_by_reading(operation, key).await
            }
            Err(error) => Err(self.error(operation, key.as_str(), &error).await),
        }
    }

    async fn meta_by_reading(&self, operation: Operation, key: &ObjectKey) -> Result<ObjectMeta, StoreError> {
        let path = self.path(key.as_str());
        match self.within_deadline(operation, key.as_str(), self.objects.get(&path)).await? {
            Ok(found) => Ok(found.meta),
            Err(error) => Err(self.error(operation, key.as_str(), &error).await),
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
