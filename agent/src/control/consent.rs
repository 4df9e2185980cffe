//! The yes without which nothing is changed: `--yes`, or a person at a terminal.

use std::io::{BufRead, IsTerminal, Write};

/// How the operator agrees.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Consent {
    /// `--yes` was given.
    Given,
    /// It has to be asked for.
    Ask,
}

/// Nobody agreed.
#[derive(Debug, thiserror::Error)]
pub enum ConsentError {
    /// There is no terminal to ask at.
    #[error("this {0}: nothing was changed; give --yes, or run it at a terminal")]
    NobodyToAsk(String),
    /// The answer was not yes.
    #[error("nothing was changed: the answer was not \"yes\"")]
    Refused,
}

impl Consent {
    /// From a `--yes` flag.
    pub fn from_flag(yes: bool) -> Self {
        if yes { Consent::Given } else { Consent::Ask }
    }

    /// Agrees, asks, or fails. `what` reads as in "This {what}.", such as "ends 3 sessions".
    pub fn obtain(self, what: &str) -> Result<(), ConsentError> {
        if self == Consent::Given {
            return Ok(());
        }
        let (input, mut output) = (std::io::stdin(), std::io::stderr());
        if !input.is_terminal() || !output.is_terminal() {
            return Err(ConsentError::NobodyToAsk(what.to_owned()));
        }
        let mut answer = String::new();
        let asked = write!(output, "This {what}. Type \"yes\" to go on: ").and_then(|()| output.flush());
        let heard = asked.and_then(|()| input.lock().read_line(&mut answer));
        if heard.is_ok() && answer.trim() == "yes" { Ok(()) } else { Err(ConsentError::Refused) }
    }
}
