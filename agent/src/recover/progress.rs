//! How far a restore is, on a terminal.

use indicatif::{ProgressBar, ProgressStyle};

/// Where progress is shown.
#[derive(Clone, Debug)]
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Nowhere.
    pub fn silent() -> Self {
        Self { bar: ProgressBar::hidden() }
    }

    /// On the terminal that standard error is, if it is one.
    pub fn on_terminal() -> Self {
        let bar = ProgressBar::no_length();
        let template =
            "{spinner} restoring [{bar:40}] {bytes} of {total_bytes}, {bytes_per_sec}, {eta} to go";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        Self { bar }
    }

    pub(super) fn expect(&self, bytes: u64) {
        self.bar.set_length(bytes);
    }

    pub(super) fn advance(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    /// Takes the bytes of a part that is fetched again off.
    pub(super) fn take_back(&self, bytes: u64) {
        self.bar.set_position(self.bar.position().saturating_sub(bytes));
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
