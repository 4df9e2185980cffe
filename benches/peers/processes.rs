//! What the kernel says about the processes below this one: who they are, what they have used.
//!
//! The driver is the *subreaper* of all that it starts: what a tool leaves running in the background
//! becomes the driver's own child, and is counted like the rest. A process that has ended and that
//! nobody has waited for still shows what it used; one that was waited for is in the sum of the
//! process that did so. Between them nothing is lost, however short-lived. See proc(5).

use anyhow::{Context, Result};
use std::collections::{HashMap, HashSet};
use std::fs;
use std::time::Duration;

/// One process, as `/proc/<id>/stat` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its id.
    pub id: u32,
    /// The id of its parent.
    pub parent: u32,
    /// The file that it runs, cut after 15 bytes.
    pub program: String,
    /// `Z` for one that has ended and was not waited for.
    pub state: char,
    /// What it has used itself, in ticks of the clock.
    pub own: u64,
    /// What those of its children used that it has waited for.
    pub waited_for: u64,
}

impl Seen {
    /// Looks at one process; `None` once it is gone.
    pub fn look(id: u32) -> Option<Seen> {
        parse(&fs::read_to_string(format!("/proc/{id}/stat")).ok()?)
    }

    /// Whether it is one of PostgreSQL's own.
    pub fn is_postgres(&self) -> bool {
        self.program == "postgres"
    }
}

/// Everything below this process, but for the processes in `apart` and what is below those.
pub fn below_us(apart: &[u32]) -> Vec<Seen> {
    let mut children: HashMap<u32, Vec<Seen>> = HashMap::new();
    let ids = fs::read_dir("/proc").into_iter().flatten().flatten();
    for id in ids.filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
        if let Some(seen) = Seen::look(id) {
            children.entry(seen.parent).or_default().push(seen);
        }
    }
    let apart: HashSet<u32> = apart.iter().copied().collect();
    let mut found = Vec::new();
    let mut parents = vec![std::process::id()];
    while let Some(parent) = parents.pop() {
        for seen in children.remove(&parent).unwrap_or_default() {
            if !apart.contains(&seen.id) {
                parents.push(seen.id);
                found.push(seen);
            }
        }
    }
    found
}

/// What these processes and everything below them have used, in ticks of the clock.
pub fn used_by(roots: &[u32]) -> u64 {
    let mut used = 0;
    for root in roots.iter().filter_map(|root| Seen::look(*root)) {
        used += root.own + root.waited_for;
    }
    used
}

/// Ticks of the clock as a time: a hundredth of a second each, on every Linux that PostgreSQL runs on
/// (`USER_HZ`).
pub fn ticks(count: u64) -> Duration {
    Duration::from_millis(count.saturating_mul(10))
}

/// Makes orphans of the tools our own children.
pub fn adopt_orphans() -> Result<()> {
    let this = rustix::process::getpid();
    rustix::process::set_child_subreaper(Some(this)).context("becoming the parent of orphans")
}

/// Waits for those of our children that have ended and that nobody else will wait for. Called when no
/// server of the harness is being waited for, so that none of its children is taken away from it.
pub fn bury_orphans(programs: &[&str]) {
    for seen in below_us(&[]) {
        let ours = seen.parent == std::process::id() && programs.contains(&seen.program.as_str());
        if ours && seen.state == 'Z' {
            let id = i32::try_from(seen.id).ok().and_then(rustix::process::Pid::from_raw);
            // It has ended: this returns at once, and what it says is of no interest.
            let _ = rustix::process::waitpid(id, rustix::process::WaitOptions::NOHANG);
        }
    }
}

/// Memory of one process, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Memory {
    /// Its share of what is resident: pages that several processes have are divided among them.
    pub share: u64,
    /// The most that was ever resident, all of it.
    pub high_water: u64,
}

impl Memory {
    /// Looks at one process; `None` once it is gone.
    pub fn look(id: u32) -> Option<Memory> {
        let rollup = fs::read_to_string(format!("/proc/{id}/smaps_rollup")).ok()?;
        let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
        Some(Memory { share: kib(&rollup, "Pss:")?, high_water: kib(&status, "VmHWM:")? })
    }
}

fn kib(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}

/// `id (program) state parent ... utime stime cutime cstime ...`; the program may hold anything.
fn parse(stat: &str) -> Option<Seen> {
    let (id, rest) = stat.split_once(" (")?;
    let (program, rest) = rest.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some(Seen {
        id: id.parse().ok()?,
        parent: u32::try_from(number(1)?).ok()?,
        program: program.to_owned(),
        state: fields.first()?.chars().next()?,
        own: number(11)? + number(12)?,
        waited_for: number(13)? + number(14)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_program_s_name_may_hold_parentheses_and_blanks() {
        let stat = "12 (a) b (c) S 7 12 12 0 -1 0 0 0 0 0 3 4 50 60 20 0 1 0 9";
        let seen = parse(stat).unwrap();
        assert_eq!((seen.id, seen.parent, seen.own, seen.waited_for), (12, 7, 7, 110));
        assert_eq!((seen.program.as_str(), seen.state), ("a) b (c", 'S'));
    }

    #[test]
    fn a_child_is_seen_unless_it_is_kept_apart() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let id = child.id();
        assert!(below_us(&[]).iter().any(|seen| seen.id == id));
        assert!(!below_us(&[id]).iter().any(|seen| seen.id == id));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
