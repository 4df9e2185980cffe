//! When autovacuum looks after a table: the settings as they are effective for it, and the numbers
//! of rows at which it begins.
//!
//! Source: <https://www.postgresql.org/docs/15/routine-vacuuming.html#AUTOVACUUM>, and `relation_needs_vacanalyze`
//! in `autovacuum.c`. A storage parameter of the table wins over the server's setting, but for
//! `autovacuum_freeze_max_age`, which a table can only lower.

/// The option that [`crate::tuning`] proposes.
pub const SCALE_FACTOR: &str = "autovacuum_vacuum_scale_factor";

/// What the server is set to.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ServerSettings {
    /// `autovacuum`
    pub enabled: bool,
    /// `autovacuum_vacuum_threshold`, in rows
    pub vacuum_threshold: f64,
    /// `autovacuum_vacuum_scale_factor`
    pub vacuum_scale_factor: f64,
    /// `autovacuum_vacuum_max_threshold`, in rows; negative where there is none, as before 18
    pub vacuum_max_threshold: f64,
    /// `autovacuum_vacuum_insert_threshold`, in rows; negative where it is off
    pub insert_threshold: f64,
    /// `autovacuum_vacuum_insert_scale_factor`
    pub insert_scale_factor: f64,
    /// `autovacuum_freeze_max_age`, in transaction ids
    pub freeze_max_age: u64,
    /// `autovacuum_multixact_freeze_max_age`, in multixacts
    pub multixact_freeze_max_age: u64,
}

/// The same as it is effective for a table.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct TableSettings {
    settings: ServerSettings,
}

/// The value of a storage parameter in `pg_class.reloptions`, whose entries read `name=value`.
pub fn option<'a>(options: &'a [String], name: &str) -> Option<&'a str> {
    options
        .iter()
        .find_map(|entry| entry.split_once('=').filter(|(key, _)| *key == name))
        .map(|(_, value)| value)
}

impl TableSettings {
    /// What the table's `reloptions` make of the server's settings. A value that is no number is
    /// none: PostgreSQL would not have stored it.
    pub fn new(server: ServerSettings, options: &[String]) -> Self {
        let number = |name: &str, default: f64| {
            option(options, name).and_then(|value| value.parse().ok()).unwrap_or(default)
        };
        let age = |name: &str, server: u64| {
            option(options, name)
                .and_then(|value| value.parse::<u64>().ok())
                .map_or(server, |own| own.min(server))
        };
        // PostgreSQL takes on, off, true, false, yes, no, 1, 0 and their beginnings.
        let disabled = option(options, "autovacuum_enabled").is_some_and(|value| {
            let value = value.to_ascii_lowercase();
            value == "0"
                || value == "of"
                || value == "off"
                || "false".starts_with(&value)
                || "no".starts_with(&value)
        });
        let settings = ServerSettings {
            enabled: server.enabled && !disabled,
            vacuum_threshold: number("autovacuum_vacuum_threshold", server.vacuum_threshold),
            vacuum_scale_factor: number(SCALE_FACTOR, server.vacuum_scale_factor),
            vacuum_max_threshold: number("autovacuum_vacuum_max_threshold", server.vacuum_max_threshold),
            insert_threshold: number("autovacuum_vacuum_insert_threshold", server.insert_threshold),
            insert_scale_factor: number("autovacuum_vacuum_insert_scale_factor", server.insert_scale_factor),
            freeze_max_age: age("autovacuum_freeze_max_age", server.freeze_max_age),
            multixact_freeze_max_age: age(
                "autovacuum_multixact_freeze_max_age",
                server.multixact_freeze_max_age,
            ),
        };
        Self { settings }
    }

    /// The settings.
    pub fn effective(&self) -> &ServerSettings {
        &self.settings
    }

    /// Autovacuum begins when more rows than this are dead. `rows` is `reltuples`, which is -1 for a
    /// table that was never looked at.
    pub fn dead_rows_threshold(&self, rows: f64) -> f64 {
        let rows = self.settings.vacuum_threshold + self.settings.vacuum_scale_factor * rows.max(0.0);
        let max = self.settings.vacuum_max_threshold;
        if max < 0.0 { rows } else { rows.min(max) }
    }

    /// Autovacuum begins when more rows than this were inserted since the last vacuum; `None` where
    /// insertions don't count.
    pub fn inserted_rows_threshold(&self, rows: f64) -> Option<f64> {
        (self.settings.insert_threshold >= 0.0)
            .then(|| self.settings.insert_threshold + self.settings.insert_scale_factor * rows.max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) const SERVER: ServerSettings = ServerSettings {
        enabled: true,
        vacuum_threshold: 50.0,
        vacuum_scale_factor: 0.2,
        vacuum_max_threshold: -1.0,
        insert_threshold: 1000.0,
        insert_scale_factor: 0.2,
        freeze_max_age: 200_000_000,
        multixact_freeze_max_age: 400_000_000,
    };

    fn table(options: &[&str]) -> TableSettings {
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        TableSettings::new(SERVER, &options)
    }

    #[test]
    fn a_table_without_options_has_the_servers_threshold() {
        assert_eq!(table(&[]).dead_rows_threshold(1000.0), 250.0);
        assert_eq!(table(&[]).dead_rows_threshold(-1.0), 50.0);
        assert_eq!(table(&[]).inserted_rows_threshold(1000.0), Some(1200.0));
    }

    #[test]
    fn a_tables_own_options_win() {
        let own = table(&[
            "fillfactor=70",
            "autovacuum_vacuum_scale_factor=0.01",
            "autovacuum_vacuum_threshold=10",
        ]);
        assert_eq!(own.dead_rows_threshold(1000.0), 20.0);
        assert_eq!(table(&["autovacuum_vacuum_insert_threshold=-1"]).inserted_rows_threshold(1000.0), None);
    }

    #[test]
    fn from_18_on_a_threshold_ends_at_the_maximum() {
        let server = ServerSettings { vacuum_max_threshold: 100.0, ..SERVER };
        assert_eq!(TableSettings::new(server, &[]).dead_rows_threshold(1000.0), 100.0);
        let own = ["autovacuum_vacuum_max_threshold=-1".to_owned()];
        assert_eq!(TableSettings::new(server, &own).dead_rows_threshold(1000.0), 250.0);
    }

    #[test]
    fn a_table_can_switch_autovacuum_off_but_not_on() {
        for off in ["off", "false", "no", "0", "f", "n", "OFF", "fal"] {
            assert!(!table(&[&format!("autovacuum_enabled={off}")]).effective().enabled, "{off}");
        }
        for on in ["on", "true", "yes", "1"] {
            assert!(table(&[&format!("autovacuum_enabled={on}")]).effective().enabled, "{on}");
        }
        let off = TableSettings::new(
            ServerSettings { enabled: false, ..SERVER },
            &["autovacuum_enabled=on".to_owned()],
        );
        assert!(!off.effective().enabled);
    }

    #[test]
    fn a_tables_freeze_age_only_lowers_the_servers() {
        assert_eq!(table(&["autovacuum_freeze_max_age=100000"]).effective().freeze_max_age, 100_000);
        assert_eq!(table(&["autovacuum_freeze_max_age=900000000"]).effective().freeze_max_age, 200_000_000);
    }
}
