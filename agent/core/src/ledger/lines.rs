//! A ledger as text: one JSON value per line.

use super::{Head, LEDGER_FORMAT, Object};
use serde::{Deserialize, Serialize};

/// Text that is no ledger, or not all of one.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Not JSON, or a field is missing or of another kind.
    #[error("line {line} of the ledger is damaged")]
    Malformed {
        /// Counted from 1.
        line: u64,
        /// Where the JSON is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// Written by a newer wald.
    #[error("the ledger has format {found}, and this wald reads format {LEDGER_FORMAT}: use a newer wald")]
    NewerFormat {
        /// The version found.
        found: u32,
    },
    /// Without even its first line.
    #[error("the ledger is empty")]
    Empty,
    /// Lines are missing, or there are too many.
    #[error("the ledger has {found} objects, its first line says {expected}: it is not whole")]
    Count {
        /// Lines found.
        found: u64,
        /// What the first line says.
        expected: u64,
    },
}

#[derive(Deserialize)]
struct FormatOnly {
    format: u32,
}

/// The first line, with its line feed.
pub fn head_line(head: &Head) -> String {
    line(head)
}

/// The line of an object, with its line feed.
pub fn object_line(object: &Object) -> String {
    line(object)
}

fn line(value: &impl Serialize) -> String {
    // Serializing plain structs into memory can't fail.
    let mut line = serde_json::to_string(value).unwrap_or_default();
    line.push('\n');
    line
}

/// Reads a ledger line by line. Nothing that it gives may be believed before
/// [`LedgerReader::finish`] has said that the ledger is whole.
#[derive(Debug, Default)]
pub struct LedgerReader {
    head: Option<Head>,
    objects: u64,
}

impl LedgerReader {
    /// At the beginning.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next line; gives the object that it is about, if it is not the first.
    pub fn line(&mut self, json: &[u8]) -> Result<Option<Object>, LedgerError> {
        let line = self.objects + 1;
        let Some(_) = &self.head else {
            let malformed = |source| LedgerError::Malformed { line, source };
            let format: FormatOnly = serde_json::from_slice(json).map_err(malformed)?;
            if format.format != LEDGER_FORMAT {
                return Err(LedgerError::NewerFormat { found: format.format });
            }
            self.head = Some(serde_json::from_slice(json).map_err(malformed)?);
            return Ok(None);
        };
        let malformed = |source| LedgerError::Malformed { line: line + 1, source };
        let object = serde_json::from_slice(json).map_err(malformed)?;
        self.objects += 1;
        Ok(Some(object))
    }

    /// The first line, once it was read.
    pub fn head(&self) -> Option<&Head> {
        self.head.as_ref()
    }

    /// The run, after the last line.
    pub fn finish(self) -> Result<Head, LedgerError> {
        let head = self.head.ok_or(LedgerError::Empty)?;
        if head.objects != self.objects {
            return Err(LedgerError::Count { found: self.objects, expected: head.objects });
        }
        Ok(head)
    }
}
