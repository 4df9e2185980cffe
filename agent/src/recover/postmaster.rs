//! Whether a server runs in a data directory, as far as its `postmaster.pid` tells.

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use std::fs;
use std::path::Path;

/// The process of the server that runs in a data directory. A lock file that a crash left
/// behind names a process that is gone, or by now another program's: a server's working
/// directory is its data directory. In doubt it runs.
pub(super) fn running(data_dir: &Path) -> Option<i32> {
    let lock = fs::read_to_string(data_dir.join("postmaster.pid")).ok()?;
    // A single-user backend writes its own number negated (`CreateLockFile` in miscinit.c).
    let number = lock.lines().next()?.trim().parse::<i32>().ok()?.checked_abs()?;
    let pid = Pid::from_raw(number)?;
    if test_kill_process(pid) == Err(Errno::SRCH) {
        return None;
    }
    let works_elsewhere = match (fs::read_link(format!("/proc/{number}/cwd")), fs::canonicalize(data_dir)) {
        (Ok(works_in), Ok(data_dir)) => works_in != data_dir,
        _ => false,
    };
    (!works_elsewhere).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_lock(text: &str) -> Option<i32> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("postmaster.pid"), text).unwrap();
        running(dir.path())
    }

    #[test]
    fn a_process_that_is_gone_or_works_elsewhere_is_no_server() {
        assert_eq!(with_lock("2147483646\n/data\n"), None);
        assert_eq!(with_lock(&format!("{}\n", std::process::id())), None);
        for text in ["", "x\n", "0\n", "-2147483648\n"] {
            assert_eq!(with_lock(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_process_that_works_in_the_directory_is_its_server() {
        let dir = tempfile::tempdir().unwrap();
        let mut child =
            std::process::Command::new("sleep").arg("60").current_dir(dir.path()).spawn().unwrap();
        fs::write(dir.path().join("postmaster.pid"), format!("{}\n", child.id())).unwrap();
        let found = running(dir.path());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found, Some(i32::try_from(child.id()).unwrap()));
    }
}
