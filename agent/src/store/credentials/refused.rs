//! Notices answers that say that a key has expired or is not known any more, so that the next
//! request is signed with a fresh one.

use super::Credentials;
use crate::store::error::element;
use async_trait::async_trait;
use bytes::BytesMut;
use futures::TryStreamExt;
use object_store::client::{
    HttpClient, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
};
use std::io;
use std::sync::Arc;

/// The codes that another credential would not get. `SignatureDoesNotMatch`: a secret that was
/// changed while its key's id stayed.
/// <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>
const STALE_CODES: [&str; 6] = [
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidAccessKeyId",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
];
/// An error's description is never larger.
const BODY_BYTES_MAX: usize = 1 << 20;

/// Passes requests on and reads refusals.
#[derive(Debug)]
pub(in crate::store) struct RefusalWatch {
    pub(in crate::store) http: HttpClient,
    pub(in crate::store) credentials: Arc<Credentials>,
}

#[async_trait]
impl HttpService for RefusalWatch {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let bodiless = request.method().as_str() == "HEAD";
        let answer = self.http.execute(request).await?;
        // S3 says "expired" with 400 and the rest with 403.
        // The answer to a HEAD does not say which; whoever asks so reads next, and is told.
        if bodiless || !matches!(answer.status().as_u16(), 400 | 401 | 403) {
            return Ok(answer);
        }
        let (parts, body) = answer.into_parts();
        let mut stream = body.bytes_stream();
        let mut bytes = BytesMut::new();
        while let Some(piece) = stream.try_next().await? {
            if bytes.len() + piece.len() > BODY_BYTES_MAX {
                let error = io::Error::other("the description of an error has no end");
                return Err(HttpError::new(HttpErrorKind::Decode, error));
            }
            bytes.extend_from_slice(&piece);
        }
        let bytes = bytes.freeze();
        let stale =
            element(&String::from_utf8_lossy(&bytes), "Code").is_some_and(|c| STALE_CODES.contains(&c));
        if stale {
            self.credentials.were_refused();
        }
        Ok(HttpResponse::from_parts(parts, HttpResponseBody::from(bytes)))
    }
}
