//! Durations and sizes of memory on the command line, as PostgreSQL's configuration writes them too.

use std::time::Duration;

/// `5m`, `90s`, `2h`, `1h30m`: above 0.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let span: Option<jiff::SignedDuration> = text.trim().parse().ok();
    let duration = span.and_then(|span| Duration::try_from(span).ok()).filter(|duration| !duration.is_zero());
    duration.ok_or_else(|| "expected a duration above 0, such as 30s, 5m or 2h".to_owned())
}

/// The longest time that is taken for a boost: longer is a setting, not a boost.
const BOOST_MAX: Duration = Duration::from_secs(7 * 86_400);

/// A [`duration`] of at most a week.
pub(super) fn boost_time(text: &str) -> Result<Duration, String> {
    let duration = duration(text)?;
    if duration > BOOST_MAX {
        Err("at most 168h: what shall stay is a setting, not a boost".to_owned())
    } else {
        Ok(duration)
    }
}

/// `2GB`, `512MB`, `65536kB` in kB, with PostgreSQL's units of 1024; at least 1 MB, which is the
/// least that it takes.
pub(super) fn memory_kb(text: &str) -> Result<u64, String> {
    const WANTED: &str = "expected an amount of memory from 1MB to 2047GB, such as 512MB or 2GB";
    let text = text.trim();
    let digits_end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at_checked(digits_end).ok_or(WANTED)?;
    let factor = match unit.trim() {
        "kB" => 1,
        "MB" => 1 << 10,
        "GB" => 1 << 20,
        _ => return Err(WANTED.to_owned()),
    };
    let kilobytes = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    let allowed = kilobytes.filter(|kb| (1024..=2047 << 20).contains(kb));
    allowed.ok_or_else(|| WANTED.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_read_as_postgresql_writes_them() {
        assert_eq!(memory_kb("2GB"), Ok(2 << 20));
        assert_eq!(memory_kb("65536kB"), Ok(65_536));
        for text in ["", "2", "GB", "-1GB", "1kB", "2GiB", "99999999999999999999GB"] {
            assert!(memory_kb(text).is_err(), "{text}");
        }
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        for text in ["", "0s", "-5m", "5"] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert!(boost_time("169h").is_err() && boost_time("2h").is_ok());
    }
}
