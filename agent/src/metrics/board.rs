//! Where observers put what they saw. Each replaces all of its own figures at once, so that a
//! standby or a slot that is gone has no sample left over.

use super::figures::{ALL, Figure, Kind};
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

/// Who looks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Observer {
    /// What never changes while the agent runs.
    Agent,
    /// What waits to be archived.
    Backlog,
    /// Whether the repository answers.
    Contact,
    /// What the repository holds.
    Holdings,
    /// PostgreSQL.
    Database,
    /// The journals of boost and promotion.
    Controls,
}

/// What one observer saw.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    values: BTreeMap<(&'static str, Vec<String>), f64>,
}

impl Seen {
    /// Sets a figure without labels.
    pub fn set(&mut self, figure: &'static Figure, value: f64) {
        self.set_for(figure, &[], value);
    }

    /// The same, where the value is known.
    pub fn set_known(&mut self, figure: &'static Figure, value: Option<f64>) {
        if let Some(value) = value {
            self.set(figure, value);
        }
    }

    /// Sets a figure for these labels' values. Of two values for the same labels, as of two standbys
    /// with one name, the larger counts: a sample must not be told twice.
    pub fn set_for(&mut self, figure: &'static Figure, labels: &[&str], value: f64) {
        let labels: Vec<String> = labels.iter().map(|label| (*label).to_owned()).collect();
        let place = self.values.entry((figure.name, labels)).or_insert(value);
        *place = place.max(value);
    }
}

/// The figures of all observers.
pub(super) struct Board {
    descriptions: Vec<Desc>,
    seen: Mutex<HashMap<Observer, Seen>>,
}

impl Board {
    pub(super) fn new() -> Result<Self, prometheus::Error> {
        let description = |figure: &&'static Figure| {
            let labels = figure.labels.iter().map(|label| (*label).to_owned()).collect();
            Desc::new(figure.name.to_owned(), figure.help.to_owned(), labels, HashMap::new())
        };
        let descriptions = ALL.iter().map(description).collect::<Result<_, _>>()?;
        Ok(Self { descriptions, seen: Mutex::default() })
    }

    pub(super) fn publish(&self, observer: Observer, seen: Seen) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(observer, seen);
    }

    fn families(&self) -> Vec<MetricFamily> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut families = Vec::new();
        for figure in ALL {
            let mut metrics = Vec::new();
            for values in seen.values() {
                let of_figure = values.values.iter().filter(|((name, _), _)| *name == figure.name);
                metrics.extend(of_figure.map(|((_, labels), value)| metric(figure, labels, *value)));
            }
            if metrics.is_empty() {
                continue;
            }
            let mut family = MetricFamily::default();
            family.set_name(figure.name.to_owned());
            family.set_help(figure.help.to_owned());
            family.set_field_type(match figure.kind {
                Kind::Gauge => MetricType::GAUGE,
                Kind::Counter => MetricType::COUNTER,
            });
            family.set_metric(metrics);
            families.push(family);
        }
        families
    }
}

fn metric(figure: &Figure, labels: &[String], value: f64) -> Metric {
    let pair = |(name, value): (&&str, &String)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value(value.clone());
        pair
    };
    let mut metric = Metric::from_label(figure.labels.iter().zip(labels).map(pair).collect());
    match figure.kind {
        Kind::Gauge => {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        Kind::Counter => {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        }
    }
    metric
}

/// What is registered: the board itself is kept by the metrics as well.
pub(super) struct Posted(pub(super) std::sync::Arc<Board>);

impl Collector for Posted {
    fn desc(&self) -> Vec<&Desc> {
        self.0.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.0.families()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Metrics, figures};
    use super::*;

    #[test]
    fn what_an_observer_no_longer_sees_is_gone() {
        let metrics = Metrics::new().unwrap();
        let mut seen = Seen::default();
        seen.set_for(&figures::SLOT_ACTIVE, &["a\"b"], 1.0);
        seen.set_for(&figures::SLOT_ACTIVE, &["c"], 0.0);
        metrics.publish(Observer::Database, seen);
        let text = metrics.text().unwrap();
        assert!(text.contains("# HELP wald_slot_active ") && text.contains("# TYPE wald_slot_active gauge"));
        assert!(text.contains("wald_slot_active{slot=\"a\\\"b\"} 1"), "{text}");
        assert!(text.contains("wald_slot_active{slot=\"c\"} 0"), "{text}");
        metrics.publish(Observer::Database, Seen::default());
        assert!(!metrics.text().unwrap().contains("wald_slot_active"));
    }

    #[test]
    fn two_standbys_with_one_name_are_one_sample_the_later_of_them() {
        let metrics = Metrics::new().unwrap();
        let mut seen = Seen::default();
        for lag in [1.0, 3.0, 2.0] {
            seen.set_for(&figures::STANDBY_LAG_SECONDS, &["walreceiver", "replay"], lag);
        }
        metrics.publish(Observer::Database, seen);
        let text = metrics.text().unwrap();
        assert_eq!(text.matches("wald_standby_lag_seconds{").count(), 1, "{text}");
        assert!(
            text.contains("stage=\"replay\",standby=\"walreceiver\"} 3")
                || text.contains("standby=\"walreceiver\",stage=\"replay\"} 3"),
            "{text}"
        );
    }

    #[test]
    fn every_figure_has_a_name_of_its_own_and_a_help_text() {
        let mut names: Vec<_> = ALL.iter().map(|figure| figure.name).collect();
        assert!(ALL.iter().all(|figure| figure.name.starts_with("wald_") && figure.help.len() > 5));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
    }
}
