//! Where a repository is and how long to wait for it.
//!
//! Invariant: a URL with credentials in it is refused and never repeated in a message.

use super::error::StoreError;
use super::secrets::AwsEnvironment;
use super::tries::TryCounts;
use std::path::PathBuf;
use std::time::Duration;
use url::Url;
use wald_core::object_lock::LockPolicy;

/// What [`super::Store::open`] needs to know.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// `s3://bucket[/prefix]` or `file:///dir`.
    pub url: String,
    /// Only for `s3://`.
    pub s3: S3Options,
    /// How new objects are locked; not at all, where absent. Only for `s3://`.
    pub lock: Option<LockPolicy>,
    /// How long a server may take to connect.
    pub connect_timeout: Duration,
    /// How long one request may take. Large objects are moved in requests of a few MiB each, so
    /// this bounds a stall and not the whole transfer.
    pub request_timeout: Duration,
    /// How long failed requests are tried again before the failure is reported.
    pub retry_timeout: Duration,
    /// Where tries that came to nothing are counted.
    pub tries: TryCounts,
}

/// The particulars of an S3 server.
#[derive(Clone, Debug)]
pub struct S3Options {
    /// Base URL of an S3-compatible server; AWS itself when unset.
    pub endpoint: Option<String>,
    /// The bucket's region; else that of the environment, else `us-east-1`.
    pub region: Option<String>,
    /// `endpoint/bucket/key` instead of `bucket.endpoint/key`.
    pub path_style: bool,
    /// Accept an `http://` endpoint. Payloads are signed, but not secret.
    pub allow_http: bool,
    /// Certificates (PEM) to trust besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Where credentials come from.
    pub environment: AwsEnvironment,
}

impl StoreOptions {
    /// The options with the defaults that the configuration documents.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            s3: S3Options {
                endpoint: None,
                region: None,
                path_style: false,
                allow_http: false,
                ca_file: None,
                environment: AwsEnvironment::of_process(),
            },
            lock: None,
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(60),
            retry_timeout: Duration::from_secs(30),
            tries: TryCounts::default(),
        }
    }
}

/// A repository's URL, understood.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// `prefix` is empty or `a/b`, without slashes at its ends.
    S3 { bucket: String, prefix: String },
    /// An absolute path.
    Directory(PathBuf),
}

impl Place {
    /// Reads a repository's URL.
    pub(super) fn parse(text: &str) -> Result<Self, StoreError> {
        let wrong = |problem: &str| StoreError::Misconfigured {
            repository: "the URL".to_owned(),
            problem: problem.to_owned(),
        };
        let url = Url::parse(text)
            .map_err(|_| wrong("expected s3://bucket, s3://bucket/prefix or file:///directory"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong(
                "credentials don't belong there; put them into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            ));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("\"?\" and \"#\" have no meaning there"));
        }
        match url.scheme() {
            "s3" => Self::parse_s3(&url).ok_or_else(|| {
                wrong("expected s3://bucket/prefix, with letters, digits, '.', '_' and '-' in each part")
            }),
            "file" => {
                let local = url.host_str().is_none_or(|host| host.is_empty() || host == "localhost");
                let path = local.then(|| url.to_file_path().ok()).flatten();
                let path = path.filter(|path| path.is_absolute() && path.to_str().is_some());
                path.map(Place::Directory).ok_or_else(|| {
                    wrong("expected file:///directory, with three slashes and an absolute path")
                })
            }
            _ => Err(wrong("only s3:// and file:// are known")),
        }
    }

    fn parse_s3(url: &Url) -> Option<Self> {
        let plain = |part: &str| {
            !part.is_empty()
                && part != "."
                && part != ".."
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        };
        let bucket = url.host_str().filter(|host| plain(host))?.to_owned();
        let prefix = url.path().trim_matches('/').to_owned();
        let sound = url.port().is_none() && (prefix.is_empty() || prefix.split('/').all(plain));
        sound.then_some(Place::S3 { bucket, prefix })
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::S3 { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            Place::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
            Place::Directory(path) => write!(f, "file://{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn buckets_prefixes_and_directories_are_understood() {
        for (text, shown) in [
            ("s3://bucket", "s3://bucket"),
            ("s3://bucket/", "s3://bucket"),
            ("s3://my-bucket.eu/a/b/", "s3://my-bucket.eu/a/b"),
            ("file:///srv/wald", "file:///srv/wald"),
            ("file:///srv/with%20space", "file:///srv/with space"),
        ] {
            assert_eq!(Place::parse(text).unwrap().to_string(), shown, "{text}");
        }
    }

    #[test]
    fn a_url_that_names_no_repository_is_refused() {
        for text in [
            "",
            "bucket",
            "s3://",
            "s3:///prefix",
            "s3://bucket:80/x",
            "s3://bucket/a//b",
            "s3://bucket/%2e%2e%2fx",
            "s3://bucket?x=1",
            "gs://bucket",
            "file://srv/wald",
            "/srv/wald",
        ] {
            assert!(Place::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn credentials_in_a_url_are_refused_and_not_repeated() {
        let error = Place::parse("s3://AKIAEXAMPLE:hunter2hunter2@bucket/prefix").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }

    proptest! {
        #[test]
        fn any_text_parses_or_fails_without_panic(text in "(s3://|file://)?\\PC{0,40}") {
            let _ = Place::parse(&text);
        }
    }
}
