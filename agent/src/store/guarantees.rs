//! What a server was seen to keep of the promises that S3 makes.
//!
//! Invariant: what was not tried is not believed: [`Guarantees::none`] is where a bucket begins,
//! and everything that a guarantee would give is then looked up and read back instead.

use super::backend::{Inner, Kind, Store};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What was found out about a server by trying. A field that an older record does not have was not
/// tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Guarantees {
    /// Of many who create the same object at once exactly one succeeds.
    pub create_only: bool,
    /// A body that differs from its `x-amz-checksum-*` header is refused, whether or not it is
    /// signed: CRC-64/NVME and SHA-256, objects and parts.
    pub checksums: bool,
    /// A body that differs from its signed digest is refused.
    pub signed_payload: bool,
    /// The lock that is asked for with an object is there afterwards.
    pub lock_on_put: bool,
    /// The lock that is asked for with an upload in parts is there at its end.
    pub lock_on_upload: bool,
    /// The answer about a deleted object that is kept as a version says so
    /// (`x-amz-delete-marker`).
    pub tells_delete_markers: bool,
}

impl Guarantees {
    /// Nothing is taken for granted.
    pub const fn none() -> Self {
        Self {
            create_only: false,
            checksums: false,
            signed_payload: false,
            lock_on_put: false,
            lock_on_upload: false,
            tells_delete_markers: false,
        }
    }

    /// Everything that S3 documents. Directories have it too, as far as it concerns them.
    pub const fn all() -> Self {
        Self {
            create_only: true,
            checksums: true,
            signed_payload: true,
            lock_on_put: true,
            lock_on_upload: true,
            tells_delete_markers: true,
        }
    }
}

impl Guarantees {
    /// Whether what was stored has to be read to know that it is what was sent.
    pub(super) const fn reads_back(&self) -> bool {
        !self.checksums && !self.signed_payload
    }

    /// For people: which promise rests on what, one sentence each.
    pub fn explain(&self) -> Vec<String> {
        self.promises().into_iter().map(|(_, sentence)| sentence.to_owned()).collect()
    }

    /// The same, of the promises that wald itself has to see to.
    pub fn explain_missing(&self) -> Vec<String> {
        let missing = self.promises().into_iter().filter(|(kept, _)| !kept);
        missing.map(|(_, sentence)| sentence.to_owned()).collect()
    }

    /// Whether the server keeps it, and what it rests on.
    fn promises(&self) -> [(bool, &'static str); 5] {
        let promise = |kept: bool, yes: &'static str, no: &'static str| (kept, if kept { yes } else { no });
        let integrity = match (self.checksums, self.signed_payload) {
            (true, _) => (true, "stored is what was sent: the server compares checksums"),
            (false, true) => (true, "stored is what was sent: the server compares the body's signed digest"),
            (false, false) => (
                false,
                "stored is what was sent: wald reads everything back, since the server was not seen to compare",
            ),
        };
        [
            promise(
                self.create_only,
                "nothing is overwritten: the server creates only if absent, also in a race",
                "nothing is overwritten: wald looks before it writes and lists the versions afterwards, since \
                 the server was not seen to hold in a race; what is written twice at once with different \
                 contents is told, and both are kept",
            ),
            integrity,
            promise(
                self.lock_on_put,
                "objects are locked from the start: the server takes the lock with the object",
                "objects are locked when they are reported as stored: wald sets the lock where the server \
                 left it out, and reads it back",
            ),
            promise(
                self.lock_on_upload,
                "uploads in parts are locked from the start: the server takes the lock with the upload",
                "uploads in parts are locked when they are reported as stored: wald sets the lock where the \
                 server left it out, and reads it back",
            ),
            promise(
                self.tells_delete_markers,
                "a deletion is told from an absence: the server marks its answer",
                "a deletion is told from an absence: wald lists the versions of what is not there, since the \
                 server was not seen to mark its answer",
            ),
        ]
    }
}

impl Store {
    /// The same repository, trusted as far as its server was seen to deserve it. Of no effect on
    /// what is not a server.
    #[must_use]
    pub fn with_guarantees(&self, guarantees: Guarantees) -> Self {
        let Some(access) = &self.inner.access else { return self.clone() };
        let mut inner = Inner { guarantees, ..(*self.inner).clone() };
        // Reached with the same options before; should it fail, what is there does as well.
        if let Ok(connected) = access.connect(guarantees) {
            inner.objects = Arc::new(connected.objects);
            inner.kind = Kind::S3(connected.requests);
        }
        Self { inner: Arc::new(inner) }
    }

    /// The bucket's address at the server that keeps promises or not; `None` without a server.
    pub fn server(&self) -> Option<&str> {
        self.inner.access.as_deref().map(|access| access.url.as_str())
    }

    /// What is taken for granted here.
    pub fn guarantees(&self) -> Guarantees {
        self.inner.guarantees
    }
}

impl Default for Guarantees {
    fn default() -> Self {
        Self::none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_older_record_does_not_have_was_not_tried() {
        let read: Guarantees = serde_json::from_str("{\"create_only\": true}").unwrap();
        assert_eq!(read, Guarantees { create_only: true, ..Guarantees::none() });
        let all = serde_json::to_string(&Guarantees::all()).unwrap();
        assert_eq!(serde_json::from_str::<Guarantees>(&all).unwrap(), Guarantees::all());
    }

    #[test]
    fn every_promise_is_explained_and_only_the_missing_are_called_so() {
        assert_eq!(Guarantees::all().explain_missing(), Vec::<String>::new());
        assert_eq!(Guarantees::none().explain_missing(), Guarantees::none().explain());
        assert_eq!(Guarantees::all().explain().len(), Guarantees::none().explain().len());
        let signed = Guarantees { signed_payload: true, ..Guarantees::none() };
        assert!(!signed.reads_back() && signed.explain_missing().len() == 4);
    }
}
