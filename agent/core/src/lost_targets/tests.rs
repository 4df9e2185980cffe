//! Tests of what damage costs.

use super::*;
use crate::backup_id::BackupKind;
use crate::blake3_hex::Blake3Hex;
use crate::catalog::{CatalogFacts, Part, StoredObject};
use crate::coverage::CoverageBuilder;
use crate::segment::{SegmentName, SegmentSize};
use crate::system_id::SystemId;
use crate::wal_file::WalFile;
use proptest::prelude::*;

const MIB: u64 = 1 << 20;

fn size() -> SegmentSize {
    SegmentSize::new(1 << 20).unwrap()
}

fn lsn(bytes: u64) -> Lsn {
    Lsn::new(bytes).unwrap()
}

fn at(second: u64) -> Timestamp {
    Timestamp::from_second(i64::try_from(second).unwrap()).unwrap()
}

fn tl(number: u32) -> TimelineId {
    TimelineId::new(number).unwrap()
}

/// A backup inside segment `number`, which is stored at second `60 number`.
fn backup(timeline: u32, number: u64) -> CatalogEntry {
    let object =
        |name: &str| StoredObject { name: name.to_owned(), stored_bytes: 5, blake3: Blake3Hex::of(b"x") };
    let started_at = at(number * 60 - 50);
    CatalogEntry::new(CatalogFacts {
        id: BackupId::new(started_at, BackupKind::Full),
        system_id: SystemId::new(7).unwrap(),
        segment_size: size(),
        pg_version_num: 150_018,
        data_checksums: true,
        timeline: tl(timeline),
        start_lsn: lsn(number * MIB + 0x28),
        stop_lsn: lsn(number * MIB + 0x100),
        started_at,
        stopped_at: at(number * 60 - 30),
        from_standby: false,
        label: String::new(),
        tool_version: String::new(),
        tablespaces: Vec::new(),
        parts: vec![Part {
            name: "base-0001.tar.zst".to_owned(),
            tablespace: None,
            stored_bytes: 1,
            raw_bytes: 1,
            files: 1,
            blake3: Blake3Hex::of(b"x"),
        }],
        manifest: object("backup_manifest"),
        file_list: object("files.json.zst"),
        bad_pages: Vec::new(),
    })
    .unwrap()
}

fn coverage(segments: impl IntoIterator<Item = (u32, u64)>) -> WalCoverage {
    let mut builder = CoverageBuilder::new(size());
    for (timeline, number) in segments {
        let name = SegmentName::from_number(tl(timeline), number, size()).unwrap();
        builder.add(WalFile::Segment(name), 1, at(number * 60));
    }
    builder.finish()
}

/// Backups in segments 5 and 20 of timeline 1, WAL up to 30; timeline 2 leaves it inside 25.
fn undamaged() -> Undamaged {
    let history = TimelineHistory::parse(tl(2), b"1\t0/1900100\tx\n").unwrap();
    Undamaged {
        catalog: vec![backup(1, 5), backup(1, 20)],
        histories: [(tl(2), history)].into(),
        coverage: coverage((5..=30).map(|n| (1, n)).chain((25..=40).map(|n| (2, n)))),
    }
}

fn segment(timeline: u32, number: u64) -> Unusable {
    Unusable { segments: [(tl(timeline), number)].into(), ..Unusable::default() }
}

fn lost(unusable: &Unusable) -> Vec<(u32, u64, u64, u64, u64)> {
    let shown = |lost: LostTargets| {
        let second = |time: Timestamp| u64::try_from(time.as_second()).unwrap();
        (
            lost.timeline.get(),
            lost.from_lsn.get(),
            lost.until_lsn.get(),
            second(lost.from_time),
            second(lost.until_time),
        )
    };
    undamaged().lost(unusable).into_iter().map(shown).collect()
}

#[test]
fn nothing_is_lost_by_nothing() {
    assert_eq!(lost(&Unusable::default()), []);
}

#[test]
fn a_bad_segment_loses_what_follows_up_to_the_next_backup() {
    let until = 20 * MIB + 0x100;
    let expected = [(1, 10 * MIB, until, 9 * 60, 20 * 60 - 30), (2, 10 * MIB, until, 9 * 60, 20 * 60 - 30)];
    assert_eq!(lost(&segment(1, 10)), expected);
}

#[test]
fn behind_the_last_backup_everything_is_lost() {
    assert_eq!(lost(&segment(1, 28)), [(1, 28 * MIB, 31 * MIB, 27 * 60, 30 * 60)]);
    assert_eq!(lost(&segment(2, 30)), [(2, 30 * MIB, 41 * MIB, 29 * 60, 40 * 60)]);
}

#[test]
fn a_backup_that_an_older_one_stands_in_for_costs_no_target() {
    let only = |number| Unusable { backups: [backup(1, number).id().clone()].into(), ..Unusable::default() };
    assert_eq!(lost(&only(20)), []);
    let first = 5 * MIB + 0x100;
    let expected = [1, 2].map(|tl| (tl, first, 20 * MIB + 0x100, 5 * 60 - 30, 20 * 60 - 30));
    assert_eq!(lost(&only(5)), expected);
    // Both together cost more than each alone.
    let mut both = only(5);
    both.add(&only(20));
    assert_eq!(lost(&both), [(1, first, 31 * MIB, 270, 1800), (2, first, 41 * MIB, 270, 2400)]);
}

#[test]
fn a_history_costs_its_timeline() {
    let history = Unusable { histories: [tl(2)].into(), ..Unusable::default() };
    assert_eq!(lost(&history), [(2, 5 * MIB + 0x100, 41 * MIB, 270, 2400)]);
}

#[test]
fn what_is_missing_is_filled_in_before_it_is_taken_away() {
    let gap = coverage((5..=30).filter(|n| *n != 12).map(|n| (1, n)));
    let whole = gap.with([(tl(1), 12, at(12 * 60))]);
    assert_eq!(whole.ranges(tl(1)).len(), 1);
    assert_eq!(whole.without(&[(tl(1), 12)].into()).gaps(tl(1)), gap.gaps(tl(1)));
}

proptest! {
    #[test]
    fn what_is_lost_and_what_is_left_make_the_whole(
        bad in proptest::collection::btree_set((1u32..3, 4u64..42), 0..4),
        first: bool,
        second: bool,
    ) {
        let whole = undamaged();
        let ids = [(first, 5), (second, 20)].into_iter().filter(|(bad, _)| *bad);
        let unusable = Unusable {
            segments: bad.into_iter().map(|(timeline, number)| (tl(timeline), number)).collect(),
            backups: ids.map(|(_, number)| backup(1, number).id().clone()).collect(),
            ..Unusable::default()
        };
        let sum = |windows: &[RecoveryWindow]| -> u64 {
            windows.iter().map(|window| window.until_lsn.bytes_since(window.from_lsn)).sum()
        };
        let lost: u64 = whole.lost(&unusable).iter().map(|lost| lost.until_lsn.bytes_since(lost.from_lsn)).sum();
        let left = sum(&whole.windows_without(&unusable));
        prop_assert_eq!(lost + left, sum(&whole.windows_without(&Unusable::default())));
    }
}
