//! Objects in parts: an upload is there whole, or not at all.

use super::{Front, MIB, key, noise, run};
use anyhow::Result;
use bytes::Bytes;
use futures::future::join_all;
use std::time::{Duration, Instant};
use wald::store::{Store, StoreError};
use wald_core::object_key::ObjectKey;
use wald_integration::fault_proxy::{Failure, Fault, Requests, When};

/// A part and a bit.
const BYTES: usize = 8 * MIB + 100_000;

async fn upload(store: &Store, key: &ObjectKey, bytes: &Bytes) -> Result<u64, StoreError> {
    let mut upload = store.upload(key).await?;
    upload.put_part(bytes.clone()).await?;
    upload.finish().await
}

/// What holds whatever the upload said: it is there whole if it said so, and it is never there in
/// part. An error may hide a success, whose answer was lost.
fn is_told_truly(
    front: &Front,
    key: &ObjectKey,
    bytes: &Bytes,
    told: &Result<u64, StoreError>,
) -> Result<()> {
    match told {
        Ok(stored) => {
            assert_eq!(*stored, bytes.len() as u64);
            front.holds_once(key, bytes)
        }
        Err(error) => {
            assert!(!error.is_absent(), "{error:?}");
            let stored = front.stored(key)?;
            assert!(stored.is_none_or(|stored| stored == *bytes), "{key} is there in part");
            Ok(())
        }
    }
}

/// A fault in the way of one upload.
type Case = (Requests, When, Fault);

/// Sets up a fault for each case's own key, and tries all uploads side by side: most of the time
/// is spent waiting. What each was told is true, and is given back.
fn upload_all(
    front: &Front,
    store: &Store,
    bytes: &Bytes,
    cases: &[Case],
) -> Result<Vec<(ObjectKey, Result<u64, StoreError>)>> {
    let keys: Vec<ObjectKey> = (0..cases.len()).map(|number| key(&format!("case-{number:02}"))).collect();
    for (key, (requests, when, fault)) in keys.iter().zip(cases) {
        front.proxy.add(requests.clone().path(key.as_str()), *when, fault.clone());
    }
    let told = run(join_all(keys.iter().map(|key| upload(store, key, bytes))));
    for (key, told) in keys.iter().zip(&told) {
        let met =
            front.proxy.seen().iter().any(|seen| seen.path.contains(key.as_str()) && seen.fault.is_some());
        assert!(met, "{key} met no fault");
        is_told_truly(front, key, bytes, told)?;
    }
    Ok(keys.into_iter().zip(told).collect())
}

#[test]
fn an_upload_survives_what_passes() -> Result<()> {
    let front = Front::open("passing")?;
    let error = |carried_out| Fault::OkWithError { code: "InternalError", carried_out };
    let cases = [
        (Requests::beginnings(), When::First(1), Fault::Answer(Failure::SLOW_DOWN)),
        (Requests::beginnings(), When::First(1), Fault::AnswerAfter(Failure::SLOW_DOWN)),
        (Requests::parts(), When::First(3), Fault::Answer(Failure::SLOW_DOWN)),
        (Requests::parts(), When::First(2), Fault::CutAfter),
        (Requests::parts(), When::First(1), Fault::CutRequest(50_000)),
        (Requests::parts(), When::Every(2), Fault::AnswerAfter(Failure::INTERNAL_ERROR)),
        (Requests::completions(), When::First(1), Fault::Answer(Failure::SLOW_DOWN)),
        (Requests::completions(), When::First(1), Fault::AnswerAfter(Failure::SLOW_DOWN)),
        (Requests::completions(), When::First(1), Fault::CutAfter),
        (Requests::completions(), When::First(1), Fault::CutBefore),
        (Requests::completions(), When::First(1), error(false)),
        (Requests::completions(), When::First(1), error(true)),
    ];
    for ((key, told), case) in upload_all(&front, &front.store, &noise(BYTES, 11), &cases)?.iter().zip(&cases)
    {
        assert!(told.is_ok(), "{key} {case:?}: {told:?}");
    }
    Ok(())
}

#[test]
fn an_upload_that_can_not_end_leaves_nothing_and_a_later_one_succeeds() -> Result<()> {
    let front = Front::open("lasting")?;
    let bytes = noise(BYTES, 12);
    let error = |code| Fault::OkWithError { code, carried_out: false };
    let expired = || Fault::Answer(Failure::EXPIRED_TOKEN);
    let cases = [
        (Requests::beginnings(), When::Always, Fault::Answer(Failure::SLOW_DOWN)),
        (Requests::beginnings(), When::Always, Fault::Page(200)),
        // A part that fails for ever, and one whose bytes never arrive whole.
        (Requests::parts(), When::After(1), Fault::Answer(Failure::INTERNAL_ERROR)),
        (Requests::parts(), When::After(1), Fault::CutRequest(50_000)),
        (Requests::parts(), When::After(1), Fault::Page(200)),
        // Credentials that expire in mid-upload: whatever comes after is refused, the abort too.
        (Requests::all().with("uploadId"), When::After(1), expired()),
        (Requests::completions(), When::Always, expired()),
        (Requests::completions(), When::Always, Fault::Answer(Failure::CONFLICT)),
        (Requests::completions(), When::Always, Fault::Answer(Failure::PRECONDITION_FAILED)),
        // A 200 with an error inside, of the kind that is tried again and of one that is not.
        (Requests::completions(), When::Always, error("InternalError")),
        (Requests::completions(), When::Always, error("InvalidPart")),
        (Requests::completions(), When::Always, Fault::Page(200)),
        (Requests::completions(), When::Always, Fault::CutBefore),
    ];
    let told = upload_all(&front, &front.hasty, &bytes, &cases)?;
    for ((key, told), case) in told.iter().zip(&cases) {
        assert!(told.is_err(), "{key} {case:?} succeeded");
        let refused = matches!(told, Err(StoreError::Refused { .. }));
        assert_eq!(refused, case.2 == expired(), "{key} {case:?}: {told:?}");
        assert_eq!(front.stored(key)?, None, "{key} {case:?}");
    }
    front.proxy.clear();
    for told in run(join_all(told.iter().map(|(key, _)| upload(&front.store, key, &bytes)))) {
        assert_eq!(told?, bytes.len() as u64);
    }
    told.iter().try_for_each(|(key, _)| front.holds_once(key, &bytes))
}

#[test]
fn an_upload_that_is_done_though_its_end_says_otherwise_is_found_done() -> Result<()> {
    let front = Front::open("done-all-the-same")?;
    let cases = [
        Fault::CutAfter,
        Fault::CutAnswer(10),
        Fault::AnswerAfter(Failure::CONFLICT),
        Fault::AnswerAfter(Failure::PRECONDITION_FAILED),
        Fault::AnswerAfter(Failure::EXPIRED_TOKEN),
        Fault::OkWithError { code: "InvalidPart", carried_out: true },
    ]
    .map(|fault| (Requests::completions(), When::Always, fault));
    for ((key, told), case) in upload_all(&front, &front.hasty, &noise(BYTES, 13), &cases)?.iter().zip(&cases)
    {
        assert!(told.is_ok(), "{key} {case:?}: {told:?}");
    }
    Ok(())
}

#[test]
fn an_upload_whose_beginning_was_not_answered_begins_anew() -> Result<()> {
    let front = Front::open("unanswered")?;
    let (key, bytes) = (key("unanswered"), noise(1000, 15));
    front.proxy.add(Requests::beginnings(), When::First(1), Fault::StallAfter);
    run(upload(&front.impatient, &key, &bytes))?;
    assert_eq!(front.proxy.injected(), 1);
    front.holds_once(&key, &bytes)
}

#[test]
fn an_upload_that_fails_is_aborted() -> Result<()> {
    let front = Front::open("aborted")?;
    front.proxy.add(Requests::parts(), When::After(1), Fault::Answer(Failure::INTERNAL_ERROR));
    run(async {
        let failed = upload(&front.hasty, &key("aborted"), &noise(BYTES, 14)).await;
        assert!(failed.is_err());
        let deadline = Instant::now() + Duration::from_secs(20);
        while front.unfinished_uploads()? > 0 {
            assert!(Instant::now() < deadline, "the upload stays");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    })
}
