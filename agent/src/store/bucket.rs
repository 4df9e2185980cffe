//! What a bucket is set up for: versions, object lock, and what time its server has.
//!
//! Invariant: "off" is what the server said; a server that could not be asked, or did not allow
//! the question, is an error.

use super::backend::{Inner, Kind, Store};
use super::error::{Operation, StoreError};
use super::s3_pages::{self, ObjectLockConfiguration, VersioningConfiguration};
use super::s3_requests::{S3Answer, S3Failure, S3Request, S3Requests};
use jiff::Timestamp;
use reqwest::{Method, StatusCode};
use wald_core::object_lock::{LockMode, LockPolicy};

/// Whether a bucket keeps the versions of its objects.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Versioning {
    /// The repository knows no versions: a directory, or a server without this function.
    NotOffered,
    /// Never switched on.
    Off,
    /// Switched off again: what is written over or deleted from now on is gone.
    Suspended,
    /// Every version is kept.
    On,
}

/// Whether objects of a bucket can be locked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BucketLock {
    /// The repository knows no object lock: a directory, or a server without this function.
    NotOffered,
    /// The bucket was made without it.
    Off,
    /// Objects can be locked.
    On {
        /// What an object gets that asks for nothing. A year counts as 366 days.
        default: Option<LockPolicy>,
    },
}

/// What such questions are about, in messages.
const BUCKET: &str = "the bucket's settings";

impl Store {
    /// Whether the repository keeps versions.
    pub async fn versioning(&self) -> Result<Versioning, StoreError> {
        let Kind::S3(requests) = &self.inner.kind else { return Ok(Versioning::NotOffered) };
        let answer = match ask(&self.inner, requests, "versioning").await? {
            Ok(answer) => answer,
            Err(failure) if is_not_offered(&failure) => return Ok(Versioning::NotOffered),
            Err(failure) => return Err(self.inner.s3_failure(Operation::Stat, BUCKET, &failure)),
        };
        let bad = |problem: String| self.inner.bad_answer(Operation::Stat, BUCKET, &problem);
        let told: VersioningConfiguration =
            s3_pages::read("VersioningConfiguration", &answer.body).map_err(bad)?;
        match told.status.as_deref() {
            None | Some("") => Ok(Versioning::Off),
            Some("Enabled") => Ok(Versioning::On),
            Some("Suspended") => Ok(Versioning::Suspended),
            Some(other) => Err(bad(format!("versioning {other:?}"))),
        }
    }

    /// Whether the repository can lock objects, and with what by itself.
    pub async fn lock_configuration(&self) -> Result<BucketLock, StoreError> {
        match &self.inner.kind {
            Kind::S3(requests) => lock_configuration(&self.inner, requests).await,
            Kind::Memory | Kind::Directory(_) => Ok(BucketLock::NotOffered),
        }
    }

    /// The server's time in whole seconds, from whatever it answers; `None` for a repository
    /// without a server. Between the question and the answer lies the time of one request.
    pub async fn server_time(&self) -> Result<Option<Timestamp>, StoreError> {
        let Kind::S3(requests) = &self.inner.kind else { return Ok(None) };
        let answer = match ask(&self.inner, requests, "versioning").await? {
            Ok(answer) => answer,
            // A refusal has a date too, most of all the one that says the clocks differ.
            Err(S3Failure::Answered(answer)) if answer.code().is_some() => *answer,
            Err(failure) => return Err(self.inner.s3_failure(Operation::Stat, BUCKET, &failure)),
        };
        let problem = "it has no date";
        let time = answer.time();
        time.map(Some).ok_or_else(|| self.inner.bad_answer(Operation::Stat, BUCKET, problem))
    }
}

/// GetObjectLockConfiguration.
pub(super) async fn lock_configuration(
    inner: &Inner,
    requests: &S3Requests,
) -> Result<BucketLock, StoreError> {
    let answer = match ask(inner, requests, "object-lock").await? {
        Ok(answer) => answer,
        Err(failure) if failure.code().as_deref() == Some("ObjectLockConfigurationNotFoundError") => {
            return Ok(BucketLock::Off);
        }
        Err(failure) if is_not_offered(&failure) => return Ok(BucketLock::NotOffered),
        Err(failure) => return Err(inner.s3_failure(Operation::Stat, BUCKET, &failure)),
    };
    let bad = |problem: String| inner.bad_answer(Operation::Stat, BUCKET, &problem);
    let told: ObjectLockConfiguration =
        s3_pages::read("ObjectLockConfiguration", &answer.body).map_err(bad)?;
    if told.object_lock_enabled.as_deref() != Some("Enabled") {
        return Ok(BucketLock::Off);
    }
    let Some(default) = told.rule.and_then(|rule| rule.default_retention) else {
        return Ok(BucketLock::On { default: None });
    };
    let mode = default.mode.as_deref().and_then(LockMode::from_s3);
    let mode = mode.ok_or_else(|| bad(format!("default lock mode {:?}", default.mode)))?;
    let days = default.days.or_else(|| default.years.map(|years| years.saturating_mul(366)));
    let days = days.ok_or_else(|| bad("the default lock has no duration".to_owned()))?;
    Ok(BucketLock::On { default: Some(LockPolicy { mode, days }) })
}

async fn ask(
    inner: &Inner,
    requests: &S3Requests,
    subresource: &'static str,
) -> Result<Result<S3Answer, S3Failure>, StoreError> {
    let request = S3Request::new(Method::GET, "", subresource);
    inner.within_deadline(Operation::Stat, BUCKET, requests.send(&request)).await
}

fn is_not_offered(failure: &S3Failure) -> bool {
    let S3Failure::Answered(answer) = failure else { return false };
    matches!(answer.code().as_deref(), Some("NotImplemented" | "MethodNotAllowed"))
        || answer.status == StatusCode::NOT_IMPLEMENTED
}
