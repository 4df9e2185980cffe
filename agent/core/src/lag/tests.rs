//! Lag as it is judged: by one sample, and by several that follow each other.

use super::*;

const LIMITS: Thresholds = Thresholds { warning: Duration::from_secs(5), critical: Duration::from_secs(30) };

fn lsn(bytes: u64) -> Option<Lsn> {
    Lsn::new(bytes)
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

fn receiver(status: &str, latest_end: u64) -> Receiver {
    Receiver {
        status: status.to_owned(),
        latest_end: lsn(latest_end),
        silent_for: Some(Duration::from_secs(1)),
        timeout: Some(Duration::from_secs(60)),
        sender: None,
        slot: None,
    }
}

fn standby(second: i64, received: u64, replayed: u64, age: u64) -> Sample {
    let standby = StandbySample {
        received: lsn(received),
        replayed: lsn(replayed),
        last_transaction_age: Some(Duration::from_secs(age)),
        receiver: Some(receiver("streaming", received)),
        streams: true,
        ..StandbySample::default()
    };
    Sample {
        at: at(second),
        position: lsn(replayed),
        standby: Some(standby),
        synchronous_standby_names: None,
        replicas: Vec::new(),
        slots: Vec::new(),
    }
}

fn primary(second: i64, position: u64) -> Sample {
    Sample {
        at: at(second),
        position: lsn(position),
        standby: None,
        synchronous_standby_names: Some(String::new()),
        replicas: Vec::new(),
        slots: Vec::new(),
    }
}

fn replica(name: &str, state: &str, sync_state: &str, replayed: u64, lag: Option<u64>) -> Replica {
    let stage = Stage { position: lsn(replayed), lag: lag.map(Duration::from_secs) };
    Replica {
        name: name.to_owned(),
        address: None,
        state: state.to_owned(),
        sync_state: sync_state.to_owned(),
        write: stage,
        flush: stage,
        replay: stage,
    }
}

fn look(sample: &Sample) -> Report {
    Watcher::new(LIMITS).look(sample)
}

fn replay_seconds(report: &Report) -> Option<u64> {
    report.standby.as_ref().unwrap().replay_lag.map(|lag| lag.as_secs())
}

#[test]
fn an_idle_primary_is_not_lag() {
    let report = look(&standby(0, 1000, 1000, 86_400));
    assert_eq!((report.state, replay_seconds(&report)), (Severity::Ok, Some(0)));
    assert!(report.standby.unwrap().replay_lag_is_exact);
}

#[test]
fn replay_that_is_behind_is_late_by_the_age_of_the_last_transaction_at_most() {
    for (age, state) in [(4, Severity::Ok), (6, Severity::Warning), (31, Severity::Critical)] {
        let report = look(&standby(0, 2000, 1000, age));
        assert_eq!((report.state, replay_seconds(&report)), (state, Some(age)));
        assert_eq!(report.standby.unwrap().replay_lag_bytes, Some(1000));
    }
}

#[test]
fn what_came_after_a_quiet_hour_is_late_only_since_it_came() {
    let mut watcher = Watcher::new(LIMITS);
    assert_eq!(watcher.look(&standby(0, 1000, 1000, 3600)).state, Severity::Ok);
    let report = watcher.look(&standby(3, 2000, 1000, 3603));
    assert_eq!((report.state, replay_seconds(&report)), (Severity::Ok, Some(3)));
    let report = watcher.look(&standby(40, 3000, 1000, 3640));
    assert_eq!((report.state, replay_seconds(&report)), (Severity::Critical, Some(40)));
    // Replay has passed what was there at second 3.
    let report = watcher.look(&standby(43, 3000, 2500, 3643));
    assert_eq!(replay_seconds(&report), Some(40));
    let report = watcher.look(&standby(44, 3000, 3000, 10));
    assert_eq!((report.state, replay_seconds(&report)), (Severity::Ok, Some(0)));
}

#[test]
fn a_receiver_that_is_down_is_never_no_lag() {
    let mut watcher = Watcher::new(LIMITS);
    watcher.look(&standby(0, 1000, 1000, 3600));
    let mut down = standby(10, 1000, 1000, 3610);
    if let Some(standby) = &mut down.standby {
        standby.receiver = None;
    }
    let report = watcher.look(&down);
    assert_eq!(report.state, Severity::Warning);
    assert_eq!(report.standby.as_ref().unwrap().receiver, Streaming::Down);
    assert_eq!(replay_seconds(&report), Some(10));
    down.at = at(100);
    assert_eq!(watcher.look(&down).state, Severity::Critical);
    // One look alone knows nothing but the age.
    assert_eq!(replay_seconds(&look(&down)), Some(3610));
    // And without one, nothing at all.
    if let Some(standby) = &mut down.standby {
        standby.last_transaction_age = None;
    }
    let report = look(&down);
    assert_eq!((report.state, replay_seconds(&report)), (Severity::Critical, None));
    assert!(check_line(&report).contains("replay_lag=U"), "{}", check_line(&report));
}

#[test]
fn a_receiver_that_hears_nothing_is_not_believed() {
    let mut silent = standby(0, 1000, 1000, 3);
    if let Some(receiver) = silent.standby.as_mut().and_then(|standby| standby.receiver.as_mut()) {
        receiver.silent_for = Some(Duration::from_secs(61));
    }
    let report = look(&silent);
    assert_eq!(report.state, Severity::Warning);
    assert_eq!(report.standby.unwrap().receiver, Streaming::Silent);
}

#[test]
fn what_the_primary_told_of_and_did_not_send_yet_is_lag() {
    let mut sample = standby(0, 1000, 1000, 40);
    if let Some(receiver) = sample.standby.as_mut().and_then(|standby| standby.receiver.as_mut()) {
        receiver.latest_end = lsn(5000);
    }
    let report = look(&sample);
    assert_eq!(report.state, Severity::Critical);
    assert_eq!(report.standby.unwrap().receive_lag_bytes, Some(4000));
}

#[test]
fn a_receiver_that_has_heard_nothing_yet_says_nothing_of_the_primary() {
    let mut sample = standby(0, 1000, 1500, 40);
    if let Some(receiver) = sample.standby.as_mut().and_then(|standby| standby.receiver.as_mut()) {
        receiver.latest_end = None;
    }
    let report = look(&sample);
    assert_eq!((report.state, replay_seconds(&report)), (Severity::Critical, Some(40)));
}

#[test]
fn a_paused_replay_is_a_warning_even_before_anything_waits() {
    let mut sample = standby(0, 1000, 1000, 0);
    if let Some(standby) = &mut sample.standby {
        standby.pause = Pause::Paused;
    }
    let report = look(&sample);
    assert_eq!(report.state, Severity::Warning);
    assert!(check_line(&report).contains("pg_wal_replay_resume"));
}

#[test]
fn a_replica_with_nothing_missing_has_no_lag_whatever_was_measured_last() {
    let mut sample = primary(0, 1000);
    sample.replicas = vec![replica("a", "streaming", "async", 1000, Some(60))];
    let report = look(&sample);
    assert_eq!(report.state, Severity::Ok);
    assert_eq!(report.replicas[0].replay.seconds, Some(Duration::ZERO));
    sample.replicas = vec![replica("a", "streaming", "async", 900, Some(6))];
    assert_eq!(look(&sample).state, Severity::Warning);
    sample.replicas = vec![replica("a", "catchup", "async", 900, None)];
    assert_eq!(look(&sample).state, Severity::Warning);
}

#[test]
fn a_replica_that_stopped_in_a_quiet_time_is_late_since_then_and_unknown_at_first() {
    let mut watcher = Watcher::new(LIMITS);
    let mut sample = primary(0, 1000);
    sample.replicas = vec![replica("a", "streaming", "async", 900, None)];
    let report = watcher.look(&sample);
    assert_eq!((report.state, report.replicas[0].replay.seconds), (Severity::Unknown, None));
    sample.replicas = vec![replica("a", "streaming", "async", 1000, None)];
    assert_eq!(watcher.look(&sample).state, Severity::Ok);
    for (second, state) in [(3, Severity::Ok), (20, Severity::Warning), (40, Severity::Critical)] {
        (sample.at, sample.position) = (at(second), lsn(2000));
        let report = watcher.look(&sample);
        assert_eq!(report.state, state);
        let late = Duration::from_secs(u64::try_from(second).unwrap());
        assert_eq!(report.replicas[0].replay.seconds, Some(late));
    }
}

#[test]
fn commits_that_wait_for_a_missing_standby_are_critical() {
    let mut sample = primary(0, 1000);
    sample.synchronous_standby_names = Some("FIRST 1 (a, b)".to_owned());
    assert_eq!(look(&sample).state, Severity::Critical);
    sample.replicas = vec![replica("a", "catchup", "sync", 1000, None)];
    assert_eq!(look(&sample).state, Severity::Critical);
    sample.replicas = vec![replica("c", "streaming", "async", 1000, None)];
    assert_eq!(look(&sample).state, Severity::Critical);
    sample.replicas = vec![replica("a", "streaming", "sync", 1000, None)];
    assert_eq!(look(&sample).state, Severity::Ok);
    sample.replicas = vec![replica("a", "streaming", "quorum", 1000, None)];
    assert_eq!(look(&sample).state, Severity::Ok);
}

#[test]
fn the_number_of_synchronous_standbys_is_read_as_postgresql_does() {
    for (names, required) in [
        ("", None),
        ("  ", None),
        ("*", Some(1)),
        ("a, b", Some(1)),
        ("2 (a, b, c)", Some(2)),
        ("FIRST 3 (a, b, c)", Some(3)),
        ("any 2(a,b,c)", Some(2)),
        ("\"FIRST 9 (x\", b", Some(1)),
    ] {
        assert_eq!(required_synchronous(names), required, "{names}");
    }
}

fn slot(wal_status: &str, active: bool, safe_bytes: Option<u64>) -> Slot {
    Slot {
        name: "standby-1".to_owned(),
        kind: "physical".to_owned(),
        active,
        restart: lsn(1000),
        wal_status: Some(wal_status.to_owned()),
        safe_bytes,
    }
}

#[test]
fn how_long_a_slot_lasts_needs_two_samples() {
    let mut watcher = Watcher::new(LIMITS);
    let mut sample = primary(0, 2000);
    sample.slots = vec![slot("extended", false, Some(100_000))];
    let report = watcher.look(&sample);
    assert_eq!((report.slots[0].until_lost, report.slots[0].retained_bytes), (None, Some(1000)));
    assert_eq!(report.state, Severity::Warning);
    sample.at = at(10);
    sample.position = lsn(3000);
    let report = watcher.look(&sample);
    assert_eq!(report.slots[0].until_lost, Some(Duration::from_secs(1000)));
    assert_eq!(report.state, Severity::Critical);
    // Nothing is written: nothing is foreseen.
    sample.at = at(20);
    assert_eq!(watcher.look(&sample).slots[0].until_lost, None);
}

#[test]
fn a_slot_that_is_lost_or_nearly_is_critical() {
    for (slot, state) in [
        (slot("reserved", true, Some(1)), Severity::Ok),
        (slot("reserved", false, None), Severity::Ok),
        (slot("unreserved", false, Some(0)), Severity::Critical),
        (slot("lost", false, None), Severity::Critical),
    ] {
        let mut sample = primary(0, 2000);
        sample.slots = vec![slot];
        assert_eq!(look(&sample).state, state);
    }
}

#[test]
fn the_line_is_one_line_whatever_a_standby_calls_itself() {
    let mut sample = primary(0, 1000);
    sample.replicas = vec![replica("a|b\nc='d", "catchup", "async", 900, Some(1))];
    let line = check_line(&look(&sample));
    assert!(line.starts_with("LAG WARNING - primary: "), "{line}");
    assert_eq!((line.lines().count(), line.matches('|').count()), (1, 1), "{line}");
    assert!(line.contains("'replay_lag_a_b_c__d'=1.000s;5;30;0"), "{line}");
}
