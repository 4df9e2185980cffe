//! Finds out what is needed, once; and then answers for any name.

use super::choice::Choice;
use super::guard::{Guards, Shape, segments_of};
use super::line::{Holding, Line, Window, is_of_the_future};
use super::name::ObjectName;
use super::need::{BackupReason, Need, Pending, Reason, Unneeded};
use super::seen::Seen;
use super::{LEFTOVER_AGE_MIN, PENDING_WAL_BEFORE, Policy, RECORD_AGE_MIN, TRIAL_AGE_MIN};
use crate::backup_id::BackupId;
use crate::catalog::CatalogEntry;
use crate::object_key::{ObjectKey, WalObject};
use crate::recovery_plan::Holdings;
use crate::recovery_window::timelines;
use crate::segment::{SegmentName, SegmentSize};
use crate::timeline::TimelineId;
use crate::wal_file::WalFile;
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

/// What the answers are made from.
#[derive(Clone, Copy, Debug)]
pub struct Basis<'a> {
    /// The catalog, the histories and the WAL.
    pub holdings: Holdings<'a>,
    /// Names of catalog entries and histories that can't be understood, or not now. If there is
    /// one, everything that is known counts as needed.
    pub unreadable: &'a [String],
    /// What else is stored.
    pub seen: &'a Seen,
}

/// What is needed, and why.
#[derive(Clone, Debug)]
pub struct Needed {
    window: Window,
    size: SegmentSize,
    /// Why everything is needed, if so.
    everything: Option<Reason>,
    /// Every backup that has a catalog entry; none: it is not needed.
    backups: BTreeMap<BackupId, Option<(BackupReason, Timestamp)>>,
    lines: Vec<Holding>,
    /// What each timeline contributes to lines: first segment, last segment, index into `lines`.
    stretches: BTreeMap<TimelineId, Vec<(u64, u64, usize)>>,
    /// The latest timeline that has a history or a backup, and whether its line has backups.
    latest: Option<(TimelineId, bool)>,
    /// All lines that have backups.
    shapes: Vec<Shape>,
    /// WAL that was stored since then may be needed by a backup in progress.
    pending_since: Option<Timestamp>,
    seen: Seen,
    unreadable: BTreeSet<String>,
    unsound: Vec<(BackupId, Unsound)>,
}

/// Why a backup of the catalog stands in for no other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Unsound {
    /// This object of it is not there, or not of the size that its entry says.
    Missing(String),
    /// It ended in the future, by the database's clock.
    OfTheFuture,
}

fn unsound(basis: &Basis<'_>, now: Timestamp) -> Vec<(BackupId, Unsound)> {
    let why = |entry: &CatalogEntry| match basis.seen.missing_of(entry) {
        Some(object) => Some(Unsound::Missing(object)),
        None => is_of_the_future(entry, now).then_some(Unsound::OfTheFuture),
    };
    basis.holdings.catalog.iter().filter_map(|entry| Some((entry.id().clone(), why(entry)?))).collect()
}

/// Finds out what the window from `now - policy.window` to `now` needs. Costs a pass over the
/// WAL for each line and backup, and nothing per object.
pub fn needed(basis: Basis<'_>, policy: Policy, now: Timestamp) -> Needed {
    let window = Window::at(now, policy);
    let holdings = basis.holdings;
    let tls = timelines(holdings.catalog, holdings.histories);
    let lines: Vec<Line<'_>> = tls.iter().filter_map(|tl| Line::of(*tl, holdings, basis.seen, now)).collect();
    let choice = Choice::make(&lines, tls.last().copied(), &window);
    let foreign = |entry: &&CatalogEntry| {
        entry.system_id() != holdings.system_id || entry.segment_size() != holdings.coverage.segment_size()
    };
    let foreign =
        holdings.catalog.iter().find(foreign).map(|entry| ObjectKey::catalog(entry.id()).to_string());
    let known: BTreeSet<&BackupId> = holdings.catalog.iter().map(CatalogEntry::id).collect();
    // An entry that is listed and was not read is a backup of which nothing is known.
    let unread =
        basis.seen.entries().find(|id| !known.contains(id)).map(|id| ObjectKey::catalog(id).to_string());
    let everything = basis
        .unreadable
        .first()
        .cloned()
        .or(unread)
        .or(foreign)
        .map(|key| Reason::Unreadable { key })
        .or_else(|| choice.minimum.is_empty().then_some(Reason::NoBackup));
    let mut needed = Needed {
        window,
        size: holdings.coverage.segment_size(),
        everything,
        backups: holdings.catalog.iter().map(|entry| (entry.id().clone(), None)).collect(),
        lines: Vec::new(),
        stretches: BTreeMap::new(),
        latest: tls.last().map(|latest| (*latest, lines.iter().any(|line| line.timeline == *latest))),
        shapes: lines.iter().map(|line| Shape::of(line, holdings.coverage.segment_size())).collect(),
        pending_since: None,
        seen: basis.seen.clone(),
        unreadable: basis.unreadable.iter().cloned().collect(),
        unsound: unsound(&basis, now),
    };
    // An entry that can't be read is a backup all the same.
    let named = basis.unreadable.iter().filter_map(|key| match ObjectName::parse(key) {
        Some(ObjectName::Catalog(id)) => Some(id),
        _ => None,
    });
    for id in named.chain(basis.seen.entries().cloned()) {
        needed.backups.entry(id).or_insert(None);
    }
    needed.backups.extend(choice.reasons(&window).into_iter().map(|(id, kept)| (id.clone(), Some(kept))));
    let kept: BTreeSet<&BackupId> = choice.kept.keys().copied().collect();
    for (line, horizon) in &choice.followed {
        needed.follow(line, holdings, line.holding(&window, &kept, &choice.minimum, *horizon));
    }
    needed.pending_since = needed.pending_since(basis.seen);
    needed
}

impl Needed {
    /// The use of the object `name`, which was stored at `stored_at` by the repository's clock.
    pub fn of(&self, name: &str, stored_at: Timestamp) -> Need {
        let Some(object) = ObjectName::parse(name) else { return Need::Unknown };
        match object {
            ObjectName::Identity => self.for_ever(Reason::Identity),
            ObjectName::Wal(WalObject::File(file) | WalObject::Proof(file)) => self.wal(file, stored_at),
            ObjectName::Gap(file) => self.gap(file, stored_at),
            // Whatever else is known: an entry is no leftover.
            ObjectName::Catalog(id) if !self.backups.contains_key(&id) => {
                self.for_ever(Reason::Unreadable { key: name.to_owned() })
            }
            ObjectName::Catalog(id) | ObjectName::BackupObject(id) => self.backup(id, stored_at),
            ObjectName::Guarantees if self.seen.is_newest(name) => self.for_ever(Reason::Record),
            ObjectName::Guarantees | ObjectName::Trial => self.trial(stored_at),
            ObjectName::Ledger | ObjectName::Run => self.record(name, stored_at),
        }
    }

    /// The window's beginning: the earliest target.
    pub fn window_begin(&self) -> Timestamp {
        self.window.begin
    }

    /// Why everything counts as needed, if it does.
    pub fn everything(&self) -> Option<&Reason> {
        self.everything.as_ref()
    }

    /// Every backup with a catalog entry; with the reason and the time if it is kept.
    pub fn backups(&self) -> impl Iterator<Item = (&BackupId, Option<(BackupReason, Timestamp)>)> {
        self.backups.iter().map(|(id, kept)| (id, *kept))
    }

    /// Backups of the catalog that stand in for no other, with the reason.
    pub fn unsound(&self) -> &[(BackupId, Unsound)] {
        &self.unsound
    }

    /// Whether a name leads on from one of `backups`, so that it has to stay as long as they do.
    pub fn leads_on_from(&self, backups: &BTreeSet<&BackupId>) -> impl Fn(&str) -> bool + use<> {
        let guards = self.guards(backups);
        move |name| {
            let segment = ObjectName::parse(name).as_ref().and_then(ObjectName::segment);
            segment.is_some_and(|segment| guards.backup_for(segment).is_some())
        }
    }

    /// No lock is wanted beyond this: what is needed for longer is extended again in time.
    pub(super) fn lock_end_max(&self) -> Timestamp {
        self.window.leaves(self.window.now)
    }

    /// Whether the object can't be understood.
    pub(super) fn is_unreadable(&self, name: &str) -> bool {
        self.unreadable.contains(name)
    }

    /// The timelines whose targets are kept, each with the first segment of its WAL (on this
    /// timeline or an ancestor) and the backup that starts there.
    pub fn lines(&self) -> impl Iterator<Item = (TimelineId, u64, &BackupId)> {
        self.lines.iter().map(|line| (line.timeline, line.floor, &line.floor_backup))
    }

    /// Whether a segment stands in the way from a kept backup to a target: one that is not
    /// stored there is a hole.
    pub fn is_on_a_line(&self, segment: SegmentName) -> bool {
        segment
            .number(self.size)
            .is_some_and(|number| self.on_lines(segment.timeline(), number).next().is_some())
    }

    /// The WAL that has to stay as long as `backups` exist, needed or not.
    pub(super) fn guards(&self, backups: &BTreeSet<&BackupId>) -> Guards {
        Guards::of(&self.shapes, backups, self.size)
    }

    fn for_ever(&self, reason: Reason) -> Need {
        Need::Needed { reason, until: self.window.leaves(self.window.now) }
    }

    fn follow(&mut self, line: &Line<'_>, holdings: Holdings<'_>, holding: Option<Holding>) {
        let Some(holding) = holding else { return };
        let index = self.lines.len();
        for (timeline, first, last) in segments_of(line, self.size) {
            if last < holding.floor {
                continue;
            }
            let parts = self.stretches.entry(timeline).or_default();
            parts.push((first.max(holding.floor), last, index));
            // When its first segment was stored tells since when a timeline is there. Without that
            // the planner would refuse times as ambiguous that were clear before.
            let began = holdings.coverage.between(timeline, first, u64::MAX).first();
            if let Some(began) = began.filter(|began| began.number > last) {
                parts.push((began.number, began.number, index));
            }
        }
        self.lines.push(holding);
    }

    fn on_lines(&self, timeline: TimelineId, number: u64) -> impl Iterator<Item = &Holding> {
        let stretches = self.stretches.get(&timeline).map(Vec::as_slice).unwrap_or_default();
        let here = stretches.iter().filter(move |(first, last, _)| (*first..=*last).contains(&number));
        here.filter_map(|(_, _, index)| self.lines.get(*index))
    }

    fn wal(&self, file: WalFile, stored_at: Timestamp) -> Need {
        let segment = match file {
            WalFile::History(_) => return self.for_ever(Reason::History),
            WalFile::Segment(name) | WalFile::Partial(name) | WalFile::BackupLabel(name, _) => name,
        };
        // No cluster with these segments has such a name: somebody else put it here.
        let Some(number) = segment.number(self.size) else { return Need::Unknown };
        if let Some(reason) = &self.everything {
            return self.for_ever(reason.clone());
        }
        let timeline = segment.timeline();
        let stays = self.window.leaves(stored_at);
        let longest = self.on_lines(timeline, number).max_by_key(|line| line.until(number));
        if let Some(line) = longest {
            let reason = Reason::Wal { backup: line.floor_backup.clone(), timeline: line.timeline };
            return Need::Needed { reason, until: line.until(number) };
        }
        let above = self.lines.iter().map(|line| line.floor).min().is_some_and(|floor| number >= floor);
        let lone = self
            .latest
            .is_none_or(|(latest, has_backups)| timeline > latest || (timeline == latest && !has_backups));
        if above && lone {
            return self.for_ever(Reason::LoneTimeline { timeline });
        }
        if above && stored_at >= self.window.begin {
            return Need::Pending { pending: Pending::RecentWal, until: stays };
        }
        match self.pending_since {
            Some(since) if stored_at >= since => {
                let until = self.window.now.saturating_add(TRIAL_AGE_MIN).unwrap_or(Timestamp::MAX);
                Need::Pending { pending: Pending::WalOfUncommittedBackup, until }
            }
            _ => Need::NotNeeded(Unneeded::ExpiredWal),
        }
    }

    fn gap(&self, file: WalFile, stored_at: Timestamp) -> Need {
        match self.wal(file, stored_at) {
            Need::Needed { until, .. } => Need::Needed { reason: Reason::Gap, until },
            Need::Pending { pending, until } => Need::Pending { pending, until },
            Need::NotNeeded(_) => Need::NotNeeded(Unneeded::ExpiredGap),
            Need::Unknown => Need::Unknown,
        }
    }

    fn backup(&self, backup: BackupId, stored_at: Timestamp) -> Need {
        let entered = self.backups.get(&backup);
        if let (Some(_), Some(reason)) = (entered, &self.everything) {
            return self.for_ever(reason.clone());
        }
        match entered {
            Some(Some((because, until))) => {
                Need::Needed { reason: Reason::Backup { backup, because: *because }, until: *until }
            }
            Some(None) => Need::NotNeeded(Unneeded::ExpiredBackup { backup }),
            None => {
                let last = self.seen.last_added(&backup).unwrap_or(stored_at).max(stored_at);
                let unneeded = Unneeded::Leftover { backup };
                self.aged(last, LEFTOVER_AGE_MIN, Pending::UncommittedBackup, unneeded)
            }
        }
    }

    fn trial(&self, stored_at: Timestamp) -> Need {
        self.aged(stored_at, TRIAL_AGE_MIN, Pending::Trial, Unneeded::Trial)
    }

    fn record(&self, name: &str, stored_at: Timestamp) -> Need {
        let age = self.window.policy.window.max(RECORD_AGE_MIN);
        let old = stored_at.saturating_add(age).unwrap_or(Timestamp::MAX);
        let newest = self.seen.is_newest(name).then(|| self.window.leaves(self.window.now));
        let until = newest.map_or(old, |newest| newest.max(old));
        if until > self.window.now {
            Need::Needed { reason: Reason::Record, until }
        } else {
            Need::NotNeeded(Unneeded::OldRecord)
        }
    }

    fn aged(&self, stored_at: Timestamp, age: SignedDuration, pending: Pending, unneeded: Unneeded) -> Need {
        let until = stored_at.saturating_add(age).unwrap_or(Timestamp::MAX);
        if until > self.window.now { Need::Pending { pending, until } } else { Need::NotNeeded(unneeded) }
    }

    /// Since when stored WAL may be needed by a backup that has no catalog entry yet.
    fn pending_since(&self, seen: &Seen) -> Option<Timestamp> {
        let running = seen.folders().filter(|(id, newest)| {
            let left = newest.saturating_add(LEFTOVER_AGE_MIN).unwrap_or(Timestamp::MAX);
            !self.backups.contains_key(*id) && left > self.window.now
        });
        let began = running.map(|(id, newest)| id.began().min(newest)).min()?;
        Some(began.saturating_sub(PENDING_WAL_BEFORE).unwrap_or(Timestamp::MIN))
    }
}
