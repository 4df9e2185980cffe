//! Who imports whom: read from the sources, and from the table in `agent/ARCHITECTURE.md`.
//!
//! A node is a top-level module, `core::lsn` or `agent::archive`; another package as a whole is
//! its short name, `core`. A file without modules below it, `main.rs` or `lib.rs`, is a node too.
//! An edge is a path in code: `use crate::...`, `crate::...` in an expression, a `super` that
//! leaves its top-level module, or another package's name.

use crate::sources::Source;
use anyhow::{Context, Result, bail};
use std::collections::{BTreeMap, BTreeSet};

/// A package of the product: its short name, its directory, and its name in code.
struct Package {
    short: &'static str,
    dir: &'static str,
    in_code: &'static str,
}

const PACKAGES: [Package; 5] = [
    Package { short: "core", dir: "agent/core/src", in_code: "wald_core" },
    Package { short: "client", dir: "agent/client/src", in_code: "wald_client" },
    Package { short: "archive-cmd", dir: "archive-cmd/src", in_code: "wald_archive" },
    Package { short: "restore-cmd", dir: "restore-cmd/src", in_code: "wald_restore" },
    Package { short: "agent", dir: "agent/src", in_code: "wald" },
];

/// The heading that the table stands under.
pub const HEADING: &str = "## Import table";

/// Every node with what it imports.
pub type Imports = BTreeMap<String, BTreeSet<String>>;

/// Reads the imports of the product's packages.
pub fn from_sources(sources: &[Source]) -> Imports {
    let mut imports = Imports::new();
    for package in &PACKAGES {
        let files: Vec<(Vec<String>, &Source)> =
            sources.iter().filter_map(|source| Some((module_path(package, source)?, source))).collect();
        let modules: BTreeSet<&str> =
            files.iter().filter_map(|(path, _)| path.first()).map(String::as_str).collect();
        for (path, source) in &files {
            if source.is_test() {
                continue;
            }
            let Some(top) = path.first() else { continue };
            let node = format!("{}::{top}", package.short);
            let edges = imports.entry(node.clone()).or_default();
            edges
                .extend(edges_of(package, path, &source.code(), &modules).into_iter().filter(|e| *e != node));
        }
    }
    // A root that only names its modules is no node of interest.
    imports.retain(|node, edges| !(node.ends_with("::lib") && edges.is_empty()));
    imports
}

/// `agent/src/store/s3.rs` is `["store", "s3"]` in the package `agent`.
fn module_path(package: &Package, source: &Source) -> Option<Vec<String>> {
    let path = source.path.strip_prefix(package.dir).ok()?.with_extension("");
    path.components().map(|part| part.as_os_str().to_str().map(str::to_owned)).collect()
}

fn edges_of(package: &Package, path: &[String], code: &str, modules: &BTreeSet<&str>) -> BTreeSet<String> {
    let mut edges = BTreeSet::new();
    let depth = if path == ["lib"] || path == ["main"] { 0 } else { path.len() };
    let out = "super::".repeat(depth);
    // The binary of a package sees its library by name.
    let roots =
        [Some("crate::".to_owned()), (depth > 0).then_some(out), Some(format!("{}::", package.in_code))];
    for root in roots.into_iter().flatten() {
        let names = first_names(code, &root);
        let local = names.iter().filter(|name| modules.contains(name.as_str()));
        edges.extend(local.map(|name| format!("{}::{name}", package.short)));
    }
    for other in PACKAGES.iter().filter(|other| other.in_code != package.in_code) {
        if !first_names(code, &format!("{}::", other.in_code)).is_empty() {
            edges.insert(other.short.to_owned());
        }
    }
    edges
}

/// The names that directly follow `root` in paths, also inside `root{...}` groups.
pub fn first_names(code: &str, root: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices(root) {
        let before = code.get(..at).and_then(|text| text.chars().next_back());
        if before.is_some_and(|c| is_name(c) || c == ':') {
            continue;
        }
        let rest = code.get(at + root.len()..).unwrap_or_default().trim_start();
        match rest.strip_prefix('{') {
            Some(group) => names.extend(group_names(group)),
            None => names.extend(name_at(rest)),
        }
    }
    names
}

/// The first name of each item of a use group, up to its closing brace.
fn group_names(group: &str) -> Vec<String> {
    let (mut depth, mut expected, mut names) = (0_u32, true, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => expected = true,
            c if expected && !c.is_whitespace() => {
                names.extend(name_at(group.get(at..).unwrap_or_default()));
                expected = false;
            }
            _ => {}
        }
    }
    names
}

fn name_at(text: &str) -> Option<String> {
    let name: String = text.chars().take_while(|c| is_name(*c)).collect();
    (!name.is_empty()).then_some(name)
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The table's rows, in its order: `| module | may import |`, names in backquotes.
pub fn from_table(document: &str) -> Result<Vec<(String, BTreeSet<String>)>> {
    let (_, section) = document.split_once(HEADING).with_context(|| format!("no `{HEADING}`"))?;
    let section = section.split("\n## ").next().unwrap_or_default();
    let mut rows: Vec<(String, BTreeSet<String>)> = Vec::new();
    for line in section.lines().filter(|line| line.starts_with("| `")) {
        let mut cells = line.trim_matches('|').split('|');
        let node = quoted(cells.next().unwrap_or_default());
        let [node] = node.as_slice() else { bail!("expected one module in the first cell: {line}") };
        let edges = quoted(cells.next().with_context(|| format!("a row of one cell: {line}"))?);
        if rows.iter().any(|(known, _)| known == node) {
            bail!("{node} stands twice in the table");
        }
        rows.push((node.clone(), edges.into_iter().collect()));
    }
    Ok(rows)
}

fn quoted(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// A row as it stands in the table.
pub fn row(node: &str, edges: &BTreeSet<String>) -> String {
    let edges: Vec<String> = edges.iter().map(|edge| format!("`{edge}`")).collect();
    format!("| `{node}` | {} |", edges.join(", "))
}

/// The nodes so that each stands above all that it imports, package by package; of several that
/// may come next the first by name does.
pub fn downwards(imports: &Imports) -> Vec<String> {
    let mut left: BTreeSet<(usize, &String)> =
        imports.keys().map(|node| (package_rank(node), node)).collect();
    let mut order = Vec::new();
    while !left.is_empty() {
        let imported = |node: &String| {
            left.iter().any(|(_, other)| imports.get(*other).is_some_and(|edges| edges.contains(node)))
        };
        let free = left.iter().copied().find(|(_, node)| !imported(node));
        // On a cycle any is as wrong as the other.
        let Some(next) = free.or_else(|| left.first().copied()) else { break };
        left.remove(&next);
        order.push(next.1.clone());
    }
    order
}

/// The programs come first and the core last.
fn package_rank(node: &str) -> usize {
    let programs_first = ["agent::", "archive-cmd::", "restore-cmd::", "client::", "core::"];
    programs_first.iter().position(|package| node.starts_with(package)).unwrap_or(programs_first.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn source(path: &str, text: &str) -> Source {
        Source { path: PathBuf::from(path), text: text.to_owned() }
    }

    #[test]
    fn paths_groups_and_supers_are_edges_and_one_s_own_children_are_not() {
        let sources = [
            source("agent/src/store.rs", "use wald_core::lsn::Lsn;"),
            source("agent/src/store/s3.rs", "use super::super::clock::Clock; use super::Store;"),
            source("agent/src/clock.rs", "// crate::store\nfn f() {}"),
            source("agent/src/archive.rs", "use crate::{clock::{A, B}, store};\nuse crate::archive::push;"),
            source("agent/src/main.rs", "fn main() { wald::archive::run() }"),
            source("agent/src/lib.rs", "pub mod store;"),
        ];
        let imports = from_sources(&sources);
        let of = |node: &str| imports[node].iter().map(String::as_str).collect::<Vec<_>>();
        assert_eq!(of("agent::store"), ["agent::clock", "core"]);
        assert_eq!(of("agent::archive"), ["agent::clock", "agent::store"]);
        assert_eq!(of("agent::main"), ["agent::archive"]);
        assert!(of("agent::clock").is_empty());
        assert!(!imports.contains_key("agent::lib"));
        let order = ["agent::main", "agent::archive", "agent::store", "agent::clock"];
        assert_eq!(downwards(&imports), order);
    }

    #[test]
    fn a_row_is_read_back_as_it_was_written() {
        let edges = BTreeSet::from(["core".to_owned(), "agent::clock".to_owned()]);
        let document = format!(
            "# A\n{HEADING}\n\n| module | may import |\n| --- | --- |\n{}\n| `core::lsn` | |\n## B\n| `no` | |\n",
            row("agent::store", &edges)
        );
        let rows = from_table(&document).unwrap();
        assert_eq!(rows, [("agent::store".to_owned(), edges), ("core::lsn".to_owned(), BTreeSet::new())]);
    }
}
