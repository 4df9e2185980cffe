//! WAL: what PostgreSQL is told to be archived is in the repository, whatever the network does.
//!
//! The shim is run here as PostgreSQL would, on segments that are marked `.ready`, so that each
//! fault meets one segment and each exit code is seen. At the end PostgreSQL archives by itself.

use super::Stage;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::process::Command;
use std::time::Duration;
use wald_integration::fault_proxy::{Failure, Fault, Requests, When};
use wald_integration::run::{Finished, run};
use wald_integration::wait;
use wald_integration::wald::Settings;

const DEADLINE: Duration = Duration::from_secs(60);
/// For WAL that is sent while requests fail, on a machine that does other work, too.
const CATCH_UP: Duration = Duration::from_secs(180);

/// With what exit codes a segment's tries may end while its fault is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Told {
    /// "Done" at once.
    Done,
    /// "Try again" first.
    TryAgain,
    /// Whichever; the HTTP client repeats some requests by itself.
    Either,
}

impl Stage {
    /// Has PostgreSQL finish a segment; its name.
    pub(super) fn new_segment(&self) -> Result<String> {
        self.scene.cluster.exec("create table if not exists traffic (t text)")?;
        self.scene.cluster.exec("insert into traffic select md5(g::text) from generate_series(1, 500) g")?;
        let name = self.scene.cluster.scalar("select pg_walfile_name(pg_current_wal_insert_lsn())")?;
        self.scene.cluster.exec("select pg_switch_wal()")?;
        let marked = |mark| self.pg_wal().join(format!("archive_status/{name}.{mark}")).exists();
        // The archiver may be quicker.
        wait::until_true("a segment to be ready", DEADLINE, || Ok(marked("ready") || marked("done")))?;
        Ok(name)
    }

    /// What PostgreSQL would be told of a segment.
    pub(super) fn archive(&self, name: &str) -> Result<Finished> {
        run(self.scene.agent.archive_shim(self.scene.cluster.data_dir(), &format!("pg_wal/{name}")))
    }

    /// From now on PostgreSQL archives nothing by itself.
    pub(super) fn archive_nothing(&self) -> Result<()> {
        self.set_archive_command("set archive_command = 'false'")
    }

    /// From now on it does again.
    pub(super) fn archive_again(&self) -> Result<()> {
        self.set_archive_command("reset archive_command")
    }

    fn set_archive_command(&self, how: &str) -> Result<()> {
        let shown = || self.scene.cluster.scalar("show archive_command");
        let before = shown()?;
        self.scene.cluster.exec(&format!("alter system {how}"))?;
        self.scene.cluster.exec("select pg_reload_conf()")?;
        wait::until_true("another archive_command", DEADLINE, || Ok(shown()? != before))
    }

    /// Whether the repository holds a segment, looked up past the proxy; other bytes are an error.
    pub(super) fn holds(&self, name: &str) -> Result<bool> {
        let object = format!("wal/{name}.zst");
        if self.scene.place.objects(&object)?.is_empty() {
            return Ok(false);
        }
        let sealed = self.scene.sandbox.path().join(format!("{name}.zst"));
        fs::write(&sealed, self.scene.place.read(&object)?)?;
        let output = Command::new("zstd").args(["-d", "-c", "-q"]).arg(&sealed).output()?;
        ensure!(output.status.success(), "{object}: {}", String::from_utf8_lossy(&output.stderr));
        ensure!(output.stdout == fs::read(self.pg_wal().join(name))?, "{object} holds other bytes");
        Ok(true)
    }
}

#[test]
fn a_segment_is_done_only_if_it_is_there_and_is_done_when_the_fault_is_over() -> Result<()> {
    // Shorter than a request that stalls, and long enough for a second try on a busy machine.
    let settings = Settings::new().set_text("archive", "timeout", "5s");
    let mut stage = Stage::open_retrying("wal-faults", settings, "3s")?;
    stage.archive_nothing()?;
    let here = Requests::creations;
    let redirect = Fault::Redirect { status: 303, location: super::server()?.endpoint() };
    for (requests, when, fault, told) in [
        // Lost answers, each in its own way: the next try meets what the first has stored.
        (here(), When::First(1), Fault::CutAfter, Told::Either),
        (here(), When::First(1), Fault::StallAfter, Told::TryAgain),
        (here(), When::First(1), Fault::AnswerAfter(Failure::SLOW_DOWN), Told::Done),
        (here(), When::First(1), Fault::AnswerAfter(Failure::CONFLICT), Told::Done),
        // There is no object, whatever the answer says.
        (here(), When::First(1), Fault::Answer(Failure::CONFLICT), Told::Done),
        (here(), When::Always, Fault::Answer(Failure::OPERATION_ABORTED), Told::TryAgain),
        (here(), When::Always, Fault::Answer(Failure::PRECONDITION_FAILED), Told::TryAgain),
        (here(), When::Always, Fault::Page(200), Told::TryAgain),
        (here(), When::Always, redirect, Told::TryAgain),
        (here(), When::Always, Fault::CutRequest(100), Told::TryAgain),
        (here(), When::Always, Fault::Stall, Told::TryAgain),
        (Requests::all(), When::Always, Fault::Answer(Failure::SLOW_DOWN), Told::TryAgain),
        (Requests::all(), When::Always, Fault::Answer(Failure::TIME_SKEWED), Told::TryAgain),
        (Requests::all(), When::Always, Fault::Answer(Failure::EXPIRED_TOKEN), Told::TryAgain),
    ] {
        stage.proxy.clear();
        stage.proxy.forget();
        let name = stage.new_segment()?;
        stage.proxy.add(requests, when, fault.clone());
        let said = stage.archive(&name)?;
        let case = format!("{when:?} {fault:?}: {}", said.said());
        assert!(stage.proxy.injected() > 0, "{case}");
        let codes: &[i32] = match told {
            Told::Done => &[0],
            Told::TryAgain => &[1],
            Told::Either => &[0, 1],
        };
        assert!(codes.contains(&said.code()), "{case}");
        let there = stage.holds(&name)?;
        assert!(there || said.code() != 0, "acknowledged and not there: {case}");
        // Only what was carried out is there.
        let carried_out = matches!(fault, Fault::CutAfter | Fault::StallAfter | Fault::AnswerAfter(_));
        assert_eq!(there, carried_out || told == Told::Done, "{case}");
        if let Fault::Answer(Failure { code: "RequestTimeTooSkewed" | "ExpiredToken", .. }) = fault {
            assert!(said.said().contains("refused") && said.said().contains("clock"), "{case}");
        }

        stage.proxy.clear();
        stage.archive(&name)?.success().context(case)?;
        assert!(stage.holds(&name)?, "{name} is not there");
    }
    what_exists_must_be_read_back(&stage)?;
    without_an_agent(&mut stage)?;
    postgresql_catches_up(&mut stage)
}

/// "It exists already" is nothing: without a look at the stored bytes there is no success.
fn what_exists_must_be_read_back(stage: &Stage) -> Result<()> {
    for fault in [
        Fault::Answer(Failure::SLOW_DOWN),
        Fault::Answer(Failure::EXPIRED_TOKEN),
        Fault::Page(200),
        Fault::ShortAnswer(100),
        Fault::FlippedBit,
    ] {
        let name = stage.new_segment()?;
        stage.proxy.clear();
        let lost = Fault::AnswerAfter(Failure::PRECONDITION_FAILED);
        stage.proxy.add(Requests::creations(), When::Always, lost);
        stage.proxy.add(Requests::reads().path("wal/"), When::Always, fault.clone());
        let said = stage.archive(&name)?;
        assert_eq!(said.code(), 1, "{fault:?}: {}", said.said());
        stage.proxy.clear();
        stage.archive(&name)?.success()?;
        assert!(stage.holds(&name)?);
    }
    Ok(())
}

/// The shim's fall-back takes the same care.
fn without_an_agent(stage: &mut Stage) -> Result<()> {
    stage.scene.agent.kill_hard()?;
    for (when, fault) in [
        (When::First(1), Fault::CutAfter),
        (When::First(1), Fault::AnswerAfter(Failure::SLOW_DOWN)),
        (When::Always, Fault::Answer(Failure::PRECONDITION_FAILED)),
        (When::Always, Fault::Answer(Failure::EXPIRED_TOKEN)),
    ] {
        let name = stage.new_segment()?;
        stage.proxy.clear();
        stage.proxy.add(Requests::creations(), when, fault.clone());
        let said = stage.archive(&name)?;
        assert!(said.code() == 1 || said.code() == 0 && stage.holds(&name)?, "{fault:?}: {}", said.said());
        stage.proxy.clear();
        stage.archive(&name)?.success()?;
        assert!(stage.holds(&name)?);
    }
    stage.scene.agent.restart()
}

/// PostgreSQL itself, while a quarter of all requests fails, and then while none does.
fn postgresql_catches_up(stage: &mut Stage) -> Result<()> {
    stage.proxy.clear();
    for (seed, fault) in (1..).zip([
        Fault::CutAfter,
        Fault::CutBefore,
        Fault::Answer(Failure::SLOW_DOWN),
        Fault::AnswerAfter(Failure::INTERNAL_ERROR),
        Fault::Answer(Failure::PRECONDITION_FAILED),
    ]) {
        stage.proxy.add(Requests::all(), When::Share { seed, per_mille: 50 }, fault);
    }
    stage.archive_again()?;
    stage.scene.write_segments(6)?;
    // After three failures the archiver sleeps for a minute; a reload wakes it, and adds no WAL.
    wait::until_true("most of the WAL to be archived", CATCH_UP, || {
        stage.scene.cluster.exec("select pg_reload_conf()")?;
        Ok(stage.scene.cluster.archive_backlog()? <= 2)
    })?;
    stage.proxy.clear();
    stage.scene.write_segments(1)?;
    stage.scene.cluster.wait_archived()?;
    let mut compared = 0;
    for entry in fs::read_dir(stage.pg_wal().join("archive_status"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let name = name.strip_suffix(".done").context("a file that is not archived")?;
        if name.len() == 24 {
            assert!(stage.holds(name)?, "{name} is not there");
            compared += 1;
        }
    }
    assert!(compared >= 30, "only {compared} segments");
    Ok(())
}
