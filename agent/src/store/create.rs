//! Creating an object in one request, and being sure of it on servers that promise less than S3.
//!
//! Invariants: [`Created::Stored`] means that the object is there with exactly these bytes, under
//! the wanted lock, and that nobody else's is under the same name. What the server was seen to
//! keep ([`super::Guarantees`]) is left to it; the rest is looked up before the request and read
//! back after it. Nothing is ever taken back: of two who write the same name at once with
//! different contents, each is told, and both versions stay.

use super::Created;
use super::backend::{Inner, Kind, Store, is_wordless};
use super::error::{Operation, StoreError};
use super::http::time_to_send;
use super::sameness::Sameness;
use super::versions::{ObjectVersion, VersionId, VersionKind};
use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use wald_core::object_key::ObjectKey;
use wald_core::object_lock::ObjectLock;

impl Store {
    /// Creates an object, only if there is none of this name.
    ///
    /// `Stored` means durable, and locked where the repository's policy says so. In a directory,
    /// `Exists` means that the existing file was made durable too. An error says nothing about
    /// whether the object was stored.
    pub async fn create(&self, key: &ObjectKey, payload: PutPayload) -> Result<Created, StoreError> {
        self.create_judged(key, payload, &Sameness::of_bytes()).await
    }

    /// The same for objects whose bytes may differ and mean the same: where the server lets several
    /// have one name, `sameness` tells whether that is a contest.
    pub async fn create_judged(
        &self,
        key: &ObjectKey,
        payload: PutPayload,
        sameness: &Sameness,
    ) -> Result<Created, StoreError> {
        let inner = &self.inner;
        inner.check_place(Operation::Create, key.as_str()).await?;
        let careful = !inner.guarantees.create_only;
        let lock = inner.lock_now();
        let put = if careful && inner.looks_occupied(key).await? {
            Put::Exists
        } else {
            inner.put(key, payload.clone(), lock).await?
        };
        let created = match put {
            Put::Stored(version) => self.made_sure(key, &payload, sameness, version, lock).await?,
            Put::Exists if careful => self.exists(key.as_str(), &payload, sameness).await?,
            Put::Exists => Created::Exists,
        };
        if created == Created::Exists {
            self.see_to_lock(key, lock).await?;
        }
        inner
            .on_directory(Operation::Create, key.as_str(), move |directory, file| match created {
                Created::Stored => directory.anchor_directories(&file),
                Created::Exists => directory.sync_existing(&file),
            })
            .await?;
        Ok(created)
    }

    /// Does afterwards what the server was not seen to do itself.
    async fn made_sure(
        &self,
        key: &ObjectKey,
        payload: &PutPayload,
        sameness: &Sameness,
        version: Option<VersionId>,
        lock: Option<ObjectLock>,
    ) -> Result<Created, StoreError> {
        if !matches!(self.inner.kind, Kind::S3(_)) {
            return Ok(Created::Stored);
        }
        let name = key.as_str();
        let guarantees = self.inner.guarantees;
        let mut compared = !guarantees.reads_back();
        let mut version = version;
        if !guarantees.create_only {
            let sole = match self.sole_version(name, payload, sameness, version.as_ref()).await? {
                Some(sole) => sole,
                None => return Ok(Created::Exists),
            };
            // Without versions a rival's object has taken the place of ours, if there is one.
            compared &= sole != VersionId::null();
            version = Some(sole);
        }
        if !compared && !self.inner.holds(name, version.as_ref(), payload).await? {
            let problem = "what was stored reads back as something else";
            return Err(self.inner.bad_answer(Operation::Create, name, problem));
        }
        if let Some(lock) = lock.filter(|_| !guarantees.lock_on_put) {
            self.lock_afterwards(name, version, lock).await?;
        }
        Ok(Created::Stored)
    }

    /// Our version, if it is the only one; `None` if others have the same content.
    async fn sole_version(
        &self,
        name: &str,
        payload: &PutPayload,
        sameness: &Sameness,
        ours: Option<&VersionId>,
    ) -> Result<Option<VersionId>, StoreError> {
        let mut versions = self.objects_of(name).await?;
        let told = |version: &&ObjectVersion| ours.is_none_or(|ours| version.version == *ours);
        // Where the server does not tell which one is ours, the newest is taken for it: if they are
        // all the same it does not matter, and if not, it is an error anyway.
        let ours = versions.iter().filter(told).max_by_key(|version| version.is_latest);
        let missing = || self.inner.bad_answer(Operation::Create, name, "it is stored and not listed");
        let ours = ours.map(|version| version.version.clone()).ok_or_else(missing)?;
        versions.retain(|version| version.version != ours);
        for other in &versions {
            if !self.is_copy(other, payload, sameness).await? {
                return Err(self.inner.contested(name, &ours, &other.version));
            }
        }
        Ok(versions.is_empty().then_some(ours))
    }

    /// The name is taken. Usually once, and the caller compares; twice with different contents, of
    /// which one is ours, would compare well and be wrong.
    async fn exists(
        &self,
        name: &str,
        payload: &PutPayload,
        sameness: &Sameness,
    ) -> Result<Created, StoreError> {
        let versions = self.objects_of(name).await?;
        if versions.len() < 2 {
            return Ok(Created::Exists);
        }
        let (mut same, mut other) = (None, None);
        for version in &versions {
            let place = if self.is_copy(version, payload, sameness).await? { &mut same } else { &mut other };
            *place = Some(&version.version);
        }
        match (same, other) {
            (Some(same), Some(other)) => Err(self.inner.contested(name, same, other)),
            _ => Ok(Created::Exists),
        }
    }

    /// All versions of one object but its delete markers.
    pub(super) async fn objects_of(&self, name: &str) -> Result<Vec<ObjectVersion>, StoreError> {
        let mut versions = self.versions_of(name).await?;
        versions.retain(|version| version.kind != VersionKind::DeleteMarker);
        Ok(versions)
    }

    /// All versions of one object, delete markers included.
    pub(super) async fn versions_of(&self, name: &str) -> Result<Vec<ObjectVersion>, StoreError> {
        // The prefix may be that of longer names too.
        self.versions(name).try_filter(|version| std::future::ready(version.name == name)).try_collect().await
    }

    /// Sees to the lock of what is stored already. Without a version it is the newest.
    pub(super) async fn lock_afterwards(
        &self,
        name: &str,
        version: Option<VersionId>,
        lock: ObjectLock,
    ) -> Result<(), StoreError> {
        let version = match version {
            Some(version) => version,
            None => {
                let newest = self.versions_of(name).await?.into_iter().find(|version| version.is_latest);
                let missing = || self.inner.bad_answer(Operation::Lock, name, "it is stored and not listed");
                newest.map(|version| version.version).ok_or_else(missing)?
            }
        };
        self.extend_lock(name, &version, lock).await.map(|_| ())
    }
}

/// How the request itself ended.
enum Put {
    /// As this version, if the server told.
    Stored(Option<VersionId>),
    Exists,
}

impl Inner {
    /// Whether something has the name. An object that was deleted and is kept as a version is no
    /// obstacle.
    pub(super) async fn is_occupied(&self, key: &ObjectKey) -> Result<bool, StoreError> {
        match self.meta(Operation::Stat, key).await {
            // A page of whoever stands in front is no object, and has no date.
            Ok(meta) => self.stat_of(&meta).map(|_| true),
            Err(StoreError::Absent { .. } | StoreError::Deleted { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The same at a glance, for a server that does not look itself. A 404 from anybody will do: the
    /// request that follows would not get past him.
    async fn looks_occupied(&self, key: &ObjectKey) -> Result<bool, StoreError> {
        let path = self.path(key.as_str());
        match self.within_deadline(Operation::Stat, key.as_str(), self.objects.head(&path)).await? {
            Ok(meta) => self.stat_of(&meta).map(|_| true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            // No body told what was wrong: a read is answered with one.
            Err(error) if is_wordless(&error) => self.is_occupied(key).await,
            Err(error) => match self.error(Operation::Stat, key.as_str(), &error).await {
                StoreError::Absent { .. } | StoreError::Deleted { .. } => Ok(false),
                error => Err(error),
            },
        }
    }

    async fn put(
        &self,
        key: &ObjectKey,
        payload: PutPayload,
        lock: Option<ObjectLock>,
    ) -> Result<Put, StoreError> {
        let path = self.path(key.as_str());
        let extensions = Self::asking_for(lock);
        let options = PutOptions { mode: PutMode::Create, extensions, ..PutOptions::default() };
        let sending = self.deadline + time_to_send(u64::try_from(payload.content_length()).unwrap_or(0));
        let put = self.objects.put_opts(&path, payload, options);
        match self.within(sending, Operation::Create, key.as_str(), put).await? {
            Ok(stored) => Ok(Put::Stored(stored.version.map(VersionId::new))),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(Put::Exists),
            Err(error) => Err(self.error(Operation::Create, key.as_str(), &error).await),
        }
    }
}
