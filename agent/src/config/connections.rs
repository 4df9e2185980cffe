//! `[connections]`: who may hold how many connections, and where PgBouncer is.

use super::check::Checker;
use super::hide_password;
use serde::Deserialize;
use std::fmt::Write as _;
use wald_core::connection_policy::{Limit, Pattern, Place};

/// As it stands in the file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawConnections {
    max_total: Option<i64>,
    warning_percent: Option<i64>,
    pgbouncer: Option<String>,
    limit: Vec<RawLimit>,
}

/// One of `limit`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawLimit {
    name: String,
    role: Option<String>,
    application: Option<String>,
    database: Option<String>,
    max: Option<i64>,
    only_on: Option<String>,
}

/// Checked.
#[derive(Clone, Debug)]
pub struct Connections {
    /// So many of clients in all.
    pub max_total: u32,
    /// From so many percent of a limit on a person is told.
    pub warning_percent: u32,
    /// How PgBouncer's admin console is reached, as a libpq connection string.
    pub pgbouncer: Option<String>,
    /// For roles, applications and databases.
    pub limits: Vec<Limit>,
}

/// PostgreSQL takes no more.
const CONNECTIONS_MAX: u32 = 262_143;

pub(super) fn check(checker: &mut Checker, raw: RawConnections) -> Connections {
    if raw.pgbouncer.as_ref().is_some_and(|text| text.parse::<tokio_postgres::Config>().is_err()) {
        let wanted = "a libpq connection string such as \"host=/run/postgresql port=6432 user=stats dbname=pgbouncer\"";
        checker.refuse("connections.pgbouncer", "(not shown)", wanted);
    }
    Connections {
        // More sessions than that are slower together than one after the other behind a pool.
        max_total: checker.number("connections.max_total", raw.max_total, 300, (1, CONNECTIONS_MAX)),
        warning_percent: checker.number("connections.warning_percent", raw.warning_percent, 80, (1, 100)),
        pgbouncer: raw.pgbouncer,
        limits: raw.limit.into_iter().filter_map(|raw| limit(checker, raw)).collect(),
    }
}

fn limit(checker: &mut Checker, raw: RawLimit) -> Option<Limit> {
    const KEY: &str = "connections.limit";
    let found = format!("{{ name = {:?} }}", raw.name);
    if raw.name.is_empty() {
        checker.refuse(KEY, found, "a name for each limit");
        return None;
    }
    if raw.role.is_none() && raw.application.is_none() && raw.database.is_none() {
        checker.refuse(KEY, found, "a role, an application or a database for each limit");
        return None;
    }
    let place = match raw.only_on.as_deref() {
        None => Place::Anywhere,
        Some("standby") => Place::Standby,
        Some(_) => {
            checker.refuse(KEY, found, "only_on = \"standby\", or no only_on at all");
            return None;
        }
    };
    if raw.max.is_none() && place == Place::Anywhere {
        checker.refuse(KEY, found, "max, or only_on = \"standby\"");
        return None;
    }
    let max = raw.max.map(|max| checker.number("connections.limit.max", Some(max), 0, (0, CONNECTIONS_MAX)));
    let pattern = |text: Option<String>| text.map(Pattern::new);
    let (role, application, database) = (pattern(raw.role), pattern(raw.application), pattern(raw.database));
    Some(Limit { name: raw.name, role, application, database, max, place })
}

impl Connections {
    pub(super) fn write(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "\n[connections]\nmax_total = {}", self.max_total)?;
        writeln!(out, "warning_percent = {}", self.warning_percent)?;
        if let Some(pgbouncer) = &self.pgbouncer {
            writeln!(out, "pgbouncer = {:?}", hide_password(pgbouncer))?;
        }
        if self.limits.is_empty() {
            return Ok(());
        }
        let limits: Vec<String> = self.limits.iter().map(shown).collect();
        writeln!(out, "limit = [{}]", limits.join(", "))
    }
}

fn shown(limit: &Limit) -> String {
    let mut text = format!("{{ name = {:?}", limit.name);
    for (key, pattern) in
        [("role", &limit.role), ("application", &limit.application), ("database", &limit.database)]
    {
        if let Some(pattern) = pattern {
            text.push_str(&format!(", {key} = {:?}", pattern.as_str()));
        }
    }
    if let Some(max) = limit.max {
        text.push_str(&format!(", max = {max}"));
    }
    if limit.place == Place::Standby {
        text.push_str(", only_on = \"standby\"");
    }
    text.push_str(" }");
    text
}

#[cfg(test)]
mod tests {
    use crate::config::Config;
    use std::path::Path;

    fn parse(text: &str) -> Result<Config, String> {
        let text = format!("[repository]\nurl = \"file:///srv/wald\"\n[connections]\n{text}");
        Config::parse(Path::new("wald.toml"), &text).map_err(|error| error.to_string())
    }

    #[test]
    fn limits_read_back_as_they_are_displayed() {
        let text = "pgbouncer = \"host=/run port=6432 user=stats dbname=pgbouncer\"\n\
            limit = [{ name = \"pool\", role = \"app\", max = 50 }, \
            { name = \"analytics\", application = \"bi*\", only_on = \"standby\" }]";
        let config = parse(text).unwrap();
        assert_eq!(config.connections.limits.len(), 2);
        let shown = config.display();
        let again = Config::parse(Path::new("wald.toml"), &shown).unwrap();
        assert_eq!(again.display(), shown);
    }

    #[test]
    fn a_limit_that_limits_nothing_is_refused() {
        for (text, wanted) in [
            ("limit = [{ role = \"app\", max = 1 }]", "a name"),
            ("limit = [{ name = \"a\", max = 1 }]", "a role"),
            ("limit = [{ name = \"a\", role = \"r\" }]", "only_on"),
            ("limit = [{ name = \"a\", role = \"r\", only_on = \"primary\" }]", "only_on"),
            ("limit = [{ name = \"a\", role = \"r\", max = -1 }]", "connections.limit.max"),
        ] {
            assert!(parse(text).unwrap_err().contains(wanted), "{text}");
        }
    }

    #[test]
    fn a_password_for_pgbouncer_is_not_shown() {
        let config = parse("pgbouncer = \"host=/run user=stats password=hunter2\"").unwrap();
        assert!(!config.display().contains("hunter2"));
    }
}
