//! Where a recovery shall end, as the command line says it and as PostgreSQL wants it.
//!
//! Invariant: a [`RecoveryGoal`] is one that PostgreSQL's own settings can express
//! (<https://www.postgresql.org/docs/15/runtime-config-wal.html#RUNTIME-CONFIG-WAL-RECOVERY-TARGET>).
//! A time without a zone is refused: at two o'clock at night, after data was lost, nobody
//! should have to know which zone a tool takes for granted.

use crate::lsn::Lsn;
use crate::timeline::TimelineId;
use jiff::Timestamp;
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};
use std::fmt;

mod time;

pub use time::{parse_time, print_second, print_second_after, print_time};

/// Where recovery ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RecoveryTarget {
    /// After the last WAL that there is.
    EndOfWal,
    /// As soon as the backup is consistent.
    Immediate,
    /// At the last commit at or before a point in time.
    Time(Timestamp),
    /// At a position.
    Lsn(Lsn),
    /// At the end of a transaction.
    Xid(TransactionId),
    /// At a point that `pg_create_restore_point` named.
    Name(RestorePoint),
}

/// A transaction's number, with or without its epoch; what `pg_current_xact_id()` returns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TransactionId(u64);

/// The name of a restore point: 1 to 63 bytes (`MAXFNAMELEN`), no control characters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RestorePoint(String);

/// Whether the record at the target itself is replayed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Inclusion {
    /// Stop just after the target, PostgreSQL's default.
    #[default]
    Inclusive,
    /// Stop just before it.
    Exclusive,
}

/// Which line of history is followed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TimelineChoice {
    /// The one that was begun last.
    #[default]
    Latest,
    /// The one that the backup was taken on.
    Current,
    /// This one.
    Id(TimelineId),
}

/// What the server does at the target.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TargetAction {
    /// Open for writing, on a new timeline. The default: after a disaster the restored server
    /// is wanted at work. (PostgreSQL's own default is to pause.)
    #[default]
    Promote,
    /// Stay in recovery, readable, until `pg_wal_replay_resume()`.
    Pause,
    /// Shut down.
    Shutdown,
}

/// Everything that decides where recovery ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecoveryGoal {
    target: RecoveryTarget,
    inclusion: Inclusion,
    timeline: TimelineChoice,
    action: TargetAction,
}

/// A target that can't be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// No zone.
    #[error(
        "the time \"{text}\" has no zone, so it could mean several moments: write \"{text}+00\" \
         if it is UTC, or add your own offset, such as \"{text}+02\""
    )]
    TimeWithoutZone {
        /// What was given.
        text: String,
    },
    /// Not a time.
    #[error(
        "\"{text}\" is not a time: expected one such as \"2026-11-22 18:00:00+00\" or 2026-11-22T18:00:00Z"
    )]
    NotATime {
        /// What was given.
        text: String,
    },
    /// Not a transaction.
    #[error("\"{text}\" is not a transaction's number: expected a decimal number of at least 3")]
    NotAnXid {
        /// What was given.
        text: String,
    },
    /// Not a name.
    #[error("\"{text}\" can't be a restore point: expected 1 to 63 bytes without control characters")]
    NotAName {
        /// What was given.
        text: String,
    },
    /// Not a timeline.
    #[error("\"{text}\" is not a timeline: expected latest, current, or a decimal number above 0")]
    NotATimeline {
        /// What was given.
        text: String,
    },
    /// Not an action.
    #[error("\"{text}\" is not what a server can do at the target: expected promote, pause or shutdown")]
    NotAnAction {
        /// What was given.
        text: String,
    },
    /// "Exclusive" of nothing.
    #[error(
        "a target can be excluded if it is a time, an LSN or a transaction; \
         leave --target-exclusive out for {target}"
    )]
    NothingToExclude {
        /// The target.
        target: RecoveryTarget,
    },
}

fn shown(text: &str) -> String {
    text.escape_default().to_string()
}

/// A value in `postgresql.conf`: quotes and backslashes doubled, a line feed as `\n`
/// (`GUC_scanstr` in PostgreSQL's `guc-file.l`).
pub fn quote_setting(value: &str) -> String {
    let mut quoted = String::with_capacity(value.len() + 2);
    quoted.push('\'');
    for c in value.chars() {
        match c {
            '\'' => quoted.push_str("''"),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            other => quoted.push(other),
        }
    }
    quoted.push('\'');
    quoted
}

impl TransactionId {
    /// Reads a decimal number. The three numbers that PostgreSQL keeps for itself are refused.
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let number: Option<u64> = if digits { text.parse().ok() } else { None };
        number
            .filter(|number| number & 0xFFFF_FFFF >= 3)
            .map(Self)
            .ok_or_else(|| TargetError::NotAnXid { text: shown(text) })
    }
}

impl RestorePoint {
    /// Checks a name.
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        let good = (1..=63).contains(&text.len()) && !text.chars().any(char::is_control);
        if good { Ok(Self(text.to_owned())) } else { Err(TargetError::NotAName { text: shown(text) }) }
    }
}

impl TimelineChoice {
    /// Reads `latest`, `current` or a decimal number.
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        let not_a_timeline = || TargetError::NotATimeline { text: shown(text) };
        match text {
            "latest" => Ok(TimelineChoice::Latest),
            "current" => Ok(TimelineChoice::Current),
            _ if text.bytes().all(|b| b.is_ascii_digit()) => {
                let number = text.parse().ok().and_then(TimelineId::new);
                number.map(TimelineChoice::Id).ok_or_else(not_a_timeline)
            }
            _ => Err(not_a_timeline()),
        }
    }
}

impl TargetAction {
    /// Reads `promote`, `pause` or `shutdown`.
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        match text {
            "promote" => Ok(TargetAction::Promote),
            "pause" => Ok(TargetAction::Pause),
            "shutdown" => Ok(TargetAction::Shutdown),
            _ => Err(TargetError::NotAnAction { text: shown(text) }),
        }
    }
}

impl RecoveryGoal {
    /// Checks that the parts fit together.
    pub fn new(
        target: RecoveryTarget,
        inclusion: Inclusion,
        timeline: TimelineChoice,
        action: TargetAction,
    ) -> Result<Self, TargetError> {
        let excludable =
            matches!(target, RecoveryTarget::Time(_) | RecoveryTarget::Lsn(_) | RecoveryTarget::Xid(_));
        if inclusion == Inclusion::Exclusive && !excludable {
            return Err(TargetError::NothingToExclude { target });
        }
        Ok(Self { target, inclusion, timeline, action })
    }

    /// Where recovery ends.
    pub fn target(&self) -> &RecoveryTarget {
        &self.target
    }

    /// Whether the target itself is replayed.
    pub fn inclusion(&self) -> Inclusion {
        self.inclusion
    }

    /// Which line of history is followed.
    pub fn timeline(&self) -> TimelineChoice {
        self.timeline
    }

    /// What the server does at the target.
    pub fn action(&self) -> TargetAction {
        self.action
    }

    /// PostgreSQL's settings for this goal along `timeline`, in the order in which they must
    /// stand. Every kind of target is set to nothing first: a target left over in
    /// `postgresql.conf` would otherwise be a second one, which PostgreSQL refuses; and a
    /// kind that is emptied *after* another was set is refused too.
    pub fn settings(&self, timeline: TimelineSetting) -> Vec<Setting> {
        let mut settings: Vec<Setting> = Self::KINDS.iter().map(|name| Setting::new(name, "")).collect();
        let (name, value) = match &self.target {
            RecoveryTarget::EndOfWal => (None, String::new()),
            RecoveryTarget::Immediate => (Some("recovery_target"), "immediate".to_owned()),
            RecoveryTarget::Time(time) => (Some("recovery_target_time"), print_time(*time)),
            RecoveryTarget::Lsn(lsn) => (Some("recovery_target_lsn"), lsn.to_string()),
            RecoveryTarget::Xid(xid) => (Some("recovery_target_xid"), xid.to_string()),
            RecoveryTarget::Name(name) => (Some("recovery_target_name"), name.to_string()),
        };
        let timeline = match timeline {
            TimelineSetting::Current => "current".to_owned(),
            TimelineSetting::Id(id) => id.to_string(),
        };
        let inclusive = match self.inclusion {
            Inclusion::Inclusive => "true",
            Inclusion::Exclusive => "false",
        };
        settings.retain(|setting| Some(setting.name) != name);
        settings.extend(name.map(|name| Setting::new(name, value)));
        settings.push(Setting::new("recovery_target_inclusive", inclusive));
        settings.push(Setting::new("recovery_target_timeline", timeline));
        settings.push(Setting::new("recovery_target_action", self.action.to_string()));
        settings
    }

    const KINDS: [&'static str; 5] = [
        "recovery_target",
        "recovery_target_lsn",
        "recovery_target_name",
        "recovery_target_time",
        "recovery_target_xid",
    ];
}

/// The value of `recovery_target_timeline`: never `latest`, which PostgreSQL would resolve
/// again at start-up, perhaps to another timeline than the one that was planned with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimelineSetting {
    /// The backup's own timeline. PostgreSQL then does not ask for its history file, which
    /// may be older than the archive.
    Current,
    /// Another one.
    Id(TimelineId),
}

/// A line of `postgresql.auto.conf`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Setting {
    /// The parameter.
    pub name: &'static str,
    /// Its value, not quoted.
    pub value: String,
}

impl Setting {
    /// A parameter with its value.
    pub fn new(name: &'static str, value: impl Into<String>) -> Self {
        Self { name, value: value.into() }
    }
}

/// `name = 'value'`, quoted.
impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}", self.name, quote_setting(&self.value))
    }
}

impl fmt::Display for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for RestorePoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for TargetAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TargetAction::Promote => "promote",
            TargetAction::Pause => "pause",
            TargetAction::Shutdown => "shutdown",
        })
    }
}

impl fmt::Display for TimelineChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TimelineChoice::Latest => f.write_str("latest"),
            TimelineChoice::Current => f.write_str("current"),
            TimelineChoice::Id(id) => id.fmt(f),
        }
    }
}

/// In words.
impl fmt::Display for RecoveryTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecoveryTarget::EndOfWal => f.write_str("the end of WAL"),
            RecoveryTarget::Immediate => f.write_str("the end of the backup"),
            RecoveryTarget::Time(time) => write!(f, "time {}", print_time(*time)),
            RecoveryTarget::Lsn(lsn) => write!(f, "LSN {lsn}"),
            RecoveryTarget::Xid(xid) => write!(f, "transaction {xid}"),
            RecoveryTarget::Name(name) => write!(f, "restore point \"{name}\""),
        }
    }
}

/// The kind and the value apart.
impl Serialize for RecoveryTarget {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (kind, value) = match self {
            RecoveryTarget::EndOfWal => ("end_of_wal", None),
            RecoveryTarget::Immediate => ("immediate", None),
            RecoveryTarget::Time(time) => ("time", Some(time.to_string())),
            RecoveryTarget::Lsn(lsn) => ("lsn", Some(lsn.to_string())),
            RecoveryTarget::Xid(xid) => ("xid", Some(xid.to_string())),
            RecoveryTarget::Name(name) => ("name", Some(name.to_string())),
        };
        let mut fields = serializer.serialize_struct("RecoveryTarget", 2)?;
        fields.serialize_field("kind", kind)?;
        fields.serialize_field("value", &value)?;
        fields.end()
    }
}

#[cfg(test)]
mod tests;
