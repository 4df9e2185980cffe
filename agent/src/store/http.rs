//! What stands between object_store and the network: time-outs that fit the size of what is
//! sent, and a look at answers that would otherwise be believed.
//!
//! Invariants: a request's time grows with its body, so that a large object on a slow line is
//! not cut off and a stalled one is; a list is believed only if it is one. (object_store reads
//! any page of markup, such as the log-in page of a proxy, as an empty list.)

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::TryStreamExt;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody,
    HttpService, ReqwestConnector,
};
use std::io;
use std::time::Duration;

/// The slowest line that is not taken for a stalled one, in bytes per second.
const UPLOAD_RATE_MIN: u64 = 256 << 10;
/// S3 may take minutes to put the parts of an upload together:
/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_CompleteMultipartUpload.html>.
const ASSEMBLY_TIMEOUT: Duration = Duration::from_mins(5);
/// A list holds at most 1000 names of at most 1024 bytes each, and about as much around them.
const LIST_BYTES_MAX: usize = 16 << 20;
/// What answers to anything but a read may hold: an error's or an upload's description.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// How much longer than usual a request with such a body may take.
pub(super) fn time_to_send(bytes: u64) -> Duration {
    Duration::from_secs(bytes / UPLOAD_RATE_MIN)
}

/// Makes [`Guarded`] clients.
#[derive(Debug)]
pub(super) struct Connector {
    pub(super) request_timeout: Duration,
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let reading = ReqwestConnector::default().connect(options)?;
        let writing = ReqwestConnector::default().connect(&options.clone().with_timeout_disabled())?;
        Ok(HttpClient::new(Guarded { reading, writing, request_timeout: self.request_timeout }))
    }
}

#[derive(Debug)]
struct Guarded {
    /// With the time-out of a request of fixed size.
    reading: HttpClient,
    /// Without one: it is set for each request here.
    writing: HttpClient,
    request_timeout: Duration,
}

#[async_trait]
impl HttpService for Guarded {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let query = request.uri().query().unwrap_or_default().to_owned();
        let has = |name: &str| query.split('&').any(|pair| pair.split('=').next() == Some(name));
        match request.method().as_str() {
            "PUT" | "POST" => {
                let assembles = request.method().as_str() == "POST" && has("uploadId");
                let usual =
                    if assembles { self.request_timeout.max(ASSEMBLY_TIMEOUT) } else { self.request_timeout };
                let sent = u64::try_from(request.body().content_length()).unwrap_or(u64::MAX);
                let limit = usual + time_to_send(sent);
                let exchange = async { whole(self.writing.execute(request).await?, ANSWER_BYTES_MAX).await };
                let answer = tokio::time::timeout(limit, exchange).await;
                answer.unwrap_or_else(|_| Err(timed_out(limit))).map(|(answer, _)| answer)
            }
            "GET" if has("list-type") => {
                let answer = self.reading.execute(request).await?;
                if !answer.status().is_success() {
                    return Ok(answer);
                }
                let (answer, body) = whole(answer, LIST_BYTES_MAX).await?;
                if is_list(&body) { Ok(answer) } else { Err(no_list()) }
            }
            _ => self.reading.execute(request).await,
        }
    }
}

/// An answer with its body read.
async fn whole(answer: HttpResponse, max_bytes: usize) -> Result<(HttpResponse, Bytes), HttpError> {
    let (parts, body) = answer.into_parts();
    let mut stream = body.bytes_stream();
    let mut bytes = BytesMut::new();
    while let Some(piece) = stream.try_next().await? {
        if bytes.len() + piece.len() > max_bytes {
            let error = io::Error::other(format!("the answer has more than {max_bytes} bytes"));
            return Err(HttpError::new(HttpErrorKind::Decode, error));
        }
        bytes.extend_from_slice(&piece);
    }
    let bytes = bytes.freeze();
    Ok((HttpResponse::from_parts(parts, HttpResponseBody::from(bytes.clone())), bytes))
}

/// Whether this is a page of a list, and says how to go on if it is not the last.
fn is_list(body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(body);
    let truncated = text.contains("<IsTruncated>true</IsTruncated>");
    text.contains("<ListBucketResult")
        && text.contains("</ListBucketResult>")
        && (!truncated || text.contains("<NextContinuationToken>"))
}

fn no_list() -> HttpError {
    let error =
        io::Error::new(io::ErrorKind::InvalidData, "asked for a list of objects and got something else");
    HttpError::new(HttpErrorKind::Decode, error)
}

fn timed_out(limit: Duration) -> HttpError {
    HttpError::new(
        HttpErrorKind::Timeout,
        io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {limit:?}")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_complete_page_is_a_list() {
        let page = |inside: &str| {
            format!("<?xml version=\"1.0\"?>\n<ListBucketResult xmlns=\"x\">{inside}</ListBucketResult>")
        };
        assert!(is_list(page("").as_bytes()));
        assert!(is_list(
            page("<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>")
                .as_bytes()
        ));
        assert!(!is_list(page("<IsTruncated>true</IsTruncated>").as_bytes()));
        for text in ["", "<html>please log in</html>", "<ListBucketResult>", "\u{0}"] {
            assert!(!is_list(text.as_bytes()), "{text}");
        }
        assert!(!is_list(b"\xff\xfe"));
    }

    #[test]
    fn a_large_body_has_more_time() {
        assert_eq!(time_to_send(100), Duration::ZERO);
        assert_eq!(time_to_send(64 << 20), Duration::from_secs(256));
    }
}
