//! Tests of recovery targets: the forms that name a moment, and the settings made from them.

use super::*;
use proptest::prelude::*;

fn goal(target: RecoveryTarget, inclusion: Inclusion) -> RecoveryGoal {
    RecoveryGoal::new(target, inclusion, TimelineChoice::Latest, TargetAction::Promote).unwrap()
}

fn settings(target: RecoveryTarget, timeline: TimelineSetting) -> String {
    let settings = goal(target, Inclusion::Inclusive).settings(timeline);
    settings.iter().map(|setting| format!("{setting}\n")).collect()
}

#[test]
fn times_are_read_in_every_form_that_names_a_moment() {
    let moment: Timestamp = "2026-11-22T18:00:00.123456Z".parse().unwrap();
    for text in [
        "2026-11-22T18:00:00.123456Z",
        "2026-11-22 18:00:00.123456+00",
        "2026-11-22 18:00:00.123456789+00:00",
        "2026-11-22 19:00:00.123456+01",
        "2026-11-22 14:30:00.123456-0330",
        "2026-11-22t14:30:00.123456-03:30",
        "2026-11-22 18:00:00.123456 UTC",
        " 2026-11-22 18:00:00.123456 +00 ",
    ] {
        assert_eq!(parse_time(text), Ok(moment), "{text}");
    }
    assert_eq!(parse_time("2026-11-22 18:00Z").unwrap().to_string(), "2026-11-22T18:00:00Z");
}

#[test]
fn a_time_without_a_zone_is_refused_with_an_example() {
    for text in ["2026-11-22 18:00:00", "2026-11-22T18:00:00.5", "2026-11-22 18:00"] {
        let error = parse_time(text).unwrap_err();
        assert_eq!(error, TargetError::TimeWithoutZone { text: text.to_owned() });
        assert!(error.to_string().contains(&format!("write \"{text}+00\" if it is UTC")), "{error}");
    }
}

#[test]
fn what_is_not_a_time_is_refused() {
    for text in [
        "",
        "now",
        "yesterday",
        "2026-11-22",
        "18:00:00+00",
        "2026-13-22 18:00:00+00",
        "2026-11-22 25:00:00+00",
        "2026-11-22 18:00:00+1",
        "2026-11-22 18:00:00+99",
        "2026-11-22 18:00:00+00[Europe/Berlin]",
        "2026-11-22 18:00:00 CET",
        "2026-11-22 18:00:00+00'; drop table",
    ] {
        assert!(
            matches!(parse_time(text), Err(TargetError::NotATime { .. })),
            "{text:?}: {:?}",
            parse_time(text)
        );
    }
}

#[test]
fn times_print_as_postgresql_reads_them() {
    let time = parse_time("2026-11-22 19:00:00.120+01").unwrap();
    assert_eq!(print_time(time), "2026-11-22 18:00:00.12+00");
    let late = parse_time("2026-11-22 18:00:00.9Z").unwrap();
    assert_eq!(print_second(late), "2026-11-22 18:00:00+00");
    assert_eq!(print_second_after(late), "2026-11-22 18:00:01+00");
}

#[test]
fn the_target_is_set_after_all_others_were_emptied() {
    let time = RecoveryTarget::Time(parse_time("2026-11-22 18:00:00Z").unwrap());
    let timeline = TimelineSetting::Id(TimelineId::new(3).unwrap());
    assert_eq!(
        settings(time, timeline),
        "recovery_target = ''\n\
         recovery_target_lsn = ''\n\
         recovery_target_name = ''\n\
         recovery_target_xid = ''\n\
         recovery_target_time = '2026-11-22 18:00:00+00'\n\
         recovery_target_inclusive = 'true'\n\
         recovery_target_timeline = '3'\n\
         recovery_target_action = 'promote'\n"
    );
    let end = settings(RecoveryTarget::EndOfWal, TimelineSetting::Current);
    assert!(end.contains("recovery_target_time = ''\n"), "{end}");
    assert!(end.contains("recovery_target_timeline = 'current'\n"), "{end}");
}

#[test]
fn a_name_is_quoted() {
    let name = RestorePoint::parse("before \\ Jane's migration").unwrap();
    let text = settings(RecoveryTarget::Name(name), TimelineSetting::Current);
    assert!(text.contains(r"recovery_target_name = 'before \\ Jane''s migration'"), "{text}");
    assert_eq!(quote_setting("a\nb"), r"'a\nb'");
}

#[test]
fn names_and_numbers_have_limits() {
    assert!(RestorePoint::parse(&"x".repeat(63)).is_ok());
    for text in ["".to_owned(), "x".repeat(64), "a\nb".to_owned(), "\u{e9}".repeat(32)] {
        assert!(RestorePoint::parse(&text).is_err(), "{text:?}");
    }
    for text in ["", "0", "2", "-5", "+5", "0x10", "4294967296", "99999999999999999999"] {
        assert!(TransactionId::parse(text).is_err(), "{text:?}");
    }
    assert_eq!(TransactionId::parse("4294967299").unwrap().to_string(), "4294967299");
    for text in ["", "0", "Latest", "0x2", "-1", "4294967296"] {
        assert!(TimelineChoice::parse(text).is_err(), "{text:?}");
    }
    assert_eq!(TimelineChoice::parse("7").unwrap(), TimelineChoice::Id(TimelineId::new(7).unwrap()));
    assert!(TargetAction::parse("stop").is_err());
}

#[test]
fn what_has_no_edge_cannot_be_excluded() {
    for target in [RecoveryTarget::EndOfWal, RecoveryTarget::Immediate] {
        let goal =
            RecoveryGoal::new(target, Inclusion::Exclusive, TimelineChoice::Latest, TargetAction::Promote);
        assert!(matches!(goal, Err(TargetError::NothingToExclude { .. })));
    }
}

proptest! {
    #[test]
    fn times_round_trip(micros in -60_000_000_000_000_000i64..200_000_000_000_000_000) {
        let time = Timestamp::from_microsecond(micros).unwrap();
        prop_assert_eq!(parse_time(&print_time(time)).unwrap(), time);
        prop_assert_eq!(parse_time(&time.to_string()).unwrap(), time);
    }

    #[test]
    fn any_text_parses_or_fails_without_panic(text in "[0-9TZ:. +-]{0,30}|\\PC{0,40}") {
        let _ = parse_time(&text);
        let _ = TransactionId::parse(&text);
        let _ = RestorePoint::parse(&text);
        let _ = TimelineChoice::parse(&text);
    }

    #[test]
    fn a_quoted_value_ends_at_its_own_quote(value in "[ -~\n]{0,30}") {
        let quoted = quote_setting(&value);
        prop_assert!(!quoted.contains('\n'));
        let inner = quoted.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')).unwrap();
        // As GUC_scanstr reads it back.
        let mut read = String::new();
        let mut chars = inner.chars();
        while let Some(c) = chars.next() {
            match c {
                '\'' => prop_assert_eq!(chars.next(), Some('\'')),
                '\\' => {
                    let escaped = chars.next().unwrap();
                    read.push(if escaped == 'n' { '\n' } else { escaped });
                    continue;
                }
                _ => {}
            }
            read.push(c);
        }
        prop_assert_eq!(read, value);
    }
}
