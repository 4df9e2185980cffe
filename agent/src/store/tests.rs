//! How answers are read that no well-behaved server gives: each comes from a canned server.

mod careful;
mod recorder;
mod requests;
mod signing;

use super::{AwsEnvironment, Guarantees, Store, StoreError, StoreOptions};
use bytes::Bytes;
use futures::TryStreamExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use wald_core::object_key::ObjectKey;

const SECRET: &str = "wJalrXUtnFEMI-K7MDENG-bPxRfiCYEXAMPLEKEY";
const TOKEN: &str = "FwoGZXIvYXdzEXAMPLETOKEN";

/// A server that gives the same answer to every request, and keeps the requests' heads.
struct Canned {
    endpoint: String,
    requests: Arc<AtomicUsize>,
    heads: Arc<Mutex<Vec<String>>>,
}

async fn canned(answer: impl Fn(usize, &str) -> Vec<u8> + Send + Sync + 'static) -> Canned {
    let answer = Arc::new(answer);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (requests, heads) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
    let (count, kept) = (Arc::clone(&requests), Arc::clone(&heads));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            let mut buffer = [0; 65536];
            while !request.windows(4).any(|w| w == b"\r\n\r\n") {
                match stream.read(&mut buffer).await {
                    Ok(read) if read > 0 => request.extend_from_slice(&buffer[..read]),
                    _ => break,
                }
            }
            let end = request.windows(4).position(|w| w == b"\r\n\r\n").map_or(request.len(), |end| end + 4);
            let head = String::from_utf8_lossy(&request[..end]).into_owned();
            let mut missing = number_after(&head, "content-length: ").saturating_sub(request.len() - end);
            while missing > 0 {
                match stream.read(&mut buffer).await {
                    Ok(read) if read > 0 => missing = missing.saturating_sub(read),
                    _ => break,
                }
            }
            kept.lock().unwrap().push(head.clone());
            // An answer that takes its time must not hold up the client's clock.
            let (answer, request) = (Arc::clone(&answer), count.fetch_add(1, Ordering::SeqCst));
            let bytes = tokio::task::spawn_blocking(move || answer(request, &head)).await.unwrap();
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
        }
    });
    Canned { endpoint, requests, heads }
}

/// The number that follows a piece of a request's head; 0 without one.
fn number_after(head: &str, piece: &str) -> usize {
    let rest = head.split_once(piece).map_or("", |(_, rest)| rest);
    rest.split(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

fn http(status: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}").into_bytes()
}

fn s3_error(status: &str, code: &str) -> Vec<u8> {
    http(
        status,
        &format!(
            "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>Something about it.</Message>\
             <AWSAccessKeyId>AKIAEXAMPLE</AWSAccessKeyId>\
             <CanonicalRequest>x-amz-security-token:{TOKEN}</CanonicalRequest></Error>"
        ),
    )
}

fn options(endpoint: &str) -> StoreOptions {
    let mut options = StoreOptions::new("s3://bucket/prefix");
    options.s3.endpoint = Some(endpoint.to_owned());
    options.s3.path_style = true;
    options.s3.allow_http = true;
    options.s3.environment =
        AwsEnvironment::with_key_pair("AKIAEXAMPLE", SECRET).with("AWS_SESSION_TOKEN", TOKEN);
    // So long that a busy machine is not taken for a silent server.
    options.connect_timeout = Duration::from_secs(20);
    options.request_timeout = Duration::from_secs(20);
    options.retry_timeout = Duration::from_millis(300);
    options
}

/// For the tests in which a time-out is to pass.
fn impatient(endpoint: &str) -> StoreOptions {
    let mut options = options(endpoint);
    options.connect_timeout = Duration::from_millis(500);
    options.request_timeout = Duration::from_millis(500);
    options
}

/// A store that takes its server at its word, as one that was tried.
fn open(options: &StoreOptions) -> Store {
    Store::open(options).unwrap().with_guarantees(Guarantees::all())
}

fn key() -> ObjectKey {
    ObjectKey::check("key").unwrap()
}

/// What the operations that look for one object say about an answer, the one to HEAD included.
async fn verdicts(answer: Vec<u8>) -> Vec<StoreError> {
    let server = canned(move |_, head| {
        if head.starts_with("HEAD") {
            let text = String::from_utf8_lossy(&answer).into_owned();
            text.split("\r\n\r\n").next().map(|head| format!("{head}\r\n\r\n").into_bytes()).unwrap()
        } else {
            answer.clone()
        }
    })
    .await;
    let store = open(&options(&server.endpoint));
    vec![
        store.get(&key(), 10).await.unwrap_err(),
        store.get_start(&key(), 10).await.unwrap_err(),
        store.stat(&key()).await.unwrap_err(),
    ]
}

#[tokio::test]
async fn only_the_stores_own_word_is_absence() {
    for error in verdicts(s3_error("404 Not Found", "NoSuchKey")).await {
        assert!(error.is_absent(), "{error:?}");
    }
    for answer in [
        http("404 Not Found", "<html><body>no such page</body></html>"),
        http("404 Not Found", ""),
        http("404 Not Found", "NoSuchKey"),
        s3_error("404 Not Found", "NoSuchUpload"),
        s3_error("404 Not Found", "NoSuchVersion"),
        s3_error("404 Not Found", "Unheard"),
        http("410 Gone", ""),
        http("400 Bad Request", ""),
        http("301 Moved Permanently", ""),
        http("200 OK", "<html>please log in</html>"),
        s3_error("503 Slow Down", "SlowDown"),
        s3_error("500 Internal Server Error", "NoSuchKey"),
        b"HTTP/1.1 200".to_vec(),
        b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(),
        Vec::new(),
    ] {
        let shown = String::from_utf8_lossy(&answer).into_owned();
        for error in verdicts(answer).await {
            let doubt = matches!(error, StoreError::Unreachable { .. } | StoreError::BadAnswer { .. });
            assert!(doubt, "{shown}: {error:?}");
        }
    }
}

#[tokio::test]
async fn an_object_that_was_deleted_and_is_kept_as_a_version_is_not_absent() {
    for marked in ["x-amz-delete-marker: true", "X-Amz-Delete-Marker: True"] {
        for answer in [s3_error("404 Not Found", "NoSuchKey"), http("404 Not Found", "")] {
            for error in verdicts(answer.splice_header(marked)).await {
                assert!(matches!(error, StoreError::Deleted { .. }) && !error.is_absent(), "{error:?}");
                assert!(error.to_string().contains("remove the delete marker"), "{error}");
            }
        }
    }
    let unmarked = s3_error("404 Not Found", "NoSuchKey").splice_header("x-amz-delete-marker: false");
    for error in verdicts(unmarked).await {
        assert!(error.is_absent(), "{error:?}");
    }
}

#[tokio::test]
async fn a_delete_marker_does_not_stand_in_the_way_of_an_upload() {
    let server = canned(|_, head| {
        let begun = "<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>";
        if head.starts_with("POST") {
            http("200 OK", begun)
        } else {
            http("404 Not Found", "").splice_header("x-amz-delete-marker: true")
        }
    })
    .await;
    let store = open(&options(&server.endpoint));
    assert!(store.upload(&key()).await.is_ok());
}

#[tokio::test]
async fn deleting_what_is_kept_as_a_version_succeeds() {
    let server = canned(|_, _| http("204 No Content", "").splice_header("x-amz-delete-marker: true")).await;
    open(&options(&server.endpoint)).delete(&key()).await.unwrap();
}

#[tokio::test]
async fn credentials_and_configuration_are_told_from_outages() {
    for (status, code) in [
        ("403 Forbidden", "AccessDenied"),
        ("403 Forbidden", "InvalidAccessKeyId"),
        ("403 Forbidden", "SignatureDoesNotMatch"),
        ("403 Forbidden", "RequestTimeTooSkewed"),
        ("400 Bad Request", "ExpiredToken"),
        ("400 Bad Request", "InvalidToken"),
        ("401 Unauthorized", "Unheard"),
    ] {
        // A HEAD with status 400 has no body to tell why, and so the object is read.
        for error in verdicts(s3_error(status, code)).await {
            assert!(matches!(error, StoreError::Refused { .. }), "{code}: {error:?}");
        }
    }
    for (status, code) in [
        ("404 Not Found", "NoSuchBucket"),
        ("301 Moved Permanently", "PermanentRedirect"),
        ("400 Bad Request", "AuthorizationHeaderMalformed"),
    ] {
        let error = verdicts(s3_error(status, code)).await.remove(0);
        let misconfigured = matches!(error, StoreError::Misconfigured { .. });
        // object_store drops the body of a redirect.
        assert!(misconfigured || code == "PermanentRedirect" && !error.is_absent(), "{code}: {error:?}");
    }
}

#[tokio::test]
async fn a_missing_bucket_is_never_an_absent_object() {
    for error in verdicts(s3_error("404 Not Found", "NoSuchBucket")).await {
        assert!(matches!(error, StoreError::Misconfigured { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn no_message_shows_a_secret() {
    let mut shown = String::new();
    for code in ["SignatureDoesNotMatch", "NoSuchBucket", "InternalError", "NoSuchKey", TOKEN, SECRET] {
        for error in verdicts(s3_error("403 Forbidden", code)).await {
            let source = std::error::Error::source(&error).map(|source| format!("{source} {source:?}"));
            shown += &format!("{error} {error:?} {error:#?} {source:?}\n");
        }
        for error in verdicts(http("500 Oops", &format!("plain text with {TOKEN} and {SECRET}"))).await {
            shown += &format!("{error} {error:?}\n");
        }
    }
    let options = options("http://127.0.0.1:1");
    let store = open(&options);
    shown += &format!("{options:?} {options:#?} {store:?} {store:#?} {}", store.describe());
    assert!(shown.contains("AWS_SECRET_ACCESS_KEY"), "the test looks at nothing: {shown}");
    assert!(!shown.contains(SECRET) && !shown.contains(TOKEN), "{shown}");
}

#[tokio::test]
async fn no_log_line_shows_a_secret() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let writer = Arc::clone(&log);
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || Log(Arc::clone(&writer)))
        .finish();
    // While there is one subscriber alone, a thread without any decides for all whether a line is of interest.
    let _second = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::new());
    let guard = tracing::subscriber::set_default(subscriber);
    for answer in [s3_error("403 Forbidden", "SignatureDoesNotMatch"), s3_error("503 Slow Down", TOKEN)] {
        verdicts(answer).await;
    }
    drop(guard);
    let log = String::from_utf8(log.lock().unwrap().clone()).unwrap();
    assert!(log.contains("backing off"), "the test looks at nothing: {log}");
    assert!(!log.contains(SECRET) && !log.contains(TOKEN), "{log}");
}

struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_refused_connection_and_a_silent_server_are_unreachable_within_the_time_outs() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = format!("http://{}", silent.local_addr().unwrap());
    for endpoint in ["http://127.0.0.1:1".to_owned(), silent] {
        let store = Store::open(&impatient(&endpoint)).unwrap();
        let begun = Instant::now();
        let error = store.get(&key(), 10).await.unwrap_err();
        assert!(matches!(error, StoreError::Unreachable { .. }), "{error:?}");
        let error = store.create(&key(), Bytes::from_static(b"x").into()).await.unwrap_err();
        assert!(matches!(error, StoreError::Unreachable { .. }), "{error:?}");
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn a_creation_is_conditional_signed_and_carries_a_checksum() {
    let server = canned(|_, _| s3_error("412 Precondition Failed", "PreconditionFailed")).await;
    let store = open(&options(&server.endpoint));
    let created = store.create(&key(), Bytes::from_static(b"x").into()).await.unwrap();
    assert_eq!(created, super::Created::Exists);
    let head = server.heads.lock().unwrap().concat().to_lowercase();
    assert!(head.starts_with("put /bucket/prefix/check/key "), "{head}");
    assert!(head.contains("if-none-match: *"), "{head}");
    assert!(head.contains("x-amz-checksum-sha256: "), "{head}");
    assert!(!head.contains("unsigned-payload"), "{head}");
}

#[tokio::test]
async fn what_a_crash_leaves_in_a_directory_is_not_listed_and_not_in_the_way() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&StoreOptions::new(format!("file://{}", dir.path().display()))).unwrap();
    std::fs::create_dir(dir.path().join("check")).unwrap();
    // LocalFileSystem writes to such names first, both for a creation and for an upload.
    for left in ["check/key#1", "check/key#2", "wald.json#1", "check/other#17"] {
        std::fs::write(dir.path().join(left), "half").unwrap();
    }
    let listed =
        async || -> Vec<String> { store.list("").map_ok(|object| object.name).try_collect().await.unwrap() };
    assert_eq!(listed().await, Vec::<String>::new());
    assert!(store.get(&key(), 10).await.unwrap_err().is_absent());
    let created = store.create(&key(), Bytes::from_static(b"whole").into()).await.unwrap();
    assert_eq!(created, super::Created::Stored);
    let other = ObjectKey::check("other").unwrap();
    let mut upload = store.upload(&other).await.unwrap();
    upload.put_part(Bytes::from_static(b"whole")).await.unwrap();
    assert_eq!(listed().await, ["check/key"]);
    upload.finish().await.unwrap();
    let mut names = listed().await;
    names.sort();
    assert_eq!(names, ["check/key", "check/other"]);
    for key in [key(), other] {
        assert_eq!(store.get(&key, 10).await.unwrap(), "whole");
    }
}

#[tokio::test]
async fn a_redirect_is_never_followed_and_never_a_success() {
    let stranger = canned(|_, _| s3_error("404 Not Found", "NoSuchKey")).await;
    let elsewhere = format!("{}/login?signature=hidden-from-logs", stranger.endpoint);
    for status in ["303 See Other", "301 Moved", "302 Found", "307 Temporary", "308 Permanent"] {
        for location in ["/login", elsewhere.as_str()] {
            let location = format!("location: {location}");
            // What a proxy's log-in page is: good, and with an ETag.
            let server = canned(move |_, head| {
                if head.contains("/login") {
                    http("200 OK", "<html>please log in</html>").splice_header("etag: \"e\"")
                } else {
                    http(status, "").splice_header(&location)
                }
            })
            .await;
            let store = open(&options(&server.endpoint));
            let body = || Bytes::from_static(b"x");
            let errors = [
                store.create(&key(), body().into()).await.unwrap_err(),
                store.get(&key(), 10).await.unwrap_err(),
                store.stat(&key()).await.unwrap_err(),
                store.upload(&key()).await.err().unwrap(),
                store.list("").try_collect::<Vec<_>>().await.unwrap_err(),
                store.delete(&key()).await.unwrap_err(),
            ];
            for error in errors {
                assert!(matches!(error, StoreError::Unreachable { .. }), "{status}: {error:?}");
                let text = crate::explain::chain(&error);
                assert!(text.contains("redirect") && !text.contains("hidden-from-logs"), "{text}");
            }
            let heads = server.heads.lock().unwrap().concat();
            assert!(!heads.contains("/login"), "{status}: {heads}");
        }
    }
    assert_eq!(stranger.requests.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_conflict_is_no_proof_of_an_object() {
    let server = canned(|_, _| s3_error("409 Conflict", "ConditionalRequestConflict")).await;
    let store = open(&options(&server.endpoint));
    let created = store.create(&key(), Bytes::from_static(b"x").into()).await.unwrap();
    assert_eq!(created, super::Created::Exists);
}

#[tokio::test]
async fn a_stumbling_server_is_asked_again() {
    let server = canned(|request, _| match request {
        0 => s3_error("503 Slow Down", "SlowDown"),
        _ => http("206 Partial Content", "0123456789").splice_header("content-range: bytes 0-9/10"),
    })
    .await;
    let mut options = options(&server.endpoint);
    options.retry_timeout = Duration::from_secs(5);
    let store = open(&options);
    assert_eq!(store.get(&key(), 10).await.unwrap(), "0123456789");
    assert_eq!(server.requests.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn more_than_allowed_is_not_read() {
    let server = canned(|_, _| {
        http("206 Partial Content", "0123456789").splice_header("content-range: bytes 0-9/1000000000000")
    })
    .await;
    let store = open(&options(&server.endpoint));
    let error = store.get(&key(), 10).await.unwrap_err();
    assert!(matches!(error, StoreError::TooLarge { size_bytes: 1_000_000_000_000, .. }), "{error:?}");
}

#[tokio::test]
async fn a_body_that_is_cut_short_is_not_an_object() {
    let server = canned(|_, _| {
        let whole = http("206 Partial Content", "0123456789").splice_header("content-range: bytes 0-9/10");
        whole[..whole.len() - 3].to_vec()
    })
    .await;
    let store = open(&options(&server.endpoint));
    let error = store.get(&key(), 10).await.unwrap_err();
    assert!(matches!(error, StoreError::Unreachable { .. }), "{error:?}");
}

#[tokio::test]
async fn a_download_that_is_cut_goes_on_where_it_was() {
    const OBJECT: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    // Each answer promises what was asked for and breaks off after 10 bytes.
    let server = canned(|_, head| {
        let from = number_after(head, "range: bytes=");
        let to = OBJECT.len();
        let mut answer = format!(
            "HTTP/1.1 206 Partial Content\r\nconnection: close\r\netag: \"e\"\r\ncontent-length: {}\r\n\
             content-range: bytes {from}-{}/{to}\r\n\r\n",
            to - from,
            to - 1
        )
        .into_bytes();
        answer.extend_from_slice(&OBJECT[from..to.min(from + 10)]);
        answer
    })
    .await;
    let mut options = options(&server.endpoint);
    options.retry_timeout = Duration::from_secs(20);
    let store = open(&options);
    assert_eq!(store.get(&key(), 100).await.unwrap(), OBJECT);
    assert_eq!(server.requests.load(Ordering::SeqCst), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_body_may_take_longer_than_a_small_one() {
    let server = canned(|_, _| {
        std::thread::sleep(Duration::from_millis(1500));
        http("200 OK", "").splice_header("etag: \"e\"")
    })
    .await;
    let store = open(&impatient(&server.endpoint));
    let large = Bytes::from(vec![7; 1 << 20]);
    assert_eq!(store.create(&key(), large.into()).await.unwrap(), super::Created::Stored);
    let error = store.create(&key(), Bytes::from_static(b"small").into()).await.unwrap_err();
    assert!(matches!(error, StoreError::Unreachable { .. }), "{error:?}");
}

#[tokio::test]
async fn a_list_that_breaks_off_ends_with_an_error() {
    for answer in [
        s3_error("503 Slow Down", "SlowDown"),
        s3_error("404 Not Found", "NoSuchBucket"),
        http("200 OK", "<html>please log in</html>"),
        http("404 Not Found", "<html>no such page</html>"),
    ] {
        let server = canned(move |_, _| answer.clone()).await;
        let store = open(&options(&server.endpoint));
        let error = store.list("wal/").try_collect::<Vec<_>>().await.unwrap_err();
        assert!(!error.is_absent(), "{error:?}");
    }
}

#[test]
fn plain_http_must_be_allowed_and_secrets_stay_out_of_urls() {
    let mut plain = options("http://127.0.0.1:1");
    plain.s3.allow_http = false;
    let mut with_password = options("https://user:hunter2hunter2@host");
    with_password.s3.allow_http = false;
    for options in [plain, with_password] {
        let error = Store::open(&options).unwrap_err();
        assert!(matches!(error, StoreError::Misconfigured { .. }), "{error:?}");
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }
}

#[tokio::test]
async fn the_configuration_wins_over_the_environment() {
    let server = canned(|_, _| s3_error("404 Not Found", "NoSuchKey")).await;
    let mut options = options(&server.endpoint);
    options.s3.region = Some("eu-central-1".to_owned());
    for (name, value) in [
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:1"),
        ("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1"),
        ("AWS_BUCKET", "other"),
        ("AWS_REGION", "us-west-2"),
        ("AWS_DEFAULT_REGION", "us-west-2"),
        ("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "true"),
        ("AWS_CONDITIONAL_PUT", "disabled"),
        ("AWS_UNSIGNED_PAYLOAD", "true"),
        ("AWS_CHECKSUM_ALGORITHM", "crc64nvme"),
    ] {
        options.s3.environment = options.s3.environment.with(name, value);
    }
    let store = open(&options);
    assert!(store.get(&key(), 10).await.unwrap_err().is_absent());
    let head = server.heads.lock().unwrap().concat();
    assert!(head.starts_with("GET /bucket/prefix/check/key "), "{head}");
    assert!(head.contains("/eu-central-1/s3/aws4_request"), "{head}");
}

trait SpliceHeader {
    fn splice_header(self, header: &str) -> Vec<u8>;
}

impl SpliceHeader for Vec<u8> {
    fn splice_header(self, header: &str) -> Vec<u8> {
        let text = String::from_utf8(self).unwrap();
        text.replacen("\r\n", &format!("\r\n{header}\r\n"), 1).into_bytes()
    }
}

/// Serves every request over TLS with the test authority's certificate.
fn canned_tls(answer: Vec<u8>) -> String {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use std::io::{Read, Write};

    let chain = vec![CertificateDer::from_pem_slice(include_bytes!("testdata/server.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("testdata/server-key.pem")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = Arc::new(config.unwrap().with_no_client_auth().with_single_cert(chain, key).unwrap());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("https://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut tls = rustls::StreamOwned::new(connection, stream.unwrap());
            let mut buffer = [0; 65536];
            // A client that does not trust the certificate ends the connection here.
            if tls.read(&mut buffer).is_ok() {
                let _ = tls.write_all(&answer);
                tls.conn.send_close_notify();
                let _ = tls.flush();
            }
        }
    });
    endpoint
}

#[tokio::test]
async fn tls_trusts_the_configured_authority_and_no_stranger() {
    let endpoint = canned_tls(s3_error("404 Not Found", "NoSuchKey"));
    let authority = concat!(env!("CARGO_MANIFEST_DIR"), "/src/store/testdata/ca.pem");
    let mut options = options(&endpoint);
    options.s3.allow_http = false;
    options.s3.ca_file = Some(authority.into());
    let store = open(&options);
    let error = store.get(&key(), 10).await.unwrap_err();
    assert!(error.is_absent(), "{error:?}");

    // The test authority is not one of the system's.
    options.s3.ca_file = Some("/etc/ssl/certs/ca-certificates.crt".into());
    let error = match Store::open(&options) {
        Ok(store) => store.get(&key(), 10).await.unwrap_err(),
        Err(error) => error,
    };
    assert!(!error.is_absent(), "{error:?}");
}

#[test]
fn a_ca_file_that_is_none_is_named() {
    let mut options = options("https://127.0.0.1:1");
    for path in ["/no/such/file.pem", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")] {
        options.s3.ca_file = Some(path.into());
        let error = Store::open(&options).unwrap_err().to_string();
        assert!(error.contains(path), "{error}");
    }
}
