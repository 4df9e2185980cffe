//! Locks, versions and pending uploads on S3: the requests behind [`super::versions`], one
//! function each.
//!
//! Invariants: a retention is written only after it was read, never shorter and never weaker, and
//! counts once it was read back; nothing ever asks to bypass a lock; a list goes forward on every
//! page, or ends with an error.

use super::backend::Inner;
use super::error::{Operation, StoreError};
use super::s3_answer::speaks_of_object_lock;
use super::s3_pages::{self, NextPage, PagesSeen, UploadsPage, VersionsPage};
use super::s3_requests::{S3Failure, S3Request, S3Requests};
use super::signing::until_text;
use super::stored_at::StoredAt;
use super::versions::{Deletion, ObjectVersion, PendingUpload, VersionId, VersionKind};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use jiff::Timestamp;
use reqwest::{Method, StatusCode};
use sha2::{Digest, Sha256};
use wald_core::object_lock::{LockMode, ObjectLock};

/// One page of versions whose names in the whole bucket begin with `prefix`.
pub(super) async fn versions_page(
    inner: &Inner,
    requests: &S3Requests,
    prefix: &str,
    from: Option<&NextPage>,
    seen: &mut PagesSeen,
) -> Result<(Vec<ObjectVersion>, Option<NextPage>), StoreError> {
    let mut request = S3Request::new(Method::GET, "", "versions")
        .with("encoding-type", "url")
        .with("prefix", prefix)
        .with("max-keys", "1000");
    if let Some(from) = from {
        request = request.with("key-marker", from.key.as_str());
        if let Some(id) = &from.id {
            request = request.with("version-id-marker", id.as_str());
        }
    }
    let sent = inner.within_deadline(Operation::List, prefix, requests.send(&request)).await?;
    let answer = sent.map_err(|failure| inner.s3_failure(Operation::List, prefix, &failure))?;
    let bad = |problem: String| inner.bad_answer(Operation::List, prefix, &problem);
    let (page, next) = VersionsPage::read(&answer.body).map_err(bad)?;
    let next = seen.go_on(next).map_err(bad)?;
    let stored_at = StoredAt::of(&answer.headers);
    let mut found = Vec::with_capacity(page.versions.len() + page.delete_markers.len());
    let objects = page.versions.into_iter().map(|version| {
        let size_bytes = version.size.ok_or_else(|| bad(format!("{} has no size", version.key)))?;
        Ok((version, VersionKind::Object { size_bytes }))
    });
    let markers = page.delete_markers.into_iter().map(|marker| Ok((marker, VersionKind::DeleteMarker)));
    for entry in objects.chain(markers) {
        let (entry, kind) = entry?;
        let Some(name) = inner.name_in_bucket(&entry.key).filter(|_| entry.key.starts_with(prefix)) else {
            continue;
        };
        let version = VersionId::new(entry.version_id);
        let modified = stored_at.read(&version, entry.last_modified);
        found.push(ObjectVersion {
            name: name.to_owned(),
            version,
            is_latest: entry.is_latest,
            kind,
            modified,
        });
    }
    Ok((found, next))
}

/// Every pending upload below `prefix`.
pub(super) async fn pending_uploads(
    inner: &Inner,
    requests: &S3Requests,
    prefix: &str,
) -> Result<Vec<PendingUpload>, StoreError> {
    let mut found = Vec::new();
    let mut from: Option<NextPage> = None;
    let mut seen = PagesSeen::default();
    loop {
        let mut request = S3Request::new(Method::GET, "", "uploads")
            .with("encoding-type", "url")
            .with("prefix", prefix)
            .with("max-uploads", "1000");
        if let Some(from) = &from {
            request = request.with("key-marker", from.key.as_str());
            if let Some(id) = &from.id {
                request = request.with("upload-id-marker", id.as_str());
            }
        }
        let sent = inner.within_deadline(Operation::List, prefix, requests.send(&request)).await?;
        let answer = sent.map_err(|failure| inner.s3_failure(Operation::List, prefix, &failure))?;
        let bad = |problem: String| inner.bad_answer(Operation::List, prefix, &problem);
        let (page, next) = UploadsPage::read(&answer.body).map_err(bad)?;
        let next = seen.go_on(next).map_err(bad)?;
        found.extend(page.uploads.into_iter().filter(|upload| upload.key.starts_with(prefix)).filter_map(
            |upload| {
                let name = inner.name_in_bucket(&upload.key)?.to_owned();
                Some(PendingUpload { name, upload_id: upload.upload_id, begun: upload.initiated })
            },
        ));
        match next {
            Some(next) => from = Some(next),
            None => return Ok(found),
        }
    }
}

/// GetObjectRetention.
pub(super) async fn lock_of(
    inner: &Inner,
    requests: &S3Requests,
    name: &str,
    version: &VersionId,
) -> Result<Option<ObjectLock>, StoreError> {
    let key = inner.key_in_bucket(name);
    let request = S3Request::new(Method::GET, &key, "retention").with("versionId", version.as_str());
    let answer = match inner.within_deadline(Operation::Stat, name, requests.send(&request)).await? {
        Ok(answer) => answer,
        Err(failure) if says_no_lock(&failure) => return Ok(None),
        Err(failure) => return Err(inner.s3_failure(Operation::Stat, name, &failure)),
    };
    let bad = |problem: String| inner.bad_answer(Operation::Stat, name, &problem);
    let told: s3_pages::Retention = s3_pages::read("Retention", &answer.body).map_err(bad)?;
    let mode = LockMode::from_s3(&told.mode).ok_or_else(|| bad(format!("lock mode {:?}", told.mode)))?;
    Ok(Some(ObjectLock { mode, until: told.retain_until_date }))
}

/// An object without a lock, a bucket without object lock, a delete marker: three ways to say it.
fn says_no_lock(failure: &S3Failure) -> bool {
    let S3Failure::Answered(answer) = failure else { return false };
    match answer.code().as_deref() {
        Some("NoSuchObjectLockConfiguration" | "ObjectLockConfigurationNotFoundError") => true,
        Some("InvalidRequest") => speaks_of_object_lock(&answer.text()),
        Some("MethodNotAllowed") => answer.headers.contains_key("x-amz-delete-marker"),
        _ => false,
    }
}

/// PutObjectRetention, after a look and with another one after it.
pub(super) async fn extend_lock(
    inner: &Inner,
    requests: &S3Requests,
    name: &str,
    version: &VersionId,
    wanted: ObjectLock,
) -> Result<ObjectLock, StoreError> {
    let had = lock_of(inner, requests, name, version).await?;
    if let Some(had) = had.filter(|had| had.covers(&wanted)) {
        return Ok(had);
    }
    let joined = had.map_or(wanted, |had| had.joined(wanted));
    match put_lock(inner, requests, name, version, joined).await {
        Ok(()) => {}
        Err(refusal) => {
            // A stronger mode may be refused to whoever has no right to bypass the weaker one. The
            // later time is not, and the object must not lose its lock over this.
            if let Some(had) = had.filter(|had| had.mode != joined.mode && had.until < joined.until) {
                let longer = ObjectLock { mode: had.mode, until: joined.until };
                put_lock(inner, requests, name, version, longer).await?;
            }
            return Err(refusal);
        }
    }
    match lock_of(inner, requests, name, version).await? {
        Some(has) if has.covers(&wanted) => Ok(has),
        other => {
            let has = other.map_or("none".to_owned(), |lock| lock.to_string());
            let problem = format!("its lock was to be {joined}, and reads back as {has}");
            Err(inner.bad_answer(Operation::Lock, name, &problem))
        }
    }
}

async fn put_lock(
    inner: &Inner,
    requests: &S3Requests,
    name: &str,
    version: &VersionId,
    lock: ObjectLock,
) -> Result<(), StoreError> {
    let key = inner.key_in_bucket(name);
    let body = format!(
        "<Retention xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Mode>{}</Mode>\
         <RetainUntilDate>{}</RetainUntilDate></Retention>",
        lock.mode.as_s3(),
        until_text(lock)
    );
    let mut request = S3Request::new(Method::PUT, &key, "retention").with("versionId", version.as_str());
    // The server demands a checksum of this body.
    request.headers.push(("x-amz-checksum-sha256", BASE64_STANDARD.encode(Sha256::digest(&body))));
    request.headers.push(("content-type", "application/xml".to_owned()));
    request.body = Bytes::from(body);
    match inner.within_deadline(Operation::Lock, name, requests.send(&request)).await? {
        Ok(_) => Ok(()),
        Err(failure) => Err(inner.s3_failure(Operation::Lock, name, &failure)),
    }
}

/// DeleteObject of one version.
pub(super) async fn delete_version(
    inner: &Inner,
    requests: &S3Requests,
    name: &str,
    version: &VersionId,
) -> Result<Deletion, StoreError> {
    let key = inner.key_in_bucket(name);
    let request = S3Request::plain(Method::DELETE, &key).with("versionId", version.as_str());
    let failure = match inner.within_deadline(Operation::Delete, name, requests.send(&request)).await? {
        Ok(_) => return Ok(Deletion::Deleted),
        Err(failure) => failure,
    };
    if matches!(failure.code().as_deref(), Some("NoSuchVersion" | "NoSuchKey")) {
        return Ok(Deletion::Deleted);
    }
    // A lock and a missing right are refused with the same words; so the lock itself is asked.
    if let S3Failure::Answered(answer) = &failure
        && matches!(answer.status, StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST | StatusCode::CONFLICT)
    {
        let now = answer.time().unwrap_or_else(|| inner.clock.now());
        if is_held(inner, requests, name, version, now).await {
            return Ok(Deletion::Locked);
        }
    }
    Err(inner.s3_failure(Operation::Delete, name, &failure))
}

/// Whether a retention is in force or somebody put a legal hold on the version. What can't be read
/// holds nothing: the refusal itself is told then.
async fn is_held(
    inner: &Inner,
    requests: &S3Requests,
    name: &str,
    version: &VersionId,
    now: Timestamp,
) -> bool {
    if matches!(lock_of(inner, requests, name, version).await, Ok(Some(lock)) if lock.until > now) {
        return true;
    }
    let key = inner.key_in_bucket(name);
    let request = S3Request::new(Method::GET, &key, "legal-hold").with("versionId", version.as_str());
    let asked = inner.within_deadline(Operation::Stat, name, requests.send(&request)).await;
    let Ok(Ok(answer)) = asked else { return false };
    let hold: Result<s3_pages::LegalHold, _> = s3_pages::read("LegalHold", &answer.body);
    hold.is_ok_and(|hold| hold.status == "ON")
}

/// AbortMultipartUpload.
pub(super) async fn abort_pending(
    inner: &Inner,
    requests: &S3Requests,
    upload: &PendingUpload,
) -> Result<(), StoreError> {
    let key = inner.key_in_bucket(&upload.name);
    let request = S3Request::plain(Method::DELETE, &key).with("uploadId", upload.upload_id.as_str());
    match inner.within_deadline(Operation::Upload, &upload.name, requests.send(&request)).await? {
        Ok(_) => Ok(()),
        Err(failure) if failure.code().as_deref() == Some("NoSuchUpload") => Ok(()),
        Err(failure) => Err(inner.s3_failure(Operation::Upload, &upload.name, &failure)),
    }
}
