//! Requests to the repository that came to nothing, as a metric.

use crate::store::{TryCause, TryCounts};
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounterVec, Opts};

/// Reads the store's counts when somebody asks.
pub(super) struct TriesCollector {
    counts: TryCounts,
    tries: IntCounterVec,
}

impl TriesCollector {
    pub(super) fn new(counts: TryCounts) -> Result<Self, prometheus::Error> {
        let help = "Requests to the repository that came to nothing, by cause; most are tried again";
        let tries = IntCounterVec::new(Opts::new("wald_repository_failed_tries_total", help), &["cause"])?;
        Ok(Self { counts, tries })
    }
}

impl Collector for TriesCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.tries.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        for cause in TryCause::ALL {
            let counter = self.tries.with_label_values(&[cause.name()]);
            counter.inc_by(self.counts.of(cause).saturating_sub(counter.get()));
        }
        self.tries.collect()
    }
}
