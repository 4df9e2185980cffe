//! The conditions that a promotion begins under, each with the name that `--force` takes.
//!
//! Invariant: a condition is met, not met, or could not be looked at, and the last is never the
//! first. What can't be forced is what would make the promotion senseless or split the brain.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A condition.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    /// This server is in recovery.
    Standby,
    /// wald's role may promote.
    Rights,
    /// The repository, this server and the old primary are one cluster.
    SameCluster,
    /// It was receiving from the primary that `[promotion] primary` names.
    Upstream,
    /// What the primary has written is here and replayed within `lag_max`.
    Lag,
    /// Replay is not paused.
    ReplayPaused,
    /// `recovery_min_apply_delay` is 0.
    ApplyDelay,
    /// The repository can be asked.
    ArchiveReachable,
    /// No segment is missing in the repository that the cluster's recovery needs.
    ArchiveGap,
    /// The timeline that comes next was never used.
    Timeline,
    /// There is room for WAL.
    DiskSpace,
    /// No backup is taken from this server.
    BackupRunning,
    /// The routers answer and know what is to be changed.
    Routers,
    /// The running transactions ended, and the clients are held.
    ClientsHeld,
    /// The old primary's last archived segment is old, where nothing but its silence tells.
    OldPrimarySilent,
    /// After the fence: everything that the old primary wrote is here and replayed.
    CaughtUp,
}

impl Condition {
    /// All of them, in the order in which they are looked at.
    pub const ALL: [Condition; 16] = [
        Condition::Standby,
        Condition::Rights,
        Condition::SameCluster,
        Condition::Upstream,
        Condition::Lag,
        Condition::ReplayPaused,
        Condition::ApplyDelay,
        Condition::ArchiveReachable,
        Condition::ArchiveGap,
        Condition::Timeline,
        Condition::DiskSpace,
        Condition::BackupRunning,
        Condition::Routers,
        Condition::ClientsHeld,
        Condition::OldPrimarySilent,
        Condition::CaughtUp,
    ];

    /// What `--force` takes.
    pub const fn name(self) -> &'static str {
        match self {
            Condition::Standby => "standby",
            Condition::Rights => "rights",
            Condition::SameCluster => "same-cluster",
            Condition::Upstream => "upstream",
            Condition::Lag => "lag",
            Condition::ReplayPaused => "replay-paused",
            Condition::ApplyDelay => "apply-delay",
            Condition::ArchiveReachable => "archive-reachable",
            Condition::ArchiveGap => "archive-gap",
            Condition::Timeline => "timeline",
            Condition::DiskSpace => "disk-space",
            Condition::BackupRunning => "backup-running",
            Condition::Routers => "routers",
            Condition::ClientsHeld => "clients-held",
            Condition::OldPrimarySilent => "old-primary-silent",
            Condition::CaughtUp => "caught-up",
        }
    }

    /// Whether somebody who knows better may go on without it.
    pub const fn can_be_forced(self) -> bool {
        !matches!(self, Condition::Standby | Condition::Rights | Condition::SameCluster)
    }

    /// What going on without it may cost.
    pub const fn risk(self) -> &'static str {
        match self {
            Condition::Standby | Condition::Rights | Condition::SameCluster => "it can't be forced",
            Condition::Upstream => "this may be a standby of another server, and lack what the primary wrote",
            Condition::Lag | Condition::CaughtUp => "transactions that were acknowledged may be lost",
            Condition::ReplayPaused => "PostgreSQL resumes a paused replay by itself when it is promoted",
            Condition::ApplyDelay => {
                "PostgreSQL stops to wait when it is promoted; what is delayed is replayed first"
            }
            Condition::ArchiveReachable => {
                "nobody looked for gaps, nor whether another server took the next timeline"
            }
            Condition::ArchiveGap => "no backup from before the gap can be recovered to a time after it",
            Condition::Timeline => "another server may have been promoted already",
            Condition::DiskSpace => "the new primary may stop for lack of room",
            Condition::BackupRunning => "the backup fails",
            Condition::Routers => "clients behind a router that is passed over stay where they are",
            Condition::ClientsHeld => "statements that still run fail when the old primary is fenced",
            Condition::OldPrimarySilent => {
                "if the old primary lives and only this host can't reach it, there are two primaries"
            }
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConditionError {
    /// There is no such condition.
    #[error("there is no condition {name:?}; those that can be forced: {known}")]
    Unknown {
        /// What was given.
        name: String,
        /// What there is.
        known: String,
    },
    /// It can't be forced.
    #[error("the condition {0} can't be forced")]
    Fixed(Condition),
}

impl FromStr for Condition {
    type Err = ConditionError;

    fn from_str(name: &str) -> Result<Self, ConditionError> {
        match Condition::ALL.into_iter().find(|condition| condition.name() == name) {
            Some(condition) if condition.can_be_forced() => Ok(condition),
            Some(condition) => Err(ConditionError::Fixed(condition)),
            None => {
                let forceable = Condition::ALL.into_iter().filter(|c| c.can_be_forced());
                let known = forceable.map(Condition::name).collect::<Vec<_>>().join(", ");
                Err(ConditionError::Unknown { name: name.to_owned(), known })
            }
        }
    }
}

/// What came of looking.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It holds.
    Met,
    /// It does not hold, or could not be looked at.
    Unmet,
    /// It does not hold, and the operator said to go on.
    Forced,
}

/// A condition that was looked at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Finding {
    /// Which.
    pub condition: Condition,
    /// Whether it holds.
    pub verdict: Verdict,
    /// What was seen, for a person.
    pub detail: String,
}

impl Finding {
    /// One that holds.
    pub fn met(condition: Condition, detail: impl Into<String>) -> Self {
        Self { condition, verdict: Verdict::Met, detail: detail.into() }
    }

    /// One that does not hold, unless the operator said to go on.
    pub fn unmet(condition: Condition, forced: &[Condition], detail: impl Into<String>) -> Self {
        let forced = condition.can_be_forced() && forced.contains(&condition);
        let verdict = if forced { Verdict::Forced } else { Verdict::Unmet };
        Self { condition, verdict, detail: detail.into() }
    }

    /// Whether it stands in the way.
    pub fn refuses(&self) -> bool {
        self.verdict == Verdict::Unmet
    }
}

/// How far behind the standby was measured to be: how long it took until what the primary had
/// written at a moment was replayed here. No clocks of two hosts are compared, and an idle primary
/// is no lag.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lag {
    /// It was replayed within this many milliseconds.
    ReplayedAfter {
        /// From the look at the primary to the look that found it replayed.
        millis: u128,
        /// Whether the primary itself was asked; else what was received counts.
        primary_answered: bool,
    },
    /// It was not, for the time that was waited.
    Behind {
        /// Bytes received and not replayed.
        unreplayed_bytes: u64,
        /// Bytes written by the primary and not received; none where it does not answer.
        unreceived_bytes: Option<u64>,
        /// How long was waited, which is `lag_max`.
        waited_millis: u128,
    },
    /// Nothing was ever received.
    Nothing,
}

/// Judges the lag.
pub fn judge_lag(lag: Lag, forced: &[Condition]) -> Finding {
    match lag {
        Lag::ReplayedAfter { millis, primary_answered: true } => Finding::met(
            Condition::Lag,
            format!("what the primary had written was received and replayed within {millis} ms"),
        ),
        Lag::ReplayedAfter { millis, primary_answered: false } => Finding::met(
            Condition::Lag,
            format!(
                "what was received is replayed (within {millis} ms); the primary does not answer, so nobody can \
                 tell whether it wrote more"
            ),
        ),
        Lag::Behind { unreplayed_bytes, unreceived_bytes, waited_millis } => {
            let unreceived = match unreceived_bytes {
                Some(bytes) => format!("{bytes} bytes were written and not received"),
                None => "the primary does not answer".to_owned(),
            };
            let detail = format!(
                "the lag is above {waited_millis} ms: {unreceived}, {unreplayed_bytes} bytes are received and not \
                 replayed"
            );
            Finding::unmet(Condition::Lag, forced, detail)
        }
        Lag::Nothing => Finding::unmet(Condition::Lag, forced, "this server has replayed no WAL"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_reads_back_unless_it_can_not_be_forced() {
        for condition in Condition::ALL {
            let read = condition.name().parse::<Condition>();
            assert_eq!(read.is_ok(), condition.can_be_forced(), "{condition}");
            let json = serde_json::to_string(&condition).unwrap();
            assert_eq!(json, format!("\"{condition}\""));
        }
        assert!("lagg".parse::<Condition>().unwrap_err().to_string().contains("replay-paused"));
    }

    #[test]
    fn force_lets_by_what_it_names_and_nothing_else() {
        let forced = [Condition::Lag, Condition::Standby];
        assert_eq!(Finding::unmet(Condition::Lag, &forced, "").verdict, Verdict::Forced);
        assert!(Finding::unmet(Condition::ArchiveGap, &forced, "").refuses());
        assert!(Finding::unmet(Condition::Standby, &forced, "").refuses());
    }

    #[test]
    fn a_primary_that_is_idle_is_no_lag_and_one_that_was_not_heard_is() {
        assert!(!judge_lag(Lag::ReplayedAfter { millis: 3, primary_answered: true }, &[]).refuses());
        let behind = Lag::Behind { unreplayed_bytes: 0, unreceived_bytes: Some(1), waited_millis: 5000 };
        assert!(judge_lag(behind, &[]).refuses());
        assert!(judge_lag(Lag::Nothing, &[]).refuses());
    }
}
