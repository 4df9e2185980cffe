//! When the old primary counts as fenced.
//!
//! Invariant: a server that answers and takes writes is never fenced, whatever a hook said and
//! whatever is forced. Silence alone is no proof, because a network that is cut looks the same: it
//! counts with a hook that proved more, or together with an archive that has heard nothing either. And it
//! counts only if it lasts: a server that hangs for a moment is silent, too.

use super::OldPrimary;
use serde::{Deserialize, Serialize};

/// What came of connecting to the old primary.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Nothing listens there, or nothing came back.
    None {
        /// What the system said.
        reason: String,
    },
    /// It is in recovery: a standby, which takes no writes.
    InRecovery,
    /// New sessions are read-only by default.
    ReadOnly,
    /// It takes writes.
    Writable,
    /// It is the server that is to be promoted: the address leads here.
    Itself,
    /// Something answers, and it can't be told what it would do.
    Unclear {
        /// What it said.
        reason: String,
    },
}

/// What speaks for the fence beside the server's own answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// The fence's hook ended with exit code 0 in this promotion.
    HookSucceeded,
    /// There is no hook, and the archive has heard nothing for long enough.
    ArchiveSilent,
    /// The operator said so, with `--force old-primary-silent`.
    Forced,
    /// Nothing.
    Nothing,
}

/// So many looks in a row must go unanswered.
const SILENT_LOOKS: u32 = 3;

/// Looks at the old primary, one after the other.
#[derive(Clone, Copy, Default, Debug)]
pub struct Looks {
    silent: u32,
}

impl Looks {
    /// Whether it is proven fenced with this answer; `None`: look again; else what is missing.
    pub fn proven(&mut self, answer: &Answer, evidence: Evidence) -> Result<Option<&'static str>, String> {
        let is_silent = matches!(answer, Answer::None { .. });
        self.silent = if is_silent { self.silent.saturating_add(1) } else { 0 };
        let how = proven(answer, evidence)?;
        Ok((!is_silent || self.silent >= SILENT_LOOKS).then_some(how))
    }
}

/// How the old primary counts, by its answer alone: what is looked at between the steps.
pub fn quiet(answer: &Answer, evidence: Evidence) -> OldPrimary {
    match answer {
        Answer::None { .. } | Answer::InRecovery => OldPrimary::Quiet,
        // A session may take the default back, so this counts only where the hook meant it so.
        Answer::ReadOnly if evidence == Evidence::HookSucceeded => OldPrimary::Quiet,
        Answer::ReadOnly | Answer::Writable | Answer::Itself | Answer::Unclear { .. } => OldPrimary::MayWrite,
    }
}

/// Whether it is proven fenced; else what is missing.
pub fn proven(answer: &Answer, evidence: Evidence) -> Result<&'static str, String> {
    match (answer, evidence) {
        (Answer::InRecovery, _) => Ok("it is in recovery"),
        (Answer::None { .. }, Evidence::HookSucceeded) => Ok("the hook succeeded, and it does not answer"),
        (Answer::None { .. }, Evidence::ArchiveSilent) => {
            Ok("it does not answer, and its last archived segment is old")
        }
        (Answer::None { .. }, Evidence::Forced) => Ok("it does not answer, and that was forced to be enough"),
        (Answer::None { reason }, Evidence::Nothing) => Err(format!(
            "it does not answer ({reason}), which a cut network would look like too: configure fence_command, or \
             wait until its last archived segment is older than fence_silence"
        )),
        (Answer::ReadOnly, Evidence::HookSucceeded) => {
            Ok("the hook succeeded, and new sessions are read-only (which a session can take back)")
        }
        (Answer::ReadOnly, _) => {
            Err("it is read-only by default only, which any session can take back: configure fence_command"
                .to_owned())
        }
        (Answer::Writable, Evidence::HookSucceeded) => {
            Err("the hook said that it is fenced, and it still takes writes".to_owned())
        }
        (Answer::Writable, _) => {
            Err("it answers and takes writes: stop it, or configure fence_command".to_owned())
        }
        (Answer::Itself, _) => {
            Err("promotion.primary leads to this server itself, so that the old primary can't be \
                                    looked at: name the old primary's own address there"
                .to_owned())
        }
        (Answer::Unclear { reason }, _) => Err(format!("something answers at its address: {reason}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers() -> [Answer; 6] {
        let reason = String::new();
        [
            Answer::None { reason: reason.clone() },
            Answer::InRecovery,
            Answer::ReadOnly,
            Answer::Writable,
            Answer::Itself,
            Answer::Unclear { reason },
        ]
    }

    const EVIDENCE: [Evidence; 4] =
        [Evidence::HookSucceeded, Evidence::ArchiveSilent, Evidence::Forced, Evidence::Nothing];

    #[test]
    fn nothing_proves_a_server_fenced_that_takes_writes() {
        for evidence in EVIDENCE {
            assert!(proven(&Answer::Writable, evidence).is_err());
            assert!(proven(&Answer::Itself, evidence).is_err());
            assert!(proven(&Answer::Unclear { reason: String::new() }, evidence).is_err());
            assert_eq!(quiet(&Answer::Writable, evidence), OldPrimary::MayWrite);
        }
    }

    #[test]
    fn silence_needs_a_second_witness() {
        let silent = Answer::None { reason: "connection refused".to_owned() };
        assert!(proven(&silent, Evidence::Nothing).unwrap_err().contains("connection refused"));
        for evidence in [Evidence::HookSucceeded, Evidence::ArchiveSilent, Evidence::Forced] {
            assert!(proven(&silent, evidence).is_ok());
        }
    }

    #[test]
    fn a_server_that_hung_for_a_moment_is_not_fenced() {
        let silent = Answer::None { reason: "no answer within 2s".to_owned() };
        for evidence in [Evidence::HookSucceeded, Evidence::ArchiveSilent, Evidence::Forced] {
            let mut looks = Looks::default();
            let mut look = |answer: &Answer| looks.proven(answer, evidence).map(|how| how.is_some());
            assert_eq!([look(&silent), look(&silent)], [Ok(false), Ok(false)]);
            assert!(look(&Answer::Writable).is_err());
            assert_eq!([look(&silent), look(&silent), look(&silent)], [Ok(false), Ok(false), Ok(true)]);
            assert_eq!(look(&Answer::InRecovery), Ok(true));
        }
        assert!(Looks::default().proven(&silent, Evidence::Nothing).is_err());
    }

    #[test]
    fn what_is_proven_fenced_is_quiet_afterwards_too() {
        for answer in answers() {
            for evidence in EVIDENCE {
                if proven(&answer, evidence).is_ok() {
                    assert_eq!(quiet(&answer, evidence), OldPrimary::Quiet, "{answer:?} {evidence:?}");
                }
            }
        }
    }
}
