//! Numbers of repeated runs, and what is said of them: the median and the range. Never a mean: one
//! disturbed run would move it.

use std::collections::BTreeMap;

/// What one run measured, by name.
pub type Figures = BTreeMap<&'static str, f64>;

/// What one tool did in one subject.
#[derive(Debug, Clone, Default)]
pub struct Row {
    /// The tool, or the variant of it.
    pub name: String,
    /// Its runs.
    pub runs: Vec<Figures>,
    /// Why a run of it failed.
    pub failures: Vec<String>,
}

impl Row {
    /// One that has not run yet.
    pub fn new(name: impl Into<String>) -> Row {
        Row { name: name.into(), ..Row::default() }
    }

    /// Keeps what a run came to.
    pub fn add(&mut self, run: anyhow::Result<Figures>) {
        match run {
            Ok(figures) => self.runs.push(figures),
            Err(error) => self.failures.push(format!("{error:#}")),
        }
    }

    /// Everything that was measured under a name.
    pub fn summary(&self, name: &str) -> Option<Summary> {
        Summary::of(self.runs.iter().filter_map(|run| run.get(name).copied()).collect())
    }
}

/// Of several runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// The one in the middle; of an even number, half way between the two.
    pub median: f64,
    /// The smallest.
    pub least: f64,
    /// The largest.
    pub most: f64,
}

impl Summary {
    /// `None` of nothing.
    pub fn of(mut values: Vec<f64>) -> Option<Summary> {
        values.sort_by(f64::total_cmp);
        let middle = |at: usize| values.get(at).copied();
        let (least, most) = (*values.first()?, *values.last()?);
        let half = values.len() / 2;
        let median =
            if values.len() % 2 == 1 { middle(half)? } else { (middle(half - 1)? + middle(half)?) / 2.0 };
        Some(Summary { median, least, most })
    }
}

/// What is compared, and how it is shown.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// Its name in [`Figures`].
    pub key: &'static str,
    /// Its heading, with the unit.
    pub title: &'static str,
    /// Digits behind the point.
    pub digits: usize,
    /// Whether a column beside it says how many times the first row's it is.
    pub ratio: Ratio,
}

/// See [`Column::ratio`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ratio {
    /// Shown.
    Shown,
    /// Not shown.
    Hidden,
}

/// One subject with all that took part.
#[derive(Debug, Clone)]
pub struct Table {
    /// For the command line and JSON.
    pub key: &'static str,
    /// What was done.
    pub title: String,
    /// What one has to know to read it.
    pub notes: Vec<String>,
    /// What was measured.
    pub columns: Vec<Column>,
    /// Who took part; ratios are to the first.
    pub rows: Vec<Row>,
}

/// A count as a number to calculate with; what is counted here is far from where it would be rounded.
#[expect(clippy::cast_precision_loss, reason = "figures for a table, of three digits")]
pub fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_lies_in_the_middle() {
        let of = |values: &[f64]| Summary::of(values.to_vec()).map(|summary| summary.median);
        assert_eq!(of(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(of(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(of(&[]), None);
    }
}
