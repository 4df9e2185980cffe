//! Tests on logs that a small writer makes; real ones are walked in `integration/tests`.

mod writer;

use super::*;
use crate::segment::SegmentSize;
use crate::system_id::SystemId;
use proptest::prelude::*;
use writer::*;

fn walker() -> RecordWalker {
    RecordWalker::new(system(), size())
}

/// Walks all segments; the log may end in the last.
fn walk(segments: &[(SegmentName, Vec<u8>)]) -> Vec<SegmentWalk> {
    let mut walker = walker();
    let last = segments.len() - 1;
    let walks = segments.iter().enumerate().map(|(index, (name, bytes))| {
        let ending =
            if index == last { Ending::AtOrAfter(name.start(size()).unwrap()) } else { Ending::WithSegment };
        walker.segment(*name, ending, bytes)
    });
    walks.collect()
}

fn told(walks: &[SegmentWalk]) -> Vec<String> {
    walks.iter().flat_map(|walk| &walk.findings).map(ToString::to_string).collect()
}

fn records(walks: &[SegmentWalk]) -> u64 {
    walks.iter().map(|walk| walk.records).sum()
}

/// Walks the log and expects it to be sound up to its very end, with so many records.
fn expect_sound(log: &Writer, count: u64) {
    let walks = walk(&log.segments());
    assert_eq!(told(&walks), Vec::<String>::new());
    assert_eq!(records(&walks), count);
    let (end, at_border) = (walks.last().unwrap().end, log.bytes.len().is_multiple_of(1 << 20));
    assert!(at_border || end.map(Lsn::get) == Some(log.position()), "{end:?}");
}

/// Walks the log with `change` made to its bytes, as segments in which it must not end.
fn walk_changed(log: &Writer, change: impl FnOnce(&mut Vec<u8>)) -> Vec<String> {
    let mut changed = Writer { bytes: log.bytes.clone(), ..Writer::new() };
    change(&mut changed.bytes);
    let mut walker = walker();
    let segments = changed.segments();
    let walks: Vec<_> = segments.iter().map(|(n, b)| walker.segment(*n, Ending::WithSegment, b)).collect();
    told(&walks)
}

/// One segment full of records of which each page has several.
fn full() -> (Writer, Vec<u64>) {
    let (mut log, mut starts) = (Writer::new(), Vec::new());
    while log.bytes.len() < (1 << 20) - 2000 {
        starts.push(log.record(&vec![5; 1000 + starts.len() % 7]));
    }
    starts.push(log.switch());
    (log, starts)
}

fn flip(bytes: &mut [u8], position: u64, mask: u8) {
    bytes[usize::try_from(position - START).unwrap()] ^= mask;
}

fn text(lsn: u64) -> String {
    Lsn::new(lsn).unwrap().to_string()
}

#[test]
fn a_header_may_be_split_over_pages_and_over_segments() {
    for left in [8, 16, 24, 32] {
        let mut log = Writer::new();
        log.record(b"first");
        log.leave(left);
        log.record(&[7; 100]);
        // The same at the end of a segment: so much is left of its last page.
        while log.bytes.len() < (1 << 20) - 8192 {
            log.leave(0);
        }
        log.record(&[]);
        log.leave(left);
        assert_eq!((1 << 20) - log.bytes.len(), left);
        log.record(&[7; 100]);
        let walks = walk(&log.segments());
        assert_eq!(told(&walks), Vec::<String>::new(), "{left}");
        assert!(walks[0].open.is_some() && walks[1].records == 1, "{left}");
    }
}

#[test]
fn a_record_may_go_on_over_several_segments() {
    let mut log = Writer::new();
    log.record(b"first");
    let long = log.record(&vec![8; 3 << 20]);
    log.record(b"last");
    expect_sound(&log, 3);
    let walks = walk(&log.segments());
    assert_eq!(walks[2].open.map(Lsn::get), Some(long));
    assert_eq!(walks[1].records, 0);
}

#[test]
fn pages_of_any_size_and_of_any_known_version_are_walked() {
    for page in [1024, 8192, 65_536] {
        for magic in [0xD106, 0xD10D, 0xD110, 0xD113, 0xD116, 0xD118] {
            let mut log = Writer { page, magic, ..Writer::new() };
            for length in [0, 3, 1000, 70_000, 9, 2_000_000, 1] {
                log.record(&vec![1; length]);
            }
            expect_sound(&log, 7);
        }
    }
}

#[test]
fn what_follows_a_switch_means_nothing() {
    let mut log = Writer::new();
    log.record(b"one");
    log.switch();
    log.record(b"two");
    log.leave(8);
    log.switch();
    log.record(b"three");
    expect_sound(&log, 6);
    // Zeros, as PostgreSQL writes them, or anything else.
    log.bytes[500_000..900_000].fill(0xA5);
    expect_sound(&log, 6);
}

#[test]
fn a_record_that_a_crash_cut_off_is_replaced_by_one_that_names_it() {
    let mut log = Writer::new();
    log.record(b"one");
    let lost = log.cut_off(None);
    log.record(b"three");
    expect_sound(&log, 3);

    let mut log = Writer::new();
    log.record(b"one");
    log.cut_off(Some(lost + 8));
    log.switch();
    let findings = walk_changed(&log, |_| ());
    let at = text(START + 8192 + 24);
    assert_eq!(
        findings,
        [format!(
            "record at {at}: it replaces the record at {}, the one that was cut off is at {}",
            text(lost + 8),
            text(lost)
        )]
    );
}

#[test]
fn a_walk_may_begin_in_the_middle_of_a_record() {
    let mut log = Writer::new();
    log.record(&vec![1; 2_500_000]);
    log.record(b"two");
    log.switch();
    log.record(b"four");
    let segments = log.segments();
    for (from, count) in [(0, 4), (1, 3), (2, 3), (3, 1)] {
        let walks = walk(&segments[from..]);
        assert_eq!((told(&walks), records(&walks)), (Vec::new(), count), "from segment {from}");
    }
}

#[test]
fn a_gap_is_no_damage_and_the_walk_starts_anew_behind_it() {
    let mut log = Writer::new();
    while log.bytes.len() < 4 << 20 {
        log.record(&[1; 5000]);
    }
    let mut segments = log.segments();
    segments.remove(2);
    assert_eq!(told(&walk(&segments)), Vec::<String>::new());
}

#[test]
fn a_segment_that_was_given_up_half_way_misleads_nobody() {
    let mut log = Writer::new();
    while log.bytes.len() < 3 << 20 {
        log.record(&[1; 5000]);
    }
    let segments = log.segments();
    let mut walker = walker();
    walker.begin(segments[0].0, Ending::WithSegment).feed(&segments[0].1[..100_000]);
    assert_eq!(walker.carry(), None);
    assert_eq!(walker.segment(segments[1].0, Ending::WithSegment, &segments[1].1).findings, []);
    assert_eq!(walker.carry().unwrap().segment(), segments[1].0);
}

#[test]
fn a_log_may_end_where_that_is_allowed_and_nowhere_else() {
    let mut log = Writer::new();
    log.record(b"one");
    let second = log.record(&[1; 20_000]);
    let end = log.position();
    let (name, sound) = log.segments().remove(0);
    let mut recycled = sound.clone();
    let old: Vec<u8> = (0u32..2000).flat_map(u32::to_le_bytes).collect();
    recycled[30_000..38_000].copy_from_slice(&old);
    for bytes in [&sound, &recycled] {
        for least in [START, second, end] {
            let ending = Ending::AtOrAfter(Lsn::new(least).unwrap());
            let walk = walker().segment(name, ending, bytes);
            assert_eq!((walk.findings.len(), walk.end.map(Lsn::get)), (0, Some(end)));
        }
    }
    let walk = walker().segment(name, Ending::WithSegment, &sound);
    let expected = format!("record at {}: there is none, the log ends here and should not", text(end));
    assert_eq!(told(&[walk]), [expected]);

    // Before the position up to which the log is known to go it can't have ended.
    let mut damaged = sound.clone();
    damaged[10_000] ^= 1;
    let at_end = walker().segment(name, Ending::AtOrAfter(Lsn::new(end).unwrap()), &damaged);
    assert_eq!(at_end.findings[0].at.get(), second);
    assert_eq!(at_end.end.map(Lsn::get), Some(end));
    let anywhere = walker().segment(name, Ending::AtOrAfter(Lsn::new(START).unwrap()), &damaged);
    assert_eq!((anywhere.findings.len(), anywhere.end.map(Lsn::get)), (0, Some(second)));
}

#[test]
fn the_first_segment_of_a_timeline_has_pages_of_the_one_before() {
    let mut log = Writer::new();
    while log.bytes.len() < 1_500_000 {
        log.record(&[1; 5000]);
    }
    log.timeline = 2;
    while log.bytes.len() < 2 << 20 {
        log.record(&[1; 5000]);
    }
    let mut segments = log.segments();
    segments[0].0 = segments[0].0.on_timeline(tl(1));
    assert_eq!(told(&walk(&segments)), Vec::<String>::new());

    // Back to the first timeline there is no way.
    let page = &mut segments[1].1[(1 << 20) - 8192..];
    page[4] = 1;
    let findings = told(&walk(&segments));
    assert_eq!(findings, ["page at 0/2FE000: its timeline is 1, expected 2 to 2"]);
    segments[1].1[(1 << 20) - 8192 + 4] = 3;
    let findings = told(&walk(&segments));
    assert_eq!(findings, ["page at 0/2FE000: its timeline is 3, expected 2 to 2"]);
}

#[test]
fn each_kind_of_damage_is_named() {
    let (log, starts) = full();
    let (victim, next) = (starts[100], starts[101]);
    let at = text(victim);
    let change = |offset: u64, mask: u8| walk_changed(&log, |bytes| flip(bytes, victim + offset, mask));
    let crc = change(40, 1).remove(0);
    assert!(crc.starts_with(&format!("record at {at}: its CRC-32C is ")), "{crc}");
    assert!(crc.contains(" and should be "), "{crc}");
    assert_eq!(
        change(3, 0x80)[0],
        format!("record at {at}: its length is 2147484674, expected 24 to 1073741823 bytes")
    );
    assert_eq!(
        change(17, 0x10)[0],
        format!("record at {at}: its resource manager is 26, which does not exist")
    );
    let pointer = format!(
        "record at {at}: its back-pointer is {}, expected {}",
        text(starts[99] + 8),
        text(starts[99])
    );
    assert_eq!(change(8, 8), [pointer.replace(&text(starts[99] + 8), &text(starts[99] ^ 8))]);
    assert_eq!(walk_changed(&log, |_| ()), Vec::<String>::new());

    // A page between two records of which the first goes on there.
    let page = (next / 8192 + 1) * 8192;
    let first = *starts.iter().rfind(|start| **start < page).unwrap();
    let change = |offset: u64, mask: u8| walk_changed(&log, |bytes| flip(bytes, page + offset, mask));
    let on = format!("page at {}: ", text(page));
    assert_eq!(change(0, 1), [format!("{on}its magic is D111, expected D110")]);
    assert_eq!(change(2, 2), [format!("{on}its flags are 0003, which PostgreSQL never sets there")]);
    assert_eq!(change(3, 1), [format!("{on}its flags are 0101, which PostgreSQL never sets there")]);
    assert_eq!(change(2, 1), [format!("{on}the record from {} does not go on here", text(first))]);
    assert_eq!(change(4, 1), [format!("{on}its timeline is 0, expected 1 to 1")]);
    assert_eq!(change(9, 0x20), [format!("{on}it says that it is the page at {}", text(page ^ 0x2000))]);
    let length = change(16, 1).remove(0);
    assert!(
        length.contains(&format!("bytes of the record from {} go on here, expected ", text(first))),
        "{length}"
    );
    // What PostgreSQL does not look at costs nobody a recovery.
    assert_eq!(change(2, 4), Vec::<String>::new());
    assert_eq!(change(20, 1), Vec::<String>::new());
}

#[test]
fn a_cluster_never_changes_its_version() {
    let mut log = Writer::new();
    log.record(&vec![1; (1 << 20) - 100_000]);
    log.switch();
    log.record(b"two");
    log.switch();
    let segments = log.segments();
    let (mut walker, mut second) = (walker(), segments[1].1.clone());
    second[0] = 0x18;
    assert_eq!(walker.segment(segments[0].0, Ending::WithSegment, &segments[0].1).findings, []);
    let found = told(&[walker.segment(segments[1].0, Ending::WithSegment, &second)]);
    assert_eq!(found, ["page at 0/200000: its magic is D118, expected D110"]);
    // With nothing known from before, two pages that disagree are damage all the same, and the
    // segment behind them is judged by itself.
    let (mut walker, mut first) = (RecordWalker::new(system(), size()), segments[0].1.clone());
    first[0] = 0x18;
    let found = told(&[walker.segment(segments[0].0, Ending::WithSegment, &first)]);
    assert_eq!(found, ["page at 0/102000: its magic is D110, expected D118"]);
    assert_eq!(walker.segment(segments[1].0, Ending::WithSegment, &segments[1].1).findings, []);
}

#[test]
fn a_page_that_continues_a_record_which_ended_before_is_damaged() {
    let mut log = Writer::new();
    log.leave(0);
    log.record(&[1; 100]);
    log.leave(0);
    log.switch();
    let findings = walk_changed(&log, |bytes| {
        bytes[8192 + 2] |= 1;
        bytes[8192 + 16] = 30;
    });
    assert_eq!(
        findings,
        ["page at 0/102000: 30 bytes of a record go on here, but the last record ends before"]
    );
}

#[test]
fn damage_reports_where_a_recovery_would_stop() {
    let mut log = Writer::new();
    log.record(b"one");
    let long = log.record(&[1; 30_000]);
    log.switch();
    for offset in [8192, 2 * 8192 + 9, 3 * 8192 - 1] {
        let mut bytes = log.segments().remove(0).1;
        bytes[offset] ^= 1;
        let walk = walker().segment(log.segments()[0].0, Ending::WithSegment, &bytes);
        assert_eq!(walk.findings.iter().map(|finding| finding.at.get()).collect::<Vec<_>>(), [long]);
    }
}

#[test]
fn a_segment_of_zeros_or_of_another_length_is_damaged() {
    let (log, _) = full();
    let (name, bytes) = log.segments().remove(0);
    let zeros = told(&[walker().segment(name, Ending::WithSegment, &vec![0; 1 << 20])]);
    assert_eq!(zeros.len(), 1, "{zeros:?}");
    assert!(zeros[0].contains("unknown page magic 0000"), "{zeros:?}");
    let short = told(&[walker().segment(name, Ending::WithSegment, &bytes[..500_000])]);
    assert_eq!(short, ["the segment has 500000 bytes, expected 1048576"]);
    let long = [bytes.as_slice(), &[0; 9000]].concat();
    let long = told(&[walker().segment(name, Ending::WithSegment, &long)]);
    assert_eq!(long, ["the segment has 1057576 bytes, expected 1048576"]);
    let nothing = told(&[walker().segment(name, Ending::WithSegment, b"")]);
    assert_eq!(nothing, ["the segment has 0 bytes, expected 1048576"]);
}

#[test]
fn findings_are_bounded_and_counted() {
    let (mut log, starts) = full();
    for start in &starts {
        // At least 8 bytes of a record stand on its first page.
        flip(&mut log.bytes, start + 4, 1);
    }
    let walk = walker().segment(log.segments()[0].0, Ending::WithSegment, &log.bytes);
    assert_eq!(walk.findings.len(), FINDINGS_KEPT);
    assert_eq!(walk.findings_left_out, (starts.len() - FINDINGS_KEPT) as u64);
}

/// A log of records of these lengths.
fn log_of(lengths: &[usize]) -> Writer {
    let mut log = Writer::new();
    for (index, length) in lengths.iter().enumerate() {
        log.record(&vec![u8::try_from(index % 256).unwrap(); *length]);
    }
    log
}

fn lengths() -> impl Strategy<Value = Vec<usize>> {
    let length = prop_oneof![4 => 0usize..300, 2 => 8000usize..9000, 1 => 0usize..200_000];
    prop::collection::vec(length, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_log_is_sound_in_pieces_of_any_size_and_with_any_pause(
        lengths in lengths(), piece in 1usize..40_000, pause: bool,
    ) {
        let log = log_of(&lengths);
        let segments = log.segments();
        let last = segments.len() - 1;
        let (mut walker, mut seen) = (walker(), Vec::new());
        for (index, (name, bytes)) in segments.iter().enumerate() {
            let allowed = Ending::AtOrAfter(name.start(size()).unwrap());
            let mut open = walker.begin(*name, if index == last { allowed } else { Ending::WithSegment });
            bytes.chunks(piece).for_each(|piece| open.feed_seeing(piece, &mut |record| seen.push(record.length)));
            prop_assert_eq!(told(&[open.finish()]), Vec::<String>::new());
            if pause {
                let carry = serde_json::to_string(&walker.carry().unwrap()).unwrap();
                walker = RecordWalker::resume(system(), size(), serde_json::from_str(&carry).unwrap());
            }
        }
        let expected: Vec<_> = lengths.iter().map(|length| u32::try_from(length + 24).unwrap()).collect();
        prop_assert_eq!(seen, expected);
    }

    #[test]
    fn a_flipped_bit_of_any_record_is_found(lengths in lengths(), which: prop::sample::Index, at: prop::sample::Index, bit in 0u8..8) {
        let mut log = log_of(&lengths[..lengths.len() - 1]);
        let which = which.index(lengths.len());
        let mut start = 0;
        // All but the last stand where they stood; the flip goes into the first page of one.
        let mut again = Writer::new();
        for (index, length) in lengths.iter().enumerate() {
            let position = again.record(&vec![u8::try_from(index % 256).unwrap(); *length]);
            if index == which {
                start = position;
            }
        }
        again.switch();
        std::mem::swap(&mut log, &mut again);
        let page_left = 8192 - usize::try_from(start % 8192).unwrap();
        let at = at.index((lengths[which] + 24).min(page_left));
        flip(&mut log.bytes, start + at as u64, 1 << bit);
        let mut walker = walker();
        let walks: Vec<_> = log.segments().iter().map(|(n, b)| walker.segment(*n, Ending::WithSegment, b)).collect();
        let found: Vec<_> = walks.iter().flat_map(|walk| &walk.findings).map(|finding| finding.at.get()).collect();
        // A length that leads past everything there is leaves it open: then nothing proves it either.
        let open = walks.last().and_then(|walk| walk.open).map(|open| open.get());
        prop_assert!(found == [start] || found.is_empty() && open == Some(start), "{:?} {:?} {}", found, open, start);
    }

    #[test]
    fn any_bytes_are_walked_without_panic(
        noise in prop::collection::vec((any::<prop::sample::Index>(), prop::collection::vec(any::<u8>(), 1..300)), 0..20),
        lengths in lengths(), cut: prop::sample::Index, whole: bool, allowed: bool,
    ) {
        let mut walker = walker();
        for (name, mut bytes) in log_of(&lengths).segments() {
            for (at, noise) in &noise {
                let at = at.index(bytes.len() - noise.len());
                bytes[at..at + noise.len()].copy_from_slice(noise);
            }
            if !whole {
                bytes.truncate(cut.index(bytes.len()));
            }
            let allowed_from = Ending::AtOrAfter(name.start(size()).unwrap());
            let walk = walker.segment(name, if allowed { allowed_from } else { Ending::WithSegment }, &bytes);
            prop_assert!(walk.findings.len() <= FINDINGS_KEPT);
            let _ = told(&[walk]);
        }
    }

    #[test]
    fn nothing_but_noise_is_walked_without_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..20_000), log: u32, seg in 0u32..0x1000, timeline in 1u32.., shift in 20u32..=30,
    ) {
        let size = SegmentSize::new(1 << shift).unwrap();
        let name = SegmentName::parse(&format!("{timeline:08X}{log:08X}{seg:08X}")).unwrap();
        let mut walker = RecordWalker::new(SystemId::new(1).unwrap(), size);
        prop_assert!(!walker.segment(name, Ending::WithSegment, &bytes).findings.is_empty());
    }

    #[test]
    fn a_carry_that_was_tampered_with_is_no_danger(done: u32, length: u32, data_crc: u32, left: u32, skip: bool) {
        let (log, _) = full();
        let position = if skip {
            format!("{{\"skip\":{left}}}")
        } else {
            format!("{{\"rest\":{{\"start\":\"0/1\",\"length\":{length},\"done\":{done},\"header\":{:?},\"data_crc\":{data_crc}}}}}", [0u8; 24])
        };
        let json = format!(
            "{{\"segment\":\"000000010000000000000000\",\"timeline\":1,\"position\":{position},\"previous\":{{\"at\":\"0/1\"}},\"doubtful\":false}}"
        );
        let carry: Carry = serde_json::from_str(&json).unwrap();
        let mut walker = RecordWalker::resume(system(), size(), carry);
        let (name, bytes) = log.segments().remove(0);
        prop_assert!(!walker.segment(name, Ending::WithSegment, &bytes).findings.is_empty());
    }
}
