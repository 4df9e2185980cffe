//! When WAL is given up: `archive.queue_max`, off unless configured.
//!
//! A disk that fills up with unarchived WAL stops the database. Whoever sets a limit would
//! rather lose the way back over that stretch than the database's service. Invariants: nothing
//! is given up below the limit; at the limit everything that waits is given up, so that there
//! is one gap and not a new one with every segment; a history file never is, because without
//! it a timeline could not be recovered at all.

use crate::segment::{SegmentName, SegmentSize};
use crate::wal_file::WalFile;

/// What waits to be archived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Waiting {
    /// How many files PostgreSQL has marked `.ready`.
    pub files: u64,
    /// The last segment among them.
    pub newest: Option<SegmentName>,
}

/// Decides which files are given up.
#[derive(Clone, Debug)]
pub struct QueueLimit {
    bytes_max: u64,
    size: SegmentSize,
    until: Option<SegmentName>,
}

impl QueueLimit {
    /// Gives up what waits when it is more than `bytes_max` bytes of segments.
    pub fn new(bytes_max: u64, size: SegmentSize) -> Self {
        Self { bytes_max, size, until: None }
    }

    /// Takes notice of what waits, after a file could not be archived.
    pub fn look(&mut self, waiting: Waiting) {
        let bytes = waiting.files.saturating_mul(u64::from(self.size.bytes()));
        if bytes > self.bytes_max {
            self.until = self.until.max(waiting.newest);
        }
    }

    /// Whether `file` is part of what is given up.
    pub fn gives_up(&self, file: WalFile) -> bool {
        match file {
            WalFile::History(_) => false,
            WalFile::Segment(name) | WalFile::Partial(name) | WalFile::BackupLabel(name, _) => {
                self.until.is_some_and(|until| name <= until)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timeline::TimelineId;

    fn segment(number: u64) -> SegmentName {
        SegmentName::from_number(TimelineId::FIRST, number, SegmentSize::DEFAULT).unwrap()
    }

    #[test]
    fn at_the_limit_all_that_waits_is_given_up_and_what_comes_later_is_not() {
        let mut limit = QueueLimit::new(4 * (16 << 20), SegmentSize::DEFAULT);
        limit.look(Waiting { files: 4, newest: Some(segment(10)) });
        assert!(!limit.gives_up(WalFile::Segment(segment(7))), "four are allowed");
        limit.look(Waiting { files: 5, newest: Some(segment(11)) });
        assert!((7..=11).all(|number| limit.gives_up(WalFile::Segment(segment(number)))));
        assert!(limit.gives_up(WalFile::BackupLabel(segment(8), 0x28)));
        assert!(!limit.gives_up(WalFile::Segment(segment(12))));
        assert!(!limit.gives_up(WalFile::History(TimelineId::FIRST)));
        // Fewer waiting takes nothing back: the rest of the stretch would be of no use.
        limit.look(Waiting { files: 2, newest: Some(segment(11)) });
        assert!(limit.gives_up(WalFile::Segment(segment(11))));
    }
}
