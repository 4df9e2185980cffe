//! What `wald vacuum tune` changed: `<agent.state_dir>/controls/tune.json`.
//!
//! Invariants: an entry is durable before its table is changed; it keeps what stood there before
//! the first change of wald's, through any number of later ones; it goes only when its table has it
//! back, is gone, or was changed by somebody else, which is said.

use crate::control::state_file::StateFile;
use crate::fs::FsError;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// One storage parameter of one table.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// Its database.
    pub database: String,
    /// The table's oid: another table of the same name is another one.
    pub oid: u32,
    /// Schema and name, quoted as in SQL, when it was changed.
    pub table: String,
    /// The parameter.
    pub option: String,
    /// As it stood in `reloptions`; absent where it was not set.
    pub before: Option<String>,
    /// What wald set.
    pub ours: String,
    /// When.
    pub at: Timestamp,
}

/// All of them.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Content {
    entries: Vec<Entry>,
}

/// The file.
#[derive(Debug)]
pub struct Journal {
    file: StateFile,
    content: Content,
}

impl Journal {
    /// Reads it.
    pub fn open(state_dir: &Path) -> Result<Self, FsError> {
        let file = StateFile::below(state_dir, "controls/tune.json");
        let content = file.read()?.unwrap_or_default();
        Ok(Self { file, content })
    }

    /// What can be taken back.
    pub fn entries(&self) -> &[Entry] {
        &self.content.entries
    }

    /// Adds an entry, durably. Where wald changed the same parameter before and nobody did since, what
    /// stood there before wald stays on record.
    pub fn record(&mut self, entry: Entry) -> Result<(), FsError> {
        let mut entry = entry;
        let known = self.content.entries.iter().position(|known| known.is_about_the_same(&entry));
        if let Some(at) = known {
            let known = self.content.entries.remove(at);
            if entry.before.as_deref() == Some(known.ours.as_str()) {
                entry.before = known.before;
            }
        }
        self.content.entries.push(entry);
        self.save()
    }

    /// Removes an entry, durably.
    pub fn forget(&mut self, entry: &Entry) -> Result<(), FsError> {
        self.content.entries.retain(|known| !known.is_about_the_same(entry));
        self.save()
    }

    /// Makes the entries what they were, durably: for a change that could not be made.
    pub fn restore(&mut self, entries: Vec<Entry>) -> Result<(), FsError> {
        self.content.entries = entries;
        self.save()
    }

    fn save(&self) -> Result<(), FsError> {
        if self.content.entries.is_empty() { self.file.remove() } else { self.file.replace(&self.content) }
    }
}

impl Entry {
    fn is_about_the_same(&self, other: &Entry) -> bool {
        (&self.database, self.oid, &self.option) == (&other.database, other.oid, &other.option)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(oid: u32, before: Option<&str>, ours: &str) -> Entry {
        Entry {
            database: "shop".to_owned(),
            oid,
            table: "public.t".to_owned(),
            option: "autovacuum_vacuum_scale_factor".to_owned(),
            before: before.map(str::to_owned),
            ours: ours.to_owned(),
            at: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn what_was_before_the_first_change_stays_on_record() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path()).unwrap();
        journal.record(entry(1, Some("0.1"), "0.02")).unwrap();
        journal.record(entry(1, Some("0.02"), "0.01")).unwrap();
        assert_eq!(Journal::open(dir.path()).unwrap().entries(), [entry(1, Some("0.1"), "0.01")]);
        // Somebody set 0.3 in between: that is what goes back.
        journal.record(entry(1, Some("0.3"), "0.02")).unwrap();
        assert_eq!(journal.entries(), [entry(1, Some("0.3"), "0.02")]);
    }

    #[test]
    fn the_last_entry_takes_the_file_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path()).unwrap();
        journal.record(entry(1, None, "0.02")).unwrap();
        journal.record(entry(2, None, "0.02")).unwrap();
        journal.forget(&entry(1, None, "0.02")).unwrap();
        assert_eq!(Journal::open(dir.path()).unwrap().entries().len(), 1);
        journal.forget(&entry(2, None, "0.02")).unwrap();
        assert!(!dir.path().join("controls/tune.json").exists());
    }
}
