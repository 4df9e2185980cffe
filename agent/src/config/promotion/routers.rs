//! `promotion.pgbouncer` and `promotion.haproxy`: what stands between the clients and the primary.

use super::{Checker, toml_text};
use serde::Deserialize;
use std::fmt::Write as _;
use std::path::PathBuf;
use wald_core::promotion::pgbouncer_file::Target;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPgBouncer {
    admin: String,
    config_file: Option<PathBuf>,
    #[serde(default)]
    databases: Vec<String>,
    from: Option<String>,
    to: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawHaProxy {
    socket: String,
    backend: String,
    server: String,
    new_server: Option<String>,
    address: Option<String>,
    shutdown_sessions: Option<bool>,
}

/// A pooler.
#[derive(Clone, Debug)]
pub struct PgBouncer {
    /// How its admin console is reached; the database `pgbouncer` unless it says otherwise.
    pub admin: String,
    /// Its configuration file, where the target in it has to change.
    pub config_file: Option<PathBuf>,
    /// The databases that are paused; all, where empty.
    pub databases: Vec<String>,
    /// The old primary as the file has it, where that differs from `promotion.primary`.
    pub from: Option<Target>,
    /// This server as the file shall have it, where that differs from `promotion.host` and `port`.
    pub to: Option<Target>,
}

/// What becomes of HAProxy's sessions with the old primary.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OldSessions {
    /// They are shut down: a fenced server is of no use to them.
    ShutDown,
    /// They stay: the server is a pooler that goes on.
    Keep,
}

/// A proxy.
#[derive(Clone, Debug)]
pub struct HaProxy {
    /// Its runtime interface: the path of a Unix socket, or `host:port`.
    pub socket: String,
    /// The backend.
    pub backend: String,
    /// The server of the old primary.
    pub server: String,
    /// The server that takes its place; the same one with another address, where absent.
    pub new_server: Option<String>,
    /// The new address, where it is not `promotion.host` and `port`.
    pub address: Option<Target>,
    /// What becomes of the sessions with the old primary.
    pub old_sessions: OldSessions,
}

pub(super) fn pgbouncer(checker: &mut Checker, raw: RawPgBouncer) -> PgBouncer {
    super::connection_string(checker, "promotion.pgbouncer.admin", Some(&raw.admin));
    if let Some(path) = raw.config_file.as_ref().filter(|path| !path.is_absolute()) {
        checker.refuse("promotion.pgbouncer.config_file", format!("{path:?}"), "an absolute path");
    }
    PgBouncer {
        from: target(checker, "promotion.pgbouncer.from", raw.from),
        to: target(checker, "promotion.pgbouncer.to", raw.to),
        admin: raw.admin,
        config_file: raw.config_file,
        databases: raw.databases,
    }
}

pub(super) fn haproxy(checker: &mut Checker, raw: RawHaProxy) -> HaProxy {
    let is_socket = raw.socket.starts_with('/')
        || raw.socket.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if !is_socket {
        let wanted = "the absolute path of the runtime socket, or \"host:port\"";
        checker.refuse("promotion.haproxy.socket", format!("{:?}", raw.socket), wanted);
    }
    let names = [
        ("promotion.haproxy.backend", Some(&raw.backend)),
        ("promotion.haproxy.server", Some(&raw.server)),
        ("promotion.haproxy.new_server", raw.new_server.as_ref()),
    ];
    for (key, name) in names {
        // A name is part of a command line there: nothing must follow it.
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
        if name.is_some_and(|name| name.is_empty() || !name.chars().all(plain)) {
            checker.refuse(key, format!("{name:?}"), "a name of letters, digits, '-', '_', '.' and ':'");
        }
    }
    HaProxy {
        address: target(checker, "promotion.haproxy.address", raw.address),
        socket: raw.socket,
        backend: raw.backend,
        server: raw.server,
        new_server: raw.new_server,
        old_sessions: match raw.shutdown_sessions {
            Some(false) => OldSessions::Keep,
            Some(true) | None => OldSessions::ShutDown,
        },
    }
}

/// `host:port`, where the host may be an absolute directory.
fn target(checker: &mut Checker, key: &'static str, text: Option<String>) -> Option<Target> {
    let text = text?;
    let parsed = text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    match parsed {
        Some((host, port)) if !host.is_empty() => Some(Target { host: host.to_owned(), port }),
        _ => {
            checker.refuse(key, format!("{text:?}"), "\"host:port\", or \"/directory/of/socket:port\"");
            None
        }
    }
}

pub(super) fn write(out: &mut String, pgbouncer: &[PgBouncer], haproxy: &[HaProxy]) -> std::fmt::Result {
    let text =
        |target: &Option<Target>| target.as_ref().map(|target| format!("{}:{}", target.host, target.port));
    for pooler in pgbouncer {
        let databases: Vec<String> = pooler.databases.iter().map(|name| toml_text(name)).collect();
        let admin = crate::config::hide_password(&pooler.admin);
        writeln!(out, "\n[[promotion.pgbouncer]]\nadmin = {}", toml_text(&admin))?;
        let path = pooler.config_file.as_ref().map(|path| path.to_string_lossy().into_owned());
        optional(out, &[("config_file", path), ("from", text(&pooler.from)), ("to", text(&pooler.to))])?;
        writeln!(out, "databases = [{}]", databases.join(", "))?;
    }
    for proxy in haproxy {
        writeln!(out, "\n[[promotion.haproxy]]\nsocket = {}", toml_text(&proxy.socket))?;
        let (backend, server) = (toml_text(&proxy.backend), toml_text(&proxy.server));
        writeln!(out, "backend = {backend}\nserver = {server}")?;
        optional(out, &[("new_server", proxy.new_server.clone()), ("address", text(&proxy.address))])?;
        writeln!(out, "shutdown_sessions = {}", proxy.old_sessions == OldSessions::ShutDown)?;
    }
    Ok(())
}

fn optional(out: &mut String, texts: &[(&str, Option<String>)]) -> std::fmt::Result {
    for (key, text) in texts {
        if let Some(text) = text {
            writeln!(out, "{key} = {}", toml_text(text))?;
        }
    }
    Ok(())
}
