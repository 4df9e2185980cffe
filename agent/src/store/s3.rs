//! The S3 client: object_store's, with every setting that durability rests on made explicit.
//!
//! Invariants: what the configuration says wins over the environment; every payload is signed, or
//! goes over TLS to a server that was seen to compare checksums, and carries a checksum; an upload
//! is never retried without its "only if absent".

use super::credentials::{Credentials, RefusalWatch};
use super::error::{Cause, StoreError};
use super::guarantees::Guarantees;
use super::http::{Connector, ConnectorSettings};
use super::options::StoreOptions;
use super::patient::Patient;
use super::s3_requests::S3Requests;
use super::secrets::Secrets;
use super::signing::Signing;
use object_store::aws::{
    AmazonS3Builder, AmazonS3ConfigKey, AwsCredentialProvider, Checksum, S3ConditionalPut,
};
use object_store::client::{HttpClient, HttpConnector};
use object_store::{BackoffConfig, ClientOptions, RetryConfig};
use reqwest::tls::Certificate;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// First wait before a failed request is tried again.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// Longest wait between two tries.
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// Tries of one request, whatever the time they take.
const RETRIES_MAX: usize = 10;
/// As object_store has it.
const REGION_DEFAULT: &str = "us-east-1";

/// The variables that [`Credentials`] reads, again when they change.
const KEY_PAIR: [&str; 3] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];

/// How one bucket is reached.
#[derive(Clone, Debug)]
pub(super) struct Access {
    /// For object_store, with everything but what goes over the line.
    builder: AmazonS3Builder,
    http: HttpClient,
    /// None for a bucket that is open to everybody.
    credentials: Option<AwsCredentialProvider>,
    region: String,
    request_payer: bool,
    /// Of the bucket, without a slash at its end.
    pub(super) url: String,
    retry: RetryConfig,
    /// Added to the time for tries of a part.
    patience: Duration,
}

/// How one bucket is spoken to.
#[derive(Clone, Debug)]
pub(super) struct Connected {
    pub(super) objects: Patient,
    pub(super) requests: S3Requests,
}

impl Access {
    /// Reads the options and finds where credentials come from. Nothing is sent yet.
    pub(super) fn open(
        options: &StoreOptions,
        bucket: &str,
        repository: &str,
        secrets: &Secrets,
    ) -> Result<Self, StoreError> {
        let misconfigured =
            |problem: String| StoreError::Misconfigured { repository: repository.to_owned(), problem };
        let failed = |error: object_store::Error| misconfigured(Cause::of(&error, secrets).to_string());
        use_ring();

        let connector = connector(options).map_err(misconfigured)?;
        let client_options = ClientOptions::new().with_allow_http(options.s3.allow_http);
        let mut builder = AmazonS3Builder::new();
        let ours = |name: &&str| !KEY_PAIR.contains(name);
        for (name, value) in options.s3.environment.variables().filter(|(name, _)| ours(name)) {
            // Variables that object_store does not know are somebody else's.
            if let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() {
                builder = builder.with_config(key, value);
            }
        }
        if let Some(region) = &options.s3.region {
            builder = builder.with_region(region);
        }
        let set = |key| builder.get_config_value(&key);
        let is_set = |key| set(key).is_some_and(|value| value == "true" || value == "requester");
        let region = set(AmazonS3ConfigKey::Region).unwrap_or_else(|| REGION_DEFAULT.to_owned());
        let endpoint = options
            .s3
            .endpoint
            .clone()
            .or_else(|| set(AmazonS3ConfigKey::S3Endpoint))
            .or_else(|| set(AmazonS3ConfigKey::Endpoint))
            .unwrap_or_else(|| format!("https://s3.{region}.amazonaws.com"));
        let endpoint = endpoint_for(&endpoint, bucket, options).map_err(misconfigured)?;
        let open_to_all = is_set(AmazonS3ConfigKey::SkipSignature);
        let request_payer = is_set(AmazonS3ConfigKey::RequestPayer);
        let url = if options.s3.path_style { format!("{endpoint}/{bucket}") } else { endpoint.clone() };

        let builder = builder
            // Two variables can name an endpoint, and the more special one would win over ours.
            .with_config(AmazonS3ConfigKey::S3Endpoint, endpoint.as_str())
            .with_endpoint(endpoint)
            .with_bucket_name(bucket)
            .with_virtual_hosted_style_request(!options.s3.path_style)
            .with_s3_express(false)
            .with_retry(retries(options))
            .with_client_options(client_options.clone())
            .with_http_connector(connector.clone());
        // A client that is thrown away: building one finds object_store's own credentials.
        let ambient = Arc::clone(builder.clone().build().map_err(failed)?.credentials());
        let environment = options.s3.environment.clone();
        let credentials = Arc::new(Credentials::new(environment, ambient, secrets.clone()));
        let http = connector.connect(&client_options).map_err(failed)?;
        let http = HttpClient::new(RefusalWatch { http, credentials: Arc::clone(&credentials) });
        Ok(Self {
            builder,
            http,
            credentials: (!open_to_all).then_some(credentials as AwsCredentialProvider),
            region,
            request_payer,
            url,
            retry: retries(options),
            patience: patience(options),
        })
    }

    /// The same with another way to the server.
    #[cfg(test)]
    pub(super) fn through(self, http: HttpClient) -> Self {
        Self { http, ..self }
    }

    /// Makes the clients. Both send through [`Signing`], so object_store is told not to sign.
    ///
    /// Where TLS protects what is on its way and the server compares checksums, the payload is not
    /// signed: CRC-64/NVME costs a tenth of SHA-256, which is paid on the runtime's threads.
    pub(super) fn connect(&self, guarantees: Guarantees) -> object_store::Result<Connected> {
        let sign_payload = !(guarantees.checksums && self.url.starts_with("https://"));
        let http = HttpClient::new(Signing {
            http: self.http.clone(),
            credentials: self.credentials.clone(),
            region: self.region.clone(),
            sign_payload,
            request_payer: self.request_payer,
        });
        let mut builder = self
            .builder
            .clone()
            .with_skip_signature(true)
            .with_conditional_put(S3ConditionalPut::ETagMatch)
            .with_checksum_algorithm(if sign_payload { Checksum::SHA256 } else { Checksum::CRC64NVME })
            // One DELETE per object is understood by every server.
            .with_disable_bulk_delete(true)
            .with_http_connector(Prepared(http.clone()));
        if let Some(credentials) = &self.credentials {
            builder = builder.with_credentials(Arc::clone(credentials));
        }
        let retry_timeout = self.retry.retry_timeout + self.patience;
        let retry = RetryConfig { retry_timeout, ..self.retry.clone() };
        let uploads = builder.clone().with_retry(retry).build()?;
        let objects = Patient { usual: builder.build()?, uploads };
        Ok(Connected { objects, requests: S3Requests::new(http, &self.url, self.retry.clone()) })
    }
}

/// Gives object_store the client that was made for it.
#[derive(Debug)]
struct Prepared(HttpClient);

impl HttpConnector for Prepared {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(self.0.clone())
    }
}

/// What uploads in parts have on top of `retry_timeout`, which counts from the first try: two tries
/// may end by their time-out and there is a third.
pub(super) fn patience(options: &StoreOptions) -> Duration {
    options.request_timeout * 2
}

fn retries(options: &StoreOptions) -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig { init_backoff: BACKOFF_FIRST, max_backoff: BACKOFF_MAX, base: 2.0 },
        max_retries: RETRIES_MAX,
        retry_timeout: options.retry_timeout,
    }
}

fn connector(options: &StoreOptions) -> Result<Connector, String> {
    let certificates = options.s3.ca_file.as_deref().map_or(Ok(Vec::new()), certificates)?;
    // A host without the package ca-certificates can still talk to an http:// endpoint.
    let plain = options.s3.endpoint.as_deref().is_some_and(|endpoint| endpoint.starts_with("http://"));
    Ok(Connector::new(ConnectorSettings {
        connect_timeout: options.connect_timeout,
        request_timeout: options.request_timeout,
        certificates,
        system_certificates: !plain,
        tries: options.tries.clone(),
    }))
}

fn certificates(path: &Path) -> Result<Vec<Certificate>, String> {
    let name = path.display();
    let pem = std::fs::read(path).map_err(|error| format!("[repository] ca_file {name}: {error}"))?;
    let found = Certificate::from_pem_bundle(&pem)
        .map_err(|_| format!("[repository] ca_file {name} is not a file of PEM certificates"))?;
    if found.is_empty() {
        return Err(format!("[repository] ca_file {name} holds no certificate; expected PEM"));
    }
    Ok(found)
}

/// Checks an endpoint and, without path style, puts the bucket in front of its host:
/// object_store expects it there.
fn endpoint_for(text: &str, bucket: &str, options: &StoreOptions) -> Result<String, String> {
    let expected = "[repository] endpoint: expected https://host or https://host:port";
    let mut url = Url::parse(text).map_err(|_| expected.to_owned())?;
    let plain = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none()
        && matches!(url.scheme(), "http" | "https");
    let host = url.host_str().filter(|_| plain).ok_or(expected)?.to_owned();
    if url.scheme() == "http" && !options.s3.allow_http {
        return Err("[repository] endpoint is http://, which sends everything readable; it must be allowed explicitly".to_owned());
    }
    if !options.s3.path_style {
        url.set_host(Some(&format!("{bucket}.{host}")))
            .map_err(|_| format!("{bucket}.{host} is no host name; set [repository] path_style = true"))?;
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// Makes ring the process's cryptography: reqwest is built without a choice of its own. Another
/// choice made before stays, and serves as well.
fn use_ring() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}
