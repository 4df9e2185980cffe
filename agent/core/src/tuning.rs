//! Which tables should have an autovacuum threshold of their own.
//!
//! The rule: a table that is large (rows or bytes) and hot (so many of its rows were updated or deleted)
//! lets a fifth of itself die before the server's default wakes autovacuum; a factor of its own makes
//! it wake early and have little to do. A table whose effective factor is that low is left alone.

use serde::Serialize;

/// What "large" and "hot" mean, and what is proposed.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct TuneRule {
    /// Large from so many rows on,
    pub large_rows: u64,
    /// or from so many bytes on.
    pub large_bytes: u64,
    /// Hot when at least so many percent of its rows were updated or deleted since the statistics
    /// began.
    pub hot_percent: f64,
    /// What is proposed for `autovacuum_vacuum_scale_factor`.
    pub scale_factor: f64,
}

/// What the rule looks at.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct TuneInput {
    /// Rows, as estimated; negative where they were never counted.
    pub rows: f64,
    /// Bytes of the table itself, without indexes and TOAST.
    pub bytes: u64,
    /// Rows updated and deleted since the statistics began.
    pub changed_rows: u64,
    /// The effective `autovacuum_vacuum_scale_factor`.
    pub scale_factor: f64,
}

/// Why a table is proposed.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Proposal {
    /// What it should be set to.
    pub scale_factor: f64,
    /// Rows that may be dead before autovacuum begins, threshold aside, as it is.
    pub dead_rows_now: f64,
    /// The same with the proposal.
    pub dead_rows_then: f64,
    /// Rows changed, in percent of its rows.
    pub changed_percent: f64,
}

impl TuneRule {
    /// Applies the rule.
    pub fn propose(&self, input: &TuneInput) -> Option<Proposal> {
        #[allow(clippy::cast_precision_loss)] // Counts of rows need no more than 53 bits.
        let (large_rows, changed) = (self.large_rows as f64, input.changed_rows as f64);
        let rows = input.rows.max(0.0);
        let large = rows >= large_rows || input.bytes >= self.large_bytes;
        let changed_percent = changed / rows.max(1.0) * 100.0;
        let hot = changed > 0.0 && changed_percent >= self.hot_percent;
        // A hair's breadth is no difference: 0.02 is stored as a float4 in one place and a float8 in
        // another.
        let lower = input.scale_factor > self.scale_factor + 1e-6;
        (large && hot && lower).then_some(Proposal {
            scale_factor: self.scale_factor,
            dead_rows_now: input.scale_factor * rows,
            dead_rows_then: self.scale_factor * rows,
            changed_percent,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: TuneRule =
        TuneRule { large_rows: 1_000_000, large_bytes: 1 << 30, hot_percent: 10.0, scale_factor: 0.02 };
    const HOT: TuneInput = TuneInput { rows: 2e6, bytes: 1 << 20, changed_rows: 500_000, scale_factor: 0.2 };

    #[test]
    fn a_large_hot_table_is_proposed_with_what_it_changes() {
        let proposal = RULE.propose(&HOT).unwrap();
        assert_eq!((proposal.dead_rows_now, proposal.dead_rows_then), (400_000.0, 40_000.0));
        assert_eq!(proposal.changed_percent, 25.0);
    }

    #[test]
    fn a_table_is_large_by_rows_or_by_bytes() {
        assert_eq!(RULE.propose(&TuneInput { rows: 1000.0, changed_rows: 900, ..HOT }), None);
        let wide = TuneInput { rows: 1000.0, changed_rows: 900, bytes: 1 << 30, ..HOT };
        assert!(RULE.propose(&wide).is_some());
    }

    #[test]
    fn a_table_that_hardly_changes_or_has_such_a_factor_is_left_alone() {
        assert_eq!(RULE.propose(&TuneInput { changed_rows: 100, ..HOT }), None);
        assert_eq!(RULE.propose(&TuneInput { scale_factor: 0.02, ..HOT }), None);
        assert_eq!(RULE.propose(&TuneInput { scale_factor: 0.01, ..HOT }), None);
        assert_eq!(RULE.propose(&TuneInput { rows: -1.0, changed_rows: 0, bytes: 1 << 30, ..HOT }), None);
    }
}
