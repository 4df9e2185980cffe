//! The name of a base backup, `20250210T020000Z-full`: when it began, in UTC, and its kind.
//! Sorting ids as text sorts backups by age.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a backup holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum BackupKind {
    /// Every file.
    Full,
}

impl BackupKind {
    const fn suffix(self) -> &'static str {
        match self {
            BackupKind::Full => "full",
        }
    }
}

/// A backup's name. Two backups of one repository never begin in the same second: the
/// catalog entry is created only if absent, and so is every part.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BackupId {
    began: DateTime,
    kind: BackupKind,
}

/// Text that names no backup.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{}\" is not a backup's name: expected one such as 20250210T020000Z-full (see wald list)", text.escape_default())]
pub struct BackupIdError {
    text: String,
}

impl BackupId {
    const FORMAT: &'static str = "%Y%m%dT%H%M%SZ";

    /// The name of a backup that begins at `began`; parts of a second are cut off.
    pub fn new(began: Timestamp, kind: BackupKind) -> Self {
        let utc = began.to_zoned(TimeZone::UTC).datetime();
        let whole = utc.with().subsec_nanosecond(0).build().unwrap_or(utc);
        Self { began: whole, kind }
    }

    /// Parses exactly what `Display` prints.
    pub fn parse(text: &str) -> Result<Self, BackupIdError> {
        let error = || BackupIdError { text: text.to_owned() };
        let (when, kind) = text.split_once('-').ok_or_else(error)?;
        let kind = if kind == BackupKind::Full.suffix() { BackupKind::Full } else { return Err(error()) };
        let began = DateTime::strptime(Self::FORMAT, when).map_err(|_| error())?;
        let id = Self { began, kind };
        if id.to_string() == text { Ok(id) } else { Err(error()) }
    }

    /// Year, month and day of the beginning, in UTC: the folder of the backup's objects.
    pub fn date(&self) -> (i16, i8, i8) {
        (self.began.year(), self.began.month(), self.began.day())
    }

    /// When it began, to the second.
    pub fn began(&self) -> Timestamp {
        self.began.to_zoned(TimeZone::UTC).map_or(Timestamp::MIN, |began| began.timestamp())
    }

    /// What the backup holds.
    pub fn kind(&self) -> BackupKind {
        self.kind
    }
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.began.strftime(Self::FORMAT), self.kind.suffix())
    }
}

impl fmt::Debug for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BackupId({self})")
    }
}

impl TryFrom<String> for BackupId {
    type Error = BackupIdError;

    fn try_from(text: String) -> Result<Self, BackupIdError> {
        Self::parse(&text)
    }
}

impl From<BackupId> for String {
    fn from(id: BackupId) -> String {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_as_in_the_design() {
        let began: Timestamp = "2025-02-10T02:00:00.75Z".parse().unwrap();
        let id = BackupId::new(began, BackupKind::Full);
        assert_eq!(id.to_string(), "20250210T020000Z-full");
        assert_eq!(id.date(), (2025, 2, 10));
    }

    #[test]
    fn what_is_not_a_backup_id_is_refused() {
        for text in [
            "",
            "20250210T020000Z",
            "20250210T020000Z-incr",
            "20251310T020000Z-full",
            "20250210T020000-full",
            "2025021T020000Z-full",
        ] {
            assert!(BackupId::parse(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn ids_round_trip(second in 0i64..4_000_000_000) {
            let id = BackupId::new(Timestamp::from_second(second).unwrap(), BackupKind::Full);
            prop_assert_eq!(BackupId::parse(&id.to_string()).unwrap(), id);
        }

        #[test]
        fn any_text_parses_or_fails_without_panic(text in "[0-9TZ-]{0,20}(-full)?|\\PC{0,30}") {
            let _ = BackupId::parse(&text);
        }
    }
}
