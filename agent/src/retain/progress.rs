//! How far a run is, on a terminal.

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
        Self { bar: ProgressBar::no_length() }
    }

    /// Begins something else, of as many steps as are known.
    pub(super) fn begin(&self, what: &str, steps: Option<usize>) {
        let steps = steps.map(|steps| u64::try_from(steps).unwrap_or(u64::MAX));
        let template = if steps.is_some() {
            "{spinner} {msg} [{bar:40}] {pos} of {len}, {per_sec}, {eta} to go"
        } else {
            "{spinner} {msg} {pos}"
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style.progress_chars("=> "));
        }
        self.bar.set_position(0);
        match steps {
            Some(steps) => self.bar.set_length(steps),
            None => self.bar.unset_length(),
        }
        self.bar.set_message(what.to_owned());
    }

    pub(super) fn advance(&self) {
        self.bar.inc(1);
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
