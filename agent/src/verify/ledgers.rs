//! Reads the last ledgers and writes the next.

use super::presence::is_missed;
use crate::explain;
use crate::repository::Repository;
use crate::store::{Created, PutPayload, Store, StoreError};
use crate::stored::read_lines;
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::{self, Write};
use wald_core::ledger::{
    Finding, Head, LedgerError, LedgerReader, Object, Objects, WalkEnd, head_line, object_line,
};
use wald_core::object_key::ObjectKey;
use wald_core::retention::Needed;

/// Ledgers that are read at most: the last ones, those that none of these knew, and as many as it takes
/// to find one that can be read. What is left over is read by the next run.
const LEDGERS_MAX: usize = 8;
/// At least so many are read, where there are as many: the last run may have been interrupted.
const LEDGERS_MIN: usize = 2;
/// No ledger is larger: room for several million objects.
const LEDGER_BYTES_MAX: u64 = 256 << 20;
/// An object's line is far shorter; the first line has all findings.
const LINE_BYTES_MAX: usize = 64 << 20;
/// zstd's level: hashes are not in it, names repeat.
const LEVEL: i32 = 3;
/// Names that are tried for a ledger, one a microsecond.
const NAME_ATTEMPTS_MAX: u32 = 10;

/// What the ledgers say.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// What is open.
    pub findings: Vec<Finding>,
    /// States of walks, by the object behind which they stand.
    pub walks: BTreeMap<Box<str>, WalkEnd>,
    /// Objects that are not there now, of those that are needed at most [`GONE_MAX`].
    pub gone: BTreeMap<Box<str>, Object>,
    /// Names of the ledgers that were read, and of those that they knew.
    pub knew: BTreeSet<String>,
    /// What an operator should know.
    pub notes: Vec<String>,
}

/// Objects that are remembered though they are not there: more would be no finding any more but a disaster
/// that the rest tells well enough.
const GONE_MAX: usize = 20_000;

/// A ledger that is dated later than so long after now was written by a clock that was wrong.
const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_hours(1);

/// Reads the last ledgers and has `objects` learn from them.
pub(super) async fn read(
    repository: &Repository,
    objects: Objects,
    now: Timestamp,
) -> Result<(Objects, Known), StoreError> {
    let latest = now.saturating_add(CLOCK_TOLERANCE).unwrap_or(Timestamp::MAX);
    let (mut objects, mut known) = (objects, Known::default());
    let names = names(&objects, latest, &mut known.notes);
    let listed: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    let (mut attempts, mut readable) = (0, 0);
    for name in &names {
        let covered = known.knew.contains(name);
        if attempts >= LEDGERS_MAX || covered && readable >= LEDGERS_MIN {
            continue;
        }
        attempts += 1;
        // The next run need not try again, nor read what this one has taken over.
        known.knew.insert(name.clone());
        let Some(bytes) = fetch(repository, name, &mut known).await? else { continue };
        let learnt = tokio::task::spawn_blocking(move || {
            let learnt = learn(&bytes, !covered, latest, &mut objects, &mut known);
            (objects, known, learnt)
        });
        let Ok((back, back_known, learnt)) = learnt.await else {
            return Err(StoreError::BadAnswer {
                operation: crate::store::Operation::Read,
                subject: name.clone(),
                repository: repository.store().describe().to_owned(),
                problem: "a thread that read it ended unexpectedly".to_owned(),
            });
        };
        (objects, known) = (back, back_known);
        match learnt {
            Ok(head) => {
                readable += 1;
                known.knew.extend(head.knew.into_iter().filter(|name| listed.contains(name.as_str())));
            }
            Err(error) => {
                let reason = explain::chain(&error);
                known
                    .notes
                    .push(format!("{name} can't be used, what it proved counts as never proven: {reason}"));
            }
        }
    }
    Ok((objects, known))
}

/// The ledgers' names, the newest first, without those from the future.
fn names(objects: &Objects, latest: Timestamp, notes: &mut Vec<String>) -> Vec<String> {
    let names = objects.iter().map(|object| &*object.name);
    let mut names: Vec<String> =
        names.filter(|name| name.starts_with(ObjectKey::LEDGER_PREFIX)).map(str::to_owned).collect();
    names.sort_unstable_by(|a, b| b.cmp(a));
    let last = ObjectKey::ledger(latest);
    names.retain(|name| {
        let future = name.as_str() > last.as_str();
        if future {
            notes.push(format!("{name} is ignored: it is dated in the future, so a clock was wrong"));
        }
        !future
    });
    names
}

async fn fetch(repository: &Repository, name: &str, known: &mut Known) -> Result<Option<Bytes>, StoreError> {
    let Some(key) = ObjectKey::parse_ledger(name) else { return Ok(None) };
    match repository.store().get(&key, LEDGER_BYTES_MAX).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(
            error @ (StoreError::Absent { .. } | StoreError::Deleted { .. } | StoreError::TooLarge { .. }),
        ) => {
            known.notes.push(explain::chain(&error));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Reads a ledger twice: nothing in it is believed before its end was seen.
fn learn(
    bytes: &[u8],
    with_findings: bool,
    latest: Timestamp,
    objects: &mut Objects,
    known: &mut Known,
) -> Result<Head, ReadError> {
    let head = lines(bytes, |_| ())?;
    lines(bytes, |object| {
        if objects.get(&object.name).is_none() {
            known.gone.entry(object.name.clone()).or_insert(object);
        } else {
            objects.learn(object, latest);
        }
    })?;
    if with_findings {
        merge_findings(&mut known.findings, &head);
    }
    for walk in &head.walks {
        known.walks.entry(walk.object.clone()).or_insert_with(|| walk.clone());
    }
    Ok(head)
}

/// Adds the findings of another run.
fn merge_findings(findings: &mut Vec<Finding>, head: &Head) {
    let key = |finding: &Finding| (finding.object.clone(), std::mem::discriminant(&finding.damage));
    let mut known: HashSet<_> = findings.iter().map(key).collect();
    findings.extend(head.findings.iter().filter(|finding| known.insert(key(finding))).cloned());
}

impl Known {
    /// Forgets of what is gone all that is not needed any more.
    pub fn keep_missed(&mut self, needed: &Needed) {
        self.gone.retain(|_, object| is_missed(object, needed));
        if self.gone.len() > GONE_MAX {
            let count = self.gone.len();
            self.notes.push(format!("{count} objects that are needed are gone; {GONE_MAX} of them are told"));
            self.gone = std::mem::take(&mut self.gone).into_iter().take(GONE_MAX).collect();
        }
    }
}

/// Why a ledger can't be used.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error("it can't be decompressed")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

fn lines(bytes: &[u8], mut take: impl FnMut(Object)) -> Result<Head, ReadError> {
    let mut reader = LedgerReader::new();
    read_lines(bytes, LINE_BYTES_MAX, |line| {
        if let Some(object) = reader.line(line)? {
            take(object);
        }
        Ok::<(), ReadError>(())
    })?;
    Ok(reader.finish()?)
}

/// Writes a ledger; gives its key.
pub(super) async fn write(store: &Store, head: Head, objects: Objects) -> Result<ObjectKey, WriteError> {
    let ended = head.ended;
    let text = tokio::task::spawn_blocking(move || compress(&head, &objects));
    let text = Bytes::from(text.await.map_err(|_| WriteError::Thread)??);
    let mut time = ended;
    for _ in 0..NAME_ATTEMPTS_MAX {
        let key = ObjectKey::ledger(time);
        let size = u64::try_from(text.len()).unwrap_or(u64::MAX);
        match store.create(&key, PutPayload::from(text.clone())).await? {
            Created::Stored => return Ok(key),
            // Our own lost answer, or another run that ended in the same microsecond.
            Created::Exists => match store.get(&key, size).await {
                Ok(stored) if stored == text => return Ok(key),
                Ok(_) | Err(StoreError::TooLarge { .. } | StoreError::Absent { .. }) => {}
                Err(error) => return Err(error.into()),
            },
        }
        time = time.saturating_add(SignedDuration::from_micros(1)).unwrap_or(Timestamp::MAX);
    }
    Err(WriteError::Taken)
}

/// Why there is no ledger of a run.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The repository did not take it.
    #[error("can't store the ledger of this run")]
    Store(#[from] StoreError),
    /// It can't be made.
    #[error("can't compress the ledger of this run")]
    Compress(#[from] io::Error),
    /// All names are taken.
    #[error("can't store the ledger of this run: others took ten names in a row")]
    Taken,
    /// A thread is gone.
    #[error("a thread that wrote the ledger ended unexpectedly")]
    Thread,
}

fn compress(head: &Head, objects: &Objects) -> io::Result<Vec<u8>> {
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), LEVEL)?;
    encoder.include_checksum(true)?;
    encoder.write_all(head_line(head).as_bytes())?;
    for object in objects.iter() {
        encoder.write_all(object_line(object).as_bytes())?;
    }
    encoder.finish()
}
