//! How far a backup has come: counters that its threads bump and that anyone may read, and
//! their display for a person.
//!
//! The counters decide nothing. Bytes are those of files before compression.

use indicatif::{ProgressBar, ProgressStyle};
use std::fmt;
use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What a backup is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Checking the server, the directory and the repository.
    Checking,
    /// Waiting for the server's checkpoint.
    Starting,
    /// Listing the files.
    Scanning,
    /// Reading, compressing and storing files.
    Copying,
    /// Ending backup mode, storing what is known only then.
    Stopping,
    /// Waiting for WAL to reach the repository.
    WaitingForWal,
    /// Writing the catalog entry, and after it.
    Committing,
}

impl Phase {
    const ALL: [Phase; 7] = [
        Phase::Checking,
        Phase::Starting,
        Phase::Scanning,
        Phase::Copying,
        Phase::Stopping,
        Phase::WaitingForWal,
        Phase::Committing,
    ];
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Checking => "checking",
            Phase::Starting => "waiting for a checkpoint",
            Phase::Scanning => "listing files",
            Phase::Copying => "copying",
            Phase::Stopping => "ending the backup",
            Phase::WaitingForWal => "waiting for WAL",
            Phase::Committing => "committing",
        })
    }
}

/// Shared counters of one backup.
#[derive(Debug, Default)]
pub struct Progress {
    phase: AtomicU8,
    bytes_total: AtomicU64,
    bytes_done: AtomicU64,
    files_total: AtomicU64,
    files_done: AtomicU64,
    stored_bytes: AtomicU64,
}

/// The counters at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Snapshot {
    /// What is going on.
    pub phase: Phase,
    /// Bytes that will be read; 0 until the files are listed.
    pub bytes_total: u64,
    /// Bytes read.
    pub bytes_done: u64,
    /// Files that will be read.
    pub files_total: u64,
    /// Files read.
    pub files_done: u64,
    /// Bytes after compression, handed to the repository.
    pub stored_bytes: u64,
}

impl Progress {
    /// Nothing done yet.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// How far the backup is. The counters are read one after the other.
    pub fn snapshot(&self) -> Snapshot {
        let phase = usize::from(self.phase.load(Ordering::Relaxed));
        Snapshot {
            phase: Phase::ALL.get(phase).copied().unwrap_or(Phase::Checking),
            bytes_total: self.bytes_total.load(Ordering::Relaxed),
            bytes_done: self.bytes_done.load(Ordering::Relaxed),
            files_total: self.files_total.load(Ordering::Relaxed),
            files_done: self.files_done.load(Ordering::Relaxed),
            stored_bytes: self.stored_bytes.load(Ordering::Relaxed),
        }
    }

    pub(super) fn enter(&self, phase: Phase) {
        let index = Phase::ALL.iter().position(|known| *known == phase).unwrap_or(0);
        self.phase.store(u8::try_from(index).unwrap_or(0), Ordering::Relaxed);
    }

    pub(super) fn expect(&self, files: u64, bytes: u64) {
        self.files_total.store(files, Ordering::Relaxed);
        self.bytes_total.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn read(&self, bytes: u64) {
        self.bytes_done.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn file_done(&self) {
        self.files_done.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn stored(&self, bytes: u64) {
        self.stored_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// How often a terminal is redrawn.
const REDRAW_EVERY: Duration = Duration::from_millis(200);
/// How often a line is printed where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Shows the progress on standard error until dropped or aborted: a bar on a terminal, else
/// a line now and then and at each change of phase. Runs until its task is aborted.
pub async fn show(progress: Arc<Progress>) {
    if std::io::stderr().is_terminal() { show_bar(&progress).await } else { show_lines(&progress).await }
}

async fn show_bar(progress: &Progress) {
    let bar = ProgressBar::new(0);
    let template = "{msg:24} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    loop {
        let now = progress.snapshot();
        bar.set_length(now.bytes_total);
        bar.set_position(now.bytes_done);
        bar.set_message(now.phase.to_string());
        tokio::time::sleep(REDRAW_EVERY).await;
    }
}

async fn show_lines(progress: &Progress) {
    let began = Instant::now();
    let mut shown: Option<(Phase, Instant)> = None;
    loop {
        let now = progress.snapshot();
        let due = shown.is_none_or(|(phase, at)| phase != now.phase || at.elapsed() >= LINE_EVERY);
        if due {
            eprintln!("{}", line(&now, began.elapsed()));
            shown = Some((now.phase, Instant::now()));
        }
        tokio::time::sleep(REDRAW_EVERY).await;
    }
}

/// One line for a log: `copying: 12 of 80 MiB, 3 of 954 files, 5 MiB stored, 40 MiB/s`.
pub fn line(now: &Snapshot, elapsed: Duration) -> String {
    let mib = |bytes: u64| bytes >> 20;
    if now.bytes_total == 0 {
        return now.phase.to_string();
    }
    let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
    let rate = mib(now.bytes_done.saturating_mul(1000) / millis);
    format!(
        "{}: {} of {} MiB, {} of {} files, {} MiB stored, {rate} MiB/s",
        now.phase,
        mib(now.bytes_done),
        mib(now.bytes_total),
        now.files_done,
        now.files_total,
        mib(now.stored_bytes),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_phase_survives_its_number() {
        let progress = Progress::new();
        for phase in Phase::ALL {
            progress.enter(phase);
            assert_eq!(progress.snapshot().phase, phase);
        }
    }

    #[test]
    fn a_line_says_how_much_and_how_fast() {
        let progress = Progress::new();
        progress.enter(Phase::Copying);
        progress.expect(954, 80 << 20);
        progress.read(12 << 20);
        progress.file_done();
        progress.stored(5 << 20);
        let text = line(&progress.snapshot(), Duration::from_millis(300));
        assert_eq!(text, "copying: 12 of 80 MiB, 1 of 954 files, 5 MiB stored, 40 MiB/s");
    }
}
