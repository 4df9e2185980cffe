//! Reading what an S3 server, or whatever stands in its place, says about a request.
//!
//! Invariant: `NoSuchKey` comes out only where the server itself used that word with a 404, and
//! did not add that it keeps older versions.

use super::credentials::CredentialsError;
use super::error::{element, transport_failure};
use std::error::Error;

/// What takes the place of the answer to a read whose object has a delete marker: a 404 with
/// `NoSuchKey` and the header `x-amz-delete-marker: true`, which object_store does not pass on.
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/DeleteMarker.html>
#[derive(Debug, thiserror::Error)]
#[error("the newest version is a delete marker")]
pub(super) struct DeleteMarked;

impl DeleteMarked {
    fn is_below(error: &(dyn Error + 'static)) -> bool {
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

/// What an S3 server, or whatever stands in its place, said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum S3Verdict {
    /// The key does not exist, in the server's own words (`NoSuchKey`).
    NoSuchKey,
    /// Its newest version is a delete marker.
    DeleteMarked,
    /// The asked-for range lies outside the object, as for any range of an empty one.
    RangeOutside,
    /// The credentials are wrong, expired or lack a right.
    Refused,
    /// The bucket, region or kind of server can't be right.
    Misconfigured(&'static str),
    /// Anything else.
    Unclear,
}

/// Codes with status 400 that speak of credentials; 401 and 403 always do.
/// <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>
const REFUSING_CODES: [&str; 10] = [
    "AccessDenied",
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidToken",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
    "UnrecognizedClientException",
];

const MISCONFIGURED_CODES: [(&str, &str); 7] = [
    ("NoSuchBucket", "there is no such bucket; create it, or correct [repository] url"),
    ("InvalidBucketName", "S3 does not allow this name of a bucket"),
    ("PermanentRedirect", "the bucket is in another region; correct [repository] region"),
    ("IllegalLocationConstraintException", "the bucket is in another region; correct [repository] region"),
    ("AuthorizationHeaderMalformed", "the region is not the bucket's; correct [repository] region"),
    ("NotImplemented", "the server does not offer a function that wald needs"),
    ("MethodNotAllowed", "the server does not offer a function that wald needs"),
];

/// Reads the server's words from an error of object_store, whose own kinds do not tell a missing
/// object from a missing bucket. Its error type for requests is private; its text ends with the
/// body. Should that text ever change, the verdict is `Unclear`, never `NoSuchKey`.
pub(super) fn s3_verdict(error: &object_store::Error) -> S3Verdict {
    if DeleteMarked::is_below(error) {
        return S3Verdict::DeleteMarked;
    }
    if CredentialsError::is_below(error) {
        return S3Verdict::Misconfigured("there are no credentials that can be used");
    }
    if transport_failure(error).is_some() {
        return S3Verdict::Unclear;
    }
    let text = error.to_string();
    let code = element(&text, "Code");
    let known = MISCONFIGURED_CODES.iter().find(|(known, _)| code == Some(known));
    match (error, code) {
        (_, Some(code)) if REFUSING_CODES.contains(&code) => S3Verdict::Refused,
        (_, Some(_)) if known.is_some() => S3Verdict::Misconfigured(known.map_or("", |(_, problem)| problem)),
        (object_store::Error::NotFound { .. }, Some("NoSuchKey")) => S3Verdict::NoSuchKey,
        (_, Some("InvalidRange")) => S3Verdict::RangeOutside,
        (object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. }, _) => {
            S3Verdict::Refused
        }
        (object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. }, _) => {
            S3Verdict::Misconfigured("the server does not offer a function that wald needs")
        }
        _ => S3Verdict::Unclear,
    }
}
