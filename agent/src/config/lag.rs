//! `[lag]`: when replication lag is too long.

use super::amount;
use super::check::{Checker, HOUR};
use serde::Deserialize;
use std::time::Duration;

/// As it stands in the file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawLag {
    pub warning: Option<String>,
    pub critical: Option<String>,
}

/// Checked.
#[derive(Clone, Debug)]
pub struct Lag {
    /// A warning above this.
    pub warning: Duration,
    /// Critical above this.
    pub critical: Duration,
}

/// DESIGN 9: a promotion needs less than the first; after the second somebody is called.
const WARNING: Duration = Duration::from_secs(5);
const CRITICAL: Duration = Duration::from_secs(30);

pub(super) fn check(checker: &mut Checker, raw: RawLag) -> Lag {
    let warning = checker.duration("lag.warning", raw.warning, WARNING, HOUR * 24);
    // A longer warning alone moves the critical one with it.
    let critical = checker.duration("lag.critical", raw.critical, CRITICAL.max(warning), HOUR * 24);
    if critical < warning {
        let wanted = format!("at least lag.warning, which is \"{}\"", amount::duration(warning));
        checker.refuse("lag.critical", format!("\"{}\"", amount::duration(critical)), wanted);
    }
    Lag { warning, critical }
}

impl Lag {
    pub(super) fn write(&self, out: &mut String) -> std::fmt::Result {
        use std::fmt::Write as _;
        writeln!(out, "\n[lag]\nwarning = \"{}\"", amount::duration(self.warning))?;
        writeln!(out, "critical = \"{}\"", amount::duration(self.critical))
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;
    use std::path::Path;
    use std::time::Duration;

    fn parse(lag: &str) -> Result<Config, String> {
        let text = format!("[repository]\nurl = \"file:///srv/wald\"\n[lag]\n{lag}");
        Config::parse(Path::new("wald.toml"), &text).map_err(|error| error.to_string())
    }

    #[test]
    fn critical_is_never_sooner_than_the_warning() {
        let lag = parse("warning = \"1m\"\n").unwrap().lag;
        assert_eq!((lag.warning, lag.critical), (Duration::from_secs(60), Duration::from_secs(60)));
        let error = parse("warning = \"10s\"\ncritical = \"5s\"\n").unwrap_err();
        assert!(error.contains("lag.critical"), "{error}");
    }
}
