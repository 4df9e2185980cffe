//! The example configuration says the truth: every key in it exists, and every value that it
//! calls a default is one.

use anyhow::{Context, Result};
use std::fs;
use wald_integration::binaries::Binaries;
use wald_integration::parts::checkout;
use wald_integration::run::run;
use wald_integration::sandbox::Sandbox;

/// What `wald config check` says of a configuration, without the line that names its file.
fn effective(sandbox: &Sandbox, name: &str, text: &str) -> Result<String> {
    let path = sandbox.write(name, text)?;
    let mut command = sandbox.account().command(Binaries::install(sandbox)?.wald());
    command.arg("--config").arg(&path).args(["config", "check"]);
    let printed = run(command)?.success()?.stdout;
    Ok(printed.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n"))
}

/// `#key = value` is a default that is commented out; `# Words` is a comment.
fn is_default(line: &str) -> bool {
    line.strip_prefix('#').is_some_and(|rest| rest.contains(" = ") && !rest.starts_with(' '))
}

#[test]
fn the_example_holds_known_keys_only_and_its_defaults_are_the_defaults() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let example = fs::read_to_string(checkout().join("systemd/wald.toml")).context("reading the example")?;
    let as_it_is = effective(&sandbox, "as-it-is.toml", &example)?;

    // These have no default: they stand there as an example.
    let example_only = [
        "#queue_max",
        "#environment_file",
        "#endpoint",
        "#region",
        "#ca_file",
        "#path_style",
        "#max_bytes",
        "#rate_max",
        "#tls_cert",
        "#tls_key",
        "#basic_auth_file",
        "#limit",
        "#pgbouncer",
        "#primary =",
        "#host =",
        "#fence_command",
        "#unfence_command",
        "#trigger_file",
        "#pgbouncer =",
        "#haproxy =",
        "#secret_command",
        "#smoke_connection",
    ];
    let uncommented = |keep: &dyn Fn(&str) -> bool| {
        let lines = example.lines().map(|line| match line.strip_prefix('#') {
            Some(rest) if is_default(line) && keep(line) => rest,
            _ => line,
        });
        lines.collect::<Vec<_>>().join("\n")
    };
    let defaults = uncommented(&|line| !example_only.iter().any(|key| line.starts_with(key)));
    assert_ne!(defaults, example, "no default was found in the example");
    assert_eq!(effective(&sandbox, "defaults.toml", &defaults)?, as_it_is);

    // The one file that must be there when it is named.
    let keys = sandbox.write("environment", "AWS_ACCESS_KEY_ID=example\n")?;
    let all = uncommented(&|_| true).replace("/etc/wald/environment", &keys.to_string_lossy());
    effective(&sandbox, "all.toml", &all)?;
    Ok(())
}

#[test]
fn the_example_shows_every_key_that_is_in_force() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let example = fs::read_to_string(checkout().join("systemd/wald.toml")).context("reading the example")?;
    let shown: Vec<&str> = example.lines().map(|line| line.trim_start_matches('#')).collect();
    for line in effective(&sandbox, "wald.toml", &example)?.lines().filter(|line| line.contains(" = ")) {
        let key = line.split(" = ").next().unwrap_or_default();
        assert!(shown.iter().any(|l| l.starts_with(&format!("{key} = "))), "the example does not show {key}");
    }
    Ok(())
}
