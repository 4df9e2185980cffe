//! What the bucket and its server are set up for: clock, versions, object lock.

use super::check::Run;
use super::report::Verdict;
use crate::store::{BucketLock, StoreError, Versioning};
use jiff::{SignedDuration, Timestamp};
use wald_core::object_lock::LockPolicy;

/// More is told: times in logs and listings don't fit together.
const SKEW_NOTED: SignedDuration = SignedDuration::from_secs(5);
/// More is bad: locks are counted from this host's clock, and S3 refuses requests at 15 minutes.
const SKEW_MAX: SignedDuration = SignedDuration::from_mins(5);

/// How this host's clock stands to the server's.
pub(super) async fn clock(run: &mut Run<'_>) {
    let asked = Timestamp::now();
    // Whatever is wrong with the server is told by the steps that follow.
    let Ok(Some(server)) = run.store.server_time().await else { return };
    let answered = Timestamp::now();
    // The server's time is in whole seconds, and was taken somewhere between.
    let ahead = asked.duration_since(server) - SignedDuration::from_secs(1);
    let behind = server.duration_since(answered);
    let skew = ahead.max(behind).max(SignedDuration::ZERO);
    let whole = skew.as_secs();
    let direction = if ahead > behind { "ahead of" } else { "behind" };
    if skew > SKEW_MAX {
        run.report.add(
            Verdict::Bad,
            format!(
                "this host's clock is {whole} s {direction} the server's (allowed: {} s): locks would end at \
                 the wrong time, and S3 refuses requests at 900 s; set the clock (chrony, systemd-timesyncd)",
                SKEW_MAX.as_secs()
            ),
        );
    } else if skew > SKEW_NOTED {
        run.report.add(Verdict::Note, format!("this host's clock is {whole} s {direction} the server's"));
    } else {
        let text = format!("this host's clock agrees with the server's within {} s", SKEW_NOTED.as_secs());
        run.report.add(Verdict::Good, text);
    }
}

/// Versions and object lock of the bucket, against what the configuration asks for.
pub(super) async fn settings(run: &mut Run<'_>) {
    let policy = run.store.lock_policy();
    match (run.store.versioning().await, policy) {
        (Ok(Versioning::On), _) => run.report.add(Verdict::Good, "keeps every version of an object"),
        (Ok(Versioning::NotOffered), None) => {}
        (Ok(state), Some(_)) => {
            let state = match state {
                Versioning::Suspended => "has versioning suspended",
                _ => "does not keep versions of objects",
            };
            run.report.add(
                Verdict::Bad,
                format!("{state}, without which nothing can be locked; {}", how_to(&run.bucket())),
            );
        }
        (Ok(_), None) => run.report.add(
            Verdict::Note,
            "does not keep versions of objects: what is deleted or written over by others is gone",
        ),
        (Err(error @ StoreError::Refused { .. }), _) => {
            run.report.unknown("whether it keeps versions can't be asked (s3:GetBucketVersioning)", &error);
        }
        (Err(error), _) => run.report.failed("can't say whether it keeps versions", &error),
    }
    match (run.store.lock_configuration().await, policy) {
        (Ok(BucketLock::On { default }), Some(policy)) => lockable(run, default, policy),
        (Ok(BucketLock::On { .. }), None) => run.report.add(
            Verdict::Note,
            "could lock objects, and repository.lock.mode = \"none\": whoever has the keys can delete the backups",
        ),
        (Ok(BucketLock::NotOffered), None) => {}
        (Ok(BucketLock::Off), None) => run.report.add(
            Verdict::Note,
            "can't lock objects, as configured: whoever has the keys can delete the backups",
        ),
        (Ok(BucketLock::Off | BucketLock::NotOffered), Some(_)) => {
            let text = format!("has no object lock, which repository.lock asks for; {}", how_to(&run.bucket()));
            run.report.add(Verdict::Bad, text);
        }
        (Err(error @ StoreError::Refused { .. }), _) => run.report.unknown(
            "whether it can lock objects can't be asked (s3:GetBucketObjectLockConfiguration); it is tried below",
            &error,
        ),
        (Err(error), _) => run.report.failed("can't say whether it can lock objects", &error),
    }
}

fn lockable(run: &mut Run<'_>, default: Option<LockPolicy>, policy: LockPolicy) {
    let own = match default {
        None => "objects get what wald asks for".to_owned(),
        Some(default) => {
            format!("objects that ask for nothing get {} for {} days", default.mode, default.days)
        }
    };
    let text = format!("can lock objects; {own}; wald asks for {} for {} days", policy.mode, policy.days);
    run.report.add(Verdict::Good, text);
    if default.is_some_and(|default| default.days > policy.days) {
        run.report.add(
            Verdict::Note,
            "the bucket's own default lock is longer than wald's: what this check leaves behind stays as long",
        );
    }
}

fn how_to(bucket: &str) -> String {
    format!(
        "make a bucket with `aws s3api create-bucket --bucket {bucket} --object-lock-enabled-for-bucket`, or \
         set repository.lock.mode = \"none\" and do without"
    )
}

impl Run<'_> {
    fn bucket(&self) -> String {
        let place = self.store.describe();
        let rest = place.strip_prefix("s3://").unwrap_or(place);
        rest.split('/').next().unwrap_or(rest).to_owned()
    }
}
