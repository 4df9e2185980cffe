//! Drafts on real file systems: replaced, kept, swapped, swept, across devices.

use super::super::demand::Demand;
use super::*;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};

fn draft(path: &Path, content: &[u8]) -> Draft {
    let (draft, mut file) = Draft::create(path).unwrap();
    file.write_all(content).unwrap();
    draft
}

fn place(draft: Draft, to: &Path, existing: Existing) -> Result<(), PlaceError> {
    draft.place(to, existing, &Demand::new().watch_forever())
}

impl Demand {
    /// A demand that nobody withdraws.
    fn watch_forever(self) -> Watch {
        let watch = self.watch();
        std::mem::forget(self);
        watch
    }
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_placed_file_replaces_the_old_one_and_is_private() {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("to");
    fs::write(&to, "old").unwrap();
    place(draft(&dir.path().join("from"), b"new"), &to, Existing::Replaced).unwrap();
    assert_eq!(fs::read(&to).unwrap(), b"new");
    assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(names(dir.path()), ["to"]);
}

#[test]
fn across_file_systems_a_file_is_copied() {
    // /dev/shm is a file system of its own on Linux.
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir_in("/dev/shm").unwrap());
    let (from, to) = (there.path().join("from"), here.path().join("to"));
    for existing in [Existing::Kept, Existing::Replaced] {
        place(draft(&from, b"new"), &to, existing).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"new");
        assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(names(here.path()), ["to"]);
        assert_eq!(names(there.path()), [""; 0]);
    }
    let refused = place(draft(&from, b"newer"), &to, Existing::Kept);
    assert!(matches!(refused, Err(PlaceError::Occupied { .. })), "{refused:?}");
    assert_eq!((names(here.path()).len(), names(there.path()).len()), (1, 0));
    assert_eq!(fs::read(&to).unwrap(), b"new");
}

#[test]
fn a_file_under_its_own_name_is_never_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::write(&to, "being written").unwrap();
    let refused = place(draft(&from, b"archived"), &to, Existing::Kept);
    assert!(matches!(refused, Err(PlaceError::Occupied { .. })), "{refused:?}");
    assert_eq!(fs::read(&to).unwrap(), b"being written");
    // And where the kernel or the file system can't refuse by itself.
    let linked = draft(&from, b"archived");
    assert_eq!(link_new(&linked.path, &to).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    drop(linked);
    assert_eq!(names(dir.path()), ["to"]);
    // Even a link that leads nowhere is something.
    fs::remove_file(&to).unwrap();
    symlink("nowhere", &to).unwrap();
    assert!(place(draft(&from, b"archived"), &to, Existing::Kept).is_err());
    fs::remove_file(&to).unwrap();
    let linked = draft(&from, b"archived");
    link_new(&linked.path, &to).unwrap();
    assert_eq!((fs::read(&to).unwrap().as_slice(), names(dir.path()).len()), (b"archived".as_slice(), 1));
}

#[test]
fn a_link_at_the_destination_is_replaced_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let (to, victim) = (dir.path().join("to"), dir.path().join("victim"));
    fs::write(&victim, "untouched").unwrap();
    symlink(&victim, &to).unwrap();
    place(draft(&dir.path().join("from"), b"new"), &to, Existing::Replaced).unwrap();
    assert_eq!(fs::read(&victim).unwrap(), b"untouched");
    assert!(!fs::symlink_metadata(&to).unwrap().is_symlink());
}

/// Makes a directory that belongs to somebody else, as far as this user can.
fn foreign(dir: &Path, name: &str) -> PathBuf {
    let directory = dir.join(name);
    fs::create_dir(&directory).unwrap();
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&directory, Some(4242), Some(4243)).unwrap();
    }
    directory
}

fn owner(path: &Path) -> (u32, u32) {
    let found = fs::symlink_metadata(path).unwrap();
    (found.uid(), found.gid())
}

#[test]
fn only_the_file_that_was_written_is_placed() {
    let dir = tempfile::tempdir().unwrap();
    let (from, other) = (dir.path().join("from"), dir.path().join("other"));
    let to = foreign(dir.path(), "pg_wal").join("to");
    fs::write(&other, "unproven").unwrap();
    let before = owner(&other);
    for swap in [
        |other: &Path, from: &Path| fs::hard_link(other, from),
        |other: &Path, from: &Path| symlink(other, from),
    ] {
        let proven = draft(&from, b"proven");
        fs::rename(&from, dir.path().join("aside")).unwrap();
        swap(&other, &from).unwrap();
        assert!(place(proven, &to, Existing::Replaced).is_err());
        assert!(!to.exists());
        assert_eq!(owner(&other), before, "a file that is not ours was given away");
    }
}

#[test]
fn a_file_goes_to_the_owner_of_its_directory() {
    let dir = tempfile::tempdir().unwrap();
    let pg_wal = foreign(dir.path(), "pg_wal");
    place(draft(&dir.path().join("from"), b"new"), &pg_wal.join("to"), Existing::Kept).unwrap();
    assert_eq!(owner(&pg_wal.join("to")), owner(&pg_wal));
}

#[test]
fn nothing_is_placed_for_whoever_has_gone_and_the_draft_goes_too() {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("to");
    let demand = Demand::new();
    let watch = demand.watch();
    drop(demand);
    for existing in [Existing::Replaced, Existing::Kept] {
        let outcome = draft(&dir.path().join("from"), b"new").place(&to, existing, &watch);
        assert!(matches!(outcome, Err(PlaceError::Withdrawn { .. })), "{outcome:?}");
        assert_eq!(names(dir.path()), [""; 0]);
    }
}

#[test]
fn drafts_of_one_destination_have_names_of_their_own_and_stale_ones_are_swept() {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("RECOVERYXLOG");
    // The process that made it is gone, and its number may be anybody's by now.
    let stale = dir.path().join(format!("wald-tmp.{}.7.RECOVERYXLOG", std::process::id()));
    fs::write(&stale, "half").unwrap();
    fs::write(dir.path().join("wald-tmp.1.0.RECOVERYXLOG"), "half").unwrap();
    fs::write(dir.path().join("000000010000000000000001"), "WAL").unwrap();
    let (first, mut file) = Draft::beside(&to).unwrap();
    file.write_all(b"first").unwrap();
    drop(file);
    assert_eq!(names(dir.path()).len(), 2, "{:?}", names(dir.path()));
    let (second, mut file) = Draft::beside(&to).unwrap();
    file.write_all(b"sec").unwrap();
    assert_eq!(names(dir.path()).len(), 3, "the first is in use: {:?}", names(dir.path()));
    // The second is half written; what the first places is its own file.
    place(first, &to, Existing::Replaced).unwrap();
    assert_eq!(fs::read(&to).unwrap(), b"first");
    drop(second);
    assert_eq!(names(dir.path()), ["000000010000000000000001", "RECOVERYXLOG"]);
}
