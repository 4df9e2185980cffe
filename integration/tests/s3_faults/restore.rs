//! The way back: what is placed has the right bytes, and what could not be asked is neither "not
//! there" nor a cluster that starts.

use super::{Stage, server};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use wald_integration::fault_proxy::{Failure, Fault, Requests, When};
use wald_integration::postgres::Cluster;
use wald_integration::run::{Finished, run};
use wald_integration::wald::Settings;

const DEADLINE: Duration = Duration::from_secs(60);
/// PostgreSQL takes it as fatal: recovery stops, and nothing is opened.
const STOP: i32 = 200;

impl Stage {
    /// `wald restore` into a new directory, through a proxy of its own with a fault of its own.
    fn restore(
        &self,
        name: &str,
        requests: Requests,
        when: When,
        fault: Fault,
    ) -> Result<(PathBuf, Finished)> {
        let scene = &self.scene;
        let (wald, proxy) =
            self.another(name, Settings::new().set_text("repository", "retry_timeout", "500ms"))?;
        proxy.add(requests, when, fault);
        let to = scene.sandbox.path().join(format!("{name}-data"));
        let said = wald.run_within(&["restore", "--to", to.to_str().context("a path")?], DEADLINE)?;
        ensure!(proxy.injected() > 0, "the fault was never met: {}", said.said());
        Ok((to, said))
    }
}

fn parts() -> Requests {
    Requests::reads().path("-full/base-")
}

#[test]
fn a_restore_is_right_or_an_error_and_an_outage_is_never_the_end_of_the_wal() -> Result<()> {
    let settings =
        Settings::new().set_text("restore", "patience", "4s").set_text("restore", "standby_patience", "1s");
    let mut stage = Stage::open("restore-faults", settings)?;
    stage.scene.agent.succeed(&["backup"])?;
    stage.scene.write_segments(12)?;
    stage.scene.cluster.wait_archived()?;
    let wanted = stage.scene.cluster.fingerprint()?;

    restores_side_by_side(&stage)?;
    let data_dir = stage.scene.sandbox.path().join("copy-data");
    stage.proxy.add(parts(), When::First(2), Fault::CutAnswer(100_000));
    stage.scene.agent.succeed(&["restore", "--to", data_dir.to_str().context("a path")?])?;
    segments_one_by_one(&mut stage, &data_dir)?;

    // And a whole recovery, while a tenth of all requests fails in one way or another.
    for (seed, fault) in (1..).zip([
        Fault::Answer(Failure::SLOW_DOWN),
        Fault::CutAnswer(10),
        Fault::ShortAnswer(100),
        Fault::Page(404),
        Fault::CutBefore,
    ]) {
        stage.proxy.add(Requests::all(), When::Share { seed, per_mille: 20 }, fault);
    }
    let mut copy = Cluster::adopt(&stage.scene.sandbox, "copy", &data_dir)?;
    copy.set_environment(&stage.scene.agent.environment());
    launch_until_it_is_there(&mut copy)?;
    let differences = wanted.differences(&copy.fingerprint()?);
    assert!(differences.is_empty(), "{differences:?}");
    Ok(())
}

/// Where the patience of 4 s was not enough, PostgreSQL has stopped with an error; started again it
/// goes on. Anything else that ends it is a failure.
fn launch_until_it_is_there(copy: &mut Cluster) -> Result<()> {
    for _ in 0..20 {
        copy.launch()?;
        match copy.wait_primary(DEADLINE) {
            Ok(()) => return Ok(()),
            Err(error) if format!("{error:?}").contains("exited with exit code 200") => {}
            Err(error) => return Err(error),
        }
    }
    anyhow::bail!("twenty recoveries in a row were stopped by faults")
}

fn restores_side_by_side(stage: &Stage) -> Result<()> {
    let lists = Requests::lists;
    let expired = || Fault::Answer(Failure::EXPIRED_TOKEN);
    let slow = || Fault::Answer(Failure::SLOW_DOWN);
    let cases = [
        (parts(), When::First(2), slow()),
        (parts(), When::Always, Fault::CutAnswer(1000)),
        (parts(), When::Always, Fault::ShortAnswer(1000)),
        (parts(), When::Always, Fault::FlippedBit),
        (parts(), When::Always, Fault::Page(404)),
        (parts(), When::Always, Fault::Page(200)),
        (parts(), When::After(1), expired()),
        (Requests::reads().path("/files.json"), When::Always, Fault::ShortAnswer(1000)),
        (Requests::reads().path("/catalog/"), When::Always, slow()),
        (lists(), When::Always, Fault::ShortAnswer(100)),
        (lists(), When::Always, Fault::Page(200)),
    ];
    std::thread::scope(|scope| {
        let running = cases.into_iter().enumerate().map(|(number, (requests, when, fault))| {
            scope.spawn(move || -> Result<()> {
                let (data_dir, said) =
                    stage.restore(&format!("case-{number}"), requests, when, fault.clone())?;
                let case = format!("{when:?} {fault:?}: {}", said.said());
                let succeeds = when == When::First(2);
                assert_eq!(said.code() == 0, succeeds, "{case}");
                // The last file of a restore: without it nothing can be started.
                assert_eq!(data_dir.join("global/pg_control").exists(), succeeds, "{case}");
                if let Fault::Answer(Failure::EXPIRED_TOKEN) = fault {
                    assert!(said.said().contains("access was refused"), "{case}");
                }
                Ok(())
            })
        });
        let running: Vec<_> = running.collect();
        running.into_iter().try_for_each(|case| case.join().unwrap())
    })
}

/// One segment after the other as PostgreSQL asks for them, each with a fault of its own.
fn segments_one_by_one(stage: &mut Stage, data_dir: &Path) -> Result<()> {
    // Without an agent nothing was fetched before its fault was there.
    stage.scene.agent.kill_hard()?;
    let elsewhere = format!("{}/elsewhere", server()?.endpoint());
    let no_such_key = Failure { status: 404, code: "NoSuchKey" };
    let faults = [
        (When::First(1), Fault::CutAnswer(10), 0),
        (When::First(2), Fault::Answer(Failure::SLOW_DOWN), 0),
        (When::Always, Fault::Answer(Failure::SLOW_DOWN), STOP),
        (When::Always, Fault::Answer(Failure::TIME_SKEWED), STOP),
        (When::Always, Fault::Answer(Failure::EXPIRED_TOKEN), STOP),
        (When::Always, Fault::Page(404), STOP),
        (When::Always, Fault::Page(200), STOP),
        (When::Always, Fault::CutAnswer(10), STOP),
        (When::Always, Fault::FlippedBit, STOP),
        (When::Always, Fault::Stall, STOP),
        (When::Always, Fault::Redirect { status: 302, location: elsewhere }, STOP),
        // Said once, by whatever stands between, and taken back.
        (When::First(1), Fault::Answer(no_such_key), 0),
    ];
    let mut names: Vec<String> =
        stage.scene.place.objects("wal/")?.into_iter().map(|stored| stored.name).collect();
    names.retain(|name| name.ends_with(".zst"));
    assert!(names.len() >= faults.len(), "{names:?}");
    stage.proxy.clear();
    let cases: Vec<_> = names.iter().rev().zip(faults).collect();
    for (name, (when, fault, _)) in &cases {
        stage.proxy.add(Requests::reads().path(name.as_str()), *when, fault.clone());
    }
    let asked = |name: &str| {
        let segment = name.trim_start_matches("wal/").trim_end_matches(".zst").to_owned();
        run(stage.scene.agent.restore_shim(data_dir, &segment, &format!("pg_wal/{segment}")))
            .map(|said| (data_dir.join("pg_wal").join(&segment), stage.pg_wal().join(segment), said))
    };
    let asked = &asked;
    std::thread::scope(|scope| {
        let running: Vec<_> =
            cases.iter().map(|(name, case)| (case, scope.spawn(move || asked(name)))).collect();
        for ((when, fault, code), asked) in running {
            let (placed, original, said) = asked.join().unwrap()?;
            let case = format!("{when:?} {fault:?}: {}", said.said());
            assert_eq!(said.code(), *code, "{case}");
            match code {
                0 => assert!(fs::read(&placed)? == fs::read(original)?, "{case}"),
                _ => assert!(!placed.exists(), "{case}"),
            }
        }
        anyhow::Ok(())
    })?;
    an_absence_must_be_vouched_for(stage, data_dir)?;
    stage.proxy.clear();
    stage.scene.agent.restart()
}

/// "There is no such segment" ends a recovery, and is said only if `wald.json` can be read again.
fn an_absence_must_be_vouched_for(stage: &Stage, data_dir: &Path) -> Result<()> {
    let cases = [
        (Some(Fault::Answer(Failure::SLOW_DOWN)), STOP),
        (Some(Fault::Page(404)), STOP),
        (Some(Fault::ShortAnswer(10)), STOP),
        (None, 1),
    ];
    std::thread::scope(|scope| {
        let running = cases.into_iter().enumerate().map(|(number, (fault, code))| {
            scope.spawn(move || -> Result<()> {
                // What is answered in the end is waited for.
                let patience = if code == STOP { "2s" } else { "20s" };
                let settings = Settings::new().set_text("restore", "patience", patience);
                let (wald, proxy) = stage.another(&format!("absence-{number}"), settings)?;
                if let Some(fault) = &fault {
                    proxy.add(Requests::reads().path("/wald.json"), When::After(1), fault.clone());
                }
                let absent = "0000000100000000000000EE";
                let said = run(wald.restore_shim(data_dir, absent, &format!("pg_wal/{absent}")))?;
                assert_eq!(said.code(), code, "{fault:?}: {}", said.said());
                Ok(())
            })
        });
        let running: Vec<_> = running.collect();
        running.into_iter().try_for_each(|case| case.join().unwrap())
    })
}
