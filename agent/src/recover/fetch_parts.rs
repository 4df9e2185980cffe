//! Fetches the parts of a backup, several at a time, and has them unpacked.
//!
//! One task per part reads from the repository; one thread per part hashes, decompresses and
//! writes, behind a channel that holds a few pieces. Invariants: a part whose stored bytes do
//! not hash to what the catalog says fails the restore, and so does a listed file that is in
//! no part; memory is bounded by `jobs` times the channel; the first failure ends all workers.

use super::RecoverError;
use super::delta::Kept;
use super::progress::Progress;
use super::tree::Tree;
use super::unpack::{PartFiles, Unpacked, unpack};
use crate::store::{Store, StoreError};
use crate::stored::{ObjectReader, download};
use std::collections::{HashMap, VecDeque};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use wald_core::blake3_hex::Blake3Hex;
use wald_core::catalog::{CatalogEntry, Part};
use wald_core::file_list::FileList;
use wald_core::object_key::ObjectKey;

/// How often a part is fetched whose connection broke; the store has tried each request
/// several times by then.
const PART_ATTEMPTS_MAX: u32 = 3;

/// The parts to be fetched, with their files.
#[derive(Debug)]
pub(super) struct Need {
    parts: VecDeque<PartNeed>,
}

#[derive(Debug)]
struct PartNeed {
    key: ObjectKey,
    part: Part,
    files: PartFiles,
}

/// What was fetched.
#[derive(Debug, Default)]
pub(super) struct Fetched {
    pub unpacked: Unpacked,
    pub stored_bytes: u64,
}

impl Need {
    /// The parts in which a file stands that is not in place yet.
    pub fn new(entry: &CatalogEntry, list: FileList, kept: &Kept) -> Result<Self, RecoverError> {
        let mut by_part: HashMap<String, PartFiles> = HashMap::new();
        for file in list.files {
            let files = by_part.entry(file.part.clone()).or_default();
            if kept.contains(&file.path) {
                files.keep(file.path);
            } else {
                files.need(file);
            }
        }
        let mut parts = Vec::new();
        for part in entry.parts() {
            if let Some(files) = by_part.remove(&part.name).filter(PartFiles::is_needed) {
                parts.push(PartNeed { key: entry.object_key(&part.name)?, part: part.clone(), files });
            }
        }
        // The largest first, so that no worker begins a long one when the others are done.
        parts.sort_by_key(|need| std::cmp::Reverse(need.part.stored_bytes));
        Ok(Self { parts: parts.into() })
    }
}

/// What the workers share.
struct Shared {
    store: Store,
    tree: Arc<Tree>,
    queue: Mutex<VecDeque<PartNeed>>,
    given_up: Arc<AtomicBool>,
    progress: Progress,
    runtime: Handle,
}

/// Ends the workers when the restore ends, also when it is dropped.
struct GiveUp(Arc<AtomicBool>);

impl Drop for GiveUp {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Fetches and unpacks everything that is needed.
pub(super) async fn fetch(
    store: &Store,
    tree: &Arc<Tree>,
    need: Need,
    jobs: NonZeroUsize,
    progress: &Progress,
) -> Result<Fetched, RecoverError> {
    progress.expect(need.parts.iter().map(|need| need.part.stored_bytes).sum());
    let workers = jobs.get().min(need.parts.len());
    let shared = Arc::new(Shared {
        store: store.clone(),
        tree: Arc::clone(tree),
        queue: Mutex::new(need.parts),
        given_up: Arc::new(AtomicBool::new(false)),
        progress: progress.clone(),
        runtime: Handle::current(),
    });
    let _give_up = GiveUp(Arc::clone(&shared.given_up));
    let mut running = JoinSet::new();
    for _ in 0..workers {
        let shared = Arc::clone(&shared);
        running.spawn_blocking(move || shared.work());
    }
    let mut fetched = Fetched::default();
    let mut failure: Option<RecoverError> = None;
    while let Some(ended) = running.join_next().await {
        match ended.unwrap_or(Err(RecoverError::Worker)) {
            Ok(part) => fetched.add(part),
            // The others give up because of the first: theirs is not the reason.
            Err(RecoverError::GivenUp) => {}
            Err(error) => {
                shared.given_up.store(true, Ordering::Relaxed);
                failure.get_or_insert(error);
            }
        }
    }
    match failure {
        None => Ok(fetched),
        Some(error) => Err(error),
    }
}

impl Fetched {
    fn add(&mut self, other: Fetched) {
        self.unpacked.files += other.unpacked.files;
        self.unpacked.bytes += other.unpacked.bytes;
        self.unpacked.held.add(other.unpacked.held);
        self.stored_bytes += other.stored_bytes;
    }
}

impl Shared {
    fn work(&self) -> Result<Fetched, RecoverError> {
        let (mut unpacked, mut stored_bytes) = (Unpacked::default(), 0);
        loop {
            let next = self.queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some(mut need) = next else { return Ok(Fetched { unpacked, stored_bytes }) };
            let mut attempt = 1;
            while let Err(error) = self.fetch_part(&mut need, &mut unpacked) {
                let again = matches!(
                    error,
                    RecoverError::Read {
                        source: StoreError::Unreachable { .. } | StoreError::BadAnswer { .. },
                        ..
                    }
                );
                if !again || attempt == PART_ATTEMPTS_MAX {
                    // At once, and not only when the result is looked at.
                    self.given_up.store(true, Ordering::Relaxed);
                    return Err(error);
                }
                tracing::warn!(key = %need.key, attempt, error = crate::explain::chain(&error), "fetching again");
                attempt += 1;
            }
            stored_bytes += need.part.stored_bytes;
        }
    }

    fn fetch_part(&self, need: &mut PartNeed, unpacked: &mut Unpacked) -> Result<(), RecoverError> {
        let pieces = download(&self.runtime, &self.store, &need.key, None);
        let arrived = |bytes| self.progress.advance(bytes);
        let mut object = ObjectReader::new(pieces, &arrived, &self.given_up);
        let PartNeed { key, part, files } = need;
        let ended = unpack(&mut object, key, part.tablespace, files, &self.tree, unpacked);
        if let Err(error @ RecoverError::Fs(_)) = ended {
            return Err(error);
        }
        let arrived = object.bytes();
        // The hash of the whole says more than the place where the unpacking stumbled; and a
        // connection that broke explains both.
        let (bytes, hash) = match object.finish() {
            Ok(whole) => whole,
            Err(None) => return Err(RecoverError::GivenUp),
            Err(Some(source)) => {
                self.progress.take_back(arrived);
                return Err(RecoverError::Read { key: key.clone(), source });
            }
        };
        let damaged = |damage| Err(RecoverError::Damaged { key: key.clone(), damage });
        if bytes != part.stored_bytes {
            return damaged(format!("it has {bytes} bytes, the catalog says {}", part.stored_bytes));
        }
        let (found, expected) = (Blake3Hex::from(hash), part.blake3);
        if found != expected {
            return damaged(format!("its BLAKE3 is {found}, the catalog says {expected}"));
        }
        ended?;
        match files.first_needed() {
            None => Ok(()),
            Some(missing) => damaged(format!("{missing} is not in it")),
        }
    }
}
