//! Shared profiles: `~/.aws/config` and `~/.aws/credentials`, or the files that
//! `AWS_CONFIG_FILE` and `AWS_SHARED_CREDENTIALS_FILE` name.
//!
//! The format is <https://docs.aws.amazon.com/sdkref/latest/guide/file-format.html>: sections
//! `[name]` in the credentials file, `[profile name]` and `[default]` in the other; where both have
//! a key, the credentials file's counts. Settings that are indented below another are passed over.
//!
//! Invariant: no value but the name of a profile is repeated in an error.

use super::{Choice, CredentialsError, Loaded, pair};
use crate::store::secrets::AwsEnvironment;
use configparser::ini::{Ini, IniDefault};
use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Where the profiles are. Not every file need exist.
#[derive(Clone, Debug)]
pub(super) struct ProfileFiles {
    config: Place,
    credentials: Place,
}

#[derive(Clone, Debug)]
struct Place {
    path: PathBuf,
    /// Whether a variable names it: then it must be there.
    named: bool,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Config,
    Credentials,
}

/// What both files say about one name.
#[derive(Clone)]
pub(super) struct Profile {
    pub(super) name: String,
    /// For messages.
    files: String,
    settings: HashMap<String, Option<String>>,
}

/// Where nobody is at home there is no file either.
const NO_HOME: &str = "/nonexistent";

impl ProfileFiles {
    /// The files that an environment names, else those in the home directory.
    pub(super) fn named_by(environment: &AwsEnvironment) -> Self {
        let home = std::env::home_dir().unwrap_or_else(|| PathBuf::from(NO_HOME));
        let place = |variable, usual: &str, kind| match environment.variable(variable) {
            None => Place { path: home.join(usual), named: false, kind },
            Some(path) => {
                let path =
                    path.strip_prefix("~/").map_or_else(|| PathBuf::from(path), |rest| home.join(rest));
                Place { path, named: true, kind }
            }
        };
        Self {
            config: place("AWS_CONFIG_FILE", ".aws/config", Kind::Config),
            credentials: place("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials", Kind::Credentials),
        }
    }

    pub(super) fn paths(&self) -> [&Path; 2] {
        [&self.config.path, &self.credentials.path]
    }

    fn describe(&self) -> String {
        format!("{} and {}", self.credentials.path.display(), self.config.path.display())
    }

    /// A profile that must be there.
    pub(super) fn named(&self, name: &str) -> Result<Profile, CredentialsError> {
        let missing = || CredentialsError::NoProfile { name: name.to_owned(), files: self.describe() };
        self.find(name, Wanted::ByName)?.ok_or_else(missing)
    }

    /// The profile that is used where nobody names one.
    pub(super) fn default_profile(&self) -> Result<Option<Profile>, CredentialsError> {
        let found = self.find("default", Wanted::IfThere)?;
        // It often holds a region and nothing else.
        Ok(found.filter(Profile::is_about_credentials))
    }

    fn find(&self, name: &str, wanted: Wanted) -> Result<Option<Profile>, CredentialsError> {
        let mut settings = HashMap::new();
        let mut files = Vec::new();
        for place in [&self.config, &self.credentials] {
            if let Some(found) = place.section(name, wanted)? {
                files.push(place.path.display().to_string());
                settings.extend(found);
            }
        }
        let profile = || Profile { name: name.to_owned(), files: files.join(" and "), settings };
        Ok((!files.is_empty()).then(profile))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    ByName,
    IfThere,
}

impl Place {
    fn section(
        &self,
        name: &str,
        wanted: Wanted,
    ) -> Result<Option<HashMap<String, Option<String>>>, CredentialsError> {
        let text = match std::fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound && !self.named => return Ok(None),
            // HOME may be another user's, who has profiles of no concern to wald.
            Err(_) if !self.named && wanted == Wanted::IfThere => return Ok(None),
            Err(source) => {
                let why = match (self.named, self.kind) {
                    (true, Kind::Config) => "AWS_CONFIG_FILE names it",
                    (true, Kind::Credentials) => "AWS_SHARED_CREDENTIALS_FILE names it",
                    (false, _) => "AWS_PROFILE asks for a profile",
                };
                return Err(CredentialsError::Read { path: self.path.clone(), why, source });
            }
        };
        let sections = self.parse(text)?;
        let is_named = |title: &str| match (self.kind, title.split_once([' ', '\t'])) {
            (Kind::Config, Some(("profile", rest))) => rest.trim().trim_matches('"') == name,
            (Kind::Config, _) => title == "default" && name == "default",
            (Kind::Credentials, _) => title == name,
        };
        Ok(sections.into_iter().find(|(title, _)| is_named(title)).map(|(_, settings)| settings))
    }

    fn parse(
        &self,
        text: String,
    ) -> Result<HashMap<String, HashMap<String, Option<String>>>, CredentialsError> {
        let syntax = |problem| CredentialsError::Syntax { path: self.path.clone(), problem };
        let mut format = IniDefault::default();
        // What stands before the first section belongs to none: an empty title is nobody's.
        format.default_section = String::new();
        format.delimiters = vec!['='];
        format.case_sensitive = true;
        format.multiline = true;
        // A secret may hold any of these.
        format.enable_inline_comments = false;
        let sections = Ini::new_from_defaults(format).read(text.clone()).map_err(syntax)?;
        for (title, settings) in &sections {
            if let Some((key, _)) = settings.iter().find(|(_, value)| value.is_none()) {
                let line = text.lines().position(|line| line.trim() == key).map_or(0, |index| index + 1);
                let problem = format!("line {line}: expected NAME = VALUE in the section [{title}]");
                return Err(syntax(problem));
            }
        }
        let lower = |(key, value): (String, Option<String>)| (key.to_ascii_lowercase(), value);
        let sections = sections.into_iter();
        Ok(sections.map(|(title, settings)| (title, settings.into_iter().map(lower).collect())).collect())
    }
}

impl Profile {
    fn setting(&self, name: &str) -> Option<&str> {
        let value = self.settings.get(name)?.as_deref()?;
        Some(value).filter(|value| !value.is_empty())
    }

    /// A value without the comment that may follow it after a space.
    fn word(&self, name: &str) -> Option<&str> {
        let value = self.setting(name)?;
        let end = [" #", " ;", "\t#", "\t;", "\n"].iter().filter_map(|mark| value.find(mark)).min();
        end.map_or(Some(value), |end| value.get(..end)).map(str::trim)
    }

    fn is_about_credentials(&self) -> bool {
        let any = ["aws_access_key_id", "aws_secret_access_key", "credential_process", "role_arn"];
        any.iter().any(|name| self.setting(name).is_some()) || self.uses_sso()
    }

    fn uses_sso(&self) -> bool {
        ["sso_session", "sso_start_url"].iter().any(|name| self.setting(name).is_some())
    }

    /// An error about this profile.
    pub(super) fn problem(&self, problem: impl Into<String>) -> CredentialsError {
        let (name, files) = (self.name.clone(), self.files.clone());
        CredentialsError::Profile { name, files, problem: problem.into() }
    }

    /// What it gives: keys, or a command that prints some.
    pub(super) fn choice(self) -> Result<Choice, CredentialsError> {
        if self.setting("role_arn").is_some() {
            return Err(self.elsewhere("assumes a role (role_arn)"));
        }
        match (self.word("aws_access_key_id"), self.word("aws_secret_access_key")) {
            (Some(key_id), Some(secret)) => {
                let credential = pair(key_id, secret, self.word("aws_session_token"));
                Ok(Choice::Keys(Loaded { credential, expires: None }))
            }
            (Some(_), None) => Err(self.problem("has aws_access_key_id but not aws_secret_access_key")),
            (None, Some(_)) => Err(self.problem("has aws_secret_access_key but not aws_access_key_id")),
            (None, None) => match self.setting("credential_process").map(str::to_owned) {
                Some(command) => Ok(Choice::Process { profile: self, command }),
                None if self.uses_sso() => Err(self.elsewhere("signs in through SSO")),
                None => Err(self.problem("holds neither a key pair nor credential_process")),
            },
        }
    }

    /// What the AWS command line does better.
    fn elsewhere(&self, what: &str) -> CredentialsError {
        self.problem(format!(
            "{what}, which wald does not do itself; let AWS_PROFILE name another profile with \
             credential_process = aws configure export-credentials --profile {}",
            self.name
        ))
    }
}
