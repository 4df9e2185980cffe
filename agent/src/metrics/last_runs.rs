//! The last nightly runs as metrics: read from the host's records each time somebody asks, since
//! the runs are processes of their own.
//!
//! Invariant: a run that never was, or whose record can't be read, has no sample; an alert on its
//! age must therefore treat absence as bad (`absent(...)`).

use super::seconds;
use crate::runs::{self, RunEnd, RunKind};
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, Opts};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// Reads the records below a state directory.
pub(super) struct LastRunsCollector {
    state_dir: PathBuf,
    /// End of the last run, seconds since 1970.
    ended: GaugeVec,
    /// End of the last good run, seconds since 1970.
    good: GaugeVec,
    /// Whether the last run was good.
    is_good: GaugeVec,
    /// How long the last run took, in seconds.
    took: GaugeVec,
    alone: Mutex<()>,
}

impl LastRunsCollector {
    pub(super) fn new(state_dir: PathBuf) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| GaugeVec::new(Opts::new(name, help), &["run"]);
        Ok(Self {
            state_dir,
            ended: gauge(
                "wald_last_run_timestamp_seconds",
                "When the last nightly run of this kind ended, however it did",
            )?,
            good: gauge(
                "wald_last_good_run_timestamp_seconds",
                "When the last nightly run of this kind ended that was good",
            )?,
            is_good: gauge(
                "wald_last_run_good",
                "1 if the last nightly run of this kind was good, 0 if it failed or had findings",
            )?,
            took: gauge("wald_last_run_seconds", "How long the last nightly run of this kind took")?,
            alone: Mutex::new(()),
        })
    }

    fn gauges(&self) -> [&GaugeVec; 4] {
        [&self.ended, &self.good, &self.is_good, &self.took]
    }
}

impl Collector for LastRunsCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.gauges().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // One scrape at a time: a record that can't be read any more has no sample.
        let _alone = self.alone.lock().unwrap_or_else(PoisonError::into_inner);
        self.gauges().into_iter().for_each(GaugeVec::reset);
        for kind in RunKind::ALL {
            let label = &[kind.name()];
            let Ok(Some(runs)) = runs::read(&self.state_dir, kind) else { continue };
            self.ended.with_label_values(label).set(seconds(runs.last.ended_at));
            self.is_good.with_label_values(label).set(f64::from(u8::from(runs.last.end == RunEnd::Good)));
            let took = runs.last.ended_at.duration_since(runs.last.started_at);
            self.took.with_label_values(label).set(took.as_secs_f64());
            if let Some(good) = runs.last_good {
                self.good.with_label_values(label).set(seconds(good.ended_at));
            }
        }
        self.gauges().into_iter().flat_map(Collector::collect).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Metrics;
    use crate::runs::{Run, RunEnd, RunKind, record};
    use jiff::Timestamp;

    #[test]
    fn runs_of_other_processes_show_when_somebody_asks() {
        let dir = tempfile::tempdir().unwrap();
        let metrics = Metrics::new().and_then(|metrics| metrics.with_runs_below(dir.path())).unwrap();
        assert!(!metrics.text().unwrap().contains("wald_last_run_"));
        for (second, end) in [(1000, RunEnd::Good), (2000, RunEnd::Findings)] {
            let at = |second| Timestamp::from_second(second).unwrap();
            let run = Run { started_at: at(second), ended_at: at(second + 5), end, summary: String::new() };
            record(dir.path(), RunKind::Verify, run).unwrap();
        }
        let text = metrics.text().unwrap();
        for line in [
            "wald_last_run_timestamp_seconds{run=\"verify\"} 2005",
            "wald_last_good_run_timestamp_seconds{run=\"verify\"} 1005",
            "wald_last_run_good{run=\"verify\"} 0",
            "wald_last_run_seconds{run=\"verify\"} 5",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
        assert!(!text.contains("run=\"expire\""), "{text}");
    }
}
