//! The databases of a server, and a session in each of them, one after the other.
//!
//! Invariant: there is one session at a time; a database that can't be looked at is told with the
//! reason and never left out in silence.

use crate::database::{Database, DatabaseError, Right, value};
use crate::explain::chain;
use serde::Serialize;
use std::time::Duration;

/// How long a question about statistics or catalogs may take; they are not meant to cost anything.
pub const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);

const ACTION: &str = "list its databases";

/// Template databases and those with a connection limit are included: their ids age as well.
const DATABASES_QUERY: &str = "\
    SELECT datname::text AS name, datallowconn AND datconnlimit <> -2 AS open, \
           pg_catalog.has_database_privilege(oid, 'CONNECT') AS allowed, \
           pg_catalog.age(datfrozenxid)::int8 AS freeze_age, \
           pg_catalog.mxid_age(datminmxid)::int8 AS multixact_age \
    FROM pg_catalog.pg_database ORDER BY datname";

/// A database as `pg_database` has it.
#[derive(Clone, Debug)]
pub struct DatabaseEntry {
    /// Its name.
    pub name: String,
    /// Why no session is possible, if none is.
    pub closed: Option<String>,
    /// In transaction ids.
    pub freeze_age: u64,
    /// In multixacts.
    pub multixact_age: u64,
}

/// A database that was not looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Skipped {
    /// Its name.
    pub database: String,
    /// Why.
    pub why: String,
}

/// All databases of the server, or the one that is named.
pub async fn list(session: &Database, only: Option<&str>) -> Result<Vec<DatabaseEntry>, DatabaseError> {
    let rows = session.query(ACTION, Right::Login, DATABASES_QUERY, &[]).await?;
    let mut found = Vec::new();
    for row in &rows {
        let name: String = value(row, "name", ACTION)?;
        if only.is_some_and(|only| only != name) {
            continue;
        }
        let closed = match (value(row, "open", ACTION)?, value(row, "allowed", ACTION)?) {
            (false, _) => Some("it takes no connections".to_owned()),
            (true, false) => {
                let role = &session.facts().role;
                let (database, role) =
                    (crate::database::quote_identifier(&name), crate::database::quote_identifier(role));
                Some(format!(
                    "the role has no right to connect: GRANT CONNECT ON DATABASE {database} TO {role}"
                ))
            }
            (true, true) => None,
        };
        let count = |column| value::<i64>(row, column, ACTION).map(|age| u64::try_from(age).unwrap_or(0));
        let (freeze_age, multixact_age) = (count("freeze_age")?, count("multixact_age")?);
        found.push(DatabaseEntry { name, closed, freeze_age, multixact_age });
    }
    if let (Some(only), true) = (only, found.is_empty()) {
        return Err(DatabaseError::Answer { action: ACTION, found: format!("it has no database {only:?}") });
    }
    Ok(found)
}

impl DatabaseEntry {
    /// A session in it, or why there is none.
    pub async fn open(&self, connection: &str, command: &str) -> Result<Database, Skipped> {
        let skipped = |why| Skipped { database: self.name.clone(), why };
        if let Some(why) = &self.closed {
            return Err(skipped(why.clone()));
        }
        let session = Database::connect_to(connection, Some(&self.name), command, STATEMENT_TIMEOUT).await;
        session.map_err(|error| skipped(chain(&error)))
    }

    /// The same about what went wrong in a session.
    pub fn failed(&self, error: &DatabaseError) -> Skipped {
        Skipped { database: self.name.clone(), why: chain(error) }
    }

    /// Whether it is one that nobody works in and nothing can be done about: `template0`.
    pub fn is_closed_template(&self) -> bool {
        self.name == "template0"
    }
}
