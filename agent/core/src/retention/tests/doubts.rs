//! Tests of what retention does not take at its word: entries, clocks, listings.

use super::world::Event::{Begin, End, Write};
use super::world::{World, seen_of};
use super::*;

/// Ten days, each with a backup.
fn ten_days() -> World {
    let day = [Begin { back: 0 }, End { newest: false }, Write { count: 23, late_minutes: 0, lose: 0 }];
    World::of(&[day; 10].concat())
}

fn with(world: &World, seen: &Seen, policy: Policy) -> Needed {
    let coverage = world.coverage();
    needed(Basis { holdings: world.holdings(&coverage), unreadable: &[], seen }, policy, world.now)
}

fn kept(needed: &Needed) -> Vec<String> {
    needed.backups().filter(|(_, kept)| kept.is_some()).map(|(id, _)| id.to_string()).collect()
}

#[test]
fn a_backup_that_lost_a_part_stands_in_for_no_other() {
    let world = ten_days();
    let whole = kept(&find(&world, policy(24, 2)));
    let anchor = world.catalog.iter().find(|entry| entry.id().to_string() == whole[0]).unwrap();
    for bytes in [None, Some(999)] {
        let mut seen = seen_of(&world);
        seen.note(anchor.object_key("base-0001.tar.zst").unwrap().as_str(), bytes, world.now);
        let needed = with(&world, &seen, policy(24, 2));
        // The one before it is the anchor now.
        assert_eq!(kept(&needed).len(), whole.len() + 1);
        let missing = Unsound::Missing("base-0001.tar.zst".to_owned());
        assert_eq!(needed.unsound(), [(anchor.id().clone(), missing)]);
    }
    let nothing = with(&world, &Seen::default(), policy(24, 2));
    assert_eq!(nothing.everything(), Some(&Reason::NoBackup));
}

#[test]
fn an_entry_that_was_listed_and_not_read_is_no_leftover_and_stops_everything() {
    let mut world = ten_days();
    let seen = seen_of(&world);
    let lost = ObjectKey::catalog(world.catalog.remove(3).id());
    let needed = with(&world, &seen, policy(24, 2));
    assert_eq!(needed.everything(), Some(&Reason::Unreadable { key: lost.to_string() }));
    assert_eq!(trimmed(&world, &needed).segments.len(), world.segments.len());
    // Even where no listing showed it.
    let stranger = "catalog/20200101T000000Z-full.json";
    assert!(matches!(needed.of(stranger, world.now - hours(900)), Need::Needed { .. }));
}

#[test]
fn the_later_of_two_clocks_says_when_a_backup_ended() {
    let world = ten_days();
    let whole = kept(&find(&world, policy(24, 1)));
    let anchor = world.catalog.iter().find(|entry| entry.id().to_string() == whole[0]).unwrap();
    let mut seen = seen_of(&world);
    seen.note(ObjectKey::catalog(anchor.id()).as_str(), Some(10), world.now - hours(30));
    assert_eq!(kept(&with(&world, &seen, policy(24, 1))).len(), whole.len() + 1);
}

#[test]
fn a_backup_of_the_future_is_kept_and_does_not_count() {
    let mut world = ten_days();
    let real = world.now;
    // The database's clock was years ahead for the last backup.
    let ahead = world.catalog.last().unwrap().clone();
    world.now = ahead.stopped_at() - hours(48);
    let needed = with(&world, &seen_of(&world), policy(24, 1));
    assert!(world.now < real && needed.unsound().contains(&(ahead.id().clone(), Unsound::OfTheFuture)));
    assert!(kept(&needed).contains(&ahead.id().to_string()));
    let minimum =
        needed.backups().filter(|(_, kept)| matches!(kept, Some((BackupReason::Minimum { .. }, _))));
    assert!(minimum.into_iter().all(|(id, _)| id != ahead.id()));
}
