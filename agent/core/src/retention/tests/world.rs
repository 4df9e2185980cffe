//! A cluster that lives for some days: it writes WAL, takes backups that may overlap, loses
//! segments, fails over, goes back in time, and leaves primaries behind that go on.

use crate::backup_id::{BackupId, BackupKind};
use crate::blake3_hex::Blake3Hex;
use crate::catalog::{CatalogEntry, CatalogFacts, Part, StoredObject};
use crate::coverage::{CoverageBuilder, WalCoverage};
use crate::history::TimelineHistory;
use crate::lsn::Lsn;
use crate::object_key::ObjectKey;
use crate::recovery_plan::{ArchiveMode, Holdings, PlanError, PlanRequest, RecoveryPlan, plan};
use crate::recovery_window::history_of;
use crate::retention::Seen;
use crate::segment::{SegmentName, SegmentSize};
use crate::system_id::SystemId;
use crate::target::{Inclusion, RecoveryGoal, RecoveryTarget, TargetAction, TimelineChoice};
use crate::timeline::TimelineId;
use crate::wal_file::WalFile;
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// So many moments are asked for at most.
const MOMENTS_MAX: usize = 150;

pub const MIB: u64 = 1 << 20;

pub fn tl(number: u32) -> TimelineId {
    TimelineId::new(number).unwrap()
}

pub fn size() -> SegmentSize {
    SegmentSize::new(1 << 20).unwrap()
}

pub fn system() -> SystemId {
    SystemId::new(7).unwrap()
}

pub fn hours(count: i64) -> SignedDuration {
    SignedDuration::from_hours(count)
}

/// Something that happens to a cluster.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    /// Segments are written, one an hour; some are stored late, some never.
    Write { count: u8, late_minutes: u16, lose: u8 },
    /// Nothing is written.
    Idle { hours: u8 },
    /// A backup begins, as many segments back as a standby's restart point is.
    Begin { back: u8 },
    /// The oldest or the newest backup that is running ends.
    End { newest: bool },
    /// A standby is promoted in the middle of a segment; the old primary goes on.
    FailOver { offset: u32, zombie: u8 },
    /// The cluster is restored to an earlier point and goes on from there.
    GoBack { segments: u8, offset: u32, archive_history: bool },
    /// A primary that was left writes on.
    Zombie { timeline: u8, count: u8 },
}

/// A backup that has not ended.
#[derive(Clone, Debug)]
struct Running {
    timeline: u32,
    start: Lsn,
    started_at: Timestamp,
}

/// The cluster with its repository.
#[derive(Clone, Debug)]
pub struct World {
    pub now: Timestamp,
    timeline: u32,
    /// The next segment of each timeline.
    next: BTreeMap<u32, u64>,
    /// All histories that exist, archived or not.
    all: BTreeMap<TimelineId, TimelineHistory>,
    running: Vec<Running>,
    pub catalog: Vec<CatalogEntry>,
    pub histories: BTreeMap<TimelineId, TimelineHistory>,
    pub segments: BTreeMap<(u32, u64), Timestamp>,
    pub partials: BTreeMap<(u32, u64), Timestamp>,
}

impl World {
    pub fn new() -> Self {
        Self {
            now: "2026-11-01T00:00:00Z".parse().unwrap(),
            timeline: 1,
            next: BTreeMap::from([(1, 1)]),
            all: BTreeMap::new(),
            running: Vec::new(),
            catalog: Vec::new(),
            histories: BTreeMap::new(),
            segments: BTreeMap::new(),
            partials: BTreeMap::new(),
        }
    }

    pub fn of(events: &[Event]) -> Self {
        let mut world = Self::new();
        for event in events {
            world.apply(*event);
        }
        world
    }

    pub fn pass(&mut self, time: SignedDuration) {
        self.now += time;
    }

    /// Waits until what is under way is stored.
    pub fn let_arrive(&mut self) {
        self.now = self.segments.values().copied().fold(self.now, Timestamp::max);
    }

    /// Whether the repository knows the timeline that is at work.
    pub fn is_known(&self) -> bool {
        self.timeline == 1 || self.histories.contains_key(&tl(self.timeline))
    }

    fn position(&self) -> u64 {
        self.next[&self.timeline]
    }

    fn write(&mut self, timeline: u32, late: SignedDuration, lost: bool) {
        let next = self.next.entry(timeline).or_insert(1);
        if !lost {
            self.segments.insert((timeline, *next), self.now + late);
        }
        *next += 1;
    }

    fn history(&self, timeline: u32) -> TimelineHistory {
        let known = self.all.get(&tl(timeline)).cloned();
        known.unwrap_or_else(|| TimelineHistory::without_ancestors(tl(timeline)))
    }

    /// The next timeline branches off the one that is at work.
    fn branch(&mut self, switch: u64, archived: bool) -> u32 {
        let parent = self.timeline;
        let child = self.next.keys().max().unwrap() + 1;
        let text = format!("{}\n{parent}\t{}\tx\n", self.history(parent), Lsn::new(switch).unwrap());
        let history = TimelineHistory::parse(tl(child), text.as_bytes()).unwrap();
        self.all.insert(tl(child), history.clone());
        if archived {
            self.histories.insert(tl(child), history);
        }
        self.next.insert(child, switch / MIB);
        self.timeline = child;
        self.running.clear();
        child
    }

    pub fn apply(&mut self, event: Event) {
        match event {
            Event::Write { count, late_minutes, lose } => {
                for index in 0..count {
                    self.pass(hours(1));
                    let late = SignedDuration::from_mins(i64::from(late_minutes));
                    self.write(self.timeline, late, index < 8 && lose >> index & 1 == 1);
                }
            }
            Event::Idle { hours: count } => self.pass(hours(i64::from(count))),
            Event::Begin { back } => {
                self.pass(SignedDuration::from_mins(1));
                let timeline = self.timeline;
                // A restart point is hours old at most.
                let recent = |number: &u64| {
                    let stored = self.segments.get(&(timeline, *number));
                    stored.is_some_and(|stored| *stored >= self.now - hours(20))
                };
                let back = (1..=u64::from(back)).map(|back| self.position().saturating_sub(back));
                let start = back.take_while(recent).last().unwrap_or(self.position()) * MIB + 0x28;
                let started_at = self.now;
                self.running.push(Running { timeline, start: Lsn::new(start).unwrap(), started_at });
            }
            Event::End { newest } => self.end(newest),
            Event::FailOver { offset, zombie } => {
                let (old, switch) = (self.timeline, self.position() * MIB + u64::from(offset));
                self.partials.insert((old, switch / MIB), self.now);
                self.branch(switch, true);
                for _ in 0..zombie {
                    self.pass(hours(1));
                    self.write(old, SignedDuration::ZERO, false);
                    self.write(self.timeline, SignedDuration::ZERO, false);
                }
            }
            Event::GoBack { segments, offset, archive_history } => {
                let number = self.position().saturating_sub(u64::from(segments)).max(1);
                self.branch(number * MIB + u64::from(offset), archive_history);
            }
            Event::Zombie { timeline, count } => {
                let timeline = u32::from(timeline) % self.next.keys().max().unwrap() + 1;
                for _ in 0..count {
                    self.pass(hours(1));
                    self.write(timeline, SignedDuration::ZERO, false);
                }
            }
        }
    }

    fn end(&mut self, newest: bool) {
        if self.running.is_empty() {
            return;
        }
        let index = if newest { self.running.len() - 1 } else { 0 };
        let running = self.running.remove(index);
        // One that adds nothing for so long has failed.
        if self.now - hours(40) > running.started_at {
            return;
        }
        self.pass(SignedDuration::from_mins(1));
        let stop = Lsn::new(self.position() * MIB + 0x100).unwrap();
        let id = BackupId::new(running.started_at, BackupKind::Full);
        if self.catalog.iter().any(|entry| *entry.id() == id) {
            return;
        }
        self.catalog.push(entry(id, running.timeline, (running.start, stop), (running.started_at, self.now)));
        // pg_backup_stop switches to the next segment and waits for this one.
        self.write(self.timeline, SignedDuration::ZERO, false);
    }

    /// The backups that have claimed a name and have not ended.
    pub fn claimed(&self) -> impl Iterator<Item = (BackupId, Timestamp)> {
        self.running
            .iter()
            .map(|running| (BackupId::new(running.started_at, BackupKind::Full), running.started_at))
    }

    pub fn coverage(&self) -> WalCoverage {
        let mut builder = CoverageBuilder::new(size());
        for ((timeline, number), stored_at) in &self.segments {
            let name = SegmentName::from_number(tl(*timeline), *number, size()).unwrap();
            builder.add(WalFile::Segment(name), 10, *stored_at);
        }
        builder.finish()
    }

    pub fn holdings<'a>(&'a self, coverage: &'a WalCoverage) -> Holdings<'a> {
        Holdings { system_id: system(), catalog: &self.catalog, histories: &self.histories, coverage }
    }

    /// Times at which the planner's answer can change, between `from` and now.
    pub fn moments(&self, from: Timestamp) -> Vec<Timestamp> {
        let ends = self.catalog.iter().map(CatalogEntry::stopped_at);
        let stored = self.segments.values().copied();
        let near = ends.chain(stored).flat_map(|time| {
            let offsets = [-1, 0, 1, 2, 3, 300, 301, 1800];
            offsets.into_iter().map(move |second| time + SignedDuration::from_secs(second))
        });
        let mut moments: Vec<Timestamp> =
            near.chain([from, self.now]).filter(|time| (from..=self.now).contains(time)).collect();
        moments.sort();
        moments.dedup();
        let stride = moments.len().div_ceil(MOMENTS_MAX).max(1);
        let last = moments.len().saturating_sub(1);
        let asked =
            moments.into_iter().enumerate().filter(|(index, _)| index % stride == 0 || *index == last);
        asked.map(|(_, moment)| moment).collect()
    }

    /// Every way to say which line is meant.
    pub fn choices(&self) -> Vec<TimelineChoice> {
        let known = crate::recovery_window::timelines(&self.catalog, &self.histories);
        let ids = known.into_iter().map(TimelineChoice::Id);
        [TimelineChoice::Latest, TimelineChoice::Current].into_iter().chain(ids).collect()
    }
}

/// What `wald restore` would do.
pub fn restore(
    holdings: Holdings<'_>,
    target: RecoveryTarget,
    choice: TimelineChoice,
    backup: Option<BackupId>,
    now: Timestamp,
) -> Result<RecoveryPlan, PlanError> {
    let request = PlanRequest {
        goal: RecoveryGoal::new(target, Inclusion::Inclusive, choice, TargetAction::Promote).unwrap(),
        backup,
        restore_command: String::new(),
        archive_mode: ArchiveMode::Off,
    };
    plan(holdings, &request, now)
}

/// The way by a backup that has to be named, to where most WAL is.
pub fn named_way(
    holdings: Holdings<'_>,
    time: Timestamp,
    choice: TimelineChoice,
    now: Timestamp,
) -> Option<RecoveryPlan> {
    let named = holdings.catalog.iter().map(|entry| Some(entry.id().clone()));
    let by = |backup| restore(holdings, RecoveryTarget::Time(time), choice, backup, now).ok();
    named.filter_map(by).max_by_key(|way| way.wal_end)
}

/// Whether a way by a named backup is no loss. Where an earlier segment was stored later than
/// the last one, the planner takes times for possible that lie behind all WAL of an older
/// backup. So it is none if some backup that ended by `time` leads to the end of the same WAL,
/// or ended behind that end: then `time` was never on it.
pub fn is_no_loss(holdings: Holdings<'_>, way: &RecoveryPlan, time: Timestamp, now: Timestamp) -> bool {
    let end = RecoveryTarget::Lsn(Lsn::new(way.wal_end.get() - 1).unwrap());
    let choice = TimelineChoice::Id(way.timeline);
    let history = history_of(way.timeline, holdings.histories);
    let mut early = holdings.catalog.iter().filter(|entry| entry.stopped_at() <= time);
    early.any(|entry| {
        let behind = entry.stop_lsn() > way.wal_end && history.contains(entry.timeline(), entry.stop_lsn());
        behind || restore(holdings, end.clone(), choice, Some(entry.id().clone()), now).is_ok()
    })
}

/// The size of every object of this name, as the entries say.
pub fn object_bytes(name: &str) -> u64 {
    match name.rsplit('/').next() {
        Some("base-0001.tar.zst") => 1000,
        Some("backup_manifest" | "files.json.zst") => 5,
        _ => 10,
    }
}

/// What a listing shows where no object of a backup is damaged.
pub fn seen_of(world: &World) -> Seen {
    let mut seen = Seen::default();
    for entry in &world.catalog {
        seen.note(ObjectKey::catalog(entry.id()).as_str(), Some(10), entry.stopped_at());
        for object in ["base-0001.tar.zst", "backup_manifest", "files.json.zst"] {
            let key = entry.object_key(object).unwrap();
            seen.note(key.as_str(), Some(object_bytes(object)), entry.stopped_at());
        }
    }
    seen
}

pub fn entry(
    id: BackupId,
    timeline: u32,
    (start_lsn, stop_lsn): (Lsn, Lsn),
    (started_at, stopped_at): (Timestamp, Timestamp),
) -> CatalogEntry {
    let object = |name: &str| StoredObject {
        name: name.to_owned(),
        stored_bytes: 5,
        blake3: Blake3Hex::of(name.as_bytes()),
    };
    let facts = CatalogFacts {
        id,
        system_id: system(),
        segment_size: size(),
        pg_version_num: 150_018,
        data_checksums: true,
        timeline: tl(timeline),
        start_lsn,
        stop_lsn,
        started_at,
        stopped_at,
        from_standby: false,
        label: "test".to_owned(),
        tool_version: "0.1.0".to_owned(),
        tablespaces: Vec::new(),
        parts: vec![Part {
            name: "base-0001.tar.zst".to_owned(),
            tablespace: None,
            stored_bytes: 1000,
            raw_bytes: 4096,
            files: 3,
            blake3: Blake3Hex::of(b"x"),
        }],
        manifest: object("backup_manifest"),
        file_list: object("files.json.zst"),
        bad_pages: Vec::new(),
    };
    CatalogEntry::new(facts).unwrap()
}

pub fn any_event() -> impl Strategy<Value = Event> {
    let offset = prop_oneof![Just(0u32), 1u32..1 << 20];
    let lose = prop_oneof![6 => Just(0u8), 1 => any::<u8>()];
    prop_oneof![
        6 => (1u8..12, prop_oneof![Just(0u16), 0u16..1000], lose)
            .prop_map(|(count, late_minutes, lose)| Event::Write { count, late_minutes, lose }),
        1 => (1u8..40).prop_map(|hours| Event::Idle { hours }),
        5 => (0u8..5).prop_map(|back| Event::Begin { back }),
        5 => any::<bool>().prop_map(|newest| Event::End { newest }),
        1 => (offset.clone(), 0u8..6).prop_map(|(offset, zombie)| Event::FailOver { offset, zombie }),
        1 => (0u8..40, offset, prop::bool::weighted(0.8)).prop_map(|(segments, offset, archive_history)| {
            Event::GoBack { segments, offset, archive_history }
        }),
        1 => (0u8..5, 1u8..10).prop_map(|(timeline, count)| Event::Zombie { timeline, count }),
    ]
}

pub fn any_life(events_max: usize) -> impl Strategy<Value = Vec<Event>> {
    proptest::collection::vec(any_event(), 0..events_max)
}
