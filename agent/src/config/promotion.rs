//! `[promotion]`: the old primary, the routers and the hooks of `wald promote`.
//!
//! Nothing here has to be set for the other commands; `wald promote` itself asks for what it needs.

mod routers;

use super::amount;
use super::check::Checker;
use serde::Deserialize;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

pub use routers::{HaProxy, OldSessions, PgBouncer};

/// As it stands in the file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawPromotion {
    primary: Option<String>,
    host: Option<String>,
    port: Option<i64>,
    lag_max: Option<String>,
    catch_up_timeout: Option<String>,
    disk_free_min: Option<String>,
    fence_command: Option<String>,
    unfence_command: Option<String>,
    fence_silence: Option<String>,
    hook_timeout: Option<String>,
    pause_timeout: Option<String>,
    promote_timeout: Option<String>,
    history_timeout: Option<String>,
    trigger_file: Option<PathBuf>,
    pgbouncer: Vec<routers::RawPgBouncer>,
    haproxy: Vec<routers::RawHaProxy>,
    secret_command: Option<String>,
    smoke_connection: Option<String>,
    smoke_table: Option<String>,
    smoke_sql: Vec<String>,
    smoke_commands: Vec<String>,
    smoke_timeout: Option<String>,
}

/// Checked.
#[derive(Clone, Debug)]
pub struct Promotion {
    /// The primary that this server is the standby of: a libpq connection string.
    pub primary: Option<String>,
    /// How clients and routers reach this server: an address or the directory of its Unix socket.
    pub host: Option<String>,
    /// The port there.
    pub port: u16,
    /// What the primary has written must be replayed here within this.
    pub lag_max: Duration,
    /// How long to wait after the fence until everything is received and replayed.
    pub catch_up_timeout: Duration,
    /// So much must be free where the data directory and `pg_wal` are.
    pub disk_free_min_bytes: u64,
    /// Makes sure that the old primary takes no writes; exit code 0 says that it is so.
    pub fence_command: Option<String>,
    /// Takes that back.
    pub unfence_command: Option<String>,
    /// Without a fence's hook: so old must the last archived segment be.
    pub fence_silence: Duration,
    /// After this a hook is killed.
    pub hook_timeout: Duration,
    /// How long PgBouncer may wait for running transactions.
    pub pause_timeout: Duration,
    /// How long the promotion itself may take.
    pub promote_timeout: Duration,
    /// How long to wait for the new timeline's history file in the repository.
    pub history_timeout: Duration,
    /// The server's `promote_trigger_file`, where it is used in place of `pg_promote`.
    pub trigger_file: Option<PathBuf>,
    /// The poolers.
    pub pgbouncer: Vec<PgBouncer>,
    /// The proxies.
    pub haproxy: Vec<HaProxy>,
    /// Tells a secret store of the new primary.
    pub secret_command: Option<String>,
    /// Where the smoke tests connect to; `[cluster] connection` where absent.
    pub smoke_connection: Option<String>,
    /// The table of the smoke test's own, as `schema.table`.
    pub smoke_table: (String, String),
    /// Statements that must succeed.
    pub smoke_sql: Vec<String>,
    /// Commands that must exit with 0.
    pub smoke_commands: Vec<String>,
    /// How long each of them may take.
    pub smoke_timeout: Duration,
}

const HOUR: Duration = Duration::from_secs(3600);

pub(super) fn check(checker: &mut Checker, raw: RawPromotion) -> Promotion {
    let seconds = Duration::from_secs;
    let mut duration = |key, text, default| checker.duration(key, text, default, HOUR);
    // The same bound that lag is warned about at.
    let lag_max = duration("promotion.lag_max", raw.lag_max, seconds(5));
    let catch_up_timeout = duration("promotion.catch_up_timeout", raw.catch_up_timeout, seconds(60));
    // Twice an archive_timeout of a minute: a primary that lives has archived something by then.
    let fence_silence = duration("promotion.fence_silence", raw.fence_silence, seconds(120));
    let hook_timeout = duration("promotion.hook_timeout", raw.hook_timeout, seconds(60));
    // Clients wait meanwhile, new ones too.
    let pause_timeout = duration("promotion.pause_timeout", raw.pause_timeout, seconds(10));
    let promote_timeout = duration("promotion.promote_timeout", raw.promote_timeout, seconds(300));
    let history_timeout = duration("promotion.history_timeout", raw.history_timeout, seconds(10));
    let smoke_timeout = duration("promotion.smoke_timeout", raw.smoke_timeout, seconds(10));
    for (key, connection) in
        [("promotion.primary", &raw.primary), ("promotion.smoke_connection", &raw.smoke_connection)]
    {
        connection_string(checker, key, connection.as_deref());
    }
    if raw.trigger_file.as_ref().is_some_and(|path| !path.is_absolute()) {
        checker.refuse("promotion.trigger_file", format!("{:?}", raw.trigger_file), "an absolute path");
    }
    Promotion {
        primary: raw.primary,
        host: raw.host,
        port: checker.number("promotion.port", raw.port, 5432, (1, u16::MAX)),
        lag_max,
        catch_up_timeout,
        disk_free_min_bytes: checker.bytes("promotion.disk_free_min", raw.disk_free_min, 1 << 30, 0),
        fence_command: raw.fence_command,
        unfence_command: raw.unfence_command,
        fence_silence,
        hook_timeout,
        pause_timeout,
        promote_timeout,
        history_timeout,
        trigger_file: raw.trigger_file,
        pgbouncer: raw.pgbouncer.into_iter().map(|raw| routers::pgbouncer(checker, raw)).collect(),
        haproxy: raw.haproxy.into_iter().map(|raw| routers::haproxy(checker, raw)).collect(),
        secret_command: raw.secret_command,
        smoke_connection: raw.smoke_connection,
        smoke_table: smoke_table(checker, raw.smoke_table.as_deref().unwrap_or(SMOKE_TABLE)),
        smoke_sql: raw.smoke_sql,
        smoke_commands: raw.smoke_commands,
        smoke_timeout,
    }
}

const SMOKE_TABLE: &str = "wald.promotion_probe";

fn smoke_table(checker: &mut Checker, text: &str) -> (String, String) {
    match text.split_once('.') {
        Some((schema, table)) if !schema.is_empty() && !table.is_empty() => {
            (schema.to_owned(), table.to_owned())
        }
        _ => {
            checker.refuse("promotion.smoke_table", format!("{text:?}"), "\"schema.table\"");
            ("wald".to_owned(), "promotion_probe".to_owned())
        }
    }
}

fn connection_string(checker: &mut Checker, key: &'static str, connection: Option<&str>) {
    let valid = connection.is_none_or(|text| text.parse::<tokio_postgres::Config>().is_ok());
    if !valid {
        // What it holds is not shown: there may be a password in it.
        checker.refuse(key, "(hidden)", "a libpq connection string (keyword=value ...)");
    }
}

impl Promotion {
    pub(super) fn write(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "\n[promotion]")?;
        for (key, connection) in [("primary", &self.primary), ("smoke_connection", &self.smoke_connection)] {
            if let Some(connection) = connection {
                writeln!(out, "{key} = {:?}", super::hide_password(connection))?;
            }
        }
        let texts = [
            ("host", &self.host),
            ("fence_command", &self.fence_command),
            ("unfence_command", &self.unfence_command),
            ("secret_command", &self.secret_command),
        ];
        for (key, text) in texts {
            if let Some(text) = text {
                writeln!(out, "{key} = {}", toml_text(text))?;
            }
        }
        if let Some(trigger_file) = &self.trigger_file {
            writeln!(out, "trigger_file = {}", toml_text(&trigger_file.to_string_lossy()))?;
        }
        writeln!(out, "port = {}", self.port)?;
        let durations = [
            ("lag_max", self.lag_max),
            ("catch_up_timeout", self.catch_up_timeout),
            ("fence_silence", self.fence_silence),
            ("hook_timeout", self.hook_timeout),
            ("pause_timeout", self.pause_timeout),
            ("promote_timeout", self.promote_timeout),
            ("history_timeout", self.history_timeout),
            ("smoke_timeout", self.smoke_timeout),
        ];
        for (key, value) in durations {
            writeln!(out, "{key} = \"{}\"", amount::duration(value))?;
        }
        writeln!(out, "disk_free_min = \"{}\"", amount::bytes(self.disk_free_min_bytes))?;
        let (schema, table) = &self.smoke_table;
        writeln!(out, "smoke_table = {}", toml_text(&format!("{schema}.{table}")))?;
        for (key, texts) in [("smoke_sql", &self.smoke_sql), ("smoke_commands", &self.smoke_commands)] {
            let texts: Vec<String> = texts.iter().map(|text| toml_text(text)).collect();
            writeln!(out, "{key} = [{}]", texts.join(", "))?;
        }
        routers::write(out, &self.pgbouncer, &self.haproxy)
    }
}

/// A text as TOML writes it.
fn toml_text(text: &str) -> String {
    toml::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, ConfigError};
    use std::path::Path;
    use std::time::Duration;

    fn parse(promotion: &str) -> Result<Config, ConfigError> {
        let text = format!("[repository]\nurl = \"file:///srv/wald\"\n[promotion]\n{promotion}");
        Config::parse(Path::new("wald.toml"), &text)
    }

    #[test]
    fn nothing_has_to_be_set_and_there_need_be_no_routers() {
        let promotion = parse("").unwrap().promotion;
        assert_eq!((promotion.port, promotion.lag_max), (5432, Duration::from_secs(5)));
        assert!(promotion.pgbouncer.is_empty() && promotion.haproxy.is_empty());
    }

    #[test]
    fn what_is_displayed_reads_back_as_the_same() {
        let config = parse(
            "primary = \"host=10.0.0.5\"\nhost = \"10.0.0.6\"\nfence_command = \"echo \\\"x\\\" 'y'\"\nsmoke_sql = [\"SELECT 'a'\"]\n\
             pgbouncer = [{ admin = \"host=/run/pgbouncer port=6432\", config_file = \"/etc/p.ini\", databases = [\"a\"] }]\n\
             haproxy = [{ socket = \"/run/haproxy.sock\", backend = \"b\", server = \"s\", address = \"10.0.0.6:5432\" }]\n",
        )
        .unwrap();
        let shown = config.display();
        let read = Config::parse(Path::new("wald.toml"), &shown).unwrap();
        assert_eq!(read.display(), shown);
        assert_eq!(read.promotion.fence_command.as_deref(), Some("echo \"x\" 'y'"));
    }

    #[test]
    fn what_is_wrong_is_told_by_its_key() {
        let error = parse(
            "primary = \"nonsense\"\nsmoke_table = \"probe\"\nhaproxy = [{ socket = \"relative\", backend = \"b\", server = \"s p\" }]\n\
             pgbouncer = [{ admin = \"host=/run\", config_file = \"p.ini\" }]\n",
        )
        .unwrap_err()
        .to_string();
        for key in ["primary", "smoke_table", "haproxy.socket", "haproxy.server", "pgbouncer.config_file"] {
            assert!(error.contains(&format!("promotion.{key}")), "{key} is missing in {error}");
        }
    }
}
