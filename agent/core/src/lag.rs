//! How far behind replication is, and whether that is too far.
//!
//! Invariants: a lag is 0 only where that is known: on a standby everything that its primary told it
//! of is replayed *and* the receiver is streaming; a receiver that is down never reads as no lag.
//! What can't be known is `None` and is said to be unknown. An idle primary is not lag: the age of
//! the last replayed transaction is only ever an upper bound, used while something waits.
//!
//! [`Watcher::look`] is the one way from a [`Sample`] to a [`Report`]: it remembers earlier samples,
//! which give the rate of WAL and a tighter bound of the lag than one sample can.

mod sample;
mod trail;

mod replicas;
mod slots;
mod standby;

mod line;

use crate::lsn::Lsn;
use jiff::Timestamp;
use serde::Serialize;
use std::fmt;
use std::time::Duration;

pub use line::check_line;
pub use replicas::{ReplicaReport, StageLag, required_synchronous};
pub use sample::{Conflicts, Pause, Receiver, Replica, Sample, Slot, Stage, StandbySample};
pub use slots::SlotReport;
pub use standby::{StandbyReport, Streaming};

use trail::Trail;

/// How bad something is, in the order in which one thing outweighs another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing to do.
    Ok,
    /// Somebody should look.
    Warning,
    /// It can't be told, which outweighs a warning: it may be worse.
    Unknown,
    /// Somebody must look now.
    Critical,
}

impl Severity {
    /// The exit code of a monitoring plugin
    /// (<https://www.monitoring-plugins.org/doc/guidelines.html#AEN78>).
    pub const fn exit_code(self) -> u8 {
        match self {
            Severity::Ok => 0,
            Severity::Warning => 1,
            Severity::Critical => 2,
            Severity::Unknown => 3,
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Severity::Ok => "OK",
            Severity::Warning => "WARNING",
            Severity::Unknown => "UNKNOWN",
            Severity::Critical => "CRITICAL",
        })
    }
}

/// Above these a lag is a warning, or critical.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Thresholds {
    /// A warning above this.
    #[serde(serialize_with = "seconds")]
    pub warning: Duration,
    /// Critical above this.
    #[serde(serialize_with = "seconds")]
    pub critical: Duration,
}

impl Thresholds {
    /// How bad a lag is.
    pub fn judge(self, lag: Duration) -> Severity {
        if lag > self.critical {
            Severity::Critical
        } else if lag > self.warning {
            Severity::Warning
        } else {
            Severity::Ok
        }
    }
}

/// Something that is not as it should be.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Finding {
    /// How bad.
    pub severity: Severity,
    /// What, for a person.
    pub text: String,
}

impl Finding {
    fn new(severity: Severity, text: impl Into<String>) -> Self {
        Self { severity, text: text.into() }
    }
}

/// What a server is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ServerRole {
    /// It writes.
    Primary,
    /// It replays.
    Standby,
}

impl fmt::Display for ServerRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            ServerRole::Primary => "primary",
            ServerRole::Standby => "standby",
        })
    }
}

/// The synchronous standbys that commits wait for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Synchronous {
    /// `synchronous_standby_names`.
    pub names: String,
    /// So many must confirm.
    pub required: u32,
    /// So many are there to do so.
    pub streaming: u32,
}

/// What is to be said of a sample.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The server's clock.
    pub at: Timestamp,
    /// What the server is.
    pub role: ServerRole,
    /// The worst of the findings.
    pub state: Severity,
    /// What is not as it should be, the worst first.
    pub findings: Vec<Finding>,
    /// What is too far.
    pub thresholds: Thresholds,
    /// Only on a standby.
    pub standby: Option<StandbyReport>,
    /// Only on a primary where commits wait for standbys.
    pub synchronous: Option<Synchronous>,
    /// Who streams from this server.
    pub replicas: Vec<ReplicaReport>,
    /// Its slots.
    pub slots: Vec<SlotReport>,
    /// How fast its log grows; unknown with one sample.
    pub wal_bytes_per_second: Option<f64>,
}

/// Looks at samples of one server, one after the other.
#[derive(Debug)]
pub struct Watcher {
    thresholds: Thresholds,
    /// Ends that this standby's primary told of.
    told: Trail,
    /// Ends of this server's own log.
    own: Trail,
    before: Option<(Timestamp, Lsn)>,
}

/// A rate over less time says nothing.
const RATE_SPAN_MIN: Duration = Duration::from_millis(500);

impl Watcher {
    /// One that has seen nothing yet.
    pub fn new(thresholds: Thresholds) -> Self {
        Self { thresholds, told: Trail::default(), own: Trail::default(), before: None }
    }

    /// Judges the next sample.
    pub fn look(&mut self, sample: &Sample) -> Report {
        let rate = self.rate(sample);
        let mut findings = Vec::new();
        let standby = sample.standby.as_ref().map(|standby| {
            standby::judge(standby, sample.at, self.thresholds, &mut self.told, &mut findings)
        });
        if standby.is_none() {
            // A server that was promoted is behind nobody.
            self.told = Trail::default();
        }
        let role = if standby.is_some() { ServerRole::Standby } else { ServerRole::Primary };
        let synchronous = replicas::synchronous(sample, &mut findings);
        let replicas = replicas::judge(sample, self.thresholds, &mut self.own, &mut findings);
        let slots = slots::judge(sample, rate, &mut findings);
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        let state = findings.first().map_or(Severity::Ok, |worst| worst.severity);
        Report {
            at: sample.at,
            role,
            state,
            findings,
            thresholds: self.thresholds,
            standby,
            synchronous,
            replicas,
            slots,
            wal_bytes_per_second: rate,
        }
    }

    fn rate(&mut self, sample: &Sample) -> Option<f64> {
        let now = sample.at;
        let position = sample.position?;
        let before = self.before;
        let span = before.and_then(|(at, _)| elapsed(at, now));
        if span.is_none_or(|span| span >= RATE_SPAN_MIN) {
            self.before = Some((now, position));
        }
        let span = span.filter(|span| *span >= RATE_SPAN_MIN)?;
        let (_, earlier) = before?;
        Some(as_float(position.bytes_since(earlier)) / span.as_secs_f64())
    }
}

/// From `earlier` to `later`; none if the clock was set back.
fn elapsed(earlier: Timestamp, later: Timestamp) -> Option<Duration> {
    Duration::try_from(later.duration_since(earlier)).ok()
}

/// For rates and quotients, where the last bits don't matter.
fn as_float(number: u64) -> f64 {
    number as f64
}

/// Durations are seconds in JSON.
fn seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

fn seconds_if_known<S: serde::Serializer>(
    duration: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    duration.map(|duration| duration.as_secs_f64()).serialize(serializer)
}

#[cfg(test)]
mod tests;
