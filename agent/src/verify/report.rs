//! What a run has to say, as JSON and for a person.
//!
//! The JSON is stable: fields are added, never renamed; sizes are bytes, times are RFC 3339.

use jiff::Timestamp;
use serde::Serialize;
use std::fmt;
use wald_core::ledger::{Amount, Depth, Finding, Postponed};
use wald_core::lost_targets::LostTargets;
use wald_core::quantity::{Bytes, Count};
use wald_core::target::print_second;

/// The version of the JSON.
pub(super) const REPORT_FORMAT: u32 = 1;

/// How a run ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Everything that was planned was read, and nothing is wrong.
    Clean,
    /// Something is wrong.
    Findings,
    /// Not everything that was planned could be done.
    Incomplete,
}

/// What a run found.
#[derive(Clone, Debug, Serialize)]
pub struct VerifyReport {
    /// The version of these fields.
    pub format: u32,
    /// The repository's URL, without credentials.
    pub repository: String,
    /// How it ended.
    pub verdict: Verdict,
    /// When it began.
    pub begun: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    /// How thoroughly.
    pub depth: Depth,
    /// Whether everything was to be read.
    pub full: bool,
    /// Objects that were listed.
    pub objects: u64,
    /// Those of them that content can be proven of.
    pub provable_objects: u64,
    /// Objects that were chosen to be read because they are new, by their number.
    pub new_objects: u64,
    /// Because something is wrong with them.
    pub suspect_objects: u64,
    /// Because their turn has come.
    pub due_objects: u64,
    /// What was read.
    pub read: Amount,
    /// Stored bytes read and proven per second.
    pub stored_bytes_per_second: Option<u64>,
    /// Requests for locks.
    pub locks_asked: u64,
    /// What should have been read and did not fit under `verify.max_bytes`.
    pub postponed: Postponed,
    /// When the object that was not proven for longest was: older than that is nothing.
    pub oldest_proof: Option<Timestamp>,
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// Which targets all of it costs together.
    pub lost_targets: Vec<LostTargets>,
    /// Objects that were to be read and could not be.
    pub unread: Vec<Unread>,
    /// What an operator may want to know.
    pub notes: Vec<String>,
    /// The object that holds all of this; none: it could not be stored.
    pub ledger: Option<String>,
}

/// An object that could not be read.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Unread {
    /// Its name.
    pub object: String,
    /// Why.
    pub problem: String,
}

impl VerifyReport {
    /// 0: clean; 1: findings; 2: it could not be carried out.
    pub fn exit_code(&self) -> u8 {
        match self.verdict {
            Verdict::Clean => 0,
            Verdict::Findings => 1,
            Verdict::Incomplete => 2,
        }
    }
}

impl VerifyReport {
    /// One line for status and metrics.
    pub fn summary(&self) -> String {
        let count = |number: usize, noun| Count(u64::try_from(number).unwrap_or(u64::MAX), noun);
        let read =
            format!("{} with {} read", Count(self.read.objects, "object"), Bytes(self.read.stored_bytes));
        let first =
            self.findings.first().map(|finding| format!(", first {}: {}", finding.object, finding.damage));
        match self.verdict {
            Verdict::Clean => format!("clean; {read}"),
            Verdict::Findings => {
                format!("{}{}; {read}", count(self.findings.len(), "finding"), first.unwrap_or_default())
            }
            Verdict::Incomplete => format!(
                "incomplete, {} not read{}; {} so far{}; {read}",
                count(self.unread.len(), "object"),
                match self.postponed.overdue {
                    0 => String::new(),
                    overdue => format!(", {} overdue under verify.max_bytes", Count(overdue, "object")),
                },
                count(self.findings.len(), "finding"),
                first.unwrap_or_default(),
            ),
        }
    }
}

impl fmt::Display for VerifyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            print_finding(f, finding)?;
        }
        if self.findings.len() > 1 && !self.lost_targets.is_empty() {
            writeln!(f, "lost by all of it together:")?;
            self.lost_targets.iter().try_for_each(|lost| print_lost(f, lost))?;
        }
        let unknown = self.findings.iter().filter(|finding| finding.lost.is_none()).count();
        if unknown > 0 {
            let count = Count(u64::try_from(unknown).unwrap_or(u64::MAX), "finding");
            writeln!(f, "what {count} may cost was not worked out, so more may be lost than is said here")?;
        }
        for Unread { object, problem } in &self.unread {
            writeln!(f, "NOT READ {object}: {problem}")?;
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        if self.postponed.objects > 0 {
            writeln!(
                f,
                "note: {} with {} did not fit under verify.max_bytes and will not have been read again in time",
                Count(self.postponed.objects, "object"),
                Bytes(self.postponed.stored_bytes),
            )?;
        }
        self.print_end(f)
    }
}

impl VerifyReport {
    fn print_end(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let read = self.read;
        let rate =
            self.stored_bytes_per_second.map(|rate| format!(" at {}/s", Bytes(rate))).unwrap_or_default();
        writeln!(
            f,
            "{} listed, {} with {} read{rate} ({} new, {} suspect, {} whose turn it was), depth {}",
            Count(self.objects, "object"),
            Count(read.objects, "object"),
            Bytes(read.stored_bytes),
            self.new_objects,
            self.suspect_objects,
            self.due_objects,
            self.depth,
        )?;
        if let Some(ledger) = &self.ledger {
            writeln!(f, "ledger {ledger}")?;
        }
        match self.verdict {
            Verdict::Clean => writeln!(f, "clean: nothing is wrong"),
            Verdict::Findings => {
                let count = u64::try_from(self.findings.len()).unwrap_or(u64::MAX);
                writeln!(f, "{}: see above and the README", Count(count, "finding"))
            }
            Verdict::Incomplete => writeln!(
                f,
                "INCOMPLETE: not everything that was planned could be read; this says nothing good of the rest"
            ),
        }
    }
}

fn print_finding(f: &mut fmt::Formatter<'_>, finding: &Finding) -> fmt::Result {
    let version = finding.version.as_ref().map(|version| format!(" (version {version})")).unwrap_or_default();
    writeln!(f, "FINDING {}{version}: {}", finding.object, finding.damage)?;
    match finding.last_good {
        Some(time) => writeln!(f, "  last verified good {}", print_second(time))?,
        None => writeln!(f, "  never verified before")?,
    }
    match &finding.lost {
        _ if !finding.damage.is_loss() => {}
        None => writeln!(f, "  which recovery targets it costs was not worked out")?,
        Some(lost) if lost.is_empty() => writeln!(f, "  no recovery target is lost by it alone")?,
        Some(lost) => lost.iter().try_for_each(|lost| print_lost(f, lost))?,
    }
    writeln!(f, "  {}", finding.damage.advice())
}

fn print_lost(f: &mut fmt::Formatter<'_>, lost: &LostTargets) -> fmt::Result {
    writeln!(
        f,
        "  lost targets: {} to {}, LSN {} to {}, timeline {}",
        print_second(lost.from_time),
        print_second(lost.until_time),
        lost.from_lsn,
        lost.until_lsn,
        lost.timeline,
    )
}
