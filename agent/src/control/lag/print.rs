//! Lag as a person reads it.

use std::fmt;
use std::time::Duration;
use wald_core::lag::{Pause, Report, StageLag, StandbyReport, Streaming};
use wald_core::quantity::Bytes;

/// A report, printed in a few lines.
pub struct Shown<'r>(pub &'r Report);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.0;
        writeln!(f, "{:<11} {} at {:.0}", report.role, report.state, report.at)?;
        for finding in &report.findings {
            writeln!(f, "{:<11} {}", finding.severity, finding.text)?;
        }
        if let Some(standby) = &report.standby {
            print_standby(f, standby)?;
        }
        if let Some(synchronous) = &report.synchronous {
            let (there, required, names) = (synchronous.streaming, synchronous.required, &synchronous.names);
            writeln!(f, "synchronous {there} of {required} there (synchronous_standby_names = '{names}')")?;
        }
        print_replicas(f, report)?;
        print_slots(f, report)?;
        match report.wal_bytes_per_second {
            Some(rate) => writeln!(f, "WAL         {:.1} MiB/s", rate / f64::from(1 << 20)),
            None => Ok(()),
        }
    }
}

fn print_standby(f: &mut fmt::Formatter<'_>, standby: &StandbyReport) -> fmt::Result {
    let bytes = known(standby.replay_lag_bytes.map(Bytes));
    match (standby.replay_lag, standby.replay_lag_is_exact) {
        (Some(_), true) => writeln!(f, "replay      0 s behind: all that was received is replayed")?,
        (Some(lag), false) => writeln!(f, "replay      at most {} behind, {bytes}", time(lag))?,
        (None, _) => writeln!(f, "replay      UNKNOWN how late, {bytes} behind what was received")?,
    }
    if let Some(age) = standby.last_transaction_age {
        writeln!(f, "            the last replayed transaction is {} old", time(age))?;
    }
    if !standby.apply_delay.is_zero() {
        writeln!(f, "            recovery_min_apply_delay is {}", time(standby.apply_delay))?;
    }
    match standby.pause {
        Pause::NotPaused => {}
        Pause::Requested => writeln!(f, "            a pause was requested")?,
        Pause::Paused => writeln!(f, "            PAUSED")?,
    }
    let from = standby.sender.as_ref().map_or_else(String::new, |sender| format!(" from {sender}"));
    let slot = standby.slot.as_ref().map_or_else(String::new, |slot| format!(", slot {slot}"));
    write!(f, "receiver    {}{from}{slot}", standby.receiver.word())?;
    match standby.receiver {
        Streaming::Down | Streaming::ArchiveOnly => writeln!(f)?,
        Streaming::Streaming | Streaming::Silent | Streaming::Waiting => {
            let heard = standby
                .silent_for
                .map_or_else(String::new, |span| format!(", last heard {} ago", time(span)));
            writeln!(f, ", {} to come{heard}", known(standby.receive_lag_bytes.map(Bytes)))?;
        }
    }
    let conflicts = standby.conflicts;
    if conflicts.total() > 0 {
        writeln!(
            f,
            "conflicts   {} cancelled queries: {} by locks, {} by old snapshots, {} by pinned buffers, {} by deadlocks, \
             {} by dropped tablespaces",
            conflicts.total(),
            conflicts.lock,
            conflicts.snapshot,
            conflicts.bufferpin,
            conflicts.deadlock,
            conflicts.tablespace
        )?;
    }
    Ok(())
}

fn print_replicas(f: &mut fmt::Formatter<'_>, report: &Report) -> fmt::Result {
    if report.replicas.is_empty() {
        return writeln!(f, "standbys    none stream from here");
    }
    let width = report.replicas.iter().map(|replica| replica.name.len()).max().unwrap_or(0).max(7);
    writeln!(
        f,
        "{:<width$} {:<10} {:<9} {:<22} {:<22} {:<22}",
        "standby", "state", "sync", "write", "flush", "replay"
    )?;
    for replica in &report.replicas {
        let name = plain(&replica.name);
        let (write, flush, replay) = (stage(replica.write), stage(replica.flush), stage(replica.replay));
        writeln!(
            f,
            "{name:<width$} {:<10} {:<9} {write:<22} {flush:<22} {replay:<22}",
            replica.state, replica.sync_state
        )?;
    }
    Ok(())
}

fn print_slots(f: &mut fmt::Formatter<'_>, report: &Report) -> fmt::Result {
    for slot in &report.slots {
        let used = if slot.active { "in use" } else { "NOT IN USE" };
        let status = slot.wal_status.as_deref().unwrap_or("reserves nothing");
        let kept = known(slot.retained_bytes.map(Bytes));
        write!(f, "slot        {} ({}, {used}, {status}): {kept} kept", plain(&slot.name), slot.kind)?;
        match (slot.safe_bytes, slot.until_lost) {
            (None, _) => writeln!(f, ", without a limit (max_slot_wal_keep_size)")?,
            (Some(safe), Some(until)) => {
                writeln!(f, ", {} left: lost in {} at the present rate", Bytes(safe), time(until))?;
            }
            (Some(safe), None) if report.wal_bytes_per_second.is_some() => {
                writeln!(f, ", {} left, and nothing is written", Bytes(safe))?;
            }
            (Some(safe), None) => writeln!(f, ", {} left: how long is unknown (see --watch)", Bytes(safe))?,
        }
    }
    Ok(())
}

fn stage(lag: StageLag) -> String {
    let seconds = lag.seconds.map_or_else(|| "-".to_owned(), time);
    lag.bytes.map_or(seconds.clone(), |bytes| format!("{seconds}, {}", Bytes(bytes)))
}

fn time(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0..120 => format!("{:.1} s", span.as_secs_f64()),
        120..7200 => format!("{} min", seconds / 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

fn known<T: fmt::Display>(value: Option<T>) -> String {
    value.map_or_else(|| "unknown".to_owned(), |value| value.to_string())
}

/// What others chose must not move a terminal's cursor.
fn plain(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '?' } else { character }).collect()
}
