//! A cluster that archives through a running agent into a new repository: where most suites
//! begin.

use crate::agent::{Agent, archive_through};
use crate::postgres::{Cluster, ClusterOptions};
use crate::sandbox::Sandbox;
use crate::seaweed::S3Server;
use crate::wald::{Place, Settings, Wald};
use anyhow::Result;
use std::path::PathBuf;

/// Everything that runs, in the order in which it must end: the cluster before its agent, both
/// before the store, the sandbox last.
#[derive(Debug)]
pub struct Scene {
    /// The cluster.
    pub cluster: Cluster,
    /// Its agent.
    pub agent: Agent,
    /// The repository.
    pub place: Place,
    /// The S3 server, if the repository is there.
    pub server: Option<S3Server>,
    /// Where all of it lives.
    pub sandbox: Sandbox,
}

/// What a scene is made with.
#[derive(Debug, Clone, Default)]
pub struct Plot {
    /// For `initdb` and `postgresql.conf`.
    pub cluster: ClusterOptions,
    /// For `wald.toml`.
    pub settings: Settings,
    /// Whether the repository is in a locked bucket of a real S3 server.
    pub on_s3: bool,
}

impl Plot {
    /// Segments of 1 MiB, so that little data is much WAL; a repository in a directory.
    pub fn small() -> Self {
        let cluster = ClusterOptions { segment_size_mib: 1, ..ClusterOptions::default() };
        // What is archived stays in pg_wal to be compared.
        let cluster = cluster.setting("wal_keep_size = '1GB'");
        Self { cluster, ..Self::default() }
    }
}

impl Scene {
    /// Makes the cluster and the repository, and starts everything.
    pub fn open(plot: Plot) -> Result<Scene> {
        let sandbox = Sandbox::new()?;
        let server = if plot.on_s3 { Some(S3Server::start(&sandbox)?) } else { None };
        let place = match &server {
            Some(server) => Place::locked_bucket(server, "wald-scene")?,
            None => Place::directory(&sandbox)?,
        };
        Self::set(sandbox, server, place, plot)
    }

    /// The same around a repository that is there already, on a server that is the caller's.
    pub fn open_at(place: Place, plot: Plot) -> Result<Scene> {
        Self::set(Sandbox::new()?, None, place, plot)
    }

    fn set(sandbox: Sandbox, server: Option<S3Server>, place: Place, plot: Plot) -> Result<Scene> {
        let mut cluster = Cluster::create(&sandbox, "primary", &plot.cluster)?;
        let wald = Wald::configure(&sandbox, "wald", &cluster, &place, plot.settings)?;
        wald.succeed(&["repo", "init"])?;
        let agent = Agent::start(&sandbox, "wald", wald)?;
        archive_through(&mut cluster, &agent)?;
        cluster.start()?;
        Ok(Scene { cluster, agent, place, server, sandbox })
    }

    /// The repository's directory; only for a scene that is not on S3.
    pub fn repository(&self) -> PathBuf {
        match &self.place {
            Place::Directory(path) => path.clone(),
            Place::Bucket { .. } => PathBuf::new(),
        }
    }

    /// Fills `segments` whole segments and begins another, so that all of them get archived.
    pub fn write_segments(&self, segments: u32) -> Result<()> {
        self.cluster.exec("create table if not exists filler (id bigint, t text)")?;
        for _ in 0..segments {
            self.cluster.exec(
                "insert into filler select g, repeat(md5(g::text), 4) from generate_series(1, 500) g",
            )?;
            self.cluster.exec("select pg_switch_wal()")?;
        }
        Ok(())
    }
}
