//! What stands between object_store and the network: time-outs that fit the size of what is
//! sent, and a look at answers that would otherwise be believed.
//!
//! Invariants: a request's time grows with its body, so that a large object on a slow line is
//! not cut off and a stalled one is; a list is believed only if it is one (object_store reads
//! any page of markup, such as the log-in page of a proxy, as an empty list); an answer comes
//! from the server that was asked, to the request that was made: redirects are not followed; an
//! upload is complete only if the answer says so and not by its status alone. A deleted object that
//! is kept as a version is told apart here, since object_store drops the header that says so.

use super::error::element;
use super::s3_answer::DeleteMarked;
use super::tries::{TryCause, TryCounts};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::TryStreamExt;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody,
    HttpService,
};
use object_store::{ClientConfigKey, ClientOptions};
use reqwest::redirect::Policy;
use reqwest::tls::Certificate;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use url::Url;

/// The slowest line that is not taken for a stalled one, in bytes per second.
const UPLOAD_RATE_MIN: u64 = 256 << 10;
/// S3 may take minutes to put the parts of an upload together:
/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_CompleteMultipartUpload.html>.
const ASSEMBLY_TIMEOUT: Duration = Duration::from_mins(5);
/// A list holds at most 1000 names of at most 1024 bytes each, and about as much around them.
pub(super) const LIST_BYTES_MAX: usize = 16 << 20;
/// What answers to anything but a read may hold: an error's or an upload's description.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// How much longer than usual a request with such a body may take.
pub(super) fn time_to_send(bytes: u64) -> Duration {
    Duration::from_secs(bytes / UPLOAD_RATE_MIN)
}

/// Makes [`Guarded`] clients, one of each kind.
///
/// object_store's own connector follows redirects and can't be told not to. Then a PUT answered
/// with 303 becomes a GET of another page, whose 200 passes for "stored"
/// (RFC 9110, 15.4.4), and 307 sends WAL to a host that nobody configured.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    settings: Arc<ConnectorSettings>,
    /// Made so far: with plain HTTP allowed, and not.
    made: Arc<Mutex<Vec<(bool, HttpClient)>>>,
}

/// What all connections have in common.
#[derive(Debug)]
pub(super) struct ConnectorSettings {
    pub(super) connect_timeout: Duration,
    pub(super) request_timeout: Duration,
    /// Trusted besides the system's.
    pub(super) certificates: Vec<Certificate>,
    /// Whether the system's are trusted, and read at all.
    pub(super) system_certificates: bool,
    pub(super) tries: TryCounts,
}

impl ConnectorSettings {
    fn client(&self, allow_http: bool) -> reqwest::ClientBuilder {
        let builder = reqwest::Client::builder()
            .user_agent(concat!("wald/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(self.connect_timeout)
            .redirect(Policy::none())
            .https_only(!allow_http);
        let certificates = self.certificates.iter().cloned();
        if self.system_certificates {
            builder.tls_certs_merge(certificates)
        } else {
            builder.tls_certs_only(certificates)
        }
    }
}

impl Connector {
    pub(super) fn new(settings: ConnectorSettings) -> Self {
        Self { settings: Arc::new(settings), made: Arc::default() }
    }
}

impl HttpConnector for Connector {
    /// Of the options only one differs between what object_store connects to: the services that
    /// give credentials to a machine of a cloud speak plain HTTP.
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let allow_http =
            options.get_config_value(&ClientConfigKey::AllowHttp).is_some_and(|value| value == "true");
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, client)) = made.iter().find(|(allowed, _)| *allowed == allow_http) {
            return Ok(client.clone());
        }
        let built = |client: reqwest::ClientBuilder| match client.build() {
            Ok(client) => Ok(HttpClient::new(client)),
            Err(error) => Err(object_store::Error::Generic { store: "HTTP", source: Box::new(error) }),
        };
        let request_timeout = self.settings.request_timeout;
        let reading = built(self.settings.client(allow_http).timeout(request_timeout))?;
        let writing = built(self.settings.client(allow_http))?;
        let client = HttpClient::new(Guarded {
            reading,
            writing,
            request_timeout,
            tries: self.settings.tries.clone(),
        });
        made.push((allow_http, client.clone()));
        Ok(client)
    }
}

#[derive(Debug)]
struct Guarded {
    /// With the time-out of a request of fixed size.
    reading: HttpClient,
    /// Without one: it is set for each request here.
    writing: HttpClient,
    request_timeout: Duration,
    tries: TryCounts,
}

#[async_trait]
impl HttpService for Guarded {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let answer = self.answer(request).await;
        let failed = match &answer {
            Ok(answer) => TryCause::of_status(answer.status().as_u16()),
            Err(error) => Some(TryCause::of_error(error)),
        };
        if let Some(cause) = failed {
            self.tries.add(cause);
        }
        let answer = answer?;
        if is_delete_marked(&answer) {
            // Asking again would not help: this kind is not.
            return Err(HttpError::new(HttpErrorKind::Decode, DeleteMarked));
        }
        match redirected_to(&answer) {
            Some(location) => Err(redirected(location)),
            None => Ok(answer),
        }
    }
}

impl Guarded {
    async fn answer(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
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
                let (answer, body) = answer.unwrap_or_else(|_| Err(timed_out(limit)))?;
                if assembles && answer.status().is_success() {
                    believe_assembly(&body)?;
                }
                Ok(answer)
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

/// The answer to a DELETE has the same header, with a good status.
fn is_delete_marked(answer: &HttpResponse) -> bool {
    let marked = answer.headers().get("x-amz-delete-marker");
    answer.status().as_u16() == 404
        && marked.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"))
}

/// Where an answer sends its reader. S3's own answer about a wrong region names no place, and is
/// read by object_store.
fn redirected_to(answer: &HttpResponse) -> Option<&str> {
    let location = answer.headers().get("location").filter(|_| answer.status().is_redirection())?;
    Some(location.to_str().unwrap_or_default())
}

/// The host alone is told: the rest of a location may hold a signature.
fn redirected(location: &str) -> HttpError {
    let host = Url::parse(location).ok().and_then(|url| url.host_str().map(str::to_owned));
    let host = host.unwrap_or_else(|| "another page".to_owned());
    let error = io::Error::other(format!(
        "the answer is a redirect to {host}, which is not followed; correct [repository] endpoint or region, \
         or what stands between"
    ));
    HttpError::new(HttpErrorKind::Decode, error)
}

/// An answer with its body read.
pub(super) async fn whole(
    answer: HttpResponse,
    max_bytes: usize,
) -> Result<(HttpResponse, Bytes), HttpError> {
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

/// S3 begins its answer to the completion of an upload with 200 before it knows how that ends; an
/// error then comes in the body. What object_store tries again by itself is left to it.
/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_CompleteMultipartUpload.html>
fn believe_assembly(body: &[u8]) -> Result<(), HttpError> {
    let text = String::from_utf8_lossy(body);
    let is_retried = ["InternalError", "SlowDown"].iter().any(|code| text.contains(code));
    let is_completed = text.contains("<CompleteMultipartUploadResult") && !text.contains("<Error>");
    if is_completed || is_retried {
        return Ok(());
    }
    let code = element(&text, "Code").unwrap_or("a page that is not in the language of S3");
    let error = io::Error::other(format!("the upload was not completed, though the answer is 200: {code}"));
    Err(HttpError::new(HttpErrorKind::Decode, error))
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
