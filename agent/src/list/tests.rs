//! Tests of `wald list`: its table and its JSON.

use super::*;
use crate::inventory::Role;
use std::collections::BTreeMap;
use wald_core::backup_id::BackupKind;
use wald_core::blake3_hex::Blake3Hex;
use wald_core::catalog::{CatalogFacts, Part, StoredObject};
use wald_core::coverage::CoverageBuilder;
use wald_core::segment::{SegmentName, SegmentSize};
use wald_core::wal_file::WalFile;

fn entry() -> CatalogEntry {
    let object =
        |name: &str| StoredObject { name: name.to_owned(), stored_bytes: 5, blake3: Blake3Hex::of(b"x") };
    let started_at: Timestamp = "2026-11-22T02:00:00Z".parse().unwrap();
    CatalogEntry::new(CatalogFacts {
        id: BackupId::new(started_at, BackupKind::Full),
        system_id: SystemId::new(7).unwrap(),
        segment_size: SegmentSize::DEFAULT,
        pg_version_num: 150_018,
        data_checksums: true,
        timeline: TimelineId::FIRST,
        start_lsn: "0/3000028".parse().unwrap(),
        stop_lsn: "0/3000100".parse().unwrap(),
        started_at,
        stopped_at: "2026-11-22T02:01:05Z".parse().unwrap(),
        from_standby: false,
        label: "nightly".to_owned(),
        tool_version: "0.1.0".to_owned(),
        tablespaces: Vec::new(),
        parts: vec![Part {
            name: "base-0001.tar.zst".to_owned(),
            tablespace: None,
            stored_bytes: 10 << 20,
            raw_bytes: 30 << 20,
            files: 1234,
            blake3: Blake3Hex::of(b"x"),
        }],
        manifest: object("backup_manifest"),
        file_list: object("files.json.zst"),
        bad_pages: Vec::new(),
    })
    .unwrap()
}

fn inventory(catalog: Vec<CatalogEntry>, numbers: &[u64]) -> Inventory {
    let mut builder = CoverageBuilder::new(SegmentSize::DEFAULT);
    for number in numbers {
        let name = SegmentName::from_number(TimelineId::FIRST, *number, SegmentSize::DEFAULT).unwrap();
        builder.add(WalFile::Segment(name), 1 << 20, "2026-11-22T02:05:00Z".parse().unwrap());
    }
    Inventory {
        system_id: SystemId::new(7).unwrap(),
        catalog,
        histories: BTreeMap::new(),
        coverage: builder.finish(),
        unreadable: vec![Unreadable {
            key: "catalog/20261101T020000Z-full.json".to_owned(),
            reason: "nonsense".to_owned(),
            role: Role::Entry(BackupId::parse("20261101T020000Z-full").unwrap()),
            has_vanished: false,
        }],
        foreign_entries: vec!["catalog/x.json".to_owned()],
    }
}

#[test]
fn the_table_shows_backups_wal_gaps_and_the_window() {
    let text = listing("file:///srv/wald", &inventory(vec![entry()], &[2, 3, 4, 7])).to_string();
    assert_eq!(
        text,
        "\
repository  file:///srv/wald
system      7, WAL segments of 16.0 MiB

backup                 ended                   TL  start      stop       size      stored    took        checksums
20261122T020000Z-full  2026-11-22 02:01:05+00  1   0/3000028  0/3000100  30.0 MiB  10.0 MiB  1 min 05 s  good

WAL of timeline 1
  000000010000000000000002 to 000000010000000000000004  3 segments, 3.00 MiB, stored until 2026-11-22 02:05:00+00
  000000010000000000000005 to 000000010000000000000006  MISSING: 2 segments
  000000010000000000000007 to 000000010000000000000007  1 segment, 1.00 MiB, stored until 2026-11-22 02:05:00+00

can be recovered to
  2026-11-22 02:01:05+00 to 2026-11-22 02:05:00+00  LSN 0/3000100 to 0/5000000, timeline 1

warning: catalog/20261101T020000Z-full.json can't be used: nonsense

warning: catalog/x.json is ignored: its name is not that of a catalog entry
"
    );
}

#[test]
fn a_backup_without_its_wal_is_shown_as_useless() {
    let listing = listing("file:///srv/wald", &inventory(vec![entry()], &[4]));
    assert!(!listing.backups[0].wal_complete);
    let text = listing.to_string();
    assert!(text.contains("WAL MISSING: can't be restored"), "{text}");
    assert!(text.contains("nothing can be recovered"), "{text}");
}

#[test]
fn an_empty_repository_is_no_error() {
    let text = listing("file:///srv/wald", &inventory(Vec::new(), &[])).to_string();
    assert!(text.contains("backups     none: take one with wald backup"), "{text}");
    assert!(text.contains("WAL         none"), "{text}");
}

#[test]
fn the_json_has_the_fields_that_scripts_read() {
    let json = serde_json::to_value(listing("file:///x", &inventory(vec![entry()], &[3, 5]))).unwrap();
    assert_eq!(json["format"], 1);
    assert_eq!(json["backups"][0]["id"], "20261122T020000Z-full");
    assert_eq!(json["backups"][0]["checksums"], "good");
    assert_eq!(json["backups"][0]["duration_seconds"], 65);
    assert_eq!(json["timelines"][0]["gaps"][0]["first"], "000000010000000000000004");
    assert_eq!(json["recovery_windows"][0]["until_lsn"], "0/4000000");
}
