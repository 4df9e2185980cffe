//! `--delta`: what it keeps, what it removes, and what it refuses.

use super::*;
use crate::recover::beneath::Root;
use wald_core::data_file::RESTORE_MARKER;

#[tokio::test]
async fn an_interrupted_restore_is_continued_with_delta_only() {
    let place = Place::new();
    let broken = place.backup().tampered(|object, bytes| {
        if object == "base-0003.tar.zst" {
            bytes[20] ^= 1;
        }
    });
    damage_of(place.restore(&broken.store().await, Mode::Fresh).await);
    assert!(place.data().join(RESTORE_MARKER).exists() && !place.can_start());
    let repository = place.backup().store().await;
    let refused = place.restore(&repository, Mode::Fresh).await.unwrap_err();
    assert!(matches!(refused, RecoverError::NotEmpty { .. }), "{refused:?}");
    place.restore(&repository, Mode::Delta).await.unwrap();
    place.assert_complete(&place.backup());
}

#[tokio::test]
async fn delta_keeps_what_matches_and_removes_what_does_not_belong() {
    let place = Place::new();
    let repository = place.backup().store().await;
    let first = place.restore(&repository, Mode::Fresh).await.unwrap();
    let data = place.data();
    // The directory has lived since: a page changed, files came and went, WAL was written.
    let mut changed = fs::OpenOptions::new().write(true).open(data.join("base/5/1259")).unwrap();
    changed.write_all(b"other").unwrap();
    fs::remove_file(data.join("backup_label")).unwrap();
    fs::write(data.join("pg_wal/000000010000000000000009"), "old WAL").unwrap();
    fs::create_dir_all(data.join("base/6/sub")).unwrap();
    fs::write(data.join("base/6/sub/1"), "x").unwrap();
    fs::write(data.join("standby.signal"), "").unwrap();
    fs::write(place.tablespace().join("PG_15_202209061/5/999"), "x").unwrap();
    fs::create_dir(place.tablespace().join("PG_14_202107181")).unwrap();
    let outside = place.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "mine").unwrap();
    symlink(&outside, data.join("base/7")).unwrap();
    // A tablespace that was created after the backup.
    symlink(&outside, data.join("pg_tblspc/99999")).unwrap();

    let refused = place.restore(&repository, Mode::Fresh).await.unwrap_err();
    assert!(matches!(refused, RecoverError::NotEmpty { .. }), "{refused:?}");
    let report = place.restore(&repository, Mode::Delta).await.unwrap();
    place.assert_complete(&place.backup());
    assert!(!data.join("base/6").exists() && !data.join("base/7").exists());
    assert!(fs::symlink_metadata(data.join("pg_tblspc/99999")).is_err());
    assert_eq!(fs::read_dir(data.join("pg_wal")).unwrap().count(), 1);
    assert!(!place.tablespace().join("PG_15_202209061/5/999").exists());
    assert!(place.tablespace().join("PG_14_202107181").exists());
    assert_eq!(fs::read(outside.join("file")).unwrap(), b"mine");
    // What was made above, and recovery.signal and backup_manifest.
    assert_eq!(report.removed_files, 7);
    assert!(report.to_string().contains("\nremoved 7 files that the backup does not have\n"), "{report}");
    // Two parts of four hold nothing that was needed.
    assert_eq!(report.kept_files, 5);
    assert!(report.downloaded_bytes < first.downloaded_bytes / 10, "{report:?}");
}

#[tokio::test]
async fn two_restores_do_not_work_in_one_directory() {
    let place = Place::new();
    let repository = place.backup().store().await;
    place.restore(&repository, Mode::Fresh).await.unwrap();
    for directory in [place.data(), place.tablespace()] {
        let other = Root::open(&directory, None).unwrap();
        assert!(other.claim().unwrap());
        let error = place.restore(&repository, Mode::Delta).await.unwrap_err();
        assert!(error.to_string().contains("another wald restore works in"), "{error}");
        assert!(place.can_start() && !place.data().join(RESTORE_MARKER).exists());
    }
    // The claim lasts as long as what was made in the directory is worked in.
    let entry = inventory::read(&repository).await.unwrap().catalog.remove(0);
    let tree = prepare::check(&place.options(Mode::Delta), &entry).unwrap().create().unwrap();
    let error = place.restore(&repository, Mode::Delta).await.unwrap_err();
    assert!(matches!(error, RecoverError::Busy { .. }), "{error}");
    drop(tree);
    place.restore(&repository, Mode::Delta).await.unwrap();
    place.assert_complete(&place.backup());
}

#[tokio::test]
async fn what_another_restore_has_made_since_the_first_look_is_left_alone() {
    let place = Place::new();
    let repository = place.backup().store().await;
    let entry = inventory::read(&repository).await.unwrap().catalog.remove(0);
    let looked = prepare::check(&place.options(Mode::Fresh), &entry).unwrap();
    place.restore(&repository, Mode::Fresh).await.unwrap();
    let error = looked.create().unwrap_err();
    assert!(matches!(error, RecoverError::NotEmpty { .. }), "{error}");
    place.assert_complete(&place.backup());
}

#[tokio::test]
async fn a_server_that_has_started_since_the_first_look_keeps_its_directory() {
    let place = Place::new();
    let repository = place.backup().store().await;
    place.restore(&repository, Mode::Fresh).await.unwrap();
    let entry = inventory::read(&repository).await.unwrap().catalog.remove(0);
    let looked = prepare::check(&place.options(Mode::Delta), &entry).unwrap();
    let mut server = std::process::Command::new("sleep").arg("60").current_dir(place.data()).spawn().unwrap();
    fs::write(place.data().join("postmaster.pid"), format!("{}\n", server.id())).unwrap();
    let before_anything = looked.create();
    // It started while pg_control was taken away.
    let meanwhile = looked.disable(&Root::open(&place.data(), None).unwrap());
    server.kill().unwrap();
    server.wait().unwrap();
    for error in [before_anything.map(|_| ()).unwrap_err(), meanwhile.unwrap_err()] {
        assert!(matches!(error, RecoverError::Running { .. }), "{error}");
    }
    fs::remove_file(place.data().join("postmaster.pid")).unwrap();
    place.assert_complete(&place.backup());
}

#[tokio::test]
async fn a_marker_that_a_crash_left_to_a_server_and_its_backups_is_not_restored() {
    for mode in [Mode::Fresh, Mode::Delta] {
        let place = Place::new();
        if mode == Mode::Delta {
            place.restore(&place.backup().store().await, Mode::Fresh).await.unwrap();
        }
        let mut backup = place.backup();
        backup.sources.insert(0, ("base-0001.tar.zst", RESTORE_MARKER, b"{}".to_vec()));
        place.restore(&backup.store().await, mode).await.unwrap();
        place.assert_complete(&place.backup());
    }
}

#[tokio::test]
async fn a_linked_pg_wal_is_not_replaced() {
    let place = Place::new();
    let repository = place.backup().store().await;
    place.restore(&repository, Mode::Fresh).await.unwrap();
    let (wal, outside) = (place.data().join("pg_wal"), place.dir.path().join("wal disk"));
    fs::rename(&wal, &outside).unwrap();
    symlink(&outside, &wal).unwrap();
    let error = place.restore(&repository, Mode::Delta).await.unwrap_err().to_string();
    assert!(error.contains(&format!("its pg_wal is a link to {}", outside.display())), "{error}");
    assert!(place.can_start() && fs::read_link(&wal).unwrap() == outside);
    fs::remove_file(&wal).unwrap();
    place.restore(&repository, Mode::Delta).await.unwrap();
    place.assert_complete(&place.backup());
}

#[tokio::test]
async fn delta_refuses_a_directory_that_it_cannot_write_to_before_it_removes_anything() {
    if rustix::process::geteuid().is_root() {
        // Root can write everywhere.
        return;
    }
    let place = Place::new();
    let repository = place.backup().store().await;
    place.restore(&repository, Mode::Fresh).await.unwrap();
    let log = place.data().join("log");
    fs::create_dir(&log).unwrap();
    fs::write(log.join("x.log"), "x").unwrap();
    fs::set_permissions(&log, fs::Permissions::from_mode(0o555)).unwrap();
    let error = place.restore(&repository, Mode::Delta).await.unwrap_err();
    assert!(error.to_string().contains("log belongs to user"), "{error}");
    assert!(place.can_start() && place.data().join("recovery.signal").exists());
    fs::set_permissions(&log, fs::Permissions::from_mode(0o755)).unwrap();
    place.restore(&repository, Mode::Delta).await.unwrap();
    place.assert_complete(&place.backup());
}

/// A backup of which one part holds several files that are worth fetching alone.
fn with_large_files(place: &Place) -> Backup {
    let mut backup = place.backup().framed();
    for (index, name) in ["base/5/20001", "base/5/20002", "base/5/20003"].into_iter().enumerate() {
        let content = noise(100 + u32::try_from(index).unwrap(), 1_000_000);
        backup.sources.insert(index, ("base-0001.tar.zst", name, content));
    }
    backup
}

/// The same, and a directory that was restored from it and in which one of those files has changed.
async fn with_one_changed(place: &Place) -> Backup {
    place.restore(&with_large_files(place).store().await, Mode::Fresh).await.unwrap();
    let mut changed = fs::OpenOptions::new().write(true).open(place.data().join("base/5/20002")).unwrap();
    changed.write_all(b"other").unwrap();
    with_large_files(place)
}

/// Where a file's frame stands in its part.
fn frame(backup: &Backup, name: &str) -> std::ops::Range<usize> {
    let at = backup.list().files.iter().find(|file| file.path.to_string() == name).unwrap().at.unwrap();
    usize::try_from(at.offset()).unwrap()..usize::try_from(at.end()).unwrap()
}

#[tokio::test]
async fn of_a_part_only_the_frames_of_changed_files_are_fetched() {
    let place = Place::new();
    let backup = with_one_changed(&place).await;
    let report = place.restore(&backup.store().await, Mode::Delta).await.unwrap();
    place.assert_complete(&with_large_files(&place));
    // That file, three that are always fetched, and two that a restore changes or removes.
    assert!((1_000_000..1_100_000).contains(&report.downloaded_bytes), "{report:?}");
    assert_eq!(report.files, 6, "{report:?}");
}

#[tokio::test]
async fn a_flipped_bit_in_a_frame_that_is_fetched_is_found() {
    for thousandth in [0, 1, 500, 999] {
        let place = Place::new();
        let backup = with_one_changed(&place).await;
        let frame = frame(&backup, "base/5/20002");
        let backup = backup.tampered(move |object, bytes| {
            if object == "base-0001.tar.zst" {
                bytes[frame.start + frame.len() * thousandth / 1000] ^= 4;
            }
        });
        let damage = damage_of(place.restore(&backup.store().await, Mode::Delta).await);
        assert!(damage.contains("base-0001.tar.zst is damaged"), "{damage}");
        assert!(!place.can_start());
    }
}

#[tokio::test]
async fn a_list_that_points_at_another_file_is_found() {
    let place = Place::new();
    let backup = with_one_changed(&place).await;
    // The frames of two files of the same length have changed places.
    let (a, b) = (frame(&backup, "base/5/20002"), frame(&backup, "base/5/20003"));
    assert_eq!(a.len(), b.len());
    let backup = backup.tampered(move |object, bytes| {
        if object == "base-0001.tar.zst" {
            bytes[a.start..b.end].rotate_left(a.len());
        }
    });
    let damage = damage_of(place.restore(&backup.store().await, Mode::Delta).await);
    assert!(damage.contains("base/5/20002 is not in it"), "{damage}");
    assert!(!place.can_start());
}

#[tokio::test]
async fn a_part_that_was_cut_before_a_frame_is_found() {
    let frame = frame(&with_large_files(&Place::new()), "base/5/20002");
    for cut in [frame.start - 10, frame.end - 10, 0] {
        let place = Place::new();
        let backup = with_one_changed(&place).await.tampered(move |object, bytes| {
            if object == "base-0001.tar.zst" {
                bytes.truncate(cut);
            }
        });
        let error = place.restore(&backup.store().await, Mode::Delta).await.unwrap_err();
        assert!(error.to_string().contains("base-0001.tar.zst"), "{error:?}");
        assert!(!place.can_start());
    }
}
