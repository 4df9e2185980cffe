//! The promotion of a standby as a sequence that survives a crash at any point: what comes next,
//! what may be taken back, and what is refused (DESIGN 9).
//!
//! Invariants. *Never two writable primaries*: the promotion is asked for only while the old
//! primary is seen fenced; the fence is taken away only while this server is seen to be a standby
//! that nothing will promote. *No guessing*: that a step was begun is on disk before its first
//! effect, so after a crash a begun step may have happened or not, and the server is looked at to
//! know. Up to the moment when the promotion is first asked for everything can be taken back;
//! from then on the way leads forward only, because PostgreSQL remembers a request that it has
//! not carried out yet and has no way to take one back. Restarting the standby is the exception:
//! a postmaster forgets requests when it starts.
//!
//! Clients are held before the old primary is fenced, and not after: with the pooler paused
//! nothing is running that the fence would break, so that clients wait instead of failing.

pub mod condition;
pub mod conninfo;
pub mod archive_check;
pub mod fence;
pub mod haproxy_reply;
pub mod pgbouncer_file;

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

/// A step of the sequence, or of the way back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// Look whether the promotion may begin.
    Preconditions,
    /// Hold the clients: pause PgBouncer, put HAProxy's server into maintenance.
    RouteAway,
    /// Make sure that the old primary takes no writes.
    Fence,
    /// Wait until everything that the old primary wrote is here and replayed.
    CatchUp,
    /// Promote this server and wait until it takes writes.
    Promote,
    /// Send the clients here.
    RouteHere,
    /// Try whether the database does what it is for.
    SmokeTest,
    /// Write down what was done.
    Report,
    /// Let the old primary write again.
    Unfence,
    /// Let the clients go on to the old primary.
    RouteBack,
}

impl Act {
    /// The name, as in the journal.
    pub const fn name(self) -> &'static str {
        match self {
            Act::Preconditions => "preconditions",
            Act::RouteAway => "route_away",
            Act::Fence => "fence",
            Act::CatchUp => "catch_up",
            Act::Promote => "promote",
            Act::RouteHere => "route_here",
            Act::SmokeTest => "smoke_test",
            Act::Report => "report",
            Act::Unfence => "unfence",
            Act::RouteBack => "route_back",
        }
    }

    /// What is done, as in "wald promote: {}".
    pub const fn description(self) -> &'static str {
        match self {
            Act::Preconditions => "look whether the promotion may begin",
            Act::RouteAway => "hold the clients: pause PgBouncer, HAProxy's server into maintenance",
            Act::Fence => "fence the old primary",
            Act::CatchUp => "wait until everything that the old primary wrote is here and replayed",
            Act::Promote => "promote this server",
            Act::RouteHere => "send the clients here: HAProxy, PgBouncer, the secret's hook",
            Act::SmokeTest => "smoke tests",
            Act::Report => "write the report",
            Act::Unfence => "take the fence away from the old primary",
            Act::RouteBack => "let the clients go on to the old primary",
        }
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How far a step has come, as the journal says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mark {
    /// Nothing of it has happened.
    Untouched,
    /// All, some or nothing of it has happened.
    Begun,
    /// It has happened, and was checked.
    Done,
}

/// Where the sequence leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Course {
    /// To the promotion.
    #[default]
    Forward,
    /// Back to where it began.
    Back,
}

/// What the journal says about the steps.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Progress {
    begun: BTreeSet<Act>,
    done: BTreeSet<Act>,
    course: Course,
}

impl Progress {
    /// How far a step has come.
    pub fn mark(&self, act: Act) -> Mark {
        match (self.done.contains(&act), self.begun.contains(&act)) {
            (true, _) => Mark::Done,
            (false, true) => Mark::Begun,
            (false, false) => Mark::Untouched,
        }
    }

    /// Where the sequence leads.
    pub fn course(&self) -> Course {
        self.course
    }

    /// What a run that begins anew knows of the one before, which was not taken back to its end: clients
    /// may be held and the old primary fenced, so that turning back takes that back as well.
    pub fn anew(&self) -> Self {
        let mut begun = self.begun.clone();
        begun.retain(|act| matches!(act, Act::RouteAway | Act::Fence));
        Self { begun, done: BTreeSet::new(), course: Course::Forward }
    }

    /// Before a step's first effect. A step that was done before is done again.
    pub fn begin(&mut self, act: Act) {
        self.begun.insert(act);
        self.done.remove(&act);
        if act == Act::Fence {
            // A server that has to be fenced again may have written again.
            self.done.remove(&Act::CatchUp);
        }
    }

    /// After a step was checked.
    pub fn finish(&mut self, act: Act) {
        self.begun.insert(act);
        self.done.insert(act);
    }

    /// The server itself said that it did not take the request to promote: nothing was attempted.
    pub fn promotion_was_refused(&mut self) {
        if self.mark(Act::Promote) == Mark::Begun {
            self.begun.remove(&Act::Promote);
        }
    }

    /// Turns back, if that is allowed.
    pub fn turn_back(&mut self, seen: &Seen) -> Result<(), Refusal> {
        may_turn_back(self, seen)?;
        self.course = Course::Back;
        Ok(())
    }
}

/// The server that is to be promoted, as it answers now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Server {
    /// In recovery.
    Standby,
    /// Out of recovery: it takes writes.
    Primary,
    /// It does not answer.
    Silent,
}

/// The old primary, as it answers now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OldPrimary {
    /// It does not answer, or is in recovery, or read-only by the fence's own means.
    Quiet,
    /// It answers and takes writes, or nobody can tell that it does not.
    MayWrite,
}

/// What was seen just now; never remembered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seen {
    /// This server.
    pub server: Server,
    /// The old one.
    pub old: OldPrimary,
    /// Whether the preconditions were found met in this run of the command.
    pub checked: bool,
    /// Whether this server's postmaster was started after the promotion was first asked for, and
    /// no trigger file waits for it: then a request that it had not carried out is forgotten.
    pub request_forgotten: bool,
}

/// What comes next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// Do this. It is recorded as begun before, and as done after.
    Do(Act),
    /// This server is the primary, and all is done.
    Promoted,
    /// All is as it was.
    RolledBack,
}

/// Why the sequence does not go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// The promotion was asked for.
    #[error(
        "the promotion was asked for already, so nothing can be taken back: go on with `wald promote --resume` \
         (if this server is still a standby and must stay one, restart its PostgreSQL first: that forgets the \
         request, and --abort is possible again)"
    )]
    OnlyForward,
    /// Somebody else promoted it.
    #[error(
        "this server is a primary already, and this run did not promote it: somebody else did. Nothing is \
         changed any further; make sure that the old primary is down before anything else"
    )]
    PromotedByOthers,
    /// The server that is to be promoted is gone.
    #[error("this server's PostgreSQL does not answer: start it, then `wald promote --resume`")]
    ServerSilent,
    /// It was promoted, and is in recovery.
    #[error(
        "the journal says that this server was promoted, and it is in recovery: it was rebuilt or restored since. \
         Look at {}/controls/promotion.json, and remove that file if it tells of the past",
        "<state_dir>"
    )]
    NotPrimary,
}

/// Whether everything may be taken back.
pub fn may_turn_back(progress: &Progress, seen: &Seen) -> Result<(), Refusal> {
    match (progress.mark(Act::Promote), seen.server) {
        (Mark::Done, _) => Err(Refusal::OnlyForward),
        (Mark::Begun, Server::Standby) if seen.request_forgotten => Ok(()),
        (Mark::Begun, _) => Err(Refusal::OnlyForward),
        (Mark::Untouched, Server::Primary) => Err(Refusal::PromotedByOthers),
        // A server that does not answer was not promoted by this run. Clients must get their old
        // primary back all the more.
        (Mark::Untouched, Server::Standby | Server::Silent) => Ok(()),
    }
}

/// What comes next after `progress`, by what is seen now.
pub fn next(progress: &Progress, seen: &Seen) -> Result<Next, Refusal> {
    match progress.course {
        Course::Back => next_back(progress, seen),
        Course::Forward => match progress.mark(Act::Promote) {
            Mark::Untouched => next_before(progress, seen),
            Mark::Begun => next_attempted(progress, seen),
            Mark::Done => next_after(progress, seen),
        },
    }
}

fn next_before(progress: &Progress, seen: &Seen) -> Result<Next, Refusal> {
    match seen.server {
        Server::Standby => {}
        Server::Primary => return Err(Refusal::PromotedByOthers),
        Server::Silent => return Err(Refusal::ServerSilent),
    }
    let done = |act| progress.mark(act) == Mark::Done;
    let act = if !seen.checked {
        Act::Preconditions
    } else if !done(Act::RouteAway) {
        Act::RouteAway
    } else if !done(Act::Fence) || seen.old == OldPrimary::MayWrite {
        Act::Fence
    } else if !done(Act::CatchUp) {
        Act::CatchUp
    } else {
        Act::Promote
    };
    Ok(Next::Do(act))
}

/// The promotion was asked for, and nobody knows yet what came of it.
fn next_attempted(progress: &Progress, seen: &Seen) -> Result<Next, Refusal> {
    match (seen.server, seen.old) {
        (Server::Silent, _) => Err(Refusal::ServerSilent),
        // Whether this server is promoted already or will be in a moment: the old one comes first.
        (_, OldPrimary::MayWrite) => Ok(Next::Do(Act::Fence)),
        // What the old one wrote since, if it was back for a while.
        (Server::Standby, OldPrimary::Quiet) if progress.mark(Act::CatchUp) != Mark::Done => {
            Ok(Next::Do(Act::CatchUp))
        }
        // A server that is promoted already is found to be by the step itself.
        (Server::Standby | Server::Primary, OldPrimary::Quiet) => Ok(Next::Do(Act::Promote)),
    }
}

fn next_after(progress: &Progress, seen: &Seen) -> Result<Next, Refusal> {
    match seen.server {
        Server::Primary => {}
        Server::Standby => return Err(Refusal::NotPrimary),
        Server::Silent => return Err(Refusal::ServerSilent),
    }
    if seen.old == OldPrimary::MayWrite {
        return Ok(Next::Do(Act::Fence));
    }
    let steps = [Act::RouteHere, Act::SmokeTest, Act::Report];
    let open = steps.into_iter().find(|act| progress.mark(*act) != Mark::Done);
    Ok(open.map_or(Next::Promoted, Next::Do))
}

fn next_back(progress: &Progress, seen: &Seen) -> Result<Next, Refusal> {
    // Looked at before each step: the fence must not go while this server could be promoted.
    may_turn_back(progress, seen)?;
    let touched = |act| progress.mark(act) != Mark::Untouched;
    let open = |act| progress.mark(act) != Mark::Done;
    // The old primary takes writes before the clients are sent to it again.
    if touched(Act::Fence) && open(Act::Unfence) {
        Ok(Next::Do(Act::Unfence))
    } else if touched(Act::RouteAway) && open(Act::RouteBack) {
        Ok(Next::Do(Act::RouteBack))
    } else {
        Ok(Next::RolledBack)
    }
}

#[cfg(test)]
mod tests;
