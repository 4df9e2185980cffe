//! Which indexes are invalid, the same as another, never used, or missing; and the statements that
//! mend it.
//!
//! Invariants: an index that enforces something (unique, primary key, constraint, replica identity) is
//! never called unused, and goes as a duplicate only where another one enforces the same; no statement
//! blocks writes (all are `CONCURRENTLY`); nothing here is run by anybody but a person.

use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// An index as the catalogs describe it.
#[derive(Clone, PartialEq, Debug)]
pub struct Index {
    /// Its own oid.
    pub oid: u32,
    /// Its table's.
    pub table_oid: u32,
    /// Schema and name, quoted as in SQL.
    pub name: String,
    /// Its table's.
    pub table: String,
    /// Everything in which two indexes must agree to be the same but uniqueness: method, columns,
    /// operator classes, collations, order, predicate, expressions.
    pub sameness: String,
    /// Key columns by number, 0 for an expression; included columns are left out.
    pub columns: Vec<i16>,
    /// `btree`, `gin`, …
    pub method: String,
    /// It has a predicate.
    pub partial: bool,
    /// It has expressions.
    pub expressions: bool,
    /// It enforces uniqueness,
    pub unique: bool,
    /// at once and not at the end of a transaction,
    pub immediate: bool,
    /// also of nulls.
    pub nulls_not_distinct: bool,
    /// It stands behind a constraint: its own, or a foreign key that refers to its table.
    pub constraint: bool,
    /// Logical replication finds rows by it.
    pub replica_identity: bool,
    /// It is a part of a partitioned index, and can't be dropped without it.
    pub attached: bool,
    /// Queries may use it.
    pub valid: bool,
    /// Somebody is building it just now.
    pub being_built: bool,
    /// Bytes on disk.
    pub bytes: u64,
    /// How often it was used since the statistics began, on this server.
    pub scans: i64,
}

/// An index that a failed or ended `CONCURRENTLY` left behind.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Invalid {
    /// The index.
    pub index: String,
    /// Its table.
    pub table: String,
    /// Bytes on disk.
    pub bytes: u64,
    /// What mends it, ready to paste.
    pub statement: String,
    /// What to know before.
    pub remark: &'static str,
}

/// Indexes of which one would do.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Duplicate {
    /// Their table.
    pub table: String,
    /// The one to keep.
    pub keep: String,
    /// Those that it makes superfluous.
    pub superfluous: Vec<Superfluous>,
}

/// One of them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Superfluous {
    /// The index.
    pub index: String,
    /// Bytes on disk.
    pub bytes: u64,
    /// What drops it; absent where it must not be dropped just so.
    pub statement: Option<String>,
    /// Why it must not.
    pub remark: Option<&'static str>,
}

/// An index that no query used.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Unused {
    /// The index.
    pub index: String,
    /// Its table.
    pub table: String,
    /// Bytes on disk.
    pub bytes: u64,
    /// What drops it; absent where it must not be dropped just so.
    pub statement: Option<String>,
    /// What to know before.
    pub remark: Option<&'static str>,
}

/// A foreign key.
#[derive(Clone, PartialEq, Debug)]
pub struct ForeignKey {
    /// The constraint.
    pub name: String,
    /// The oid of the table that refers.
    pub table_oid: u32,
    /// The table that refers, quoted as in SQL.
    pub table: String,
    /// The table that is referred to.
    pub referenced: String,
    /// The columns that refer, by number,
    pub columns: Vec<i16>,
    /// and by name, quoted.
    pub column_names: Vec<String>,
    /// Bytes of the table that refers.
    pub table_bytes: u64,
}

/// A foreign key without an index.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Missing {
    /// The constraint.
    pub foreign_key: String,
    /// The table that refers.
    pub table: String,
    /// The table that is referred to: deleting there reads the whole of the other.
    pub referenced: String,
    /// Bytes of the table that refers.
    pub table_bytes: u64,
    /// What makes the index.
    pub statement: String,
}

/// Invalid indexes, but for those that are being built.
pub fn invalid(indexes: &[Index]) -> Vec<Invalid> {
    let left_behind = indexes.iter().filter(|index| !index.valid && !index.being_built);
    left_behind
        .map(|index| {
            // https://www.postgresql.org/docs/15/sql-reindex.html#SQL-REINDEX-CONCURRENTLY: such names are
            // copies of an index that is there as well.
            let bare = index.name.trim_end_matches('"').trim_end_matches(|c: char| c.is_ascii_digit());
            let (statement, remark) = if bare.ends_with("_ccnew") || bare.ends_with("_ccold") {
                (drop_statement(index), "a leftover of REINDEX CONCURRENTLY; the index itself is another one")
            } else if index.unique {
                (
                    reindex_statement(index),
                    "fails again while the table holds duplicate keys: find them first",
                )
            } else {
                (reindex_statement(index), "it slows writes down and no query uses it")
            };
            let (name, table) = (index.name.clone(), index.table.clone());
            Invalid { index: name, table, bytes: index.bytes, statement, remark }
        })
        .collect()
}

/// Indexes that are the same but for what they enforce.
pub fn duplicates(indexes: &[Index]) -> Vec<Duplicate> {
    let mut same: BTreeMap<(u32, &str), Vec<&Index>> = BTreeMap::new();
    for index in indexes.iter().filter(|index| index.valid) {
        same.entry((index.table_oid, index.sameness.as_str())).or_default().push(index);
    }
    let mut found = Vec::new();
    for mut group in same.into_values().filter(|group| group.len() > 1) {
        // What enforces most is kept, then what is part of something larger, then what is used most.
        group.sort_by_key(|index| {
            (
                std::cmp::Reverse((index.constraint, index.replica_identity, index.unique, index.attached)),
                std::cmp::Reverse(index.scans),
                index.oid,
            )
        });
        let Some((keep, others)) = group.split_first() else { continue };
        let superfluous = others.iter().map(|other| superfluous(other, keep)).collect();
        found.push(Duplicate { table: keep.table.clone(), keep: keep.name.clone(), superfluous });
    }
    found
}

fn superfluous(index: &Index, keep: &Index) -> Superfluous {
    let enforces_more = index.unique
        && !(keep.unique
            && (keep.immediate || !index.immediate)
            && keep.nulls_not_distinct == index.nulls_not_distinct);
    let remark = if index.constraint {
        Some("it belongs to a constraint: drop that one, if it is superfluous as well")
    } else if index.replica_identity {
        Some("it is the table's replica identity")
    } else if index.attached {
        Some("it is part of a partitioned index")
    } else if enforces_more {
        Some("it enforces what the other does not")
    } else {
        None
    };
    let statement = remark.is_none().then(|| drop_statement(index));
    Superfluous { index: index.name.clone(), bytes: index.bytes, statement, remark }
}

/// Indexes that no query used since the statistics began, the largest first. A statement to drop
/// one is made only when the statistics are `old_enough` to tell, and never for the one that a
/// foreign key would miss.
pub fn unused(indexes: &[Index], keys: &[ForeignKey], old_enough: StatisticsAge) -> Vec<Unused> {
    // What stays for sure: an unused index must not lean on another one.
    let stays: Vec<&Index> = indexes.iter().filter(|index| index.valid && !is_idle(index)).collect();
    let needed = |index: &Index| {
        let mut its = keys.iter().filter(|key| supports(index, key));
        its.any(|key| !stays.iter().any(|other| supports(other, key)))
    };
    let mut found: Vec<Unused> = indexes
        .iter()
        .filter(|index| is_idle(index))
        .map(|index| {
            let (remark, sure) = match (old_enough, index.expressions) {
                _ if index.attached => {
                    (Some("it is part of a partitioned index: look at all of its parts"), false)
                }
                _ if needed(index) => (Some("a foreign key would have no index without it"), false),
                (StatisticsAge::TooYoung, _) => (Some("the statistics are too young to tell"), false),
                (_, true) => (Some("the planner may use its statistics on the expression"), true),
                _ => (None, true),
            };
            let statement = sure.then(|| drop_statement(index));
            let (name, table) = (index.name.clone(), index.table.clone());
            Unused { index: name, table, bytes: index.bytes, statement, remark }
        })
        .collect();
    found.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.index.cmp(&b.index)));
    found
}

/// Whether nobody used it, and it enforces nothing.
fn is_idle(index: &Index) -> bool {
    let enforces = index.unique || index.constraint || index.replica_identity;
    index.valid && index.scans == 0 && !index.being_built && !enforces
}

/// Whether statistics have been gathered for long enough.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StatisticsAge {
    /// Long enough for a month's end or a weekly report to have shown itself.
    Sufficient,
    /// Not, or nobody knows.
    TooYoung,
}

/// Foreign keys whose columns no index begins with; those of the largest tables first.
pub fn missing(keys: &[ForeignKey], indexes: &[Index]) -> Vec<Missing> {
    let bare = keys.iter().filter(|key| !indexes.iter().any(|index| supports(index, key)));
    let mut found: Vec<Missing> = bare
        .map(|key| Missing {
            foreign_key: key.name.clone(),
            table: key.table.clone(),
            referenced: key.referenced.clone(),
            table_bytes: key.table_bytes,
            statement: format!(
                "CREATE INDEX CONCURRENTLY ON {} ({});",
                key.table,
                key.column_names.join(", ")
            ),
        })
        .collect();
    found.sort_by(|a, b| b.table_bytes.cmp(&a.table_bytes).then_with(|| a.table.cmp(&b.table)));
    found
}

/// Whether a look for the rows that refer to a key can use this index: it begins with the key's
/// columns, in whatever order.
fn supports(index: &Index, key: &ForeignKey) -> bool {
    let usable = index.table_oid == key.table_oid
        && index.valid
        && !index.partial
        && matches!(index.method.as_str(), "btree" | "hash");
    let Some(first) = index.columns.get(..key.columns.len()) else { return false };
    let (first, wanted): (BTreeSet<i16>, BTreeSet<i16>) =
        (first.iter().copied().collect(), key.columns.iter().copied().collect());
    usable && first == wanted
}

fn drop_statement(index: &Index) -> String {
    format!("DROP INDEX CONCURRENTLY {};", index.name)
}

fn reindex_statement(index: &Index) -> String {
    format!("REINDEX INDEX CONCURRENTLY {};", index.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(oid: u32, name: &str) -> Index {
        Index {
            oid,
            table_oid: 1,
            name: format!("public.{name}"),
            table: "public.t".to_owned(),
            sameness: "btree 1".to_owned(),
            columns: vec![1],
            method: "btree".to_owned(),
            partial: false,
            expressions: false,
            unique: false,
            immediate: true,
            nulls_not_distinct: false,
            constraint: false,
            replica_identity: false,
            attached: false,
            valid: true,
            being_built: false,
            bytes: 8192,
            scans: 0,
        }
    }

    fn key(columns: &[i16]) -> ForeignKey {
        ForeignKey {
            name: "t_fkey".to_owned(),
            table_oid: 1,
            table: "public.t".to_owned(),
            referenced: "public.o".to_owned(),
            columns: columns.to_vec(),
            column_names: columns.iter().map(|column| format!("c{column}")).collect(),
            table_bytes: 1,
        }
    }

    #[test]
    fn of_two_equal_indexes_the_one_that_enforces_is_kept() {
        let plain = Index { scans: 99, ..index(10, "plain") };
        let unique = Index { unique: true, ..index(11, "uniq") };
        let found = duplicates(&[plain.clone(), unique.clone()]);
        assert_eq!(found[0].keep, "public.uniq");
        assert_eq!(
            found[0].superfluous[0].statement.as_deref(),
            Some("DROP INDEX CONCURRENTLY public.plain;")
        );
        let primary = Index { unique: true, constraint: true, ..index(12, "pkey") };
        let found = duplicates(&[plain, unique, primary]);
        assert_eq!(found[0].keep, "public.pkey");
        assert!(found[0].superfluous.iter().all(|other| other.statement.is_some()), "{found:?}");
    }

    #[test]
    fn an_index_that_enforces_more_than_the_kept_one_is_not_dropped() {
        let deferred = Index { unique: true, constraint: true, immediate: false, ..index(10, "deferred") };
        let unique = Index { unique: true, ..index(11, "uniq") };
        assert_eq!(duplicates(&[deferred.clone(), unique])[0].superfluous[0].statement, None);
        let second = Index { unique: true, constraint: true, ..index(12, "second") };
        let found = duplicates(&[second, deferred]);
        assert!(found[0].superfluous[0].remark.unwrap().contains("constraint"));
    }

    #[test]
    fn indexes_that_differ_or_are_invalid_are_no_duplicates() {
        let other = Index { sameness: "btree 2".to_owned(), ..index(11, "other") };
        let invalid = Index { valid: false, ..index(12, "invalid") };
        let elsewhere = Index { table_oid: 2, ..index(13, "elsewhere") };
        assert!(duplicates(&[index(10, "one"), other, invalid, elsewhere]).is_empty());
    }

    #[test]
    fn the_most_used_of_equals_is_kept() {
        let found = duplicates(&[index(10, "idle"), Index { scans: 5, ..index(11, "busy") }]);
        assert_eq!(
            (found[0].keep.as_str(), found[0].superfluous[0].index.as_str()),
            ("public.busy", "public.idle")
        );
    }

    #[test]
    fn what_enforces_something_is_never_unused() {
        let all = [
            index(10, "idle"),
            Index { scans: 1, ..index(11, "used") },
            Index { unique: true, ..index(12, "uniq") },
            Index { constraint: true, ..index(13, "con") },
            Index { replica_identity: true, ..index(14, "ident") },
            Index { valid: false, ..index(15, "invalid") },
        ];
        let found = unused(&all, &[], StatisticsAge::Sufficient);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].statement.as_deref(), Some("DROP INDEX CONCURRENTLY public.idle;"));
        let young = unused(&all, &[], StatisticsAge::TooYoung);
        assert_eq!((young.len(), &young[0].statement), (1, &None));
        let part = [Index { attached: true, ..index(16, "part") }];
        assert_eq!(unused(&part, &[], StatisticsAge::Sufficient)[0].statement, None);
    }

    #[test]
    fn an_unused_index_that_a_foreign_key_would_miss_is_not_dropped() {
        let on_key = index(10, "on_key");
        let first = &unused(std::slice::from_ref(&on_key), &[key(&[1])], StatisticsAge::Sufficient)[0];
        assert!(first.statement.is_none() && first.remark.unwrap().contains("foreign key"));
        // Another one that is not used either is no reason to drop both.
        let both = [on_key.clone(), index(11, "too")];
        let found = unused(&both, &[key(&[1])], StatisticsAge::Sufficient);
        assert!(found.iter().all(|index| index.statement.is_none()), "{found:?}");
        let used = [on_key, Index { scans: 1, ..index(11, "too") }];
        assert!(unused(&used, &[key(&[1])], StatisticsAge::Sufficient)[0].statement.is_some());
    }

    #[test]
    fn an_invalid_index_is_rebuilt_and_a_leftover_copy_dropped() {
        let all = [
            Index { valid: false, ..index(10, "broken") },
            Index { valid: false, ..index(11, "t_idx_ccnew1") },
            Index { valid: false, being_built: true, ..index(12, "building") },
            Index { valid: false, unique: true, ..index(13, "uniq") },
        ];
        let statements: Vec<String> = invalid(&all).into_iter().map(|found| found.statement).collect();
        assert_eq!(
            statements,
            [
                "REINDEX INDEX CONCURRENTLY public.broken;",
                "DROP INDEX CONCURRENTLY public.t_idx_ccnew1;",
                "REINDEX INDEX CONCURRENTLY public.uniq;",
            ]
        );
        assert!(invalid(&all)[2].remark.contains("duplicate"));
    }

    #[test]
    fn a_foreign_key_needs_an_index_that_begins_with_its_columns_in_any_order() {
        let on = |columns: &[i16]| Index { columns: columns.to_vec(), ..index(10, "i") };
        assert!(missing(&[key(&[1, 2])], &[on(&[2, 1, 3])]).is_empty());
        for useless in [
            on(&[1]),
            on(&[3, 1, 2]),
            Index { partial: true, ..on(&[1, 2]) },
            Index { valid: false, ..on(&[1, 2]) },
            Index { method: "brin".to_owned(), ..on(&[1, 2]) },
            Index { table_oid: 9, ..on(&[1, 2]) },
        ] {
            let found = missing(&[key(&[1, 2])], &[useless]);
            assert_eq!(found[0].statement, "CREATE INDEX CONCURRENTLY ON public.t (c1, c2);");
        }
    }
}
