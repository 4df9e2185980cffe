//! The requests to S3 that object_store does not offer: sending one, trying it again, and reading
//! what a refusal says.
//!
//! Invariants: requests go the same way as object_store's, signed and guarded; every one of them
//! may be sent twice without harm, and is, where the server stumbled; an answer is bounded.

use super::error::{Cause, element};
use super::http::{LIST_BYTES_MAX, whole};
use super::secrets::Secrets;
use super::signing::TrialSignature;
use backon::{ExponentialBuilder, Retryable};
use bytes::Bytes;
use jiff::Timestamp;
use object_store::RetryConfig;
use object_store::client::{HttpClient, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{DATE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode};
use std::fmt::Write as _;
use std::io;
use std::sync::Arc;

/// What a signature's canonical form leaves as it is (RFC 3986, 2.3).
const IN_QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const IN_PATH: &AsciiSet = &IN_QUERY.remove(b'/');

/// Sends requests to one bucket. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct S3Requests(Arc<Bucket>);

#[derive(Debug)]
struct Bucket {
    http: HttpClient,
    /// Without a slash at its end.
    url: String,
    retry: RetryConfig,
}

/// One request.
#[derive(Clone, Debug)]
pub(super) struct S3Request<'r> {
    pub(super) method: Method,
    /// In the whole bucket; empty for the bucket itself.
    pub(super) key: &'r str,
    pub(super) query: Vec<(&'static str, String)>,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Bytes,
    /// Other than usual.
    pub(super) signature: Option<TrialSignature>,
}

impl<'r> S3Request<'r> {
    /// A request for an object.
    pub(super) fn plain(method: Method, key: &'r str) -> Self {
        Self { method, key, query: Vec::new(), headers: Vec::new(), body: Bytes::new(), signature: None }
    }

    /// A request for a part of an object's description, or with an empty key of the bucket's.
    pub(super) fn new(method: Method, key: &'r str, subresource: &'static str) -> Self {
        Self::plain(method, key).with(subresource, "")
    }

    /// With one more pair in its query.
    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }
}

/// What the server answered, good or not.
#[derive(Clone, Debug)]
pub(super) struct S3Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl S3Answer {
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The code of an error in S3's words, as `NoSuchKey`.
    pub(super) fn code(&self) -> Option<String> {
        let text = self.text();
        text.contains("<Error>").then(|| element(&text, "Code").map(str::to_owned)).flatten()
    }

    /// The server's clock, in whole seconds.
    pub(super) fn time(&self) -> Option<Timestamp> {
        let date = self.headers.get(DATE)?.to_str().ok()?;
        jiff::fmt::rfc2822::parse(date).ok().map(|date| date.timestamp())
    }

    fn is_transient(&self) -> bool {
        self.status.is_server_error() && self.status != StatusCode::NOT_IMPLEMENTED
            || matches!(self.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
    }

    /// Status, code and message, without secrets.
    pub(super) fn cause(&self, secrets: &Secrets) -> Cause {
        let text = self.text();
        let said = match (self.code(), element(&text, "Message")) {
            (Some(code), Some(message)) => format!("{code}: {message}"),
            (Some(code), None) => code,
            _ => "a page that is not in the language of S3".to_owned(),
        };
        Cause::new(secrets.hide(&format!("the server answered {}: {said}", self.status)))
    }
}

/// Why there is no good answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum S3Failure {
    /// An answer that is none of those that mean success.
    #[error("the server answered {}", .0.status)]
    Answered(Box<S3Answer>),
    /// No answer.
    #[error("no answer")]
    Transport(#[from] HttpError),
}

impl S3Failure {
    fn is_transient(&self) -> bool {
        match self {
            S3Failure::Answered(answer) => answer.is_transient(),
            S3Failure::Transport(error) => {
                !matches!(error.kind(), HttpErrorKind::Decode | HttpErrorKind::Unknown)
            }
        }
    }

    /// The code of the server's error, if it is one.
    pub(super) fn code(&self) -> Option<String> {
        match self {
            S3Failure::Answered(answer) => answer.code(),
            S3Failure::Transport(_) => None,
        }
    }
}

impl S3Requests {
    pub(super) fn new(http: HttpClient, url: &str, retry: RetryConfig) -> Self {
        Self(Arc::new(Bucket { http, url: url.trim_end_matches('/').to_owned(), retry }))
    }

    /// Whether nobody on the way can change what is sent.
    pub(super) fn is_tls(&self) -> bool {
        self.0.url.starts_with("https://")
    }

    /// Sends a request until it is answered with success, or with a refusal that a second try would
    /// not change, or the time for tries is over.
    pub(super) async fn send(&self, request: &S3Request<'_>) -> Result<S3Answer, S3Failure> {
        let retry = &self.0.retry;
        let backoff = ExponentialBuilder::default()
            .with_jitter()
            .with_min_delay(retry.backoff.init_backoff)
            .with_max_delay(retry.backoff.max_backoff)
            .with_max_times(retry.max_retries)
            .with_total_delay(Some(retry.retry_timeout));
        (|| self.once(request)).retry(backoff).when(S3Failure::is_transient).await
    }

    async fn once(&self, request: &S3Request<'_>) -> Result<S3Answer, S3Failure> {
        let answer = self.0.http.execute(self.http_request(request)?).await?;
        let status = answer.status();
        let (answer, body) = whole(answer, LIST_BYTES_MAX).await?;
        let answer = S3Answer { status, headers: answer.headers().clone(), body };
        if status.is_success() { Ok(answer) } else { Err(S3Failure::Answered(Box::new(answer))) }
    }

    fn http_request(&self, request: &S3Request<'_>) -> Result<HttpRequest, HttpError> {
        let invalid = || {
            let error = io::Error::new(io::ErrorKind::InvalidInput, "this request can't be written as HTTP");
            HttpError::new(HttpErrorKind::Decode, error)
        };
        let mut url = self.0.url.clone();
        if !request.key.is_empty() {
            let _ = write!(url, "/{}", utf8_percent_encode(request.key, IN_PATH));
        }
        for (index, (name, value)) in request.query.iter().enumerate() {
            let joint = if index == 0 { '?' } else { '&' };
            let _ = write!(url, "{joint}{name}={}", utf8_percent_encode(value, IN_QUERY));
        }
        let mut http = HttpRequest::new(HttpRequestBody::from(request.body.clone()));
        *http.method_mut() = request.method.clone();
        *http.uri_mut() = url.parse().map_err(|_| invalid())?;
        if let Some(signature) = request.signature {
            http.extensions_mut().insert(signature);
        }
        for (name, value) in &request.headers {
            let value = HeaderValue::from_str(value).map_err(|_| invalid())?;
            http.headers_mut().insert(HeaderName::from_static(name), value);
        }
        Ok(http)
    }
}
