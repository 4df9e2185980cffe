//! Records a finished backup: PostgreSQL's manifest, the list of files, and last of all the
//! catalog entry.
//!
//! The order is the point: the entry makes the backup exist, so everything that it speaks of
//! must be in the repository before it, WAL included.

use super::part::{BackedUpFile, FinishedPart};
use super::scan::ScannedDirectory;
use crate::explain::chain;
use crate::store::{Created, PutPayload, Store, StoreError};
use bytes::Bytes;
use futures::TryStreamExt;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::io;
use std::time::Duration;
use wald_core::backup_id::BackupId;
use wald_core::blake3_hex::Blake3Hex;
use wald_core::catalog::{BadPage, CatalogEntry, CatalogError, StoredObject};
use wald_core::data_page::PageDamage;
use wald_core::file_list::{FileListEntry, ListedDir, ListedFile, header_line};
use wald_core::lsn::Lsn;
use wald_core::manifest::{FileChecksum, Manifest, ManifestFile, WalRange};
use wald_core::object_key::{ObjectKey, ObjectKeyError};

/// The list of files, beside the parts.
const FILE_LIST: &str = "files.json.zst";
/// zstd's level for the list: it is small, and its hashes don't compress.
const FILE_LIST_LEVEL: i32 = 3;
/// Bad pages that the catalog names; a cluster with more needs no longer list.
pub const BAD_PAGES_MAX: usize = 10_000;

/// How often an object is created before its failure is the backup's: an answer that was lost or
/// a conflict with nobody must not cost the hours that the parts took.
const CREATE_ATTEMPTS_MAX: u32 = 3;
/// The pause between two of them; the store has tried each for a while by itself.
const CREATE_PAUSE: Duration = Duration::from_millis(200);

/// Why a backup could not be recorded.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The repository did not take an object.
    #[error("can't store {key}")]
    Store {
        /// The object.
        key: ObjectKey,
        /// Why.
        #[source]
        source: StoreError,
    },
    /// The name is taken by other content.
    #[error(
        "{key} is already in the repository with other content, and nothing is ever overwritten: \
         another backup began in the same second; try again"
    )]
    Taken {
        /// The object.
        key: ObjectKey,
    },
    /// "Exists" and "absent" in turns.
    #[error("the repository says that {key} exists and that it does not; check the store, then try again")]
    Contradiction {
        /// The object.
        key: ObjectKey,
    },
    /// What was uploaded is not there any more.
    #[error(
        "{key} was stored with {bytes} bytes and is not in the repository like that any more: find out who deletes \
         there, then make another backup"
    )]
    Lost {
        /// The object.
        key: ObjectKey,
        /// Its size.
        bytes: u64,
    },
    /// A name that can't be a key.
    #[error("an object of the backup has an impossible name")]
    Name(#[from] ObjectKeyError),
    /// The list could not be compressed.
    #[error("can't compress the list of files")]
    Compress(#[source] io::Error),
    /// A modification time that no calendar has.
    #[error("the modification time of {path} can't be written to the manifest")]
    Time {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: jiff::Error,
    },
    /// What was found out about the backup contradicts itself.
    #[error("the backup makes no valid catalog entry")]
    Catalog(#[from] CatalogError),
}

/// Creates an object, and takes "exists" for success only where the stored bytes are the
/// same: it may be the answer to our own first try.
async fn create_exact(store: &Store, key: &ObjectKey, content: Vec<u8>) -> Result<(), CommitError> {
    let content = Bytes::from(content);
    let mut attempt = 1;
    loop {
        let error = match create_once(store, key, &content).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if attempt >= CREATE_ATTEMPTS_MAX || !may_pass(&error) {
            return Err(error);
        }
        tracing::warn!(%key, error = %chain(&error), "not stored; trying again");
        attempt += 1;
        tokio::time::sleep(CREATE_PAUSE).await;
    }
}

async fn create_once(store: &Store, key: &ObjectKey, content: &Bytes) -> Result<(), CommitError> {
    let store_error = |source| CommitError::Store { key: key.clone(), source };
    match store.create(key, PutPayload::from(content.clone())).await.map_err(store_error)? {
        Created::Stored => Ok(()),
        Created::Exists => {
            let bytes_max = u64::try_from(content.len()).unwrap_or(u64::MAX);
            match store.get(key, bytes_max).await {
                Ok(stored) if stored == *content => Ok(()),
                Ok(_) | Err(StoreError::TooLarge { .. }) => Err(CommitError::Taken { key: key.clone() }),
                Err(error) if error.is_absent() => Err(CommitError::Contradiction { key: key.clone() }),
                Err(source) => Err(store_error(source)),
            }
        }
    }
}

/// Whether another try may succeed.
fn may_pass(error: &CommitError) -> bool {
    matches!(
        error,
        CommitError::Contradiction { .. } | CommitError::Store { source: StoreError::Unreachable { .. }, .. }
    )
}

/// Stores an object of the backup.
async fn store_object(
    store: &Store,
    backup: &BackupId,
    name: &str,
    content: Vec<u8>,
) -> Result<StoredObject, CommitError> {
    let key = ObjectKey::backup_object(backup, name)?;
    let object = StoredObject {
        name: name.to_owned(),
        stored_bytes: u64::try_from(content.len()).unwrap_or(u64::MAX),
        blake3: Blake3Hex::of(&content),
    };
    create_exact(store, &key, content).await?;
    Ok(object)
}

/// Stores `backup_manifest`.
pub async fn store_manifest(
    store: &Store,
    backup: &BackupId,
    parts: &[FinishedPart],
    wal: WalRange,
) -> Result<StoredObject, CommitError> {
    let files = parts.iter().flat_map(|part| &part.files).map(manifest_file);
    let manifest = Manifest { files: files.collect::<Result<_, _>>()?, wal_ranges: vec![wal] };
    store_object(store, backup, Manifest::FILE, manifest.to_string().into_bytes()).await
}

fn manifest_file(file: &BackedUpFile) -> Result<ManifestFile, CommitError> {
    let modified = Timestamp::from_second(file.modified_second)
        .map_err(|source| CommitError::Time { path: file.path.to_string(), source })?;
    Ok(ManifestFile {
        path: file.path.as_bytes().to_vec(),
        size: file.size,
        modified,
        checksum: FileChecksum::Crc32c(file.crc32c),
    })
}

/// Stores `files.json.zst`.
pub async fn store_file_list(
    store: &Store,
    backup: &BackupId,
    parts: &[FinishedPart],
) -> Result<StoredObject, CommitError> {
    let mut text = header_line(backup);
    for directory in parts.iter().flat_map(|part| &part.directories) {
        text.push_str(&FileListEntry::Dir(listed_dir(directory)).to_line());
    }
    for part in parts {
        for file in &part.files {
            text.push_str(&FileListEntry::File(listed_file(file, &part.part.name)).to_line());
        }
    }
    // A few MiB for a large cluster, but work for the CPU all the same.
    let compress = move || zstd::stream::encode_all(text.as_bytes(), FILE_LIST_LEVEL);
    let compressed = on_thread(compress).await.map_err(CommitError::Compress)?;
    store_object(store, backup, FILE_LIST, compressed).await
}

/// Runs `work` on a thread of its own.
async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (reply, answer) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("backup-list".to_owned()).spawn(move || {
        // Nobody listens any more if the backup was given up.
        let _ = reply.send(work());
    })?;
    answer.await.map_err(io::Error::other)?
}

fn listed_dir(directory: &ScannedDirectory) -> ListedDir {
    ListedDir { path: directory.path.clone(), mode: directory.mode }
}

fn listed_file(file: &BackedUpFile, part: &str) -> ListedFile {
    ListedFile {
        path: file.path.clone(),
        size: file.size,
        mode: file.mode,
        mtime: file.modified_second,
        blake3: file.blake3.into(),
        part: part.to_owned(),
        at: file.at,
    }
}

/// The pages that were bad, and those that claim to be newer than the end of the backup.
pub fn bad_pages(parts: &[FinishedPart], stop: Lsn) -> Vec<BadPage> {
    let mut bad = Vec::new();
    for file in parts.iter().flat_map(|part| &part.files) {
        let name = || file.path.to_string();
        for (block, damage) in &file.pages.bad {
            bad.push(BadPage { file: name(), block: *block, problem: damage.to_string() });
        }
        if let Some((changed, block)) = file.pages.newest.filter(|(lsn, _)| *lsn > stop) {
            let problem = PageDamage::Ahead { changed, stop }.to_string();
            bad.push(BadPage { file: name(), block, problem });
        }
    }
    bad
}

/// Writes the catalog entry: after this the backup exists.
///
/// The backup may have waited long for WAL, and somebody may have taken it for abandoned: what
/// the entry speaks of must still be there.
pub async fn store_catalog(store: &Store, entry: &CatalogEntry) -> Result<(), CommitError> {
    must_be_there(store, entry).await?;
    create_exact(store, &ObjectKey::catalog(entry.id()), entry.to_json()?).await
}

async fn must_be_there(store: &Store, entry: &CatalogEntry) -> Result<(), CommitError> {
    let prefix = ObjectKey::backup_prefix(entry.id());
    let unlisted = |source| CommitError::Store { key: ObjectKey::catalog(entry.id()), source };
    let mut sizes = BTreeMap::new();
    let mut listed = store.list(&prefix);
    while let Some(object) = listed.try_next().await.map_err(unlisted)? {
        sizes.insert(object.name, object.stat.size_bytes);
    }
    let facts = entry.facts();
    let parts = facts.parts.iter().map(|part| (&part.name, part.stored_bytes));
    let others = [&facts.manifest, &facts.file_list].map(|object| (&object.name, object.stored_bytes));
    for (name, bytes) in parts.chain(others) {
        let key = entry.object_key(name)?;
        if sizes.get(key.as_str()) != Some(&bytes) {
            return Err(CommitError::Lost { key, bytes });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Operation;
    use crate::store::fault::{Fault, Faults};
    use wald_core::backup_id::BackupKind;
    use wald_core::catalog::{CatalogFacts, Part};
    use wald_core::segment::SegmentSize;
    use wald_core::system_id::SystemId;
    use wald_core::timeline::TimelineId;

    #[tokio::test]
    async fn an_object_that_exists_counts_only_with_the_same_content() {
        let store = Store::memory();
        let key = ObjectKey::check("commit").unwrap();
        create_exact(&store, &key, b"one".to_vec()).await.unwrap();
        create_exact(&store, &key, b"one".to_vec()).await.unwrap();
        for other in [&b"two"[..], b"o", b"one more"] {
            let error = create_exact(&store, &key, other.to_vec()).await.unwrap_err();
            assert!(matches!(error, CommitError::Taken { .. }), "{error:?}");
        }
        assert_eq!(store.get(&key, 10).await.unwrap(), "one");
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_answer_and_a_passing_conflict_do_not_cost_the_backup() {
        for fault in [Fault::AnswerLost, Fault::ExistsWithoutObject, Fault::Unreachable] {
            let faults = Faults::none();
            let store = Store::memory().with_faults(&faults);
            let key = ObjectKey::check("commit").unwrap();
            faults.once(Operation::Create, fault);
            create_exact(&store, &key, b"one".to_vec()).await.unwrap();
            assert_eq!(store.get(&key, 10).await.unwrap(), "one");
            assert_eq!(faults.injected(), 1);
        }
    }

    fn entry() -> CatalogEntry {
        let object =
            |name: &str| StoredObject { name: name.to_owned(), stored_bytes: 1, blake3: Blake3Hex::of(b"x") };
        let at = Timestamp::UNIX_EPOCH;
        CatalogEntry::new(CatalogFacts {
            id: BackupId::new(at, BackupKind::Full),
            system_id: SystemId::new(7).unwrap(),
            segment_size: SegmentSize::DEFAULT,
            pg_version_num: 150_018,
            data_checksums: true,
            timeline: TimelineId::FIRST,
            start_lsn: Lsn::new(0x0100_0028).unwrap(),
            stop_lsn: Lsn::new(0x0100_0100).unwrap(),
            started_at: at,
            stopped_at: at,
            from_standby: false,
            label: "test".to_owned(),
            tool_version: "0.1.0".to_owned(),
            tablespaces: Vec::new(),
            parts: vec![Part {
                name: "base-0001.tar.zst".to_owned(),
                tablespace: None,
                stored_bytes: 1,
                raw_bytes: 1,
                files: 1,
                blake3: Blake3Hex::of(b"x"),
            }],
            manifest: object("backup_manifest"),
            file_list: object("files.json.zst"),
            bad_pages: Vec::new(),
        })
        .unwrap()
    }

    #[tokio::test]
    async fn a_backup_whose_part_was_deleted_or_cut_while_it_waited_is_not_entered() {
        for stored in [None, Some(&b""[..]), Some(b"x")] {
            let (store, entry) = (Store::memory(), entry());
            for name in ["backup_manifest", "files.json.zst"] {
                create_exact(&store, &entry.object_key(name).unwrap(), b"x".to_vec()).await.unwrap();
            }
            let part = entry.object_key("base-0001.tar.zst").unwrap();
            if let Some(content) = stored {
                create_exact(&store, &part, content.to_vec()).await.unwrap();
            }
            let committed = store_catalog(&store, &entry).await;
            if stored == Some(b"x") {
                committed.unwrap();
                continue;
            }
            let error = committed.unwrap_err();
            assert!(matches!(&error, CommitError::Lost { key, .. } if *key == part), "{error:?}");
            assert!(store.get(&ObjectKey::catalog(entry.id()), 1 << 20).await.is_err());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_conflict_with_nobody_that_lasts_is_an_error() {
        let faults = Faults::none();
        let store = Store::memory().with_faults(&faults);
        let key = ObjectKey::check("commit").unwrap();
        faults.always(Operation::Create, Fault::ExistsWithoutObject);
        let error = create_exact(&store, &key, b"one".to_vec()).await.unwrap_err();
        assert!(matches!(error, CommitError::Contradiction { .. }), "{error:?}");
        faults.clear();
        faults.always(Operation::Create, Fault::Unreachable);
        let error = create_exact(&store, &key, b"one".to_vec()).await.unwrap_err();
        assert!(
            matches!(error, CommitError::Store { source: StoreError::Unreachable { .. }, .. }),
            "{error:?}"
        );
    }
}
