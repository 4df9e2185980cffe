//! Tests of the scan: what is listed, and what PostgreSQL's own backup leaves out.

use super::*;
use std::os::unix::fs::{PermissionsExt, symlink};
use tempfile::TempDir;

const VERSION: &str = "PG_15_202209061";

/// A data directory as far as a scan looks.
fn data_directory() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for path in ["base/5", "global", "pg_tblspc", "pg_wal/archive_status", "pg_replslot/slot", "pg_xact"] {
        fs::create_dir_all(directory.path().join(path)).unwrap();
    }
    for path in [
        "PG_VERSION",
        "postmaster.pid",
        "base/5/1259",
        "base/5/1259_fsm",
        "base/5/16384",
        "base/5/16384_init",
        "base/5/16384_vm",
        "base/5/t3_16390",
        "global/pg_control",
        "global/1260",
        "global/pg_internal.init",
        "pg_wal/000000010000000000000001",
        "pg_replslot/slot/state",
        "pg_xact/0000",
    ] {
        fs::write(directory.path().join(path), path).unwrap();
    }
    directory
}

fn files(scan: &Scan) -> Vec<String> {
    scan.files.iter().map(|file| file.path.to_string()).collect()
}

fn directories(scan: &Scan) -> Vec<String> {
    scan.directories.iter().map(|directory| directory.path.to_string()).collect()
}

#[test]
fn everything_but_what_postgresql_leaves_out_is_listed() {
    let data = data_directory();
    let scan = scan(data.path(), VERSION).unwrap();
    let expected =
        ["PG_VERSION", "base/5/1259", "base/5/1259_fsm", "base/5/16384_init", "global/1260", "pg_xact/0000"];
    assert_eq!(files(&scan), expected);
    let expected = [
        "base",
        "base/5",
        "global",
        "pg_replslot",
        "pg_tblspc",
        "pg_wal",
        "pg_wal/archive_status",
        "pg_xact",
    ];
    assert_eq!(directories(&scan), expected);
    assert_eq!(scan.files[1].size, 11);
}

#[test]
fn a_tablespace_is_followed_and_not_taken_twice() {
    let data = data_directory();
    let outside = tempfile::tempdir().unwrap();
    let inside = data.path().join("space");
    for (oid, location) in [(16_400, outside.path()), (16_500, inside.as_path())] {
        fs::create_dir_all(location.join(VERSION).join("5")).unwrap();
        fs::write(location.join(VERSION).join("5/1"), "x").unwrap();
        fs::create_dir(location.join("PG_14_202107181")).unwrap();
        fs::write(location.join("PG_14_202107181/other-version"), "x").unwrap();
        symlink(location, data.path().join(format!("pg_tblspc/{oid}"))).unwrap();
    }
    symlink("/nonexistent/dropped", data.path().join("pg_tblspc/16600")).unwrap();
    let scan = scan(data.path(), VERSION).unwrap();
    let in_spaces: Vec<_> =
        scan.files.iter().filter_map(|file| Some((file.tablespace?, file.path.to_string()))).collect();
    let expected = [16_400, 16_500].map(|oid| (oid, format!("pg_tblspc/{oid}/{VERSION}/5/1")));
    assert_eq!(in_spaces, expected);
    assert!(files(&scan).iter().all(|path| !path.starts_with("space") && !path.contains("other-version")));
    assert!(directories(&scan).contains(&"space".to_owned()));
    let oids: Vec<u32> = scan.tablespaces.iter().map(|tablespace| tablespace.oid).collect();
    assert_eq!(oids, [16_400, 16_500, 16_600]);
}

#[test]
fn a_linked_pg_wal_becomes_a_directory_and_other_links_are_passed_over() {
    let data = data_directory();
    let elsewhere = tempfile::tempdir().unwrap();
    fs::remove_dir_all(data.path().join("pg_wal")).unwrap();
    symlink(elsewhere.path(), data.path().join("pg_wal")).unwrap();
    symlink("/etc/hostname", data.path().join("postgresql.conf")).unwrap();
    let scan = scan(data.path(), VERSION).unwrap();
    let wal: Vec<_> = scan
        .directories
        .iter()
        .filter(|directory| directory.path.as_bytes().starts_with(b"pg_wal"))
        .map(|directory| (directory.path.to_string(), directory.mode))
        .collect();
    assert_eq!(wal, [("pg_wal".to_owned(), 0o700), ("pg_wal/archive_status".to_owned(), 0o700)]);
    assert!(!files(&scan).contains(&"postgresql.conf".to_owned()));
}

#[test]
fn a_link_among_the_data_is_refused_by_name() {
    let elsewhere = tempfile::tempdir().unwrap();
    let space = tempfile::tempdir().unwrap();
    fs::create_dir_all(space.path().join(VERSION).join("5")).unwrap();
    let in_space = space.path().join(VERSION).join("5/16390");
    for link in [
        "base/16384",
        "base/5/16399",
        "global/1261",
        "pg_multixact",
        "pg_commit_ts",
        "pg_logical",
        "pg_twophase",
        "pg_xact/0001",
    ] {
        let data = data_directory();
        symlink(elsewhere.path(), data.path().join(link)).unwrap();
        let error = scan(data.path(), VERSION).unwrap_err();
        assert!(
            matches!(&error, ScanError::Linked { path } if *path == data.path().join(link)),
            "{link}: {error}"
        );
    }
    let data = data_directory();
    symlink(space.path(), data.path().join("pg_tblspc/16400")).unwrap();
    scan(data.path(), VERSION).unwrap();
    symlink("/nonexistent", &in_space).unwrap();
    let error = scan(data.path(), VERSION).unwrap_err();
    assert!(matches!(&error, ScanError::Linked { path } if *path == in_space), "{error}");
    let text = error.to_string();
    assert!(text.contains("16390") && text.contains("move it back or use a tablespace"), "{text}");
}

#[test]
fn a_link_in_the_place_of_what_is_left_out_anyway_is_passed_over() {
    let data = data_directory();
    for link in ["base/pgsql_tmp", "base/5/t3_16391", "base/5/16384_fsm", "pg_logical.old"] {
        symlink("/nonexistent", data.path().join(link)).unwrap();
    }
    scan(data.path(), VERSION).unwrap();
}

#[test]
fn permissions_are_kept() {
    let data = data_directory();
    fs::set_permissions(data.path().join("base"), fs::Permissions::from_mode(0o750)).unwrap();
    let scan = scan(data.path(), VERSION).unwrap();
    let base = scan.directories.iter().find(|directory| directory.path.as_bytes() == b"base").unwrap();
    assert_eq!(base.mode, 0o750);
}

#[test]
fn a_name_that_is_not_utf8_is_taken_as_it_is() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let data = data_directory();
    fs::write(data.path().join("base/5").join(OsStr::from_bytes(b"caf\xe9")), "x").unwrap();
    let scan = scan(data.path(), VERSION).unwrap();
    assert!(scan.files.iter().any(|file| file.path.as_bytes() == b"base/5/caf\xe9"));
}

#[test]
fn what_cannot_be_backed_up_is_refused() {
    let data = data_directory();
    fs::create_dir(data.path().join("pg_tblspc/16400")).unwrap();
    let error = scan(data.path(), VERSION).unwrap_err();
    assert!(matches!(error, ScanError::InPlaceTablespace { .. }), "{error}");
    let missing = data.path().join("missing");
    assert!(matches!(scan(&missing, VERSION), Err(ScanError::Read { .. })));
}
