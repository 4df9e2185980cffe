//! The content of every table in a few numbers: what is compared before a loss and after the
//! recovery.
//!
//! A table's hash is the sum of two independent 64-bit hashes over each row's text. A sum does
//! not depend on the order of rows, which a recovery need not keep, but on how often each occurs.

use super::Cluster;
use anyhow::{Context, Result};
use std::collections::BTreeMap;

/// One table's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableFingerprint {
    /// The number of rows.
    pub rows: u64,
    /// A hash over all rows.
    pub hash: String,
}

/// Every table of every database, by `database.schema.table`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fingerprint {
    /// The tables.
    pub tables: BTreeMap<String, TableFingerprint>,
}

impl Fingerprint {
    /// All rows of all tables.
    pub fn rows(&self) -> u64 {
        self.tables.values().map(|t| t.rows).sum()
    }

    /// One line for each table that is not the same in `other`; empty when all are.
    pub fn differences(&self, other: &Fingerprint) -> Vec<String> {
        let mut lines = Vec::new();
        for (name, ours) in &self.tables {
            match other.tables.get(name) {
                None => lines.push(format!("{name} is gone ({} rows)", ours.rows)),
                Some(theirs) if theirs != ours => {
                    lines.push(format!("{name} differs: {} rows, then {}", ours.rows, theirs.rows));
                }
                Some(_) => {}
            }
        }
        let new = other.tables.keys().filter(|name| !self.tables.contains_key(*name));
        lines.extend(new.map(|name| format!("{name} has come up")));
        lines
    }
}

impl Cluster {
    /// Reads every table and materialised view of every database.
    pub fn fingerprint(&self) -> Result<Fingerprint> {
        let mut tables = BTreeMap::new();
        let databases =
            self.rows("select datname from pg_database where datallowconn and datname <> 'template0'")?;
        for database in databases.into_iter().flatten() {
            let names = self.rows_in(
                &database,
                "select format('%I.%I', n.nspname, c.relname) from pg_class c
                   join pg_namespace n on n.oid = c.relnamespace
                  where c.relkind in ('r', 'm')
                    and n.nspname not in ('pg_catalog', 'information_schema', 'pg_toast')",
            )?;
            for table in names.into_iter().flatten() {
                let found = self.table_fingerprint(&database, &table)?;
                tables.insert(format!("{database}.{table}"), found);
            }
        }
        Ok(Fingerprint { tables })
    }

    fn table_fingerprint(&self, database: &str, table: &str) -> Result<TableFingerprint> {
        let sql = format!(
            "select count(*), sum(hashtextextended(t::text, 1)::numeric), sum(hashtextextended(t::text, 2)::numeric)
               from {table} t"
        );
        let row = self.rows_in(database, &sql)?.into_iter().next().context("no row")?;
        let mut columns = row.into_iter();
        let rows = columns.next().context("no count")?.parse().context("a count that is no number")?;
        Ok(TableFingerprint { rows, hash: columns.collect::<Vec<_>>().join("/") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, rows: u64, hash: &str) -> Fingerprint {
        let table = TableFingerprint { rows, hash: hash.to_owned() };
        Fingerprint { tables: BTreeMap::from([(name.to_owned(), table)]) }
    }

    #[test]
    fn a_lost_a_changed_and_a_new_table_are_each_named() {
        let before = one("a", 1, "x");
        assert!(before.differences(&before.clone()).is_empty());
        assert_eq!(before.differences(&one("a", 1, "y")).len(), 1);
        assert_eq!(before.differences(&one("b", 1, "x")).len(), 2);
    }
}
