//! How fast recoveries on this host replay: measured from what the agent hands to them.

use super::{Observatory, repeat};
use crate::codec::aside;
use crate::explain::chain;
use crate::rates::{self, Phase};
use std::time::Duration;
use tokio::time::Instant;
use wald_core::rto::{MeasuredRate, ReplayMeter};

/// One number in memory is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

pub(super) async fn watch(at: Observatory) {
    let at = &at;
    let meter = std::sync::Mutex::new(ReplayMeter::default());
    let began = Instant::now();
    repeat(|| async {
        let bytes = at.metrics.restored_bytes_total();
        let measured = {
            let mut meter = meter.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            meter.look(began.elapsed(), bytes)
        };
        let rate = measured.and_then(|(bytes, took)| MeasuredRate::new(at.clock.now(), bytes, took));
        if let Some(rate) = rate {
            let state_dir = at.options.state_dir.clone();
            let recorded = aside(move || rates::record(&state_dir, Phase::Replay, &rate)).await;
            if let Ok(Err(error)) = recorded {
                tracing::warn!(error = %chain(&error), "the measured rate of replay is not kept");
            }
        }
        LOOK_EVERY
    })
    .await;
}
