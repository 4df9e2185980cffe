//! Times on the command line and in PostgreSQL's settings. A time names a moment or is refused.

use super::{TargetError, shown};
use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};
use jiff::{RoundMode, Timestamp, TimestampRound, Unit};

/// Reads a time that names a moment: RFC 3339, or as PostgreSQL prints a `timestamptz`,
/// `2026-11-22 18:00:00.123+00`. Parts of a microsecond are cut off, as PostgreSQL keeps none.
pub fn parse_time(text: &str) -> Result<Timestamp, TargetError> {
    let not_a_time = || TargetError::NotATime { text: shown(text) };
    let trimmed = text.trim();
    // An offset's sign can only stand behind the time of day: dates have hyphens too.
    let zone_from = trimmed.find(':').and_then(|colon| {
        let rest = trimmed.get(colon..)?;
        rest.find(|c: char| !matches!(c, '0'..='9' | ':' | '.')).map(|at| colon + at)
    });
    let (civil, zone) = match zone_from {
        Some(at) => (trimmed.get(..at), trimmed.get(at..)),
        None => (Some(trimmed), None),
    };
    let civil: DateTime = civil
        .filter(|civil| {
            civil.contains(':') && civil.bytes().all(|b| b.is_ascii_digit() || b"-T t:.".contains(&b))
        })
        .and_then(|civil| civil.parse().ok())
        .ok_or_else(not_a_time)?;
    let offset = match zone {
        Some(zone) => parse_offset(zone.trim_start()).ok_or_else(not_a_time)?,
        None => return Err(TargetError::TimeWithoutZone { text: shown(trimmed) }),
    };
    let moment = TimeZone::fixed(offset).to_timestamp(civil).map_err(|_| not_a_time())?;
    let whole = moment.as_microsecond();
    Timestamp::from_microsecond(whole).map_err(|_| not_a_time())
}

/// `Z`, `UTC`, or `±HH`, `±HHMM`, `±HH:MM`.
fn parse_offset(text: &str) -> Option<Offset> {
    if matches!(text, "Z" | "z" | "UTC" | "utc") {
        return Some(Offset::UTC);
    }
    let (sign, digits) = match text.as_bytes().split_first()? {
        (b'+', digits) => (1, digits),
        (b'-', digits) => (-1, digits),
        _ => return None,
    };
    let value = |high: u8, low: u8| {
        let digit = |b: u8| char::from(b).to_digit(10).and_then(|digit| i32::try_from(digit).ok());
        Some(digit(high)? * 10 + digit(low)?)
    };
    let (hours, minutes) = match digits {
        [h1, h2] => (value(*h1, *h2)?, 0),
        [h1, h2, m1, m2] | [h1, h2, b':', m1, m2] => (value(*h1, *h2)?, value(*m1, *m2)?),
        _ => return None,
    };
    // PostgreSQL's own limit is just below 16 hours.
    let valid = hours <= 15 && minutes <= 59;
    if valid { Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).ok() } else { None }
}

/// A time as PostgreSQL prints it, in UTC: `2026-11-22 18:00:00.123+00`.
pub fn print_time(time: Timestamp) -> String {
    let utc = time.to_zoned(TimeZone::UTC).datetime();
    format!("{} {}+00", utc.date(), utc.time())
}

/// A time for people, parts of a second cut off: `2026-11-22 18:00:00+00`.
pub fn print_second(time: Timestamp) -> String {
    let cut = TimestampRound::new().smallest(Unit::Second).mode(RoundMode::Floor);
    print_time(time.round(cut).unwrap_or(time))
}

/// The same, rounded up: the first whole second that is not before `time`.
pub fn print_second_after(time: Timestamp) -> String {
    let up = TimestampRound::new().smallest(Unit::Second).mode(RoundMode::Ceil);
    print_time(time.round(up).unwrap_or(time))
}
