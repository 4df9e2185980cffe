//! A plan in a few lines: what belongs together is counted together.

use super::gather::Gathered;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use wald_core::backup_id::BackupId;
use wald_core::object_key::WalObject;
use wald_core::quantity::{Bytes, Count};
use wald_core::retention::{ObjectName, WaitsFor};
use wald_core::segment::SegmentName;
use wald_core::timeline::TimelineId;
use wald_core::wal_file::WalFile;

/// What objects belong to.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Item {
    Identity,
    Backup(BackupId),
    Wal(TimelineId),
    Histories,
    Gaps,
    Records,
    Trials,
}

/// Versions that belong together and have the same fate for the same reason.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Group {
    /// What they are, as `backup 20250210T020000Z-full` or `WAL of timeline 1`.
    pub what: String,
    /// Why.
    pub why: String,
    /// How many.
    pub versions: u64,
    /// Their size.
    pub bytes: u64,
    /// For WAL, the first of its segments; there may be gaps.
    pub first: Option<SegmentName>,
    /// For WAL, the last of its segments.
    pub last: Option<SegmentName>,
}

/// The groups of a plan.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Summary {
    /// What stays.
    pub keep: Vec<Group>,
    /// What gets a longer or stronger lock; the reason is the latest date.
    pub extend: Vec<Group>,
    /// What is brought to light again, by name.
    pub heal: Vec<String>,
    /// What goes.
    pub delete: Vec<Group>,
    /// What would go, and waits for a lock.
    pub later: Vec<Group>,
    /// What is left alone, because it may belong to something that is under way.
    pub pending: Vec<Group>,
    /// Uploads that are ended, by name.
    pub abort: Vec<String>,
    /// Versions that wald does not know.
    pub unknown: u64,
}

#[derive(Default)]
struct Grouping {
    groups: BTreeMap<(Option<Item>, String), Group>,
}

impl Grouping {
    fn add(&mut self, gathered: &Gathered, version: usize, why: String) {
        let Some(version) = gathered.versions.get(version) else { return };
        let (item, segment) = item(&version.name);
        let what = item.as_ref().map_or_else(|| "others".to_owned(), Item::to_string);
        let key = (item, why.clone());
        let group = self.groups.entry(key).or_insert(Group {
            what,
            why,
            versions: 0,
            bytes: 0,
            first: segment,
            last: segment,
        });
        group.versions += 1;
        group.bytes = group.bytes.saturating_add(version.size_bytes);
        group.first = group.first.min(segment);
        group.last = group.last.max(segment);
    }

    fn groups(self) -> Vec<Group> {
        self.groups.into_values().collect()
    }
}

impl Summary {
    pub(super) fn of(gathered: &Gathered) -> Self {
        let plan = &gathered.plan;
        let mut keep = Grouping::default();
        for kept in &plan.keep {
            keep.add(gathered, kept.version, kept.reason.to_string());
        }
        let mut extend = Grouping::default();
        let latest = plan.extend.iter().map(|extension| extension.to.until).max().unwrap_or_default();
        for extension in &plan.extend {
            extend.add(
                gathered,
                extension.version,
                format!("{} until {latest} at the latest", extension.to.mode),
            );
        }
        let mut delete = Grouping::default();
        for removal in plan.delete.iter() {
            delete.add(gathered, removal.version, removal.why.to_string());
        }
        let mut later = Grouping::default();
        for wait in &plan.later {
            let why = format!("{}, but {}", wait.why, waits(&wait.waits));
            later.add(gathered, wait.version, why);
        }
        let mut pending = Grouping::default();
        for left in &plan.pending {
            pending.add(gathered, left.version, left.pending.to_string());
        }
        let name = |index: &usize| gathered.versions.get(*index).map(|version| version.name.clone());
        let upload = |index: &usize| gathered.uploads.get(*index).map(|upload| upload.name.clone());
        Self {
            keep: keep.groups(),
            extend: extend.groups(),
            heal: plan.heal.iter().filter_map(name).collect(),
            delete: delete.groups(),
            later: later.groups(),
            pending: pending.groups(),
            abort: plan.abort.iter().filter_map(upload).collect(),
            unknown: u64::try_from(plan.unknown.len()).unwrap_or(u64::MAX),
        }
    }
}

/// Grouped, so without the date of each single lock.
fn waits(waits: &WaitsFor) -> String {
    match waits {
        WaitsFor::Lock(_) => "it is locked".to_owned(),
        WaitsFor::UnknownLock => "its lock could not be read".to_owned(),
        WaitsFor::Backup(backup, Some(until)) => format!("backup {backup} is locked until {until}"),
        WaitsFor::Backup(backup, None) => format!("a lock of backup {backup} could not be read"),
    }
}

fn item(name: &str) -> (Option<Item>, Option<SegmentName>) {
    let Some(name) = ObjectName::parse(name) else { return (None, None) };
    let item = match name {
        ObjectName::Identity => Item::Identity,
        ObjectName::Catalog(id) | ObjectName::BackupObject(id) => Item::Backup(id),
        ObjectName::Gap(_) => Item::Gaps,
        ObjectName::Guarantees | ObjectName::Ledger | ObjectName::Run => Item::Records,
        ObjectName::Trial => Item::Trials,
        ObjectName::Wal(WalObject::File(file) | WalObject::Proof(file)) => match file {
            WalFile::History(_) => Item::Histories,
            WalFile::Segment(name) | WalFile::Partial(name) | WalFile::BackupLabel(name, _) => {
                return (Some(Item::Wal(name.timeline())), Some(name));
            }
        },
    };
    (Some(item), None)
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Item::Identity => f.write_str("wald.json"),
            Item::Backup(id) => write!(f, "backup {id}"),
            Item::Wal(timeline) => write!(f, "WAL of timeline {timeline}"),
            Item::Histories => f.write_str("histories"),
            Item::Gaps => f.write_str("records of gaps"),
            Item::Records => f.write_str("records of runs"),
            Item::Trials => f.write_str("trials"),
        }
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if let (Some(first), Some(last)) = (self.first, self.last) {
            write!(f, ", {first} to {last}")?;
        }
        write!(f, ": {}, {}: {}", Count(self.versions, "object"), Bytes(self.bytes), self.why)
    }
}
