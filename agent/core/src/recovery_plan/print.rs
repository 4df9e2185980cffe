//! A plan as `--dry-run` shows it.

use super::{PathStep, PlanNote, RecoveryPlan};
use crate::quantity::{Bytes, Count};
use crate::target::print_second;
use std::fmt;

impl fmt::Display for RecoveryPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let backup = &self.backup;
        let exclusive = if self.inclusive { "" } else { ", not including it" };
        writeln!(f, "target     {}{exclusive}", self.target)?;
        writeln!(
            f,
            "backup     {}: {} in {}, consistent at {} ({}), timeline {}",
            backup.id,
            Bytes(backup.raw_bytes),
            Count(backup.files, "file"),
            backup.stop_lsn,
            print_second(backup.stopped_at),
            backup.timeline,
        )?;
        write!(f, "timelines  ")?;
        for (index, PathStep { timeline, until }) in self.path.iter().enumerate() {
            let then = if index == 0 { "" } else { ", then " };
            match until {
                Some(lsn) => write!(f, "{then}{timeline} until {lsn}")?,
                None => write!(f, "{then}{timeline}")?,
            }
        }
        writeln!(f)?;
        for (index, range) in self.wal.iter().enumerate() {
            let head = if index == 0 { "WAL" } else { "" };
            writeln!(
                f,
                "{head:<9}  {} to {}: {}, {}",
                range.first,
                range.last,
                Count(range.segments, "segment"),
                Bytes(range.stored_bytes),
            )?;
        }
        writeln!(
            f,
            "download   {}: {} of backup, {} of WAL",
            Bytes(self.download_bytes),
            Bytes(backup.stored_bytes),
            Bytes(self.wal_bytes),
        )?;
        for (index, setting) in self.settings.iter().enumerate() {
            writeln!(f, "{:<9}  {setting}", if index == 0 { "settings" } else { "" })?;
        }
        for note in &self.notes {
            writeln!(f, "note       {note}")?;
        }
        Ok(())
    }
}

impl fmt::Display for PlanNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PlanNote::TargetMayBeOlder { target, stopped_at, older } => {
                write!(
                    f,
                    "where {target} stands is not known before it is replayed; if it is older than {}, PostgreSQL \
                     will not find it",
                    print_second(*stopped_at)
                )?;
                match older {
                    Some(id) => write!(f, ": choose an older backup then, such as --backup {id}"),
                    None => f.write_str(", and no older backup is there"),
                }
            }
            PlanNote::GapAhead { missing } => write!(
                f,
                "WAL is missing from {missing} on: if the target stands behind it, recovery ends with an error there"
            ),
            PlanNote::NothingMayFollow => f.write_str(
                "only the last stored segment can hold a commit after the target: if there is none, PostgreSQL ends \
                 with \"recovery ended before configured recovery target was reached\"; then restore to the end of WAL",
            ),
            PlanNote::AfterLastStored { stored_until } => write!(
                f,
                "WARNING: the target is later than the last WAL was stored, {} by the repository's clock; if that clock \
                 is not behind, nothing up to the target is there. PostgreSQL stops with an error if nothing was \
                 committed after the target; then restore to the end of WAL",
                print_second(*stored_until)
            ),
            PlanNote::MadeWithout { key, reason } => {
                write!(f, "{key} can't be used, and the plan was made without it: {reason}")
            }
            PlanNote::BadPages { count } => write!(
                f,
                "{count} data pages had a wrong checksum in the cluster itself when the backup was taken (see wald list)"
            ),
            PlanNote::ArchivingOff => f.write_str(
                "the restored server does not archive (archive_mode = off); if it takes the old one's place, use \
                 --archive-mode keep, or ALTER SYSTEM RESET archive_mode later",
            ),
        }
    }
}
