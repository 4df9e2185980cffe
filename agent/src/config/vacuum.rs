//! `[vacuum]`: when a table is too old, too bloated, or large and hot.

use super::amount;
use super::check::Checker;
use serde::Deserialize;
use std::fmt::Write as _;
use wald_core::tuning::TuneRule;

/// As it stands in the file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawVacuum {
    freeze_age_warning: Option<i64>,
    bloat_warning_percent: Option<i64>,
    bloat_size_min: Option<String>,
    large_rows: Option<i64>,
    large_size: Option<String>,
    hot_percent: Option<i64>,
    scale_factor: Option<f64>,
}

/// Checked.
#[derive(Clone, Debug)]
pub struct Vacuum {
    /// From this age on, in transaction ids and in multixacts, a person is told.
    pub freeze_age_warning: u64,
    /// From so much empty space on, in percent.
    pub bloat_warning_percent: u32,
    /// Smaller tables may be as empty as they like, in bytes.
    pub bloat_bytes_min: u64,
    /// Which tables `wald vacuum tune` proposes, and what.
    pub tune: TuneRule,
}

/// Ages end at two billion.
const AGE_MAX: u64 = 2_000_000_000;

pub(super) fn check(checker: &mut Checker, raw: RawVacuum) -> Vacuum {
    Vacuum {
        // Below autovacuum_freeze_max_age (200 million), so that a person hears of it before the forced
        // vacuum begins.
        freeze_age_warning: checker.number(
            "vacuum.freeze_age_warning",
            raw.freeze_age_warning,
            150_000_000,
            (1, AGE_MAX),
        ),
        // An autovacuum at its default leaves about a fifth.
        bloat_warning_percent: checker.number(
            "vacuum.bloat_warning_percent",
            raw.bloat_warning_percent,
            20,
            (1, 100),
        ),
        // What could be won in a smaller table is not worth a person's time.
        bloat_bytes_min: checker.bytes("vacuum.bloat_size_min", raw.bloat_size_min, 16 << 20, 1),
        tune: TuneRule {
            // A fifth of a million rows is what a vacuum does in seconds.
            large_rows: checker.number("vacuum.large_rows", raw.large_rows, 1_000_000, (1, u64::MAX >> 1)),
            large_bytes: checker.bytes("vacuum.large_size", raw.large_size, 1 << 30, 1),
            hot_percent: f64::from(checker.number::<u32>(
                "vacuum.hot_percent",
                raw.hot_percent,
                10,
                (0, 1_000_000),
            )),
            scale_factor: scale_factor(checker, raw.scale_factor),
        },
    }
}

fn scale_factor(checker: &mut Checker, factor: Option<f64>) -> f64 {
    const DEFAULT: f64 = 0.02;
    match factor {
        None => DEFAULT,
        Some(factor) if (0.0..=1.0).contains(&factor) => factor,
        Some(other) => {
            checker.refuse("vacuum.scale_factor", other.to_string(), "a number from 0.0 to 1.0");
            DEFAULT
        }
    }
}

impl Vacuum {
    pub(super) fn write(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "\n[vacuum]\nfreeze_age_warning = {}", self.freeze_age_warning)?;
        writeln!(out, "bloat_warning_percent = {}", self.bloat_warning_percent)?;
        writeln!(out, "bloat_size_min = \"{}\"", amount::bytes(self.bloat_bytes_min))?;
        writeln!(out, "large_rows = {}", self.tune.large_rows)?;
        writeln!(out, "large_size = \"{}\"", amount::bytes(self.tune.large_bytes))?;
        writeln!(out, "hot_percent = {:.0}", self.tune.hot_percent)?;
        // With its point, also where it is whole: TOML tells numbers apart by it.
        writeln!(out, "scale_factor = {:?}", self.tune.scale_factor)
    }
}
