//! Proves a history or a backup's label, which stand in the repository as PostgreSQL wrote them, by the
//! proof beside them.

use super::event::Event;
use super::lanes::{GivenUp, Shared};
use crate::explain;
use std::io::{self, Read};
use wald_core::history::TimelineHistory;
use wald_core::ledger::Damage;
use wald_core::object_key::ObjectKey;
use wald_core::wal_file::WalFile;

/// Both are small; a longer object is none of them, and only hashed.
const KEPT_BYTES_MAX: u64 = 1 << 20;

impl Shared {
    pub(super) fn bare(&self, file: WalFile) -> Result<(), GivenUp> {
        let (key, proof_key) = (ObjectKey::wal(file), ObjectKey::wal_proof(file));
        let Some(object) = self.read(&key, |object| start_of(object))? else { return Ok(()) };
        let Some(proof) = self.read(&proof_key, |object| start_of(object))? else {
            self.tell(Event::Blocked { object: key.as_str().into() });
            return Ok(());
        };
        let expected = format!("{}  {file}\n", object.hash.to_hex());
        if proof.value.as_deref().ok() != Some(expected.as_bytes()) {
            let problem =
                format!("its BLAKE3 is {}, and its proof {proof_key} says otherwise", object.hash.to_hex());
            self.found(&key, Damage::Content { problem });
            return Ok(());
        }
        self.proven(&proof_key, self.depth);
        match understood(file, &object.value.unwrap_or_default()) {
            Ok(()) => self.proven(&key, self.depth),
            Err(problem) => self.found(&key, Damage::Content { problem }),
        }
        Ok(())
    }
}

fn start_of(object: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut start = Vec::new();
    object.take(KEPT_BYTES_MAX).read_to_end(&mut start).map(|_| start)
}

/// Whether PostgreSQL would understand it.
fn understood(file: WalFile, content: &[u8]) -> Result<(), String> {
    match file {
        WalFile::History(timeline) => {
            TimelineHistory::parse(timeline, content).map(|_| ()).map_err(|error| explain::chain(&error))
        }
        WalFile::BackupLabel(..) => {
            std::str::from_utf8(content).map_err(|_| "it is not text".to_owned()).map(|_| ())
        }
        WalFile::Segment(_) | WalFile::Partial(_) => Ok(()),
    }
}
