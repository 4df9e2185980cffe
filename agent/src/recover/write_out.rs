//! Has the disk write while a restore goes on, so that the sync at its end finds little left to do: the
//! restore takes the longer of the two times and not their sum.
//!
//! Two steps, for a disk has a cache of its own: the kernel is told to begin with what a file got
//! ([`WrittenOut`]), and now and then a thread has the disk empty its cache ([`Flusher`]). Invariants:
//! no worker waits for either; what the disk refuses is told by [`Flusher::finish`]; and what makes a
//! restore durable is the sync at its end, not this.

use crate::fs::FsError;
use crossbeam_channel::{Sender, bounded};
use rustix::fs::Advice;
use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::thread::{self, JoinHandle};

/// So much of a file is written before the kernel is told to begin; small files wait for the sync.
const WRITE_OUT_BYTES: u64 = 4 << 20;
/// So much of a file is written before the disk is to empty its cache. That costs a commit of the
/// file system's journal, so not for less.
const FLUSH_BYTES: u64 = 128 << 20;

/// A thread that waits for the disk.
pub(super) struct Flusher {
    files: Sender<(File, PathBuf)>,
    thread: JoinHandle<Result<(), FsError>>,
}

impl Flusher {
    /// Starts the thread.
    pub fn start() -> io::Result<Self> {
        // One may wait. While it does the others need not: the disk has one cache for all.
        let (files, handed_over) = bounded::<(File, PathBuf)>(1);
        let wait = move || {
            // Each is synced, also after a failure: the first one is told.
            let synced = handed_over.into_iter().map(|(file, path)| {
                file.sync_data().map_err(|source| FsError::new("write to disk", path, source))
            });
            synced.fold(Ok(()), Result::and)
        };
        let thread = thread::Builder::new().name("write-out".to_owned()).spawn(wait)?;
        Ok(Self { files, thread })
    }

    fn flush(&self, file: &File, path: PathBuf) {
        if let Ok(file) = file.try_clone() {
            // No room: one waits already. No receiver: it has panicked, which `finish` tells.
            let _ = self.files.try_send((file, path));
        }
    }

    /// Waits for what is under way; the first failure of all. `None` if the thread panicked.
    pub fn finish(self) -> Option<Result<(), FsError>> {
        let Self { files, thread } = self;
        drop(files);
        thread.join().ok()
    }
}

/// How far one file is written out.
pub(super) struct WrittenOut<'f> {
    flusher: &'f Flusher,
    asked_to: u64,
    flushed_to: u64,
    end: u64,
}

impl<'f> WrittenOut<'f> {
    /// Of a file without content.
    pub fn new(flusher: &'f Flusher) -> Self {
        Self { flusher, asked_to: 0, flushed_to: 0, end: 0 }
    }

    /// `bytes` were appended to `file`, which is called `path`.
    pub fn advance(&mut self, file: &File, bytes: usize, path: impl FnOnce() -> PathBuf) {
        self.end = self.end.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        let waiting = self.end.saturating_sub(self.asked_to);
        if let Some(bytes) = NonZeroU64::new(waiting).filter(|bytes| bytes.get() >= WRITE_OUT_BYTES) {
            // Linux begins to write out the range and drops what is clean, which what was written
            // just now is not (`generic_fadvise` in mm/fadvise.c). A hint.
            let _ = rustix::fs::fadvise(file, self.asked_to, Some(bytes), Advice::DontNeed);
            self.asked_to = self.end;
        }
        if self.end.saturating_sub(self.flushed_to) >= FLUSH_BYTES {
            self.flushed_to = self.end;
            self.flusher.flush(file, path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::OpenOptions;
    use std::io::PipeReader;
    use std::os::fd::OwnedFd;

    /// A pipe knows no sync: the kernel answers EINVAL, as a disk answers EIO.
    fn unsyncable() -> (PipeReader, File) {
        let (reader, writer) = std::io::pipe().unwrap();
        (reader, File::from(OwnedFd::from(writer)))
    }

    #[test]
    fn a_file_is_flushed_once_it_has_grown_enough() {
        let (_reader, file) = unsyncable();
        let step = usize::try_from(FLUSH_BYTES / 2).unwrap();
        for (steps, flushed) in [(1, false), (2, true)] {
            let flusher = Flusher::start().unwrap();
            let mut written = WrittenOut::new(&flusher);
            for _ in 0..steps {
                written.advance(&file, step, || PathBuf::from("base/1/2"));
            }
            assert_eq!(flusher.finish().unwrap().is_err(), flushed, "{steps} steps");
        }
    }

    #[test]
    fn what_can_t_be_synced_is_told_with_its_name_also_if_a_later_file_can() {
        let (_reader, pipe) = unsyncable();
        let good = OpenOptions::new().read(true).open("/proc/self/exe").unwrap();
        let flusher = Flusher::start().unwrap();
        // Not `flush`, which hands over nothing while one waits.
        flusher.files.send((pipe, PathBuf::from("base/1/2"))).unwrap();
        flusher.files.send((good, PathBuf::from("base/1/3"))).unwrap();
        let error = flusher.finish().unwrap().unwrap_err();
        assert!(error.to_string().contains("base/1/2"), "{error}");
    }
}
