//! The walk through WAL records, held against what a real PostgreSQL wrote and against what its
//! own `pg_waldump` reads: silent on sound WAL with everything in it that is out of the ordinary
//! (records over several segments, switched segments, crashes that cut records off, a promotion),
//! and never silent when a bit of a record is flipped.

use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use wald_core::control_file::ControlFile;
use wald_core::history::TimelineHistory;
use wald_core::lsn::Lsn;
use wald_core::segment::{SegmentName, SegmentSize};
use wald_core::system_id::SystemId;
use wald_core::timeline::TimelineId;
use wald_core::wal_record::{Carry, Ending, Record, RecordWalker, SegmentWalk};
use wald_integration::postgres::{Cluster, ClusterOptions, Shutdown};
use wald_integration::run::run;
use wald_integration::sandbox::Sandbox;

/// WAL of two timelines, as `cp` archived it.
struct Log {
    sandbox: Sandbox,
    system_id: SystemId,
    size: SegmentSize,
    segments: BTreeMap<SegmentName, Vec<u8>>,
    /// The last segment of the first timeline, which the promotion left unfinished.
    partial: (SegmentName, Vec<u8>),
    /// Where the second timeline begins.
    switch: Lsn,
}

fn tl(number: u32) -> TimelineId {
    TimelineId::new(number).unwrap_or(TimelineId::FIRST)
}

fn message(cluster: &Cluster, bytes: usize) -> Result<()> {
    cluster.exec(&format!("select pg_logical_emit_message(false, 'walk', repeat('x', {bytes}))"))
}

/// A load that is killed while the end of a long record is still in memory, so that only its
/// beginning is in the log, and a restart that writes on behind it.
fn crash(cluster: &mut Cluster) -> Result<()> {
    cluster.exec("insert into walk select generate_series(1, 100)")?;
    message(cluster, 2_800_000)?;
    cluster.kill_hard()?;
    cluster.start()?;
    cluster.exec("insert into walk select generate_series(1, 100)")
}

impl Log {
    fn write(segment_size_mib: u32) -> Result<Log> {
        let sandbox = Sandbox::new()?;
        let archive = sandbox.dir("archive")?;
        let options = ClusterOptions { segment_size_mib, ..ClusterOptions::default() }
            .setting("archive_mode = on")
            .setting(format!("archive_command = 'cp %p {}/%f'", archive.display()))
            // A short buffer, and nobody who writes it out before a crash.
            .setting("wal_buffers = 256kB")
            .setting("wal_writer_delay = 10s");
        let mut origin = Cluster::create(&sandbox, "origin", &options)?;
        origin.start()?;
        origin.exec("create table walk (n int)")?;
        origin.run("pgbench", &["--initialize", "--scale=2", "--quiet"])?;
        origin.run("pgbench", &["--client=4", "--transactions=500", "--no-vacuum"])?;
        message(&origin, 5_000_000)?;
        message(&origin, 100)?;
        for _ in 0..3 {
            origin.wait_archived()?;
            origin.exec("insert into walk values (1)")?;
        }
        for _ in 0..3 {
            crash(&mut origin)?;
        }
        origin.stop(Shutdown::Immediate)?;
        origin.start()?;
        let mut standby = origin.standby(&sandbox, "standby")?;
        standby.start()?;
        origin.run("pgbench", &["--client=2", "--transactions=200", "--no-vacuum"])?;
        // The switch goes into the middle of a segment, and the log before it fills pages of it.
        let end = origin.scalar("select pg_current_wal_flush_lsn()")?;
        wald_integration::wait::until_true("the standby", std::time::Duration::from_secs(60), || {
            let replayed = standby.scalar(&format!("select pg_last_wal_replay_lsn() >= '{end}'"))?;
            Ok(replayed == "t")
        })?;
        origin.wait_archived()?;
        origin.exec("insert into walk select generate_series(1, 5000)")?;
        let end = origin.scalar("select pg_current_wal_flush_lsn()")?;
        wald_integration::wait::until_true("the standby", std::time::Duration::from_secs(60), || {
            let replayed = standby.scalar(&format!("select pg_last_wal_replay_lsn() >= '{end}'"))?;
            Ok(replayed == "t")
        })?;
        origin.stop(Shutdown::Immediate)?;
        standby.promote()?;
        standby.run("pgbench", &["--client=2", "--transactions=300", "--no-vacuum"])?;
        message(&standby, 3_000_000)?;
        crash(&mut standby)?;
        standby.wait_archived()?;
        standby.stop(Shutdown::Fast)?;
        Log::read(sandbox, &archive, &standby)
    }

    fn read(sandbox: Sandbox, archive: &Path, cluster: &Cluster) -> Result<Log> {
        let control = ControlFile::parse(&fs::read(cluster.data_dir().join(ControlFile::PATH))?)?;
        let mut segments = BTreeMap::new();
        let mut partial = None;
        for entry in fs::read_dir(archive)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if let Some(stem) = name.strip_suffix(".partial") {
                partial = Some((SegmentName::parse(stem)?, fs::read(&path)?));
            } else if let Ok(segment) = SegmentName::parse(&name) {
                segments.insert(segment, fs::read(&path)?);
            }
        }
        let history = TimelineHistory::parse(tl(2), &fs::read(archive.join("00000002.history"))?)?;
        let switch = history.switch_point(tl(1)).context("timeline 2 does not come from 1")?;
        let partial = partial.context("no .partial was archived")?;
        let (system_id, size) = (control.system_id(), control.segment_size());
        Ok(Log { sandbox, system_id, size, segments, partial, switch })
    }

    fn of_timeline(&self, timeline: TimelineId) -> Vec<(SegmentName, &[u8])> {
        let segments = self.segments.iter().filter(|(name, _)| name.timeline() == timeline);
        segments.map(|(name, bytes)| (*name, bytes.as_slice())).collect()
    }

    fn walker(&self) -> RecordWalker {
        RecordWalker::new(self.system_id, self.size)
    }
}

fn walk(
    walker: &mut RecordWalker,
    name: SegmentName,
    ending: Ending,
    bytes: &[u8],
) -> (SegmentWalk, Vec<Record>) {
    let mut records = Vec::new();
    let mut segment = walker.begin(name, ending);
    // Pieces that are no whole pages, as a decompressor hands them out.
    for piece in bytes.chunks(100_003) {
        segment.feed_seeing(piece, &mut |record| records.push(record));
    }
    (segment.finish(), records)
}

/// Walks segments one behind the other; anything wrong with them is an error.
fn walk_sound(walker: &mut RecordWalker, segments: &[(SegmentName, &[u8])]) -> Result<Vec<Record>> {
    let mut all = Vec::new();
    for (name, bytes) in segments {
        let (walk, records) = walk(walker, *name, Ending::WithSegment, bytes);
        for finding in &walk.findings {
            println!("{name}: {finding}");
        }
        ensure!(walk.findings.is_empty() && walk.end.is_none(), "{name} is not sound: {walk:?}");
        ensure!(walk.records == u64::try_from(records.len())?);
        all.extend(records);
    }
    Ok(all)
}

/// Where each record begins and how long it is, in the words of PostgreSQL's own reader.
fn waldump(log: &Log, dir: &Path, first: SegmentName, last: SegmentName) -> Result<Vec<(Lsn, u32)>> {
    let mut command = log.sandbox.account().command(wald_integration::parts::postgres_program("pg_waldump")?);
    command.arg("-p").arg(dir).arg(first.to_string()).arg(last.to_string());
    // It ends with an error when the log goes on behind the last segment.
    let said = run(command)?;
    let mut records = Vec::new();
    for line in said.stdout.lines().filter(|line| line.starts_with("rmgr: ")) {
        let after = |what: &str| line.split_once(what).map(|(_, rest)| rest).context("no such field");
        let length = after("len (rec/tot):")?.split_once('/').context("no length")?.1;
        let length = length.split_once(',').context("no length")?.0.trim().parse()?;
        let lsn = after("lsn: ")?.split_once(',').context("no position")?.0.parse()?;
        records.push((lsn, length));
    }
    Ok(records)
}

fn positions(records: &[Record]) -> Vec<(Lsn, u32)> {
    records.iter().map(|record| (record.start, record.length)).collect()
}

fn assert_same(ours: &[(Lsn, u32)], theirs: &[(Lsn, u32)]) {
    let differ = ours.iter().zip(theirs).find(|(our, their)| our != their);
    assert_eq!(differ, None);
    assert_eq!(ours.len(), theirs.len(), "ours end at {:?}, theirs at {:?}", ours.last(), theirs.last());
}

fn a_log_is_walked_as_pg_waldump_reads_it(segment_size_mib: u32) -> Result<()> {
    let log = Log::write(segment_size_mib)?;
    let archive = log.sandbox.path().join("archive");
    let overwritten = |records: &[Record]| {
        records.iter().filter(|r| r.resource_manager == 0 && r.info & 0xF0 == 0xD0).count()
    };

    let first = log.of_timeline(tl(1));
    let mut walker = log.walker();
    let mut records = walk_sound(&mut walker, &first)?;
    let range = |of: &[(SegmentName, &[u8])]| Some((of.first()?.0, of.last()?.0));
    let (from, to) = range(&first).context("no segments")?;
    assert_same(&positions(&records), &waldump(&log, &archive, from, to)?);
    assert!(overwritten(&records) >= 1, "no crash cut a record off: the test tests less than it should");

    // The timeline's last segment ends where the next timeline begins, or not before.
    let (name, bytes) = &log.partial;
    let (ending, rest) = walk(&mut walker, *name, Ending::AtOrAfter(log.switch), bytes);
    assert!(ending.findings.is_empty(), "{:?}", ending.findings);
    assert!(ending.end.is_some_and(|end| end >= log.switch), "{ending:?}, switched at {}", log.switch);
    records.extend(rest);
    let copy = log.sandbox.dir("partial")?;
    fs::write(copy.join(name.to_string()), bytes)?;
    let theirs = waldump(&log, &copy, *name, *name)?;
    assert_same(&positions(&records)[records.len() - theirs.len()..], &theirs);

    let second = log.of_timeline(tl(2));
    let (from, to) = range(&second).context("no segments on timeline 2")?;
    let records = walk_sound(&mut log.walker(), &second)?;
    assert_same(&positions(&records), &waldump(&log, &archive, from, to)?);

    // In the order of a recovery: timeline 1 up to the switch, then 2.
    let mut path: Vec<_> = first.into_iter().filter(|(name, _)| name.number(log.size) < from.number(log.size)).collect();
    path.extend(second);
    walk_sound(&mut log.walker(), &path)?;
    Ok(())
}

#[test]
fn a_log_of_small_segments_is_walked_as_pg_waldump_reads_it() -> Result<()> {
    a_log_is_walked_as_pg_waldump_reads_it(1)
}

#[test]
fn a_log_of_ordinary_segments_is_walked_as_pg_waldump_reads_it() -> Result<()> {
    a_log_is_walked_as_pg_waldump_reads_it(16)
}
