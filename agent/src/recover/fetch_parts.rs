//! Fetches the parts of a backup, several at a time, and has them unpacked.
//!
//! One task per part reads from the repository; one thread per part hashes, decompresses and
//! writes. Where the list says where in a part the files stand that are needed, and they are not
//! most of it, only those frames are fetched. Invariants: a part that is fetched whole and whose
//! stored bytes do not hash to what the catalog says fails the restore, and so does a listed file
//! that is not where it should be, or not what the list says; at most [`PIECES_IN_MEMORY`] pieces
//! of all parts together are in memory; the first failure ends all workers.

use super::RecoverError;
use super::delta::Kept;
use super::progress::Progress;
use super::tree::Tree;
use super::unpack::{PartFiles, Place, Unpacked, unpack};
use super::write_out::Flusher;
use crate::store::{Store, StoreError};
use crate::stored::{Extent, ObjectReader, download};
use std::collections::{HashMap, VecDeque};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use wald_core::blake3_hex::Blake3Hex;
use wald_core::catalog::{CatalogEntry, Part};
use wald_core::file_list::{FileList, ListedFile};
use wald_core::object_key::ObjectKey;
use wald_core::stored_range::{Reading, reading};

/// Pieces of parts (of at most [`crate::stored::PIECE_BYTES_MAX`]) that may be in memory at once: 80 MiB.
const PIECES_IN_MEMORY: usize = 8;
/// How often a part is fetched whose connection broke; the store has tried each request
/// several times by then.
const PART_ATTEMPTS_MAX: u32 = 3;

/// What is to be fetched, with the files in it.
#[derive(Debug)]
pub(super) struct Need {
    parts: VecDeque<PartNeed>,
    kept: Arc<Kept>,
}

/// A part, or frames of it that stand side by side.
#[derive(Debug)]
struct PartNeed {
    key: ObjectKey,
    part: Part,
    extent: Extent,
    files: PartFiles,
}

impl PartNeed {
    fn stored_bytes(&self) -> u64 {
        match self.extent {
            Extent::Whole => self.part.stored_bytes,
            Extent::Range(range) => range.bytes(),
        }
    }
}

/// What was fetched.
#[derive(Debug, Default)]
pub(super) struct Fetched {
    pub unpacked: Unpacked,
    pub stored_bytes: u64,
}

impl Need {
    /// What holds the files that are not in place yet.
    pub fn new(entry: &CatalogEntry, list: FileList, kept: Arc<Kept>) -> Result<Self, RecoverError> {
        let mut by_part: HashMap<String, Vec<ListedFile>> = HashMap::new();
        for file in list.files.into_iter().filter(|file| !kept.contains(&file.path)) {
            by_part.entry(file.part.clone()).or_default().push(file);
        }
        let mut parts = Vec::new();
        for part in entry.parts() {
            if let Some(files) = by_part.remove(&part.name) {
                let key = entry.object_key(&part.name)?;
                parts.extend(needs(&key, part, files));
            }
        }
        // The largest first, so that no worker begins a long one when the others are done.
        parts.sort_by_key(|need| std::cmp::Reverse(need.stored_bytes()));
        Ok(Self { parts: parts.into(), kept })
    }
}

/// The part, or the ranges of it, that hold these files.
fn needs(key: &ObjectKey, part: &Part, mut files: Vec<ListedFile>) -> Vec<PartNeed> {
    let need = |extent, files: Vec<ListedFile>| PartNeed {
        key: key.clone(),
        part: part.clone(),
        extent,
        files: PartFiles::new(files),
    };
    match reading(part.stored_bytes, files.iter().map(|file| file.at)) {
        Reading::Whole => vec![need(Extent::Whole, files)],
        Reading::Ranges(ranges) => {
            files.sort_unstable_by_key(|file| file.at);
            let mut files = files.into_iter().peekable();
            let mut needs = Vec::new();
            for range in ranges {
                let here =
                    std::iter::from_fn(|| files.next_if(|file| file.at.is_some_and(|at| range.holds(at))));
                needs.push(need(Extent::Range(range), here.collect()));
            }
            needs
        }
    }
}

/// What the workers share.
struct Shared {
    store: Store,
    tree: Arc<Tree>,
    queue: Mutex<VecDeque<PartNeed>>,
    kept: Arc<Kept>,
    flusher: Flusher,
    room: Arc<Semaphore>,
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
    progress.expect(need.parts.iter().map(PartNeed::stored_bytes).sum());
    let workers = jobs.get().min(need.parts.len());
    let shared = Arc::new(Shared {
        store: store.clone(),
        tree: Arc::clone(tree),
        queue: Mutex::new(need.parts),
        kept: need.kept,
        flusher: Flusher::start().map_err(RecoverError::Thread)?,
        room: Arc::new(Semaphore::new(PIECES_IN_MEMORY)),
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
    if let Some(error) = failure {
        return Err(error);
    }
    // All workers have ended, so nobody else holds it.
    let flusher = Arc::into_inner(shared).ok_or(RecoverError::Worker)?.flusher;
    let flushed = tokio::task::spawn_blocking(move || flusher.finish()).await;
    flushed.ok().flatten().ok_or(RecoverError::Worker)??;
    Ok(fetched)
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
            stored_bytes += need.stored_bytes();
        }
    }

    fn fetch_part(&self, need: &mut PartNeed, unpacked: &mut Unpacked) -> Result<(), RecoverError> {
        let room = Arc::clone(&self.room);
        let pieces = download(&self.runtime, &self.store, &need.key, need.extent, room);
        let arrived = |bytes| self.progress.advance(bytes);
        let mut object = ObjectReader::new(pieces, &arrived, &self.given_up);
        let expected_bytes = need.stored_bytes();
        let PartNeed { key, part, extent, files } = need;
        let (tree, kept, flusher) = (&self.tree, &self.kept, &self.flusher);
        let place = Place { key, tablespace: part.tablespace, tree, kept, flusher };
        let ended = unpack(&mut object, &place, files, unpacked);
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
        let (found, expected) = (Blake3Hex::from(hash), part.blake3);
        match extent {
            Extent::Whole if bytes != expected_bytes => {
                return damaged(format!("it has {bytes} bytes, the catalog says {expected_bytes}"));
            }
            Extent::Whole if found != expected => {
                return damaged(format!("its BLAKE3 is {found}, the catalog says {expected}"));
            }
            Extent::Range(range) if bytes != expected_bytes => {
                return damaged(format!(
                    "it ends before byte {}, where the list of files has some",
                    range.end()
                ));
            }
            // The proof of a range is that of each file in it.
            Extent::Whole | Extent::Range(_) => {}
        }
        ended?;
        match files.first_needed() {
            None => Ok(()),
            Some(missing) => damaged(format!("{missing} is not in it")),
        }
    }
}
