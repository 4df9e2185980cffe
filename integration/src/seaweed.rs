//! A real S3 server with object lock: SeaweedFS, started on loopback for one test.
//!
//! What it needs to be a fair and quick stand-in for S3, each found the hard way:
//! - `/healthz` answers before the volume server has registered with the master, and writes fail
//!   until then: wait for `/dir/status` to name a data node.
//! - A short election time-out, or a restart on the same directory takes 15 s.
//! - A graceful stop takes 16 s: it is killed, and waited for.
//! - Few volumes per bucket, many in all, or the eighth bucket finds no room.
//! - It reports usage to its makers and makes buckets on the first write unless told otherwise;
//!   the second would turn "no such bucket" into success.
//! - It leaves sockets in `/tmp`, named after its ports: removed here. Logs go there as well,
//!   unless it is told to write them to standard error.
//!
//! Object lock holds at the S3 port only. The filer's port can delete anything, which is how a
//! suite plays a rogue operator, and otherwise nobody uses it.

use crate::account::clean_command;
use crate::certificate::Certificate;
use crate::ports::Reserved;
use crate::process::Process;
use crate::s3_client::S3Client;
use crate::sandbox::Sandbox;
use crate::{parts, reaper, wait};
use anyhow::{Context, Result};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The access key of the identity that may do everything.
pub const ACCESS_KEY: &str = "wald-suite";
/// Its secret key.
pub const SECRET_KEY: &str = "wald-suite-secret";

const READY_WITHIN: Duration = Duration::from_secs(90);
const START_TRIES: usize = 4;

/// A running (or stopped, to be started again) S3 server.
#[derive(Debug)]
pub struct S3Server {
    process: Option<Process>,
    ports: Ports,
    dir: PathBuf,
    domain: Option<&'static str>,
    tls: Option<Certificate>,
}

/// Who may do what, in SeaweedFS' words: `Read`, `Write`, `List`, `Tagging`, `Admin`.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Its access key.
    pub access_key: &'static str,
    /// Its secret key.
    pub secret_key: &'static str,
    /// What it may do.
    pub actions: &'static [&'static str],
}

impl Identity {
    /// The one that may do everything, and that suites use unless they say otherwise.
    pub const SUITE: Identity = Identity {
        access_key: ACCESS_KEY,
        secret_key: SECRET_KEY,
        actions: &["Admin", "Read", "Write", "List", "Tagging"],
    };
}

#[derive(Debug, Clone)]
struct Ports {
    master: u16,
    master_rpc: u16,
    volume: u16,
    volume_rpc: u16,
    filer: u16,
    filer_rpc: u16,
    s3: u16,
    s3_rpc: u16,
    s3_tls: u16,
}

impl S3Server {
    /// Starts a server with an empty store in the sandbox, and waits until it takes objects.
    pub fn start(sandbox: &Sandbox) -> Result<S3Server> {
        S3Server::start_with(sandbox, &[Identity::SUITE], None)
    }

    /// The same, which speaks TLS on a second port as well: for clients that speak nothing else.
    pub fn start_with_tls(sandbox: &Sandbox) -> Result<S3Server> {
        let dir = store_dir(sandbox)?;
        S3Server::launch(dir.clone(), &[Identity::SUITE], None, Some(Certificate::make(&dir)?))
    }

    /// The same with identities of the caller's, and buckets as hosts below `domain` as well
    /// (`http://bucket.domain:port/key`).
    pub fn start_with(
        sandbox: &Sandbox,
        identities: &[Identity],
        domain: Option<&'static str>,
    ) -> Result<S3Server> {
        S3Server::launch(store_dir(sandbox)?, identities, domain, None)
    }

    fn launch(
        dir: PathBuf,
        identities: &[Identity],
        domain: Option<&'static str>,
        tls: Option<Certificate>,
    ) -> Result<S3Server> {
        write_identities(&dir, identities)?;
        let mut tries = 1;
        loop {
            let (ports, dir, tls) = (Ports::choose()?, dir.clone(), tls.clone());
            let mut server = S3Server { process: None, ports, dir, domain, tls };
            match server.restart() {
                Ok(()) => return Ok(server),
                // Another suite took one of the ports: the next try has others.
                Err(_) if tries < START_TRIES && server.port_was_taken() => tries += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// The URL of the S3 port.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address())
    }

    /// The S3 port as `host:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.ports.s3)
    }

    /// The port for TLS, of a server that was started with it.
    pub fn tls_port(&self) -> Option<u16> {
        self.tls.as_ref().map(|_| self.ports.s3_tls)
    }

    /// Its process id, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// The filer's port as `host:port`, where object lock does not hold.
    pub fn filer_address(&self) -> String {
        format!("127.0.0.1:{}", self.ports.filer)
    }

    /// A client with the identity's keys.
    pub fn client(&self) -> S3Client {
        S3Client::new(&self.address(), ACCESS_KEY, SECRET_KEY)
    }

    /// The environment that gives wald, or any other S3 client, the identity's keys.
    pub fn credentials(&self) -> [(&'static str, &'static str); 3] {
        [
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
            // Without it some clients ask the cloud's metadata service for a region.
            ("AWS_REGION", "us-east-1"),
        ]
    }

    /// Kills it: the store is unreachable from now on, its data stay.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill_hard()?;
        }
        self.remove_sockets();
        Ok(())
    }

    /// Starts it again with other identities: those that are not among them are refused from now on.
    pub fn restart_with(&mut self, identities: &[Identity]) -> Result<()> {
        write_identities(&self.dir, identities)?;
        self.restart()
    }

    /// Starts it again on the same data and the same ports.
    pub fn restart(&mut self) -> Result<()> {
        self.kill()?;
        self.remove_sockets();
        self.guard_sockets()?;
        let mut process = Process::spawn("SeaweedFS", self.command()?, &self.log())?;
        wait::until_true("SeaweedFS to take objects", READY_WITHIN, || {
            process.must_run()?;
            Ok(answers(self.ports.s3, "/healthz").is_some()
                && answers(self.ports.master, "/dir/status")
                    .is_some_and(|body| body.contains("\"DataNodes\":[{")))
        })
        .with_context(|| process.log_tail())?;
        self.process = Some(process);
        Ok(())
    }

    fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    fn port_was_taken(&self) -> bool {
        fs::read_to_string(self.log()).is_ok_and(|log| log.contains("address already in use"))
    }

    fn command(&self) -> Result<Command> {
        let p = &self.ports;
        let mut command = clean_command(parts::weed()?);
        command
            .env("WEED_MASTER_VOLUME_GROWTH_COPY_1", "2")
            .args(["-logtostderr=true", "server", "-filer", "-s3", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"])
            .args(["-master.telemetry=false", "-master.electionTimeout=1s", "-master.volumeSizeLimitMB=1024"])
            .args(["-volume.max=2000", "-s3.autoCreateBucket=false"])
            .args(["-s3.port.iceberg=0", "-s3.port.lance=0"])
            .arg(format!("-dir={}", self.dir.join("data").display()))
            .arg(format!("-s3.config={}", self.dir.join("identity.json").display()))
            .args([format!("-master.port={}", p.master), format!("-master.port.grpc={}", p.master_rpc)])
            .args([format!("-volume.port={}", p.volume), format!("-volume.port.grpc={}", p.volume_rpc)])
            .args([format!("-filer.port={}", p.filer), format!("-filer.port.grpc={}", p.filer_rpc)])
            .args([format!("-s3.port={}", p.s3), format!("-s3.port.grpc={}", p.s3_rpc)]);
        if let Some(tls) = &self.tls {
            command.arg(format!("-s3.port.https={}", p.s3_tls));
            command.arg(format!("-s3.cert.file={}", tls.certificate.display()));
            command.arg(format!("-s3.key.file={}", tls.key.display()));
        }
        if let Some(domain) = self.domain {
            command.arg(format!("-s3.domainName={domain}"));
        }
        Ok(command)
    }

    fn sockets(&self) -> [PathBuf; 6] {
        let p = &self.ports;
        [
            format!("filer-{}", p.filer),
            format!("s3-{}", p.s3),
            format!("master-grpc-{}", p.master_rpc),
            format!("volume-grpc-{}", p.volume_rpc),
            format!("filer-grpc-{}", p.filer_rpc),
            format!("s3-grpc-{}", p.s3_rpc),
        ]
        .map(|name| Path::new("/tmp").join(format!("seaweedfs-{name}.sock")))
    }

    fn guard_sockets(&self) -> Result<()> {
        self.sockets().iter().try_for_each(|socket| reaper::guard_path(socket))
    }

    fn remove_sockets(&self) {
        for socket in self.sockets() {
            // Not there is as good as removed.
            let _ = fs::remove_file(&socket);
            let _ = reaper::release_path(&socket);
        }
    }
}

fn store_dir(sandbox: &Sandbox) -> Result<PathBuf> {
    let dir = sandbox.path().join("s3");
    fs::create_dir_all(dir.join("data")).with_context(|| format!("making {}", dir.display()))?;
    Ok(dir)
}

fn write_identities(dir: &Path, identities: &[Identity]) -> Result<()> {
    let entry = |identity: &Identity| {
        let keys = serde_json::json!({"accessKey": identity.access_key, "secretKey": identity.secret_key});
        serde_json::json!({"name": identity.access_key, "credentials": [keys], "actions": identity.actions})
    };
    let all: Vec<_> = identities.iter().map(entry).collect();
    let text = serde_json::json!({"identities": all}).to_string();
    fs::write(dir.join("identity.json"), text).context("writing the S3 identities")
}

impl Drop for S3Server {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("SeaweedFS may be left running: {error:#}");
        }
    }
}

impl Ports {
    fn choose() -> Result<Ports> {
        let numbers = Reserved::new(9)?.release();
        match numbers.as_slice() {
            &[master, master_rpc, volume, volume_rpc, filer, filer_rpc, s3, s3_rpc, s3_tls] => {
                Ok(Ports { master, master_rpc, volume, volume_rpc, filer, filer_rpc, s3, s3_rpc, s3_tls })
            }
            _ => anyhow::bail!("asked for 9 ports and got {}", numbers.len()),
        }
    }
}

/// The answer to an unsigned GET, if there is a good one.
fn answers(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nhost: 127.0.0.1\r\n\r\n").as_bytes()).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let good = text.split(' ').nth(1)? == "200";
    good.then_some(text)
}
