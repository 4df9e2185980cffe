//! The shape of the project, kept by a test: who imports whom, how large files are, what the
//! core and the shims do without, and what stands at the top level.

use anyhow::{Context, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;
use wald_integration::imports::{Imports, downwards, first_names, from_sources, from_table, row};
use wald_integration::parts::checkout;
use wald_integration::run::run;
use wald_integration::sources::Source;

/// Aim for fewer lines; past the limit a file has two subjects.
const LINES_AIM: usize = 300;
const LINES_MAX: usize = 600;

const FORBIDDEN_NAMES: [&str; 6] = ["util", "utils", "common", "helpers", "types", "misc"];

/// What DESIGN 2 allows beside dotfiles.
const TOP_LEVEL: [&str; 12] = [
    "Cargo.toml",
    "Cargo.lock",
    "rust-toolchain.toml",
    "agent",
    "archive-cmd",
    "restore-cmd",
    "benches",
    "integration",
    "systemd",
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
];

/// Cargo's build directory, which is not part of the project.
const IGNORED: &str = "target";

/// All findings of a check at once, each on a line of its own.
fn none(findings: Vec<String>) {
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

fn table() -> Result<Vec<(String, BTreeSet<String>)>> {
    from_table(
        &fs::read_to_string(checkout().join("agent/ARCHITECTURE.md")).context("reading ARCHITECTURE.md")?,
    )
}

#[test]
fn every_import_stands_in_the_table_and_every_entry_of_it_is_used() -> Result<()> {
    let actual = from_sources(&Source::all()?);
    let table: Imports = table()?.into_iter().collect();
    let mut findings = Vec::new();
    for (node, edges) in &actual {
        match table.get(node) {
            None => findings.push(format!("{node} has no row in the import table of agent/ARCHITECTURE.md")),
            Some(allowed) => {
                findings.extend(
                    edges
                        .difference(allowed)
                        .map(|e| format!("{node} must not import {e}: not in the table")),
                );
                findings.extend(
                    allowed
                        .difference(edges)
                        .map(|e| format!("{node} no longer imports {e}: take it out of the table")),
                );
            }
        }
    }
    findings.extend(
        table
            .keys()
            .filter(|n| !actual.contains_key(*n))
            .map(|n| format!("{n} is in the table and not in the code")),
    );
    if !findings.is_empty() {
        findings.push("\nThe table as the code has it, for a commit that gives the reason:".to_owned());
        findings.extend(downwards(&actual).iter().map(|node| row(node, &actual[node])));
    }
    none(findings);
    Ok(())
}

#[test]
fn imports_go_down_the_table_only() -> Result<()> {
    let rows = table()?;
    let place: BTreeMap<&str, usize> =
        rows.iter().enumerate().map(|(at, (node, _))| (node.as_str(), at)).collect();
    let mut findings = Vec::new();
    for (at, (node, edges)) in rows.iter().enumerate() {
        let up = edges.iter().filter(|edge| place.get(edge.as_str()).is_some_and(|target| *target <= at));
        findings.extend(
            up.map(|edge| format!("{node} imports {edge}, which does not stand below it in the table")),
        );
    }
    none(findings);
    Ok(())
}

#[test]
fn no_row_of_the_table_allows_what_the_design_forbids() -> Result<()> {
    let rows = table()?;
    let forbidden = |from: &str, to: &str| {
        let pillars = [
            "agent::codec",
            "agent::store",
            "agent::repository",
            "agent::fs",
            "agent::clock",
            "agent::metrics",
        ];
        let work = [
            "agent::archive",
            "agent::restore",
            "agent::backup",
            "agent::server",
            "agent::supervise",
            "agent::cli",
        ];
        (from == "agent::archive" && to == "agent::restore")
            || (from == "agent::restore" && to == "agent::archive")
            || (from.starts_with("core::") && !to.starts_with("core::"))
            || (pillars.contains(&from) && work.contains(&to))
            || (from.starts_with("client::") && to.starts_with("agent"))
            || (from.contains("-cmd::") && to != "client" && to != "core" && !to.contains("-cmd::"))
    };
    let mut findings = Vec::new();
    for (node, edges) in &rows {
        let wrong = edges.iter().filter(|edge| forbidden(node, edge));
        findings.extend(wrong.map(|edge| format!("{node} must never import {edge}")));
    }
    none(findings);
    Ok(())
}

#[test]
fn files_have_one_subject() -> Result<()> {
    let mut findings = Vec::new();
    for source in Source::all()? {
        let lines = source.without_tests().lines().count();
        if lines > LINES_MAX {
            findings.push(format!(
                "{} has {lines} lines without its tests, {LINES_MAX} at most: split it",
                source.path.display()
            ));
        } else if lines > LINES_AIM {
            eprintln!("{} has {lines} lines without its tests; aim for {LINES_AIM}", source.path.display());
        }
    }
    none(findings);
    Ok(())
}

#[test]
fn every_file_opens_with_what_it_is_for() -> Result<()> {
    let silent = Source::all()?.into_iter().filter(|source| !source.text.starts_with("//!"));
    none(silent.map(|source| format!("{} does not open with //!", source.path.display())).collect());
    Ok(())
}

#[test]
fn names_say_what_a_file_is_about() -> Result<()> {
    let mut findings = Vec::new();
    for source in Source::all()? {
        let dirs = source.path.parent().into_iter().flat_map(Path::components);
        let names: Vec<String> = dirs
            .map(|d| d.as_os_str().to_string_lossy().into_owned())
            .chain([source.stem().to_owned()])
            .collect();
        if source.stem() == "mod" {
            findings.push(format!("{}: a module x is x.rs, not mod.rs", source.path.display()));
        }
        findings.extend(
            names
                .iter()
                .filter(|n| FORBIDDEN_NAMES.contains(&n.as_str()))
                .map(|n| format!("{}: `{n}` says nothing", source.path.display())),
        );
    }
    none(findings);
    Ok(())
}

#[test]
fn no_test_is_switched_off_and_every_allowance_has_its_reason() -> Result<()> {
    // Put together here, so that this file does not find itself.
    let (ignore, allow) = (format!("#[{}", "ignore"), format!("[{}(", "allow"));
    let mut findings = Vec::new();
    for source in Source::all()? {
        let lines: Vec<&str> = source.text.lines().map(str::trim).collect();
        for (at, line) in lines.iter().enumerate() {
            let place = format!("{}:{}", source.path.display(), at + 1);
            if line.starts_with(&ignore) {
                findings.push(format!("{place}: a test that is switched off"));
            }
            let attribute = line.starts_with('#') && line.contains(&allow);
            let above = at.checked_sub(1).and_then(|before| lines.get(before));
            let reasoned =
                line.contains("//") || line.contains("reason") || above.is_some_and(|l| l.starts_with("//"));
            if attribute && !reasoned {
                findings.push(format!("{place}: an allowance without its reason beside it"));
            }
        }
    }
    none(findings);
    Ok(())
}

#[test]
fn the_core_is_pure() -> Result<()> {
    let forbidden_std = ["fs", "net", "env", "process", "thread"];
    let forbidden_text = [
        "SystemTime",
        "Instant",
        "Timestamp::now",
        "Zoned::now",
        "tokio::",
        "tracing::",
        "println!",
        "rand::",
    ];
    let mut findings = Vec::new();
    for source in Source::all()?.iter().filter(|source| source.path.starts_with("agent/core/src")) {
        let code = source.code();
        let std = first_names(&code, "std::");
        findings.extend(
            forbidden_std
                .iter()
                .filter(|n| std.contains(**n))
                .map(|n| format!("{} uses std::{n}", source.path.display())),
        );
        findings.extend(
            forbidden_text
                .iter()
                .filter(|n| code.contains(**n))
                .map(|n| format!("{} uses {n}", source.path.display())),
        );
    }
    none(findings);
    let allowed = ["wald-core", "blake3", "crc32c", "jiff", "serde", "serde_json", "sha2", "thiserror"];
    none(direct_dependencies("wald-core")?.into_iter().filter(|d| !allowed.contains(&d.as_str())).collect());
    Ok(())
}

#[test]
fn the_shims_stand_on_std_and_the_client_alone() -> Result<()> {
    let allowed =
        BTreeSet::from(["wald-archive", "wald-restore", "wald-client", "wald-core"].map(str::to_owned));
    for shim in ["wald-archive", "wald-restore"] {
        let all = cargo_tree(shim, &[])?;
        assert!(all.contains("wald-client"), "cargo tree names no wald-client: {all:?}");
        none(all.difference(&allowed).map(|name| format!("{shim} depends on {name}")).collect());
    }
    Ok(())
}

#[test]
fn scripts_are_well_formed_and_can_be_run() -> Result<()> {
    let mut scripts = vec![checkout().join(".ci/run")];
    for entry in fs::read_dir(checkout().join("integration"))? {
        let path = entry?.path();
        if path.is_file() && path.extension().is_none() {
            scripts.push(path);
        }
    }
    assert!(scripts.len() >= 5, "where are the scripts? {scripts:?}");
    for script in scripts {
        let mut check = Command::new("bash");
        check.arg("-n").arg(&script);
        run(check)?.success().with_context(|| script.display().to_string())?;
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&script)?.permissions());
        assert!(mode & 0o111 == 0o111, "{} cannot be run", script.display());
    }
    Ok(())
}

#[test]
fn the_top_level_is_as_the_design_gives_it() -> Result<()> {
    let mut findings = Vec::new();
    for entry in fs::read_dir(checkout())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let known =
            name.starts_with('.') || name.starts_with("LICENSE") || TOP_LEVEL.contains(&name.as_str());
        if !known && name != IGNORED {
            findings.push(format!("{name} does not belong at the top level"));
        }
    }
    none(findings);
    Ok(())
}

fn direct_dependencies(package: &str) -> Result<BTreeSet<String>> {
    cargo_tree(package, &["--depth", "1"])
}

/// The names of the packages that one is built from.
fn cargo_tree(package: &str, more: &[&str]) -> Result<BTreeSet<String>> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(checkout()).args([
        "tree",
        "--offline",
        "--prefix",
        "none",
        "--edges",
        "normal",
        "--package",
        package,
    ]);
    cargo.args(more);
    let text = run(cargo)?.success()?.stdout;
    Ok(text
        .lines()
        .filter_map(|line| line.split(' ').next())
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect())
}
