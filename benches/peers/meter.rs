//! Measures what everything that we started uses between two moments: CPU, exactly, and memory, by
//! looking five times a second.
//!
//! Told apart are the S3 server's CPU, which is the same for all but works on the same cores, and
//! PostgreSQL's own; their memory is not counted, for it is not the tool's. This process is left out.

use crate::processes::{Memory, Seen, below_us, ticks, used_by};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// A look at 100 MiB takes a millisecond and more: twenty of them a second were a twelfth of a core, which
/// the tools would have had.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What was used.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// From the start to the end.
    pub elapsed: Duration,
    /// CPU of everything together.
    pub cpu: Duration,
    /// CPU of PostgreSQL's own processes, which `cpu` holds as well.
    pub cpu_of_postgres: Duration,
    /// CPU of what was kept apart, which `cpu` does not hold.
    pub cpu_apart: Duration,
    /// The most memory that all processes of the tool had at one time (shared pages counted once).
    pub memory_peak: u64,
    /// The most that a single one of them ever had resident, mapped files included.
    pub memory_largest: u64,
}

/// A measurement that has begun.
#[derive(Debug)]
pub struct Meter {
    apart: Vec<u32>,
    started: Instant,
    before: Ticks,
    watch: Option<JoinHandle<()>>,
    watched: Arc<Watched>,
}

#[derive(Debug, Default)]
struct Watched {
    stop: AtomicBool,
    peak: AtomicU64,
    high_water: Mutex<HashMap<u32, u64>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Ticks {
    all: u64,
    postgres: u64,
    apart: u64,
}

impl Meter {
    /// Begins; processes in `apart` are not counted, nor what is below them.
    pub fn start(apart: Vec<u32>) -> Meter {
        let watched = Arc::new(Watched::default());
        let (shared, kept_apart) = (Arc::clone(&watched), apart.clone());
        let watch = thread::spawn(move || {
            while !shared.stop.load(Ordering::Relaxed) {
                shared.look(&kept_apart);
                thread::sleep(LOOK_EVERY);
            }
        });
        let before = count(&apart);
        Meter { apart, started: Instant::now(), before, watch: Some(watch), watched }
    }

    /// Ends.
    pub fn finish(mut self) -> Usage {
        let elapsed = self.started.elapsed();
        let after = count(&self.apart);
        self.end_watch();
        // What ended between two looks is not seen; what still runs shows its highest mark now.
        self.watched.look(&self.apart);
        let high_water = self.watched.high_water.lock().unwrap_or_else(PoisonError::into_inner);
        Usage {
            elapsed,
            cpu: ticks(after.all.saturating_sub(self.before.all)),
            cpu_of_postgres: ticks(after.postgres.saturating_sub(self.before.postgres)),
            cpu_apart: ticks(after.apart.saturating_sub(self.before.apart)),
            memory_peak: self.watched.peak.load(Ordering::Relaxed),
            memory_largest: high_water.values().copied().max().unwrap_or(0),
        }
    }

    fn end_watch(&mut self) {
        self.watched.stop.store(true, Ordering::Relaxed);
        if let Some(watch) = self.watch.take() {
            // It cannot panic, and had it done so, the peak would still be what it saw.
            let _ = watch.join();
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.end_watch();
    }
}

impl Watched {
    fn look(&self, apart: &[u32]) {
        let mut together = 0;
        for seen in below_us(apart).iter().filter(|seen| is_a_tool(seen)) {
            if let Some(memory) = Memory::look(seen.id) {
                together += memory.share;
                let mut marks = self.high_water.lock().unwrap_or_else(PoisonError::into_inner);
                let mark = marks.entry(seen.id).or_default();
                *mark = memory.high_water.max(*mark);
            }
        }
        self.peak.fetch_max(together, Ordering::Relaxed);
    }
}

/// Not PostgreSQL, nor the shells between it and its commands, nor the harness's clean-up shell.
fn is_a_tool(seen: &Seen) -> bool {
    !seen.is_postgres() && !["sh", "bash", "dash", "cp"].contains(&seen.program.as_str())
}

fn count(apart: &[u32]) -> Ticks {
    // Our own children that we have waited for are in our own sum.
    let ours = Seen::look(std::process::id()).map_or(0, |this| this.waited_for);
    let mut ticks = Ticks { all: ours, postgres: 0, apart: used_by(apart) };
    let us = std::process::id();
    for seen in below_us(apart) {
        ticks.all += seen.own + seen.waited_for;
        if seen.is_postgres() {
            ticks.postgres += seen.own;
            // The first of them waits for its own kind; the archiver for commands.
            if seen.parent == us {
                ticks.postgres += seen.waited_for;
            }
        }
    }
    ticks
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn the_cpu_of_a_child_of_a_child_that_is_gone_is_counted() {
        let meter = Meter::start(Vec::new());
        let spin = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
        let status = Command::new("sh").args(["-c", &format!("sh -c '{spin}'; true")]).status().unwrap();
        assert!(status.success());
        let usage = meter.finish();
        assert!(usage.cpu >= Duration::from_millis(20), "{usage:?}");
        assert_eq!(usage.cpu_of_postgres, Duration::ZERO);
    }
}
