//! Tests of the backup manifest: as PostgreSQL writes it, and any change is found.

use super::*;
use proptest::prelude::*;

fn sample() -> Manifest {
    Manifest {
        files: vec![
            ManifestFile {
                path: b"backup_label".to_vec(),
                size: 227,
                modified: "2026-11-22T18:29:30Z".parse().unwrap(),
                checksum: FileChecksum::Crc32c(0x1B2A_04C3),
            },
            ManifestFile {
                path: b"log/caf\xe9 \"1\"".to_vec(),
                size: 0,
                modified: "1970-01-01T00:00:00Z".parse().unwrap(),
                checksum: FileChecksum::None,
            },
        ],
        wal_ranges: vec![WalRange {
            timeline: TimelineId::FIRST,
            start: "0/2000028".parse().unwrap(),
            end: "0/2000100".parse().unwrap(),
        }],
    }
}

#[test]
fn it_looks_as_postgresql_writes_it() {
    let text = sample().to_string();
    let expected = "{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [\n\
        { \"Path\": \"backup_label\", \"Size\": 227, \"Last-Modified\": \"2026-11-22 18:29:30 GMT\", \
        \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"c3042a1b\" },\n\
        { \"Encoded-Path\": \"6c6f672f636166e920223122\", \"Size\": 0, \
        \"Last-Modified\": \"1970-01-01 00:00:00 GMT\" }\n],\n\"WAL-Ranges\": [\n\
        { \"Timeline\": 1, \"Start-LSN\": \"0/2000028\", \"End-LSN\": \"0/2000100\" }\n],\n\
        \"Manifest-Checksum\": \"";
    assert!(text.starts_with(expected), "{text}");
    assert_eq!(text.len(), expected.len() + 64 + 3);
}

#[test]
fn any_change_is_found() {
    let text = sample().to_string();
    let spoilt = text.replace("227", "228");
    assert!(matches!(Manifest::parse(&spoilt), Err(ManifestError::Checksum { .. })));
    for end in 0..text.len() {
        assert!(Manifest::parse(text.get(..end).unwrap()).is_err(), "cut at {end}");
    }
}

#[test]
fn what_the_checksum_covers_is_still_checked() {
    let seal = |body: &str| format!("{body}{CHECKSUM_KEY}{}\"}}\n", hex(&Sha256::digest(body.as_bytes())));
    let body = |version: u32, file: &str| {
        format!(
            "{{ \"PostgreSQL-Backup-Manifest-Version\": {version},\n\"Files\": [\n{file}\n],\n\
             \"WAL-Ranges\": [\n],\n"
        )
    };
    assert!(Manifest::parse(&seal(&body(1, ""))).is_ok());
    assert!(matches!(Manifest::parse(&seal(&body(2, ""))), Err(ManifestError::Version(2))));
    assert!(matches!(Manifest::parse(&seal("nonsense\n")), Err(ManifestError::Json(_))));
    let time = "\"Last-Modified\": \"2026-11-22 18:29:30 GMT\"";
    for file in [
        format!("{{\"Size\": 1, {time}}}"),
        format!("{{\"Path\": \"a\", \"Encoded-Path\": \"61\", \"Size\": 1, {time}}}"),
        format!("{{\"Encoded-Path\": \"6\", \"Size\": 1, {time}}}"),
        "{\"Path\": \"a\", \"Size\": 1, \"Last-Modified\": \"yesterday\"}".to_owned(),
        format!("{{\"Path\": \"a\", \"Size\": 1, {time}, \"Checksum-Algorithm\": \"CRC32C\"}}"),
        format!("{{\"Path\": \"a\", \"Size\": 1, {time}, \"Checksum\": \"00\"}}"),
        format!(
            "{{\"Path\": \"a\", \"Size\": 1, {time}, \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"00\"}}"
        ),
        format!(
            "{{\"Path\": \"a\", \"Size\": 1, {time}, \"Checksum-Algorithm\": \"MD5\", \"Checksum\": \"00\"}}"
        ),
    ] {
        let result = Manifest::parse(&seal(&body(1, &file)));
        assert!(matches!(result, Err(ManifestError::Field { .. })), "{file}: {result:?}");
    }
}

fn any_checksum() -> impl Strategy<Value = FileChecksum> {
    prop_oneof![
        Just(FileChecksum::None),
        any::<u32>().prop_map(FileChecksum::Crc32c),
        any::<[u8; 32]>().prop_map(FileChecksum::Sha256),
    ]
}

prop_compose! {
    fn any_file()(
        path in prop_oneof![prop::collection::vec(1u8.., 0..20), "\\PC{0,20}".prop_map(String::into_bytes)],
        size: u64,
        seconds in 0i64..250_000_000_000,
        checksum in any_checksum(),
    ) -> ManifestFile {
        ManifestFile { path, size, modified: Timestamp::from_second(seconds).unwrap(), checksum }
    }
}

prop_compose! {
    fn any_range()(timeline in 1u32.., start in 1u64.., end in 1u64..) -> WalRange {
        WalRange {
            timeline: TimelineId::new(timeline).unwrap(),
            start: Lsn::new(start).unwrap(),
            end: Lsn::new(end).unwrap(),
        }
    }
}

proptest! {
    #[test]
    fn manifests_round_trip(
        files in prop::collection::vec(any_file(), 0..5),
        wal_ranges in prop::collection::vec(any_range(), 0..3),
    ) {
        let manifest = Manifest { files, wal_ranges };
        prop_assert_eq!(Manifest::parse(&manifest.to_string()).unwrap(), manifest);
    }

    #[test]
    fn any_text_parses_or_fails_without_panic(text in "\\PC{0,60}", sealed: bool) {
        let body = format!("{{ {text}\n");
        let sum = hex(&Sha256::digest(body.as_bytes()));
        let _ = Manifest::parse(&text);
        if sealed {
            let _ = Manifest::parse(&format!("{body}{CHECKSUM_KEY}{sum}\"}}\n"));
        }
    }
}
