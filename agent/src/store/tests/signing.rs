//! What goes over the line: locks, conditions and signatures, checked as the receiver would.

use super::super::s3::Access;
use super::super::signing::Signing;
use super::recorder::{Recorder, Sent, hex};
use super::{SECRET, options};
use crate::store::Guarantees;
use async_trait::async_trait;
use bytes::Bytes;
use object_store::aws::AwsCredential;
use object_store::client::{HttpClient, HttpRequest, HttpRequestBody, HttpService};
use object_store::path::Path;
use object_store::{
    CredentialProvider, Extensions, MultipartUpload, ObjectStore, ObjectStoreExt, PutMode,
    PutMultipartOptions, PutOptions, PutPayload,
};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use wald_core::object_lock::{LockMode, ObjectLock};

fn lock() -> ObjectLock {
    ObjectLock { mode: LockMode::Compliance, until: "2026-11-29T21:00:00.5Z".parse().unwrap() }
}

fn with_lock() -> Extensions {
    let mut extensions = Extensions::new();
    extensions.insert(lock());
    extensions
}

/// A server that takes every request of an upload.
fn willing(_: usize, sent: &Sent) -> (u16, Vec<(&'static str, String)>, String) {
    let query = sent.url.query().unwrap_or_default();
    let text = match sent.method.as_str() {
        "POST" if query.starts_with("uploads") => {
            "<InitiateMultipartUploadResult><UploadId>id+/=</UploadId></InitiateMultipartUploadResult>"
        }
        "POST" => "<CompleteMultipartUploadResult><ETag>\"e\"</ETag></CompleteMultipartUploadResult>",
        _ => "",
    };
    (200, vec![("etag", "\"e\"".to_owned())], text.to_owned())
}

/// The requests of one creation and one upload.
async fn requests(endpoint: &str, guarantees: Guarantees) -> Vec<Sent> {
    let recorder = Recorder::new(willing);
    let access = Access::open(&options(endpoint), "bucket", "here", &Default::default()).unwrap();
    let objects = access.through(recorder.client()).connect(guarantees).unwrap().objects;
    let path = Path::from("prefix/a b+c=d/ü");
    let payload: PutPayload =
        [Bytes::from_static(b"in two "), Bytes::from_static(b"pieces")].into_iter().collect();
    for payload in [payload, PutPayload::new()] {
        let options = PutOptions { mode: PutMode::Create, extensions: with_lock(), ..PutOptions::default() };
        objects.put_opts(&path, payload, options).await.unwrap();
    }
    let options = PutMultipartOptions { extensions: with_lock(), ..PutMultipartOptions::default() };
    let mut upload = objects.put_multipart_opts(&path, options).await.unwrap();
    upload.put_part(Bytes::from_static(b"part").into()).await.unwrap();
    upload.complete().await.unwrap();
    objects.delete(&path).await.unwrap();
    recorder.sent()
}

#[tokio::test]
async fn every_request_is_signed_as_it_is_sent_and_what_creates_carries_the_lock() {
    let sent = requests("http://127.0.0.1:9000", Guarantees::all()).await;
    let methods: Vec<&str> = sent.iter().map(|sent| sent.method.as_str()).collect();
    assert_eq!(methods, ["PUT", "PUT", "POST", "PUT", "POST", "DELETE"]);
    for request in &sent {
        assert!(request.is_signed_with(SECRET), "{request:?}");
        assert!(!request.is_signed_with("another"), "{request:?}");
        // Whatever is sent under a name that means something to S3 is covered by the signature.
        let signed = request.signed_headers();
        for name in request.headers.keys().filter(|name| name.as_str().starts_with("x-amz-")) {
            assert!(signed.iter().any(|signed| signed == name.as_str()), "{name} is not signed");
        }
    }
    for (place, creates) in [true, true, true, false, false, false].into_iter().enumerate() {
        let mode = sent[place].header("x-amz-object-lock-mode");
        let until = sent[place].header("x-amz-object-lock-retain-until-date");
        let expected = creates.then_some("COMPLIANCE");
        assert_eq!((mode, until), (expected, creates.then_some("2026-11-29T21:00:01Z")), "{place}");
    }
    for (place, conditional) in [true, true, false, false, true, false].into_iter().enumerate() {
        assert_eq!(sent[place].header("if-none-match"), conditional.then_some("*"), "{place}");
    }
}

#[tokio::test]
async fn a_signature_covers_the_body_that_is_sent() {
    let sent = requests("http://127.0.0.1:9000", Guarantees::all()).await;
    for (place, body) in [(0, "in two pieces"), (1, ""), (3, "part"), (5, "")] {
        assert_eq!(sent[place].header("x-amz-content-sha256"), Some(&*hex(&Sha256::digest(body))), "{place}");
    }
    for place in [0, 1, 3] {
        assert!(sent[place].header("x-amz-checksum-sha256").is_some());
        assert_eq!(sent[place].header("x-amz-sdk-checksum-algorithm"), Some("SHA256"));
    }
}

#[tokio::test]
async fn over_tls_a_server_that_compares_checksums_saves_the_digest() {
    let unsure = Guarantees { checksums: false, ..Guarantees::all() };
    for (endpoint, guarantees, signed) in [
        ("http://127.0.0.1:9000", Guarantees::all(), true),
        ("https://127.0.0.1:9000", unsure, true),
        ("https://127.0.0.1:9000", Guarantees::all(), false),
    ] {
        let sent = requests(endpoint, guarantees).await;
        for place in [0, 1, 3] {
            let request = &sent[place];
            assert!(request.is_signed_with(SECRET), "{request:?}");
            let unsigned = request.header("x-amz-content-sha256") == Some("UNSIGNED-PAYLOAD");
            assert_eq!(unsigned, !signed, "{request:?}");
            let checksum = if signed { "x-amz-checksum-sha256" } else { "x-amz-checksum-crc64nvme" };
            assert!(request.header(checksum).is_some(), "{request:?}");
        }
    }
}

/// Gives another key each time.
#[derive(Debug, Default)]
struct Rotating(AtomicUsize);

#[async_trait]
impl CredentialProvider for Rotating {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let number = self.0.fetch_add(1, Ordering::SeqCst);
        if number == 3 {
            let source = "the key has expired".into();
            return Err(object_store::Error::Unauthenticated { path: String::new(), source });
        }
        let key_id = format!("KEY{number}");
        Ok(Arc::new(AwsCredential { secret_key: format!("secret of {key_id}"), key_id, token: None }))
    }
}

#[tokio::test]
async fn each_try_is_signed_with_the_keys_of_its_moment_and_nothing_goes_out_without() {
    let recorder = Recorder::new(|_, _| (503, Vec::new(), String::new()));
    let signing = Signing {
        http: recorder.client(),
        credentials: Some(Arc::new(Rotating::default())),
        region: "us-east-1".to_owned(),
        sign_payload: true,
        request_payer: false,
    };
    let request = || {
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.uri_mut() = "http://127.0.0.1:9000/bucket/key".parse().unwrap();
        request
    };
    for number in 0..3 {
        signing.call(request()).await.unwrap();
        let sent = recorder.sent().pop().unwrap();
        assert_eq!(sent.key_id(), format!("KEY{number}"));
        assert!(sent.is_signed_with(&format!("secret of KEY{number}")));
    }
    assert!(signing.call(request()).await.is_err());
    assert_eq!(recorder.sent().len(), 3);
}

#[tokio::test]
async fn a_body_in_pieces_without_its_digest_is_not_sent() {
    let recorder = Recorder::new(willing);
    let signing = HttpClient::new(Signing {
        http: recorder.client(),
        credentials: Some(Arc::new(Rotating::default())),
        region: "us-east-1".to_owned(),
        sign_payload: true,
        request_payer: false,
    });
    let mut request = HttpRequest::new(PutPayload::from_static(b"x").into());
    *request.uri_mut() = "http://127.0.0.1:9000/bucket/key".parse().unwrap();
    assert!(signing.execute(request).await.is_err());
    assert_eq!(recorder.sent().len(), 0);
}
