//! `wald repo check`: does this repository keep the promises that wald's own rest on?
//!
//! Each is tried, not asked for: stores say that they know "only if absent" and ignore it.
//! Invariants: only objects below `check/` are written, under names that this run alone uses;
//! nothing else is changed or removed. A step that can't be tried because an earlier one failed
//! is left out rather than guessed.

use super::report::{CheckReport, Verdict};
use super::{RepositoryError, read_identity};
use crate::clock::Clock;
use crate::explain::chain;
use crate::store::{Created, Store, StoreError};
use bytes::Bytes;
use futures::TryStreamExt;
use futures::future::join_all;
use wald_core::object_key::{ObjectKey, ObjectKeyError};

/// Creators of one object at the same time, of whom one may win.
const RIVALS: usize = 4;
/// The body of the objects that are tried with: small, and larger than a sealed header.
const BODY_BYTES: usize = 8 << 10;

/// Tries everything that wald does with a repository.
pub async fn check(store: &Store, clock: &Clock) -> CheckReport {
    let mut report = CheckReport::new(store.describe());
    if !identity(store, &mut report).await {
        return report;
    }
    let run = format!("{}-{}", clock.now().as_nanosecond(), std::process::id());
    match Names::of_run(&run) {
        Ok(names) => try_all(store, &names, &mut report).await,
        Err(error) => report.add(Verdict::Bad, error.to_string()),
    }
    report
}

/// The names that one run uses.
struct Names {
    prefix: String,
    single: ObjectKey,
    contested: ObjectKey,
    parts: ObjectKey,
    absent: ObjectKey,
}

impl Names {
    fn of_run(run: &str) -> Result<Self, ObjectKeyError> {
        let key = |name: &str| ObjectKey::check(&format!("{run}-{name}"));
        Ok(Self {
            prefix: format!("{}{run}-", ObjectKey::CHECK_PREFIX),
            single: key("single")?,
            contested: key("contested")?,
            parts: key("parts")?,
            absent: key("absent")?,
        })
    }
}

async fn try_all(store: &Store, names: &Names, report: &mut CheckReport) {
    absence(store, names, report).await;
    // Nothing of the rest can be tried where nothing can be stored.
    if single(store, names, report).await {
        overwriting(store, names, report).await;
        contest(store, names, report).await;
        parts(store, names, report).await;
        listing(store, names, report).await;
    }
    removal(store, names, report).await;
}

/// Whether it makes sense to go on.
async fn identity(store: &Store, report: &mut CheckReport) -> bool {
    match read_identity(store).await {
        Ok(identity) => {
            let (system, segment) = (identity.system_id(), identity.segment_size().bytes() >> 20);
            report.add(
                Verdict::Good,
                format!(
                    "can be reached, and is the repository of system {system} with segments of {segment} MiB"
                ),
            );
            true
        }
        Err(RepositoryError::NotInitialised { .. }) => {
            report.add(
                Verdict::Bad,
                "can be reached, but has no wald.json: run `wald repo init` on the database host",
            );
            true
        }
        Err(RepositoryError::Store(error @ StoreError::Refused { .. })) => {
            report.failed("wald.json can't be read", &error);
            true
        }
        Err(RepositoryError::Store(error)) => {
            report.failed("can't be reached", &error);
            false
        }
        Err(error) => {
            report.add(Verdict::Bad, format!("wald.json can't be used: {}", chain(&error)));
            true
        }
    }
}

async fn absence(store: &Store, names: &Names, report: &mut CheckReport) {
    match store.get(&names.absent, 1).await {
        Err(error) if error.is_absent() => {
            report.add(Verdict::Good, "says clearly that an object is absent");
        }
        Err(error @ StoreError::Refused { .. }) => report.failed(
            "can't say that an object is absent (S3 does so only to who has s3:ListBucket on the bucket), \
             so that a recovery can't find the end of the WAL",
            &error,
        ),
        Err(error) => report.failed("can't say that an object is absent", &error),
        Ok(_) => report.add(
            Verdict::Bad,
            format!("returned an object that nobody stored, {}; is this an S3 server?", names.absent),
        ),
    }
}

fn body(first: u8) -> Bytes {
    let pattern = [first, 0, 0xff, b'\n', b'<'];
    pattern.into_iter().cycle().take(BODY_BYTES).collect()
}

/// Whether objects can be stored and read.
async fn single(store: &Store, names: &Names, report: &mut CheckReport) -> bool {
    match store.create(&names.single, body(1).into()).await {
        Ok(Created::Stored) => report.add(Verdict::Good, "stores objects"),
        Ok(Created::Exists) => {
            let text = "refuses to store an object as existing already, which was never stored";
            report.add(Verdict::Bad, text);
            return false;
        }
        Err(error) => {
            report.failed("can't store objects", &error);
            return false;
        }
    }
    read_back(store, &names.single, &body(1), "returns what was stored", report).await;
    let start = store.get_start(&names.single, 64).await;
    match start {
        Ok(start) if body(1).starts_with(&start) && start.len() == 64 => {
            report.add(Verdict::Good, "returns a part of an object");
        }
        Ok(_) => report.add(Verdict::Bad, "returns something else when asked for a part of an object"),
        Err(error) => report.failed("can't return a part of an object", &error),
    }
    true
}

async fn read_back(store: &Store, key: &ObjectKey, expected: &Bytes, good: &str, report: &mut CheckReport) {
    let bytes_max = u64::try_from(expected.len()).unwrap_or(u64::MAX);
    match store.get(key, bytes_max).await {
        Ok(found) if found == *expected => report.add(Verdict::Good, good),
        Ok(_) => report.add(Verdict::Bad, format!("returned other bytes than were stored as {key}")),
        Err(error) if error.is_absent() => {
            report.add(Verdict::Bad, format!("says that {key} is absent right after it was stored"));
        }
        Err(error) => report.failed("can't return what was stored", &error),
    }
}

async fn overwriting(store: &Store, names: &Names, report: &mut CheckReport) {
    match store.create(&names.single, body(2).into()).await {
        Ok(Created::Exists) => {
            let good = "refuses to overwrite an object";
            read_back(store, &names.single, &body(1), good, report).await;
        }
        Ok(Created::Stored) => report.add(
            Verdict::Bad,
            "overwrites objects although told not to (it ignores \"If-None-Match: *\"), so that a second \
             cluster could destroy the WAL of the first; use another store or a newer version of this one",
        ),
        Err(error) => report.failed("fails when asked to store an object that exists", &error),
    }
}

/// A store may refuse the second of two and still let two through at once.
async fn contest(store: &Store, names: &Names, report: &mut CheckReport) {
    let rivals = (0..RIVALS).map(|rival| {
        let body = body(u8::try_from(rival).unwrap_or(0));
        async move { (body.clone(), store.create(&names.contested, body.into()).await) }
    });
    let outcomes = join_all(rivals).await;
    let winners: Vec<&Bytes> = outcomes
        .iter()
        .filter_map(|(body, outcome)| matches!(outcome, Ok(Created::Stored)).then_some(body))
        .collect();
    match (winners.as_slice(), outcomes.iter().find_map(|(_, outcome)| outcome.as_ref().err())) {
        ([winner], _) => {
            let good = "lets one of several win that create the same object at once";
            read_back(store, &names.contested, winner, good, report).await;
        }
        ([], Some(error)) => report.failed("can't store objects at the same time", error),
        ([], None) => report.add(
            Verdict::Bad,
            "told each of several that create the same object at once that another had created it",
        ),
        (_, _) => report.add(
            Verdict::Bad,
            "told several that create the same object at once that each had succeeded, so that one of \
             them would report WAL as archived that is not",
        ),
    }
}

async fn parts(store: &Store, names: &Names, report: &mut CheckReport) {
    let uploaded = async {
        let mut upload = store.upload(&names.parts).await?;
        upload.put_part(body(3)).await?;
        upload.finish().await
    };
    match uploaded.await {
        Ok(_) => {
            read_back(store, &names.parts, &body(3), "takes uploads in parts, as for base backups", report)
                .await;
        }
        Err(error) => report.failed("can't take uploads in parts, as for base backups", &error),
    }
}

async fn listing(store: &Store, names: &Names, report: &mut CheckReport) {
    let listed = store.list(&names.prefix).map_ok(|object| object.name).try_collect::<Vec<_>>().await;
    match listed {
        Ok(listed) if listed.iter().any(|name| name == names.single.as_str()) => {
            report.add(Verdict::Good, "lists what is stored");
        }
        Ok(_) => report.add(Verdict::Bad, format!("does not list {}, which was just stored", names.single)),
        Err(error) => report.failed("can't list objects", &error),
    }
}

async fn removal(store: &Store, names: &Names, report: &mut CheckReport) {
    let keys = [&names.single, &names.contested, &names.parts];
    let removed = join_all(keys.map(|key| store.delete(key))).await;
    match removed.into_iter().find_map(Result::err) {
        None => report.add(Verdict::Good, "removed what was stored for this check"),
        Some(error) => report.add(
            Verdict::Note,
            format!(
                "what was stored for this check stays below {}; only `wald expire` needs to remove objects: {}",
                ObjectKey::CHECK_PREFIX,
                chain(&error)
            ),
        ),
    }
}
