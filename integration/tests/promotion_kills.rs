//! `wald promote` killed with SIGKILL at each of its steps, then resumed or aborted: it goes on or
//! back, and never are there two primaries.

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;
use wald_integration::pair::Pair;
use wald_integration::postgres::Cluster;
use wald_integration::process::Process;
use wald_integration::run::{Finished, run};
use wald_integration::wait;
use wald_integration::wald::{Settings, Wald};

const DEADLINE: Duration = Duration::from_secs(120);

/// Up to here everything can be taken back.
const BEFORE: [&str; 3] = ["route_away", "fence", "catch_up"];
/// From here on the way leads forward.
const AFTER: [&str; 4] = ["promote", "route_here", "smoke_test", "report"];
const MOMENTS: [&str; 2] = ["begun", "acted"];

/// Runs `wald promote --yes`, which kills itself at this point.
fn killed_at(wald: &Wald, at: &str) -> Result<()> {
    let mut command = wald.command(&["promote", "--yes"]);
    command.env("WALD_PROMOTE_KILL_AT", at);
    let finished = run(command)?;
    assert_eq!(finished.code(), -9, "it was not killed at {at}: {}", finished.said());
    Ok(())
}

fn resume(wald: &Wald) -> Result<Finished> {
    wald.run(&["promote", "--resume", "--yes"])
}

/// A hook that has this test start the old primary: what a hook starts would be out of its hands.
struct Unfence {
    asked: PathBuf,
    done: PathBuf,
}

impl Unfence {
    fn new(pair: &Pair) -> Self {
        let path = |name: &str| pair.sandbox.path().join(name);
        Self { asked: path("unfence-asked"), done: path("unfence-done") }
    }

    fn command(&self) -> String {
        let (asked, done) = (self.asked.display(), self.done.display());
        format!("touch {asked}; while [ ! -e {done} ]; do sleep 0.05; done; rm -f {done}")
    }

    fn settings(&self, pair: &Pair) -> Settings {
        pair.settings().set_text("promotion", "unfence_command", self.command())
    }

    /// Runs a command, and starts the old primary when its hook asks for it.
    fn serve(&self, pair: &mut Pair, wald: &Wald, arguments: &[&str]) -> Result<(i32, String)> {
        let log = pair.sandbox.path().join("served.log");
        let _ = fs::remove_file(&log);
        let mut process = Process::spawn("wald promote", wald.command(arguments), &log)?;
        let status = wait::until("wald promote to end", DEADLINE, || {
            if self.asked.exists() {
                fs::remove_file(&self.asked)?;
                pair.primary.cluster.start()?;
                pair.sandbox.write("unfence-done", "")?;
            }
            process.ended()
        })?;
        Ok((status.code().unwrap_or(-1), process.log_text()))
    }

    fn abort(&self, pair: &mut Pair, wald: &Wald) -> Result<()> {
        let (code, said) = self.serve(pair, wald, &["promote", "--abort", "--yes"])?;
        assert_eq!(code, 0, "{said}");
        pair.assert_one_primary()?;
        pair.wait_streaming()
    }
}

#[test]
fn killed_at_each_step_and_resumed_it_promotes() -> Result<()> {
    let mut pair = Pair::open()?;
    for step in BEFORE.iter().chain(&AFTER) {
        for moment in MOMENTS {
            let at = format!("{step}:{moment}");
            let wald = pair.wald(pair.settings())?;
            killed_at(&wald, &at)?;
            let again = wald.run(&["promote", "--yes"])?.exited_with(1)?;
            assert!(again.said().contains("--resume"), "{at}: {}", again.said());
            if AFTER.contains(step) {
                let abort = wald.run(&["promote", "--abort", "--yes"])?.exited_with(1)?;
                assert!(abort.said().contains("asked for already"), "{at}: {}", abort.said());
            }
            resume(&wald)?.success().context(at.clone())?;
            pair.turn_over();
            pair.assert_one_primary().context(at.clone())?;
            // The two change their parts, and the next promotion leads back.
            pair.rejoin().context(at)?;
        }
    }
    Ok(())
}

#[test]
fn killed_before_the_promotion_was_asked_for_it_is_taken_back() -> Result<()> {
    let mut pair = Pair::open()?;
    let unfence = Unfence::new(&pair);
    for step in BEFORE {
        for moment in MOMENTS {
            let wald = pair.wald(unfence.settings(&pair))?;
            killed_at(&wald, &format!("{step}:{moment}"))?;
            unfence.abort(&mut pair, &wald).with_context(|| format!("{step}:{moment}"))?;
        }
    }
    // Killed from within the fence's hook, which outlives it and fences after all: the way back
    // waits for that.
    let hook = format!("kill -9 $PPID; sleep 1; {}", pair.stop_command());
    let wald = pair.wald(unfence.settings(&pair).set_text("promotion", "fence_command", hook))?;
    assert_eq!(wald.run(&["promote", "--yes"])?.code(), -9);
    unfence.abort(&mut pair, &wald)?;
    // Killed on the way back, it is taken back further, whatever it is told.
    let wald = pair.wald(unfence.settings(&pair))?;
    killed_at(&wald, "catch_up:begun")?;
    for at in ["unfence:begun", "unfence:acted", "route_back:begun", "route_back:acted"] {
        let mut command = wald.command(&["promote", "--abort", "--yes"]);
        command.env("WALD_PROMOTE_KILL_AT", at);
        let log = pair.sandbox.path().join(format!("{at}.log"));
        let mut process = Process::spawn("wald promote", command, &log)?;
        wait::until("it to be killed", DEADLINE, || {
            if unfence.asked.exists() {
                fs::remove_file(&unfence.asked)?;
                pair.primary.cluster.start()?;
                pair.sandbox.write("unfence-done", "")?;
            }
            process.ended()
        })?;
    }
    let (code, said) = unfence.serve(&mut pair, &wald, &["promote", "--resume", "--yes"])?;
    assert_eq!(code, 1, "what was taken back was promoted: {said}");
    assert!(said.contains("rolled back"), "{said}");
    pair.assert_one_primary()?;
    pair.wait_streaming()?;
    begun_anew_or_nothing_to_take_back(&mut pair)?;
    // Two runs at once: the second one is refused.
    let hook = format!(
        "touch {0}/held; while [ ! -e {0}/go ]; do sleep 0.05; done; exit 1",
        pair.sandbox.path().display()
    );
    let wald = pair.wald(unfence.settings(&pair).set_text("promotion", "fence_command", hook))?;
    let log = pair.sandbox.path().join("first.log");
    let mut first = Process::spawn("wald promote", wald.command(&["promote", "--yes"]), &log)?;
    let held = pair.sandbox.path().join("held");
    wait::until_true("the first run to fence", DEADLINE, || {
        first.must_run()?;
        Ok(held.exists())
    })?;
    let second = resume(&wald)?.exited_with(1)?;
    assert!(second.said().contains("another `wald promote` is under way"), "{}", second.said());
    pair.sandbox.write("go", "")?;
    assert_eq!(first.wait_end(DEADLINE)?.code(), Some(1));
    pair.assert_one_primary()
}

/// Without a hook that takes the fence away: it is begun anew, or, where the old primary was dead
/// before, there is nothing to take away.
fn begun_anew_or_nothing_to_take_back(pair: &mut Pair) -> Result<()> {
    let wald = pair.wald(pair.settings())?;
    killed_at(&wald, "catch_up:begun")?;
    let stuck = wald.run(&["promote", "--abort", "--yes"])?.exited_with(3)?;
    assert!(stuck.said().contains("there is no unfence_command"), "{}", stuck.said());
    wald.run(&["promote", "--yes"])?.success()?;
    pair.turn_over();
    pair.assert_one_primary()?;
    pair.rejoin()?;
    // The primary is dead.
    let wald = pair.wald(pair.settings())?;
    pair.primary.cluster.kill_hard()?;
    killed_at(&wald, "catch_up:begun")?;
    wald.run(&["promote", "--abort", "--yes"])?.success()?;
    pair.primary.cluster.start()?;
    pair.assert_one_primary()?;
    pair.wait_streaming()
}

/// The process that replays, of which a promotion is a request.
fn startup_process(cluster: &Cluster) -> Result<Pid> {
    let id: i32 =
        cluster.scalar("select pid from pg_stat_activity where backend_type = 'startup'")?.parse()?;
    Pid::from_raw(id).context("a process id")
}

#[test]
fn a_promotion_that_was_asked_for_and_not_carried_out_only_leads_forward() -> Result<()> {
    let mut pair = Pair::open()?;
    let unfence = Unfence::new(&pair);
    let wald = pair.wald(unfence.settings(&pair))?;
    killed_at(&wald, "promote:begun")?;
    // The request is heard, and can't be carried out.
    kill_process(startup_process(&pair.standby.cluster)?, Signal::STOP)?;
    pair.standby.cluster.exec("select pg_promote(false)")?;
    let abort = wald.run(&["promote", "--abort", "--yes"])?.exited_with(1)?;
    assert!(abort.said().contains("asked for already"), "{}", abort.said());
    // A server that starts has forgotten it.
    pair.standby.cluster.kill_hard()?;
    pair.standby.cluster.start()?;
    assert_eq!(pair.standby.cluster.scalar("select pg_is_in_recovery()")?, "t");
    unfence.abort(&mut pair, &wald)?;

    // The same again, and forward.
    let wald = pair.wald(pair.settings())?;
    killed_at(&wald, "promote:begun")?;
    let startup = startup_process(&pair.standby.cluster)?;
    kill_process(startup, Signal::STOP)?;
    pair.standby.cluster.exec("select pg_promote(false)")?;
    kill_process(startup, Signal::CONT)?;
    resume(&wald)?.success()?;
    pair.turn_over();
    pair.assert_one_primary()
}

#[test]
fn an_old_primary_that_comes_back_stops_the_clients_from_being_moved() -> Result<()> {
    let mut pair = Pair::open()?;
    let wald = pair.wald(pair.settings())?;
    killed_at(&wald, "promote:acted")?;
    // Somebody starts it: two servers take writes, and the clients are still held.
    pair.primary.cluster.start()?;
    let hookless = pair.wald(pair.settings_without("fence_command"))?;
    let (journal, other) = ("promote-1-state/controls/promotion.json", "promote-2-state/controls");
    fs::create_dir_all(pair.sandbox.path().join(other))?;
    pair.sandbox.account().own(&pair.sandbox.path().join(other))?;
    let text = fs::read_to_string(pair.sandbox.path().join(journal))?;
    pair.sandbox.write(&format!("{other}/promotion.json"), &text)?;
    let refused = resume(&hookless)?.exited_with(3)?;
    assert!(refused.said().contains("not fenced"), "{}", refused.said());
    // With a hook it is fenced first, and the promotion ends.
    resume(&wald)?.success()?;
    pair.turn_over();
    pair.assert_one_primary()
}
