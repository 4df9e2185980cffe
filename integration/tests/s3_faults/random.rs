//! Faults of every kind at random, from a seed.

use super::{Front, MIB, key, noise, run};
use anyhow::Result;
use futures::StreamExt;
use std::time::Duration;
use wald::store::Created;
use wald_integration::fault_proxy::{Failure, Fault, Requests, When};

/// Those of them that a later try can get past. Each meets this many of a thousand requests.
const PER_MILLE: u64 = 25;

fn faults() -> [Fault; 10] {
    [
        Fault::CutBefore,
        Fault::CutAfter,
        Fault::CutRequest(100),
        Fault::CutAnswer(1),
        Fault::Answer(Failure::SLOW_DOWN),
        Fault::AnswerAfter(Failure::INTERNAL_ERROR),
        Fault::Answer(Failure::CONFLICT),
        Fault::Answer(Failure::PRECONDITION_FAILED),
        Fault::Page(404),
        Fault::Delay(Duration::from_millis(30)),
    ]
}

#[test]
fn whatever_fails_at_random_what_is_acknowledged_is_there_once() -> Result<()> {
    for seed in 1..=2 {
        let front = Front::open(&format!("random-{seed}"))?;
        for (number, fault) in (1..).zip(faults()) {
            let when = When::Share { seed: seed * 100 + number, per_mille: PER_MILLE };
            front.proxy.add(Requests::all(), when, fault);
        }
        let acknowledged: Vec<(u64, bool)> = run(futures::stream::iter(0..50_u64)
            .map(|number| {
                let store = front.store.clone();
                async move {
                    let (key, bytes) = (key(&format!("{number}")), noise(100_000, number));
                    let done = match store.create(&key, bytes.clone().into()).await {
                        Ok(Created::Stored) => true,
                        // A read that fails, or an absence, is no proof.
                        Ok(Created::Exists) => {
                            store.get(&key, 100_000).await.is_ok_and(|stored| stored == bytes)
                        }
                        Err(error) => {
                            assert!(!error.is_absent(), "{error:?}");
                            false
                        }
                    };
                    (number, done)
                }
            })
            .buffer_unordered(8)
            .collect());
        assert!(front.proxy.injected() > 10, "{} faults", front.proxy.injected());
        let done = acknowledged.iter().filter(|(_, done)| *done).count();
        assert!(done > 25, "only {done} of 50 were acknowledged");
        for (number, done) in acknowledged {
            let (key, bytes) = (key(&format!("{number}")), noise(100_000, number));
            if done {
                front.holds_once(&key, &bytes)?;
            } else {
                assert!(front.stored(&key)?.is_none_or(|stored| stored == bytes), "seed {seed}, {key}");
            }
        }
        uploads(&front, seed)?;
        every_try_was_conditional_and_checked(&front, done);
    }
    Ok(())
}

/// What protects an object is in every try of a request, the tenth as the first. Nothing was
/// acknowledged without one.
fn every_try_was_conditional_and_checked(front: &Front, acknowledged: usize) {
    let seen = front.proxy.seen();
    let written: Vec<_> = seen.iter().filter(|seen| seen.method == "PUT").collect();
    assert!(written.len() >= acknowledged, "{} tries for {acknowledged} objects", written.len());
    for seen in written {
        let is_part = seen.query.contains("partNumber=");
        assert!(is_part || seen.header("if-none-match") == Some("*"), "{seen:?}");
        assert!(seen.headers.iter().any(|(name, _)| name.starts_with("x-amz-checksum-")), "{seen:?}");
        assert!(seen.header("x-amz-content-sha256").is_some_and(|hash| hash.len() == 64), "{seen:?}");
    }
}

fn uploads(front: &Front, seed: u64) -> Result<()> {
    for number in 0..2 {
        let (key, bytes) = (key(&format!("upload-{number}")), noise(9 * MIB, seed + number));
        let told = run(async {
            let mut upload = front.store.upload(&key).await?;
            upload.put_part(bytes.clone()).await?;
            upload.finish().await
        });
        match told {
            Ok(_) => front.holds_once(&key, &bytes)?,
            Err(error) => {
                assert!(!error.is_absent(), "{error:?}");
                assert!(front.stored(&key)?.is_none_or(|stored| stored == bytes), "seed {seed}, {key}");
            }
        }
    }
    Ok(())
}
