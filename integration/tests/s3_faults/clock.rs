//! A host whose clock is wrong: wald's own programs under libfaketime, the real server's own
//! refusal.

use super::Stage;
use anyhow::Result;
use wald_integration::parts;
use wald_integration::run::{Finished, run};
use wald_integration::wald::Settings;

impl Stage {
    /// `wald ARGUMENTS` on a host whose clock is off. Only the time of day: time-outs are measured
    /// by the monotonic clock, which no wrong time of day changes.
    fn wald_at(&self, offset: &str, arguments: &[&str]) -> Result<Finished> {
        let wald = self.scene.agent.command(arguments);
        let mut command = self.scene.sandbox.account().command(parts::tool("faketime")?);
        command.envs(self.scene.agent.environment());
        command.args(["-m", "--exclude-monotonic", "-f", offset]);
        command.arg(wald.get_program()).args(wald.get_args());
        run(command)
    }
}

#[test]
fn a_wrong_clock_is_named_and_is_neither_success_nor_absence() -> Result<()> {
    let settings =
        Settings::new().set_text("archive", "timeout", "10s").set_text("restore", "patience", "10s");
    let mut stage = Stage::open("clock", settings)?;
    stage.scene.agent.succeed(&["backup"])?;
    let there = stage.new_segment()?;
    stage.scene.cluster.wait_archived()?;
    let backups = stage.listed_backups()?;
    stage.archive_nothing()?;
    let new = [stage.new_segment()?, stage.new_segment()?];

    let path = |name: &str| stage.pg_wal().join(name).to_string_lossy().into_owned();
    let destination = path("RECOVERYXLOG");
    // Side by side: most of the time is spent waiting.
    std::thread::scope(|scope| {
        let mut running = Vec::new();
        for (offset, new) in ["+30m", "-30m"].into_iter().zip(&new) {
            let get = |name: &str| ["archive-get", name, &destination].map(str::to_owned).to_vec();
            for (arguments, code) in [
                (vec!["archive-push".to_owned(), path(new)], 1),
                (vec!["backup".to_owned()], 1),
                (vec!["list".to_owned()], 1),
                (vec!["repo".to_owned(), "check".to_owned()], 1),
                (get(&there), 200),
                (get("0000000100000000000000EE"), 200),
            ] {
                let stage = &stage;
                running.push(scope.spawn(move || -> Result<()> {
                    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
                    let said = stage.wald_at(offset, &arguments)?.exited_with(code)?;
                    assert!(said.said().contains("clock"), "{offset} {arguments:?}: {}", said.said());
                    Ok(())
                }));
            }
        }
        running.into_iter().try_for_each(|one| one.join().unwrap())
    })?;
    assert!(!stage.pg_wal().join("RECOVERYXLOG").exists());
    assert_eq!(stage.listed_backups()?, backups);
    for new in &new {
        assert!(!stage.holds(new)?, "{new} was stored");
    }

    // The clock is set right; a few minutes are what servers allow for.
    stage.archive_again()?;
    stage.scene.cluster.wait_archived()?;
    for new in &new {
        assert!(stage.holds(new)?, "{new} is not there");
    }
    stage.wald_at("+5m", &["backup"])?.success()?;
    assert_eq!(stage.listed_backups()?.len(), backups.len() + 1);
    Ok(())
}
