//! The files of a data directory by their names: which of them a base backup leaves out, and
//! which are relations.
//!
//! The rules are those of PostgreSQL 15's own base backup (`sendDir` and its lists in
//! `backup/basebackup.c`, names as in `common/relpath.c` and `storage/file/reinit.c`). Paths
//! are relative to the data directory and `/`-separated; a tablespace's files stand under
//! `pg_tblspc/<oid>/`, wherever its directory really is.

use crate::control_file::ControlFile;

/// Contents are removed or made anew when a server starts (`excludeDirContents`); the
/// directory itself is kept for its permissions. They count by name, at any depth.
const CONTENTS_LEFT_OUT: [&str; 7] =
    ["pg_stat_tmp", "pg_replslot", "pg_dynshmem", "pg_notify", "pg_serial", "pg_snapshots", "pg_subtrans"];

/// Left out by name, at any depth (`excludeFiles`).
const NAMES_LEFT_OUT: [&str; 7] = [
    "postgresql.auto.conf.tmp",
    "current_logfiles.tmp",
    "backup_label",
    "tablespace_map",
    "backup_manifest",
    "postmaster.pid",
    "postmaster.opts",
];

/// Stands in the data directory while `wald restore` works in it, and says of which backup. One that a
/// crash has left behind in a directory that was complete is no part of the cluster.
pub const RESTORE_MARKER: &str = "wald-restore.incomplete";

/// Left out with whatever follows: the relation cache, which is rebuilt, and temporary files
/// and directories of queries (`RELCACHE_INIT_FILENAME`, `PG_TEMP_FILE_PREFIX`).
const PREFIXES_LEFT_OUT: [&str; 2] = ["pg_internal.init", "pgsql_tmp"];

/// Pages in each file of a relation but its last, unless PostgreSQL was built with another
/// `--with-segsize`: 1 GiB (`RELSEG_SIZE`). `pg_control` has the number of the cluster.
pub const BLOCKS_PER_SEGMENT_DEFAULT: u32 = 131_072;

/// What a base backup does with a directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DirectoryTreatment {
    /// Takes it and looks inside.
    Enter,
    /// Takes it as an empty directory.
    KeepEmpty,
    /// `pg_wal`: takes it as a directory that holds an empty `archive_status`, even where it
    /// is a symbolic link.
    KeepForWal,
    /// Leaves it out.
    LeaveOut,
}

/// What a base backup does with a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileTreatment {
    /// Takes it.
    Take,
    /// `pg_control`: takes it after everything else, so that it never promises a state which
    /// the other files have not reached.
    TakeLast,
    /// Leaves it out.
    LeaveOut,
}

/// Decides about the directory (or the symbolic link to one) at `path`.
pub fn directory_treatment(path: &str) -> DirectoryTreatment {
    let name = file_name(path);
    if is_left_out_by_name(name) {
        DirectoryTreatment::LeaveOut
    } else if CONTENTS_LEFT_OUT.contains(&name) {
        DirectoryTreatment::KeepEmpty
    } else if path == "pg_wal" {
        DirectoryTreatment::KeepForWal
    } else {
        DirectoryTreatment::Enter
    }
}

/// Decides about the file at `path`. `has_init_fork` tells whether the same directory holds
/// `<number>_init`, which marks the relation as unlogged: only its init fork is taken.
pub fn file_treatment(path: &str, has_init_fork: impl FnOnce(u32) -> bool) -> FileTreatment {
    let name = file_name(path);
    if is_left_out_by_name(name) || path == RESTORE_MARKER {
        return FileTreatment::LeaveOut;
    }
    if path == ControlFile::PATH {
        return FileTreatment::TakeLast;
    }
    if is_database_directory(parent(path)) {
        if is_temporary_relation(name) {
            return FileTreatment::LeaveOut;
        }
        if let Some(file) = RelationFile::parse_name(name)
            && file.fork != Fork::Init
            && has_init_fork(file.number)
        {
            return FileTreatment::LeaveOut;
        }
    }
    FileTreatment::Take
}

fn is_left_out_by_name(name: &str) -> bool {
    NAMES_LEFT_OUT.contains(&name) || PREFIXES_LEFT_OUT.iter().any(|prefix| name.starts_with(prefix))
}

/// A relation's fork (`ForkNumber`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Fork {
    /// The rows or the index itself.
    Main,
    /// The free space map.
    FreeSpace,
    /// The visibility map.
    Visibility,
    /// What an unlogged relation becomes after a crash.
    Init,
}

/// One file of a relation that is not temporary.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RelationFile {
    number: u32,
    fork: Fork,
    segment: u32,
}

impl RelationFile {
    /// Recognises the file at `path` by its name and by where it stands: only `global` and
    /// the directories of databases hold relations. These files consist of pages.
    pub fn parse(path: &str) -> Option<Self> {
        let directory = parent(path);
        (directory == "global" || is_database_directory(directory))
            .then(|| Self::parse_name(file_name(path)))
            .flatten()
    }

    /// `<number>[_<fork>][.<segment>]` (`parse_filename_for_nontemp_relation`).
    fn parse_name(name: &str) -> Option<Self> {
        let (stem, segment) = match name.split_once('.') {
            Some((stem, segment)) => (stem, positive(segment)?),
            None => (name, 0),
        };
        let (number, fork) = match stem.split_once('_') {
            None => (stem, Fork::Main),
            Some((number, "fsm")) => (number, Fork::FreeSpace),
            Some((number, "vm")) => (number, Fork::Visibility),
            Some((number, "init")) => (number, Fork::Init),
            Some(_) => return None,
        };
        Some(Self { number: positive(number)?, fork, segment })
    }

    /// The relation's `relfilenode`.
    pub const fn number(self) -> u32 {
        self.number
    }

    /// The fork.
    pub const fn fork(self) -> Fork {
        self.fork
    }

    /// Which file of the fork it is; the first is 0.
    pub const fn segment(self) -> u32 {
        self.segment
    }

    /// The number in the fork of the page at `index` in this file, which is what a checksum
    /// is mixed with; `None` past the last number that a fork can have.
    pub fn block_number(self, index: u32, blocks_per_segment: u32) -> Option<u32> {
        self.segment.checked_mul(blocks_per_segment)?.checked_add(index)
    }
}

/// `t<backend>_<number>[_<fork>][.<segment>]` (`looks_like_temp_rel_name`).
fn is_temporary_relation(name: &str) -> bool {
    name.strip_prefix('t')
        .and_then(|rest| rest.split_once('_'))
        .is_some_and(|(backend, rest)| is_digits(backend) && RelationFile::parse_name(rest).is_some())
}

/// `base/<oid>` or `pg_tblspc/<oid>/PG_<major>_<catalog version>/<oid>`.
fn is_database_directory(path: &str) -> bool {
    let is_oid = |text: &str| is_digits(text);
    match path.split_once('/') {
        Some(("base", database)) => is_oid(database),
        Some(("pg_tblspc", rest)) => {
            let mut parts = rest.split('/');
            matches!(
                (parts.next(), parts.next(), parts.next(), parts.next()),
                (Some(tablespace), Some(version), Some(database), None)
                    if is_oid(tablespace) && version.starts_with("PG_") && is_oid(database)
            )
        }
        _ => false,
    }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// A decimal number above 0 without leading zeros.
fn positive(text: &str) -> Option<u32> {
    (is_digits(text) && !text.starts_with('0')).then(|| text.parse().ok()).flatten()
}

fn file_name(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(directory, _)| directory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn treatment(path: &str) -> FileTreatment {
        file_treatment(path, |_| false)
    }

    #[test]
    fn what_postgresql_leaves_out_is_left_out() {
        let left_out = [
            "postmaster.pid",
            "postmaster.opts",
            "backup_label",
            "tablespace_map",
            "backup_manifest",
            "postgresql.auto.conf.tmp",
            "current_logfiles.tmp",
            "wald-restore.incomplete",
            "global/pg_internal.init",
            "base/5/pg_internal.init.4711",
            "base/pgsql_tmp/pgsql_tmp123.0",
            "base/5/t3_16384",
            "base/5/t3_16384_fsm.1",
            "pg_tblspc/16400/PG_15_202209061/5/t12_16384",
        ];
        for path in left_out {
            assert_eq!(treatment(path), FileTreatment::LeaveOut, "{path}");
        }
        assert_eq!(directory_treatment("base/pgsql_tmp"), DirectoryTreatment::LeaveOut);
    }

    #[test]
    fn everything_else_is_taken() {
        let taken = [
            "PG_VERSION",
            "postgresql.auto.conf",
            "backup_label.old",
            "backup_label.bak",
            "base/5/1259",
            "base/5/pg_filenode.map",
            "t3_16384",
            "global/t3_16384",
            "base/5/t3_16384x",
            "base/5/t_16384",
            "log/postgresql.log",
        ];
        for path in taken {
            assert_eq!(treatment(path), FileTreatment::Take, "{path}");
        }
        assert_eq!(treatment("global/pg_control"), FileTreatment::TakeLast);
        assert_eq!(treatment("base/pg_control"), FileTreatment::Take);
    }

    #[test]
    fn of_an_unlogged_relation_only_the_init_fork_is_taken() {
        let unlogged = |path| file_treatment(path, |number| number == 16_384);
        for path in ["base/5/16384", "base/5/16384_fsm", "base/5/16384_vm", "base/5/16384.1"] {
            assert_eq!(unlogged(path), FileTreatment::LeaveOut, "{path}");
        }
        for path in ["base/5/16384_init", "base/5/16385", "global/16384", "base/5/16384_old"] {
            assert_eq!(unlogged(path), FileTreatment::Take, "{path}");
        }
    }

    #[test]
    fn directories_that_a_server_fills_anew_are_kept_empty() {
        for path in CONTENTS_LEFT_OUT {
            assert_eq!(directory_treatment(path), DirectoryTreatment::KeepEmpty, "{path}");
        }
        assert_eq!(directory_treatment("pg_wal"), DirectoryTreatment::KeepForWal);
        assert_eq!(directory_treatment("base/pg_wal"), DirectoryTreatment::Enter);
        assert_eq!(directory_treatment("base"), DirectoryTreatment::Enter);
        assert_eq!(directory_treatment("pg_logical/snapshots"), DirectoryTreatment::Enter);
    }

    #[test]
    fn blocks_are_counted_across_the_files_of_a_fork() {
        let file = RelationFile::parse("base/5/16384_vm.3").unwrap();
        assert_eq!((file.number(), file.fork(), file.segment()), (16_384, Fork::Visibility, 3));
        assert_eq!(file.block_number(7, 131_072), Some(393_223));
        assert_eq!(RelationFile::parse("base/5/1.4000000000").unwrap().block_number(0, 131_072), None);
    }

    #[test]
    fn only_relations_where_relations_stand_have_pages() {
        assert!(RelationFile::parse("global/1260").is_some());
        assert!(RelationFile::parse("pg_tblspc/16400/PG_15_202209061/5/16401.2").is_some());
        let others = [
            "1259",
            "pg_xact/0000",
            "pg_multixact/offsets/0000",
            "base/5/PG_VERSION",
            "base/5/pg_filenode.map",
            "base/5/1259.0",
            "base/5/1259.01",
            "base/5/1259_x",
            "base/5/1259_fsm_vm",
            "base/5/99999999999",
            "base/5/x/1259",
            "global/pg_control",
        ];
        for path in others {
            assert_eq!(RelationFile::parse(path), None, "{path}");
        }
    }

    proptest! {
        #[test]
        fn relation_names_round_trip(number in 1u32.., fork in 0usize..4, segment: u32) {
            let (fork, suffix) = [
                (Fork::Main, ""), (Fork::FreeSpace, "_fsm"), (Fork::Visibility, "_vm"), (Fork::Init, "_init"),
            ][fork];
            let dot = if segment == 0 { String::new() } else { format!(".{segment}") };
            let parsed = RelationFile::parse(&format!("base/5/{number}{suffix}{dot}"));
            prop_assert_eq!(parsed, Some(RelationFile { number, fork, segment }));
        }

        #[test]
        fn any_path_is_judged_without_panic(path in "(base/[0-9]{1,3}/)?[0-9t_.a-z]{0,12}|\\PC{0,24}") {
            let _ = (treatment(&path), directory_treatment(&path), RelationFile::parse(&path));
        }
    }
}
