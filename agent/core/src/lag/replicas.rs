//! A primary's view: how late each of its standbys is, and whether those are there that commits
//! wait for.

use super::trail::Trail;
use super::{Finding, Replica, Sample, Severity, Stage, Synchronous, Thresholds, seconds_if_known};
use crate::quantity::Bytes;
use serde::Serialize;
use std::time::Duration;

/// How late one stage is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct StageLag {
    /// In seconds; 0 where nothing is missing, unknown where PostgreSQL has not measured it.
    #[serde(serialize_with = "seconds_if_known")]
    pub seconds: Option<Duration>,
    /// In bytes; unknown where the replica does not report the stage.
    pub bytes: Option<u64>,
}

impl StageLag {
    /// Whether something is missing, and nobody can tell since when.
    pub fn is_unknown(self) -> bool {
        self.seconds.is_none() && self.bytes.is_some_and(|bytes| bytes > 0)
    }
}

/// Who streams from this server.
#[derive(Clone, Debug, Serialize)]
pub struct ReplicaReport {
    /// `application_name`.
    pub name: String,
    /// `client_addr`; absent over a Unix socket.
    pub address: Option<String>,
    /// As `streaming`.
    pub state: String,
    /// As `async`, `potential`, `sync`, `quorum`.
    pub sync_state: String,
    /// What it has written.
    pub write: StageLag,
    /// What it has on disk.
    pub flush: StageLag,
    /// What it has replayed.
    pub replay: StageLag,
}

impl ReplicaReport {
    /// Whether it streams.
    pub fn is_streaming(&self) -> bool {
        self.state == "streaming"
    }

    /// Whether commits wait for it, or may.
    pub fn is_synchronous(&self) -> bool {
        confirms(&self.sync_state)
    }

    /// The last stage that it reports: a receiver of WAL that replays nothing has no `replay`.
    pub fn last_stage(&self) -> StageLag {
        let reported = [self.replay, self.flush, self.write].into_iter().find(|stage| stage.bytes.is_some());
        reported.unwrap_or(self.replay)
    }
}

fn confirms(sync_state: &str) -> bool {
    matches!(sync_state, "sync" | "quorum")
}

pub(super) fn judge(
    sample: &Sample,
    thresholds: Thresholds,
    trail: &mut Trail,
    findings: &mut Vec<Finding>,
) -> Vec<ReplicaReport> {
    if let Some(end) = sample.position {
        trail.add(sample.at, end);
    }
    let late = |stage| stage_lag(stage, sample, trail);
    let reports: Vec<_> = sample.replicas.iter().map(|replica| report(replica, late)).collect();
    for replica in &reports {
        let name = &replica.name;
        match replica.state.as_str() {
            "streaming" => {
                let lag = replica.last_stage();
                let bytes = Bytes(lag.bytes.unwrap_or_default());
                let (severity, text) = match lag.seconds {
                    Some(seconds) => {
                        let by = seconds.as_secs_f64();
                        (thresholds.judge(seconds), format!("standby {name} is behind by {by:.1} s, {bytes}"))
                    }
                    None if lag.is_unknown() => {
                        let text =
                            format!("standby {name} is behind by {bytes}, and nobody can tell since when");
                        (Severity::Unknown, text)
                    }
                    None => continue,
                };
                if severity > Severity::Ok {
                    findings.push(Finding::new(severity, text));
                }
            }
            // A base backup or a receiver that is being stopped.
            "backup" | "stopping" => {}
            other => findings.push(Finding::new(
                Severity::Warning,
                format!("standby {name} does not stream yet ({other})"),
            )),
        }
    }
    reports
}

fn report(replica: &Replica, late: impl Fn(Stage) -> StageLag) -> ReplicaReport {
    ReplicaReport {
        name: replica.name.clone(),
        address: replica.address.clone(),
        state: replica.state.clone(),
        sync_state: replica.sync_state.clone(),
        write: late(replica.write),
        flush: late(replica.flush),
        replay: late(replica.replay),
    }
}

/// PostgreSQL shows the last measured lag for a while after the standby has caught up, and none
/// when nothing happens (documentation of `pg_stat_replication`): with nothing missing it is 0. It
/// shows none either for a standby that stopped replaying in a quiet time, however much waits.
fn stage_lag(stage: Stage, sample: &Sample, trail: &Trail) -> StageLag {
    let bytes = sample.position.zip(stage.position).map(|(end, reached)| end.bytes_since(reached));
    let seconds = match bytes {
        Some(0) => Some(Duration::ZERO),
        Some(_) => stage.lag.or_else(|| trail.bound(stage.position?, sample.at)),
        None => stage.lag,
    };
    StageLag { seconds, bytes }
}

pub(super) fn synchronous(sample: &Sample, findings: &mut Vec<Finding>) -> Option<Synchronous> {
    let names = sample.synchronous_standby_names.as_deref()?;
    let required = required_synchronous(names)?;
    let there = sample
        .replicas
        .iter()
        .filter(|replica| replica.state == "streaming" && confirms(&replica.sync_state));
    let streaming = u32::try_from(there.count()).unwrap_or(u32::MAX);
    if streaming < required {
        let text = format!(
            "{streaming} of {required} synchronous standbys are there (synchronous_standby_names = '{names}'): \
             commits wait for the others"
        );
        findings.push(Finding::new(Severity::Critical, text));
    }
    Some(Synchronous { names: names.to_owned(), required, streaming })
}

/// How many standbys must confirm a commit by `synchronous_standby_names`; `None` if none must.
/// Its grammar: `[FIRST] n (name, ...)`, `ANY n (name, ...)` or `name, ...`, which is `FIRST 1`
/// (<https://www.postgresql.org/docs/15/runtime-config-replication.html>).
pub fn required_synchronous(names: &str) -> Option<u32> {
    let names = names.trim();
    if names.is_empty() {
        return None;
    }
    // A quoted name may hold parentheses, and no list begins inside of one.
    let head = names.split('(').next().filter(|head| head.len() < names.len() && !head.contains(['"', ',']));
    let number = head.and_then(|head| head.split_whitespace().next_back()?.parse::<u32>().ok());
    Some(number.unwrap_or(1))
}
