//! Credentials as they pass through: taken from the environment, handed to object_store, and
//! kept only to be recognised where they must not appear.
//!
//! Invariants: neither `Debug` nor `Display` of anything here shows a value; the id of a key, its
//! secret and its token are of one source; what a service manager has copied from the file into the
//! process is the file's, and changes with it.

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
    /// again when it changes: in the format of systemd's `EnvironmentFile`, `NAME=VALUE` lines with
    /// values quoted or not. `Err` is the number of the first line that is none of that; names other
    /// than `AWS_…` are passed over.
    ///
    /// What this environment has goes before the file, unless it is the file's own: a service that
    /// was started with `EnvironmentFile=` has a copy, which must not outlive a rotation.
    pub fn with_file_at(self, path: &Path, text: &str) -> Result<Self, usize> {
        let in_file = variables_in(text)?;
        let before = without_copies(self.variables, &in_file);
        let variables = merged(before.clone(), in_file);
        Ok(Self { variables, file: Some(EnvironmentFile { path: path.to_owned(), before }) })
    }

    /// The environment as it is now: its file may have changed.
    pub(super) fn read_again(self) -> Result<Self, CredentialsError> {
        let Some(file) = self.file else { return Ok(self) };
        let path = &file.path;
        let text = std::fs::read_to_string(path).map_err(|source| CredentialsError::Read {
            path: path.clone(),
            why: "repository.environment_file names it",
            source,
        })?;
        let in_file = variables_in(&text).map_err(|line| CredentialsError::Syntax {
            path: path.clone(),
            problem: format!("line {line}: expected NAME=VALUE"),
        })?;
        Ok(Self { variables: merged(file.before.clone(), in_file), file: Some(file) })
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

/// What belongs together: a token is worth nothing with another key.
const KEY_NAMES: [&str; 3] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];

type Variables = Vec<(String, String)>;

fn value_of<'v>(variables: &'v Variables, name: &str) -> Option<&'v str> {
    variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

/// The `AWS_…` variables of a file's text; of a name that is there twice the last, as for systemd.
fn variables_in(text: &str) -> Result<Variables, usize> {
    let mut found = Variables::new();
    for (index, line) in text.lines().map(str::trim).enumerate() {
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        let (name, value) = line.split_once('=').ok_or(index + 1)?;
        let quoted = |quote: char| value.strip_prefix(quote)?.strip_suffix(quote);
        let value = quoted('"').or_else(|| quoted('\'')).unwrap_or(value);
        if name.starts_with("AWS_") {
            found.retain(|(known, _)| known != name);
            found.push((name.to_owned(), value.to_owned()));
        }
    }
    Ok(found)
}

/// The process's variables without those that are copies of the file's. A key is a copy if all of
/// it is the same.
fn without_copies(mut process: Variables, in_file: &Variables) -> Variables {
    let has_key = value_of(in_file, KEY_NAMES[0]).is_some();
    let same_key = KEY_NAMES.iter().all(|name| value_of(&process, name) == value_of(in_file, name));
    process.retain(|(name, value)| {
        let of_key = has_key && KEY_NAMES.contains(&name.as_str());
        let copied = if of_key { same_key } else { value_of(in_file, name) == Some(value) };
        !copied
    });
    process
}

/// Both; the process's own goes first, and a key is taken from one of them.
fn merged(mut process: Variables, mut in_file: Variables) -> Variables {
    if value_of(&in_file, KEY_NAMES[0]).is_some() {
        let is_of_key = |name: &str| KEY_NAMES.contains(&name);
        let has_its_own = KEY_NAMES.iter().take(2).any(|name| value_of(&process, name).is_some());
        let loses = if has_its_own { &mut in_file } else { &mut process };
        loses.retain(|(name, _)| !is_of_key(name));
    }
    in_file.retain(|(name, _)| value_of(&process, name).is_none());
    process.extend(in_file);
    process
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

    const FILE: &str = "AWS_ACCESS_KEY_ID=old\nAWS_SECRET_ACCESS_KEY=\"s3cr3t-old\"\nAWS_REGION=here\n";
    const ROTATED: &str = "AWS_ACCESS_KEY_ID=new\nAWS_SECRET_ACCESS_KEY=s3cr3t-new\nAWS_SESSION_TOKEN=t0ken\nAWS_REGION=there\n";

    fn old_keys() -> AwsEnvironment {
        AwsEnvironment::with_key_pair("old", "s3cr3t-old")
    }

    /// Id, secret, token and region, as they are after the file was rotated.
    fn after_rotation(process: AwsEnvironment) -> [Option<String>; 4] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("environment");
        std::fs::write(&path, ROTATED).unwrap();
        let now = process.with_file_at(&path, FILE).unwrap().read_again().unwrap();
        let [id, secret, token] = KEY_NAMES.map(|name| now.variable(name).map(str::to_owned));
        [id, secret, token, now.variable("AWS_REGION").map(str::to_owned)]
    }

    fn texts(texts: [&str; 4]) -> [Option<String>; 4] {
        texts.map(|text| Some(text.to_owned()).filter(|text| !text.is_empty()))
    }

    #[test]
    fn keys_that_systemd_has_copied_from_the_file_are_rotated_with_it() {
        let rotated = texts(["new", "s3cr3t-new", "t0ken", "there"]);
        assert_eq!(after_rotation(AwsEnvironment::default()), rotated);
        assert_eq!(after_rotation(old_keys().with("AWS_REGION", "here")), rotated);
    }

    #[test]
    fn a_key_of_the_process_itself_goes_before_the_file_and_gets_no_token_from_there() {
        let own = AwsEnvironment::with_key_pair("own", "s3cr3t-own").with("AWS_REGION", "own");
        assert_eq!(after_rotation(own), texts(["own", "s3cr3t-own", "", "own"]));
        let same_id = AwsEnvironment::with_key_pair("old", "s3cr3t-own");
        assert_eq!(after_rotation(same_id), texts(["old", "s3cr3t-own", "", "there"]));
        let leftover = AwsEnvironment::default().with("AWS_SESSION_TOKEN", "of-another-key");
        assert_eq!(after_rotation(leftover), texts(["new", "s3cr3t-new", "t0ken", "there"]));
    }

    #[test]
    fn a_file_adds_what_the_environment_does_not_have_and_shows_no_value() {
        let text = "# keys\nAWS_SECRET_ACCESS_KEY=\"s3cr3t-value\"\nAWS_REGION=x\nPATH=/x\n\n";
        let process = AwsEnvironment::default().with("AWS_ACCESS_KEY_ID", "process");
        let environment = process.with_file_at(Path::new("/x"), text).unwrap();
        let variables: Vec<_> = environment.variables().collect();
        let expected = [
            ("AWS_ACCESS_KEY_ID", "process"),
            ("AWS_SECRET_ACCESS_KEY", "s3cr3t-value"),
            ("AWS_REGION", "x"),
        ];
        assert_eq!(variables, expected);
        assert!(!format!("{environment:?}").contains("s3cr3t"));
        let broken = AwsEnvironment::default().with_file_at(Path::new("/x"), "A=1\nnonsense");
        assert_eq!(broken.unwrap_err(), 2);
    }
}
