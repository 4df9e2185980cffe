//! Gathers what the lanes tell while they read.

use super::event::Event;
use super::lanes::Lanes;
use super::presence::Found;
use super::report::Unread;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use tokio_util::sync::CancellationToken;
use wald_core::ledger::{Amount, Damage, Depth, KnownLock, Object, Objects, WalkEnd};

/// Names that are told of objects that were not come to; the rest is counted.
const LEFT_TOLD: usize = 10;

/// What one run read and found out by it.
#[derive(Debug, Default)]
pub(super) struct Tonight {
    /// How thoroughly each object was proven good.
    proven: HashMap<Box<str>, Depth>,
    /// How thoroughly each damaged object was looked at.
    looked: BTreeMap<Box<str>, Depth>,
    /// Some of it more than once: two lanes may see the same record, and what the listing shows as deleted
    /// may have been due to be read, too.
    pub found: Vec<Found>,
    pub unread: Vec<Unread>,
    /// Listed, and not there when it was to be read.
    pub vanished: BTreeSet<Box<str>>,
    /// Can't be judged for the damage of another object.
    blocked: BTreeSet<Box<str>>,
    pub walks: Vec<WalkEnd>,
    pub read: Amount,
    pub interrupted: bool,
}

impl Tonight {
    /// Listens until the lanes have come to their end, or have given up after `cancel`.
    pub async fn listen(
        mut lanes: Lanes,
        objects: &mut Objects,
        depth: Depth,
        cancel: &CancellationToken,
    ) -> Self {
        let mut tonight = Self::default();
        let began = std::time::Instant::now();
        loop {
            let event = tokio::select! {
                event = lanes.next() => event,
                () = cancel.cancelled(), if !tonight.interrupted => {
                    tonight.interrupted = true;
                    lanes.give_up();
                    continue;
                }
            };
            match event {
                Some(event) => tonight.take(event, objects, depth),
                None => break,
            }
        }
        if !lanes.all_ended().await {
            let problem = "a thread that read it ended unexpectedly: a defect of wald".to_owned();
            tonight.unread.push(Unread { object: "an object".to_owned(), problem });
        }
        tonight.read.milliseconds = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        tonight
    }

    fn take(&mut self, event: Event, objects: &mut Objects, depth: Depth) {
        match event {
            Event::Read { object, stored_bytes, told } => {
                self.read.objects += 1;
                self.read.stored_bytes += stored_bytes;
                let same = |listed: &&mut Object| {
                    told.version.as_ref().is_some_and(|v| *listed.version == *v.as_str())
                };
                if let (Some(listed), Some(lock)) = (objects.get_mut(&object).filter(same), told.lock) {
                    listed.lock = Some(KnownLock::from(lock));
                }
            }
            Event::Unpacked { raw_bytes } => self.read.raw_bytes += raw_bytes,
            Event::Proven { object, depth } => {
                self.proven.insert(object, depth);
            }
            Event::Found { object, damage } => {
                self.looked.insert(object.clone(), depth);
                self.found.push(Found { object: object.into(), damage });
            }
            Event::Unread { object, problem } => self.unread.push(Unread { object: object.into(), problem }),
            Event::Vanished { object } => {
                self.vanished.insert(object);
            }
            Event::Blocked { object } => {
                self.blocked.insert(object);
            }
            Event::Walked { object, carry } => {
                let version = objects.get(&object).map(|object| object.version.clone()).unwrap_or_default();
                self.walks.push(WalkEnd { object, version, carry });
            }
        }
    }

    /// How thoroughly an object was looked at in this run, whatever came of it.
    pub fn looked(&self, name: &str) -> Option<Depth> {
        self.looked.get(name).max(self.proven.get(name)).copied()
    }

    /// Writes the proofs into `objects`. What was found damaged has none, or a lesser one.
    pub fn note_proofs(&self, objects: &mut Objects, at: jiff::Timestamp) {
        let mut damaged: BTreeMap<&str, Depth> = BTreeMap::new();
        for Found { object, damage } in &self.found {
            let depth = damaged.entry(object).or_insert(Depth::Records);
            *depth = (*depth).min(damage.depth());
        }
        for (name, depth) in &self.proven {
            let proven = match damaged.get(&**name) {
                None => *depth,
                // Its bytes are those that were stored; what is in them is not good.
                Some(Depth::Records) => (*depth).min(Depth::Content),
                Some(_) => continue,
            };
            if let Some(object) = objects.get_mut(name) {
                object.prove(proven, at);
            }
        }
    }

    /// Whether every chosen object was judged; those that were not are told as not read.
    pub fn account_for(&mut self, chosen: impl Iterator<Item = Box<str>>) {
        let unread: BTreeSet<&str> = self.unread.iter().map(|unread| unread.object.as_str()).collect();
        let open = |name: &str| {
            self.looked(name).is_none()
                && !self.vanished.contains(name)
                && !self.blocked.contains(name)
                && !unread.contains(name)
        };
        let left: Vec<Box<str>> = chosen.filter(|name| open(name)).collect();
        let problem = if self.interrupted { "the run was interrupted" } else { "the run ended before it" };
        let told = left.iter().take(LEFT_TOLD);
        self.unread.extend(told.map(|name| Unread { object: name.to_string(), problem: problem.to_owned() }));
        if let Some(more) = left.len().checked_sub(LEFT_TOLD).filter(|more| *more > 0) {
            self.unread.push(Unread { object: format!("{more} more"), problem: problem.to_owned() });
        }
    }

    /// Whether something was found that would make a segment's end unfit to go on from.
    pub fn is_damaged(&self, name: &str) -> bool {
        self.found
            .iter()
            .any(|found| found.object == name && !matches!(found.damage, Damage::LockTooShort { .. }))
    }
}
