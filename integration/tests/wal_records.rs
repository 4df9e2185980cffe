//! The walk through WAL records, held against what a real PostgreSQL wrote and against what its
//! own `pg_waldump` reads: silent on sound WAL with everything in it that is out of the ordinary
//! (records over several segments, switched segments, crashes that cut records off, a promotion),
//! and never silent when a bit of a record is flipped.

use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;
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
use wald_integration::{parts, wait};

/// Bytes in a page of WAL, and in the header of one that does not begin a segment.
const PAGE: u64 = 8192;
const PAGE_HEADER: u64 = 24;
const FIRST_PAGE_HEADER: u64 = 40;

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

/// Waits until the standby has replayed what its primary has written.
fn catch_up(origin: &Cluster, standby: &Cluster) -> Result<()> {
    let end = origin.scalar("select pg_current_wal_flush_lsn()")?;
    wait::until_true("the standby to catch up", Duration::from_secs(60), || {
        Ok(standby.scalar(&format!("select pg_last_wal_replay_lsn() >= '{end}'"))? == "t")
    })
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
        catch_up(&origin, &standby)?;
        origin.wait_archived()?;
        // The new timeline begins in the middle of a segment, with pages of the old one before it.
        origin.exec("insert into walk select generate_series(1, 5000)")?;
        catch_up(&origin, &standby)?;
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
    let mut command = log.sandbox.account().command(parts::postgres_program("pg_waldump")?);
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
    let before = records.len().checked_sub(theirs.len()).context("pg_waldump reads more")?;
    assert_same(&positions(&records).split_off(before), &theirs);

    let second = log.of_timeline(tl(2));
    let (from, to) = range(&second).context("no segments on timeline 2")?;
    let records = walk_sound(&mut log.walker(), &second)?;
    assert_same(&positions(&records), &waldump(&log, &archive, from, to)?);

    // In the order of a recovery: timeline 1 up to the switch, then 2.
    let mut path: Vec<_> =
        first.into_iter().filter(|(name, _)| name.number(log.size) < from.number(log.size)).collect();
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

/// Numbers that are the same again for the same seed: `WALD_SEED`, or one that is printed.
struct Dice(u64);

impl Dice {
    fn new() -> Result<Dice> {
        let seed = match std::env::var("WALD_SEED") {
            Ok(text) => text.parse().context("WALD_SEED")?,
            Err(_) => u64::from(std::process::id()) << 20 | 0x5EED,
        };
        println!("WALD_SEED={seed}");
        Ok(Dice(seed))
    }

    /// A number below `sides`.
    fn throw(&mut self, sides: u64) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % sides.max(1)
    }
}

/// The first timeline, with all that is needed to walk again from any of its segments on.
struct Indexed {
    log: Log,
    names: Vec<SegmentName>,
    records: Vec<Record>,
    /// What was known before each segment, as a ledger keeps it.
    carries: Vec<Option<String>>,
}

impl Indexed {
    fn new() -> Result<Indexed> {
        let log = Log::write(1)?;
        let (mut walker, mut records, mut carries) = (log.walker(), Vec::new(), Vec::new());
        let segments = log.of_timeline(tl(1));
        for segment in &segments {
            carries.push(walker.carry().map(|carry| serde_json::to_string(&carry)).transpose()?);
            records.extend(walk_sound(&mut walker, &[*segment])?);
        }
        let names = segments.iter().map(|(name, _)| *name).collect();
        Ok(Indexed { log, names, records, carries })
    }

    fn index_of(&self, position: u64) -> Result<usize> {
        let number = Some(position / u64::from(self.log.size.bytes()));
        self.names.iter().position(|name| name.number(self.log.size) == number).context("no such segment")
    }

    /// The position of the byte `at` of a record, which skips the headers of pages.
    fn position(&self, record: Record, at: u32) -> u64 {
        let (mut position, mut left) = (record.start.get(), u64::from(at));
        loop {
            let page_left = PAGE - position % PAGE;
            if left < page_left {
                return position + left;
            }
            (position, left) = (position + page_left, left - page_left);
            let first = position.is_multiple_of(self.log.size.bytes().into());
            position += if first { FIRST_PAGE_HEADER } else { PAGE_HEADER };
        }
    }

    /// Changes bytes of the log, walks the segments from `first` to `last`, and changes the bytes
    /// back.
    fn walk_changed(&mut self, first: usize, last: usize, changes: &[(u64, u8)]) -> Result<Vec<SegmentWalk>> {
        self.change(changes)?;
        let mut walker = match self.carries.get(first).context("no such segment")? {
            Some(carry) => {
                let carry: Carry = serde_json::from_str(carry)?;
                RecordWalker::resume(self.log.system_id, self.log.size, carry)
            }
            None => self.log.walker(),
        };
        let walked = self.names.get(first..).unwrap_or_default().iter().take(last - first + 1);
        let walks = walked
            .map(|name| {
                let bytes = self.log.segments.get(name).context("no such segment")?;
                Ok(walker.segment(*name, Ending::WithSegment, bytes))
            })
            .collect();
        self.change(changes)?;
        walks
    }

    fn change(&mut self, changes: &[(u64, u8)]) -> Result<()> {
        for (position, flip) in changes {
            let index = self.index_of(*position)?;
            let bytes = self.names.get(index).and_then(|name| self.log.segments.get_mut(name));
            let offset = usize::try_from(position % u64::from(self.log.size.bytes()))?;
            *bytes.and_then(|bytes| bytes.get_mut(offset)).context("no byte there")? ^= flip;
        }
        Ok(())
    }

    fn any_record(&self, dice: &mut Dice) -> Result<Record> {
        let start = |record: Option<&Record>| record.map(|record| record.start.get()).context("no records");
        // Every other time one by its bytes rather than by its number: those are the long ones.
        let index = if dice.throw(2) == 0 {
            let (first, last) = (start(self.records.first())?, start(self.records.last())?);
            let position = first + dice.throw(last - first);
            self.records.partition_point(|record| record.start.get() <= position) - 1
        } else {
            usize::try_from(dice.throw(self.records.len() as u64))?
        };
        self.records.get(index).copied().context("no such record")
    }

    /// A flipped bit of a record, half of them in its header.
    fn any_flip(&self, dice: &mut Dice, record: Record) -> (u64, u8) {
        let within = if dice.throw(2) == 0 { 24 } else { record.length };
        let at = u32::try_from(dice.throw(within.into())).unwrap_or(0);
        (self.position(record, at), 1 << dice.throw(8))
    }
}

#[test]
fn every_flipped_bit_of_a_record_is_found_where_it_is() -> Result<()> {
    let mut indexed = Indexed::new()?;
    let mut dice = Dice::new()?;
    for _ in 0..3000 {
        let record = indexed.any_record(&mut dice)?;
        let flip = indexed.any_flip(&mut dice, record);
        let first = indexed.index_of(record.start.get())?;
        let last = indexed.index_of(indexed.position(record, record.length - 1))? + 1;
        let walks = indexed.walk_changed(first, last, &[flip])?;
        let findings: Vec<_> = walks.iter().flat_map(|walk| &walk.findings).collect();
        let told: Vec<_> = findings.iter().map(|finding| finding.to_string()).collect();
        assert!(
            findings.len() == 1 && findings[0].at == record.start,
            "flip {:02X} at {:X} in {record:?}: {told:?}",
            flip.1,
            flip.0
        );
    }
    Ok(())
}

#[test]
fn damage_in_several_places_is_found_in_each() -> Result<()> {
    let mut indexed = Indexed::new()?;
    let mut dice = Dice::new()?;
    for _ in 0..30 {
        let mut damaged = BTreeMap::new();
        let mut reach = BTreeMap::new();
        for _ in 0..12 {
            let record = indexed.any_record(&mut dice)?;
            // The walk is lost until the next page; damage on the same one is not told apart.
            let (from, to) =
                (record.start.get() / PAGE, indexed.position(record, record.length - 1) / PAGE + 2);
            if reach.iter().all(|(other_from, other_to)| to < *other_from || *other_to < from) {
                reach.insert(from, to);
                damaged.insert(record.start, indexed.any_flip(&mut dice, record));
            }
        }
        let changes: Vec<_> = damaged.values().copied().collect();
        let walks = indexed.walk_changed(0, indexed.names.len(), &changes)?;
        let found: Vec<_> = walks.iter().flat_map(|walk| &walk.findings).map(|finding| finding.at).collect();
        let expected: Vec<_> = damaged.keys().copied().collect();
        assert_eq!(found, expected, "{changes:X?}");
    }
    Ok(())
}

#[test]
fn a_damaged_page_header_is_found() -> Result<()> {
    let mut indexed = Indexed::new()?;
    let mut dice = Dice::new()?;
    for _ in 0..300 {
        // A page that a record reaches is one that PostgreSQL reads.
        let record = indexed.any_record(&mut dice)?;
        let page = record.start.get() - record.start.get() % PAGE;
        if indexed.index_of(page)? == 0 {
            // The version may be any one of those known, as long as nothing is known from before.
            continue;
        }
        // The magic or the address.
        let at = [0, 1, 8, 9, 10, 11, 12, 13, 14, 15][usize::try_from(dice.throw(10))?];
        let index = indexed.index_of(page)?;
        let walks = indexed.walk_changed(index, index, &[(page + at, 1 << dice.throw(8))])?;
        let findings: Vec<_> =
            walks.iter().flat_map(|walk| &walk.findings).map(ToString::to_string).collect();
        let position = Lsn::new(page).context("no position")?;
        assert!(
            findings.len() == 1 && findings[0].starts_with(&format!("page at {position}: ")),
            "{findings:?}"
        );
    }
    Ok(())
}

#[test]
fn a_segment_that_is_missing_or_swapped_or_cut_is_no_sound_log() -> Result<()> {
    let indexed = Indexed::new()?;
    let log = &indexed.log;
    let segments = log.of_timeline(tl(1));
    let mut walker = log.walker();
    for pair in segments.windows(2).take(20) {
        let ((name, bytes), (other, other_bytes)) = (pair[0], pair[1]);
        assert!(walker.segment(name, Ending::WithSegment, bytes).findings.is_empty());
        let swapped = walker.segment(other, Ending::WithSegment, bytes);
        assert!(swapped.findings[0].to_string().contains("the file holds another segment"), "{swapped:?}");
        let cut = walker.segment(name, Ending::WithSegment, &bytes[..bytes.len() - 1]);
        assert!(cut.findings[0].to_string().contains("1048575 bytes, expected 1048576"), "{cut:?}");
        assert!(walker.segment(other, Ending::WithSegment, other_bytes).findings.is_empty());
    }
    Ok(())
}

#[test]
fn no_mutation_makes_a_walk_panic_or_go_on_for_ever() -> Result<()> {
    let indexed = Indexed::new()?;
    let mut dice = Dice::new()?;
    let segments = indexed.log.of_timeline(tl(1));
    for round in 0..200 {
        let (name, bytes) = segments[usize::try_from(dice.throw(segments.len() as u64))?];
        let mut bytes = bytes.to_vec();
        for _ in 0..=dice.throw(8) {
            let length = bytes.len() as u64;
            let from = usize::try_from(dice.throw(length))?;
            let to = (from + usize::try_from(dice.throw(20_000))?).min(bytes.len());
            let source = usize::try_from(dice.throw(length))?.min(bytes.len() - (to - from));
            match dice.throw(4) {
                0 => bytes[from..to].fill(0),
                1 => bytes.copy_within(source..source + (to - from), from),
                2 => bytes[from..to].iter_mut().for_each(|byte| *byte ^= 1 << dice.throw(8)),
                _ => bytes.truncate(to),
            }
        }
        let ending = match round % 2 {
            0 => Ending::WithSegment,
            _ => Ending::AtOrAfter(name.start(indexed.log.size).context("segment 0")?),
        };
        let mut walker = indexed.log.walker();
        let walk = walker.segment(name, ending, &bytes);
        assert!(walk.findings.len() <= wald_core::wal_record::FINDINGS_KEPT);
        let next = name.next(indexed.log.size).context("the last name")?;
        walker.segment(next, ending, &bytes);
    }
    Ok(())
}
