//! The lock of an object that was there when it was to be created: it may be our own, of a try
//! whose answer was lost, or one from before there was a policy, or one whose lock has lapsed.
//!
//! Invariant: a server that was seen to lock what it stores has locked our own, so there a lock that
//! can't be looked at or made longer is told in the log and keeps nobody from archiving.

use super::backend::{Kind, Store};
use super::error::{Operation, StoreError};
use super::signing::ToldLock;
use super::versions::VersionId;
use jiff::SignedDuration;
use wald_core::object_key::ObjectKey;
use wald_core::object_lock::ObjectLock;

/// A lock that ends by this much earlier than a new one is long enough: it is not made longer each
/// time that PostgreSQL asks again.
const SLACK: SignedDuration = SignedDuration::from_hours(24);

impl Store {
    /// Sees to the lock of whatever has the name, which may be nothing: see
    /// [`super::Created::Exists`].
    pub(super) async fn see_to_lock(
        &self,
        key: &ObjectKey,
        lock: Option<ObjectLock>,
    ) -> Result<(), StoreError> {
        let (Kind::S3(_), Some(lock)) = (&self.inner.kind, lock) else { return Ok(()) };
        if !self.inner.guarantees.lock_on_put {
            return self.lock_all(key.as_str(), lock).await;
        }
        let seen_to = if self.inner.guarantees.create_only {
            self.lock_newest(key, lock).await
        } else {
            self.lock_all(key.as_str(), lock).await
        };
        if let Err(error) = seen_to {
            tracing::warn!(
                key = key.as_str(),
                %error,
                "the object was there already, and its lock could not be seen to: it may be missing or end \
                 too early; the rights s3:GetObjectRetention and s3:PutObjectRetention are needed for that"
            );
        }
        Ok(())
    }

    async fn lock_all(&self, name: &str, lock: ObjectLock) -> Result<(), StoreError> {
        for version in self.objects_of(name).await? {
            self.lock_if_short(name, &version.version, lock).await?;
        }
        Ok(())
    }

    async fn lock_newest(&self, key: &ObjectKey, lock: ObjectLock) -> Result<(), StoreError> {
        let name = key.as_str();
        let found = match self.inner.describe(Operation::Stat, name, None).await {
            Ok(found) => found,
            // After a 409 there may be none.
            Err(StoreError::Absent { .. } | StoreError::Deleted { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        if found.extensions.get::<ToldLock>().is_some_and(|told| told.0.covers(&self.at_least(lock))) {
            return Ok(());
        }
        match found.meta.version.map(VersionId::new) {
            Some(version) => self.lock_if_short(name, &version, lock).await,
            None => self.lock_all(name, lock).await,
        }
    }

    async fn lock_if_short(
        &self,
        name: &str,
        version: &VersionId,
        lock: ObjectLock,
    ) -> Result<(), StoreError> {
        match self.lock_of(name, version).await? {
            Some(has) if has.covers(&self.at_least(lock)) => Ok(()),
            _ => self.extend_lock(name, version, lock).await.map(|_| ()),
        }
    }

    fn at_least(&self, lock: ObjectLock) -> ObjectLock {
        let whole = self.inner.lock.map_or(SignedDuration::ZERO, |policy| policy.duration());
        ObjectLock { until: lock.until - SLACK.min(whole / 2), ..lock }
    }
}
