//! Reading what an S3 server, or whatever stands in its place, says about a request.
//!
//! Invariant: `NoSuchKey` comes out only where the server itself used that word with a 404, and
//! did not add that it keeps older versions.

use super::credentials::CredentialsError;
use super::error::{element, transport_failure};
use super::signing::NoCredentials;
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
    /// The object has no version of that id.
    NoSuchVersion,
    /// Its newest version is a delete marker.
    DeleteMarked,
    /// A lock is asked for in a bucket that was made without object lock.
    NoObjectLock,
    /// The asked-for range lies outside the object, as for any range of an empty one.
    RangeOutside,
    /// The credentials are wrong, expired or lack a right.
    Refused,
    /// The bucket, region or kind of server can't be right.
    Misconfigured(&'static str),
    /// The server does not understand, or does not take, what the request asks for.
    Invalid,
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

/// What a code means, whatever was asked for.
fn code_verdict(code: Option<&str>) -> Option<S3Verdict> {
    let code = code?;
    if REFUSING_CODES.contains(&code) {
        return Some(S3Verdict::Refused);
    }
    let known = MISCONFIGURED_CODES.iter().find(|(known, _)| code == *known);
    known.map(|(_, problem)| S3Verdict::Misconfigured(problem))
}

/// The verdict on an answer to a request that is not object_store's.
pub(super) fn answer_verdict(status: u16, code: Option<&str>, text: &str) -> S3Verdict {
    if let Some(verdict) = code_verdict(code) {
        return verdict;
    }
    match (status, code) {
        (404, Some("NoSuchKey")) => S3Verdict::NoSuchKey,
        (404, Some("NoSuchVersion")) => S3Verdict::NoSuchVersion,
        (400, Some("InvalidRequest")) if speaks_of_object_lock(text) => S3Verdict::NoObjectLock,
        (400, Some("InvalidRequest")) => S3Verdict::Invalid,
        (401 | 403, _) => S3Verdict::Refused,
        (405 | 501, _) => S3Verdict::Misconfigured("the server does not offer a function that wald needs"),
        _ => S3Verdict::Unclear,
    }
}

/// `Bucket is missing Object Lock Configuration`, in whatever spelling.
pub(super) fn speaks_of_object_lock(text: &str) -> bool {
    let letters: String = text.chars().filter(char::is_ascii_alphanumeric).collect();
    letters.to_ascii_lowercase().contains("objectlock")
}

/// The verdict on a request of wald's own that got no answer.
pub(super) fn transport_verdict(error: &(dyn Error + 'static)) -> S3Verdict {
    match no_credentials(error).map(s3_verdict) {
        _ if DeleteMarked::is_below(error) => S3Verdict::DeleteMarked,
        _ if CredentialsError::is_below(error) => {
            S3Verdict::Misconfigured("there are no credentials that can be used")
        }
        Some(S3Verdict::Refused) => S3Verdict::Refused,
        // Whoever gives credentials may say that there is no such thing: not our object.
        _ => S3Verdict::Unclear,
    }
}

/// The error that kept object_store from getting credentials.
fn no_credentials<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e object_store::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(NoCredentials(why)) = error.downcast_ref::<NoCredentials>() {
            return Some(why);
        }
        next = error.source();
    }
    None
}

/// Reads the server's words from an error of object_store, whose own kinds do not tell a missing
/// object from a missing bucket. Its error type for requests is private; its text ends with the
/// body. Should that text ever change, the verdict is `Unclear`, never `NoSuchKey`.
pub(super) fn s3_verdict(error: &object_store::Error) -> S3Verdict {
    if transport_failure(error).is_some() {
        return transport_verdict(error);
    }
    let text = error.to_string();
    let code = element(&text, "Code");
    if let Some(verdict) = code_verdict(code) {
        return verdict;
    }
    match (error, code) {
        (object_store::Error::NotFound { .. }, Some("NoSuchKey")) => S3Verdict::NoSuchKey,
        (object_store::Error::NotFound { .. }, Some("NoSuchVersion")) => S3Verdict::NoSuchVersion,
        (_, Some("InvalidRange")) => S3Verdict::RangeOutside,
        (_, Some("InvalidRequest")) => S3Verdict::Invalid,
        (object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. }, _) => {
            S3Verdict::Refused
        }
        (object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. }, _) => {
            S3Verdict::Misconfigured("the server does not offer a function that wald needs")
        }
        _ => S3Verdict::Unclear,
    }
}
