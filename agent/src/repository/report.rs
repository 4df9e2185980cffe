//! What `wald repo check` found, as a value and as lines of text.

use crate::explain::chain;
use crate::store::StoreError;
use std::fmt;

/// How a step ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// As wald needs it.
    Good,
    /// Usable, but something is worth knowing.
    Note,
    /// A promise of wald's would not hold.
    Bad,
}

/// One thing that was tried.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// How it ended.
    pub verdict: Verdict,
    /// What was found and, if it is bad, what to do; one sentence without a full stop.
    pub text: String,
}

/// What `wald repo check` found, in the order in which it was tried. Printed as lines of text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CheckReport {
    place: String,
    findings: Vec<Finding>,
}

impl CheckReport {
    pub(super) fn new(place: &str) -> Self {
        Self { place: place.to_owned(), findings: Vec::new() }
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

    pub(super) fn failed(&mut self, what: &str, error: &StoreError) {
        self.add(Verdict::Bad, format!("{what}: {}", chain(error)));
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
