//! One repository of objects: S3 or a directory behind the same few operations (DESIGN 3).
//!
//! Invariants:
//! - [`StoreError::Absent`] is returned only if the repository itself said that this object is
//!   not there. A missing bucket, an unmounted disk, a proxy's 404, a time-out are other errors.
//! - [`Created::Stored`] and [`Upload::finish`] mean durable: S3 confirmed a request that carried
//!   checksums; in a directory the file and every directory above it were synced. They mean locked
//!   as well, where [`StoreOptions::lock`] asks for that.
//! - Nothing is overwritten: objects are created "only if absent", uploads look before they write.
//! - Of what S3 promises only that is relied on which the server was seen to keep
//!   ([`Guarantees`]); the rest is looked up, read back and set afterwards.
//! - Locks are only made longer, and nothing asks to bypass one.
//! - Bounded: no read is larger than its caller allows, no request waits without a limit.
//! - No credential appears in `Debug`, `Display`, an error or a log line.
//!
//! What the bytes mean is not known here: names come from [`ObjectKey`], proofs from the frame.

mod options;
mod credentials;
mod secrets;

mod guarantees;

mod absence;
mod backend;
mod bucket;
mod create;
mod list;
mod opened;
mod read;
mod relock;
mod sameness;
mod upload;
mod versions;

mod directory;
mod http;
mod patient;
mod s3;
mod signing;

mod s3_lock;
mod s3_pages;
mod s3_requests;
mod stored_at;

mod error;
mod judge;
mod s3_answer;

mod trial;
mod tries;

pub mod fault;

#[cfg(test)]
mod tests;

pub use backend::Store;
pub use bucket::{BucketLock, Versioning};
pub use error::{Cause, Operation, StoreError};
pub use guarantees::Guarantees;
pub use object_store::PutPayload;
pub use opened::OpenedObject;
pub use options::{S3Options, StoreOptions};
pub use read::ObjectStream;
pub use sameness::Sameness;
pub use secrets::AwsEnvironment;
pub use trial::Flaw;
pub use tries::{TryCause, TryCounts};
pub use upload::Upload;
pub use versions::{Deletion, ObjectVersion, PendingUpload, VersionId, VersionKind};

use jiff::Timestamp;

/// How a creation ended that did not fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Created {
    /// The object is stored, durably, with exactly these bytes.
    Stored,
    /// The repository answered that the name is taken. That says nothing about the content or
    /// whose it is: it may be our own lost answer, another's object, or (after a 409) no object
    /// at all. Read the stored object and compare before saying anything to PostgreSQL.
    Exists,
}

/// What a repository knows about an object without reading it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ObjectStat {
    /// Size of the stored object.
    pub size_bytes: u64,
    /// When it was stored, by the repository's clock.
    pub modified: Timestamp,
}

/// One object of a listing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListedObject {
    /// Its name relative to the repository's URL. Not every listed object is one of wald's.
    pub name: String,
    /// Size and date.
    pub stat: ObjectStat,
}
