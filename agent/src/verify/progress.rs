//! How far a verification is: a bar on a terminal, else a line now and then.

use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How often a line is printed where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Where progress is shown; cheap to clone.
#[derive(Clone, Debug)]
pub struct Progress {
    shown: Shown,
    done: Arc<AtomicU64>,
    total: Arc<AtomicU64>,
}

#[derive(Clone, Debug)]
enum Shown {
    Nowhere,
    Bar(ProgressBar),
    Lines,
}

impl Progress {
    /// Nowhere.
    pub fn silent() -> Self {
        Self::new(Shown::Nowhere)
    }

    /// On standard error: a bar on a terminal, lines elsewhere.
    pub fn on_stderr() -> Self {
        if !std::io::stderr().is_terminal() {
            return Self::new(Shown::Lines);
        }
        let bar = ProgressBar::no_length();
        let template =
            "{spinner} verifying [{bar:40}] {bytes} of {total_bytes}, {bytes_per_sec}, {eta} to go";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        Self::new(Shown::Bar(bar))
    }

    fn new(shown: Shown) -> Self {
        Self { shown, done: Arc::default(), total: Arc::default() }
    }

    /// Says what is going on before and after reading.
    pub(super) fn say(&self, what: &str) {
        match &self.shown {
            Shown::Nowhere => {}
            Shown::Bar(bar) => bar.set_message(what.to_owned()),
            Shown::Lines => eprintln!("{what}"),
        }
    }

    pub(super) fn expect(&self, bytes: u64) {
        self.total.store(bytes, Ordering::Relaxed);
        if let Shown::Bar(bar) = &self.shown {
            bar.set_length(bytes);
        }
    }

    pub(super) fn advance(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if let Shown::Bar(bar) = &self.shown {
            bar.set_position(done);
        }
    }

    /// Bytes that have arrived.
    #[cfg(test)]
    pub(super) fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Takes the bytes of an object that is read again off.
    pub(super) fn take_back(&self, bytes: u64) {
        self.done.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(super) fn finish(&self) {
        if let Shown::Bar(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }

    /// Prints lines, if that is how progress is shown, until its task is aborted.
    pub(super) async fn print_lines(self) {
        if !matches!(self.shown, Shown::Lines) {
            return;
        }
        let began = Instant::now();
        loop {
            tokio::time::sleep(LINE_EVERY).await;
            let (done, total) = (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed));
            eprintln!("{}", line(done, total, began.elapsed()));
        }
    }
}

/// `verifying: 12 of 80 MiB, 40 MiB/s`
fn line(done: u64, total: u64, elapsed: Duration) -> String {
    let mib = |bytes: u64| bytes >> 20;
    let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
    let rate = mib(done.saturating_mul(1000) / millis);
    format!("verifying: {} of {} MiB, {rate} MiB/s", mib(done), mib(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_how_far_and_how_fast() {
        let line = line(40 << 20, 80 << 20, Duration::from_secs(2));
        assert_eq!(line, "verifying: 40 of 80 MiB, 20 MiB/s");
    }
}
