//! Durations and sizes as people write them: `90s`, `10m`, `64MiB`.

use std::time::Duration;

/// Parses `500ms`, `5s`, `10m`, `1h30m` and the like.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    let span: jiff::SignedDuration = text.trim().parse().ok()?;
    Duration::try_from(span).ok()
}

/// Parses `1048576`, `64MiB`, `1GiB`, `512 kB`: binary units with `i`, decimal without.
pub(super) fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits_end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at_checked(digits_end)?;
    let factor: u64 = match unit.trim() {
        "" | "B" => 1,
        "kB" | "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

/// The shortest of `h`, `m`, `s`, `ms` that is exact.
pub(super) fn duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    for (unit, size) in [("h", 3_600_000), ("m", 60_000), ("s", 1000)] {
        // 90s says more to most people than a fraction, 120s less than 2m.
        if millis >= size && millis.is_multiple_of(size) {
            return format!("{}{unit}", millis / size);
        }
    }
    format!("{millis}ms")
}

/// The largest binary unit that is exact.
pub(super) fn bytes(bytes: u64) -> String {
    for (unit, shift) in [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        if bytes >= 1 << shift && bytes.trailing_zeros() >= shift {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    format!("{bytes}B")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn amounts_read_as_people_write_them() {
        assert_eq!(parse_duration("10m"), Some(Duration::from_secs(600)));
        assert_eq!(parse_duration("1h30m"), Some(Duration::from_secs(5400)));
        assert_eq!(parse_duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse_bytes("64MiB"), Some(64 << 20));
        assert_eq!(parse_bytes("1 GB"), Some(1_000_000_000));
        for text in ["", "soon", "-5s", "5"] {
            assert_eq!(parse_duration(text), None, "{text:?}");
        }
        for text in ["", "MiB", "-1", "1.5GiB", "99999999999TiB"] {
            assert_eq!(parse_bytes(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_parses_back(millis in 0u64..1 << 40, size: u64) {
            let time = Duration::from_millis(millis);
            prop_assert_eq!(parse_duration(&duration(time)), Some(time));
            prop_assert_eq!(parse_bytes(&bytes(size)), Some(size));
        }

        #[test]
        fn any_text_parses_or_fails_without_panic(text in "\\PC{0,20}") {
            let _ = (parse_duration(&text), parse_bytes(&text));
        }
    }
}
