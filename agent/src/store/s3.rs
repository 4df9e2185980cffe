//! The S3 client: object_store's, with every setting that durability rests on made explicit.
//!
//! Invariants: what the configuration says wins over the environment; payloads are always
//! signed and carry a SHA-256 that the server checks; an upload is never retried without its
//! "only if absent".

use super::credentials::{Credentials, Watched};
use super::error::{Cause, StoreError};
use super::http::Connector;
use super::options::StoreOptions;
use super::secrets::Secrets;
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, Checksum, S3ConditionalPut};
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

/// The variables that [`Credentials`] reads.
const KEY_PAIR: [&str; 3] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];

/// Builds the client for one bucket. Nothing is sent yet.
pub(super) fn client(
    options: &StoreOptions,
    bucket: &str,
    repository: &str,
    secrets: &Secrets,
) -> Result<AmazonS3, StoreError> {
    let misconfigured =
        |problem: String| StoreError::Misconfigured { repository: repository.to_owned(), problem };
    let failed = |error: object_store::Error| misconfigured(Cause::of(&error, secrets).to_string());
    use_ring();

    let mut builder = AmazonS3Builder::new();
    for (name, value) in options.s3.environment.variables() {
        // Key pairs come from `Credentials`, which reads them again when they change.
        if KEY_PAIR.contains(&name) {
            continue;
        }
        // Variables that object_store does not know are somebody else's.
        if let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() {
            builder = builder.with_config(key, value);
        }
    }
    if let Some(region) = &options.s3.region {
        builder = builder.with_region(region);
    }
    if let Some(text) = &options.s3.endpoint {
        let endpoint = endpoint(text, bucket, options).map_err(misconfigured)?;
        // Two variables can name an endpoint, and the more special one would win over ours.
        builder = builder.with_config(AmazonS3ConfigKey::S3Endpoint, endpoint.as_str());
        builder = builder.with_endpoint(endpoint);
    }
    let builder = builder
        .with_bucket_name(bucket)
        .with_virtual_hosted_style_request(!options.s3.path_style)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_checksum_algorithm(Checksum::SHA256)
        .with_unsigned_payload(false)
        // One DELETE per object is understood by every server.
        .with_disable_bulk_delete(true)
        .with_retry(retries(options))
        .with_http_connector(connector(options).map_err(misconfigured)?)
        .with_client_options(ClientOptions::new().with_allow_http(options.s3.allow_http));
    let ambient = builder.clone().build().map_err(failed)?.credentials().clone();
    let credentials = Credentials::new(options.s3.environment.clone(), ambient, secrets.clone());
    let credentials = Arc::new(credentials);
    let connector = connector(options).map_err(misconfigured)?;
    let watched = Watched { connector, credentials: Arc::clone(&credentials) };
    builder.with_credentials(credentials).with_http_connector(watched).build().map_err(failed)
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
    Ok(Connector {
        connect_timeout: options.connect_timeout,
        request_timeout: options.request_timeout,
        certificates,
        system_certificates: !plain,
    })
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
fn endpoint(text: &str, bucket: &str, options: &StoreOptions) -> Result<String, String> {
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
