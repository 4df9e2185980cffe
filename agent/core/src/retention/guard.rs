//! The WAL of backups that are not needed but still exist, because some object of theirs is
//! locked: a backup in the catalog can be restored, or the catalog lies.

use super::line::Line;
use crate::backup_id::BackupId;
use crate::segment::{SegmentName, SegmentSize};
use crate::timeline::TimelineId;
use std::collections::{BTreeMap, BTreeSet};

/// A line with its backups, as far as it decides what WAL leads on from them.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    /// Each timeline's part, first and last segment.
    stretches: Vec<(TimelineId, u64, u64)>,
    /// Each backup with the segment that it starts in.
    starts: Vec<(BackupId, u64)>,
}

impl Shape {
    pub fn of(line: &Line<'_>, size: SegmentSize) -> Self {
        let starts = line.members.iter().map(|member| (member.entry.id().clone(), member.start));
        Self { stretches: segments_of(line, size), starts: starts.collect() }
    }
}

/// The segments that each timeline contributes to a line. The parent's file of the segment in
/// which the child begins is among them: it leads up to there where the child's is missing (see
/// [`crate::wal_path`]).
pub(super) fn segments_of(line: &Line<'_>, size: SegmentSize) -> Vec<(TimelineId, u64, u64)> {
    let size = u64::from(size.bytes());
    let part = |stretch: crate::history::Stretch| {
        let first = stretch.begin.map_or(0, |begin| begin.get() / size);
        let last = stretch.end.map_or(u64::MAX, |end| (end.get() - 1) / size);
        (stretch.timeline, first, last)
    };
    line.history.stretches().into_iter().map(part).collect()
}

/// WAL that has to wait for backups.
#[derive(Debug)]
pub(super) struct Guards {
    size: SegmentSize,
    guarded: BTreeMap<TimelineId, Vec<(u64, u64, BackupId)>>,
}

impl Guards {
    /// What leads on from `backups`, each along all its lines.
    pub fn of(shapes: &[Shape], backups: &BTreeSet<&BackupId>, size: SegmentSize) -> Self {
        let mut guarded: BTreeMap<TimelineId, Vec<(u64, u64, BackupId)>> = BTreeMap::new();
        for shape in shapes {
            let held = shape.starts.iter().filter(|(id, _)| backups.contains(id));
            let Some((backup, start)) = held.min_by_key(|(_, start)| *start) else { continue };
            for (timeline, first, last) in &shape.stretches {
                let range = ((*first).max(*start), *last, backup.clone());
                guarded.entry(*timeline).or_default().push(range);
            }
        }
        Self { size, guarded }
    }

    /// The backup that a segment has to wait for.
    pub fn backup_for(&self, segment: SegmentName) -> Option<&BackupId> {
        let number = segment.number(self.size)?;
        let ranges = self.guarded.get(&segment.timeline())?;
        ranges.iter().find(|(first, last, _)| (*first..=*last).contains(&number)).map(|(_, _, backup)| backup)
    }
}
