//! Requests that a good server refuses, sent to see whether this one does.
//!
//! Invariant: what a server took although it is wrong is removed again before the verdict, as far
//! as the server allows.

use super::backend::{Inner, Kind, Store};
use super::error::{Operation, StoreError};
use super::s3_requests::{S3Failure, S3Request, S3Requests};
use super::signing::TrialSignature;
use super::versions::{PendingUpload, VersionId};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use jiff::Timestamp;
use reqwest::Method;
use sha2::{Digest, Sha256};
use wald_core::object_key::ObjectKey;

/// What is wrong with a body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flaw {
    /// Its `x-amz-checksum-*` header is that of another body; its signature is right. Tried with
    /// both algorithms that wald uses, on an object and on a part of an upload.
    Checksum,
    /// Its signature is for another body. It carries no checksum.
    Signature,
}

const BODY: &[u8] = b"a body that is not what its header says";
/// CRC-64/NVME of nothing, which is not that of the body.
const WRONG_CRC64: [u8; 8] = [0; 8];

impl Store {
    /// Whether the server refuses a body with this flaw. The key must be free; it is free again
    /// afterwards. A repository without a server refuses nothing, and no body can go wrong there.
    pub async fn refuses(&self, key: &ObjectKey, flaw: Flaw) -> Result<bool, StoreError> {
        let Kind::S3(requests) = &self.inner.kind else { return Ok(true) };
        let trial = Trial { inner: &self.inner, requests, key };
        match flaw {
            Flaw::Signature => trial.refuses_object(None).await,
            Flaw::Checksum => {
                let sha256 =
                    ("x-amz-checksum-sha256", BASE64_STANDARD.encode(Sha256::digest(b"another body")));
                let crc64 = ("x-amz-checksum-crc64nvme", BASE64_STANDARD.encode(WRONG_CRC64));
                Ok(trial.refuses_object(Some(sha256.clone())).await?
                    && trial.refuses_object(Some(crc64.clone())).await?
                    && trial.refuses_part("SHA256", sha256).await?
                    && trial.refuses_part("CRC64NVME", crc64).await?)
            }
        }
    }
}

struct Trial<'t> {
    inner: &'t Inner,
    requests: &'t S3Requests,
    key: &'t ObjectKey,
}

impl Trial<'_> {
    async fn refuses_object(&self, header: Option<(&'static str, String)>) -> Result<bool, StoreError> {
        let key = self.inner.key_in_bucket(self.key.as_str());
        let mut request = S3Request::plain(Method::PUT, &key);
        request.body = Bytes::from_static(BODY);
        match header {
            Some(header) => {
                request.headers.push(header);
                request.signature = self.signature();
            }
            None => request.signature = Some(TrialSignature::For(Sha256::digest(b"another body").into())),
        }
        match self.send(Operation::Create, &request).await? {
            Err(failure) => self.is_refusal(Operation::Create, failure),
            Ok(answer) => {
                let version = answer.headers.get("x-amz-version-id").and_then(|id| id.to_str().ok());
                let version = version.map_or_else(VersionId::null, VersionId::new);
                // A bucket may lock what it is given; then it stays until that lapses.
                let _ =
                    super::s3_lock::delete_version(self.inner, self.requests, self.key.as_str(), &version)
                        .await;
                Ok(false)
            }
        }
    }

    async fn refuses_part(
        &self,
        algorithm: &str,
        header: (&'static str, String),
    ) -> Result<bool, StoreError> {
        let key = self.inner.key_in_bucket(self.key.as_str());
        let mut begin = S3Request::new(Method::POST, &key, "uploads");
        begin.headers.push(("x-amz-checksum-algorithm", algorithm.to_owned()));
        let begun = self.send(Operation::Upload, &begin).await?;
        let begun =
            begun.map_err(|failure| self.inner.s3_failure(Operation::Upload, self.key.as_str(), &failure))?;
        let upload_id = super::error::element(&begun.text(), "UploadId").map(str::to_owned);
        let upload_id = upload_id.ok_or_else(|| {
            self.inner.bad_answer(Operation::Upload, self.key.as_str(), "an upload without an id")
        })?;
        let mut part =
            S3Request::plain(Method::PUT, &key).with("partNumber", "1").with("uploadId", &*upload_id);
        part.headers.push(header);
        part.signature = self.signature();
        part.body = Bytes::from_static(BODY);
        let sent = self.send(Operation::Upload, &part).await?;
        let pending =
            PendingUpload { name: self.key.as_str().to_owned(), upload_id, begun: Timestamp::UNIX_EPOCH };
        super::s3_lock::abort_pending(self.inner, self.requests, &pending).await?;
        match sent {
            Ok(_) => Ok(false),
            Err(failure) => self.is_refusal(Operation::Upload, failure),
        }
    }

    /// As with the payloads that are trusted to their checksums.
    fn signature(&self) -> Option<TrialSignature> {
        self.requests.is_tls().then_some(TrialSignature::Unsigned)
    }

    async fn send(
        &self,
        operation: Operation,
        request: &S3Request<'_>,
    ) -> Result<Result<super::s3_requests::S3Answer, S3Failure>, StoreError> {
        self.inner.within_deadline(operation, self.key.as_str(), self.requests.send(request)).await
    }

    /// An outage or a missing right says nothing about checksums; the codes of a mismatch do.
    fn is_refusal(&self, operation: Operation, failure: S3Failure) -> Result<bool, StoreError> {
        const MISMATCHES: [&str; 5] = [
            "BadDigest",
            "InvalidDigest",
            "InvalidRequest",
            "XAmzContentChecksumMismatch",
            "XAmzContentSHA256Mismatch",
        ];
        match failure.code().as_deref() {
            Some(code) if MISMATCHES.contains(&code) => Ok(true),
            // An older server takes a digest that is not the body's for a wrong signature.
            Some("SignatureDoesNotMatch") => Ok(true),
            _ => Err(self.inner.s3_failure(operation, self.key.as_str(), &failure)),
        }
    }
}
