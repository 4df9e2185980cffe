//! What a promotion is told.

use crate::store::StoreOptions;
use std::path::PathBuf;
use std::time::Duration;
use wald_core::promotion::condition::Condition;
use wald_core::promotion::pgbouncer_file::Target;

/// All of it.
#[derive(Clone, Debug)]
pub struct PromoteOptions {
    /// How this server is reached by wald.
    pub connection: String,
    /// Its data directory, where this host has it.
    pub data_dir: Option<PathBuf>,
    /// Journal, lock and reports stand below it.
    pub state_dir: PathBuf,
    /// The repository.
    pub repository: StoreOptions,
    /// How the old primary is reached by wald.
    pub primary: String,
    /// Where the old primary is, as `primary` says.
    pub old: Target,
    /// Where this server is for clients.
    pub here: Target,
    /// See `[promotion]`.
    pub lag_max: Duration,
    /// See `[promotion]`.
    pub catch_up_timeout: Duration,
    /// See `[promotion]`.
    pub disk_free_min_bytes: u64,
    /// See `[promotion]`.
    pub fence_command: Option<String>,
    /// See `[promotion]`.
    pub unfence_command: Option<String>,
    /// See `[promotion]`.
    pub fence_silence: Duration,
    /// See `[promotion]`.
    pub hook_timeout: Duration,
    /// See `[promotion]`.
    pub pause_timeout: Duration,
    /// See `[promotion]`.
    pub promote_timeout: Duration,
    /// See `[promotion]`.
    pub history_timeout: Duration,
    /// See `[promotion]`.
    pub trigger_file: Option<PathBuf>,
    /// What stands before the servers.
    pub routers: Routers,
    /// See `[promotion]`.
    pub secret_command: Option<String>,
    /// Where the smoke tests connect to.
    pub smoke_connection: String,
    /// Schema and name of the smoke test's table.
    pub smoke_table: (String, String),
    /// See `[promotion]`.
    pub smoke_sql: Vec<String>,
    /// See `[promotion]`.
    pub smoke_commands: Vec<String>,
    /// See `[promotion]`.
    pub smoke_timeout: Duration,
    /// What the operator said to go on without.
    pub forced: Vec<Condition>,
}

/// What stands between the clients and the primary.
#[derive(Clone, Debug, Default)]
pub struct Routers {
    /// Poolers.
    pub pgbouncer: Vec<PgBouncer>,
    /// Proxies.
    pub haproxy: Vec<HaProxy>,
}

impl Routers {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.pgbouncer.is_empty() && self.haproxy.is_empty()
    }
}

/// A pooler.
#[derive(Clone, Debug)]
pub struct PgBouncer {
    /// How its admin console is reached.
    pub admin: String,
    /// Its configuration file, where the target in it has to change.
    pub config_file: Option<PathBuf>,
    /// The databases that are paused; all, where empty.
    pub databases: Vec<String>,
    /// The old primary, as the file has it.
    pub from: Target,
    /// This server, as the file shall have it.
    pub to: Target,
}

/// What becomes of HAProxy's sessions with the old primary.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OldSessions {
    /// They are shut down when the clients are sent here.
    ShutDown,
    /// They stay.
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
    /// This server's address.
    pub address: Target,
    /// What becomes of the sessions with the old primary.
    pub old_sessions: OldSessions,
}

impl PgBouncer {
    /// As messages and the journal name it.
    pub fn name(&self) -> String {
        let parsed = self.admin.parse::<tokio_postgres::Config>().ok();
        let place = parsed.as_ref().and_then(super::look::target_of);
        place.map_or_else(|| "PgBouncer".to_owned(), |at| format!("PgBouncer at {}:{}", at.host, at.port))
    }
}

impl HaProxy {
    /// As messages and the journal name it.
    pub fn name(&self) -> String {
        format!("HAProxy at {} ({}/{})", self.socket, self.backend, self.server)
    }
}
