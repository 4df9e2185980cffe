//! How fast transaction ids are used: a sample of the counters each time that somebody looks, and
//! the earlier ones in `<agent.state_dir>/controls/transactions.json`.
//!
//! Invariant: a file that can't be read or written costs the rate and nothing else.

use crate::control::state_file::StateFile;
use crate::database::{Database, DatabaseError, Right, parsed, value};
use crate::explain::chain;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::path::Path;
use wald_core::freeze::{Rate, Sample, best_base};

const ACTION: &str = "tell its transaction counters";

/// Reading the counters uses no transaction id. The next multixact is not told, but follows from
/// the age of any that is known.
const COUNTERS_QUERY: &str = "\
    SELECT pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text AS transactions, \
           (d.datminmxid::text::int8 + pg_catalog.mxid_age(d.datminmxid)) % 4294967296 AS multixacts, \
           s.system_identifier::text AS system_id \
    FROM pg_catalog.pg_database AS d, pg_catalog.pg_control_system() AS s \
    WHERE d.datname = pg_catalog.current_database()";

/// A week with a sample every ten minutes.
const SAMPLES_MAX: usize = 1008;
/// Samples nearer to the last one than this are not kept.
const KEEP_EVERY: SignedDuration = SignedDuration::from_mins(10);
/// The rate of a day tells more than that of an hour, and more than that of last week.
const WINDOW: SignedDuration = SignedDuration::from_hours(24);

/// What is remembered.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Remembered {
    /// Whose counters these are.
    system_id: String,
    samples: Vec<Sample>,
}

/// The rate, or why it is not known.
#[derive(Clone, Debug)]
pub struct Pace {
    /// Ids per day.
    pub rate: Option<Rate>,
    /// Why there is no rate, or what kept the sample from being remembered.
    pub remarks: Vec<String>,
}

/// Reads the counters.
pub async fn sample(session: &Database, now: Timestamp) -> Result<(String, Sample), DatabaseError> {
    let row = session.query_one(ACTION, Right::Login, COUNTERS_QUERY, &[]).await?;
    let multixacts: i64 = value(&row, "multixacts", ACTION)?;
    let sample = Sample {
        at: now,
        transactions: parsed(&row, "transactions", ACTION)?,
        multixacts: u32::try_from(multixacts).unwrap_or(0),
    };
    Ok((value(&row, "system_id", ACTION)?, sample))
}

/// The rate up to `newest` as far as the remembered samples tell, and `newest` remembered.
pub fn pace(state_dir: &Path, system_id: &str, newest: Sample) -> Pace {
    let file = StateFile::below(state_dir, "controls/transactions.json");
    let mut remarks = Vec::new();
    let read = file.read::<Remembered>().unwrap_or_else(|error| {
        remarks.push(format!("earlier samples can't be read: {}", chain(&error)));
        None
    });
    // Samples of another cluster, as after a restore of another one here, tell nothing.
    let mut remembered = read.filter(|found| found.system_id == system_id).unwrap_or_default();
    let base = best_base(&remembered.samples, newest, WINDOW);
    let rate = base.and_then(|base| Rate::between(base, newest));
    if rate.is_none() {
        remarks.push(
            "the rate of transaction use is not known yet: run this again later, or with --measure 60s"
                .to_owned(),
        );
    }
    let due = remembered.samples.last().is_none_or(|last| {
        let since = newest.at.duration_since(last.at);
        since >= KEEP_EVERY || since.is_negative()
    });
    if due {
        remembered.system_id = system_id.to_owned();
        remembered.samples.push(newest);
        let surplus = remembered.samples.len().saturating_sub(SAMPLES_MAX);
        remembered.samples.drain(..surplus);
        if let Err(error) = file.replace(&remembered) {
            remarks.push(format!("this sample is not remembered: {}", chain(&error)));
        }
    }
    Pace { rate, remarks }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64, transactions: u64) -> Sample {
        Sample { at: Timestamp::from_second(second).unwrap(), transactions, multixacts: 1 }
    }

    #[test]
    fn a_rate_is_known_from_the_second_look_on_and_only_of_the_same_cluster() {
        let dir = tempfile::tempdir().unwrap();
        assert!(pace(dir.path(), "7", at(0, 100)).rate.is_none());
        let rate = pace(dir.path(), "7", at(86_400, 300)).rate.unwrap();
        assert_eq!(rate.transactions_per_day, 200.0);
        assert!(pace(dir.path(), "8", at(90_000, 400)).rate.is_none());
    }

    #[test]
    fn a_file_that_is_no_use_costs_the_rate_only() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("controls")).unwrap();
        std::fs::write(dir.path().join("controls/transactions.json"), b"{").unwrap();
        let pace = pace(dir.path(), "7", at(0, 100));
        assert!(pace.rate.is_none() && pace.remarks[0].contains("transactions.json"), "{pace:?}");
    }
}
