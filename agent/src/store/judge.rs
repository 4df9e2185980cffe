//! Reading an error of object_store in the light of what stands behind it: the one place that
//! decides between absent, unreachable, refused and misconfigured.

use super::backend::{Inner, Kind};
use super::bucket::{self, BucketLock};
use super::directory::Directory;
use super::error::{Cause, Operation, StoreError, io_error};
use super::s3_answer::{S3Verdict, answer_verdict, s3_verdict, transport_verdict};
use super::s3_requests::{S3Failure, S3Requests};
use super::versions::VersionId;
use std::io;
use std::path::PathBuf;

/// What a policy of locks asks for and such a bucket can't give.
const NO_OBJECT_LOCK: &str = "new objects are to be locked, and the bucket was made without object lock; make \
    a bucket with object lock (which brings versioning), or set [repository.lock] mode = \"none\" and do without";

/// Servers refuse a lock in a bucket without object lock in words that say anything or nothing.
async fn can_not_lock(inner: &Inner, requests: &S3Requests) -> bool {
    let told = bucket::lock_configuration(inner, requests).await;
    matches!(told, Ok(BucketLock::Off | BucketLock::NotOffered))
}

impl Inner {
    /// Reads an error of object_store in the light of what stands behind it.
    pub(super) async fn error(
        &self,
        operation: Operation,
        subject: &str,
        error: &object_store::Error,
    ) -> StoreError {
        let asked_for_one = matches!(operation, Operation::Read | Operation::Stat | Operation::Delete);
        let not_found = asked_for_one && matches!(error, object_store::Error::NotFound { .. });
        match &self.kind {
            Kind::Memory if not_found && error.to_string().contains("No data in memory found") => {
                self.absent(subject)
            }
            Kind::Directory(_) if not_found => {
                let proof = |directory: Directory, file: PathBuf| directory.prove_absent(&file);
                match self.on_directory(operation, subject, proof).await {
                    Ok(()) => self.absent(subject),
                    Err(doubt) => doubt,
                }
            }
            Kind::Directory(_) => match io_error(error) {
                Some(io) if io.kind() == io::ErrorKind::PermissionDenied => {
                    self.refused(operation, subject, Cause::of(error, &self.secrets))
                }
                _ => self.unreachable(operation, subject, Cause::of(error, &self.secrets)),
            },
            Kind::Memory => self.unreachable(operation, subject, Cause::of(error, &self.secrets)),
            Kind::S3(requests) => {
                if self.lock.is_some()
                    && matches!(operation, Operation::Create | Operation::Upload)
                    && s3_verdict(error) == S3Verdict::Invalid
                    && can_not_lock(self, requests).await
                {
                    let cause = Cause::of(error, &self.secrets);
                    return self.judged(operation, subject, S3Verdict::NoObjectLock, cause);
                }
                self.s3_error(operation, subject, asked_for_one, error)
            }
        }
    }

    fn s3_error(
        &self,
        operation: Operation,
        subject: &str,
        asked_for_one: bool,
        error: &object_store::Error,
    ) -> StoreError {
        let cause = Cause::of(error, &self.secrets);
        match s3_verdict(error) {
            S3Verdict::NoSuchKey if asked_for_one => self.absent(subject),
            verdict => self.judged(operation, subject, verdict, cause),
        }
    }

    /// Reads why one of wald's own requests to S3 was not answered as it should.
    pub(super) fn s3_failure(&self, operation: Operation, subject: &str, failure: &S3Failure) -> StoreError {
        match failure {
            S3Failure::Answered(answer) => {
                let code = answer.code();
                let cause = answer.cause(&self.secrets);
                match answer_verdict(answer.status.as_u16(), code.as_deref(), &answer.text()) {
                    S3Verdict::NoSuchKey | S3Verdict::NoSuchVersion if operation != Operation::List => {
                        self.absent(subject)
                    }
                    verdict => self.judged(operation, subject, verdict, cause),
                }
            }
            S3Failure::Transport(error) => {
                let verdict = transport_verdict(error);
                self.judged(operation, subject, verdict, Cause::of(error, &self.secrets))
            }
        }
    }

    fn judged(&self, operation: Operation, subject: &str, verdict: S3Verdict, cause: Cause) -> StoreError {
        match verdict {
            S3Verdict::DeleteMarked => self.deleted(subject),
            S3Verdict::Refused => self.refused(operation, subject, cause),
            S3Verdict::NoObjectLock => self.misconfigured(format!("{NO_OBJECT_LOCK} ({cause})")),
            S3Verdict::Misconfigured(problem) => self.misconfigured(format!("{problem} ({cause})")),
            _ => self.unreachable(operation, subject, cause),
        }
    }

    pub(super) fn deleted(&self, subject: &str) -> StoreError {
        StoreError::Deleted { subject: subject.to_owned(), repository: self.name.clone() }
    }

    fn misconfigured(&self, problem: String) -> StoreError {
        StoreError::Misconfigured { repository: self.name.clone(), problem }
    }

    pub(super) fn io_failure(&self, operation: Operation, subject: &str, error: &io::Error) -> StoreError {
        let cause = Cause::new(error.to_string());
        if error.kind() == io::ErrorKind::PermissionDenied {
            self.refused(operation, subject, cause)
        } else {
            self.unreachable(operation, subject, cause)
        }
    }

    pub(super) fn absent(&self, subject: &str) -> StoreError {
        StoreError::Absent { subject: subject.to_owned(), repository: self.name.clone() }
    }

    pub(super) fn unreachable(&self, operation: Operation, subject: &str, cause: Cause) -> StoreError {
        let (subject, repository) = (subject.to_owned(), self.name.clone());
        StoreError::Unreachable { operation, subject, repository, cause }
    }

    pub(super) fn refused(&self, operation: Operation, subject: &str, cause: Cause) -> StoreError {
        let (subject, repository) = (subject.to_owned(), self.name.clone());
        StoreError::Refused { operation, subject, repository, cause }
    }

    pub(super) fn bad_answer(&self, operation: Operation, subject: &str, problem: &str) -> StoreError {
        let (subject, repository, problem) = (subject.to_owned(), self.name.clone(), problem.to_owned());
        StoreError::BadAnswer { operation, subject, repository, problem }
    }

    pub(super) fn too_large(&self, subject: &str, size_bytes: u64, max_bytes: u64) -> StoreError {
        let (subject, repository) = (subject.to_owned(), self.name.clone());
        StoreError::TooLarge { subject, repository, size_bytes, max_bytes }
    }

    pub(super) fn contested(&self, subject: &str, ours: &VersionId, other: &VersionId) -> StoreError {
        StoreError::Contested {
            subject: subject.to_owned(),
            repository: self.name.clone(),
            ours: ours.clone(),
            other: other.clone(),
        }
    }

    pub(super) fn occupied(&self, subject: &str) -> StoreError {
        StoreError::Occupied { subject: subject.to_owned(), repository: self.name.clone() }
    }
}
