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
