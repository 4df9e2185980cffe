//! Tests of retention: whatever a cluster has been through, what is not needed is not missed.

mod expire;
mod doubts;
mod repository;
mod world;

use super::*;
use crate::object_key::ObjectKey;
use crate::segment::SegmentName;
use crate::target::{RecoveryTarget, TimelineChoice};
use crate::wal_file::WalFile;
use jiff::Timestamp;
use proptest::prelude::*;
use world::{World, any_life, hours, is_no_loss, named_way, restore, seen_of, size, tl};

fn policy(window_hours: i64, backups_min: u32) -> Policy {
    Policy { window: hours(window_hours), ..Policy::new(1, backups_min) }
}

fn segment_key(timeline: u32, number: u64) -> ObjectKey {
    ObjectKey::wal(WalFile::Segment(SegmentName::from_number(tl(timeline), number, size()).unwrap()))
}

fn partial(timeline: u32, number: u64) -> ObjectKey {
    ObjectKey::wal(WalFile::Partial(SegmentName::from_number(tl(timeline), number, size()).unwrap()))
}

fn find(world: &World, policy: Policy) -> Needed {
    let coverage = world.coverage();
    let seen = seen_of(world);
    let basis = Basis { holdings: world.holdings(&coverage), unreadable: &[], seen: &seen };
    needed(basis, policy, world.now)
}

fn is_needed(needed: &Needed, key: &ObjectKey, stored_at: Timestamp) -> bool {
    matches!(needed.of(key.as_str(), stored_at), Need::Needed { .. })
}

/// The world without everything that is not needed.
fn trimmed(world: &World, needed: &Needed) -> World {
    let mut left = world.clone();
    left.catalog.retain(|entry| is_needed(needed, &ObjectKey::catalog(entry.id()), entry.stopped_at()));
    left.segments.retain(|(timeline, number), at| is_needed(needed, &segment_key(*timeline, *number), *at));
    left
}

/// What the planner said before it must say afterwards, for every moment of the window on every
/// line.
fn assert_nothing_is_missed(before: &World, after: &World, from: Timestamp) {
    let (old, new) = (before.coverage(), after.coverage());
    let (old, new, now) = (before.holdings(&old), after.holdings(&new), before.now);
    for time in before.moments(from) {
        for choice in before.choices() {
            if let Ok(way) = restore(old, RecoveryTarget::Time(time), choice, None, now) {
                let still = restore(new, RecoveryTarget::Time(time), choice, None, now);
                assert_eq!(Ok(way), still, "{time} {choice:?}");
            } else if let Some(way) = named_way(old, time, choice, now) {
                let still = named_way(new, time, choice, now).is_some() || is_no_loss(new, &way, time, now);
                assert!(still, "{time} {choice:?} by a backup that is named");
            }
        }
    }
    for target in [RecoveryTarget::EndOfWal, RecoveryTarget::Immediate] {
        if let Ok(way) = restore(old, target.clone(), TimelineChoice::Latest, None, now) {
            assert_eq!(Ok(way), restore(new, target, TimelineChoice::Latest, None, now));
        }
    }
}

/// More on request: `WALD_RETENTION_CASES=3000 cargo test --release -p wald-core retention`.
fn cases(usual: u32) -> u32 {
    std::env::var("WALD_RETENTION_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(300)))]

    #[test]
    fn every_target_in_the_window_is_reached_as_before_without_what_is_not_needed(
        life in any_life(60),
        window in 1i64..100,
        backups_min in 1u32..6,
    ) {
        let world = World::of(&life);
        let needed = find(&world, policy(window, backups_min));
        assert_nothing_is_missed(&world, &trimmed(&world, &needed), needed.window_begin());
    }

    #[test]
    fn what_a_target_needs_is_needed_until_the_target_leaves_the_window(
        life in any_life(60),
        window in 1i64..100,
        backups_min in 1u32..6,
    ) {
        let world = World::of(&life);
        let needed = find(&world, policy(window, backups_min));
        let coverage = world.coverage();
        let until = |key: &ObjectKey, stored_at: Timestamp| match needed.of(key.as_str(), stored_at) {
            Need::Needed { until, .. } => until,
            other => panic!("{key}: {other:?}"),
        };
        for time in world.moments(needed.window_begin()) {
            let leaves = time + hours(window);
            for choice in world.choices() {
                let target = RecoveryTarget::Time(time);
                let Ok(way) = restore(world.holdings(&coverage), target, choice, None, world.now) else {
                    continue;
                };
                prop_assert!(until(&ObjectKey::catalog(&way.backup.id), way.backup.stopped_at) >= leaves);
                for range in way.wal {
                    let numbers = range.first.number(size()).unwrap()..=range.last.number(size()).unwrap();
                    for number in numbers {
                        let timeline = range.first.timeline().get();
                        let until = until(&segment_key(timeline, number), world.segments[&(timeline, number)]);
                        prop_assert!(until >= leaves, "{} {}", number, time);
                    }
                }
            }
        }
    }
}

#[test]
fn a_cluster_that_is_dead_for_long_keeps_its_last_backup_and_what_follows() {
    use world::Event::{Begin, End, Idle, Write};
    let write = Write { count: 5, late_minutes: 0, lose: 0 };
    let backup = [Begin { back: 0 }, End { newest: false }, write];
    let mut world = World::of(&[backup, backup, backup].concat());
    world.apply(Idle { hours: 200 });
    let needed = find(&world, policy(24, 1));
    let kept: Vec<_> = needed.backups().filter_map(|(id, kept)| Some((id.clone(), kept?.0))).collect();
    let last = world.catalog.last().unwrap();
    assert_eq!(kept, [(last.id().clone(), BackupReason::Anchor { timeline: tl(1) })]);
    let left = trimmed(&world, &needed);
    let first = left.segments.keys().next().unwrap();
    assert_eq!(first.1, last.start_lsn().get() / world::MIB);
    assert_eq!(left.segments.len(), 6);
}

#[test]
fn a_line_that_was_left_is_kept_until_its_last_target_leaves_the_window() {
    use world::Event::{Begin, End, FailOver, Idle, Write};
    let write = |count| Write { count, late_minutes: 0, lose: 0 };
    let backup = [Begin { back: 0 }, End { newest: false }];
    let mut world = World::of(&[&backup[..], &[write(5), FailOver { offset: 100, zombie: 4 }]].concat());
    let zombie = |world: &World| {
        let needed = find(world, policy(24, 1));
        let on_one = world.segments.iter().filter(|((timeline, _), _)| *timeline == 1);
        on_one.filter(|((tl, n), at)| is_needed(&needed, &segment_key(*tl, *n), **at)).count()
    };
    for event in backup {
        world.apply(event);
    }
    assert_eq!(zombie(&world), 10);
    world.apply(Idle { hours: 22 });
    assert_eq!(zombie(&world), 10);
    // Now the new line has an anchor of its own, and nothing on the old one is a target.
    world.apply(Idle { hours: 30 });
    assert_eq!(zombie(&world), 0);
}

#[test]
fn the_parents_file_of_the_segment_of_a_switch_is_needed_too() {
    use world::Event::{Begin, End, FailOver, Idle, Write};
    let write = |count| Write { count, late_minutes: 0, lose: 0 };
    let mut world = World::of(&[Begin { back: 0 }, End { newest: false }, write(3)]);
    world.apply(FailOver { offset: 100, zombie: 2 });
    world.segments.remove(&(2, 5));
    world.apply(Idle { hours: 100 });
    let left = trimmed(&world, &find(&world, policy(24, 1)));
    assert!(left.segments.contains_key(&(1, 5)) && !left.segments.contains_key(&(1, 6)));
    assert!(is_needed(&find(&world, policy(24, 1)), &partial(1, 5), world.now));
    assert_nothing_is_missed(&world, &left, world.now - hours(24));
}

#[test]
fn a_backup_with_a_hole_in_its_wal_does_not_stand_in_for_a_whole_one() {
    use world::Event::{Begin, End, Idle, Write};
    let write = |count| Write { count, late_minutes: 0, lose: 0 };
    // The first one to begin ends last, and a segment that only it needs is lost.
    let long = [Begin { back: 0 }, write(5), Begin { back: 0 }, write(5)];
    let mut world =
        World::of(&[&long[..], &[End { newest: true }, End { newest: false }, write(70)]].concat());
    world.segments.remove(&(1, 3));
    for event in [Begin { back: 0 }, End { newest: true }, Idle { hours: 1 }] {
        world.apply(event);
    }
    let needed = find(&world, policy(24, 1));
    assert_eq!(needed.backups().filter(|(_, kept)| kept.is_some()).count(), 3);
    assert_nothing_is_missed(&world, &trimmed(&world, &needed), needed.window_begin());
}

#[test]
fn garbage_goes_once_the_window_has_passed_over_a_newer_backup() {
    use world::Event::{Begin, End, Write};
    let day = [
        Begin { back: 0 },
        Write { count: 1, late_minutes: 0, lose: 0 },
        End { newest: false },
        Write { count: 22, late_minutes: 0, lose: 0 },
    ];
    let world = World::of(&[day; 20].concat());
    let left = trimmed(&world, &find(&world, policy(72, 2)));
    // Three days, one for restores that run, the day of the anchor, and what is of today.
    assert!(left.catalog.len() <= 6, "{}", left.catalog.len());
    assert!(left.segments.len() <= 6 * 24, "{}", left.segments.len());
    let many = trimmed(&world, &find(&world, policy(72, 10)));
    assert_eq!(many.catalog.len(), 10);
    let first = many.catalog.first().unwrap().start_lsn().get() / world::MIB;
    assert_eq!(many.segments.keys().next(), Some(&(1, first)));
}

#[test]
fn everything_is_needed_where_something_cannot_be_understood_or_no_backup_is_whole() {
    use world::Event::{Begin, End, Write};
    let day = [Begin { back: 0 }, End { newest: false }, Write { count: 23, late_minutes: 0, lose: 0 }];
    let mut world = World::of(&[day; 10].concat());
    let coverage = world.coverage();
    let unreadable = [ObjectKey::wal(WalFile::History(tl(9))).to_string()];
    let basis =
        Basis { holdings: world.holdings(&coverage), unreadable: &unreadable, seen: &seen_of(&world) };
    let found = needed(basis, policy(24, 1), world.now);
    assert_eq!(trimmed(&world, &found).catalog.len(), 10);
    assert!(matches!(found.everything(), Some(Reason::Unreadable { .. })));
    world.segments.retain(|(_, number), _| number % 24 != 1);
    let found = find(&world, policy(24, 1));
    assert_eq!(found.everything(), Some(&Reason::NoBackup));
    let left = trimmed(&world, &found);
    assert_eq!((left.catalog.len(), left.segments.len()), (10, world.segments.len()));
}

#[test]
fn what_may_be_under_way_is_left_alone_for_a_while() {
    let world = World::new();
    let mut seen = Seen::default();
    let young = "2026/10/31/20261031T220000Z-full/base-0001.tar.zst";
    let old = "2026/10/20/20261020T000000Z-full/base-0001.tar.zst";
    let grown = "2026/10/21/20261021T000000Z-full/base-0001.tar.zst";
    let (now, long_ago) = (world.now, world.now - hours(300));
    seen.note(young, Some(1), now - hours(2));
    seen.note(old, Some(1), long_ago);
    seen.note(grown, Some(1), long_ago);
    seen.note("2026/10/21/20261021T000000Z-full/base-0002.tar.zst", Some(1), now - hours(47));
    seen.note("check/guarantees-20261001T000000Z.json", Some(1), long_ago);
    seen.note("check/guarantees-20261002T000000Z.json", Some(1), long_ago);
    seen.note("verify/20260101T000000Z.json", Some(1), long_ago);
    let coverage = world.coverage();
    let basis = Basis { holdings: world.holdings(&coverage), unreadable: &[], seen: &seen };
    let needed = needed(basis, policy(24, 1), now);
    let pending = |name: &str, at| matches!(needed.of(name, at), Need::Pending { .. });
    assert!(
        pending(young, now - hours(2)) && pending(grown, long_ago) && pending("check/x", now - hours(23))
    );
    let not = |name: &str, at| matches!(needed.of(name, at), Need::NotNeeded(_));
    assert!(not(old, long_ago) && not("check/x", now - hours(25)));
    assert!(not("check/guarantees-20261001T000000Z.json", long_ago));
    assert!(not("expire/20260101T000000Z.json", now - hours(24 * 91)));
    let needs = |name: &str, at| matches!(needed.of(name, at), Need::Needed { .. });
    assert!(needs("check/guarantees-20261002T000000Z.json", long_ago));
    assert!(
        needs("verify/20260101T000000Z.json", long_ago) && needs("expire/20260101T000000Z.json", long_ago)
    );
    assert!(needs("wald.json", long_ago) && needs("wal/00000002.history", long_ago));
    assert_eq!(needed.of("notes.txt", long_ago), Need::Unknown);
    // Its lower part is above the roll-over of segments of 1 MiB.
    assert_eq!(needed.of("wal/000000010000000000010000.zst", now), Need::Unknown);
}

#[test]
fn a_hundred_thousand_segments_are_no_burden() {
    let mut world = World::new();
    for number in 0..40 {
        world.apply(world::Event::Begin { back: 0 });
        world.apply(world::Event::End { newest: false });
        let from = number * 2500;
        world.segments.extend((from..from + 2500).map(|number| ((1, number), world.now)));
    }
    let listed = |((timeline, number), stored_at): (&(u32, u64), &Timestamp)| ListedVersion {
        name: segment_key(*timeline, *number).to_string(),
        id: *number,
        is_latest: true,
        kind: VersionKind::Object,
        size_bytes: 10,
        stored_at: *stored_at,
    };
    let versions: Vec<_> = world.segments.iter().map(listed).collect();
    let began = std::time::Instant::now();
    let survey = Survey::of(&versions);
    let (coverage, seen) = (survey.coverage(size()), seen_of(&world));
    let basis = Basis { holdings: world.holdings(&coverage), unreadable: &[], seen: &seen };
    let needed = needed(basis, policy(1, 1), world.now);
    let locks = vec![LockState::Free; versions.len()];
    let (uploads, now) = (&[], world.now);
    let inputs = Inputs { needed: &needed, versions: &versions, locks: &locks, uploads, lock: None, now };
    let plan = plan(inputs);
    assert!(
        !plan.keep.is_empty() && plan.delete.len() + plan.keep.len() + plan.pending.len() == versions.len()
    );
    assert!(began.elapsed().as_secs() < 10, "{:?}", began.elapsed());
}
