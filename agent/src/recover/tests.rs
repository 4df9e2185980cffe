//! Whole restores of small backups, from a repository in memory.

mod delta;

use super::*;
use crate::store::{PutPayload, Store};
use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use tempfile::TempDir;
use wald_core::backup_id::{BackupId, BackupKind};
use wald_core::blake3_hex::Blake3Hex;
use wald_core::catalog::{CatalogFacts, Part, StoredObject, Tablespace};
use wald_core::file_list::{FileList, ListedDir, ListedFile};
use wald_core::identity::Identity;
use wald_core::manifest::{FileChecksum, Manifest, ManifestFile, WalRange};
use wald_core::object_key::ObjectKey;
use wald_core::recovery_plan::ArchiveMode;
use wald_core::relative_path::RelativePath;
use wald_core::segment::{SegmentName, SegmentSize};
use wald_core::stored_range::StoredRange;
use wald_core::system_id::SystemId;
use wald_core::target::{Inclusion, RecoveryGoal, RecoveryTarget, TargetAction, TimelineChoice};
use wald_core::timeline::TimelineId;
use wald_core::wal_file::WalFile;

const SYSTEM: u64 = 7_711_064_753_221_121_848;
const LABEL: &str = "START WAL LOCATION: 0/3000028 (file 000000010000000000000003)\n";

type Tamper = Box<dyn Fn(&str, &mut Vec<u8>)>;
type Extra = Box<dyn Fn(&str, &mut tar::Builder<Vec<u8>>)>;
/// A file of the backup: in which part, its path there, its content.
type Source = (&'static str, &'static str, Vec<u8>);

/// The smallest `pg_control` that is one.
fn control(system: u64) -> Vec<u8> {
    let mut bytes = vec![0u8; 8192];
    let mut put = |offset: usize, value: &[u8]| bytes[offset..offset + value.len()].copy_from_slice(value);
    put(0, &system.to_le_bytes());
    put(8, &1300u32.to_le_bytes());
    put(16, &6u32.to_le_bytes());
    put(32, &0x300_0060u64.to_le_bytes());
    put(40, &0x300_0028u64.to_le_bytes());
    put(48, &1u32.to_le_bytes());
    put(228, &(16u32 << 20).to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..288]);
    bytes[288..292].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Bytes that do not compress away.
fn noise(seed: u32, length: usize) -> Vec<u8> {
    let mut output = vec![0; length];
    blake3::Hasher::new_derive_key("noise").update(&seed.to_le_bytes()).finalize_xof().fill(&mut output);
    output
}

struct Backup {
    sources: Vec<Source>,
    dirs: Vec<&'static str>,
    tablespace: PathBuf,
    /// Changes an object on its way into the repository.
    tamper: Tamper,
    /// Puts more into a part than the list says.
    extra: Extra,
    framed: bool,
}

impl Backup {
    fn new(tablespace: &Path) -> Self {
        let map = format!("16400 {}\n", tablespace.display());
        Self {
            sources: vec![
                ("base-0001.tar.zst", "PG_VERSION", b"15\n".to_vec()),
                ("base-0001.tar.zst", "base/5/1259", noise(1, 8192 * 5)),
                ("base-0001.tar.zst", "base/5/empty", Vec::new()),
                ("base-0001.tar.zst", "postgresql.auto.conf", b"primary_conninfo = 'host=old'\n".to_vec()),
                ("base-0002.tar.zst", "base/5/16384", noise(2, 700_000)),
                ("16400-0001.tar.zst", "PG_15_202209061/5/16401", noise(3, 300_000)),
                ("base-0003.tar.zst", "standby.signal", Vec::new()),
                ("base-0003.tar.zst", "backup_label", LABEL.as_bytes().to_vec()),
                ("base-0003.tar.zst", "tablespace_map", map.into_bytes()),
                ("base-0003.tar.zst", "global/pg_control", control(SYSTEM)),
            ],
            dirs: vec![
                "base",
                "base/5",
                "global",
                "pg_tblspc",
                "pg_wal",
                "pg_wal/archive_status",
                "pg_tblspc/16400/PG_15_202209061",
                "pg_tblspc/16400/PG_15_202209061/5",
            ],
            tablespace: tablespace.to_owned(),
            tamper: Box::new(|_, _| {}),
            extra: Box::new(|_, _| {}),
            framed: false,
        }
    }

    /// Each file in a frame of its own, and the list says where.
    fn framed(self) -> Self {
        Self { framed: true, ..self }
    }

    fn tampered(mut self, tamper: impl Fn(&str, &mut Vec<u8>) + 'static) -> Self {
        self.tamper = Box::new(tamper);
        self
    }

    fn parts(&self) -> Vec<&'static str> {
        let mut names: Vec<_> = self.sources.iter().map(|source| source.0).collect();
        names.dedup();
        names
    }

    /// The part as it is stored, and where the files stand in it.
    fn packed(&self, part: &str) -> (Vec<u8>, Vec<Option<StoredRange>>) {
        let mut builder = tar::Builder::new(Vec::new());
        let (mut stored, mut places) = (Vec::new(), Vec::new());
        for (_, path, content) in self.sources.iter().filter(|source| source.0 == part) {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o600);
            builder.append_data(&mut header, path, &content[..]).unwrap();
            let before = stored.len() as u64;
            if self.framed {
                let entry = std::mem::take(builder.get_mut());
                stored.extend(zstd::encode_all(&entry[..], 1).unwrap());
            }
            places.push(StoredRange::new(before, stored.len() as u64 - before).ok());
        }
        (self.extra)(part, &mut builder);
        stored.extend(zstd::encode_all(&builder.into_inner().unwrap()[..], 1).unwrap());
        (stored, places)
    }

    fn list(&self) -> FileList {
        let places = self.parts().into_iter().flat_map(|part| self.packed(part).1);
        let files = self.sources.iter().zip(places).map(|((part, path, content), at)| ListedFile {
            path: RelativePath::new(listed(part, path)).unwrap(),
            size: content.len() as u64,
            mode: 0o600,
            mtime: 1_700_000_000,
            blake3: Blake3Hex::of(content),
            part: (*part).to_owned(),
            at,
        });
        let dirs =
            self.dirs.iter().map(|path| ListedDir { path: RelativePath::new(*path).unwrap(), mode: 0o700 });
        FileList { files: files.collect(), dirs: dirs.collect() }
    }

    fn manifest(&self) -> Manifest {
        let files = self.sources.iter().map(|(part, path, content)| ManifestFile {
            path: listed(part, path).into_bytes(),
            size: content.len() as u64,
            modified: Timestamp::from_second(1_700_000_000).unwrap(),
            checksum: FileChecksum::Crc32c(crc32c::crc32c(content)),
        });
        let (start, end) = ("0/3000028".parse().unwrap(), "0/3000100".parse().unwrap());
        let wal_ranges = vec![WalRange { timeline: TimelineId::FIRST, start, end }];
        Manifest { files: files.collect(), wal_ranges }
    }

    async fn store(self) -> Repository {
        let store = Store::memory();
        let started_at: Timestamp = "2026-11-22T02:00:00Z".parse().unwrap();
        let id = BackupId::new(started_at, BackupKind::Full);
        let system_id = SystemId::new(SYSTEM).unwrap();
        let identity = Identity::new(system_id, SegmentSize::DEFAULT, started_at, "test");
        put(&store, &ObjectKey::identity(), identity.render().unwrap()).await;
        for number in 2..=4 {
            let name = SegmentName::from_number(TimelineId::FIRST, number, SegmentSize::DEFAULT).unwrap();
            put(&store, &ObjectKey::wal(WalFile::Segment(name)), vec![1]).await;
        }
        let mut parts = Vec::new();
        for name in self.parts() {
            let mut object = self.packed(name).0;
            let sources = self.sources.iter().filter(|source| source.0 == name);
            parts.push(Part {
                name: name.to_owned(),
                tablespace: name.starts_with("16400").then_some(16400),
                stored_bytes: object.len() as u64,
                raw_bytes: sources.clone().map(|source| source.2.len() as u64).sum(),
                files: sources.count() as u64,
                blake3: Blake3Hex::of(&object),
            });
            (self.tamper)(name, &mut object);
            put(&store, &ObjectKey::backup_object(&id, name).unwrap(), object).await;
        }
        let mut small = Vec::new();
        let list = zstd::encode_all(self.list().print(&id).as_bytes(), 1).unwrap();
        for (name, content) in
            [("files.json.zst", list), ("backup_manifest", self.manifest().to_string().into_bytes())]
        {
            small.push(StoredObject {
                name: name.to_owned(),
                stored_bytes: content.len() as u64,
                blake3: Blake3Hex::of(&content),
            });
            let mut content = content;
            (self.tamper)(name, &mut content);
            put(&store, &ObjectKey::backup_object(&id, name).unwrap(), content).await;
        }
        let facts = CatalogFacts {
            id: id.clone(),
            system_id,
            segment_size: SegmentSize::DEFAULT,
            pg_version_num: 150_018,
            data_checksums: true,
            timeline: TimelineId::FIRST,
            start_lsn: "0/3000028".parse().unwrap(),
            stop_lsn: "0/3000100".parse().unwrap(),
            started_at,
            stopped_at: started_at,
            from_standby: false,
            label: "test".to_owned(),
            tool_version: "test".to_owned(),
            tablespaces: vec![Tablespace {
                oid: 16400,
                location: self.tablespace.to_str().unwrap().to_owned(),
            }],
            parts,
            file_list: small[0].clone(),
            manifest: small[1].clone(),
            bad_pages: Vec::new(),
        };
        let entry = CatalogEntry::new(facts).unwrap();
        put(&store, &ObjectKey::catalog(&id), entry.to_json().unwrap()).await;
        Repository::open(store).await.unwrap()
    }
}

fn listed(part: &str, path: &str) -> String {
    if part.starts_with("16400") { format!("pg_tblspc/16400/{path}") } else { path.to_owned() }
}

async fn put(store: &Store, key: &ObjectKey, content: Vec<u8>) {
    store.create(key, PutPayload::from(content)).await.unwrap();
}

/// A place to restore to. PostgreSQL never runs as root, so as root it must be another user's.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(dir.path(), Some(65534), Some(65534)).unwrap();
        }
        Self { dir }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn tablespace(&self) -> PathBuf {
        self.dir.path().join("fast")
    }

    fn backup(&self) -> Backup {
        Backup::new(&self.tablespace())
    }

    fn options(&self, mode: Mode) -> RecoverOptions {
        let goal = RecoveryGoal::new(
            RecoveryTarget::EndOfWal,
            Inclusion::Inclusive,
            TimelineChoice::Latest,
            TargetAction::Promote,
        );
        RecoverOptions {
            to: self.data(),
            mode,
            tablespace_map: BTreeMap::new(),
            jobs: NonZeroUsize::new(3).unwrap(),
            request: PlanRequest {
                goal: goal.unwrap(),
                backup: None,
                restore_command: "wald-restore %f %p".to_owned(),
                archive_mode: ArchiveMode::Off,
            },
        }
    }

    async fn restore(&self, repository: &Repository, mode: Mode) -> Result<RecoverReport, RecoverError> {
        run(repository, &self.options(mode), Timestamp::now(), Progress::silent()).await
    }

    /// What a restored directory must be.
    fn assert_complete(&self, backup: &Backup) {
        for (part, path, content) in &backup.sources {
            if ["standby.signal", "postgresql.auto.conf"].contains(path) {
                continue;
            }
            let path = self.data().join(listed(part, path));
            assert!(fs::read(&path).unwrap() == *content, "{}", path.display());
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        }
        let mut names: Vec<_> =
            fs::read_dir(self.data()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        let expected = [
            "PG_VERSION",
            "backup_label",
            "backup_manifest",
            "base",
            "global",
            "pg_tblspc",
            "pg_wal",
            "postgresql.auto.conf",
            "recovery.signal",
            "tablespace_map",
        ];
        assert_eq!(names, expected);
        assert_eq!(fs::read_link(self.data().join("pg_tblspc/16400")).unwrap(), self.tablespace());
        assert_eq!(fs::metadata(self.data()).unwrap().permissions().mode() & 0o7777, 0o700);
        let conf = fs::read_to_string(self.data().join("postgresql.auto.conf")).unwrap();
        assert!(conf.starts_with("# before the restore: primary_conninfo"), "{conf}");
        assert!(conf.ends_with("archive_mode = 'off'\n"), "{conf}");
    }

    fn can_start(&self) -> bool {
        self.data().join("global/pg_control").exists()
    }
}

fn damage_of(result: Result<RecoverReport, RecoverError>) -> String {
    match result {
        Err(error @ (RecoverError::Damaged { .. } | RecoverError::FileList { .. })) => {
            crate::explain::chain(&error)
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_restored_directory_is_the_backup_ready_for_recovery() {
    let place = Place::new();
    let repository = place.backup().store().await;
    let report = place.restore(&repository, Mode::Fresh).await.unwrap();
    place.assert_complete(&place.backup());
    assert_eq!(report.files, 10);
    assert_eq!(report.kept_files, 0);
    let manifest = fs::read_to_string(place.data().join("backup_manifest")).unwrap();
    assert_eq!(manifest, place.backup().manifest().to_string());
    let text = report.to_string();
    assert!(text.contains("10 files, 1.0"), "{text}");
}

#[tokio::test]
async fn the_report_says_how_to_start_a_server_whose_configuration_is_elsewhere() {
    let place = Place::new();
    let report = place.restore(&place.backup().store().await, Mode::Fresh).await.unwrap();
    let (text, data) = (report.to_string(), place.data().display().to_string());
    let command = format!(
        "\n  pg_ctl -D {data} start -o \"-c config_file=/etc/postgresql/15/main/postgresql.conf \
         -c data_directory={data}\"\n"
    );
    assert!(text.contains(&command), "{text}");
    assert!(text.ends_with("\n  pg_ctlcluster 15 main start\n"), "{text}");

    let place = Place::new();
    let mut backup = place.backup();
    backup.sources.insert(0, ("base-0001.tar.zst", "postgresql.conf", b"port = 5433\n".to_vec()));
    let report = place.restore(&backup.store().await, Mode::Fresh).await.unwrap();
    assert_eq!(report.configuration_elsewhere, None);
    assert!(!report.to_string().contains("pg_ctl"), "{report}");
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let place = Place::new();
    let repository = place.backup().store().await;
    let plan = plan(&repository, &place.options(Mode::Fresh), Timestamp::now()).await.unwrap();
    assert_eq!(plan.wal_segments, 2);
    assert_eq!(fs::read_dir(place.dir.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_mapped_tablespace_is_mapped_in_every_place() {
    let place = Place::new();
    let repository = place.backup().store().await;
    let other = place.dir.path().join("other place");
    let mut options = place.options(Mode::Fresh);
    options.tablespace_map.insert(16400, other.clone());
    run(&repository, &options, Timestamp::now(), Progress::silent()).await.unwrap();
    assert!(!place.tablespace().exists());
    assert_eq!(fs::read(other.join("PG_15_202209061/5/16401")).unwrap(), noise(3, 300_000));
    assert_eq!(fs::read_link(place.data().join("pg_tblspc/16400")).unwrap(), other);
    let map = fs::read_to_string(place.data().join("tablespace_map")).unwrap();
    assert_eq!(map, format!("16400 {}\n", other.display()));
    let manifest = fs::read_to_string(place.data().join("backup_manifest")).unwrap();
    let files = Manifest::parse(&manifest).unwrap().files;
    let entry = files.iter().find(|file| file.path == b"tablespace_map").unwrap();
    assert_eq!(entry.checksum, FileChecksum::Crc32c(crc32c::crc32c(map.as_bytes())));
    assert_eq!(entry.size, map.len() as u64);
}

#[tokio::test]
async fn one_flipped_bit_anywhere_is_found_and_the_directory_cannot_start() {
    let names = Place::new().backup().parts();
    for name in names.into_iter().chain(["files.json.zst", "backup_manifest"]) {
        for thousandth in [0, 1, 300, 700, 999] {
            let place = Place::new();
            let backup = place.backup().tampered(move |object, bytes| {
                if object == name {
                    let at = bytes.len() * thousandth / 1000;
                    bytes[at] ^= 4;
                }
            });
            let damage = damage_of(place.restore(&backup.store().await, Mode::Fresh).await);
            assert!(damage.contains(&format!("{name} is damaged: its BLAKE3 is")), "{damage}");
            assert!(!place.can_start());
        }
    }
}

#[tokio::test]
async fn a_part_that_is_too_short_or_too_long_or_gone_is_found() {
    for cut in [0usize, 1, 1000] {
        let place = Place::new();
        let backup = place.backup().tampered(move |object, bytes| {
            if object == "base-0002.tar.zst" {
                bytes.truncate(cut);
            }
        });
        let damage = damage_of(place.restore(&backup.store().await, Mode::Fresh).await);
        assert!(damage.contains(&format!("it has {cut} bytes, the catalog says")), "{damage}");
    }
    let place = Place::new();
    let backup = place.backup().tampered(|object, bytes| {
        if object == "base-0002.tar.zst" {
            bytes.push(0);
        }
    });
    damage_of(place.restore(&backup.store().await, Mode::Fresh).await);
    let place = Place::new();
    let repository = place.backup().store().await;
    let id = BackupId::parse("20261122T020000Z-full").unwrap();
    let key = ObjectKey::backup_object(&id, "base-0002.tar.zst").unwrap();
    repository.store().delete(&key).await.unwrap();
    let error = place.restore(&repository, Mode::Fresh).await.unwrap_err();
    assert!(matches!(error, RecoverError::Read { .. }), "{error:?}");
    assert!(error.to_string().contains("base-0002.tar.zst"), "{error}");
    assert!(!place.can_start());
}

#[tokio::test]
async fn nothing_is_written_that_is_not_listed() {
    let entry = |name: &'static str, kind: tar::EntryType| {
        move |part: &str, builder: &mut tar::Builder<Vec<u8>>| {
            if part == "base-0002.tar.zst" {
                let mut header = tar::Header::new_old();
                header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
                header.set_entry_type(kind);
                header.as_old_mut().linkname[..4].copy_from_slice(b"/etc");
                header.set_size(0);
                header.set_cksum();
                builder.append(&header, std::io::empty()).unwrap();
            }
        }
    };
    let file = tar::EntryType::Regular;
    for (name, kind, expected) in [
        ("stray", file, "stray in it is not in the list"),
        ("../outside", file, "is not a path below the data directory"),
        ("/tmp/outside", file, "is not a path below the data directory"),
        ("base/5/1259", file, "base/5/1259 in it is not in the list"),
        ("base/5/link", tar::EntryType::Symlink, "neither a file nor a directory"),
        ("base/5/link", tar::EntryType::Link, "neither a file nor a directory"),
    ] {
        let place = Place::new();
        let mut backup = place.backup();
        backup.extra = Box::new(entry(name, kind));
        let damage = damage_of(place.restore(&backup.store().await, Mode::Fresh).await);
        assert!(damage.contains(expected), "{name}: {damage}");
        assert!(!place.can_start() && !place.dir.path().join("outside").exists());
    }
}

#[tokio::test]
async fn a_backup_that_could_not_be_started_safely_is_refused() {
    for missing in ["backup_label", "global/pg_control"] {
        let place = Place::new();
        let mut backup = place.backup();
        backup.sources.retain(|source| source.1 != missing);
        let error = place.restore(&backup.store().await, Mode::Fresh).await.unwrap_err();
        assert!(error.to_string().contains(&format!("has no {missing}")), "{error}");
        assert!(!place.data().exists());
    }
    let place = Place::new();
    let mut backup = place.backup();
    backup.sources.iter_mut().filter(|s| s.1 == "global/pg_control").for_each(|s| s.2 = control(9));
    let damage = damage_of(place.restore(&backup.store().await, Mode::Fresh).await);
    assert!(damage.contains("is of system 9"), "{damage}");
    assert!(!place.can_start());
}

#[tokio::test]
async fn a_directory_that_its_group_may_read_stays_so() {
    for (before, after) in [(0o750, 0o750), (0o755, 0o700), (0o770, 0o700), (0o700, 0o700)] {
        let place = Place::new();
        let repository = place.backup().store().await;
        fs::create_dir(place.data()).unwrap();
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(place.data(), Some(65534), Some(65534)).unwrap();
        }
        fs::set_permissions(place.data(), fs::Permissions::from_mode(before)).unwrap();
        place.restore(&repository, Mode::Fresh).await.unwrap();
        let found = fs::metadata(place.data()).unwrap().permissions().mode() & 0o7777;
        assert_eq!(found, after, "{before:o}");
    }
}

#[tokio::test]
async fn a_directory_in_use_or_of_another_cluster_is_refused_untouched() {
    let place = Place::new();
    let repository = place.backup().store().await;
    fs::create_dir(place.data()).unwrap();
    fs::write(place.data().join("precious"), "x").unwrap();
    for mode in [Mode::Fresh, Mode::Delta] {
        let error = place.restore(&repository, mode).await.unwrap_err().to_string();
        assert!(error.contains("not empty"), "{error}");
    }
    fs::create_dir(place.data().join("global")).unwrap();
    fs::write(place.data().join("global/pg_control"), control(5)).unwrap();
    let error = place.restore(&repository, Mode::Delta).await.unwrap_err();
    assert!(matches!(error, RecoverError::OtherSystem { .. }), "{error:?}");
    let mut server = std::process::Command::new("sleep").arg("60").current_dir(place.data()).spawn().unwrap();
    fs::write(place.data().join("postmaster.pid"), format!("{}\n", server.id())).unwrap();
    fs::write(place.data().join("global/pg_control"), control(SYSTEM)).unwrap();
    let error = place.restore(&repository, Mode::Delta).await.unwrap_err();
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(matches!(error, RecoverError::Running { .. }), "{error:?}");
    fs::write(place.data().join("postmaster.pid"), format!("{}\n", std::process::id())).unwrap();
    let error = place.restore(&repository, Mode::Delta).await.unwrap_err();
    assert!(matches!(error, RecoverError::MayRun { .. }), "{error:?}");
    assert!(error.to_string().contains("remove postmaster.pid"), "{error}");
    assert_eq!(fs::read_dir(place.data()).unwrap().count(), 3);
}

#[tokio::test]
async fn a_tablespace_that_may_be_in_use_is_refused() {
    let place = Place::new();
    let repository = place.backup().store().await;
    fs::create_dir(place.tablespace()).unwrap();
    fs::write(place.tablespace().join("x"), "x").unwrap();
    for mode in [Mode::Fresh, Mode::Delta] {
        let error = place.restore(&repository, mode).await.unwrap_err().to_string();
        assert!(error.contains("--tablespace-map 16400=DIR"), "{error}");
    }
    let mut options = place.options(Mode::Fresh);
    for (oid, directory, expected) in [
        (16400, place.data().join("inside"), "would overlap with"),
        (16400, place.dir.path().to_owned(), "is not empty"),
        (1, place.data(), "backup 20261122T020000Z-full has 16400"),
    ] {
        options.tablespace_map = BTreeMap::from([(oid, directory)]);
        let error = plan(&repository, &options, Timestamp::now()).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert!(!place.data().exists());
}

#[tokio::test]
async fn what_is_too_large_for_its_file_system_is_found() {
    let place = Place::new();
    let repository = place.backup().store().await;
    let entry = inventory::read(&repository).await.unwrap().catalog.remove(0);
    let data = place.data();
    assert_eq!(space::shortages(&entry, |_| Some(&data)), []);
    let mut facts = entry.facts().clone();
    facts.parts[0].raw_bytes = u64::MAX / 2;
    let huge = CatalogEntry::new(facts).unwrap();
    let found = space::shortages(&huge, |_| Some(&data));
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].directory, place.dir.path());
}
