//! `wald repo check`: does this repository keep the promises that wald's own rest on?
//!
//! Each is tried, not asked for: stores say that they know "only if absent" and ignore it, and take
//! a lock for which they have no place. Invariants: only objects below `check/` are written, under
//! names that this run alone uses; nothing else is changed or removed. A step that can't be tried
//! because an earlier one failed is left out rather than guessed.

use super::bucket_trial;
use super::guarantees;
use super::leftover_trial;
use super::lock_trial;
use super::object_trial;
use super::report::{CheckReport, Verdict};
use super::{RepositoryError, read_identity};
use crate::clock::Clock;
use crate::explain::chain;
use crate::store::{Guarantees, Store, StoreError};
use jiff::Timestamp;
use std::time::Duration;
use wald_core::object_key::{ObjectKey, ObjectKeyError};

/// What this host, or these keys, are for. It decides which missing right is an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum Purpose {
    /// Archiving and base backups, which includes reading
    #[default]
    Archive,
    /// Restoring only: nothing is written
    Restore,
    /// Retention (`wald expire`), which also deletes what is not needed any more
    Expire,
}

/// What is known of the server at the end of a trial. A question that could not be tried keeps
/// the answer that an earlier trial recorded.
#[derive(Clone, Copy, Default)]
pub(super) struct Seen {
    pub(super) create_only: Option<bool>,
    pub(super) checksums: Option<bool>,
    pub(super) signed_payload: Option<bool>,
    pub(super) lock_on_put: Option<bool>,
    pub(super) lock_on_upload: Option<bool>,
    pub(super) tells_delete_markers: Option<bool>,
}

impl Seen {
    pub(super) fn over(self, before: Guarantees) -> Guarantees {
        Guarantees {
            create_only: self.create_only.unwrap_or(before.create_only),
            checksums: self.checksums.unwrap_or(before.checksums),
            signed_payload: self.signed_payload.unwrap_or(before.signed_payload),
            lock_on_put: self.lock_on_put.unwrap_or(before.lock_on_put),
            lock_on_upload: self.lock_on_upload.unwrap_or(before.lock_on_upload),
            tells_delete_markers: self.tells_delete_markers.unwrap_or(before.tells_delete_markers),
        }
    }
}

/// One run: where, for what, and what it has found so far.
pub(super) struct Run<'r> {
    pub(super) store: &'r Store,
    pub(super) purpose: Purpose,
    pub(super) names: Names,
    /// What an earlier run has recorded.
    before: Option<Guarantees>,
    pub(super) seen: Seen,
    pub(super) report: CheckReport,
    /// What storing an object took.
    pub(super) request_time: Duration,
    /// When the last lock of this run lapses, by this host's clock.
    pub(super) locked_until: Option<Timestamp>,
}

/// The names that one run uses.
pub(super) struct Names {
    run: String,
    /// In front of all of them.
    pub(super) prefix: String,
}

impl Names {
    fn of_run(run: String) -> Self {
        Self { prefix: format!("{}{run}-", ObjectKey::CHECK_PREFIX), run }
    }

    /// A key that this run alone uses.
    pub(super) fn key(&self, name: &str) -> Result<ObjectKey, ObjectKeyError> {
        ObjectKey::check(&format!("{}-{name}", self.run))
    }
}

/// Tries everything that wald does with a repository, for [`Purpose::Archive`].
pub async fn check(store: &Store, clock: &Clock) -> CheckReport {
    check_for(store, clock, Purpose::default()).await
}

/// Tries everything that wald does with a repository, and records what the server keeps.
pub async fn check_for(store: &Store, clock: &Clock, purpose: Purpose) -> CheckReport {
    let names = Names::of_run(format!("{}-{}", clock.now().as_nanosecond(), std::process::id()));
    let report = CheckReport::new(store.describe());
    let mut run = Run {
        store,
        purpose,
        names,
        before: None,
        seen: Seen::default(),
        report,
        request_time: Duration::ZERO,
        locked_until: None,
    };
    if let Err(error) = run.all().await {
        run.report.add(Verdict::Bad, error.to_string());
    }
    run.report
}

impl Run<'_> {
    async fn all(&mut self) -> Result<(), ObjectKeyError> {
        // First: with a clock that is wrong by more than a quarter of an hour S3 refuses the rest.
        bucket_trial::clock(self).await;
        if !self.identity().await {
            return Ok(());
        }
        self.before = guarantees::newest(self.store).await.unwrap_or_default();
        if self.purpose == Purpose::Restore {
            object_trial::absence(self).await?;
            object_trial::listing_at_all(self).await;
            return Ok(());
        }
        bucket_trial::settings(self).await;
        // Nothing of the rest can be tried where nothing can be stored.
        if object_trial::single(self).await? {
            // Early: its locks lapse while the rest is tried.
            lock_trial::locks(self).await?;
            object_trial::create_only(self).await?;
            object_trial::checksums(self).await?;
            object_trial::parts(self).await?;
            object_trial::listing(self).await?;
            lock_trial::delete_marker(self).await?;
            self.record().await;
        } else if self.purpose == Purpose::Expire {
            leftover_trial::all(self).await;
        }
        // Behind what tells how much care it takes.
        object_trial::absence(self).await?;
        lock_trial::removal(self).await;
        Ok(())
    }

    /// What is known of the server by now, from this run or an earlier one.
    pub(super) fn known(&self) -> Guarantees {
        self.seen.over(self.before.unwrap_or_default())
    }

    /// Whether it makes sense to go on.
    async fn identity(&mut self) -> bool {
        let report = &mut self.report;
        match read_identity(self.store).await {
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
                report.failed("wald.json can't be read (s3:GetObject)", &error);
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

    /// Writes down what the server was seen to keep, where that is news.
    async fn record(&mut self) {
        // Only a server has guarantees to lose.
        let Ok(Some(time)) = self.store.server_time().await else { return };
        let now = self.known();
        self.report.guarantees = Some(now);
        for weakness in now.explain_missing() {
            self.report.add(Verdict::Note, weakness);
        }
        if self.before == Some(now) {
            return;
        }
        let store = self.store.with_guarantees(now);
        match guarantees::write(&store, now, time).await {
            Ok(()) => {
                self.report.add(Verdict::Good, "wrote down what the server keeps, for the agent to read")
            }
            Err(error) => self.report.failed("can't write down what the server keeps", &error),
        }
    }
}
