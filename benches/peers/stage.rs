//! Where everything happens: one sandbox, one S3 server for all tools, and names for what is made.

use crate::meter::Meter;
use crate::processes::{Seen, bury_orphans};
use crate::relay::Relay;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use wald_integration::run::run;
use wald_integration::sandbox::Sandbox;
use wald_integration::seaweed::S3Server;
use wald_integration::wait;

/// Programs that tools leave running in the background.
const BACKGROUND: [&str; 5] = ["pgbackrest", "walrus", "sh", "postgres", "barman-cloud-wa"];
const BACKGROUND_ENDS_WITHIN: Duration = Duration::from_secs(60);

/// The stage. The server ends before the sandbox is removed.
#[derive(Debug)]
pub struct Stage {
    server: S3Server,
    sandbox: Sandbox,
    made: AtomicU32,
    started: Instant,
}

/// How a tool reaches the S3 server, both ports on loopback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// Plain HTTP.
    pub http: u16,
    /// TLS, for those that speak nothing else.
    pub tls: u16,
}

/// The server as seen through relays.
#[derive(Debug)]
pub struct Detour {
    http: Relay,
    tls: Relay,
}

impl Stage {
    /// Makes the sandbox and starts the server.
    pub fn set() -> Result<Stage> {
        let sandbox = Sandbox::new()?;
        let server = S3Server::start_with_tls(&sandbox)?;
        Ok(Stage { server, sandbox, made: AtomicU32::new(0), started: Instant::now() })
    }

    /// The sandbox.
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// The S3 server.
    pub fn server(&self) -> &S3Server {
        &self.server
    }

    /// The straight way to the server.
    pub fn endpoint(&self) -> Result<Endpoint> {
        let port = self.server.address().rsplit(':').next().and_then(|port| port.parse().ok());
        let http = port.context("the S3 server's port")?;
        Ok(Endpoint { http, tls: self.server.tls_port().context("the S3 server speaks no TLS")? })
    }

    /// A longer way to the server.
    pub fn detour(&self, latency: Duration) -> Result<Detour> {
        let end = self.endpoint()?;
        let relay = |port: u16| Relay::start(&format!("127.0.0.1:{port}"), latency);
        Ok(Detour { http: relay(end.http)?, tls: relay(end.tls)? })
    }

    /// A name that was not used before: short, for it becomes part of a socket's path.
    pub fn name(&self, of: &str) -> String {
        format!("{of}{}", self.made.fetch_add(1, Ordering::Relaxed))
    }

    /// Begins to measure everything but the S3 server. What earlier turns left to be written is on the disk
    /// by then: the kernel would write it in the middle of this one.
    pub fn meter(&self) -> Meter {
        rustix::fs::sync();
        Meter::start(self.server.id().into_iter().collect())
    }

    /// Waits until what a tool left in the background has ended; a server that is to go on is `staying`.
    pub fn settle(&self, staying: Option<u32>) -> Result<()> {
        wait::until_true("the tools' background processes to end", BACKGROUND_ENDS_WITHIN, || {
            bury_orphans(&BACKGROUND);
            let us = std::process::id();
            let left = crate::processes::below_us(&self.server.id().into_iter().collect::<Vec<_>>());
            let left_behind = |seen: &Seen| {
                seen.parent == us && Some(seen.id) != staying && BACKGROUND.contains(&seen.program.as_str())
            };
            Ok(!left.iter().any(left_behind))
        })
    }

    /// Tells whoever waits what is going on.
    pub fn say(&self, what: &str) {
        let seconds = self.started.elapsed().as_secs();
        eprintln!("[{:>3}:{:02}] {what}", seconds / 60, seconds % 60);
    }

    /// Copies a directory as the account owns it; blocks are shared where the file system can.
    pub fn copy(&self, from: &Path, to: &Path) -> Result<()> {
        let mut command = self.sandbox.account().command("cp");
        command.args(["-r", "--preserve=mode", "--reflink=auto"]).arg(from).arg(to);
        run(command)?.success()?;
        Ok(())
    }

    /// Removes what a run has made, so that the disk holds all of them.
    pub fn remove(&self, path: &Path) -> Result<()> {
        if path.exists() {
            fs::remove_dir_all(path).with_context(|| format!("removing {}", path.display()))?;
        }
        Ok(())
    }

    /// A path in the sandbox.
    pub fn path(&self, name: &str) -> PathBuf {
        self.sandbox.path().join(name)
    }
}

impl Detour {
    /// Where it begins.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint { http: self.http.port(), tls: self.tls.port() }
    }

    /// Bytes that came from the server, TLS's own included where it is spoken.
    pub fn received(&self) -> u64 {
        self.http.received() + self.tls.received()
    }
}
