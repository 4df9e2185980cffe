//! Credentials as they pass through: taken from the environment, handed to object_store, and
//! kept only to be recognised where they must not appear.
//!
//! Invariant: neither `Debug` nor `Display` of anything here shows a value.

use std::fmt;

/// The AWS variables of an environment: credentials and where to get them.
///
/// Taken from the process once, at start; tests make their own, since a process can't safely
/// change its own environment while threads run.
#[derive(Clone, Default)]
pub struct AwsEnvironment(Vec<(String, String)>);

impl AwsEnvironment {
    /// The variables of this process whose names begin with `AWS_`.
    pub fn of_process() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self(std::env::vars_os().filter_map(text).filter(|(name, _)| name.starts_with("AWS_")).collect())
    }

    /// The same with the variables of a file in the format of systemd's `EnvironmentFile`, as far as
    /// this environment does not have them: `NAME=VALUE` lines, values quoted or not. `Err` is the
    /// number of the first line that is none of that; names other than `AWS_…` are passed over.
    pub fn with_file(mut self, text: &str) -> Result<Self, usize> {
        for (index, line) in text.lines().map(str::trim).enumerate() {
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            let (name, value) = line.split_once('=').ok_or(index + 1)?;
            let quoted = |quote: char| value.strip_prefix(quote)?.strip_suffix(quote);
            let value = quoted('"').or_else(|| quoted('\'')).unwrap_or(value);
            if name.starts_with("AWS_") && self.0.iter().all(|(known, _)| known != name) {
                self.0.push((name.to_owned(), value.to_owned()));
            }
        }
        Ok(self)
    }

    /// An environment with a key pair and nothing else.
    pub fn with_key_pair(key_id: &str, secret: &str) -> Self {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        Self(vec![pair("AWS_ACCESS_KEY_ID", key_id), pair("AWS_SECRET_ACCESS_KEY", secret)])
    }

    /// The same with one more variable, as `AWS_SESSION_TOKEN`.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.0.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(super) fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    pub(super) fn secrets(&self) -> Secrets {
        let secret = |(name, value): (&str, &str)| {
            let upper = name.to_ascii_uppercase();
            let hidden = ["SECRET", "TOKEN", "CUSTOMER_KEY"].iter().any(|part| upper.contains(part));
            // Shorter values are no credentials, and hiding them would garble every message.
            (hidden && !upper.ends_with("_FILE") && value.len() >= 8).then(|| value.to_owned())
        };
        Secrets(self.variables().filter_map(secret).collect())
    }
}

impl fmt::Debug for AwsEnvironment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.variables().map(|(name, _)| name)).finish()
    }
}

/// Values that no message may contain.
#[derive(Clone, Default)]
pub(super) struct Secrets(Vec<String>);

impl Secrets {
    /// The text with every secret replaced.
    pub(super) fn hide(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, secret| text.replace(secret, "[hidden]"))
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({} hidden)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_adds_what_the_environment_does_not_have_and_shows_no_value() {
        let text = "# keys\nAWS_ACCESS_KEY_ID=file\nAWS_SECRET_ACCESS_KEY=\"s3cr3t-value\"\nPATH=/x\n\n";
        let environment =
            AwsEnvironment::default().with("AWS_ACCESS_KEY_ID", "process").with_file(text).unwrap();
        let variables: Vec<_> = environment.variables().collect();
        let expected = [("AWS_ACCESS_KEY_ID", "process"), ("AWS_SECRET_ACCESS_KEY", "s3cr3t-value")];
        assert_eq!(variables, expected);
        assert!(!format!("{environment:?}").contains("s3cr3t"));
        assert_eq!(AwsEnvironment::default().with_file("A=1\nnonsense").unwrap_err(), 2);
    }
}
