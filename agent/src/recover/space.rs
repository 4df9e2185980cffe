//! Whether a backup is likely to fit where it is to be restored to.
//!
//! A warning and no refusal: a file system that compresses takes more than it seems to have.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use wald_core::catalog::CatalogEntry;
use wald_core::quantity::Bytes;

/// What one file system is to take, and what it has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Shortage {
    pub directory: PathBuf,
    pub needed_bytes: u64,
    pub free_bytes: u64,
}

/// The file systems on which less is free than the backup's files have. `place` says where the
/// files of a tablespace, or of the data directory, go.
pub(super) fn shortages<'p>(
    entry: &CatalogEntry,
    place: impl Fn(Option<u32>) -> Option<&'p Path>,
) -> Vec<Shortage> {
    let mut file_systems: BTreeMap<u64, Shortage> = BTreeMap::new();
    for part in entry.parts() {
        let existing = place(part.tablespace).and_then(|path| path.ancestors().find(|path| path.exists()));
        let device = existing.and_then(|path| Some((path, std::fs::metadata(path).ok()?.dev())));
        // What can't be looked at is no reason to warn: writing to it will tell.
        let Some((directory, device)) = device else { continue };
        let Ok(stat) = rustix::fs::statvfs(directory) else { continue };
        let shortage = file_systems.entry(device).or_insert_with(|| Shortage {
            directory: directory.to_owned(),
            needed_bytes: 0,
            free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
        });
        shortage.needed_bytes = shortage.needed_bytes.saturating_add(part.raw_bytes);
    }
    file_systems.into_values().filter(|system| system.needed_bytes > system.free_bytes).collect()
}

/// Says what may be too small.
pub(super) fn warn(shortages: &[Shortage]) {
    for Shortage { directory, needed_bytes, free_bytes } in shortages {
        tracing::warn!(
            directory = %directory.display(),
            needed = %Bytes(*needed_bytes),
            free = %Bytes(*free_bytes),
            "the backup may not fit on this file system, and WAL comes on top of it"
        );
    }
}
