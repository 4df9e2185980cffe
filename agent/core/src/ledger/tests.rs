//! Tests of the ledger: its text, its merge, its schedule.

use super::*;
use crate::object_lock::{LockMode, ObjectLock};
use jiff::SignedDuration;
use proptest::prelude::*;

const NOW: i64 = 1_763_776_800;
const DAY: i64 = 86_400;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn object(number: u32, bytes: u64, verified: Option<i64>) -> Object {
    let name = format!("wal/{number:024X}.zst");
    let mut object = Object::listed(&name, "null", bytes, at(NOW - 30 * DAY));
    if let Some(second) = verified {
        object.prove(Depth::Records, at(second));
    }
    object
}

fn head(objects: u64) -> Head {
    Head {
        format: LEDGER_FORMAT,
        tool_version: "0.1.0".to_owned(),
        system_id: SystemId::new(7).unwrap(),
        begun: at(NOW),
        ended: at(NOW + 60),
        depth: Depth::Records,
        complete: true,
        read: Amount { objects: 1, stored_bytes: 1 << 30, raw_bytes: 3 << 30, milliseconds: 4000 },
        findings: vec![Finding {
            object: "wal/x".to_owned(),
            version: None,
            damage: Damage::Content { problem: "a bit".to_owned() },
            found_at: at(NOW),
            last_good: None,
            lost: None,
        }],
        walks: Vec::new(),
        objects,
        knew: Vec::new(),
    }
}

fn rules(bytes_max: Option<u64>) -> Rotation {
    Rotation {
        now: at(NOW),
        depth: Depth::Records,
        reread: SignedDuration::from_hours(7 * 24),
        bytes_max,
        full: false,
    }
}

fn chosen(objects: &[Object], suspect: &str, rules: &Rotation) -> (Vec<(usize, Why)>, Postponed) {
    let candidates: Vec<&Object> = objects.iter().collect();
    let Schedule { read, postponed } = schedule(&candidates, |name| name == suspect, rules);
    (read, postponed)
}

fn parse(text: &str) -> Result<(Head, Vec<Object>), LedgerError> {
    let mut reader = LedgerReader::new();
    let mut objects = Vec::new();
    for line in text.lines() {
        objects.extend(reader.line(line.as_bytes())?);
    }
    Ok((reader.finish()?, objects))
}

#[test]
fn a_ledger_that_is_cut_off_or_newer_is_refused() {
    let text =
        head_line(&head(2)) + &object_line(&object(1, 5, Some(NOW))) + &object_line(&object(2, 5, None));
    let (read, objects) = parse(&text).unwrap();
    assert_eq!((read, objects.len()), (head(2), 2));
    let cut: String = text.lines().take(2).map(|line| format!("{line}\n")).collect();
    assert!(matches!(parse(&cut), Err(LedgerError::Count { found: 1, expected: 2 })));
    assert!(matches!(parse(""), Err(LedgerError::Empty)));
    assert!(matches!(parse("{\"format\":2,\"x\":[]}"), Err(LedgerError::NewerFormat { found: 2 })));
    assert!(matches!(
        parse(&text.replace("\"null\"", "\"nu\"ll\"")),
        Err(LedgerError::Malformed { line: 2, .. })
    ));
}

#[test]
fn a_rate_needs_time() {
    assert_eq!(head(0).read.stored_bytes_per_second(), Some(1 << 28));
    assert_eq!(Amount::default().stored_bytes_per_second(), None);
}

#[test]
fn a_proof_belongs_to_one_version_with_its_size_and_date() {
    let known = object(1, 5, Some(NOW));
    for change in [
        |object: &mut Object| object.version = "other".into(),
        |object: &mut Object| object.bytes = 6,
        |object: &mut Object| object.stored += 1,
        |object: &mut Object| object.name = "wal/other".into(),
    ] {
        let mut now = object(1, 5, None);
        change(&mut now);
        let mut objects = Objects::new(vec![now.clone()]);
        assert!(!objects.learn(known.clone(), at(NOW)));
        assert_eq!(objects.iter().next(), Some(&now));
    }
}

#[test]
fn of_two_ledgers_the_later_proof_and_the_longer_lock_count() {
    let lock = |mode, days| KnownLock::from(ObjectLock { mode, until: at(NOW + days * DAY) });
    let mut objects = Objects::new(vec![object(1, 5, None)]);
    let mut known = object(1, 5, Some(NOW));
    known.lock = Some(lock(LockMode::Compliance, 3));
    assert!(objects.learn(known.clone(), at(NOW)));
    let mut older = object(1, 5, Some(NOW - DAY));
    older.lock = Some(lock(LockMode::Governance, 9));
    assert!(objects.learn(older, at(NOW)));
    let learnt = objects.get(&known.name).unwrap();
    assert_eq!((learnt.content, learnt.records), (Some(NOW), Some(NOW)));
    // A weak lock that is longer does not make the strong one longer.
    assert_eq!(learnt.lock, known.lock);
}

#[test]
fn a_proof_from_the_future_is_none() {
    let mut objects = Objects::new(vec![object(1, 5, None)]);
    let known = object(1, 5, Some(NOW + 1));
    assert!(objects.learn(known.clone(), at(NOW)));
    assert_eq!(objects.get(&known.name).unwrap().verified(Depth::Content), None);
    assert!(objects.learn(known.clone(), at(NOW + 1)));
    assert_eq!(objects.get(&known.name).unwrap().verified(Depth::Records), Some(NOW + 1));
}

#[test]
fn what_is_new_or_suspect_is_read_whatever_the_limit() {
    let mut shallow = object(3, 100, None);
    shallow.prove(Depth::Content, at(NOW));
    let objects = [object(1, 100, None), object(2, 100, Some(NOW)), shallow, object(4, 100, Some(NOW))];
    let (read, postponed) = chosen(&objects, "wal/000000000000000000000004.zst", &rules(Some(1)));
    // The rotation itself reads at least one object, however small the limit.
    assert_eq!(read, [(0, Why::New), (1, Why::Due), (2, Why::New), (3, Why::Suspect)]);
    assert_eq!(postponed, Postponed::default());
}

#[test]
fn what_will_be_overdue_tomorrow_is_read_and_what_does_not_fit_is_counted() {
    let objects: Vec<Object> = (0..10).map(|n| object(n, 100, Some(NOW - 6 * DAY - i64::from(n)))).collect();
    let (read, postponed) = chosen(&objects, "", &rules(None));
    assert_eq!((read.len(), postponed), (10, Postponed::default()));
    let (read, postponed) = chosen(&objects, "", &rules(Some(350)));
    assert_eq!(read, [(7, Why::Due), (8, Why::Due), (9, Why::Due)], "the oldest first");
    assert_eq!(postponed, Postponed { objects: 7, stored_bytes: 700, overdue: 0 });
    let objects: Vec<Object> =
        (0..10).map(|n| object(n, 100, Some(NOW - (12 - i64::from(n)) * DAY))).collect();
    let (_, postponed) = chosen(&objects, "", &rules(Some(350)));
    assert_eq!(postponed, Postponed { objects: 4, stored_bytes: 400, overdue: 2 });
}

#[test]
fn a_full_run_reads_everything_and_presence_nothing() {
    let objects: Vec<Object> = (0..10).map(|n| object(n, 100, Some(NOW))).collect();
    let full = Rotation { full: true, ..rules(Some(1)) };
    assert_eq!(chosen(&objects, "", &full).0.len(), 10);
    let presence = Rotation { depth: Depth::Presence, ..full };
    assert_eq!(chosen(&objects, "", &presence).0.len(), 0);
}

#[test]
fn night_after_night_everything_is_read_again_in_time() {
    let mut objects: Vec<Object> = (0..100).map(|n| object(n, 100 + u64::from(n), Some(NOW))).collect();
    for night in 1..30 {
        let now = at(NOW + night * DAY);
        let (read, postponed) = chosen(&objects, "", &Rotation { now, ..rules(None) });
        assert_eq!(postponed, Postponed::default());
        assert!(read.len() <= 25, "night {night} reads {}: evenly spread", read.len());
        for (index, _) in read {
            objects[index].prove(Depth::Records, now);
        }
        let oldest = objects.iter().filter_map(|object| object.content).min().unwrap();
        assert!(now.as_second() - oldest <= 7 * DAY, "night {night}");
    }
}

#[test]
fn a_finding_stays_open_until_its_object_was_looked_at_as_thoroughly() {
    let finding = |damage| Finding { damage, ..head(0).findings[0].clone() };
    let content = finding(Damage::Content { problem: String::new() });
    let records = finding(Damage::Records { problems: Vec::new(), count: 1 });
    for (looked, left) in
        [(None, 2), (Some(Depth::Presence), 2), (Some(Depth::Content), 1), (Some(Depth::Records), 0)]
    {
        let open = still_open(vec![content.clone(), records.clone()], |_| looked);
        assert_eq!(open.len(), left, "{looked:?}");
    }
}

#[test]
fn a_hundred_thousand_objects_take_little_room() {
    let objects: Vec<Object> = (0..100_000).map(|n| object(n, 5 << 20, Some(NOW))).collect();
    let text: usize = objects.iter().map(|object| object_line(object).len()).sum();
    assert!(text < 20 << 20, "{text} bytes of text");
    let fixed = std::mem::size_of::<Object>() * objects.len();
    assert!(fixed < 16 << 20, "{fixed} bytes in memory, names aside");
    assert_eq!(Objects::new(objects).len(), 100_000);
}

fn any_object() -> impl Strategy<Value = Object> {
    let lock = proptest::option::of((any::<bool>(), any::<i32>()).prop_map(|(strong, until)| KnownLock {
        mode: if strong { LockMode::Compliance } else { LockMode::Governance },
        until: until.into(),
    }));
    let second = || proptest::option::of(any::<i64>());
    ("\\PC{0,20}", "\\PC{0,8}", any::<u64>(), any::<i64>(), second(), second(), lock).prop_map(
        |(name, version, bytes, stored, content, records, lock)| Object {
            name: name.into(),
            version: version.into(),
            bytes,
            stored,
            content,
            records,
            lock,
        },
    )
}

proptest! {
    #[test]
    fn objects_round_trip(object in any_object()) {
        let mut reader = LedgerReader::new();
        reader.line(head_line(&head(1)).as_bytes()).unwrap();
        prop_assert_eq!(reader.line(object_line(&object).as_bytes()).unwrap(), Some(object));
        prop_assert!(reader.finish().is_ok());
    }

    #[test]
    fn any_lines_are_read_or_refused_without_panic(lines in proptest::collection::vec("\\PC{0,60}", 0..4)) {
        let mut reader = LedgerReader::new();
        for line in &lines {
            let _ = reader.line(line.as_bytes());
        }
        let _ = reader.finish();
    }
}
