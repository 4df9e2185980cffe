//! The names of objects in a repository, relative to its URL (DESIGN 3).
//!
//! Invariants: a key is made only here, from typed parts, so it holds nothing but
//! `[A-Za-z0-9._/-]`, never `..`, never a leading slash; and two different things never share
//! a key.

use crate::backup_id::BackupId;
use crate::wal_file::WalFile;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use std::fmt;

/// How a ledger's name tells its time.
const LEDGER_TIME: &str = "%Y%m%dT%H%M%S.%6fZ";

/// One object's name, `/`-separated, relative to the repository's URL.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ObjectKey(String);

/// A file name that can't be an object of a backup.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{}\" can't name an object of a backup: expected letters, digits, '.', '_' and '-'", name.escape_default())]
pub struct ObjectKeyError {
    name: String,
}

impl ObjectKey {
    /// Where WAL objects stand.
    pub const WAL_PREFIX: &'static str = "wal/";
    /// Where catalog entries stand.
    pub const CATALOG_PREFIX: &'static str = "catalog/";
    /// What `wald repo check` leaves behind stands here.
    pub const CHECK_PREFIX: &'static str = "check/";
    /// Where `wald repo check` records what the server was seen to keep of its promises.
    pub const GUARANTEES_PREFIX: &'static str = "check/guarantees-";
    /// Where the ledgers of `wald verify` stand.
    pub const LEDGER_PREFIX: &'static str = "verify/";

    /// The repository's identity, `wald.json`.
    pub fn identity() -> Self {
        Self("wald.json".to_owned())
    }

    /// A WAL file: sealed as `wal/<name>.zst`, or bare as `wal/<name>` where PostgreSQL must be
    /// able to read it as it is (`.history`, `.backup`).
    pub fn wal(file: WalFile) -> Self {
        match file {
            WalFile::Segment(_) | WalFile::Partial(_) => Self(format!("{}{file}.zst", Self::WAL_PREFIX)),
            WalFile::History(_) | WalFile::BackupLabel(..) => Self(format!("{}{file}", Self::WAL_PREFIX)),
        }
    }

    /// The proof of a bare WAL file: its BLAKE3 in the format of `b3sum`. A sealed file carries
    /// its proof in its own header and has no such object.
    pub fn wal_proof(file: WalFile) -> Self {
        Self(format!("{}{file}.b3", Self::WAL_PREFIX))
    }

    /// A backup's catalog entry, `catalog/<backup-id>.json`.
    pub fn catalog(id: &BackupId) -> Self {
        Self(format!("{}{id}.json", Self::CATALOG_PREFIX))
    }

    /// An object of a backup, `YYYY/MM/DD/<backup-id>/<name>`.
    pub fn backup_object(id: &BackupId, name: &str) -> Result<Self, ObjectKeyError> {
        if !plain_name(name) {
            return Err(ObjectKeyError { name: name.to_owned() });
        }
        Ok(Self(format!("{}{name}", Self::backup_prefix(id))))
    }

    /// The folder of a backup's objects, with a slash at its end.
    pub fn backup_prefix(id: &BackupId) -> String {
        let (year, month, day) = id.date();
        format!("{year:04}/{month:02}/{day:02}/{id}/")
    }

    /// The record of a WAL file that was given up (`archive.queue_max`), `gap/<name>.json`.
    pub fn gap(file: WalFile) -> Self {
        Self(format!("gap/{file}.json"))
    }

    /// The ledger of a run of `wald verify` that ended then, to the microsecond:
    /// `verify/<UTC time>.json.zst`. Names sort by time.
    pub fn ledger(ended: Timestamp) -> Self {
        Self(format!("{}{}.json.zst", Self::LEDGER_PREFIX, ended.strftime(LEDGER_TIME)))
    }

    /// Reads the name of a listed ledger.
    pub fn parse_ledger(name: &str) -> Option<Self> {
        let time = name.strip_prefix(Self::LEDGER_PREFIX)?.strip_suffix(".json.zst")?;
        let time = DateTime::strptime(LEDGER_TIME, time).ok()?.to_zoned(TimeZone::UTC).ok()?;
        Some(Self::ledger(time.timestamp())).filter(|key| key.as_str() == name)
    }

    /// A throw-away object of `wald repo check`.
    pub fn check(name: &str) -> Result<Self, ObjectKeyError> {
        if plain_name(name) {
            Ok(Self(format!("{}{name}", Self::CHECK_PREFIX)))
        } else {
            Err(ObjectKeyError { name: name.to_owned() })
        }
    }

    /// What was seen of the server at a time, `check/guarantees-<UTC time>.json`; later ones sort
    /// behind earlier ones.
    pub fn guarantees(time: Timestamp) -> Self {
        Self(format!("{}{}.json", Self::GUARANTEES_PREFIX, time.strftime("%Y%m%dT%H%M%SZ")))
    }

    /// The key of such a record that was listed; `None` for any other name.
    pub fn guarantees_listed(name: &str) -> Option<Self> {
        let rest = name.strip_prefix(Self::GUARANTEES_PREFIX)?;
        (plain_name(rest) && rest.ends_with(".json")).then(|| Self(name.to_owned()))
    }

    /// The record of a run of `wald expire` that went by this time, `expire/<UTC time>.json`;
    /// `number` tells runs of the same moment apart, from 1.
    pub fn expire(time: Timestamp, number: u32) -> Self {
        let time = time.strftime("%Y%m%dT%H%M%S.%6fZ");
        Self(if number <= 1 { format!("expire/{time}.json") } else { format!("expire/{time}-{number}.json") })
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn plain_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    (1..=200).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(plain)
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What an object listed under `wal/` is. Anything else found there is not wald's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum WalObject {
    /// The WAL file itself.
    File(WalFile),
    /// The proof of a bare WAL file.
    Proof(WalFile),
}

impl WalObject {
    /// Reads a listed key, as `wal/<name>…`; `None` for what wald did not write.
    pub fn parse(key: &str) -> Option<Self> {
        let name = key.strip_prefix(ObjectKey::WAL_PREFIX)?;
        let file = |name: &str| WalFile::parse(name).ok();
        let object = match name.strip_suffix(".b3") {
            Some(stem) => WalObject::Proof(file(stem)?),
            None => WalObject::File(file(name.strip_suffix(".zst").unwrap_or(name))?),
        };
        let written = match object {
            WalObject::File(file) => ObjectKey::wal(file),
            WalObject::Proof(file) => ObjectKey::wal_proof(file),
        };
        (written.as_str() == key).then_some(object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wal(name: &str) -> ObjectKey {
        ObjectKey::wal(WalFile::parse(name).unwrap())
    }

    #[test]
    fn segments_are_sealed_and_small_files_bare() {
        assert_eq!(wal("000000010000000000000042").as_str(), "wal/000000010000000000000042.zst");
        assert_eq!(
            wal("000000010000000000000042.partial").as_str(),
            "wal/000000010000000000000042.partial.zst"
        );
        assert_eq!(wal("00000002.history").as_str(), "wal/00000002.history");
        let label = "000000010000000000000042.00000028.backup";
        assert_eq!(wal(label).as_str(), format!("wal/{label}"));
    }

    #[test]
    fn names_that_leave_the_folder_are_refused() {
        for name in ["", "..", ".x", "a/b", "a b", "\u{e9}"] {
            assert!(ObjectKey::check(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_listed_key_must_be_one_that_would_be_written() {
        for key in
            ["wal/000000010000000000000042", "wal/00000002.history.zst", "wal/x.zst", "wald.json", "wal/"]
        {
            assert_eq!(WalObject::parse(key), None, "{key}");
        }
        let history = WalFile::parse("00000002.history").unwrap();
        assert_eq!(WalObject::parse("wal/00000002.history"), Some(WalObject::File(history)));
        assert_eq!(WalObject::parse("wal/00000002.history.b3"), Some(WalObject::Proof(history)));
    }

    #[test]
    fn ledgers_sort_by_time_and_read_back() {
        let at = |text: &str| ObjectKey::ledger(text.parse().unwrap());
        let (one, other) = (at("2026-11-22T22:08:43.98Z"), at("2026-11-22T22:08:44Z"));
        assert_eq!(one.as_str(), "verify/20261122T220843.980000Z.json.zst");
        assert!(one < other);
        for key in [one, other] {
            assert_eq!(ObjectKey::parse_ledger(key.as_str()), Some(key));
        }
        for name in
            ["verify/notes.json.zst", "verify/20261122T220843Z.json.zst", "20261122T220843.980000Z.json.zst"]
        {
            assert_eq!(ObjectKey::parse_ledger(name), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn listing_any_key_never_panics(key in "(wal/)?\\PC{0,40}") {
            let _ = WalObject::parse(&key);
        }
    }
}
