//! Amounts as people read them.

use std::fmt;

/// A number of bytes, printed with three digits: `1.25 GiB`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 5] =
            [(1 << 50, "PiB"), (1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        let Some((unit, name)) = UNITS.into_iter().find(|(unit, _)| self.0 >= *unit) else {
            return write!(f, "{} B", self.0);
        };
        // In hundredths, without floating point: amounts print the same everywhere.
        let hundredths = u128::from(self.0) * 100 / u128::from(unit);
        let (whole, rest) = (hundredths / 100, hundredths % 100);
        match whole {
            0..10 => write!(f, "{whole}.{rest:02} {name}"),
            10..100 => write!(f, "{whole}.{} {name}", rest / 10),
            _ => write!(f, "{whole} {name}"),
        }
    }
}

/// A count with its noun: `1 segment`, `12,345 segments`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Count(pub u64, pub &'static str);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index).is_multiple_of(3) {
                f.write_str(",")?;
            }
            write!(f, "{digit}")?;
        }
        write!(f, " {}{}", self.1, if self.0 == 1 { "" } else { "s" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_have_three_digits_and_a_unit() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (1_310_720, "1.25 MiB"),
            (16 << 20, "16.0 MiB"),
            (999 << 30, "999 GiB"),
            (u64::MAX, "16383 PiB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
    }

    #[test]
    fn counts_are_grouped_and_agree_with_their_noun() {
        assert_eq!(Count(1, "segment").to_string(), "1 segment");
        assert_eq!(Count(0, "file").to_string(), "0 files");
        assert_eq!(Count(1_234_567, "file").to_string(), "1,234,567 files");
    }
}
