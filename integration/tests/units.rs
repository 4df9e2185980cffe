//! The systemd units: what `systemd-analyze` says of them, and that they run what exists.

use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use wald_integration::binaries::Binaries;
use wald_integration::parts::{checkout, tool};
use wald_integration::run::run;
use wald_integration::sandbox::Sandbox;

/// Every unit, by name, with its text.
fn units() -> Result<Vec<(String, String)>> {
    let mut units = Vec::new();
    for entry in fs::read_dir(checkout().join("systemd")).context("listing systemd/")? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).context("a name")?.to_owned();
        if name.ends_with(".service") || name.ends_with(".timer") {
            units.push((name, fs::read_to_string(&path)?));
        }
    }
    units.sort();
    Ok(units)
}

/// Copies them to where `systemd-analyze` sees the programs at the paths that they name.
fn installed(sandbox: &Sandbox, units: &[(String, String)]) -> Result<Vec<PathBuf>> {
    let wald = Binaries::install(sandbox)?.wald();
    let wald = wald.to_str().context("a path")?;
    units.iter().map(|(name, text)| sandbox.write(name, &text.replace("/usr/bin/wald", wald))).collect()
}

fn verify(paths: &[PathBuf]) -> Result<(bool, String)> {
    let mut command = Command::new(tool("systemd-analyze")?);
    command.args(["verify", "--man=no", "--recursive-errors=no"]).args(paths);
    let finished = run(command)?;
    Ok((finished.code() == 0, finished.said()))
}

#[test]
fn systemd_finds_nothing_to_say_about_the_units() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let units = units()?;
    let names: BTreeSet<&str> = units.iter().map(|(name, _)| name.as_str()).collect();
    for name in ["wald.service", "wald-backup.timer", "wald-verify.timer", "wald-expire.timer"] {
        assert!(names.contains(name), "{name} is missing");
    }
    let (good, said) = verify(&installed(&sandbox, &units)?)?;
    assert!(good && said.trim().is_empty(), "{said}");
    Ok(())
}

/// Otherwise the test above could not fail.
#[test]
fn systemd_tells_of_a_unit_that_is_wrong() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let mut units = units()?;
    for (_, text) in &mut units {
        *text = text.replace("NoNewPrivileges=", "NoNewPrivilege=").replace("02:00:00", "26:00:00");
    }
    let (_, said) = verify(&installed(&sandbox, &units)?)?;
    assert!(said.contains("NoNewPrivilege"), "{said}");
    assert!(said.contains("calendar"), "{said}");
    Ok(())
}

#[test]
fn each_timer_has_its_service_and_each_service_runs_a_command_that_exists() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let wald = Binaries::install(&sandbox)?.wald();
    let units = units()?;
    for (name, text) in &units {
        if let Some(stem) = name.strip_suffix(".timer") {
            let service = format!("{stem}.service");
            assert!(units.iter().any(|(other, _)| *other == service), "{service} is missing");
            assert!(text.contains("Persistent=true") && text.contains(" UTC\n"), "{name}");
            continue;
        }
        let started = text.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/bin/wald "));
        let mut command = Command::new(&wald);
        command.arg(started.with_context(|| format!("{name} starts no wald"))?).arg("--help");
        run(command)?.success().with_context(|| format!("{name}: {started:?}"))?;
        assert!(text.contains("User=postgres"), "{name}");
    }
    Ok(())
}
