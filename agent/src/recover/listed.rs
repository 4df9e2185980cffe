//! The two lists of a backup's files: wald's own and PostgreSQL's.
//!
//! Invariant: neither is believed before its bytes hash to what the catalog says, and wald's
//! own agrees with the catalog about every part.

use super::{RecoverError, blocking};
use crate::store::Store;
use crate::stored::read_lines;
use bytes::Bytes;
use std::io;
use wald_core::blake3_hex::Blake3Hex;
use wald_core::catalog::{CatalogEntry, StoredObject};
use wald_core::file_list::{FILE_LIST_LINE_BYTES_MAX, FileList, FileListError, FileListReader};
use wald_core::manifest::Manifest;
use wald_core::object_key::ObjectKey;

/// The label, without which PostgreSQL would begin replay at the wrong place.
pub(super) const LABEL: &str = "backup_label";
/// The file that is put in place last.
pub(super) const CONTROL: &str = "global/pg_control";

async fn proven(store: &Store, key: &ObjectKey, object: &StoredObject) -> Result<Bytes, RecoverError> {
    let read = |source| RecoverError::Read { key: key.clone(), source };
    let bytes = store.get(key, object.stored_bytes).await.map_err(read)?;
    let found = Blake3Hex::of(&bytes);
    if found == object.blake3 {
        return Ok(bytes);
    }
    let damage = format!("its BLAKE3 is {found}, the catalog says {}", object.blake3);
    Err(RecoverError::Damaged { key: key.clone(), damage })
}

enum LineError {
    Read(io::Error),
    List(FileListError),
}

impl From<io::Error> for LineError {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

/// Reads the list of a backup's files.
pub(super) async fn file_list(store: &Store, entry: &CatalogEntry) -> Result<FileList, RecoverError> {
    let object = &entry.facts().file_list;
    let key = entry.object_key(&object.name)?;
    let compressed = proven(store, &key, object).await?;
    let (entry, list_key) = (entry.clone(), key.clone());
    let list = blocking(move || {
        let damaged =
            |error: std::io::Error| RecoverError::Damaged { key: key.clone(), damage: error.to_string() };
        let unusable = |source| RecoverError::FileList { key: key.clone(), source };
        let mut reader = FileListReader::new(entry.id());
        read_lines(&*compressed, FILE_LIST_LINE_BYTES_MAX, |line| reader.line(line).map_err(LineError::List))
            .map_err(|error| match error {
                LineError::Read(error) => damaged(error),
                LineError::List(error) => unusable(error),
            })?;
        let list = reader.finish().map_err(unusable)?;
        list.check_against(&entry).map_err(unusable)?;
        check_complete(&list, &entry)?;
        Ok(list)
    });
    let list = list.await?;
    tracing::debug!(key = %list_key, files = list.files.len(), "read the list of files");
    Ok(list)
}

/// A data directory with `pg_control` and without `backup_label` would start, and silently
/// begin replay at a checkpoint that is not the backup's.
fn check_complete(list: &FileList, entry: &CatalogEntry) -> Result<(), RecoverError> {
    for file in [LABEL, CONTROL] {
        if !list.files.iter().any(|listed| listed.path.as_bytes() == file.as_bytes()) {
            return Err(RecoverError::Incomplete { backup: entry.id().to_string(), file });
        }
    }
    let expected = &entry.facts().tablespaces;
    let foreign = list.files.iter().find_map(|file| {
        let (oid, _) = file.path.in_tablespace()?;
        (!expected.iter().any(|tablespace| tablespace.oid == oid)).then_some(file)
    });
    match foreign {
        None => Ok(()),
        Some(file) => {
            let difference = format!("{} belongs to a tablespace that the catalog does not name", file.path);
            let source = FileListError::PartDiffers { part: file.part.clone(), difference };
            let key = entry.object_key(&entry.facts().file_list.name)?;
            Err(RecoverError::FileList { key, source })
        }
    }
}

/// Reads PostgreSQL's manifest, which is sound in itself.
pub(super) async fn manifest(store: &Store, entry: &CatalogEntry) -> Result<Bytes, RecoverError> {
    let object = &entry.facts().manifest;
    let key = entry.object_key(&object.name)?;
    let text = proven(store, &key, object).await?;
    blocking(move || {
        let checked = std::str::from_utf8(&text)
            .map_err(|_| RecoverError::Damaged { key: key.clone(), damage: "it is not text".to_owned() })?;
        Manifest::parse(checked).map_err(|source| RecoverError::Manifest { key, source })?;
        Ok(text)
    })
    .await
}
