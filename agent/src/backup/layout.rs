//! Splits the files of a backup into parts: tar files of about the same size, which are made
//! and restored in parallel.
//!
//! Pure. Invariants: every file and every directory is in exactly one part; no file is split;
//! a part holds files of one tablespace only (or of the data directory); a part is larger
//! than asked for only if a single file is. The directories of a tablespace are all in its
//! first part. Where there is little to back up, parts are smaller than asked for, so that
//! every worker has about as much to do.

use super::part::OWN_FRAME_BYTES;
use super::scan::{Scan, ScannedDirectory, ScannedFile};
use std::collections::BTreeMap;

/// What one part will hold.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PartPlan {
    /// The object's name, `base-0001.tar.zst` or `16400-0001.tar.zst`.
    pub name: String,
    /// The tablespace that the paths in the tar are relative to; none: the data directory.
    pub tablespace: Option<u32>,
    /// Directories, which come before all files.
    pub directories: Vec<ScannedDirectory>,
    /// Files to be read from disk.
    pub files: Vec<ScannedFile>,
}

/// All parts but the last, which is made when the backup has ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layout {
    /// The parts, the largest first: the one that takes longest must not begin last.
    pub parts: Vec<PartPlan>,
    /// The name of the part for `backup_label`, `tablespace_map` and `pg_control`.
    pub last_part: String,
}

/// Every entry of a tar has a header, and both are padded to blocks of this size.
const TAR_BLOCK: u64 = 512;
/// So many parts for each worker at least, so that the last ones to end are small,
const PARTS_PER_WORKER: u64 = 4;
/// but none is cut smaller than this for it: each costs some requests.
const EVEN_PART_BYTES_MIN: u64 = 64 << 20;

/// Plans parts of at most about `part_bytes` before compression, for `workers` at the same time.
pub fn layout(scan: Scan, part_bytes: u64, workers: usize) -> Layout {
    let part_bytes = even_bytes(&scan, workers).min(part_bytes);
    let mut groups: BTreeMap<Option<u32>, (Vec<ScannedDirectory>, Vec<ScannedFile>)> = BTreeMap::new();
    for directory in scan.directories {
        groups.entry(directory.tablespace).or_default().0.push(directory);
    }
    for file in scan.files {
        groups.entry(file.tablespace).or_default().1.push(file);
    }
    let mut sized = Vec::new();
    let mut base_parts = 0;
    for (tablespace, (directories, files)) in groups {
        let mut bins = pack(files, |file| tar_bytes(file.size), part_bytes);
        if bins.is_empty() {
            // Directories need a part even where there are no files.
            bins.push((0, Vec::new()));
        }
        if tablespace.is_none() {
            base_parts = bins.len();
        }
        let mut directories = Some(directories);
        for (index, (bytes, mut files)) in bins.into_iter().enumerate() {
            // The large ones first; of those that share frames, neighbours side by side.
            let apart = |file: &ScannedFile| if file.size < OWN_FRAME_BYTES { 0 } else { file.size };
            files.sort_unstable_by(|a, b| apart(b).cmp(&apart(a)).then_with(|| a.path.cmp(&b.path)));
            let directories = directories.take().unwrap_or_default();
            let name = part_name(tablespace, index + 1);
            sized.push((bytes, PartPlan { name, tablespace, directories, files }));
        }
    }
    sized.sort_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
    let parts = sized.into_iter().map(|(_, part)| part).collect();
    Layout { parts, last_part: part_name(None, base_parts + 1) }
}

/// A size of parts at which all workers end at about the same time.
fn even_bytes(scan: &Scan, workers: usize) -> u64 {
    let total = scan.files.iter().fold(0u64, |sum, file| sum.saturating_add(tar_bytes(file.size)));
    let parts = u64::try_from(workers).unwrap_or(u64::MAX).max(1).saturating_mul(PARTS_PER_WORKER);
    (total / parts).max(EVEN_PART_BYTES_MIN)
}

fn part_name(tablespace: Option<u32>, number: usize) -> String {
    match tablespace {
        None => format!("base-{number:04}.tar.zst"),
        Some(oid) => format!("{oid}-{number:04}.tar.zst"),
    }
}

/// The room that a file takes in a tar.
fn tar_bytes(size: u64) -> u64 {
    size.checked_next_multiple_of(TAR_BLOCK).unwrap_or(u64::MAX).saturating_add(TAR_BLOCK)
}

/// Fills bins of `room` with the largest items first. Taken in that order a bin that is
/// closed because the next item does not fit is at least half full.
fn pack<T>(mut items: Vec<T>, size: impl Fn(&T) -> u64, room: u64) -> Vec<(u64, Vec<T>)> {
    items.sort_by_key(|item| std::cmp::Reverse(size(item)));
    let mut bins: Vec<(u64, Vec<T>)> = Vec::new();
    for item in items {
        let bytes = size(&item);
        match bins.last_mut() {
            Some((filled, bin)) if filled.saturating_add(bytes) <= room => {
                *filled = filled.saturating_add(bytes);
                bin.push(item);
            }
            _ => bins.push((bytes, vec![item])),
        }
    }
    bins
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::PathBuf;
    use wald_core::relative_path::RelativePath;

    fn file(index: usize, tablespace: Option<u32>, size: u64) -> ScannedFile {
        let path = match tablespace {
            None => format!("base/5/{index}"),
            Some(oid) => format!("pg_tblspc/{oid}/PG_15_202209061/5/{index}"),
        };
        ScannedFile { path: RelativePath::new(path).unwrap(), disk: PathBuf::new(), tablespace, size }
    }

    fn directory(path: &str, tablespace: Option<u32>) -> ScannedDirectory {
        ScannedDirectory { path: RelativePath::new(path).unwrap(), tablespace, mode: 0o700 }
    }

    #[test]
    fn a_tablespace_without_files_keeps_its_directory() {
        let scan = Scan {
            directories: vec![directory("base", None), directory("pg_tblspc/7/PG_15_202209061", Some(7))],
            files: vec![file(1, None, 10)],
            tablespaces: Vec::new(),
        };
        let layout = layout(scan, 1 << 20, 2);
        let names: Vec<_> = layout.parts.iter().map(|part| part.name.as_str()).collect();
        assert_eq!(names, ["base-0001.tar.zst", "7-0001.tar.zst"]);
        assert_eq!(layout.last_part, "base-0002.tar.zst");
    }

    #[test]
    fn a_file_larger_than_a_part_gets_one_of_its_own() {
        let files = vec![file(1, None, 100), file(2, None, 9_000_000), file(3, None, 200)];
        let scan = Scan { directories: Vec::new(), files, tablespaces: Vec::new() };
        let layout = layout(scan, 1 << 20, 2);
        let sizes: Vec<usize> = layout.parts.iter().map(|part| part.files.len()).collect();
        assert_eq!(sizes, [1, 2]);
    }

    #[test]
    fn a_small_cluster_is_cut_so_that_every_worker_has_as_much_to_do() {
        let files = (0..40).map(|index| file(index, None, 100 << 20)).collect();
        let scan = Scan { directories: Vec::new(), files, tablespaces: Vec::new() };
        let parts = |workers| layout(scan.clone(), 1 << 30, workers).parts.len();
        assert_eq!((parts(1), parts(2), parts(4)), (4, 8, 20));
        // The beginning of the large ones is the beginning of the list.
        let files = vec![file(1, None, 10), file(2, None, 2 << 20), file(3, None, 3 << 20), file(4, None, 5)];
        let scan = Scan { directories: Vec::new(), files, tablespaces: Vec::new() };
        let part = layout(scan, 1 << 30, 2).parts.remove(0);
        let sizes: Vec<u64> = part.files.iter().map(|file| file.size).collect();
        assert_eq!(sizes, [3 << 20, 2 << 20, 10, 5]);
    }

    proptest! {
        #[test]
        fn every_file_is_in_one_part_of_bounded_size(
            files in prop::collection::vec((prop::option::of(1u32..3), 0u64..5_000_000), 0..60),
            part_bytes in 1_000u64..3_000_000,
        ) {
            let files: Vec<_> = files.iter().enumerate()
                .map(|(index, (tablespace, size))| file(index, *tablespace, *size)).collect();
            let scan = Scan {
                directories: vec![directory("base", None)], files: files.clone(), tablespaces: Vec::new(),
            };
            let layout = layout(scan, part_bytes, 2);
            let mut names = std::collections::BTreeSet::from([layout.last_part.clone()]);
            for part in &layout.parts {
                prop_assert!(names.insert(part.name.clone()));
                prop_assert!(part.files.iter().all(|file| file.tablespace == part.tablespace));
                let bytes: u64 = part.files.iter().map(|file| tar_bytes(file.size)).sum();
                prop_assert!(bytes <= part_bytes || part.files.len() == 1);
            }
            let mut packed: Vec<_> = layout.parts.into_iter().flat_map(|part| part.files).collect();
            packed.sort_by(|a, b| a.path.cmp(&b.path));
            let mut expected = files;
            expected.sort_by(|a, b| a.path.cmp(&b.path));
            prop_assert_eq!(packed, expected);
        }
    }
}
