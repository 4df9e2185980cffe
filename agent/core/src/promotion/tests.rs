//! Every way to be killed: a small world in which each step has its effect, killed before the
//! effect and after it, once or twice, then resumed or aborted.

use super::*;

/// What is true, whatever the journal says.
#[derive(Clone, PartialEq, Eq, Debug)]
struct World {
    server: Server,
    old_writes: bool,
    paused: bool,
    routed_here: bool,
    /// A request that the server has not carried out yet.
    pending: bool,
    restarted: bool,
}

impl World {
    fn new() -> Self {
        Self {
            server: Server::Standby,
            old_writes: true,
            paused: false,
            routed_here: false,
            pending: false,
            restarted: false,
        }
    }

    fn seen(&self, checked: bool) -> Seen {
        let old = if self.old_writes { OldPrimary::MayWrite } else { OldPrimary::Quiet };
        Seen { server: self.server, old, checked, request_forgotten: self.restarted && !self.pending }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Preconditions | Act::CatchUp | Act::SmokeTest | Act::Report => {}
            Act::RouteAway => self.paused = true,
            Act::Fence => self.old_writes = false,
            Act::Promote => {
                self.server = Server::Primary;
                self.pending = false;
            }
            Act::RouteHere => (self.routed_here, self.paused) = (true, false),
            Act::Unfence => self.old_writes = true,
            Act::RouteBack => self.paused = false,
        }
        self.check();
    }

    fn check(&self) {
        assert!(!(self.server == Server::Primary && self.old_writes), "two writable primaries: {self:?}");
        // Nothing may be able to promote it later either.
        assert!(!(self.pending && self.old_writes), "a promotion waits beside a primary: {self:?}");
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kill {
    /// After the intention was recorded, before anything happened.
    BeforeEffect,
    /// While it happens: the promotion is asked for and not carried out yet.
    Halfway,
    /// After it happened, before that was recorded.
    AfterEffect,
}

const KILLS: [Kill; 3] = [Kill::BeforeEffect, Kill::Halfway, Kill::AfterEffect];

/// Runs until the end, a refusal, or the kill at the step of this number. `None` is "killed".
fn run(
    world: &mut World,
    journal: &mut Progress,
    kill: Option<(usize, Kill)>,
) -> Option<Result<Next, Refusal>> {
    let mut checked = false;
    for number in 0..40 {
        let act = match next(journal, &world.seen(checked)) {
            Ok(Next::Do(act)) => act,
            ended => return Some(ended),
        };
        let kill = kill.filter(|(at, _)| *at == number).map(|(_, kill)| kill);
        if act == Act::Preconditions {
            // It has no effect and is not in the journal: it is looked at anew in each run.
            checked = true;
            if kill.is_some() {
                return None;
            }
            continue;
        }
        journal.begin(act);
        match kill {
            Some(Kill::BeforeEffect) => return None,
            Some(Kill::Halfway) => {
                if act == Act::Promote && world.server == Server::Standby {
                    world.pending = true;
                    world.check();
                }
                return None;
            }
            Some(Kill::AfterEffect) => {
                world.act(act);
                return None;
            }
            None => world.act(act),
        }
        journal.finish(act);
    }
    panic!("no end in sight: {journal:?}");
}

/// All states that one run can be killed in.
fn killed_states(world: &World, journal: &Progress) -> Vec<(World, Progress)> {
    let mut states = Vec::new();
    for kill in KILLS {
        for at in 0.. {
            let (mut world, mut journal) = (world.clone(), journal.clone());
            if run(&mut world, &mut journal, Some((at, kill))).is_some() {
                break;
            }
            states.push((world, journal));
        }
    }
    states
}

fn assert_promoted(world: &World) {
    assert_eq!(world.server, Server::Primary);
    assert!(world.routed_here && !world.paused && !world.old_writes, "{world:?}");
}

fn assert_as_before(world: &World) {
    assert_eq!(world.server, Server::Standby);
    assert!(!world.routed_here && !world.paused && world.old_writes && !world.pending, "{world:?}");
}

/// Resumed, and aborted, each from its own copy of the state.
fn resume_and_abort(world: &World, journal: &Progress) {
    let (mut resumed, mut progress) = (world.clone(), journal.clone());
    let back = journal.course() == Course::Back;
    match run(&mut resumed, &mut progress, None) {
        Some(Ok(Next::Promoted)) if !back => assert_promoted(&resumed),
        Some(Ok(Next::RolledBack)) if back => assert_as_before(&resumed),
        other => panic!("resumed from {world:?} {journal:?}: {other:?}"),
    }
    let (mut aborted, mut progress) = (world.clone(), journal.clone());
    match progress.turn_back(&world.seen(false)) {
        Ok(()) => {
            assert_eq!(run(&mut aborted, &mut progress, None), Some(Ok(Next::RolledBack)));
            assert_as_before(&aborted);
        }
        Err(refusal) => {
            assert_eq!(refusal, Refusal::OnlyForward);
            assert_ne!(
                journal.mark(Act::Promote),
                Mark::Untouched,
                "it could have been taken back: {world:?}"
            );
        }
    }
}

#[test]
fn an_undisturbed_run_promotes_in_the_order_of_the_steps() {
    let (mut world, mut journal) = (World::new(), Progress::default());
    assert_eq!(run(&mut world, &mut journal, None), Some(Ok(Next::Promoted)));
    assert_promoted(&world);
}

#[test]
fn killed_at_any_step_it_is_resumed_or_aborted_and_never_leaves_two_primaries() {
    let states = killed_states(&World::new(), &Progress::default());
    assert!(states.len() > 20);
    for (world, journal) in &states {
        world.check();
        resume_and_abort(world, journal);
    }
}

#[test]
fn killed_again_while_it_is_resumed_it_still_ends_well() {
    for (world, journal) in killed_states(&World::new(), &Progress::default()) {
        for (world, journal) in killed_states(&world, &journal) {
            resume_and_abort(&world, &journal);
        }
    }
}

#[test]
fn killed_while_it_is_taken_back_it_is_taken_back_further() {
    for (world, mut journal) in killed_states(&World::new(), &Progress::default()) {
        if journal.turn_back(&world.seen(false)).is_err() {
            continue;
        }
        for (world, journal) in killed_states(&world, &journal) {
            assert_eq!(journal.course(), Course::Back);
            resume_and_abort(&world, &journal);
        }
    }
}

#[test]
fn begun_anew_after_a_way_back_that_stood_still_it_knows_what_is_to_be_taken_back() {
    for (world, mut journal) in killed_states(&World::new(), &Progress::default()) {
        if journal.turn_back(&world.seen(false)).is_err() {
            continue;
        }
        for (world, journal) in killed_states(&world, &journal) {
            let anew = journal.anew();
            assert_eq!(anew.course(), Course::Forward);
            resume_and_abort(&world, &anew);
            for (world, journal) in killed_states(&world, &anew) {
                resume_and_abort(&world, &journal);
            }
        }
    }
}

#[test]
fn what_an_old_primary_wrote_that_came_back_is_waited_for_again() {
    let (mut world, mut journal) = (World::new(), Progress::default());
    for act in [Act::RouteAway, Act::Fence, Act::CatchUp] {
        journal.begin(act);
        world.act(act);
        journal.finish(act);
    }
    for begun in [false, true] {
        let (mut world, mut journal) = (world.clone(), journal.clone());
        if begun {
            journal.begin(Act::Promote);
        }
        world.old_writes = true;
        assert_eq!(next(&journal, &world.seen(true)), Ok(Next::Do(Act::Fence)));
        journal.begin(Act::Fence);
        world.act(Act::Fence);
        journal.finish(Act::Fence);
        assert_eq!(next(&journal, &world.seen(true)), Ok(Next::Do(Act::CatchUp)), "{begun}");
    }
}

#[test]
fn once_the_promotion_was_asked_for_only_a_restart_of_the_standby_opens_the_way_back() {
    let (mut world, mut journal) = (World::new(), Progress::default());
    let promote = 4;
    assert!(run(&mut world, &mut journal, Some((promote, Kill::Halfway))).is_none());
    assert!(world.pending);
    assert_eq!(journal.turn_back(&world.seen(false)), Err(Refusal::OnlyForward));
    // A postmaster that starts forgets the request; a trigger file would be found again.
    world.restarted = true;
    assert_eq!(journal.turn_back(&world.seen(false)), Err(Refusal::OnlyForward));
    world.pending = false;
    assert_eq!(journal.turn_back(&world.seen(false)), Ok(()));
    assert_eq!(run(&mut world, &mut journal, None), Some(Ok(Next::RolledBack)));
    assert_as_before(&world);
}

#[test]
fn an_old_primary_that_comes_back_is_fenced_before_anything_else_is_done() {
    for act in [Act::CatchUp, Act::Promote, Act::RouteHere, Act::SmokeTest, Act::Report] {
        let (mut world, mut journal) = (World::new(), Progress::default());
        let mut checked = false;
        loop {
            match next(&journal, &world.seen(checked)) {
                Ok(Next::Do(Act::Preconditions)) => checked = true,
                Ok(Next::Do(next)) if next == act => break,
                Ok(Next::Do(next)) => {
                    journal.begin(next);
                    world.act(next);
                    journal.finish(next);
                }
                other => panic!("{other:?}"),
            }
        }
        world.old_writes = true;
        assert_eq!(next(&journal, &world.seen(true)), Ok(Next::Do(Act::Fence)), "before {act}");
        // And the same with the step begun.
        journal.begin(act);
        assert_eq!(next(&journal, &world.seen(true)), Ok(Next::Do(Act::Fence)), "within {act}");
    }
}

#[test]
fn a_server_that_others_promoted_is_left_alone_with_the_fence_in_place() {
    for (mut world, mut journal) in killed_states(&World::new(), &Progress::default()) {
        if journal.mark(Act::Promote) != Mark::Untouched {
            continue;
        }
        world.server = Server::Primary;
        assert_eq!(next(&journal, &world.seen(true)), Err(Refusal::PromotedByOthers));
        assert_eq!(journal.turn_back(&world.seen(true)), Err(Refusal::PromotedByOthers));
    }
}

#[test]
fn a_request_that_the_server_refused_was_none() {
    let mut journal = Progress::default();
    journal.begin(Act::Promote);
    journal.promotion_was_refused();
    assert_eq!(journal.mark(Act::Promote), Mark::Untouched);
    journal.finish(Act::Promote);
    journal.promotion_was_refused();
    assert_eq!(journal.mark(Act::Promote), Mark::Done);
}

#[test]
fn a_journal_reads_back_as_it_was_written() {
    for (_, journal) in killed_states(&World::new(), &Progress::default()) {
        let text = serde_json::to_string(&journal).unwrap();
        assert_eq!(serde_json::from_str::<Progress>(&text).unwrap(), journal);
    }
}
