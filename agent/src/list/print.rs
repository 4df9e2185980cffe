//! The listing as a person reads it.

use super::{ChecksumVerdict, ListedBackup, Listing};
use std::fmt;
use wald_core::quantity::{Bytes, Count};
use wald_core::target::{print_second, print_second_after, print_time};

impl fmt::Display for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "repository  {}", self.repository)?;
        writeln!(f, "system      {}, WAL segments of {}", self.system_id, Bytes(self.segment_bytes.into()))?;
        self.print_backups(f)?;
        self.print_wal(f)?;
        self.print_windows(f)?;
        for problem in &self.unreadable {
            writeln!(f, "\nwarning: {} can't be used: {}", problem.key, problem.reason)?;
        }
        for name in &self.foreign_entries {
            writeln!(f, "\nwarning: {name} is ignored: its name is not that of a catalog entry")?;
        }
        if self.foreign_segments > 0 {
            let count = Count(self.foreign_segments, "object");
            writeln!(f, "\nwarning: {count} under wal/ can't be segments of this cluster")?;
        }
        Ok(())
    }
}

impl Listing {
    fn print_backups(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.backups.is_empty() {
            return writeln!(f, "\nbackups     none: take one with wald backup");
        }
        let head = ["backup", "ended", "TL", "start", "stop", "size", "stored", "took", "checksums"];
        let rows = self.backups.iter().map(row).collect::<Vec<_>>();
        let mut widths = head.map(str::len);
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.len());
            }
        }
        writeln!(f)?;
        print_row(f, &widths, &head.map(str::to_owned))?;
        rows.iter().try_for_each(|row| print_row(f, &widths, row))
    }

    fn print_wal(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f)?;
        let stored = self.timelines.iter().filter(|timeline| !timeline.ranges.is_empty());
        if stored.clone().next().is_none() {
            return writeln!(f, "WAL         none");
        }
        for timeline in stored {
            let from = timeline.parent.map(|p| format!(", from {} at {}", p.timeline, p.switch_point));
            writeln!(f, "WAL of timeline {}{}", timeline.timeline, from.unwrap_or_default())?;
            let gaps = timeline.gaps.iter().map(Some).chain(std::iter::once(None));
            for (range, gap) in timeline.ranges.iter().zip(gaps) {
                writeln!(
                    f,
                    "  {} to {}  {}, {}, stored until {}",
                    range.first,
                    range.last,
                    Count(range.segments, "segment"),
                    Bytes(range.stored_bytes),
                    print_second(range.last_stored_at),
                )?;
                if let Some(gap) = gap {
                    let count = Count(gap.segments, "segment");
                    writeln!(f, "  {} to {}  MISSING: {count}", gap.first, gap.last)?;
                }
            }
        }
        Ok(())
    }

    fn print_windows(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f)?;
        if self.recovery_windows.is_empty() {
            return writeln!(f, "nothing can be recovered: there is no backup with all its WAL");
        }
        writeln!(f, "can be recovered to")?;
        for window in &self.recovery_windows {
            // Both ends are targets that will be taken when typed as they stand; a window of less
            // than a second has no whole one.
            let whole = window.until_time.duration_since(window.from_time).as_secs() >= 1;
            let (from, until) = if whole {
                (print_second_after(window.from_time), print_second(window.until_time))
            } else {
                (print_time(window.from_time), print_time(window.until_time))
            };
            writeln!(
                f,
                "  {from} to {until}  LSN {} to {}, timeline {}",
                window.from_lsn, window.until_lsn, window.timeline,
            )?;
        }
        Ok(())
    }
}

fn row(backup: &ListedBackup) -> [String; 9] {
    let checksums = match (backup.wal_complete, backup.checksums) {
        (false, _) => "WAL MISSING: can't be restored".to_owned(),
        (true, ChecksumVerdict::Good) => "good".to_owned(),
        (true, ChecksumVerdict::Off) => "off".to_owned(),
        (true, ChecksumVerdict::Bad) => {
            let pages = u64::try_from(backup.bad_pages).unwrap_or(u64::MAX);
            format!("{} BAD", Count(pages, "page"))
        }
    };
    [
        backup.id.to_string(),
        print_second(backup.stopped_at),
        backup.timeline.to_string(),
        backup.start_lsn.to_string(),
        backup.stop_lsn.to_string(),
        Bytes(backup.raw_bytes).to_string(),
        Bytes(backup.stored_bytes).to_string(),
        took(backup.duration_seconds),
        checksums,
    ]
}

fn took(seconds: i64) -> String {
    match seconds {
        ..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds % 3600 / 60),
    }
}

fn print_row(f: &mut fmt::Formatter<'_>, widths: &[usize; 9], cells: &[String; 9]) -> fmt::Result {
    let mut line = String::new();
    for (width, cell) in widths.iter().zip(cells) {
        line.push_str(&format!("{cell:<width$}  "));
    }
    writeln!(f, "{}", line.trim_end())
}
