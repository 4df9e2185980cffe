//! Credentials as they pass through: taken from the environment, handed to object_store, and
//! kept only to be recognised where they must not appear.
//!
//! Invariant: neither `Debug` nor `Display` of anything here shows a value.

use super::credentials::CredentialsError;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

/// The AWS variables of an environment: credentials and where to get them.
///
/// Taken from the process once, at start; tests make their own, since a process can't safely
/// change its own environment while threads run.
#[derive(Clone, Default)]
pub struct AwsEnvironment {
    variables: Vec<(String, String)>,
    file: Option<EnvironmentFile>,
}

/// A file of variables that is read again, since keys are rotated there.
#[derive(Clone)]
struct EnvironmentFile {
    path: PathBuf,
    /// The variables without the file's.
    before: Vec<(String, String)>,
}

impl AwsEnvironment {
    /// The variables of this process whose names begin with `AWS_`.
    pub fn of_process() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        let ours = std::env::vars_os().filter_map(text).filter(|(name, _)| name.starts_with("AWS_"));
        Self { variables: ours.collect(), file: None }
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
            if name.starts_with("AWS_") && self.variables.iter().all(|(known, _)| known != name) {
                self.variables.push((name.to_owned(), value.to_owned()));
            }
        }
        Ok(self)
    }

    /// An environment with a key pair and nothing else.
    pub fn with_key_pair(key_id: &str, secret: &str) -> Self {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let variables = vec![pair("AWS_ACCESS_KEY_ID", key_id), pair("AWS_SECRET_ACCESS_KEY", secret)];
        Self { variables, file: None }
    }

    /// The same with one more variable, as `AWS_SESSION_TOKEN`.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same with the variables of the file at `path`, whose text is `text`, and which is read
    /// again when it changes. `Err` as for [`AwsEnvironment::with_file`].
    pub fn with_file_at(self, path: &Path, text: &str) -> Result<Self, usize> {
        let file = EnvironmentFile { path: path.to_owned(), before: self.variables.clone() };
        Ok(Self { file: Some(file), ..self.with_file(text)? })
    }

    /// The environment as it is now: its file may have changed.
    pub(super) fn read_again(self) -> Result<Self, CredentialsError> {
        let Some(file) = self.file else { return Ok(self) };
        let path = file.path;
        let text = std::fs::read_to_string(&path).map_err(|source| CredentialsError::Read {
            path: path.clone(),
            why: "repository.environment_file names it",
            source,
        })?;
        let before = Self { variables: file.before, file: None };
        before.with_file_at(&path, &text).map_err(|line| CredentialsError::Syntax {
            path,
            problem: format!("line {line}: expected NAME=VALUE"),
        })
    }

    /// The file that is read again.
    pub(super) fn file(&self) -> Option<&Path> {
        self.file.as_ref().map(|file| file.path.as_path())
    }

    /// Where the variables come from, for messages.
    pub(super) fn place(&self) -> String {
        match &self.file {
            None => "the environment".to_owned(),
            Some(file) => format!("the environment with {}", file.path.display()),
        }
    }

    /// A variable that is set and not empty.
    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        let mut found = self.variables().filter(|(known, value)| *known == name && !value.is_empty());
        found.next().map(|(_, value)| value)
    }

    pub(super) fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        self.variables.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    pub(super) fn secrets(&self) -> Secrets {
        let secret = |(name, value): (&str, &str)| {
            let upper = name.to_ascii_uppercase();
            let hidden = ["SECRET", "TOKEN", "CUSTOMER_KEY"].iter().any(|part| upper.contains(part));
            (hidden && !upper.ends_with("_FILE") && value.len() >= SECRET_BYTES_MIN).then(|| value.to_owned())
        };
        Secrets(Arc::new(RwLock::new(self.variables().filter_map(secret).collect())))
    }
}

impl fmt::Debug for AwsEnvironment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.variables().map(|(name, _)| name)).finish()
    }
}

/// Values that no message may contain. Clones share what they learn.
#[derive(Clone, Default)]
pub(super) struct Secrets(Arc<RwLock<Vec<String>>>);

/// Shorter values are no credentials.
const SECRET_BYTES_MIN: usize = 8;
/// Of keys that rotate, so many are remembered; older ones are in no answer any more.
const REMEMBERED_MAX: usize = 64;

impl Secrets {
    /// The text with every secret replaced.
    pub(super) fn hide(&self, text: &str) -> String {
        let known = self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        known.iter().fold(text.to_owned(), |text, secret| text.replace(secret, "[hidden]"))
    }

    /// Adds one.
    pub(super) fn learn(&self, secret: &str) {
        let mut known = self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        // Shorter values are no credentials, and hiding them would garble every message.
        if secret.len() < SECRET_BYTES_MIN || known.iter().any(|known| known == secret) {
            return;
        }
        if known.len() >= REMEMBERED_MAX {
            known.remove(0);
        }
        known.push(secret.to_owned());
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(hidden)")
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
