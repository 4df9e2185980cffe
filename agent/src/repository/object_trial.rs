//! What the server does with objects: storing, reading, "only if absent", checksums, parts, lists.

use super::check::{Purpose, Run};
use super::report::{CheckReport, Verdict};
use crate::store::{Created, Flaw, Guarantees, Store, StoreError, VersionId};
use bytes::Bytes;
use futures::TryStreamExt;
use futures::future::join_all;
use wald_core::object_key::{ObjectKey, ObjectKeyError};

/// Creators of one object at the same time, of whom one may win.
const RIVALS: u8 = 16;
/// The body of the objects that are tried with: small, and larger than a sealed header.
const BODY_BYTES: usize = 8 << 10;
/// Large enough that the others have begun while it is sent; small enough to be tried at any time.
const LARGE_BODY_BYTES: usize = 256 << 10;
/// So many times they come at once: one race that went well may have been no race.
const RACES: usize = 3;

pub(super) fn body(first: u8) -> Bytes {
    pattern(first, BODY_BYTES)
}

pub(super) fn large_body(first: u8) -> Bytes {
    pattern(first, LARGE_BODY_BYTES)
}

fn pattern(first: u8, bytes: usize) -> Bytes {
    [first, 0, 0xff, b'\n', b'<'].repeat(bytes.div_ceil(5)).into()
}

impl Run<'_> {
    /// The store as it answers by itself: without wald's own care, and without locks, so that what
    /// is tried with can be removed.
    pub(super) fn bare(&self) -> Store {
        self.store.with_guarantees(Guarantees::all()).unlocked()
    }
}

/// Whether the server tells a missing object from one that it does not show.
pub(super) async fn absence(run: &mut Run<'_>) -> Result<(), ObjectKeyError> {
    let key = run.names.key("absent")?;
    match run.store.with_guarantees(run.known()).get(&key, 1).await {
        Err(error) if error.is_absent() => {
            run.report.add(Verdict::Good, "says clearly that an object is absent");
        }
        Err(error @ StoreError::Refused { .. }) => run.report.failed(
            "can't say that an object is absent (S3 does so only to who has s3:ListBucket on the bucket), \
             so that a recovery can't find the end of the WAL",
            &error,
        ),
        Err(error) => run.report.failed("can't say that an object is absent", &error),
        Ok(_) => run.report.add(
            Verdict::Bad,
            format!("returned an object that nobody stored, {key}; is this an S3 server?"),
        ),
    }
    Ok(())
}

/// Whether objects can be stored and read.
pub(super) async fn single(run: &mut Run<'_>) -> Result<bool, ObjectKeyError> {
    let (store, key) = (run.bare(), run.names.key("single")?);
    let report = &mut run.report;
    match store.create(&key, body(1).into()).await {
        Ok(Created::Stored) => report.add(Verdict::Good, "stores objects"),
        Ok(Created::Exists) => {
            report
                .add(Verdict::Bad, "refuses to store an object as existing already, which was never stored");
            return Ok(false);
        }
        Err(error @ StoreError::Refused { .. }) if run.purpose == Purpose::Expire => {
            let text = "can't store objects (s3:PutObject), which retention needs for its own records only";
            report.unknown(text, &error);
            return Ok(false);
        }
        Err(error) => {
            report.failed("can't store objects (s3:PutObject)", &error);
            return Ok(false);
        }
    }
    read_back(&store, &key, &body(1), "returns what was stored", report).await;
    match store.get_start(&key, 64).await {
        Ok(start) if body(1).starts_with(&start) && start.len() == 64 => {
            report.add(Verdict::Good, "returns a part of an object");
        }
        Ok(_) => report.add(Verdict::Bad, "returns something else when asked for a part of an object"),
        Err(error) => report.failed("can't return a part of an object", &error),
    }
    Ok(true)
}

pub(super) async fn read_back(
    store: &Store,
    key: &ObjectKey,
    expected: &Bytes,
    good: &str,
    report: &mut CheckReport,
) -> bool {
    let bytes_max = u64::try_from(expected.len()).unwrap_or(u64::MAX);
    match store.get(key, bytes_max).await {
        Ok(found) if found == *expected => {
            report.add(Verdict::Good, good);
            return true;
        }
        Ok(_) => report.add(Verdict::Bad, format!("returned other bytes than were stored as {key}")),
        Err(error) if error.is_absent() => {
            report.add(Verdict::Bad, format!("says that {key} is absent right after it was stored"));
        }
        Err(error) => report.failed("can't return what was stored (s3:GetObject)", &error),
    }
    false
}

/// Whether "only if absent" holds: one after the other, and of many at once. Where the server
/// does not keep it, whether wald's own care makes up for that.
pub(super) async fn create_only(run: &mut Run<'_>) -> Result<(), ObjectKeyError> {
    let bare = run.bare();
    let single = run.names.key("single")?;
    let alone = match overwriting(&bare, &single).await {
        Ok(problem) => problem,
        Err(error) => {
            run.report.failed("fails when asked to store an object that exists", &error);
            return Ok(());
        }
    };
    let many = match races(run).await? {
        Ok(problem) => problem,
        Err((what, error)) => {
            run.report.failed(what, &error);
            return Ok(());
        }
    };
    run.seen.create_only = Some(alone.is_none() && many.is_none());
    let problems: Vec<&str> = alone.into_iter().chain(many).collect();
    if problems.is_empty() {
        run.report.add(Verdict::Good, "refuses to overwrite an object");
        let good = format!("lets one of {RIVALS} win that create the same object at once");
        run.report.add(Verdict::Good, good);
        return Ok(());
    }
    let problems = problems.join("; and it ");
    if careful_is_right(run).await? {
        let text = format!("{problems}; wald takes care of that itself, as told below");
        run.report.add(Verdict::Note, text);
    } else {
        run.report.add(
            Verdict::Bad,
            format!(
                "{problems}; wald can take care of that only where versions are kept and may be listed \
                 (s3:ListBucketVersions): use such a bucket, or a store that enforces it"
            ),
        );
    }
    Ok(())
}

/// What is wrong with the outcome of several races, if anything; `Err` where that can't be said.
/// They run as in earnest: with the size, the lock and the checksum of a segment.
async fn races(
    run: &mut Run<'_>,
) -> Result<Result<Option<&'static str>, (&'static str, StoreError)>, ObjectKeyError> {
    for race in 0..RACES {
        let key = run.names.key(&format!("contested-{race}"))?;
        let locking = if run.seen.lock_on_put == Some(true) { run.briefly_locking().await } else { None };
        let store = locking.map_or_else(|| run.bare(), |(store, _)| store);
        let contest = match contest(&store, &key, large_body).await {
            Ok(contest) => contest,
            Err(error) => {
                return Ok(Err(("can't return what was stored by one of several at the same time", error)));
            }
        };
        match contest.problem() {
            Some(problem) => return Ok(Ok(Some(problem))),
            None => {
                if let Some(error) = contest.failure {
                    return Ok(Err(("can't store objects at the same time", error)));
                }
            }
        }
    }
    Ok(Ok(None))
}

const OVERWRITES: &str = "overwrites objects although told not to (it ignores \"If-None-Match: *\"), so that a \
                          second cluster could destroy the WAL of the first";
const RACE_LOST: &str = "told several that create the same object at once that each had succeeded, so that one of \
                         them would report WAL as archived that is not";
const SHADOWED: &str = "told one of several that create the same object at once that it had succeeded, and returns \
                        what another had sent";
const NO_WINNER: &str =
    "told each of several that create the same object at once that another had created it";

/// Whether wald's own care keeps what the server does not. Whoever writes without that care can
/// still write over an object; a second wald can't.
async fn careful_is_right(run: &Run<'_>) -> Result<bool, ObjectKeyError> {
    let careful = run.store.with_guarantees(Guarantees::none()).unlocked();
    let (single, contested) = (run.names.key("careful-single")?, run.names.key("careful-contested")?);
    let stored = careful.create(&single, body(1).into()).await;
    if !matches!(stored, Ok(Created::Stored)) {
        return Ok(false);
    }
    // A rival leaves no trace where no versions are kept.
    let versions: Result<Vec<_>, _> = careful.versions(single.as_str()).try_collect().await;
    let kept = versions.is_ok_and(|all| all.iter().any(|one| one.version != VersionId::null()));
    let alone = matches!(overwriting(&careful, &single).await, Ok(None));
    let many = contest(&careful, &contested, body).await;
    Ok(kept && alone && many.is_ok_and(|contest| contest.is_right_with_care()))
}

/// What is wrong with a second creation under the same name, if anything.
async fn overwriting(store: &Store, key: &ObjectKey) -> Result<Option<&'static str>, StoreError> {
    match store.create(key, body(2).into()).await? {
        Created::Stored => Ok(Some(OVERWRITES)),
        Created::Exists => {
            let kept = store.get(key, u64::try_from(body(1).len()).unwrap_or(u64::MAX)).await? == body(1);
            Ok((!kept).then_some("says that it refuses to overwrite an object, and does it"))
        }
    }
}

/// How [`RIVALS`] fared who create the same object at once.
struct Contest {
    winners: usize,
    /// Who were told that it exists.
    losers: usize,
    /// Who were told that others have written it at the same time.
    contested: usize,
    /// What a read gives, where one won.
    returns_winner: bool,
    /// One that was told neither.
    failure: Option<StoreError>,
}

impl Contest {
    /// What the server got wrong. Without an answer to each it may be nothing and yet unproven; see
    /// `failure`.
    fn problem(&self) -> Option<&'static str> {
        match self.winners {
            0 if self.losers == usize::from(RIVALS) => Some(NO_WINNER),
            1 if !self.returns_winner => Some(SHADOWED),
            0 | 1 => None,
            _ => Some(RACE_LOST),
        }
    }

    /// Nobody may win where two came at once: each is told, and tries again.
    fn is_right_with_care(&self) -> bool {
        let told = self.winners + self.losers + self.contested == usize::from(RIVALS);
        told && self.winners <= 1 && self.winners + self.contested > 0
    }
}

/// A store may refuse the second of two and still let several through at once.
async fn contest(store: &Store, key: &ObjectKey, body: fn(u8) -> Bytes) -> Result<Contest, StoreError> {
    let rivals = (0..RIVALS).map(|rival| async move { (rival, store.create(key, body(rival).into()).await) });
    let mut winners = Vec::new();
    let (mut losers, mut contested, mut failure) = (0, 0, None);
    for (rival, outcome) in join_all(rivals).await {
        match outcome {
            Ok(Created::Stored) => winners.push(rival),
            Ok(Created::Exists) => losers += 1,
            Err(StoreError::Contested { .. }) => contested += 1,
            Err(error) => failure = Some(error),
        }
    }
    let returns_winner = match winners.as_slice() {
        [winner] => {
            let expected = body(*winner);
            store.get(key, u64::try_from(expected.len()).unwrap_or(u64::MAX)).await? == expected
        }
        _ => false,
    };
    Ok(Contest { winners: winners.len(), losers, contested, returns_winner, failure })
}

/// Whether bodies that are not what their headers say are refused.
pub(super) async fn checksums(run: &mut Run<'_>) -> Result<(), ObjectKeyError> {
    let store = run.bare();
    for (flaw, name, what) in [
        (Flaw::Checksum, "checksum", "a body whose checksum (x-amz-checksum-*) is wrong"),
        (Flaw::Signature, "signature", "a body that is not the one that was signed"),
    ] {
        let key = run.names.key(name)?;
        let refused = match store.refuses(&key, flaw).await {
            Ok(refused) => refused,
            Err(error) => {
                run.report.failed(&format!("can't be tried with {what}"), &error);
                continue;
            }
        };
        match flaw {
            Flaw::Checksum => run.seen.checksums = Some(refused),
            Flaw::Signature => run.seen.signed_payload = Some(refused),
        }
        if refused {
            run.report.add(Verdict::Good, format!("refuses {what}"));
        } else {
            run.report.add(Verdict::Note, format!("takes {what}"));
        }
    }
    Ok(())
}

/// Uploads in parts, and whether their completion is exclusive: no promise rests on that.
pub(super) async fn parts(run: &mut Run<'_>) -> Result<(), ObjectKeyError> {
    let (store, key) = (run.bare(), run.names.key("parts")?);
    match upload(&store, &key, body(3)).await {
        Ok(_) => {
            let good = "takes uploads in parts, as for base backups";
            read_back(&store, &key, &body(3), good, &mut run.report).await;
        }
        Err(error) => run.report.failed("can't take uploads in parts, as for base backups", &error),
    }
    Ok(())
}

pub(super) async fn upload(store: &Store, key: &ObjectKey, body: Bytes) -> Result<u64, StoreError> {
    let mut upload = store.upload(key).await?;
    upload.put_part(body).await?;
    upload.finish().await
}

/// Lists of what was just stored.
pub(super) async fn listing(run: &mut Run<'_>) -> Result<(), ObjectKeyError> {
    let single = run.names.key("single")?;
    let listed = run.store.list(&run.names.prefix).map_ok(|object| object.name).try_collect::<Vec<_>>().await;
    match listed {
        Ok(listed) if listed.iter().any(|name| name == single.as_str()) => {
            run.report.add(Verdict::Good, "lists what is stored");
        }
        Ok(_) => run.report.add(Verdict::Bad, format!("does not list {single}, which was just stored")),
        Err(error) => run.report.failed("can't list objects (s3:ListBucket)", &error),
    }
    let versions =
        run.store.versions(&run.names.prefix).map_ok(|version| version.name).try_collect::<Vec<_>>().await;
    match versions {
        Ok(listed) if listed.iter().any(|name| name == single.as_str()) => {
            run.report.add(Verdict::Good, "lists the versions of what is stored");
        }
        Ok(_) => run.report.add(Verdict::Bad, format!("lists no version of {single}, which was just stored")),
        // Retention can't do without it, nor can wald's care on a store that overwrites.
        Err(error @ StoreError::Refused { .. })
            if run.purpose == Purpose::Archive && run.seen.create_only == Some(true) =>
        {
            let text = "can't list versions (s3:ListBucketVersions), which `wald expire` needs to";
            run.report.unknown(text, &error);
        }
        Err(error) => run.report.failed("can't list versions (s3:ListBucketVersions)", &error),
    }
    Ok(())
}

/// For who only reads: whether anything can be listed.
pub(super) async fn listing_at_all(run: &mut Run<'_>) {
    match run.store.list(ObjectKey::CATALOG_PREFIX).try_collect::<Vec<_>>().await {
        Ok(found) => {
            run.report
                .add(Verdict::Good, format!("lists objects; there are {} catalog entries", found.len()));
        }
        Err(error) => run.report.failed("can't list objects (s3:ListBucket)", &error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contest(winners: usize, losers: usize, contested: usize, returns_winner: bool) -> Contest {
        Contest { winners, losers, contested, returns_winner, failure: None }
    }

    #[test]
    fn a_race_is_good_with_one_winner_whose_bytes_are_returned() {
        assert_eq!(contest(1, 15, 0, true).problem(), None);
        assert_eq!(contest(1, 15, 0, false).problem(), Some(SHADOWED));
        assert_eq!(contest(2, 14, 0, false).problem(), Some(RACE_LOST));
        assert_eq!(contest(0, 16, 0, false).problem(), Some(NO_WINNER));
    }

    #[test]
    fn care_is_right_if_all_are_told_and_somebody_won_or_knows_of_the_others() {
        assert!(contest(1, 15, 0, true).is_right_with_care());
        assert!(contest(0, 0, 16, false).is_right_with_care());
        assert!(!contest(0, 16, 0, false).is_right_with_care());
        assert!(!contest(1, 3, 0, true).is_right_with_care());
        assert!(!contest(2, 0, 14, false).is_right_with_care());
    }

    #[tokio::test]
    async fn a_race_in_which_somebody_got_no_answer_proves_nothing() {
        use crate::store::Operation;
        use crate::store::fault::{Fault, Faults};
        let faults = Faults::none();
        let store = Store::memory().with_faults(&faults);
        let key = ObjectKey::check("race").unwrap();
        faults.once(Operation::Create, Fault::Unreachable);
        let found = super::contest(&store, &key, body).await.unwrap();
        assert_eq!((found.winners, found.losers, found.problem()), (1, 14, None));
        assert!(found.failure.is_some() && !found.is_right_with_care());
    }
}
