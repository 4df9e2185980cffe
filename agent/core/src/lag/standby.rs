//! A standby: how late its replay is, or why that can't be told.

use super::trail::Trail;
use super::{Conflicts, Finding, Pause, Receiver, Severity, StandbySample, Thresholds};
use super::{seconds, seconds_if_known};
use crate::lsn::Lsn;
use crate::quantity::Bytes;
use jiff::Timestamp;
use serde::Serialize;
use std::time::Duration;

/// How a standby gets its WAL.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Streaming {
    /// From a primary, at this moment.
    Streaming,
    /// A receiver is there, and heard nothing for longer than its time-out.
    Silent,
    /// A receiver is there, and does not stream yet or any more.
    Waiting,
    /// It should stream, and there is no receiver.
    Down,
    /// Only from the archive: `primary_conninfo` is not set.
    ArchiveOnly,
}

impl Streaming {
    /// As a word.
    pub const fn word(self) -> &'static str {
        match self {
            Streaming::Streaming => "streaming",
            Streaming::Silent => "silent",
            Streaming::Waiting => "waiting",
            Streaming::Down => "down",
            Streaming::ArchiveOnly => "archive only",
        }
    }
}

/// A standby's lag.
#[derive(Clone, Debug, Serialize)]
pub struct StandbyReport {
    /// How late replay is at most, in seconds; unknown where nothing bounds it.
    #[serde(rename = "replay_lag_seconds", serialize_with = "seconds_if_known")]
    pub replay_lag: Option<Duration>,
    /// Whether that is a measured value, and not only as much as it can be at most.
    pub replay_lag_is_exact: bool,
    /// Bytes that were received and are not replayed.
    pub replay_lag_bytes: Option<u64>,
    /// Bytes that the primary has told of and are not received; unknown without a receiver.
    pub receive_lag_bytes: Option<u64>,
    /// Since the last replayed transaction was committed, in seconds.
    #[serde(rename = "last_transaction_age_seconds", serialize_with = "seconds_if_known")]
    pub last_transaction_age: Option<Duration>,
    /// The end of what is received.
    pub received: Option<Lsn>,
    /// The end of what is replayed.
    pub replayed: Option<Lsn>,
    /// How it gets its WAL.
    pub receiver: Streaming,
    /// Since its last message, in seconds.
    #[serde(rename = "receiver_silent_seconds", serialize_with = "seconds_if_known")]
    pub silent_for: Option<Duration>,
    /// Whom it streams from.
    pub sender: Option<String>,
    /// Through which slot.
    pub slot: Option<String>,
    /// Whether replay is paused.
    pub pause: Pause,
    /// `recovery_min_apply_delay`, in seconds.
    #[serde(rename = "recovery_min_apply_delay_seconds", serialize_with = "seconds")]
    pub apply_delay: Duration,
    /// Queries that were cancelled by replay.
    pub conflicts: Conflicts,
}

/// A receiver without a time-out is taken to be silent after PostgreSQL's default.
const SILENCE_DEFAULT: Duration = Duration::from_secs(60);

pub(super) fn judge(
    sample: &StandbySample,
    now: Timestamp,
    thresholds: Thresholds,
    trail: &mut Trail,
    findings: &mut Vec<Finding>,
) -> StandbyReport {
    let receiver = streaming(sample);
    let told = sample.receiver.as_ref().and_then(|receiver| receiver.latest_end);
    // A receiver that has just begun has heard nothing yet, and what was received is then the
    // beginning of a segment: that says nothing of how far the primary is.
    let is_told = receiver == Streaming::Streaming && told.is_some();
    let primary_end = sample.received.max(told).filter(|_| is_told);
    if let Some(end) = primary_end {
        trail.add(now, end);
    }
    let caught_up = primary_end.zip(sample.replayed).is_some_and(|(end, replayed)| replayed >= end);
    let bound = sample.replayed.and_then(|replayed| trail.bound(replayed, now));
    let at_most = bound.into_iter().chain(sample.last_transaction_age).min();
    let replay_lag = if caught_up { Some(Duration::ZERO) } else { at_most };
    let since = |end: Option<Lsn>, begin: Option<Lsn>| Some(end?.bytes_since(begin?));
    let report = StandbyReport {
        replay_lag,
        replay_lag_is_exact: caught_up,
        // What the archive gave can be beyond what was ever streamed.
        replay_lag_bytes: since(sample.received.or(sample.replayed), sample.replayed),
        receive_lag_bytes: since(told, sample.received),
        last_transaction_age: sample.last_transaction_age,
        received: sample.received,
        replayed: sample.replayed,
        receiver,
        silent_for: sample.receiver.as_ref().and_then(|receiver| receiver.silent_for),
        sender: sample.receiver.as_ref().and_then(|receiver| receiver.sender.clone()),
        slot: sample.receiver.as_ref().and_then(|receiver| receiver.slot.clone()),
        pause: sample.pause,
        apply_delay: sample.apply_delay,
        conflicts: sample.conflicts,
    };
    find(&report, thresholds, findings);
    report
}

fn streaming(sample: &StandbySample) -> Streaming {
    match &sample.receiver {
        None if sample.streams => Streaming::Down,
        None => Streaming::ArchiveOnly,
        Some(receiver) if receiver.status != "streaming" => Streaming::Waiting,
        Some(receiver) if is_silent(receiver) => Streaming::Silent,
        Some(_) => Streaming::Streaming,
    }
}

fn is_silent(receiver: &Receiver) -> bool {
    let patience = receiver.timeout.unwrap_or(SILENCE_DEFAULT);
    receiver.silent_for.is_some_and(|silent_for| silent_for > patience)
}

fn find(report: &StandbyReport, thresholds: Thresholds, findings: &mut Vec<Finding>) {
    let late = report.replay_lag.map_or(Severity::Unknown, |lag| thresholds.judge(lag));
    let by = report.replay_lag.map_or_else(
        || "nobody can tell how far".to_owned(),
        |lag| format!("at most {:.1} s", lag.as_secs_f64()),
    );
    // Without a stream nothing says what the primary has written since: a small bound is no good
    // news, and no bound at all is bad news.
    let without_stream = match late {
        Severity::Ok | Severity::Warning => Severity::Warning,
        Severity::Unknown | Severity::Critical => Severity::Critical,
    };
    match report.receiver {
        Streaming::Streaming if late > Severity::Ok => {
            let bytes = report.replay_lag_bytes.map_or_else(String::new, |b| format!(", {}", Bytes(b)));
            findings.push(Finding::new(late, format!("replay is behind by {by}{bytes}")));
        }
        Streaming::Streaming => {}
        Streaming::Silent => findings.push(Finding::new(
            without_stream,
            format!("the WAL receiver has heard nothing for longer than its time-out; replay is behind by {by}"),
        )),
        Streaming::Waiting => findings
            .push(Finding::new(without_stream, format!("the WAL receiver does not stream; replay is behind by {by}"))),
        Streaming::Down => findings.push(Finding::new(
            without_stream,
            format!("the WAL receiver is down (see the standby's log, primary_conninfo and the primary); replay is behind by {by}"),
        )),
        Streaming::ArchiveOnly if late > Severity::Ok => findings.push(Finding::new(
            late,
            format!("this standby reads the archive only (primary_conninfo is not set) and is behind by {by}"),
        )),
        Streaming::ArchiveOnly => {}
    }
    match report.pause {
        Pause::NotPaused => {}
        Pause::Requested => findings.push(Finding::new(Severity::Warning, "a pause of replay was requested")),
        Pause::Paused => findings.push(Finding::new(
            Severity::Warning,
            "replay is paused: SELECT pg_wal_replay_resume() lets it go on",
        )),
    }
}
