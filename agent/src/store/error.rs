//! What can go wrong with a repository, in the words that the rest of wald decides by.
//!
//! Invariants: [`StoreError::Absent`] is made only where the repository itself said that this
//! one object is not there; every doubt becomes another variant, because an absence that is
//! wrong ends a recovery early (DESIGN 1.3). No error holds a credential or the text of a
//! server's answer beyond its code and message: S3 repeats the signed headers, and with them a
//! session token, in the body of `SignatureDoesNotMatch`.

use super::secrets::Secrets;
use super::versions::VersionId;
use object_store::client::{HttpError, HttpErrorKind};
use std::error::Error;
use std::fmt;

/// What was being done to an object or to the repository.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Operation {
    /// Creating an object in one request.
    Create,
    /// Reading an object or a part of it.
    Read,
    /// Asking for an object's size and date.
    Stat,
    /// Listing objects.
    List,
    /// Uploading an object in parts.
    Upload,
    /// Removing an object.
    Delete,
    /// Making an object's lock longer.
    Lock,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Operation::Create => "create",
            Operation::Read => "read",
            Operation::Stat => "look up",
            Operation::List => "list",
            Operation::Upload => "upload",
            Operation::Delete => "delete",
            Operation::Lock => "lock",
        })
    }
}

/// Why a repository did not do what it was asked to.
///
/// `subject` is the object's key or the listed prefix, and `repository` its URL.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The repository said that it has no such object.
    #[error("{subject} is not in {repository}")]
    Absent {
        /// The object's key.
        subject: String,
        /// The repository's URL.
        repository: String,
    },
    /// The repository keeps versions, and the newest of this object is a delete marker: somebody
    /// deleted it, and its bytes are still there. Not absence: WAL that was archived is not the
    /// end of the WAL.
    #[error(
        "{subject} was deleted from {repository}; its versions are still there: remove the delete marker"
    )]
    Deleted {
        /// The object's key.
        subject: String,
        /// The repository's URL.
        repository: String,
    },
    /// No answer, a time-out, an error of the server's own, or an answer that proves nothing.
    #[error(
        "could not {operation} {subject} in {repository}: it can't be reached or is in trouble; check the network and the store, then try again"
    )]
    Unreachable {
        /// What was being done.
        operation: Operation,
        /// The object's key or the listed prefix.
        subject: String,
        /// The repository's URL.
        repository: String,
        /// What was seen.
        #[source]
        cause: Cause,
    },
    /// The repository answered, and does not accept these credentials or this user.
    #[error(
        "could not {operation} {subject} in {repository}: access was refused; check the credentials, their rights on this repository and this host's clock"
    )]
    Refused {
        /// What was being done.
        operation: Operation,
        /// The object's key or the listed prefix.
        subject: String,
        /// The repository's URL.
        repository: String,
        /// What was seen.
        #[source]
        cause: Cause,
    },
    /// The configuration names something that can't work: no such bucket, the wrong region.
    #[error("{repository} can't be used as a repository: {problem}")]
    Misconfigured {
        /// The repository's URL, as far as it could be understood.
        repository: String,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// An object is larger than what the caller can take.
    #[error("{subject} in {repository} has {size_bytes} bytes, more than the {max_bytes} that can be right")]
    TooLarge {
        /// The object's key.
        subject: String,
        /// The repository's URL.
        repository: String,
        /// The object's size.
        size_bytes: u64,
        /// The caller's limit.
        max_bytes: u64,
    },
    /// An upload was about to replace an object. Nothing was changed.
    #[error("{subject} is already in {repository}, and nothing is ever overwritten")]
    Occupied {
        /// The object's key.
        subject: String,
        /// The repository's URL.
        repository: String,
    },
    /// Somebody else wrote an object of the same name with another content, and the server let
    /// both. Both versions are kept.
    #[error(
        "{subject} is in {repository} twice with different contents, as the versions {ours} and {other}; find out who else writes there"
    )]
    Contested {
        /// The object's key.
        subject: String,
        /// The repository's URL.
        repository: String,
        /// The version with the content that was to be stored, or of two that are read the first.
        ours: VersionId,
        /// The one that differs.
        other: VersionId,
    },
    /// The repository's answer contradicts itself or what it was sent.
    #[error("could not {operation} {subject} in {repository}: its answer can't be right: {problem}")]
    BadAnswer {
        /// What was being done.
        operation: Operation,
        /// The object's key or the listed prefix.
        subject: String,
        /// The repository's URL.
        repository: String,
        /// The contradiction.
        problem: String,
    },
}

impl StoreError {
    /// Whether the repository itself said that the object is not there.
    pub const fn is_absent(&self) -> bool {
        matches!(self, StoreError::Absent { .. })
    }
}

/// What was seen below, as text without secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct Cause(String);

/// Longest text of a cause in bytes: a proxy's error page must not fill the log.
const CAUSE_BYTES_MAX: usize = 600;

impl Cause {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self(shorten(&text.into()))
    }

    /// The same with what has to be known besides.
    pub(super) fn but(&self, remark: &str) -> Self {
        Self(format!("{}; {remark}", self.0))
    }

    /// The whole chain of an error, with bodies reduced to code and message.
    pub(super) fn of(error: &(dyn Error + 'static), secrets: &Secrets) -> Self {
        Self(shorten(&secrets.hide(&without_body(&chain_text(error)))))
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cause({:?})", self.0)
    }
}

impl Error for Cause {}

/// An error's text followed by those of its sources that it does not already repeat.
fn chain_text(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        source = error.source();
    }
    text
}

/// The text between `<tag>` and `</tag>`.
pub(super) fn element<'t>(text: &'t str, tag: &str) -> Option<&'t str> {
    let (_, rest) = text.split_once(&format!("<{tag}>"))?;
    rest.split_once(&format!("</{tag}>")).map(|(inside, _)| inside)
}

/// Replaces an XML or HTML body, which ends the text of object_store's errors, by what may be
/// shown of it.
fn without_body(text: &str) -> String {
    let Some((before, body)) = text.split_once('<') else { return text.to_owned() };
    let body = format!("<{body}");
    match (element(&body, "Code"), element(&body, "Message")) {
        (Some(code), Some(message)) => format!("{before}{code}: {message}"),
        (Some(code), None) => format!("{before}{code}"),
        _ => format!("{before}a page that is not in the language of S3"),
    }
}

fn shorten(text: &str) -> String {
    let mut short = String::new();
    for character in text.trim().chars() {
        if short.len() >= CAUSE_BYTES_MAX {
            short.push_str(" ...");
            break;
        }
        short.push(if character.is_control() { ' ' } else { character });
    }
    short
}

/// The kind of an error below HTTP's answers: a refused connection, a time-out, a cut.
pub(super) fn transport_failure(error: &(dyn Error + 'static)) -> Option<HttpErrorKind> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(http) = error.downcast_ref::<HttpError>() {
            return Some(http.kind());
        }
        next = error.source();
    }
    None
}

/// The operating system's error at the bottom of a file repository's error, if it is one.
pub(super) fn io_error<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e std::io::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return Some(io);
        }
        next = error.source();
    }
    None
}
