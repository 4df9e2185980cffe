//! Whether this process can write to the directories of a restore.
//!
//! Invariants: nothing is changed. What this refuses would otherwise fail halfway, after files
//! were removed.

use super::RecoverError;
use super::prepare::owner_of;
use crate::fs::FsError;
use rustix::fs::{Access, AtFlags, CWD, Uid};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use wald_core::catalog::CatalogEntry;

const WAL: &str = "pg_wal";

/// Whether this process can write to a directory, or make it.
pub(super) fn check(directory: &Path) -> Result<(), RecoverError> {
    let existing = directory.ancestors().find(|above| above.exists()).unwrap_or(Path::new("/"));
    let destination =
        |problem: String| RecoverError::Destination { directory: directory.to_owned(), problem };
    if !existing.is_dir() {
        return Err(destination(format!("{} is not a directory", existing.display())));
    }
    let access = Access::WRITE_OK | Access::EXEC_OK;
    rustix::fs::accessat(CWD, existing, access, AtFlags::EACCESS).map_err(|errno| {
        destination(format!(
            "this user can't write to {} ({errno}): run as the server's user",
            existing.display()
        ))
    })?;
    let owner = owner_of(existing)?;
    if owner.is_some_and(|owner| owner.uid.is_root()) {
        return Err(destination(format!(
            "{} belongs to root, and PostgreSQL never runs as root: make the directory first, owned by the \
             server's user, or run as that user",
            existing.display()
        )));
    }
    Ok(())
}

/// Refuses what `--delta` could not replace, before it removes anything.
pub(super) fn check_replaceable<'p>(
    data_dir: &Path,
    tablespaces: impl Iterator<Item = &'p Path>,
    entry: &CatalogEntry,
) -> Result<(), RecoverError> {
    check_wal_is_no_link(data_dir)?;
    let user = rustix::process::geteuid();
    if data_dir.exists() {
        check_all(data_dir, user, |_| true)?;
    }
    // Another major version may have its own directory in a tablespace's.
    let version = format!("PG_{}_", entry.facts().pg_version_num / 10_000);
    for place in tablespaces.filter(|place| place.exists()) {
        check_all(place, user, |name| name.as_bytes().starts_with(version.as_bytes()))?;
    }
    Ok(())
}

/// PostgreSQL lets `pg_wal` be a link to a directory elsewhere. A restore follows no links and
/// would quietly put a plain directory in its place, on a file system that may be too small.
fn check_wal_is_no_link(data_dir: &Path) -> Result<(), RecoverError> {
    let Ok(target) = fs::read_link(data_dir.join(WAL)) else { return Ok(()) };
    let problem = format!(
        "its {WAL} is a link to {}, and --delta makes a plain directory: remove the link and restore; to have WAL \
         there again, empty that directory, move what is in {WAL} to it and make the link anew before the server \
         is started",
        target.display()
    );
    Err(RecoverError::Destination { directory: data_dir.to_owned(), problem })
}

/// Whether this process, of this user, can list, remove and give other permissions to all that
/// stands in a directory. Links are not followed. `wanted` picks among the names in the directory itself.
fn check_all(directory: &Path, user: Uid, wanted: impl Fn(&OsStr) -> bool) -> Result<(), RecoverError> {
    let mut left = vec![directory.to_owned()];
    while let Some(path) = left.pop() {
        let metadata =
            fs::symlink_metadata(&path).map_err(|source| FsError::new("look at", &path, source))?;
        // Only its owner may change a directory's permissions.
        let mine = user.is_root() || metadata.uid() == user.as_raw();
        let access = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
        let accessible = rustix::fs::accessat(CWD, &path, access, AtFlags::EACCESS);
        if !mine || accessible.is_err() {
            let problem = format!(
                "{} belongs to user {} or is not writable for this user, {}: --delta can't replace what is in it. \
                 Nothing was changed; remove that directory, or give it to the server's user",
                path.display(),
                metadata.uid(),
                user.as_raw(),
            );
            return Err(RecoverError::Destination { directory: directory.to_owned(), problem });
        }
        let list = |source| FsError::new("list", &path, source);
        for entry in fs::read_dir(&path).map_err(list)? {
            let entry = entry.map_err(list)?;
            let is_directory = entry.file_type().map_err(list)?.is_dir();
            if is_directory && (path != directory || wanted(&entry.file_name())) {
                left.push(entry.path());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, chown};

    #[test]
    fn a_directory_that_cannot_be_written_to_is_found_wherever_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("base/log");
        fs::create_dir_all(&log).unwrap();
        fs::write(log.join("file"), "x").unwrap();
        std::os::unix::fs::symlink("/proc", dir.path().join("link")).unwrap();
        let mut user = rustix::process::geteuid();
        if user.is_root() {
            // As seen by another user, who owns all but that directory.
            user = Uid::from_raw(65534);
            for path in [dir.path(), &dir.path().join("base")] {
                chown(path, Some(65534), None).unwrap();
            }
        } else {
            fs::set_permissions(&log, fs::Permissions::from_mode(0o555)).unwrap();
        }
        let error = check_all(dir.path(), user, |_| true).unwrap_err().to_string();
        assert!(
            error.contains("base/log belongs to user") && error.contains("Nothing was changed"),
            "{error}"
        );
        check_all(dir.path(), user, |name| name != "base").unwrap();
        if rustix::process::geteuid().is_root() {
            chown(&log, Some(65534), None).unwrap();
        }
        fs::set_permissions(&log, fs::Permissions::from_mode(0o755)).unwrap();
        check_all(dir.path(), user, |_| true).unwrap();
    }
}
