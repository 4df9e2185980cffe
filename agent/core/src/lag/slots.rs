//! Replication slots: how much WAL they keep, and how long until they lose what they need.

use super::{Finding, Sample, Severity, Slot, as_float, seconds_if_known};
use crate::quantity::Bytes;
use serde::Serialize;
use std::time::Duration;

/// A slot.
#[derive(Clone, Debug, Serialize)]
pub struct SlotReport {
    /// Its name.
    pub name: String,
    /// `physical` or `logical`.
    pub kind: String,
    /// Whether somebody uses it.
    pub active: bool,
    /// As `reserved`, `extended`, `unreserved`, `lost`.
    pub wal_status: Option<String>,
    /// Bytes of WAL that are kept for it.
    pub retained_bytes: Option<u64>,
    /// Bytes that can be written until it may be lost; absent without `max_slot_wal_keep_size`.
    pub safe_bytes: Option<u64>,
    /// How long that takes at the present rate, in seconds; unknown with one sample, and absent
    /// where nothing is written or nothing limits it.
    #[serde(rename = "seconds_until_lost", serialize_with = "seconds_if_known")]
    pub until_lost: Option<Duration>,
}

impl SlotReport {
    /// Whether WAL that it needs is gone.
    pub fn is_lost(&self) -> bool {
        self.wal_status.as_deref() == Some("lost")
    }
}

/// Sooner than this a slot will be lost: somebody should look, or must.
const LOST_WARNING: Duration = Duration::from_secs(4 * 3600);
const LOST_CRITICAL: Duration = Duration::from_secs(1800);
/// Nothing is foreseen for longer.
const FORESEEN_MAX: f64 = 3.2e9;

pub(super) fn judge(sample: &Sample, rate: Option<f64>, findings: &mut Vec<Finding>) -> Vec<SlotReport> {
    let reports: Vec<_> = sample.slots.iter().map(|slot| report(slot, sample, rate)).collect();
    for slot in &reports {
        find(slot, findings);
    }
    reports
}

fn report(slot: &Slot, sample: &Sample, rate: Option<f64>) -> SlotReport {
    // A server that writes nothing gets nowhere: a rate of less than a byte a second is none.
    let until_lost = rate
        .filter(|rate| *rate >= 1.0)
        .zip(slot.safe_bytes)
        .and_then(|(rate, safe)| Duration::try_from_secs_f64((as_float(safe) / rate).min(FORESEEN_MAX)).ok());
    SlotReport {
        name: slot.name.clone(),
        kind: slot.kind.clone(),
        active: slot.active,
        wal_status: slot.wal_status.clone(),
        retained_bytes: sample.position.zip(slot.restart).map(|(end, begin)| end.bytes_since(begin)),
        safe_bytes: slot.safe_bytes,
        until_lost,
    }
}

fn find(slot: &SlotReport, findings: &mut Vec<Finding>) {
    let name = &slot.name;
    let used = if slot.active { "" } else { ", and nobody uses it" };
    let kept = slot.retained_bytes.map_or_else(String::new, |kept| format!(" ({} kept)", Bytes(kept)));
    let status = slot.wal_status.as_deref().unwrap_or_default();
    if slot.is_lost() {
        let text = format!("slot {name} is lost: its standby must be built anew, and the slot dropped");
        findings.push(Finding::new(Severity::Critical, text));
        return;
    }
    if status == "unreserved" {
        let text = format!("slot {name} may be lost at the next checkpoint{kept}{used}");
        findings.push(Finding::new(Severity::Critical, text));
        return;
    }
    let soon = match slot.until_lost {
        // An active slot moves on: what is safe stays so while its standby keeps up.
        _ if slot.active && status == "reserved" => Severity::Ok,
        Some(until) if until < LOST_CRITICAL => Severity::Critical,
        Some(until) if until < LOST_WARNING => Severity::Warning,
        _ => Severity::Ok,
    };
    if soon > Severity::Ok {
        let minutes = slot.until_lost.unwrap_or_default().as_secs() / 60;
        let text = format!("slot {name} is lost in {minutes} min at the present rate of WAL{kept}{used}");
        findings.push(Finding::new(soon, text));
    } else if status == "extended" {
        let text = format!("slot {name} keeps more WAL than max_wal_size{kept}{used}");
        findings.push(Finding::new(Severity::Warning, text));
    }
}
