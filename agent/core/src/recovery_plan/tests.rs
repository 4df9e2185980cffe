//! Tests of the recovery plan: which backup and WAL a target gets, and every refusal.

use super::*;
use crate::backup_id::BackupKind;
use crate::blake3_hex::Blake3Hex;
use crate::catalog::{BadPage, CatalogFacts, Part, StoredObject};
use crate::coverage::CoverageBuilder;
use crate::segment::SegmentSize;
use crate::target::{Inclusion, RestorePoint, TargetAction, TimelineChoice, TransactionId};
use crate::wal_file::WalFile;
use proptest::prelude::*;
use std::ops::RangeInclusive;

const MIB: u64 = 1 << 20;

fn tl(number: u32) -> TimelineId {
    TimelineId::new(number).unwrap()
}

fn lsn(bytes: u64) -> Lsn {
    Lsn::new(bytes).unwrap()
}

fn at(second: u64) -> Timestamp {
    Timestamp::from_second(i64::try_from(second).unwrap()).unwrap()
}

fn system(number: u64) -> SystemId {
    SystemId::new(number).unwrap()
}

/// A cluster with segments of 1 MiB, each stored one minute after the one before: segment `n`
/// at second `60 n`.
struct Archive {
    system: SystemId,
    catalog: Vec<CatalogEntry>,
    histories: BTreeMap<TimelineId, TimelineHistory>,
    segments: Vec<(u32, u64)>,
    /// Timelines that were stored that many minutes later than segments are.
    late: BTreeMap<u32, u64>,
}

impl Archive {
    fn new() -> Self {
        Self {
            system: system(7),
            catalog: Vec::new(),
            histories: BTreeMap::new(),
            segments: Vec::new(),
            late: BTreeMap::new(),
        }
    }

    fn late(mut self, timeline: u32, minutes: u64) -> Self {
        self.late.insert(timeline, minutes);
        self
    }

    fn wal(mut self, timeline: u32, numbers: RangeInclusive<u64>) -> Self {
        self.segments.extend(numbers.map(|number| (timeline, number)));
        self
    }

    fn without(mut self, timeline: u32, number: u64) -> Self {
        self.segments.retain(|segment| *segment != (timeline, number));
        self
    }

    fn history(mut self, timeline: u32, ancestors: &[(u32, u64)]) -> Self {
        let lines = ancestors.iter().map(|(parent, bytes)| format!("{parent}\t{}\tx\n", lsn(*bytes)));
        let text: String = lines.collect();
        let history = TimelineHistory::parse(tl(timeline), text.as_bytes()).unwrap();
        self.histories.insert(tl(timeline), history);
        self
    }

    /// A backup inside segment `number`, which ends half a minute before that segment is stored.
    fn backup(self, timeline: u32, number: u64) -> Self {
        self.backup_with(timeline, number, |_| {})
    }

    fn backup_with(mut self, timeline: u32, number: u64, change: impl FnOnce(&mut CatalogFacts)) -> Self {
        let object = |name: &str| StoredObject {
            name: name.to_owned(),
            stored_bytes: 5,
            blake3: Blake3Hex::of(name.as_bytes()),
        };
        let started_at = at(number * 60 - 50);
        let mut facts = CatalogFacts {
            id: BackupId::new(started_at, BackupKind::Full),
            system_id: self.system,
            segment_size: SegmentSize::new(1 << 20).unwrap(),
            pg_version_num: 150_018,
            data_checksums: true,
            timeline: tl(timeline),
            start_lsn: lsn(number * MIB + 0x28),
            stop_lsn: lsn(number * MIB + 0x100),
            started_at,
            stopped_at: at(number * 60 - 30),
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
        change(&mut facts);
        self.catalog.push(CatalogEntry::new(facts).unwrap());
        self
    }

    fn id(&self, index: usize) -> BackupId {
        self.catalog[index].id().clone()
    }

    fn coverage(&self) -> WalCoverage {
        let size = SegmentSize::new(1 << 20).unwrap();
        let mut builder = CoverageBuilder::new(size);
        for (timeline, number) in &self.segments {
            let name = SegmentName::from_number(tl(*timeline), *number, size).unwrap();
            let late = self.late.get(timeline).copied().unwrap_or(0);
            builder.add(WalFile::Segment(name), 10, at((number + late) * 60));
        }
        builder.finish()
    }

    fn plan(&self, request: &PlanRequest) -> Result<RecoveryPlan, PlanError> {
        let coverage = self.coverage();
        let holdings = Holdings {
            system_id: self.system,
            catalog: &self.catalog,
            histories: &self.histories,
            coverage: &coverage,
        };
        plan(holdings, request, at(1_000_000))
    }

    fn refusal(&self, request: &PlanRequest) -> (PlanError, String) {
        let error = self.plan(request).unwrap_err();
        let text = error.to_string();
        (error, text)
    }
}

/// Two backups on one timeline, WAL from 1 to 20.
fn simple() -> Archive {
    Archive::new().wal(1, 1..=20).backup(1, 2).backup(1, 10)
}

/// The same, left for timeline 2 in the middle of segment 12.
fn promoted() -> Archive {
    simple().wal(2, 12..=20).history(2, &[(1, 12 * MIB + 100)])
}

fn to(target: RecoveryTarget) -> PlanRequest {
    along(target, TimelineChoice::Latest)
}

fn along(target: RecoveryTarget, timeline: TimelineChoice) -> PlanRequest {
    PlanRequest {
        goal: RecoveryGoal::new(target, Inclusion::Inclusive, timeline, TargetAction::Promote).unwrap(),
        backup: None,
        restore_command: "wald-restore %f %p".to_owned(),
        archive_mode: ArchiveMode::Off,
    }
}

fn from(backup: BackupId, request: PlanRequest) -> PlanRequest {
    PlanRequest { backup: Some(backup), ..request }
}

fn time(second: u64) -> RecoveryTarget {
    RecoveryTarget::Time(at(second))
}

fn point(number: u64, offset: u64) -> RecoveryTarget {
    RecoveryTarget::Lsn(lsn(number * MIB + offset))
}

fn name() -> RecoveryTarget {
    RecoveryTarget::Name(RestorePoint::parse("before_migration").unwrap())
}

fn setting<'a>(plan: &'a RecoveryPlan, name: &str) -> Option<&'a str> {
    plan.settings.iter().find(|setting| setting.name == name).map(|setting| setting.value.as_str())
}

#[test]
fn the_newest_backup_that_ends_before_the_target_is_chosen() {
    let archive = simple();
    let chosen = |target| archive.plan(&to(target)).unwrap().backup.id;
    assert_eq!(chosen(RecoveryTarget::EndOfWal), archive.id(1));
    assert_eq!(chosen(RecoveryTarget::Immediate), archive.id(1));
    assert_eq!(chosen(time(10 * 60 - 30)), archive.id(1));
    assert_eq!(chosen(time(10 * 60 - 31)), archive.id(0));
    assert_eq!(chosen(point(10, 0x100)), archive.id(1));
    assert_eq!(chosen(point(10, 0xFF)), archive.id(0));
    assert_eq!(chosen(name()), archive.id(1));
}

#[test]
fn a_plan_holds_the_wal_that_is_needed_and_no_more() {
    let archive = simple();
    let wal = |target| {
        let plan = archive.plan(&to(target)).unwrap();
        assert_eq!(plan.download_bytes, 1000 + plan.wal_segments * 10);
        plan.wal_segments
    };
    assert_eq!(wal(RecoveryTarget::Immediate), 1);
    assert_eq!(wal(point(12, 0)), 3);
    assert_eq!(wal(point(12, MIB - 1)), 3);
    assert_eq!(wal(time(14 * 60)), 5);
    assert_eq!(wal(RecoveryTarget::EndOfWal), 11);
}

#[test]
fn the_settings_are_complete() {
    let plan = simple().plan(&to(time(700))).unwrap();
    assert_eq!(setting(&plan, "restore_command"), Some("wald-restore %f %p"));
    assert_eq!(setting(&plan, "recovery_target_time"), Some("1970-01-01 00:11:40+00"));
    assert_eq!(setting(&plan, "recovery_target_timeline"), Some("current"));
    assert_eq!(setting(&plan, "archive_mode"), Some("off"));
    assert_eq!(setting(&plan, "recovery_min_apply_delay"), Some("0"));
    for name in ["recovery_end_command", "archive_cleanup_command", "primary_conninfo", "primary_slot_name"] {
        assert_eq!(setting(&plan, name), Some(""), "{name}");
    }
    let keep = PlanRequest { archive_mode: ArchiveMode::Keep, ..to(time(700)) };
    let plan = simple().plan(&keep).unwrap();
    assert_eq!(setting(&plan, "archive_mode"), None);
    assert!(!plan.notes.contains(&PlanNote::ArchivingOff));
}

#[test]
fn recovery_follows_a_promotion_and_can_stay_on_the_old_line() {
    let archive = promoted();
    let plan = archive.plan(&to(RecoveryTarget::EndOfWal)).unwrap();
    assert_eq!(plan.timeline, tl(2));
    assert_eq!(setting(&plan, "recovery_target_timeline"), Some("2"));
    let switch = lsn(12 * MIB + 100);
    assert_eq!(
        plan.path,
        [PathStep { timeline: tl(1), until: Some(switch) }, PathStep { timeline: tl(2), until: None }]
    );
    let timelines: Vec<_> =
        plan.wal.iter().map(|range| (range.first.timeline().get(), range.segments)).collect();
    assert_eq!(timelines, [(1, 2), (2, 9)]);
    let old = archive.plan(&along(point(18, 0), TimelineChoice::Current)).unwrap();
    assert_eq!((old.timeline, old.wal.len()), (tl(1), 1));
    let named = archive.plan(&along(point(18, 0), TimelineChoice::Id(tl(1)))).unwrap();
    assert_eq!(named, old);
}

/// Timeline 2 branches off in segment 12, but its first segment is stored after 1 had reached 20.
fn went_back() -> Archive {
    Archive::new().wal(1, 1..=20).backup(1, 2).wal(2, 12..=14).history(2, &[(1, 12 * MIB + 100)]).late(2, 30)
}

#[test]
fn a_time_on_the_line_that_was_left_is_not_taken_for_one_on_the_latest() {
    let (error, text) = went_back().refusal(&to(time(18 * 60)));
    assert!(matches!(error, PlanError::AbandonedTimeline { .. }), "{text}");
    assert!(text.contains("nothing of timeline 2 was stored before 1970-01-01 00:42:00+00"), "{text}");
    assert!(text.contains("choose --target-timeline 1 for what was committed there"), "{text}");
    assert!(text.contains("or --target-timeline 2 for the new line"), "{text}");
    for number in [1, 2] {
        let told = along(time(18 * 60), TimelineChoice::Id(tl(number)));
        assert_eq!(went_back().plan(&told).unwrap().timeline, tl(number));
    }
    // The new line's own time is clear.
    assert_eq!(went_back().plan(&to(time(43 * 60))).unwrap().timeline, tl(2));
    // Of a line that only has a history, nothing is known to be older than the target.
    let no_wal = simple().history(2, &[(1, 12 * MIB + 100)]);
    assert!(matches!(no_wal.refusal(&to(time(11 * 60))).0, PlanError::AbandonedTimeline { begun: None, .. }));
}

#[test]
fn a_failover_leaves_nothing_behind_that_could_be_meant() {
    // The old primary's last segment may even be whole; nothing begins behind the switch point.
    let archive = Archive::new()
        .wal(1, 1..=12)
        .backup(1, 2)
        .wal(2, 12..=20)
        .history(2, &[(1, 12 * MIB + 100)])
        .late(2, 5);
    for second in [3 * 60, 12 * 60, 16 * 60] {
        assert_eq!(archive.plan(&to(time(second))).unwrap().timeline, tl(2));
    }
    // At a border, the old line's segment behind it is its own.
    let border =
        Archive::new().wal(1, 1..=12).backup(1, 2).wal(2, 12..=20).history(2, &[(1, 12 * MIB)]).late(2, 5);
    assert!(matches!(border.refusal(&to(time(12 * 60))).0, PlanError::AbandonedTimeline { .. }));
}

#[test]
fn a_backup_between_the_target_and_the_switch_proves_that_both_lines_are_the_same() {
    let archive = went_back().backup(1, 10);
    assert_eq!(archive.plan(&to(time(9 * 60))).unwrap().timeline, tl(2));
    assert!(archive.plan(&to(time(11 * 60))).is_err());
}

#[test]
fn a_backup_that_the_timeline_does_not_contain_is_passed_over_or_refused() {
    // The second backup was taken on timeline 1 after 2 had branched off.
    let archive = Archive::new()
        .wal(1, 1..=20)
        .wal(2, 5..=20)
        .history(2, &[(1, 5 * MIB + 100)])
        .backup(1, 2)
        .backup(1, 10);
    let plan = archive.plan(&to(RecoveryTarget::EndOfWal)).unwrap();
    assert_eq!((plan.backup.id, plan.timeline), (archive.id(0), tl(2)));
    let (error, text) = archive.refusal(&from(archive.id(1), to(RecoveryTarget::EndOfWal)));
    assert!(matches!(error, PlanError::NotOnTimeline { .. }), "{text}");
    assert!(text.contains("it leaves timeline 1 at 0/500064"), "{text}");
    assert!(text.contains("choose --target-timeline from 1, or another --backup"), "{text}");
}

#[test]
fn a_target_before_every_backup_is_refused_with_the_earliest_one() {
    let (error, text) = simple().refusal(&to(time(60)));
    assert!(matches!(error, PlanError::BeforeBackupEnd { older: None, .. }), "{text}");
    assert!(
        text.contains("which can be recovered to 1970-01-01 00:01:30+00 (LSN 0/200100) at the earliest"),
        "{text}"
    );
    assert!(text.contains("choose a later target"), "{text}");
}

#[test]
fn a_target_before_the_end_of_the_named_backup_is_refused_with_one_that_would_do() {
    let archive = simple();
    let (error, text) = archive.refusal(&from(archive.id(1), to(time(300))));
    assert!(matches!(error, PlanError::BeforeBackupEnd { .. }), "{text}");
    assert!(text.ends_with(&format!("choose --backup {}", archive.id(0))), "{text}");
    let (_, text) = archive.refusal(&from(archive.id(1), to(point(10, 0x50))));
    assert!(text.starts_with("LSN 0/A00050 lies before the end of backup"), "{text}");
}

#[test]
fn a_target_after_the_last_wal_is_refused() {
    let (error, text) = simple().refusal(&to(time(25 * 60 + 1)));
    assert!(matches!(error, PlanError::AfterLastWal { .. }), "{text}");
    assert!(text.contains("ends at LSN 0/1500000 and was stored at 1970-01-01 00:20:00+00"), "{text}");
    assert!(matches!(simple().refusal(&to(point(21, 0))).0, PlanError::AfterLastWal { .. }));
    assert!(simple().plan(&to(point(21, 0))).is_err() && simple().plan(&to(point(20, MIB - 1))).is_ok());
}

#[test]
fn a_repository_whose_clock_is_behind_does_not_make_a_target_unreachable() {
    for second in [20 * 60 + 3, 25 * 60] {
        let plan = simple().plan(&to(time(second))).unwrap();
        assert!(plan.notes.contains(&PlanNote::AfterLastStored { stored_until: at(20 * 60) }));
        assert!(!plan.notes.contains(&PlanNote::NothingMayFollow));
        assert!(plan.to_string().contains("PostgreSQL stops with an error if nothing was committed after"));
    }
    // With a gap ahead, what is missing may well be what was asked for.
    let (error, text) = simple().without(1, 15).refusal(&to(time(14 * 60 + 3)));
    assert!(matches!(error, PlanError::Gap { .. }), "{text}");
}

/// S3 cuts the time of storing off at the second.
#[test]
fn a_target_in_the_second_in_which_the_last_wal_was_stored_is_taken_with_a_note() {
    let target = RecoveryTarget::Time("1970-01-01T00:20:00.9Z".parse().unwrap());
    let plan = simple().plan(&to(target)).unwrap();
    assert_eq!(plan.wal_segments, 11);
    assert!(plan.notes.contains(&PlanNote::NothingMayFollow));
}

#[test]
fn a_gap_before_the_target_is_refused_and_named() {
    let archive = simple().without(1, 15);
    for target in [time(17 * 60), point(17, 0), RecoveryTarget::EndOfWal] {
        let (error, text) = archive.refusal(&to(target));
        assert!(matches!(error, PlanError::Gap { .. }), "{text}");
        assert!(text.contains("00000001000000000000000F is not in the repository"), "{text}");
        assert!(text.contains("up to LSN 0/F00000, stored at 1970-01-01 00:14:00+00"), "{text}");
        assert!(text.contains("--target-lsn 0/E00000"), "{text}");
    }
    assert!(archive.plan(&to(point(14, MIB - 1))).is_ok());
    let before = archive.plan(&to(time(13 * 60))).unwrap();
    assert!(before.notes.iter().any(|note| matches!(note, PlanNote::GapAhead { .. })));
}

#[test]
fn a_gap_behind_a_named_point_is_a_note() {
    let plan = simple().without(1, 15).plan(&to(name())).unwrap();
    assert!(plan.notes.iter().any(|note| matches!(note, PlanNote::GapAhead { .. })));
    assert_eq!(plan.wal_end, lsn(15 * MIB));
}

#[test]
fn a_backup_without_its_own_wal_is_refused() {
    let archive = simple().without(1, 10);
    for target in [RecoveryTarget::Immediate, RecoveryTarget::EndOfWal, time(15 * 60), name()] {
        let (error, text) = archive.refusal(&to(target));
        assert!(matches!(error, PlanError::BackupWalMissing { .. }), "{text}");
        assert!(text.contains("its WAL segment 00000001000000000000000A"), "{text}");
    }
}

#[test]
fn a_time_in_the_future_is_refused() {
    let (error, text) = simple().refusal(&to(time(1_000_001)));
    assert!(matches!(error, PlanError::InFuture { .. }), "{text}");
}

#[test]
fn another_clusters_backup_is_refused() {
    let archive = Archive::new().wal(1, 1..=20).backup_with(1, 2, |facts| facts.system_id = system(8));
    let (error, text) = archive.refusal(&to(RecoveryTarget::EndOfWal));
    assert!(matches!(error, PlanError::OtherSystem { .. }), "{text}");
    let other = SegmentSize::new(1 << 24).unwrap();
    let archive = Archive::new().wal(1, 1..=20).backup_with(1, 2, |facts| facts.segment_size = other);
    assert!(matches!(archive.refusal(&to(RecoveryTarget::EndOfWal)).0, PlanError::OtherSegmentSize { .. }));
}

#[test]
fn what_does_not_exist_is_refused_with_what_does() {
    assert_eq!(Archive::new().refusal(&to(RecoveryTarget::EndOfWal)).0, PlanError::NoBackup);
    let id = BackupId::parse("20200101T000000Z-full").unwrap();
    let (_, text) = simple().refusal(&from(id, to(RecoveryTarget::EndOfWal)));
    assert!(text.ends_with("holds 19700101T000910Z-full, 19700101T000110Z-full"), "{text}");
    let (error, text) = promoted().refusal(&along(RecoveryTarget::EndOfWal, TimelineChoice::Id(tl(9))));
    assert!(matches!(error, PlanError::UnknownTimeline { .. }));
    assert!(text.ends_with("it knows 1, 2"), "{text}");
}

#[test]
fn what_cannot_be_known_beforehand_is_said() {
    let xid = RecoveryTarget::Xid(TransactionId::parse("742").unwrap());
    let plan = simple().plan(&to(xid)).unwrap();
    let text = plan.to_string();
    assert!(text.contains(&format!("such as --backup {}", simple().id(0))), "{text}");
    let late = simple().plan(&to(time(20 * 60))).unwrap();
    assert!(late.notes.contains(&PlanNote::NothingMayFollow));
    let early = simple().plan(&to(time(18 * 60))).unwrap();
    assert!(!early.notes.contains(&PlanNote::NothingMayFollow));
    let page = BadPage { file: "base/5/1".to_owned(), block: 1, problem: String::new() };
    let damaged = Archive::new().wal(1, 1..=5).backup_with(1, 2, |facts| facts.bad_pages = vec![page]);
    let plan = damaged.plan(&to(RecoveryTarget::EndOfWal)).unwrap();
    assert!(plan.notes.contains(&PlanNote::BadPages { count: 1 }));
}

#[test]
fn a_plan_prints_and_serializes() {
    let plan = promoted().plan(&to(time(17 * 60))).unwrap();
    assert_eq!(
        plan.to_string(),
        "target     time 1970-01-01 00:17:00+00\n\
         backup     19700101T000910Z-full: 4.00 KiB in 3 files, consistent at 0/A00100 (1970-01-01 00:09:30+00), timeline 1\n\
         timelines  1 until 0/C00064, then 2\n\
         WAL        00000001000000000000000A to 00000001000000000000000B: 2 segments, 20 B\n\
         \x20          00000002000000000000000C to 000000020000000000000011: 6 segments, 60 B\n\
         download   1.05 KiB: 1000 B of backup, 80 B of WAL\n\
         settings   restore_command = 'wald-restore %f %p'\n\
         \x20          recovery_min_apply_delay = '0'\n\
         \x20          recovery_end_command = ''\n\
         \x20          archive_cleanup_command = ''\n\
         \x20          primary_conninfo = ''\n\
         \x20          primary_slot_name = ''\n\
         \x20          recovery_target = ''\n\
         \x20          recovery_target_lsn = ''\n\
         \x20          recovery_target_name = ''\n\
         \x20          recovery_target_xid = ''\n\
         \x20          recovery_target_time = '1970-01-01 00:17:00+00'\n\
         \x20          recovery_target_inclusive = 'true'\n\
         \x20          recovery_target_timeline = '2'\n\
         \x20          recovery_target_action = 'promote'\n\
         \x20          archive_mode = 'off'\n\
         note       the restored server does not archive (archive_mode = off); if it takes the old one's place, use \
         --archive-mode keep, or ALTER SYSTEM RESET archive_mode later\n"
    );
    let json: serde_json::Value = serde_json::to_value(&plan).unwrap();
    assert_eq!(json["target"]["kind"], "time");
    assert_eq!(json["target"]["value"], "1970-01-01T00:17:00Z");
    assert_eq!(json["wal"][1]["first"], "00000002000000000000000C");
    assert_eq!(json["path"][0]["until"], "0/C00064");
}

fn any_target() -> impl Strategy<Value = RecoveryTarget> {
    prop_oneof![
        Just(RecoveryTarget::EndOfWal),
        Just(RecoveryTarget::Immediate),
        Just(name()),
        (0u64..1600).prop_map(time),
        (0u64..26, 1u64..MIB).prop_map(|(number, offset)| point(number, offset)),
    ]
}

proptest! {
    #[test]
    fn a_plan_never_uses_a_missing_segment_nor_a_backup_that_ends_after_the_target(
        target in any_target(),
        timeline in prop_oneof![
            Just(TimelineChoice::Latest),
            Just(TimelineChoice::Current),
            (1u32..4).prop_map(|id| TimelineChoice::Id(tl(id))),
        ],
        backups in proptest::collection::btree_set((1u32..=3, 1u64..24), 0..5),
        missing in proptest::collection::btree_set((1u32..=3, 1u64..24), 0..4),
        switches in (1u64..24 * MIB, 1u64..24 * MIB),
    ) {
        let mut archive = Archive::new().wal(1, 1..=24).wal(2, 1..=24).wal(3, 1..=24);
        archive = archive.history(2, &[(1, switches.0)]).history(3, &[(1, switches.0), (2, switches.1)]);
        for (timeline, number) in &missing {
            archive = archive.without(*timeline, *number);
        }
        for (timeline, number) in backups {
            archive = archive.backup(timeline, number);
        }
        let Ok(plan) = archive.plan(&along(target.clone(), timeline)) else { return Ok(()) };
        let size = SegmentSize::new(1 << 20).unwrap();
        for range in &plan.wal {
            let numbers = range.first.number(size).unwrap()..=range.last.number(size).unwrap();
            for number in numbers {
                prop_assert!(archive.segments.contains(&(range.first.timeline().get(), number)));
            }
        }
        let first = plan.wal.first().unwrap().first.number(size).unwrap();
        prop_assert_eq!(first, plan.backup.start_lsn.get() / MIB);
        prop_assert!(plan.wal_end >= plan.backup.stop_lsn);
        match target {
            RecoveryTarget::Time(time) => prop_assert!(plan.backup.stopped_at <= time),
            RecoveryTarget::Lsn(lsn) => {
                prop_assert!(plan.backup.stop_lsn <= lsn);
                prop_assert!(plan.wal_end > lsn);
            }
            _ => {}
        }
        let history = &archive.histories.get(&plan.timeline).cloned();
        let history = history.clone().unwrap_or_else(|| TimelineHistory::without_ancestors(plan.timeline));
        prop_assert!(history.contains(plan.backup.timeline, plan.backup.stop_lsn));
    }
}

#[test]
fn windows_join_where_backups_overlap_and_split_at_gaps() {
    use crate::recovery_window::recovery_windows;
    let windows = |archive: &Archive| {
        let windows = recovery_windows(&archive.catalog, &archive.histories, &archive.coverage());
        let shown = windows
            .into_iter()
            .map(|w| (w.timeline.get(), w.from_lsn.get() / MIB, w.until_lsn.get() / MIB, w.backups.len()));
        shown.collect::<Vec<_>>()
    };
    assert_eq!(windows(&simple()), [(1, 2, 21, 2)]);
    assert_eq!(windows(&simple().without(1, 7)), [(1, 2, 7, 1), (1, 10, 21, 1)]);
    assert_eq!(windows(&simple().without(1, 10)), [(1, 2, 10, 1)]);
    assert_eq!(windows(&promoted()), [(1, 2, 21, 2), (2, 2, 21, 2)]);
    assert_eq!(windows(&Archive::new()), []);
    // A target inside a window has a plan; one outside has none.
    let archive = simple().without(1, 7);
    for number in 2..=21 {
        let inside = windows(&archive).iter().any(|(_, from, until, _)| (*from..*until).contains(&number));
        assert_eq!(archive.plan(&to(point(number, 0x100))).is_ok(), inside, "{number}");
    }
}
