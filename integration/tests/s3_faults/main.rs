//! What wald makes of a network and an S3 server that fail: a real server behind a proxy that cuts,
//! stalls, lies and refuses.
//!
//! One rule holds for every case, and is looked up past the proxy: what was acknowledged is there
//! with the right bytes, once; what is not a whole backup is not listed as one; and when the fault
//! is over, the same request succeeds.
// Clippy knows tests by their attribute, and the steps of a suite carry none.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod archive;
mod backup;
mod clock;
mod random;
mod restore;
mod store;
mod upload;

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;
use wald::store::{AwsEnvironment, Store, StoreOptions};
use wald_core::object_key::ObjectKey;
use wald_integration::fault_proxy::FaultProxy;
use wald_integration::s3_client::S3Client;
use wald_integration::sandbox::Sandbox;
use wald_integration::scene::{Plot, Scene};
use wald_integration::seaweed::{ACCESS_KEY, S3Server, SECRET_KEY};
use wald_integration::wald::{Place, Settings, Wald};

const MIB: usize = 1 << 20;

/// The one server of this program. It ends with the program, by the harness's clean-up.
fn server() -> Result<&'static S3Server> {
    static SERVER: OnceLock<Result<(S3Server, Sandbox), String>> = OnceLock::new();
    let start = || {
        let sandbox = Sandbox::new()?;
        Ok((S3Server::start(&sandbox)?, sandbox))
    };
    let started = SERVER.get_or_init(|| start().map_err(|error: anyhow::Error| format!("{error:#}")));
    started.as_ref().map(|(server, _)| server).map_err(|error| anyhow!("{error}"))
}

/// A locked bucket of its own behind a proxy of its own, and stores that go through it.
struct Front {
    proxy: FaultProxy,
    /// Waits longer than any fault that passes, and than a machine that is busy.
    store: Store,
    /// Does not try again for long: for faults that last.
    hasty: Store,
    /// Does not even wait for one answer: for servers that stall.
    impatient: Store,
    bucket: String,
    past: S3Client,
}

impl Front {
    fn open(bucket: &str) -> Result<Front> {
        let past = server()?.client();
        past.create_locked_bucket(bucket)?;
        let proxy = FaultProxy::start(&server()?.address())?;
        let open = |request_timeout, retry_timeout| {
            let mut options = StoreOptions::new(format!("s3://{bucket}"));
            options.s3.endpoint = Some(proxy.endpoint());
            options.s3.region = Some("us-east-1".to_owned());
            options.s3.path_style = true;
            options.s3.allow_http = true;
            options.s3.environment = AwsEnvironment::with_key_pair(ACCESS_KEY, SECRET_KEY);
            options.request_timeout = request_timeout;
            options.retry_timeout = retry_timeout;
            Store::open(&options)
        };
        let store = open(Duration::from_secs(20), Duration::from_secs(20))?;
        let hasty = open(Duration::from_secs(20), Duration::from_millis(300))?;
        let impatient = open(Duration::from_secs(3), Duration::from_millis(300))?;
        Ok(Front { proxy, store, hasty, impatient, bucket: bucket.to_owned(), past })
    }

    /// What is stored under a key, looked up past the proxy.
    fn stored(&self, key: &ObjectKey) -> Result<Option<Vec<u8>>> {
        let answer = self.past.get(&self.bucket, key.as_str())?;
        if answer.status == 404 { Ok(None) } else { Ok(Some(answer.success()?.body)) }
    }

    /// Whether there is exactly one version of an object, and it holds these bytes.
    fn holds_once(&self, key: &ObjectKey, bytes: &[u8]) -> Result<()> {
        anyhow::ensure!(self.stored(key)?.as_deref() == Some(bytes), "{key} does not hold what was sent");
        let versions = self.versions(key)?;
        anyhow::ensure!(versions == 1, "{key} has {versions} versions");
        Ok(())
    }

    fn versions(&self, key: &ObjectKey) -> Result<usize> {
        let query = [("versions", ""), ("prefix", key.as_str())];
        let answer = self.past.request("GET", &format!("/{}", self.bucket), &query, &[], b"")?;
        let body = String::from_utf8(answer.success()?.body)?;
        anyhow::ensure!(body.contains("<ListVersionsResult"), "no list of versions: {body}");
        // The prefix is that of longer keys too.
        Ok(body.matches(&format!("<Key>{key}</Key>")).count())
    }

    /// How many uploads have begun and not ended.
    fn unfinished_uploads(&self) -> Result<usize> {
        let answer = self.past.request("GET", &format!("/{}", self.bucket), &[("uploads", "")], &[], b"")?;
        Ok(String::from_utf8(answer.success()?.body)?.matches("<UploadId>").count())
    }
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::check(name).unwrap()
}

/// Bytes that neither repeat nor compress.
fn noise(length: usize, seed: u64) -> Bytes {
    let mut state = seed;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&state.rotate_left(29).to_le_bytes());
    }
    bytes.truncate(length);
    bytes.into()
}

/// The agent's kind of runtime.
fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().unwrap().block_on(test)
}

/// A cluster, its agent and its repository on the shared server, all of wald behind a proxy.
struct Stage {
    scene: Scene,
    proxy: FaultProxy,
}

impl Stage {
    fn open(bucket: &str, settings: Settings) -> Result<Stage> {
        Stage::open_retrying(bucket, settings, "500ms")
    }

    /// The same with a time for tries that must be enough for some, however busy the machine is.
    fn open_retrying(bucket: &str, settings: Settings, retry_timeout: &str) -> Result<Stage> {
        let proxy = FaultProxy::start(&server()?.address())?;
        let place = Place::locked_bucket(server()?, bucket)?;
        let settings = settings
            .set_text("repository", "endpoint", proxy.endpoint())
            .set_text("repository", "connect_timeout", "1s")
            .set_text("repository", "request_timeout", "4s")
            .set_text("repository", "retry_timeout", retry_timeout);
        let scene = Scene::open_at(place, Plot { settings, ..Plot::small() })?;
        Ok(Stage { scene, proxy })
    }

    /// wald for the same cluster and repository, with a configuration and a proxy of its own.
    fn another(&self, name: &str, settings: Settings) -> Result<(Wald, FaultProxy)> {
        let proxy = FaultProxy::start(&server()?.address())?;
        let settings = settings.set_text("repository", "endpoint", proxy.endpoint());
        let scene = &self.scene;
        Ok((Wald::configure(&scene.sandbox, name, &scene.cluster, &scene.place, settings)?, proxy))
    }

    fn pg_wal(&self) -> PathBuf {
        self.scene.cluster.data_dir().join("pg_wal")
    }

    /// The names of the backups that `wald list` shows. The list is read without faults.
    fn listed_backups(&self) -> Result<Vec<String>> {
        self.proxy.clear();
        let listing = self.scene.agent.json(&["list"])?;
        let backups = listing["backups"].as_array().context("a list of backups")?;
        backups.iter().map(|backup| Ok(backup["id"].as_str().context("a name")?.to_owned())).collect()
    }
}
