//! HAProxy, through its runtime interface: one command for each connection, the answer up to the
//! end (management guide of HAProxy 2.6, section 9.3).
//!
//! Invariant: what an answer to a command says is not relied on; the state is read afterwards.

use super::error::PromoteError;
use super::options::{HaProxy, OldSessions};
use std::net::IpAddr;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use wald_core::promotion::haproxy_reply::{ServerState, server_state};

const TIMEOUT: Duration = Duration::from_secs(10);
/// No answer that is asked for here is longer.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

impl HaProxy {
    fn failed(&self, reason: impl Into<String>) -> PromoteError {
        PromoteError::Router { router: self.name(), reason: reason.into() }
    }

    async fn ask(&self, command: &str) -> Result<String, PromoteError> {
        let exchange = async {
            if self.socket.starts_with('/') {
                exchange(UnixStream::connect(&self.socket).await?, command).await
            } else {
                exchange(TcpStream::connect(&self.socket).await?, command).await
            }
        };
        match tokio::time::timeout(TIMEOUT, exchange).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.failed(format!("{command}: {error}"))),
            Err(_) => Err(self.failed(format!("{command}: no answer within {} s", TIMEOUT.as_secs()))),
        }
    }

    async fn state(&self, server: &str) -> Result<ServerState, PromoteError> {
        let answer = self.ask(&format!("show servers state {}", self.backend)).await?;
        server_state(&answer, &self.backend, server).ok_or_else(|| {
            let said = answer.trim().lines().next().unwrap_or_default().to_owned();
            self.failed(format!("there is no server {}/{server} ({said})", self.backend))
        })
    }

    /// Sets a server's state and looks whether it took.
    async fn set_maintenance(&self, server: &str, maintenance: bool) -> Result<(), PromoteError> {
        let word = if maintenance { "maint" } else { "ready" };
        let command = format!("set server {}/{server} state {word}", self.backend);
        let said = self.ask(&command).await?;
        if self.state(server).await?.maintenance == maintenance {
            return Ok(());
        }
        Err(self.failed(format!("{command} did not take: {}", said.trim())))
    }

    /// Whether it answers, knows the servers, and lets wald change them; and whether the old
    /// primary's server is in maintenance already.
    pub(super) async fn check(&self) -> Result<(String, bool), PromoteError> {
        let level = self.ask("show cli level").await?;
        if !level.contains("admin") {
            return Err(self.failed(format!(
                "its runtime socket has the level {:?}: `stats socket ... level admin` is needed",
                level.trim()
            )));
        }
        let state = self.state(&self.server).await?;
        let what = match &self.new_server {
            Some(new) => {
                self.state(new).await?;
                format!("{} takes the place of {}", new, self.server)
            }
            None if self.address.host.parse::<IpAddr>().is_ok() => {
                format!(
                    "{}:{} becomes {}:{}",
                    state.address, state.port, self.address.host, self.address.port
                )
            }
            None => {
                return Err(self.failed(format!(
                    "HAProxy takes an IP address for a server, not {:?}: set promotion.host, or address here",
                    self.address.host
                )));
            }
        };
        Ok((format!("{} answers; {what}", self.name()), state.maintenance))
    }

    /// No new session goes to the old primary.
    pub(super) async fn away(&self) -> Result<(), PromoteError> {
        self.set_maintenance(&self.server, true).await
    }

    /// New sessions go to the old primary again.
    pub(super) async fn back(&self) -> Result<(), PromoteError> {
        self.set_maintenance(&self.server, false).await
    }

    /// New sessions go to this server.
    pub(super) async fn here(&self) -> Result<String, PromoteError> {
        if self.old_sessions == OldSessions::ShutDown {
            self.ask(&format!("shutdown sessions server {}/{}", self.backend, self.server)).await?;
        }
        let server = match &self.new_server {
            Some(new) => new,
            None => {
                let (address, name) = (&self.address, format!("{}/{}", self.backend, self.server));
                let command = format!("set server {name} addr {} port {}", address.host, address.port);
                let said = self.ask(&command).await?;
                let state = self.state(&self.server).await?;
                if (state.address.as_str(), state.port) != (address.host.as_str(), address.port) {
                    return Err(self.failed(format!("{command} did not take: {}", said.trim())));
                }
                &self.server
            }
        };
        self.set_maintenance(server, false).await?;
        Ok(format!("{}: {server} leads here", self.name()))
    }
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, command: &str) -> std::io::Result<String> {
    stream.write_all(format!("{command}\n").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
