//! Micro-benchmarks of what is decided over a whole repository: 100,000 segments of one timeline in
//! a week, with a backup a day.
//! `cargo bench -p wald-benches --bench plan`.

use anyhow::{Context, Result};
use criterion::{Criterion, criterion_group, criterion_main};
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;
use std::hint::black_box;
use wald_core::backup_id::{BackupId, BackupKind};
use wald_core::blake3_hex::Blake3Hex;
use wald_core::catalog::{CatalogEntry, CatalogFacts, Part, StoredObject};
use wald_core::coverage::{CoverageBuilder, WalCoverage};
use wald_core::lsn::Lsn;
use wald_core::object_key::ObjectKey;
use wald_core::object_lock::{LockMode, LockPolicy};
use wald_core::recovery_plan::{self, ArchiveMode, Holdings, PlanRequest};
use wald_core::retention::{self, Basis, Inputs, ListedVersion, LockState, Policy, Seen, VersionKind};
use wald_core::segment::{SegmentName, SegmentSize};
use wald_core::system_id::SystemId;
use wald_core::target::{Inclusion, RecoveryGoal, RecoveryTarget, TargetAction, TimelineChoice};
use wald_core::timeline::TimelineId;
use wald_core::wal_file::WalFile;

const SEGMENTS: u64 = 100_000;
const SEGMENT_SECONDS: i64 = 6;
const BACKUPS: u64 = 7;
const BEGUN_AT: i64 = 1_795_000_000;

struct Week {
    system_id: SystemId,
    size: SegmentSize,
    timeline: TimelineId,
    catalog: Vec<CatalogEntry>,
    coverage: WalCoverage,
    versions: Vec<ListedVersion<()>>,
    now: Timestamp,
}

fn at(number: u64) -> Result<Timestamp> {
    Ok(Timestamp::from_second(BEGUN_AT + i64::try_from(number)? * SEGMENT_SECONDS)?)
}

fn stored(name: &str) -> StoredObject {
    StoredObject { name: name.to_owned(), stored_bytes: 5, blake3: Blake3Hex::of(name.as_bytes()) }
}

impl Week {
    fn new() -> Result<Self> {
        let system_id = SystemId::new(7).context("a system")?;
        let timeline = TimelineId::new(1).context("a timeline")?;
        let size = SegmentSize::DEFAULT;
        let mut coverage = CoverageBuilder::new(size);
        let mut versions = Vec::new();
        for number in 1..=SEGMENTS {
            let file = SegmentName::from_number(timeline, number, size).map(WalFile::Segment);
            let file = file.context("a name")?;
            coverage.add(file, 1 << 20, at(number)?);
            versions.push(ListedVersion {
                name: ObjectKey::wal(file).to_string(),
                id: (),
                is_latest: true,
                kind: VersionKind::Object,
                size_bytes: 1 << 20,
                stored_at: at(number)?,
            });
        }
        let mut week = Self {
            system_id,
            size,
            timeline,
            catalog: Vec::new(),
            coverage: coverage.finish(),
            versions,
            now: at(SEGMENTS)?,
        };
        for number in 0..BACKUPS {
            let entry = week.backup(1 + number * (SEGMENTS / BACKUPS))?;
            week.catalog.push(entry);
        }
        Ok(week)
    }

    fn backup(&self, number: u64) -> Result<CatalogEntry> {
        let lsn = |offset| Lsn::new(number * u64::from(self.size.bytes()) + offset).context("an LSN");
        let part = Part {
            name: "base-0001.tar.zst".to_owned(),
            tablespace: None,
            stored_bytes: 1000,
            raw_bytes: 4096,
            files: 3,
            blake3: Blake3Hex::of(b"x"),
        };
        Ok(CatalogEntry::new(CatalogFacts {
            id: BackupId::new(at(number)?, BackupKind::Full),
            system_id: self.system_id,
            segment_size: self.size,
            pg_version_num: 150_018,
            data_checksums: true,
            timeline: self.timeline,
            start_lsn: lsn(0x28)?,
            stop_lsn: lsn(0x100)?,
            started_at: at(number)?,
            stopped_at: at(number + 1)?,
            from_standby: false,
            label: "bench".to_owned(),
            tool_version: "0.1.0".to_owned(),
            tablespaces: Vec::new(),
            parts: vec![part],
            manifest: stored("backup_manifest"),
            file_list: stored("files.json.zst"),
            bad_pages: Vec::new(),
        })?)
    }
}

fn plans(c: &mut Criterion) {
    let Ok(week) = Week::new() else { return eprintln!("the repository to plan for can't be made") };
    let histories = BTreeMap::new();
    let holdings = Holdings {
        system_id: week.system_id,
        catalog: &week.catalog,
        histories: &histories,
        coverage: &week.coverage,
    };
    let target = RecoveryTarget::Time(week.now - SignedDuration::from_hours(1));
    let goal = RecoveryGoal::new(target, Inclusion::Inclusive, TimelineChoice::Latest, TargetAction::Promote);
    let Ok(goal) = goal else { return eprintln!("the target is none") };
    let request = PlanRequest {
        goal,
        backup: None,
        restore_command: "wald-restore %f %p".to_owned(),
        archive_mode: ArchiveMode::Off,
    };
    // A refusal is made faster: no figure at all is better than that one.
    if let Err(error) = recovery_plan::plan(holdings, &request, week.now) {
        return eprintln!("there is no plan: {error}");
    }
    let mut group = c.benchmark_group("100,000 segments");
    group.sample_size(20);
    group.bench_function("plan a restore", |b| {
        b.iter(|| recovery_plan::plan(black_box(holdings), &request, week.now).is_ok());
    });
    let seen = Seen::default();
    let basis = Basis { holdings, unreadable: &[], seen: &seen };
    let policy = Policy::new(3, 2);
    let locks = vec![LockState::Free; week.versions.len()];
    group.bench_function("plan an expiry", |b| {
        b.iter(|| {
            let needed = retention::needed(basis, policy, week.now);
            let lock = Some(LockPolicy { mode: LockMode::Compliance, days: 7 });
            let inputs = Inputs {
                needed: &needed,
                versions: &week.versions,
                locks: &locks,
                uploads: &[],
                lock,
                now: week.now,
            };
            retention::plan(black_box(inputs)).keep.len()
        });
    });
    group.finish();
}

criterion_group!(benches, plans);
criterion_main!(benches);
