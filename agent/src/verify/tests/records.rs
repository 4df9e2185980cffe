//! Records that cross from one segment into the next, and what is told of the objects on both sides.

use super::*;
use wald_core::ledger::{Damage, Object, Objects};

const PAGE: usize = 8192;
/// Longer than a page, and never at one with a segment's end.
const RECORD: usize = 9000;

/// Segments full of records, by number; each one's timeline, and the number of the one on whose start a
/// record has a wrong byte.
fn log(timelines: &[u32], wrong: Option<u64>) -> Vec<(ObjectKey, Vec<u8>)> {
    let size = SegmentSize::new(1 << 20).unwrap();
    let mut raw: Vec<u8> = Vec::new();
    let (mut record, mut done, mut previous) = (Vec::new(), 0, 0u64);
    while raw.len() < timelines.len() << 20 {
        let at = FIRST * MIB + raw.len() as u64;
        if raw.len().is_multiple_of(PAGE) {
            let is_first = raw.len().is_multiple_of(1 << 20);
            let left = record.len() - done;
            let flags = u16::from(left > 0) | if is_first { 2 } else { 0 };
            // What a new timeline has copied from its parent stands on the parent's pages.
            let timeline = if raw.len() >> 20 < 3 { 1 } else { timelines[raw.len() >> 20] };
            raw.extend(0xD110u16.to_le_bytes());
            raw.extend(flags.to_le_bytes());
            raw.extend(timeline.to_le_bytes());
            raw.extend(at.to_le_bytes());
            raw.extend(u32::try_from(left).unwrap().to_le_bytes());
            raw.extend([0; 4]);
            if is_first {
                raw.extend(system_id().get().to_le_bytes());
                raw.extend((1u32 << 20).to_le_bytes());
                raw.extend(8192u32.to_le_bytes());
            }
            continue;
        }
        if done == record.len() {
            (record, done) = (one_record(previous), 0);
            previous = at;
        }
        let count = (record.len() - done).min(PAGE - raw.len() % PAGE);
        raw.extend(&record[done..done + count]);
        done += count;
        if done == record.len() {
            raw.resize(raw.len().next_multiple_of(8), 0);
        }
    }
    if let Some(number) = wrong {
        raw[usize::try_from((number - FIRST) * MIB).unwrap() + 50] ^= 1;
    }
    let sealed = |(index, raw): (usize, &[u8])| {
        let timeline = TimelineId::new(timelines[index]).unwrap();
        let name = SegmentName::from_number(timeline, FIRST + index as u64, size).unwrap();
        let file = WalFile::Segment(name);
        let sealed = seal(file, system_id(), raw, Effort::Level(1)).unwrap();
        (ObjectKey::wal(file), sealed.to_vec())
    };
    raw.chunks_exact(1 << 20).enumerate().map(sealed).collect()
}

fn one_record(previous: u64) -> Vec<u8> {
    let mut record = u32::try_from(RECORD).unwrap().to_le_bytes().to_vec();
    record.extend(0u32.to_le_bytes());
    record.extend(previous.to_le_bytes());
    record.extend([0, 21, 0, 0]);
    let crc = crc32c::crc32c_append(crc32c::crc32c(&[7; RECORD - 24]), &record);
    record.extend(crc.to_le_bytes());
    record.resize(RECORD, 7);
    record
}

/// A repository with this WAL and a ledger that says of all but `new` that it was proven a moment ago.
async fn proven_but(log: Vec<(ObjectKey, Vec<u8>)>, new: &str, findings: Vec<Finding>) -> Repository {
    let (_, store) = repository(0, false).await;
    for (key, content) in log {
        put(&store, &key, content).await;
    }
    let repository = Repository::open(store).await.unwrap();
    let known = survey(&repository).await.unwrap().objects;
    let proven = known.iter().filter(|object| object.name.starts_with("wal/") && *object.name != *new);
    let proven = proven.cloned().map(|mut object: Object| {
        object.prove(Depth::Records, now());
        object
    });
    let objects = Objects::new(proven.collect());
    let count = u64::try_from(objects.len()).unwrap();
    let head = Head { objects: count, findings, ..ledger_head(&repository) };
    ledgers::write(repository.store(), head, objects).await.unwrap();
    repository
}

fn of_wal(report: &VerifyReport) -> Vec<(&str, Depth)> {
    let findings = report.findings.iter().filter(|finding| finding.object.starts_with("wal/"));
    findings.map(|finding| (finding.object.as_str(), finding.damage.depth())).collect()
}

/// Flips a bit in the stored object of a segment.
fn rot(log: &mut [(ObjectKey, Vec<u8>)], index: usize) {
    let content = &mut log[index].1;
    let middle = content.len() / 2;
    content[middle] ^= 8;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_across_segments_and_a_switch_are_good() {
    for timelines in [[1; 4], [1, 1, 2, 2]] {
        let log = log(&timelines, None);
        let last = log[3].0.to_string();
        let repository = proven_but(log, &last, Vec::new()).await;
        let full = VerifyOptions { full: true, ..options(Depth::Records) };
        let report = verify(&repository, &full).await.unwrap();
        let damaged = of_wal(&report).into_iter().filter(|(_, depth)| *depth > Depth::Presence);
        assert_eq!(damaged.collect::<Vec<_>>(), [], "{report}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_only_for_the_sake_of_a_neighbour_and_is_damaged_is_told() {
    // As the one in front of what is new, and as the one behind it.
    for (rotten, new) in [(2, 3), (3, 2)] {
        let mut log = log(&[1; 4], None);
        rot(&mut log, rotten);
        let (rotten, new) = (log[rotten].0.to_string(), log[new].0.to_string());
        let repository = proven_but(log, &new, Vec::new()).await;
        let report = verify(&repository, &options(Depth::Records)).await.unwrap();
        assert_eq!(of_wal(&report), [(rotten.as_str(), Depth::Content)], "{report}");
        let report = verify(&repository, &options(Depth::Presence)).await.unwrap();
        assert_eq!(of_wal(&report), [(rotten.as_str(), Depth::Content)], "{report}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_whose_end_can_not_be_looked_at_is_not_good_again() {
    let mut log = log(&[1; 4], Some(FIRST + 3));
    let victim = log[2].0.to_string();
    let damage = Damage::Records { problems: vec!["its CRC".to_owned()], count: 1 };
    let finding = Finding { object: victim.clone(), damage, ..open_finding() };
    log.truncate(3);
    let repository = proven_but(log, &victim, vec![finding]).await;
    for _ in 0..2 {
        let report = verify(&repository, &options(Depth::Records)).await.unwrap();
        assert_eq!(of_wal(&report), [(victim.as_str(), Depth::Records)], "{report}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_record_across_a_switch_counts_where_it_begins_night_after_night() {
    let log = log(&[1, 1, 2, 2], Some(FIRST + 2));
    let (begins, goes_on) = (log[1].0.to_string(), log[2].0.to_string());
    let repository = proven_but(log, &goes_on, Vec::new()).await;
    let store = repository.store();
    let history = b"1\t0/7F0000\tno recovery target specified\n".to_vec();
    let file = WalFile::History(TimelineId::new(2).unwrap());
    let proof = format!("{}  {file}\n", blake3::hash(&history).to_hex());
    put(store, &ObjectKey::wal_proof(file), proof).await;
    put(store, &ObjectKey::wal(file), history).await;
    for _ in 0..3 {
        let report = verify(&repository, &options(Depth::Records)).await.unwrap();
        assert_eq!(of_wal(&report), [(begins.as_str(), Depth::Records)], "{report}");
    }
}
