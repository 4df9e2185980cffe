//! A real HAProxy in front of one server, in the foreground, with its runtime interface on a Unix
//! socket.

use crate::parts;
use crate::ports::Reserved;
use crate::process::Process;
use crate::sandbox::Sandbox;
use crate::wait;
use anyhow::{Context, Result};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

const READY_WITHIN: Duration = Duration::from_secs(20);

/// The backend.
pub const BACKEND: &str = "primary";
/// Its server.
pub const SERVER: &str = "pg";

/// A running HAProxy.
#[derive(Debug)]
pub struct HaProxy {
    process: Process,
    port: u16,
    socket: PathBuf,
}

impl HaProxy {
    /// Starts it in front of a port of 127.0.0.1.
    pub fn start(sandbox: &Sandbox, name: &str, server_port: u16) -> Result<HaProxy> {
        let port = Reserved::new(1)?.release().into_iter().next().context("a port")?;
        let socket = sandbox.dir(&format!("{name}-run"))?.join("admin.sock");
        let text = format!(
            "global\n  stats socket {} mode 600 level admin\ndefaults\n  mode tcp\n  timeout connect 5s\n  \
             timeout client 5m\n  timeout server 5m\nfrontend clients\n  bind 127.0.0.1:{port}\n  \
             default_backend {BACKEND}\nbackend {BACKEND}\n  server {SERVER} 127.0.0.1:{server_port}\n",
            socket.display()
        );
        let config = sandbox.write(&format!("{name}.cfg"), &text)?;
        let mut command = sandbox.account().command(parts::daemon("haproxy")?);
        command.arg("-db").arg("-f").arg(&config);
        let process = Process::spawn("HAProxy", command, &sandbox.path().join(format!("{name}.log")))?;
        let mut proxy = HaProxy { process, port, socket };
        wait::until_true("HAProxy to listen", READY_WITHIN, || {
            proxy.process.must_run()?;
            Ok(proxy.socket.exists() && TcpStream::connect(("127.0.0.1", port)).is_ok())
        })?;
        Ok(proxy)
    }

    /// Where clients connect to, on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its runtime interface.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Asks its runtime interface.
    pub fn ask(&self, command: &str) -> Result<String> {
        let mut stream = UnixStream::connect(&self.socket).context("connecting to HAProxy")?;
        stream.write_all(format!("{command}\n").as_bytes()).context("asking HAProxy")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).context("reading HAProxy's answer")?;
        Ok(answer)
    }

    /// What `show servers state` says of its server, without what health checks and time change.
    pub fn server_line(&self) -> Result<String> {
        let answer = self.ask(&format!("show servers state {BACKEND}"))?;
        let line = answer.lines().find(|line| line.contains(&format!(" {SERVER} ")));
        // Address, operational state, administrative state, port.
        let kept = |line: &str| {
            let fields: Vec<&str> = line.split(' ').collect();
            [4, 5, 6, 18].iter().filter_map(|at| fields.get(*at).copied()).collect::<Vec<_>>().join(" ")
        };
        line.map(kept).context("HAProxy has no such server")
    }
}
