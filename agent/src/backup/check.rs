//! What must be true of a cluster before a backup begins, and of the backup when it ends.

use super::error::BackupError;
use super::options::ClusterIdentity;
use super::session::{Archiving, ServerFacts, StopAnswer};
use super::{Begun, Ended};
use std::path::Path;
use wald_core::backup_label::{BackupLabel, TablespaceMap};
use wald_core::catalog::Tablespace;
use wald_core::control_file::ControlFile;
use wald_core::data_page::PAGE_BYTES;

/// Server, data directory and repository must be of one cluster, and WAL must be archived.
pub fn check_cluster(
    cluster: &ClusterIdentity,
    server: &ServerFacts,
    control: &ControlFile,
    data_dir: &Path,
) -> Result<(), BackupError> {
    if server.system_id != cluster.system_id {
        return Err(BackupError::OtherCluster { server: server.system_id, repository: cluster.system_id });
    }
    if control.system_id() != server.system_id {
        return Err(BackupError::OtherDataDir {
            data_dir: data_dir.to_owned(),
            found: control.system_id(),
            server: server.system_id,
        });
    }
    if control.segment_size() != cluster.segment_size {
        let (found, repository) = (control.segment_size(), cluster.segment_size);
        return Err(BackupError::OtherSegmentSize { found, repository });
    }
    let checks_pages = control.data_checksum_version() != 0;
    if checks_pages && usize::try_from(control.block_size()) != Ok(PAGE_BYTES) {
        return Err(BackupError::BlockSize { found: control.block_size() });
    }
    // A standby's WAL is archived by its primary.
    match server.archiving {
        _ if server.in_recovery => Ok(()),
        Archiving::On => Ok(()),
        Archiving::ModeOff => Err(BackupError::NotArchiving { setting: "archive_mode = off" }),
        Archiving::NoCommand => Err(BackupError::NotArchiving { setting: "archive_command is empty" }),
    }
}

/// Checks what PostgreSQL returned at the end against what it said at the beginning and
/// against the `pg_control` that was copied. `linked` are the tablespaces that were found.
pub fn check_stop(
    begun: &Begun,
    control: &ControlFile,
    answer: StopAnswer,
    linked: Vec<Tablespace>,
) -> Result<Ended, BackupError> {
    let label = BackupLabel::parse(&answer.label)?;
    label.check(control.segment_size())?;
    if label.start() != begun.start_lsn {
        return Err(BackupError::OtherLabel { started: begun.start_lsn, found: label.start() });
    }
    let from = label.timeline();
    let to = control.min_recovery().map_or(control.timeline(), |point| point.timeline);
    if from != to {
        return Err(BackupError::TimelineChanged { from, to });
    }
    let map = TablespaceMap::parse(&answer.tablespace_map)?;
    Ok(Ended { timeline: from, tablespaces: tablespaces(&map, &linked)?, answer })
}

/// The tablespaces of the map, which a recovery will link. One that was created after the map
/// was made and before the files were listed is in no map: nothing would lead to its files,
/// and a recovery would begin without its link.
fn tablespaces(map: &TablespaceMap, linked: &[Tablespace]) -> Result<Vec<Tablespace>, BackupError> {
    let mapped = |oid| map.links().iter().any(|link| link.oid == oid);
    if let Some(created) = linked.iter().find(|found| !mapped(found.oid)) {
        return Err(BackupError::TablespaceCreated { oid: created.oid });
    }
    let links = map.links().iter();
    Ok(links.map(|link| Tablespace { oid: link.oid, location: link.location.clone() }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tablespace_that_is_in_no_map_is_refused() {
        let tablespace = |oid, location: &str| Tablespace { oid, location: location.to_owned() };
        let map = TablespaceMap::parse("16400 /srv/a\n16450 /srv/dropped\n").unwrap();
        let known = tablespace(16_400, "/srv/elsewhere");
        let all = tablespaces(&map, std::slice::from_ref(&known)).unwrap();
        assert_eq!(all, [tablespace(16_400, "/srv/a"), tablespace(16_450, "/srv/dropped")]);
        let error = tablespaces(&map, &[known, tablespace(16_500, "/srv/b")]).unwrap_err();
        assert!(error.to_string().contains("tablespace 16500 was created while the backup began"), "{error}");
    }
}
