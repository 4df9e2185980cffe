//! Which lines are followed, and which backups are kept for them.

use super::line::{Line, Window};
use super::need::BackupReason;
use crate::backup_id::BackupId;
use crate::catalog::CatalogEntry;
use crate::timeline::TimelineId;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// Which lines are followed, and which backups are kept.
pub(super) struct Choice<'a> {
    /// With the time at which the line's last target leaves the window.
    pub followed: Vec<(&'a Line<'a>, Timestamp)>,
    pub kept: BTreeMap<&'a BackupId, BackupReason>,
    /// The newest whole backups.
    pub minimum: BTreeSet<&'a BackupId>,
}

impl<'a> Choice<'a> {
    /// Chooses; `latest` is followed whatever has been stored of it.
    pub fn make(lines: &'a [Line<'a>], latest: Option<TimelineId>, window: &Window) -> Self {
        let mut choice =
            Self { followed: Vec::new(), kept: BTreeMap::new(), minimum: newest_whole(lines, window) };
        let now_on = window.leaves(window.now);
        for line in lines {
            if Some(line.timeline) == latest {
                choice.followed.push((line, now_on));
            } else if line.has_targets(window) {
                choice.followed.push((line, line.last_target_leaves(window).min(now_on)));
            } else {
                continue;
            }
            choice.keep_for(line, window);
        }
        let count = window.policy.full_backups_min.get();
        for line in lines {
            // What is kept only for its number is kept with the WAL that leads on from it.
            let own = |id: &&BackupId| line.members.iter().any(|m| m.entry.id() == *id);
            let mine: Vec<&BackupId> = choice.minimum.iter().copied().filter(own).collect();
            if mine.is_empty() {
                continue;
            }
            let alone = mine.iter().any(|id| {
                let follows =
                    |(followed, _): &(&Line<'_>, _)| followed.members.iter().any(|m| m.entry.id() == *id);
                !choice.followed.iter().any(follows)
            });
            if alone {
                choice.followed.push((line, now_on));
            }
            for id in mine {
                choice.kept.entry(id).or_insert(BackupReason::Minimum { count });
            }
        }
        choice
    }

    /// The anchor and everything after it.
    fn keep_for(&mut self, line: &'a Line<'a>, window: &Window) {
        let anchor = line.anchor(window);
        let timeline = line.timeline;
        for (index, member) in line.members.iter().enumerate().skip(anchor.unwrap_or(0)) {
            let reason = if member.ended > window.begin {
                BackupReason::InWindow
            } else if member.ended > window.early() {
                BackupReason::AtEdge
            } else if anchor == Some(index) {
                BackupReason::Anchor { timeline }
            } else {
                BackupReason::NoneNewer { timeline }
            };
            // Reasons are ordered by how much they say.
            let kept = self.kept.entry(member.entry.id()).or_insert(reason);
            *kept = reason.min(*kept);
        }
    }

    /// The kept backups, with the time until which each is needed by what is known.
    pub fn reasons(&self, window: &Window) -> Vec<(&'a BackupId, (BackupReason, Timestamp))> {
        let now_on = window.leaves(window.now);
        let until = |id: &BackupId| {
            let on_lines = self.followed.iter().filter_map(|(line, horizon)| {
                let index = line.members.iter().position(|member| member.entry.id() == id)?;
                Some(line.freed(index, window).map_or(*horizon, |free| free.min(*horizon)))
            });
            let counted = self.minimum.contains(id).then_some(now_on);
            on_lines.chain(counted).max().unwrap_or(now_on)
        };
        self.kept.iter().map(|(id, reason)| (*id, (*reason, until(id)))).collect()
    }
}

/// The newest backups that are whole on their own timeline.
fn newest_whole<'a>(lines: &'a [Line<'a>], window: &Window) -> BTreeSet<&'a BackupId> {
    let own = lines
        .iter()
        .flat_map(|line| line.members.iter().filter(|m| m.entry.timeline() == line.timeline && m.is_whole()));
    let mut whole: Vec<&CatalogEntry> = own.map(|member| member.entry).collect();
    whole.sort_by_key(|entry| std::cmp::Reverse((entry.stopped_at(), entry.stop_lsn())));
    let count = usize::try_from(window.policy.full_backups_min.get()).unwrap_or(usize::MAX);
    whole.into_iter().take(count).map(CatalogEntry::id).collect()
}
