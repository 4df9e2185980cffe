//! What `wald repo check` found, as a value and as lines of text.

use crate::explain::chain;
use crate::store::{Guarantees, StoreError};
use serde::Serialize;
use serde::ser::SerializeStruct;
use std::fmt;

/// How a step ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As wald needs it.
    Good,
    /// Usable, but something is worth knowing.
    Note,
    /// A promise of wald's would not hold.
    Bad,
}

/// One thing that was tried.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Finding {
    /// How it ended.
    pub verdict: Verdict,
    /// What was found and, if it is bad, what to do; one sentence without a full stop.
    pub text: String,
}

/// What `wald repo check` found, in the order in which it was tried. Printed as lines of text, or
/// as JSON, which is stable: fields are added, never renamed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CheckReport {
    place: String,
    findings: Vec<Finding>,
    /// What the server was seen to keep; absent where nothing could be tried.
    pub(super) guarantees: Option<Guarantees>,
}

impl CheckReport {
    pub(super) fn new(place: &str) -> Self {
        Self { place: place.to_owned(), findings: Vec::new(), guarantees: None }
    }

    /// Whether the repository can be relied on.
    pub fn is_good(&self) -> bool {
        self.findings.iter().all(|finding| finding.verdict != Verdict::Bad)
    }

    /// Everything that was tried.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    pub(super) fn add(&mut self, verdict: Verdict, text: impl Into<String>) {
        self.findings.push(Finding { verdict, text: text.into() });
    }

    /// What the server was seen to keep; none where nothing could be tried.
    pub fn guarantees(&self) -> Option<Guarantees> {
        self.guarantees
    }

    /// Something that these keys may not do, and that they need not.
    pub(super) fn unknown(&mut self, what: &str, error: &StoreError) {
        self.add(Verdict::Note, format!("{what}: {}", chain(error)));
    }

    pub(super) fn failed(&mut self, what: &str, error: &StoreError) {
        self.add(Verdict::Bad, format!("{what}: {}", chain(error)));
    }
}

impl Serialize for CheckReport {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("CheckReport", 4)?;
        fields.serialize_field("repository", &self.place)?;
        fields.serialize_field("good", &self.is_good())?;
        fields.serialize_field("findings", &self.findings)?;
        fields.serialize_field("guarantees", &self.guarantees)?;
        fields.end()
    }
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.place)?;
        for finding in &self.findings {
            let mark = match finding.verdict {
                Verdict::Good => "good",
                Verdict::Note => "note",
                Verdict::Bad => "BAD ",
            };
            writeln!(f, "  {mark}  {}", finding.text)?;
        }
        let conclusion = if self.is_good() {
            "The repository does what wald needs."
        } else {
            "Don't rely on this repository before what is marked BAD is put right."
        };
        f.write_str(conclusion)
    }
}
