//! Carries a plan out, request by request.
//!
//! The order is the point: locks first, because they protect; then what was hidden; then catalog
//! entries, and only of those backups whose entries are gone the other objects; WAL last, and
//! only if no entry is left that might speak of it. So an end at any place leaves every backup
//! of the catalog whole.

use super::gather::Gathered;
use super::{Progress, RetainOptions};
use crate::explain::chain;
use crate::store::{Deletion, Store, StoreError, VersionId};
use futures::{StreamExt, stream};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use tokio_util::sync::CancellationToken;
use wald_core::backup_id::BackupId;
use wald_core::object_key::ObjectKey;
use wald_core::object_lock::ObjectLock;
use wald_core::quantity::Count;
use wald_core::retention::{Extension, ListedVersion, Removal, Unneeded};

/// Failures that are told one by one.
const FAILURES_TOLD_MAX: usize = 50;
/// After so many deletions that failed no more are tried: the repository is in trouble. Locks are
/// extended whatever fails, because they protect.
const FAILURES_MAX: u64 = 100;

/// What was done.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Outcome {
    /// Locks made longer or stronger.
    pub extended: u64,
    /// Delete markers removed from what is needed.
    pub healed: u64,
    /// Versions deleted, or gone already.
    pub deleted: u64,
    /// Their size.
    pub deleted_bytes: u64,
    /// Versions that the repository did not let go: they were locked after all.
    pub locked: u64,
    /// Uploads ended.
    pub aborted: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Steps that were left out, because something before them failed or was locked.
    pub skipped: u64,
    /// Whether the run was ended early.
    pub interrupted: bool,
    /// The first failures.
    pub failures: Vec<Failure>,
}

/// A request that failed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Failure {
    /// What was to be done.
    pub what: &'static str,
    /// The object.
    pub name: String,
    /// Which version.
    pub version: Option<VersionId>,
    /// Why it was not.
    pub error: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.what, self.name)?;
        if let Some(version) = &self.version {
            write!(f, " (version {version})")?;
        }
        write!(f, ": {}", self.error)
    }
}

impl Outcome {
    pub(super) fn fail(
        &mut self,
        what: &'static str,
        name: &str,
        version: Option<&VersionId>,
        error: String,
    ) {
        self.failed += 1;
        if self.failures.len() < FAILURES_TOLD_MAX {
            self.failures.push(Failure { what, name: name.to_owned(), version: version.cloned(), error });
        }
    }
}

type Version = ListedVersion<VersionId>;

struct Run<'a> {
    store: &'a Store,
    requests: usize,
    gathered: &'a Gathered,
    progress: &'a Progress,
    cancel: &'a CancellationToken,
    outcome: Outcome,
    /// Deletions that failed.
    refused: u64,
}

pub(super) async fn execute(
    store: &Store,
    options: &RetainOptions,
    gathered: &Gathered,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Outcome {
    let requests = options.requests.get();
    let mut run =
        Run { store, requests, gathered, progress, cancel, outcome: Outcome::default(), refused: 0 };
    let plan = &gathered.plan;
    run.extend(&plan.extend).await;
    run.heal(&plan.heal).await;
    run.abort(&plan.abort).await;
    let stuck = run.delete("deleting catalog entries", &plan.delete.entries).await;
    let stuck: BTreeSet<&BackupId> = stuck.into_iter().filter_map(|removal| backup(removal)).collect();
    let (objects, held): (Vec<Removal>, Vec<Removal>) = plan
        .delete
        .objects
        .iter()
        .cloned()
        .partition(|removal| backup(removal).is_none_or(|id| !stuck.contains(id)));
    run.skip(held.len());
    let rest = run.delete("deleting backups", &objects).await;
    run.tell_rests(&rest);
    // The WAL that leads on from a backup goes after it.
    let is_guarded = gathered.needed.leads_on_from(&stuck);
    let (held, wal): (Vec<Removal>, Vec<Removal>) =
        plan.delete.wal.iter().cloned().partition(|removal| {
            run.version(removal.version).is_none_or(|version| is_guarded(&version.name))
        });
    run.skip(held.len());
    run.delete("deleting WAL", &wal).await;
    run.delete("deleting leftovers", &plan.delete.rest).await;
    run.outcome.interrupted = cancel.is_cancelled();
    run.outcome
}

/// Extends a lock. Where the server refuses the stronger mode, the lock is made longer all the
/// same, and the lock that it has then is the answer.
async fn extend(store: &Store, version: &Version, to: ObjectLock) -> Result<ObjectLock, StoreError> {
    match store.extend_lock(&version.name, &version.id, to).await {
        Err(error) => match store.lock_of(&version.name, &version.id).await {
            Ok(Some(lock)) if lock.until >= to.until && lock.mode != to.mode => Ok(lock),
            _ => Err(error),
        },
        done => done,
    }
}

fn backup(removal: &Removal) -> Option<&BackupId> {
    match &removal.why {
        Unneeded::ExpiredBackup { backup } => Some(backup),
        _ => None,
    }
}

impl<'a> Run<'a> {
    fn version(&self, index: usize) -> Option<&'a Version> {
        self.gathered.versions.get(index)
    }

    /// Whether the run should end here.
    fn is_over(&self) -> bool {
        self.cancel.is_cancelled() || self.refused >= FAILURES_MAX
    }

    fn skip(&mut self, steps: usize) {
        self.outcome.skipped += u64::try_from(steps).unwrap_or(u64::MAX);
    }

    async fn extend(&mut self, extensions: &[Extension]) {
        self.progress.begin("extending locks", Some(extensions.len()));
        let store = self.store;
        let steps =
            extensions.iter().filter_map(|extension| Some((self.version(extension.version)?, extension.to)));
        let steps: Vec<_> = steps.collect();
        let total = steps.len();
        let cancel = self.cancel.clone();
        let mut answers = stream::iter(steps)
            .take_while(|_| std::future::ready(!cancel.is_cancelled()))
            .map(|(version, to)| async move { (version, to, extend(store, version, to).await) })
            .buffer_unordered(self.requests);
        let mut seen = 0;
        let (mut weaker, mut first_weaker) = (0, String::new());
        while let Some((version, to, answer)) = answers.next().await {
            seen += 1;
            self.progress.advance();
            match answer {
                Ok(lock) => {
                    self.outcome.extended += 1;
                    if lock.mode != to.mode {
                        if weaker == 0 {
                            first_weaker.clone_from(&version.name);
                        }
                        weaker += 1;
                    }
                }
                // Another run was quicker, and knew better: it is not needed any more.
                Err(error) if error.is_absent() => {}
                Err(error) => {
                    self.outcome.fail("extend the lock of", &version.name, Some(&version.id), chain(&error))
                }
            }
        }
        drop(answers);
        self.skip(total - seen);
        if weaker > 0 {
            let error = format!(
                "the locks of {} are as long as they must be and keep their weaker mode: whoever runs wald expire \
                 needs the right to bypass governance, once",
                Count(weaker, "version")
            );
            self.outcome.fail("change the mode of locks, as of", &first_weaker, None, error);
        }
    }

    /// Backups that lost their entry, so that they are gone, and not all of their objects.
    fn tell_rests(&mut self, rest: &[&Removal]) {
        if self.is_over() {
            return;
        }
        let mut left: BTreeMap<&BackupId, u64> = BTreeMap::new();
        for id in rest.iter().filter_map(|removal| backup(removal)) {
            *left.entry(id).or_default() += 1;
        }
        for (id, count) in left {
            let error = format!(
                "its catalog entry is gone and {} of it could not be deleted, because of a legal hold perhaps",
                Count(count, "version")
            );
            self.outcome.fail("delete all of", &ObjectKey::backup_prefix(id), None, error);
        }
    }

    async fn heal(&mut self, markers: &[usize]) {
        for (done, index) in markers.iter().enumerate() {
            if self.cancel.is_cancelled() {
                return self.skip(markers.len() - done);
            }
            let Some(version) = self.version(*index) else { continue };
            match self.store.delete_version(&version.name, &version.id).await {
                Ok(_) => {
                    tracing::error!(
                        "{} is needed and was deleted by name: the delete marker is removed, find out who did it",
                        version.name
                    );
                    self.outcome.healed += 1;
                }
                Err(error) => {
                    self.outcome.fail(
                        "remove the delete marker of",
                        &version.name,
                        Some(&version.id),
                        chain(&error),
                    );
                }
            }
        }
    }

    async fn abort(&mut self, uploads: &[usize]) {
        for (done, index) in uploads.iter().enumerate() {
            if self.is_over() {
                return self.skip(uploads.len() - done);
            }
            let Some(upload) = self.gathered.uploads.get(*index) else { continue };
            match self.store.abort_pending(upload).await {
                Ok(()) => self.outcome.aborted += 1,
                Err(error) => self.outcome.fail("end the upload of", &upload.name, None, chain(&error)),
            }
        }
    }

    /// Deletes in this order, several at once, and returns what is still there.
    async fn delete<'r>(&mut self, what: &str, removals: &'r [Removal]) -> Vec<&'r Removal> {
        self.progress.begin(what, Some(removals.len()));
        let store = self.store;
        let steps: Vec<(&Removal, &Version)> =
            removals.iter().filter_map(|removal| Some((removal, self.version(removal.version)?))).collect();
        let mut left: BTreeSet<usize> = removals.iter().map(|removal| removal.version).collect();
        let cancel = self.cancel.clone();
        let over = self.is_over();
        let mut answers = stream::iter(steps)
            .take_while(|_| std::future::ready(!over && !cancel.is_cancelled()))
            .map(|(removal, version)| async move {
                (removal, version, store.delete_version(&version.name, &version.id).await)
            })
            .buffer_unordered(self.requests);
        let mut seen = 0;
        while let Some((removal, version, answer)) = answers.next().await {
            seen += 1;
            self.progress.advance();
            if self.note_deletion(version, answer) {
                left.remove(&removal.version);
            }
            if self.refused >= FAILURES_MAX {
                break;
            }
        }
        drop(answers);
        self.skip(removals.len() - seen);
        removals.iter().filter(|removal| left.contains(&removal.version)).collect()
    }

    /// Whether the version is gone.
    fn note_deletion(&mut self, version: &Version, answer: Result<Deletion, StoreError>) -> bool {
        match answer {
            Ok(Deletion::Deleted) => {
                self.outcome.deleted += 1;
                self.outcome.deleted_bytes = self.outcome.deleted_bytes.saturating_add(version.size_bytes);
                true
            }
            Ok(Deletion::Locked) => {
                self.outcome.locked += 1;
                false
            }
            Err(error) => {
                self.refused += 1;
                self.outcome.fail("delete", &version.name, Some(&version.id), chain(&error));
                false
            }
        }
    }
}
