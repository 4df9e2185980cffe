//! What an object is, by its name. A name that wald never writes is none of these, and is
//! never touched.

use crate::backup_id::BackupId;
use crate::object_key::{ObjectKey, WalObject};
use crate::segment::SegmentName;
use crate::wal_file::WalFile;

/// What wald's objects are.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ObjectName {
    /// `wald.json`.
    Identity,
    /// A WAL file or a proof of one.
    Wal(WalObject),
    /// The record of WAL that was given up.
    Gap(WalFile),
    /// A backup's catalog entry.
    Catalog(BackupId),
    /// A part, manifest, list or claim of a backup.
    BackupObject(BackupId),
    /// What the server was seen to guarantee, `check/guarantees-<time>.json`.
    Guarantees,
    /// Anything else under `check/`: a trial of `wald repo check`.
    Trial,
    /// What a run of `wald verify` found, `verify/<time>.json.zst`.
    Ledger,
    /// What a run of `wald expire` did, `expire/<time>.json`.
    Run,
}

const GUARANTEES_PREFIX: &str = ObjectKey::GUARANTEES_PREFIX;
const LEDGER_PREFIX: &str = ObjectKey::LEDGER_PREFIX;
const RUN_PREFIX: &str = "expire/";
const GAP_PREFIX: &str = "gap/";
const JSON: &str = ".json";

impl ObjectName {
    /// Reads a name as it is listed, relative to the repository's URL.
    pub fn parse(name: &str) -> Option<Self> {
        let (folder, rest) = match name.split_once('/') {
            Some(parts) => parts,
            None => return (name == ObjectKey::identity().as_str()).then_some(ObjectName::Identity),
        };
        match folder {
            "wal" => WalObject::parse(name).map(ObjectName::Wal),
            "gap" => gap(name),
            "catalog" => BackupId::parse(rest.strip_suffix(JSON)?).ok().map(ObjectName::Catalog),
            "check" if dated(name, GUARANTEES_PREFIX) => Some(ObjectName::Guarantees),
            "check" => (!rest.contains('/') && !rest.is_empty()).then_some(ObjectName::Trial),
            "verify" => dated(name, LEDGER_PREFIX).then_some(ObjectName::Ledger),
            "expire" => dated(name, RUN_PREFIX).then_some(ObjectName::Run),
            _ => backup_object(name),
        }
    }

    /// Whether it tells of runs, and no recovery reads it.
    pub(super) fn is_record(&self) -> bool {
        matches!(self, ObjectName::Guarantees | ObjectName::Trial | ObjectName::Ledger | ObjectName::Run)
    }

    /// The segment that WAL is, belongs to, or that is missing.
    pub(super) fn segment(&self) -> Option<SegmentName> {
        match self {
            ObjectName::Wal(WalObject::File(file) | WalObject::Proof(file)) | ObjectName::Gap(file) => {
                file.segment()
            }
            _ => None,
        }
    }
}

/// A name that begins with a time, so that names sort by age.
fn dated(name: &str, prefix: &str) -> bool {
    let rest = name.strip_prefix(prefix);
    let when = rest.and_then(|rest| rest.strip_suffix(".zst").unwrap_or(rest).strip_suffix(JSON));
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    when.is_some_and(|when| when.starts_with(|c: char| c.is_ascii_digit()) && when.bytes().all(plain))
}

fn gap(name: &str) -> Option<ObjectName> {
    let file = WalFile::parse(name.strip_prefix(GAP_PREFIX)?.strip_suffix(JSON)?).ok()?;
    (ObjectKey::gap(file).as_str() == name).then_some(ObjectName::Gap(file))
}

/// `YYYY/MM/DD/<backup-id>/<name>`.
fn backup_object(name: &str) -> Option<ObjectName> {
    let (folder, file) = name.rsplit_once('/')?;
    let id = BackupId::parse(folder.rsplit_once('/')?.1).ok()?;
    let ours = ObjectKey::backup_prefix(&id).strip_suffix('/') == Some(folder);
    let known = matches!(file, "backup_manifest" | "files.json.zst" | "claim.json") || is_part(file);
    (ours && known).then_some(ObjectName::BackupObject(id))
}

/// `base-0001.tar.zst`, or `16400-0001.tar.zst` of a tablespace.
fn is_part(file: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    file.strip_suffix(".tar.zst")
        .and_then(|stem| stem.split_once('-'))
        .is_some_and(|(space, number)| (space == "base" || digits(space)) && digits(number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use proptest::prelude::*;

    #[test]
    fn what_wald_writes_is_known() {
        let id = BackupId::parse("20250210T020000Z-full").unwrap();
        let file = WalFile::parse("000000010000000000000042").unwrap();
        let history = WalFile::parse("00000002.history").unwrap();
        let object = |name: &str| ObjectKey::backup_object(&id, name).unwrap();
        for (key, what) in [
            (ObjectKey::identity(), ObjectName::Identity),
            (ObjectKey::wal(file), ObjectName::Wal(WalObject::File(file))),
            (ObjectKey::wal_proof(history), ObjectName::Wal(WalObject::Proof(history))),
            (ObjectKey::gap(file), ObjectName::Gap(file)),
            (ObjectKey::catalog(&id), ObjectName::Catalog(id.clone())),
            (object("base-0001.tar.zst"), ObjectName::BackupObject(id.clone())),
            (object("16400-12345.tar.zst"), ObjectName::BackupObject(id.clone())),
            (object("backup_manifest"), ObjectName::BackupObject(id.clone())),
            (object("files.json.zst"), ObjectName::BackupObject(id.clone())),
            (object("claim.json"), ObjectName::BackupObject(id.clone())),
            (ObjectKey::check("0f3a").unwrap(), ObjectName::Trial),
            (ObjectKey::expire(Timestamp::UNIX_EPOCH, 1), ObjectName::Run),
            (ObjectKey::expire(Timestamp::UNIX_EPOCH, 2), ObjectName::Run),
        ] {
            assert_eq!(ObjectName::parse(key.as_str()), Some(what), "{key}");
        }
        for (name, what) in [
            ("check/guarantees-20261122T200000Z.json", ObjectName::Guarantees),
            ("verify/20261122T200000Z.json", ObjectName::Ledger),
            ("verify/20261122T220843.980000Z.json.zst", ObjectName::Ledger),
            ("expire/20261122T200000Z-0f.json", ObjectName::Run),
        ] {
            assert_eq!(ObjectName::parse(name), Some(what), "{name}");
        }
    }

    #[test]
    fn what_wald_does_not_write_is_nobodys() {
        for name in [
            "",
            "README",
            "wald.json.bak",
            "wal/000000010000000000000042",
            "wal/x.zst",
            "catalog/notes.txt",
            "catalog/20250210T020000Z-full.json.bak",
            "2025/02/10/20250210T020000Z-full/notes.txt",
            "2025/02/11/20250210T020000Z-full/base-0001.tar.zst",
            "x/2025/02/10/20250210T020000Z-full/base-0001.tar.zst",
            "2025/02/10/20250210T020000Z-full/-1.tar.zst",
            "verify/notes.json",
            "drill/2026-11-22.md",
            "check/",
            "check/a/b",
        ] {
            assert_eq!(ObjectName::parse(name), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn any_name_parses_or_not_without_panic(
            name in "(wal|gap|catalog|check|verify|expire|2025/02/10)?/?[0-9A-Fa-z./-]{0,50}|\\PC{0,40}",
        ) {
            let _ = ObjectName::parse(&name);
        }

        #[test]
        fn every_part_of_every_backup_is_known(second in 0i64..4_000_000_000, number in 0u32..100_000) {
            let began = Timestamp::from_second(second).unwrap();
            let id = BackupId::new(began, crate::backup_id::BackupKind::Full);
            let key = ObjectKey::backup_object(&id, &format!("base-{number:04}.tar.zst")).unwrap();
            prop_assert_eq!(ObjectName::parse(key.as_str()), Some(ObjectName::BackupObject(id)));
        }
    }
}
