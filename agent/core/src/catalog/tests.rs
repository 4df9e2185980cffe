//! Tests of the catalog entry: it reads back as written, and contradictions are refused by name.

use super::*;
use crate::backup_id::BackupKind;
use proptest::prelude::*;

fn facts() -> CatalogFacts {
    let started_at: Timestamp = "2026-11-22T02:00:00.5Z".parse().unwrap();
    let object = |name: &str| StoredObject {
        name: name.to_owned(),
        stored_bytes: 7,
        blake3: Blake3Hex::of(name.as_bytes()),
    };
    let part = |name: &str, tablespace| Part {
        name: name.to_owned(),
        tablespace,
        stored_bytes: 100,
        raw_bytes: 1000,
        files: 3,
        blake3: Blake3Hex::of(name.as_bytes()),
    };
    CatalogFacts {
        id: BackupId::new(started_at, BackupKind::Full),
        system_id: SystemId::new(7_350_000_000_000_000_001).unwrap(),
        segment_size: SegmentSize::DEFAULT,
        pg_version_num: 150_018,
        data_checksums: true,
        timeline: TimelineId::FIRST,
        start_lsn: "0/2000028".parse().unwrap(),
        stop_lsn: "0/2000100".parse().unwrap(),
        started_at,
        stopped_at: "2026-11-22T02:00:09.25Z".parse().unwrap(),
        from_standby: false,
        label: "nightly \"full\"".to_owned(),
        tool_version: "0.1.0".to_owned(),
        tablespaces: vec![Tablespace { oid: 16400, location: "/srv/fast".to_owned() }],
        parts: vec![part("base-0001.tar.zst", None), part("16400-0001.tar.zst", Some(16400))],
        manifest: object("backup_manifest"),
        file_list: object("files.json.zst"),
        bad_pages: vec![BadPage { file: "base/5/1259".to_owned(), block: 3, problem: String::new() }],
    }
}

fn refusal(change: impl FnOnce(&mut CatalogFacts)) -> String {
    let mut facts = facts();
    change(&mut facts);
    CatalogEntry::new(facts).unwrap_err().to_string()
}

#[test]
fn an_entry_reads_back_as_it_was_written() {
    let entry = CatalogEntry::new(facts()).unwrap();
    let json = entry.to_json().unwrap();
    assert_eq!(CatalogEntry::parse(&json).unwrap(), entry);
    let text = String::from_utf8(json).unwrap();
    assert!(text.starts_with("{\n  \"format\": 1,\n  \"id\": \"20261122T020000Z-full\""), "{text}");
    assert!(text.contains("\"start_lsn\": \"0/2000028\""), "{text}");
    assert!(text.contains("\"system_id\": \"7350000000000000001\""), "{text}");
    assert_eq!(entry.stored_bytes(), 200);
    assert_eq!(entry.files(), 6);
}

#[test]
fn a_newer_format_is_refused_before_anything_else_is_looked_at() {
    let error = CatalogEntry::parse(br#"{"format": 2, "id": 17}"#).unwrap_err();
    assert!(matches!(error, CatalogError::NewerFormat { found: 2 }), "{error}");
    assert!(error.to_string().contains("use a newer wald"), "{error}");
}

#[test]
fn unknown_fields_of_the_same_format_are_ignored() {
    let json = String::from_utf8(CatalogEntry::new(facts()).unwrap().to_json().unwrap()).unwrap();
    let json = json.replacen("\"format\": 1,", "\"format\": 1, \"colour\": [1, {}],", 1);
    assert_eq!(CatalogEntry::parse(json.as_bytes()).unwrap().facts(), &facts());
}

#[test]
fn contradictions_are_refused_and_named() {
    assert!(refusal(|f| f.stop_lsn = f.start_lsn).contains("stops at 0/2000028"));
    assert!(refusal(|f| f.stopped_at = "2026-11-22T01:00:00Z".parse().unwrap()).contains("stopped at"));
    assert!(
        refusal(|f| f.parts.retain(|p| p.tablespace.is_some())).contains("no part of the data directory")
    );
    assert!(refusal(|f| f.tablespaces.clear()).contains("tablespace 16400, which is not listed"));
    assert!(refusal(|f| f.parts.push(f.parts[0].clone())).contains("base-0001.tar.zst is listed twice"));
    assert!(refusal(|f| f.tablespaces[0].location = "fast".to_owned()).contains("not an absolute path"));
    assert!(refusal(|f| f.manifest.name = "../x".to_owned()).contains("impossible object"));
}

#[test]
fn what_is_cut_off_anywhere_is_refused() {
    let json = CatalogEntry::new(facts()).unwrap().to_json().unwrap();
    for length in 0..json.len() - 1 {
        let cut = &json[..length];
        // Only the final line feed can be missed without loss.
        assert!(CatalogEntry::parse(cut).is_err() || length == json.len() - 1, "{length}");
    }
}

proptest! {
    #[test]
    fn entries_round_trip(
        start in 1u64..u64::MAX,
        length in 1u64..1 << 40,
        second in 0i64..4_000_000_000,
        label in "\\PC{0,40}",
        sizes in proptest::collection::vec((0u64.., 0u64.., 0u64..), 1..20),
        segment in 20u32..=30,
        timeline in 1u32..,
    ) {
        let mut facts = facts();
        facts.started_at = Timestamp::from_second(second).unwrap();
        facts.stopped_at = facts.started_at;
        facts.id = BackupId::new(facts.started_at, BackupKind::Full);
        facts.start_lsn = Lsn::new(start).unwrap();
        facts.stop_lsn = Lsn::new(start.saturating_add(length)).unwrap();
        facts.label = label;
        facts.segment_size = SegmentSize::new(1 << segment).unwrap();
        facts.timeline = TimelineId::new(timeline).unwrap();
        facts.parts = sizes.into_iter().enumerate().map(|(index, (stored, raw, files))| Part {
            name: format!("base-{index:04}.tar.zst"),
            tablespace: None,
            stored_bytes: stored,
            raw_bytes: raw,
            files,
            blake3: Blake3Hex::of(&index.to_le_bytes()),
        }).collect();
        let entry = CatalogEntry::new(facts).unwrap();
        prop_assert_eq!(CatalogEntry::parse(&entry.to_json().unwrap()).unwrap(), entry);
    }

    #[test]
    fn any_bytes_parse_or_fail_without_panic(bytes: Vec<u8>) {
        let _ = CatalogEntry::parse(&bytes);
    }

    #[test]
    fn a_changed_byte_never_panics(at: prop::sample::Index, byte: u8) {
        let mut json = CatalogEntry::new(facts()).unwrap().to_json().unwrap();
        let at = at.index(json.len());
        json[at] = byte;
        let _ = CatalogEntry::parse(&json);
    }
}
