//! `wald role sql`: the least role that wald can work with, as SQL to read and to run.
//!
//! Invariant: it holds every right of [`crate::database::Right`] that a command asks for without
//! being a superuser, and no other; what stays with the owner or a superuser is said in comments.

use crate::database::quote_identifier;

/// The functions of a base backup, as they are called since PostgreSQL 15.
const BACKUP_FUNCTIONS: [&str; 3] =
    ["pg_backup_start(text, boolean)", "pg_backup_stop(boolean)", "pg_create_restore_point(text)"];
/// The same before.
const BACKUP_FUNCTIONS_BEFORE_15: [&str; 3] = [
    "pg_start_backup(text, boolean, boolean)",
    "pg_stop_backup(boolean, boolean)",
    "pg_create_restore_point(text)",
];

/// The statements for a server of this version (`server_version_num`, as 150018).
pub fn sql(role: &str, version_num: u32) -> String {
    let name = quote_identifier(role);
    let backup = if version_num >= 150_000 { BACKUP_FUNCTIONS } else { BACKUP_FUNCTIONS_BEFORE_15 };
    let mut text = format!(
        "-- The least that wald needs. Run it as a superuser on the primary, in the database that\n\
         -- [cluster] connection names; then log in as this role, over the Unix socket with `peer` or with\n\
         -- a password in ~/.pgpass.\n\
         CREATE ROLE {name} LOGIN;\n\
         -- Statistics, settings and replication: lag, vacuum report, sessions, indexes, connections.\n\
         GRANT pg_monitor TO {name};\n\
         -- The base backup.\n"
    );
    for function in backup {
        text.push_str(&format!("GRANT EXECUTE ON FUNCTION pg_catalog.{function} TO {name};\n"));
    }
    text.push_str(&format!(
        "-- Ending sessions: wald sessions --kill-idle-in-transaction (never a superuser's).\n\
         GRANT pg_signal_backend TO {name};\n\
         -- Reading a changed configuration: wald vacuum boost.\n\
         GRANT EXECUTE ON FUNCTION pg_catalog.pg_reload_conf() TO {name};\n\
         -- Reading what postgresql.auto.conf holds, to put it back: wald vacuum boost.\n\
         GRANT EXECUTE ON FUNCTION pg_catalog.pg_show_all_file_settings() TO {name};\n\
         -- Promotion: wald promote.\n\
         GRANT EXECUTE ON FUNCTION pg_catalog.pg_promote(boolean, integer) TO {name};\n\
         -- Its smoke test writes a row into a table of its own, wald.promotion_probe.\n\
         CREATE SCHEMA IF NOT EXISTS wald AUTHORIZATION {name};\n"
    ));
    if version_num >= 150_000 {
        text.push_str(&format!(
            "-- What wald vacuum boost sets, and takes back (PostgreSQL 15 and later grant single settings).\n\
             GRANT ALTER SYSTEM ON PARAMETER autovacuum_max_workers, autovacuum_work_mem, maintenance_work_mem, \
             autovacuum_vacuum_cost_delay, autovacuum_vacuum_cost_limit TO {name};\n"
        ));
    } else {
        text.push_str("-- wald vacuum boost needs a superuser before PostgreSQL 15.\n");
    }
    text.push_str(
        "-- wald vacuum report tells bloat only of tables that the role may read, or where the extension\n\
         -- pgstattuple is installed (pg_monitor may run it). Reading all data is more than wald needs otherwise,\n\
         -- so it is not granted here.\n\
         -- wald vacuum tune --apply changes storage parameters of tables: that stays with their owners.\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_functions_have_the_names_of_the_servers_version() {
        assert!(sql("wald", 150_018).contains("pg_backup_start(text, boolean)"));
        assert!(sql("wald", 140_000).contains("pg_start_backup(text, boolean, boolean)"));
        assert!(sql("we\"ird", 150_000).contains("CREATE ROLE \"we\"\"ird\" LOGIN"));
    }
}
