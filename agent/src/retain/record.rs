//! The record of a run, `expire/<time>.json`: what was kept and why, what was done, what failed. An
//! object like any other, locked; `wald status` and whoever looks for a deletion read it.

use super::execute::Outcome;
use super::gather::Problem;
use super::report::{PlannedBackup, RunReport};
use super::summary::Summary;
use crate::store::{Created, PutPayload, Store, StoreError};
use jiff::Timestamp;
use serde::Serialize;
use wald_core::object_key::ObjectKey;

/// The version of the record's format.
const FORMAT: u32 = 1;

/// Runs that end in the same second get names one after the other.
const NAMES_MAX: u32 = 20;

/// Why there is no record.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecordError {
    #[error("can't store the record of this run")]
    Store(#[from] StoreError),
    #[error("can't write the record of this run as JSON")]
    Json(#[from] serde_json::Error),
    #[error("there are {NAMES_MAX} records of this second already")]
    Taken,
}

#[derive(Serialize)]
struct Record<'a> {
    format: u32,
    wald: &'static str,
    now: Timestamp,
    window_begin: Timestamp,
    full_backups_min: u32,
    refusal: &'a Option<String>,
    problems: &'a [Problem],
    backups: &'a [PlannedBackup],
    summary: &'a Summary,
    outcome: &'a Outcome,
}

/// Stores the record, under a name that no other run has.
pub(super) async fn store(store: &Store, report: &RunReport, now: Timestamp) -> Result<String, RecordError> {
    let planned = &report.planned;
    let record = Record {
        format: FORMAT,
        wald: env!("CARGO_PKG_VERSION"),
        now: planned.now,
        window_begin: planned.window_begin,
        full_backups_min: planned.full_backups_min,
        refusal: &planned.refusal,
        problems: &planned.problems,
        backups: &planned.backups,
        summary: &planned.summary,
        outcome: &report.outcome,
    };
    let mut json = serde_json::to_vec_pretty(&record)?;
    json.push(b'\n');
    for number in 1..=NAMES_MAX {
        let key = ObjectKey::expire(now, number);
        if store.create(&key, PutPayload::from(json.clone())).await? == Created::Stored {
            return Ok(key.to_string());
        }
    }
    Err(RecordError::Taken)
}
