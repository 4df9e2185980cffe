//! Leaves the page cache as a backup found it: what it brought in itself is dropped.
//!
//! A backup reads every file once. What it brings into the cache on the way nobody needs again, and
//! it takes the place of pages that the database works with. Dropping everything that was read would
//! be worse than dropping nothing: PostgreSQL leaves most of its caching to the system, and would
//! find all of its files gone from memory after each backup.
//!
//! What was cached can't be asked for cheaply. `mincore` needs the file to be mapped, `cachestat`
//! is too new (Linux 6.5), and a read with `RWF_NOWAIT` begins to fetch what it does not find (seen on
//! Linux 6.18). So it
//! is found out afterwards: the system counts what a thread has fetched from storage
//! (`read_bytes` in `/proc/thread-self/io`, proc(5)), ahead of what it reads, and as much of the
//! file as was fetched is dropped (`POSIX_FADV_DONTNEED`). That is decided for a whole stretch of
//! [`STRETCH_BYTES`]: few pages of the database among many that were not cached go with them, and
//! files that are smaller than [`FILE_BYTES_MIN`] stay. Where the system does not count, nothing is
//! dropped.

use rustix::fs::{Advice, fadvise};
use std::fs::File;
use std::num::NonZeroU64;

/// What is decided as one: long enough that looking at the count costs nothing.
const STRETCH_BYTES: u64 = 4 << 20;
/// Smaller files are not looked at: all of them together are not much.
const FILE_BYTES_MIN: u64 = 256 << 10;

/// What a thread brings into the page cache of a file that it reads from its beginning on.
#[derive(Debug)]
pub struct Footprint {
    /// Where the stretch began that is being read.
    start: u64,
    /// What this thread had fetched by then. None: it is not counted, or not worth it.
    fetched: Option<u64>,
    /// Fetched for this file and not dropped yet; some of it still ahead of what was read.
    left: u64,
}

impl Footprint {
    /// Before anything is read of a file of `size` bytes.
    pub fn new(file: &File, size: u64) -> Self {
        if size < FILE_BYTES_MIN {
            return Self { start: 0, fetched: None, left: 0 };
        }
        // More is read ahead at a time. Advice that is not taken costs nothing but time.
        let _ = fadvise(file, 0, None, Advice::Sequential);
        Self { start: 0, fetched: fetched_bytes(), left: 0 }
    }

    /// After the file was read up to `until`, of which `size` is the end.
    pub fn read_until(&mut self, file: &File, until: u64, size: u64) {
        let stretch = until.saturating_sub(self.start);
        let Some(before) = self.fetched.filter(|_| stretch >= STRETCH_BYTES || until >= size) else { return };
        self.fetched = fetched_bytes();
        let now = self.fetched.unwrap_or(before);
        self.left = self.left.saturating_add(now.saturating_sub(before));
        if self.left > stretch / 2 {
            self.left = self.left.saturating_sub(stretch);
            let _ = fadvise(file, self.start, NonZeroU64::new(stretch), Advice::DontNeed);
        }
        self.start = until;
    }
}

/// What this thread has had fetched from storage since it began.
fn fetched_bytes() -> Option<u64> {
    let counts = std::fs::read_to_string("/proc/thread-self/io").ok()?;
    counts.lines().find_map(|line| line.strip_prefix("read_bytes: ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::FileExt;

    const BLOCK: usize = 256 << 10;
    const BYTES: usize = 24 << 20;

    /// A file on disk of which nothing is cached. Beside the sources: `/tmp` may be in memory.
    fn cold() -> (tempfile::TempDir, File) {
        let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let path = directory.path().join("file");
        fs::write(&path, vec![7; BYTES]).unwrap();
        let file = File::open(&path).unwrap();
        file.sync_all().unwrap();
        fadvise(&file, 0, None, Advice::DontNeed).unwrap();
        (directory, file)
    }

    /// Reads the file and says how many of its bytes were not cached.
    fn read(file: &File, mut footprint: Option<Footprint>) -> u64 {
        let before = fetched_bytes().unwrap();
        let mut buffer = vec![0; BLOCK];
        for start in (0..BYTES).step_by(BLOCK) {
            file.read_exact_at(&mut buffer, start as u64).unwrap();
            if let Some(footprint) = &mut footprint {
                footprint.read_until(file, (start + BLOCK) as u64, BYTES as u64);
            }
        }
        fetched_bytes().unwrap() - before
    }

    #[test]
    fn what_a_backup_fetched_is_not_left_behind() {
        let (_directory, file) = cold();
        let most = BYTES as u64 * 3 / 4;
        let fetched = read(&file, Some(Footprint::new(&file, BYTES as u64)));
        assert!(fetched > most, "{fetched}: the file system beside the sources must be on a disk");
        let again = read(&file, None);
        assert!(again > most, "{again}");
    }

    #[test]
    fn what_was_cached_stays() {
        // Where memory is short the system may take it away itself; it hardly does so each time.
        let stayed = |_| {
            let (_directory, file) = cold();
            read(&file, None);
            let fetched = read(&file, Some(Footprint::new(&file, BYTES as u64)));
            let again = read(&file, None);
            fetched < BYTES as u64 / 4 && again < BYTES as u64 / 4
        };
        assert!((0..5).any(stayed));
    }
}
