//! Proves one part of a backup: the object against the catalog, each file in it against the list,
//! each page of a relation against its own checksum.

use super::backup_job::{BackupJob, Files, Listed, difference, short, take};
use super::event::Event;
use super::lanes::{GivenUp, Shared};
use crate::stored::{ObjectReader, PartError, read_part};
use std::collections::HashMap;
use std::io::{self, Read};
use wald_core::catalog::{CatalogEntry, Part};
use wald_core::data_file::BLOCKS_PER_SEGMENT_DEFAULT;
use wald_core::file_proof::{FileProof, FileSums};
use wald_core::ledger::{Damage, Depth};
use wald_core::page_check::{PageChecksums, PageRules};
use wald_core::relative_path::RelativePath;

/// Bytes of a file that are proven at once.
const BUFFER_BYTES: usize = 256 << 10;
/// Pages that are put into words; the rest is counted.
const PROBLEMS_TOLD: usize = 5;

/// What was seen in a part.
#[derive(Default)]
struct Scan {
    /// Files that were expected and not seen.
    missing: HashMap<[u8; 16], Listed>,
    raw_bytes: u64,
    /// What ended the reading.
    problem: Option<String>,
    pages: BadPages,
}

/// Pages with damage that was not in the cluster when it was backed up.
#[derive(Default)]
struct BadPages {
    told: Vec<String>,
    count: u64,
}

impl Shared {
    pub(super) fn part(&self, backup: &BackupJob, index: usize) -> Result<(), GivenUp> {
        let Some(part) = backup.entry.parts().get(index) else { return Ok(()) };
        // A catalog entry names no impossible objects.
        let Ok(key) = backup.entry.object_key(&part.name) else { return Ok(()) };
        let files = backup.files(self)?;
        let read = self.read(&key, |object| match &files {
            Some(files) => self.scan(object, &backup.entry, part, files, index),
            None => Scan::default(),
        })?;
        let Some(whole) = read else { return Ok(()) };
        let Scan { missing, raw_bytes, problem, pages } = whole.value;
        // The hash of the whole says more than the place where the reading stumbled.
        let damage = difference(whole.bytes, whole.hash, part.stored_bytes, part.blake3).or(problem);
        let damage = match damage {
            None if !missing.is_empty() => {
                let name = backup.name_missing(self, &part.name, &missing)?;
                let name = name.unwrap_or_else(|| "a file".to_owned());
                Some(format!("{name} is not in it, nor are {} others that the list names", missing.len() - 1))
            }
            damage => damage,
        };
        if let Some(problem) = damage {
            self.found(&key, Damage::Content { problem });
            return Ok(());
        }
        if files.is_none() {
            // Without the list nothing can be said of what is in it.
            self.tell(Event::Blocked { object: key.as_str().into() });
            return Ok(());
        }
        self.tell(Event::Unpacked { raw_bytes });
        self.proven(&key, self.depth);
        if pages.count > 0 {
            self.found(&key, Damage::Pages { problems: pages.told, count: pages.count });
        }
        Ok(())
    }

    fn scan(
        &self,
        object: &mut ObjectReader<'_>,
        entry: &CatalogEntry,
        part: &Part,
        files: &Files,
        index: usize,
    ) -> Scan {
        let rules = (self.depth >= Depth::Records).then(|| page_rules(entry, files));
        let mut scan = Scan { missing: files.expected(index), ..Scan::default() };
        let mut buffer = vec![0; BUFFER_BYTES];
        let read = read_part(object, part.tablespace, |path, shown, size, content| {
            let listed = take(&mut scan.missing, path.as_bytes());
            let listed =
                listed.ok_or_else(|| format!("{shown} in it is not in the list of files, or twice"))?;
            if size != listed.size {
                return Err(format!("{shown} in it has {size} bytes, the list says {}", listed.size));
            }
            let sums = prove(&path, content, rules, &mut buffer)
                .map_err(|error| format!("{shown} in it: {error}"))?;
            if sums.bytes != size {
                return Err(format!("{shown} in it ends after {} of {size} bytes", sums.bytes));
            }
            if short(sums.blake3.as_bytes()) != listed.proof {
                return Err(format!(
                    "the BLAKE3 of {shown} in it is {}, the list says otherwise",
                    sums.blake3
                ));
            }
            scan.raw_bytes += size;
            scan.pages.note(entry, &path, &sums);
            Ok(())
        });
        scan.problem = match read {
            Ok(()) => None,
            Err(PartError::Damaged(problem) | PartError::Visit(problem)) => Some(problem),
        };
        scan
    }
}

fn page_rules(entry: &CatalogEntry, files: &Files) -> PageRules {
    PageRules {
        start: entry.start_lsn(),
        stop: Some(entry.stop_lsn()),
        blocks_per_segment: files.blocks_per_segment.unwrap_or(BLOCKS_PER_SEGMENT_DEFAULT),
        checksums: if entry.facts().data_checksums { PageChecksums::On } else { PageChecksums::Off },
    }
}

fn prove(
    path: &RelativePath,
    content: &mut dyn Read,
    rules: Option<PageRules>,
    buffer: &mut [u8],
) -> io::Result<FileSums> {
    let mut proof = FileProof::new(&String::from_utf8_lossy(path.as_bytes()), rules);
    loop {
        match content.read(buffer) {
            Ok(0) => return Ok(proof.finish()),
            Ok(count) => proof.feed(buffer.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

impl BadPages {
    /// Notes the bad pages of a file that the backup does not name as bad already.
    fn note(&mut self, entry: &CatalogEntry, path: &RelativePath, sums: &FileSums) {
        let known = &entry.facts().bad_pages;
        for (block, damage) in &sums.pages.bad {
            let file = path.to_string();
            if known.iter().any(|bad| bad.file == file && bad.block == *block) {
                continue;
            }
            self.count += 1;
            if self.told.len() < PROBLEMS_TOLD {
                self.told.push(format!("{file} block {block}: {damage}"));
            }
        }
    }
}
