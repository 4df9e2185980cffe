//! Whether a server runs in a data directory, as far as its `postmaster.pid` tells.
//!
//! Invariant: in doubt it runs. Directories are compared by device and inode and never by
//! path: a bind mount or a container gives one directory several paths.

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A lock file that names a living process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Lock {
    pub pid: i32,
    /// Whether that process works in the data directory, as a server does. If it does not, it
    /// may be another program that got the number of a server that is gone, or the number may
    /// be one of another PID namespace, where it is a server's.
    pub works_here: bool,
}

/// The lock file of a data directory, unless its process is gone.
pub(super) fn lock(data_dir: &Path) -> Option<Lock> {
    let lock = fs::read_to_string(data_dir.join("postmaster.pid")).ok()?;
    // A single-user backend writes its own number negated (`CreateLockFile` in miscinit.c).
    let number = lock.lines().next()?.trim().parse::<i32>().ok()?.checked_abs()?;
    let pid = Pid::from_raw(number)?;
    if test_kill_process(pid) == Err(Errno::SRCH) {
        return None;
    }
    // The kernel follows this link to the directory itself, in whatever mount namespace.
    let works_in = identity(Path::new(&format!("/proc/{number}/cwd")));
    let works_here = works_in.is_some() && works_in == identity(data_dir);
    Some(Lock { pid: number, works_here })
}

/// What a directory is, under any path: its device and its inode.
fn identity(directory: &Path) -> Option<(u64, u64)> {
    fs::metadata(directory).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::process::Command;

    fn with_lock(text: &str) -> Option<Lock> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("postmaster.pid"), text).unwrap();
        lock(dir.path())
    }

    #[test]
    fn a_process_that_is_gone_is_no_server() {
        let mut child = Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        assert_eq!(with_lock(&format!("{}\n", child.id())), None);
        for text in ["2147483646\n/data\n", "", "x\n", "0\n", "-2147483648\n"] {
            assert_eq!(with_lock(text), None, "{text:?}");
        }
        assert_eq!(lock(tempfile::tempdir().unwrap().path()), None);
    }

    #[test]
    fn a_living_process_that_works_elsewhere_may_be_a_server() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let doubtful = Some(Lock { pid, works_here: false });
        assert_eq!(with_lock(&format!("{pid}\n/data\n")), doubtful);
        assert_eq!(with_lock(&format!("-{pid}\n/data\n")), doubtful);
        // The first process is there in every namespace, and in a container it is the server.
        assert_eq!(with_lock("1\n/data\n"), Some(Lock { pid: 1, works_here: false }));
    }

    #[test]
    fn a_process_that_works_in_the_directory_is_its_server_whatever_the_path() {
        let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let data_dir = dir.path().join("data");
        fs::create_dir(&data_dir).unwrap();
        symlink(dir.path(), elsewhere.path().join("parent")).unwrap();
        let other_path = elsewhere.path().join("parent/data");
        let mut child = Command::new("sleep").arg("60").current_dir(&data_dir).spawn().unwrap();
        fs::write(data_dir.join("postmaster.pid"), format!("{}\n", child.id())).unwrap();
        let found = [&data_dir, &other_path].map(|path| lock(path));
        child.kill().unwrap();
        child.wait().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        assert_eq!(found, [Some(Lock { pid, works_here: true }); 2]);
        assert_eq!(lock(&data_dir), None);
    }
}
