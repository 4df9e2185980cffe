//! Tests of the plan of `wald expire`: whatever happens between runs and within them, no target in
//! the window is lost, and what nobody needs goes.

use super::repository::{Repository, Run, whole_backups};
use super::world::{Event, World, any_event, hours};
use super::{assert_nothing_is_missed, cases, policy};
use crate::object_lock::{LockMode, LockPolicy, ObjectLock};
use crate::retention::Policy;
use jiff::Timestamp;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// What happens to a cluster and its repository.
#[derive(Clone, Copy, Debug)]
enum Act {
    Live(Event),
    /// A run of expire.
    Expire,
    /// A run that is interrupted after so many requests, and run again.
    Interrupted(u8),
    /// Two runs at once; in between something happens, and each bit says whose turn it is.
    Two(Event, u64),
    /// Somebody deletes an object by its name.
    Hide(u16),
    /// Somebody writes over an object.
    Overwrite(u16),
    /// The repository loses an object of a backup, or the end of it.
    Lose(u16, bool),
}

fn any_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        12 => any_event().prop_map(Act::Live),
        2 => Just(Act::Expire),
        2 => any::<u8>().prop_map(Act::Interrupted),
        2 => (any_event(), any::<u64>()).prop_map(|(event, turns)| Act::Two(promised(event), turns)),
        1 => any::<u16>().prop_map(Act::Hide),
        1 => any::<u16>().prop_map(Act::Overwrite),
        1 => any::<(u16, bool)>().prop_map(|(number, whole)| Act::Lose(number, whole)),
    ]
}

/// What may happen between a plan and its deletions. Not: that WAL of an abandoned line arrives
/// of which nothing was stored for longer than the window, or that the cluster is restored to a
/// point before the window. Then what is deleted was superfluous when that began.
fn promised(event: Event) -> Event {
    match event {
        Event::Zombie { count, .. } => Event::Write { count, late_minutes: 0, lose: 0 },
        Event::GoBack { offset, .. } => Event::FailOver { offset, zombie: 0 },
        event => event,
    }
}

fn any_lock() -> impl Strategy<Value = Option<LockPolicy>> {
    let mode = prop_oneof![Just(LockMode::Governance), Just(LockMode::Compliance)];
    prop_oneof![Just(None), (mode, 0u32..6).prop_map(|(mode, days)| Some(LockPolicy { mode, days }))]
}

fn locks(repository: &Repository) -> BTreeMap<u64, Option<ObjectLock>> {
    repository.versions.iter().map(|version| (version.id, version.lock)).collect()
}

struct Scene {
    world: World,
    repository: Repository,
    policy: Policy,
    written_over: bool,
}

impl Scene {
    fn new(policy: Policy, lock: Option<LockPolicy>) -> Self {
        Self { world: World::new(), repository: Repository::new(lock), policy, written_over: false }
    }

    fn live(&mut self, event: Event) {
        self.world.apply(event);
        self.repository.archive(&self.world);
    }

    fn planned(&self) -> Run {
        self.repository.plan(&self.world, self.policy)
    }

    fn begin(&self) -> Timestamp {
        self.world.now - self.policy.window
    }

    /// Does something to the repository, and checks that nothing in the window was lost by it.
    fn checked(&mut self, work: impl FnOnce(&mut Self)) {
        let before = self.repository.clone();
        let from = self.begin();
        work(self);
        let now = self.world.now;
        // What is hidden can come to light again, and must not be lost before.
        let (old, new) = (before.uncovered(), self.repository.uncovered());
        let (old, new) = (old.restorable(&self.world), new.restorable(&self.world));
        assert_nothing_is_missed(&old, &new, from);
        let left: Vec<String> = new.catalog.iter().map(|entry| entry.id().to_string()).collect();
        let (was, is) = (whole_backups(&old), whole_backups(&new));
        for backup in left {
            assert!(
                !was.contains(&backup) || is.contains(&backup),
                "{backup} is in the catalog and not whole"
            );
        }
        let locks_now = locks(&self.repository);
        for (id, lock) in locks(&before) {
            match (locks_now.get(&id), lock) {
                (None, Some(lock)) => assert!(lock.until <= now, "a locked version was deleted"),
                (Some(new), Some(lock)) => {
                    assert!(new.is_some_and(|new| new.covers(&lock)), "a lock was shortened")
                }
                (_, None) => {}
            }
        }
    }

    /// Until the next run nothing that is needed is without its lock, and no lock is endless.
    fn assert_locked(&self, after: &Run) {
        let Some(policy) = self.repository.lock else { return };
        let farthest = self.world.now + self.policy.window;
        for kept in &after.plan.keep {
            let version = &self.repository.versions[kept.version];
            let wanted = ObjectLock { mode: policy.mode, until: kept.until.min(farthest) };
            assert!(version.lock.is_some_and(|lock| lock.covers(&wanted)), "{}", version.name);
            let at_creation = policy.lock_at(version.stored_at).until;
            let longest = at_creation.max(farthest + hours(31));
            assert!(version.lock.is_some_and(|lock| lock.until <= longest), "{}", version.name);
        }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Live(event) => self.live(event),
            Act::Expire => self.checked(|scene| {
                scene.repository.expire(&scene.world, scene.policy);
                // What somebody wrote over seems to be stored when that was. It can make a line seem
                // to reach further once the WAL behind it is gone; that ends after a run or two.
                for _ in 0..if scene.written_over { 4 } else { 0 } {
                    scene.repository.expire(&scene.world, scene.policy);
                }
                let again = scene.planned();
                scene.assert_locked(&again);
                assert!(again.plan.is_empty(), "a second run does something: {:?}", again.steps);
                let all = scene.repository.uncovered().restorable(&scene.world);
                assert_nothing_is_missed(&all, &scene.repository.restorable(&scene.world), scene.begin());
            }),
            Act::Interrupted(after) => {
                let mut uninterrupted = self.repository.clone();
                uninterrupted.expire(&self.world, self.policy);
                self.checked(|scene| {
                    let mut run = scene.planned();
                    for _ in 0..after {
                        scene.repository.step(&mut run, scene.world.now);
                    }
                });
                self.checked(|scene| {
                    scene.repository.expire(&scene.world, scene.policy);
                });
                // Of a backup that lost its entry before it was two days old, the rest takes time.
                let waits = self.planned().plan.pending;
                let listing = self.repository.listing();
                let waits: Vec<&str> = waits.iter().map(|left| listing[left.version].name.as_str()).collect();
                let mut left = self.repository.names();
                left.retain(|(name, _)| !waits.contains(&name.as_str()));
                assert!(left.is_subset(&uninterrupted.names()));
                assert!(uninterrupted.names().is_subset(&self.repository.names()));
            }
            Act::Two(event, turns) => {
                self.world.let_arrive();
                self.repository.archive(&self.world);
                let mut first = self.planned();
                // A promotion tells of all its ancestors, and so of a return to before the window
                // whose own history never came.
                self.live(if self.world.is_known() { event } else { Event::Idle { hours: 1 } });
                let mut second = self.planned();
                self.checked(|scene| {
                    let now = scene.world.now;
                    for turn in 0..64 {
                        let run = if turns >> turn & 1 == 1 { &mut first } else { &mut second };
                        scene.repository.step(run, now);
                    }
                });
                self.checked(|scene| {
                    let now = scene.world.now;
                    for mut run in [first, second] {
                        while scene.repository.step(&mut run, now) {}
                    }
                });
            }
            Act::Hide(number) => {
                if let Some(name) = self.repository.pick(number) {
                    self.repository.put(&name, self.world.now, true);
                }
            }
            Act::Lose(number, whole) => {
                let is_object = |name: &String| name.contains("Z-full/");
                if let Some(name) = self.repository.pick(number).filter(is_object) {
                    if whole {
                        self.repository.versions.retain(|version| version.name != name);
                    }
                    for version in self.repository.versions.iter_mut().filter(|v| v.name == name) {
                        version.truncated = true;
                    }
                }
            }
            Act::Overwrite(number) => {
                if let Some(name) = self.repository.pick(number) {
                    self.repository.put(&name, self.world.now, false);
                    self.written_over = true;
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(60)))]

    #[test]
    fn whatever_happens_every_target_in_the_window_stays(
        acts in proptest::collection::vec(any_act(), 0..70),
        window in 1i64..80,
        backups_min in 1u32..5,
        lock in any_lock(),
    ) {
        let mut scene =
            Scene::new(policy(window, backups_min), lock);
        for act in acts {
            scene.act(act);
        }
        scene.act(Act::Expire);
    }
}

/// A day with a backup at its beginning.
const DAY: [Event; 3] = [
    Event::Begin { back: 1 },
    Event::End { newest: false },
    Event::Write { count: 23, late_minutes: 0, lose: 0 },
];

#[test]
fn day_by_day_garbage_goes_and_locks_are_extended_once() {
    for lock in [None, Some(LockPolicy { mode: LockMode::Compliance, days: 3 })] {
        let policy = policy(72, 2);
        let mut scene = Scene::new(policy, lock);
        let mut nightly = Vec::new();
        for _ in 0..20 {
            for event in DAY {
                scene.live(event);
            }
            nightly.push(scene.planned().plan.extend.len());
            scene.act(Act::Expire);
        }
        let seen = scene.repository.seen_by_restore(&scene.world);
        // The window, a day for restores, that of the anchor, today, and those by which locks are longer.
        assert!(seen.catalog.len() <= 8, "{}", seen.catalog.len());
        assert!(seen.segments.len() <= 8 * 24, "{}", seen.segments.len());
        // A day has 24 segments and 8 other objects.
        let steady: usize = nightly[10..].iter().sum();
        assert!(steady <= 10 * 33, "{nightly:?}");
        // Everything stops, and at last only what must be is left.
        for _ in 0..20 {
            scene.live(Event::Idle { hours: 24 });
            scene.act(Act::Expire);
        }
        let seen = scene.repository.seen_by_restore(&scene.world);
        assert_eq!(seen.catalog.len(), 2);
        assert!(seen.segments.len() <= 3 * 24, "{}", seen.segments.len());
    }
}

#[test]
fn wal_of_a_backup_that_is_still_running_is_left_alone() {
    let write = Event::Write { count: 6, late_minutes: 0, lose: 0 };
    let mut scene = Scene::new(policy(2, 1), None);
    // A short backup begins and ends while a long one runs, and leaves the window behind.
    for event in
        [Event::Begin { back: 0 }, write, Event::Begin { back: 0 }, Event::End { newest: true }, write]
    {
        scene.live(event);
    }
    let stored = |scene: &Scene| scene.repository.seen_by_restore(&scene.world).segments.len();
    let all = stored(&scene);
    scene.act(Act::Expire);
    assert_eq!(stored(&scene), all);
    assert!(scene.planned().plan.pending.len() > 6);
    scene.live(Event::End { newest: false });
    assert_eq!(whole_backups(&scene.repository.seen_by_restore(&scene.world)).len(), 2);
    scene.act(Act::Expire);
}

#[test]
fn a_backup_with_a_longer_lock_keeps_its_wal_until_it_goes() {
    let mut scene = Scene::new(policy(48, 1), None);
    for _ in 0..10 {
        for event in DAY {
            scene.live(event);
        }
    }
    let (now, first) = (scene.world.now, scene.world.catalog[0].clone());
    let part = first.object_key("base-0001.tar.zst").unwrap();
    let until = now + hours(24);
    for version in scene.repository.versions.iter_mut().filter(|version| version.name == part.as_str()) {
        version.lock = Some(ObjectLock { mode: LockMode::Compliance, until });
    }
    scene.act(Act::Expire);
    let seen = scene.repository.seen_by_restore(&scene.world);
    assert!(seen.catalog.iter().any(|entry| entry.id() == first.id()));
    assert!(seen.catalog.len() <= 6 && seen.segments.len() == scene.world.segments.len());
    scene.live(Event::Idle { hours: 25 });
    scene.act(Act::Expire);
    let seen = scene.repository.seen_by_restore(&scene.world);
    assert!(seen.segments.len() < 5 * 24, "{}", seen.segments.len());
}

#[test]
fn what_wald_does_not_know_is_never_touched() {
    let mut scene = Scene::new(policy(1, 1), None);
    let strangers = ["notes.txt", "wal/readme", "catalog/x.json", "2026/10/01/x/base-0001.tar.zst"];
    for name in strangers {
        scene.repository.put(name, scene.world.now, false);
        scene.repository.put(name, scene.world.now, true);
    }
    for event in [DAY; 5].concat() {
        scene.live(event);
    }
    scene.act(Act::Expire);
    let names = scene.repository.names();
    for name in strangers {
        assert!(
            names.contains(&(name.to_owned(), false)) && names.contains(&(name.to_owned(), true)),
            "{name}"
        );
    }
    assert_eq!(scene.planned().plan.unknown.len(), 8);
}
