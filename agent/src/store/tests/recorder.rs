//! A server inside the process, for what goes over the line byte by byte: it keeps the requests as
//! they would be sent, and checks their signatures as S3 does.

use async_trait::async_trait;
use bytes::Bytes;
use object_store::client::{HttpClient, HttpError, HttpRequest, HttpResponse, HttpResponseBody, HttpService};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use sha2::{Digest, Sha256};
use std::sync::{Arc, Mutex};

/// One request, as it was sent.
#[derive(Clone, Debug)]
pub(in crate::store) struct Sent {
    pub(in crate::store) method: String,
    pub(in crate::store) url: url::Url,
    pub(in crate::store) headers: HeaderMap,
}

type Answers = dyn Fn(usize, &Sent) -> (u16, Vec<(&'static str, String)>, String) + Send + Sync;

/// Answers by a function of the request's number and the request.
#[derive(Clone)]
pub(in crate::store) struct Recorder {
    sent: Arc<Mutex<Vec<Sent>>>,
    answers: Arc<Answers>,
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Recorder")
    }
}

impl Recorder {
    pub(in crate::store) fn new(
        answers: impl Fn(usize, &Sent) -> (u16, Vec<(&'static str, String)>, String) + Send + Sync + 'static,
    ) -> Self {
        Self { sent: Arc::default(), answers: Arc::new(answers) }
    }

    pub(in crate::store) fn client(&self) -> HttpClient {
        HttpClient::new(self.clone())
    }

    pub(in crate::store) fn sent(&self) -> Vec<Sent> {
        self.sent.lock().unwrap().clone()
    }
}

#[async_trait]
impl HttpService for Recorder {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (parts, _body) = request.into_parts();
        let sent = Sent {
            method: parts.method.to_string(),
            url: parts.uri.to_string().parse().unwrap(),
            headers: parts.headers,
        };
        let number = self.sent.lock().unwrap().len();
        let (status, headers, text) = (self.answers)(number, &sent);
        self.sent.lock().unwrap().push(sent);
        let mut answer = HttpResponse::new(HttpResponseBody::from(Bytes::from(text)));
        *answer.status_mut() = reqwest::StatusCode::from_u16(status).unwrap();
        for (name, value) in headers {
            answer
                .headers_mut()
                .insert(HeaderName::from_static(name), HeaderValue::from_str(&value).unwrap());
        }
        Ok(answer)
    }
}

impl Sent {
    pub(in crate::store) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The headers that the signature covers.
    pub(in crate::store) fn signed_headers(&self) -> Vec<String> {
        let names = self.authorization("SignedHeaders=");
        names.split(';').map(str::to_owned).collect()
    }

    /// Id of the key that the request is signed with.
    pub(in crate::store) fn key_id(&self) -> String {
        self.authorization("Credential=").split('/').next().unwrap().to_owned()
    }

    fn authorization(&self, field: &str) -> String {
        let (_, rest) = self.header("authorization").unwrap().split_once(field).unwrap();
        rest.split(',').next().unwrap().to_owned()
    }

    /// Computes the signature as the receiver does, from what arrived and the secret alone.
    /// <https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html>
    pub(in crate::store) fn is_signed_with(&self, secret: &str) -> bool {
        let host = match self.url.port() {
            Some(port) => format!("{}:{port}", self.url.host_str().unwrap()),
            None => self.url.host_str().unwrap().to_owned(),
        };
        let canonical_headers: String = self
            .signed_headers()
            .iter()
            .map(|name| match name.as_str() {
                "host" => format!("host:{host}\n"),
                name => format!("{name}:{}\n", self.header(name).unwrap().trim()),
            })
            .collect();
        let mut query: Vec<&str> =
            self.url.query().map(|query| query.split('&').collect()).unwrap_or_default();
        query.sort_unstable();
        let canonical = format!(
            "{}\n{}\n{}\n{canonical_headers}\n{}\n{}",
            self.method,
            self.url.path(),
            query.join("&"),
            self.signed_headers().join(";"),
            self.header("x-amz-content-sha256").unwrap()
        );
        let credential = self.authorization("Credential=");
        let scope: Vec<&str> = credential.split('/').skip(1).collect();
        let date = self.header("x-amz-date").unwrap();
        let to_sign =
            format!("AWS4-HMAC-SHA256\n{date}\n{}\n{}", scope.join("/"), hex(&Sha256::digest(canonical)));
        let mut key = format!("AWS4{secret}").into_bytes();
        for step in scope {
            key = hmac(&key, step.as_bytes());
        }
        hex(&hmac(&key, to_sign.as_bytes())) == self.authorization("Signature=")
    }
}

pub(in crate::store) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// RFC 2104.
fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut block = if key.len() > 64 { Sha256::digest(key).to_vec() } else { key.to_vec() };
    block.resize(64, 0);
    let pad = |mask: u8| block.iter().map(|byte| byte ^ mask).collect::<Vec<u8>>();
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().to_vec()
}
