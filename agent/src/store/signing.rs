//! What every request to the bucket gets on its way out: the lock of what it creates, "only if
//! absent" on the completion of an upload, and its signature.
//!
//! object_store knows no object lock, completes uploads over what is there, and signs a request
//! once for all its tries. Here each try is signed, with the credentials and the time of that
//! moment: keys that expire or are rotated in the middle, and a pause of minutes, do no harm.
//!
//! Invariants: nothing is added after the signature; a body is signed by the SHA-256 that its
//! checksum header holds, so it is hashed once; a body that can't be signed is not sent.

use async_trait::async_trait;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use object_store::aws::{AwsAuthorizer, AwsCredentialProvider};
use object_store::client::{HttpClient, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService};
use reqwest::header::{HeaderMap, HeaderValue, IF_NONE_MATCH};
use std::io;
use wald_core::object_lock::{LockMode, ObjectLock};

const LOCK_MODE: &str = "x-amz-object-lock-mode";
const LOCK_UNTIL: &str = "x-amz-object-lock-retain-until-date";
const SHA256: &str = "x-amz-checksum-sha256";
/// Says which checksum header to look at. Ceph's radosgw 20 checks none without it.
const CHECKSUM_ALGORITHM: &str = "x-amz-sdk-checksum-algorithm";
const CHECKSUMS: [(&str, &str); 2] = [(SHA256, "SHA256"), ("x-amz-checksum-crc64nvme", "CRC64NVME")];

/// Credentials could not be had; the request was not sent.
#[derive(Debug, thiserror::Error)]
#[error("no credentials to sign the request with")]
pub(super) struct NoCredentials(#[source] pub(super) object_store::Error);

/// The lock that an answer's headers tell of; a server leaves them out for an object without lock,
/// and for a reader without the right to see it.
#[derive(Clone, Copy, Debug)]
pub(super) struct ToldLock(pub(super) ObjectLock);

/// How the body of a trial is signed, other than usual: see [`super::trial`].
#[derive(Clone, Copy, Debug)]
pub(super) enum TrialSignature {
    /// For a body with this SHA-256.
    For([u8; 32]),
    /// Not at all.
    Unsigned,
}

/// How requests to one bucket are signed.
#[derive(Debug)]
pub(super) struct Signing {
    pub(super) http: HttpClient,
    /// None for a bucket that is open to everybody (`AWS_SKIP_SIGNATURE`).
    pub(super) credentials: Option<AwsCredentialProvider>,
    pub(super) region: String,
    pub(super) sign_payload: bool,
    pub(super) request_payer: bool,
}

#[async_trait]
impl HttpService for Signing {
    /// A request that creates an object carries its [`ObjectLock`] as an extension.
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        if let Some(lock) = request.extensions().get::<ObjectLock>().copied() {
            let until = HeaderValue::from_str(&until_text(lock)).map_err(unsendable)?;
            request.headers_mut().insert(LOCK_MODE, HeaderValue::from_static(lock.mode.as_s3()));
            request.headers_mut().insert(LOCK_UNTIL, until);
        }
        if completes_upload(&request) {
            request.headers_mut().insert(IF_NONE_MATCH, HeaderValue::from_static("*"));
        }
        let checksum = CHECKSUMS.iter().find(|(header, _)| request.headers().contains_key(*header));
        if let Some((_, algorithm)) = checksum {
            request.headers_mut().insert(CHECKSUM_ALGORITHM, HeaderValue::from_static(algorithm));
        }
        self.sign(&mut request).await?;
        let mut answer = self.http.execute(request).await?;
        if let Some(lock) = told_lock(answer.headers()) {
            answer.extensions_mut().insert(ToldLock(lock));
        }
        Ok(answer)
    }
}

impl Signing {
    async fn sign(&self, request: &mut HttpRequest) -> Result<(), HttpError> {
        let Some(credentials) = &self.credentials else { return Ok(()) };
        // Not a time-out or a cut: the provider has tried as often as it should.
        let refused = |error| HttpError::new(HttpErrorKind::Decode, NoCredentials(error));
        let credential = credentials.get_credential().await.map_err(refused)?;
        let (sign_payload, digest) = match request.extensions().get::<TrialSignature>() {
            Some(TrialSignature::For(digest)) => (true, Some(digest.to_vec())),
            Some(TrialSignature::Unsigned) => (false, None),
            None if self.sign_payload => (true, payload_digest(request)?),
            None => (false, None),
        };
        AwsAuthorizer::new(&credential, "s3", &self.region)
            .with_sign_payload(sign_payload)
            .with_request_payer(self.request_payer)
            .try_authorize(request, digest.as_deref())
            .map_err(refused)
    }
}

/// The SHA-256 of a body in several pieces, which the authorizer can't take itself: it would
/// announce a body signed in chunks, or, its `is_empty` being the wrong way round for this kind of
/// body, an empty one.
fn payload_digest(request: &HttpRequest) -> Result<Option<Vec<u8>>, HttpError> {
    if request.body().as_bytes().is_some() {
        return Ok(None);
    }
    let told = request.headers().get(SHA256).and_then(|value| BASE64_STANDARD.decode(value).ok());
    match told {
        Some(digest) => Ok(Some(digest)),
        None => Err(unsendable(io::Error::other("a body without its SHA-256 can't be signed"))),
    }
}

fn unsendable(error: impl std::error::Error + Send + Sync + 'static) -> HttpError {
    HttpError::new(HttpErrorKind::Decode, error)
}

fn completes_upload(request: &HttpRequest) -> bool {
    let query = request.uri().query().unwrap_or_default();
    request.method().as_str() == "POST" && query.split('&').any(|pair| pair.starts_with("uploadId="))
}

/// A lock's end as S3 reads it. Whole seconds, which every server understands, and never earlier
/// than the lock says.
pub(super) fn until_text(lock: ObjectLock) -> String {
    let up = i64::from(lock.until.subsec_nanosecond() > 0);
    let whole = Timestamp::from_second(lock.until.as_second().saturating_add(up));
    whole.unwrap_or(lock.until).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn told_lock(headers: &HeaderMap) -> Option<ObjectLock> {
    let mode = LockMode::from_s3(headers.get(LOCK_MODE)?.to_str().ok()?)?;
    let until = headers.get(LOCK_UNTIL)?.to_str().ok()?.parse().ok()?;
    Some(ObjectLock { mode, until })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_lock_is_rounded_up_to_whole_seconds() {
        let shown =
            |text: &str| until_text(ObjectLock { mode: LockMode::Compliance, until: text.parse().unwrap() });
        assert_eq!(shown("2026-11-22T21:00:00Z"), "2026-11-22T21:00:00Z");
        assert_eq!(shown("2026-11-22T21:00:00.000000001Z"), "2026-11-22T21:00:01Z");
        assert_eq!(shown("2026-12-31T23:59:59.999Z"), "2027-01-01T00:00:00Z");
    }
}
