//! Base backups of a real PostgreSQL, restored with stock tools alone: `zstd`, `tar`,
//! `pg_verifybackup`, and a `restore_command` that is a line of shell.
//!
//! The backup is taken through the library; WAL is archived by wald's own command line without
//! an agent, because a backup believes only sealed segments. It is restored without wald.

use anyhow::{Context, Result, ensure};
use std::fs;
use std::num::NonZeroUsize;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use wald::backup::{
    self, BackupError, BackupOptions, BackupReport, CheckpointMode, ClusterIdentity, Progress,
};
use wald::codec::seal::{Effort, seal};
use wald::store::{AwsEnvironment, Store, StoreOptions};
use wald_core::catalog::CatalogEntry;
use wald_core::control_file::ControlFile;
use wald_core::file_list::FileList;
use wald_core::object_key::{ObjectKey, WalObject};
use wald_core::segment::SegmentName;
use wald_core::wal_file::WalFile;
use wald_integration::agent::archive_through;
use wald_integration::postgres::{Cluster, ClusterOptions, Shutdown};
use wald_integration::process::Process;
use wald_integration::run::run;
use wald_integration::sandbox::Sandbox;
use wald_integration::seaweed::{ACCESS_KEY, S3Server, SECRET_KEY};
use wald_integration::wald::{Place, Settings, Wald};
use wald_integration::{parts, wait};

/// A cluster that archives into a directory that is a repository as well.
struct Setting {
    sandbox: Sandbox,
    cluster: Cluster,
    repository: PathBuf,
    store: Store,
    identity: ClusterIdentity,
}

impl Setting {
    fn new(options: ClusterOptions) -> Result<Setting> {
        let sandbox = Sandbox::new()?;
        let repository = sandbox.dir("repository")?;
        sandbox.dir("repository/wal")?;
        let mut cluster = Cluster::create(&sandbox, "origin", &options)?;
        let place = Place::Directory(repository.clone());
        let wald = Wald::configure(&sandbox, "origin", &cluster, &place, Settings::new())?;
        archive_through(&mut cluster, &wald)?;
        cluster.start()?;
        wald.succeed(&["repo", "init"])?;
        let store = Store::open(&StoreOptions::new(format!("file://{}", repository.display())))?;
        let control = ControlFile::parse(&fs::read(cluster.data_dir().join(ControlFile::PATH))?)?;
        let identity =
            ClusterIdentity { system_id: control.system_id(), segment_size: control.segment_size() };
        Ok(Setting { sandbox, cluster, repository, store, identity })
    }

    fn options(&self, cluster: &Cluster) -> BackupOptions {
        BackupOptions {
            data_dir: cluster.data_dir().to_owned(),
            connection: cluster.connection(),
            workers: NonZeroUsize::MIN.saturating_add(1),
            part_bytes: 4 << 20,
            rate_max_bytes: None,
            compression_level: 1,
            checkpoint: CheckpointMode::Fast,
            wal_timeout: Duration::from_secs(60),
        }
    }

    async fn backup(&self) -> Result<BackupReport, BackupError> {
        self.backup_of(&self.cluster, CancellationToken::new()).await
    }

    async fn backup_of(
        &self,
        cluster: &Cluster,
        cancel: CancellationToken,
    ) -> Result<BackupReport, BackupError> {
        backup::run(&self.store, self.identity, self.options(cluster), Progress::new(), cancel).await
    }

    async fn entry(&self, report: &BackupReport) -> Result<CatalogEntry> {
        let json = self.store.get(&ObjectKey::catalog(&report.id), 1 << 20).await?;
        Ok(CatalogEntry::parse(&json)?)
    }

    fn object(&self, entry: &CatalogEntry, name: &str) -> Result<PathBuf> {
        Ok(self.repository.join(entry.object_key(name)?.as_str()))
    }

    /// Unpacks the parts as the README tells a person without wald to do.
    fn restore_by_hand(&self, entry: &CatalogEntry, name: &str) -> Result<PathBuf> {
        let to = self.sandbox.dir(name)?;
        for part in entry.parts() {
            let into = match part.tablespace {
                None => to.clone(),
                Some(oid) => self.sandbox.dir(&format!("{name}-{oid}"))?,
            };
            let object = self.object(entry, &part.name)?;
            ensure!(fs::metadata(&object)?.len() == part.stored_bytes, "{} has another size", part.name);
            ensure!(blake3::hash(&fs::read(&object)?).to_string() == part.blake3.to_string());
            let mut tar = self.sandbox.account().command("sh");
            tar.args(["-c", "zstd -dc \"$0\" | tar -x -p -f - -C \"$1\""]).arg(&object).arg(&into);
            run(tar)?.success()?;
        }
        for tablespace in &entry.facts().tablespaces {
            let link = to.join(format!("pg_tblspc/{}", tablespace.oid));
            symlink(self.sandbox.path().join(format!("{name}-{}", tablespace.oid)), &link)?;
        }
        Ok(to)
    }

    /// What the stock tool says of the restored files. The WAL is not there yet: `-n`.
    fn verify(&self, entry: &CatalogEntry, restored: &Path) -> Result<()> {
        let manifest = self.object(entry, &entry.facts().manifest.name)?;
        let mut verify = self.sandbox.account().command(parts::postgres_program("pg_verifybackup")?);
        verify.args(["-n", "-m"]).arg(manifest).arg(restored);
        run(verify)?.success().context("pg_verifybackup")?;
        Ok(())
    }

    /// Starts what was restored, to the end of the archived WAL.
    fn recover(&self, name: &str, restored: &Path, entry: &CatalogEntry) -> Result<Cluster> {
        let map = restored.join("tablespace_map");
        if map.exists() {
            let mut text = String::new();
            for tablespace in &entry.facts().tablespaces {
                let directory = self.sandbox.path().join(format!("{name}-{}", tablespace.oid));
                text.push_str(&format!("{} {}\n", tablespace.oid, directory.display()));
            }
            fs::write(&map, text)?;
        }
        fs::write(restored.join("recovery.signal"), "")?;
        self.sandbox.account().own(&restored.join("recovery.signal"))?;
        let mut cluster = Cluster::adopt(&self.sandbox, name, restored)?;
        cluster.configure("archive_mode = off")?;
        let wal = self.repository.join("wal");
        cluster.configure(&format!("restore_command = 'zstd -q -d -f {}/%f.zst -o %p'", wal.display()))?;
        cluster.start()?;
        cluster.wait_primary(Duration::from_secs(60))?;
        Ok(cluster)
    }

    fn has_catalog(&self) -> bool {
        fs::read_dir(self.repository.join("catalog")).is_ok_and(|mut entries| entries.next().is_some())
    }
}

fn small_segments() -> ClusterOptions {
    ClusterOptions { segment_size_mib: 1, ..ClusterOptions::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_under_load_is_restored_with_stock_tools() -> Result<()> {
    let setting = Setting::new(small_segments().setting("max_wal_size = 64MB"))?;
    let origin = &setting.cluster;
    let space = setting.sandbox.dir("space")?;
    origin.exec(&format!("create tablespace elsewhere location '{}'", space.display()))?;
    origin.exec("create table in_space (i int, t text) tablespace elsewhere")?;
    origin.exec("insert into in_space select i, repeat('x', i % 300) from generate_series(1, 20000) i")?;
    origin.exec("create unlogged table forgotten as select generate_series(1, 1000) i")?;
    origin.run("pgbench", &["-i", "-q", "-s", "3"])?;
    let unlogged = origin.scalar("select pg_relation_filepath('forgotten')")?;
    fs::write(origin.data_dir().join("base/pgsql_tmp9.9"), "junk")?;
    fs::write(origin.data_dir().join("pg_stat_tmp/junk"), "junk")?;

    let mut load = origin.command("pgbench")?;
    load.args(["-T", "120", "-c", "2"]);
    let mut load = Process::spawn("pgbench", load, &setting.sandbox.path().join("pgbench.log"))?;
    let report = setting.backup().await?;
    load.must_run()?;
    load.kill_hard()?;
    origin.exec("insert into in_space values (-1, 'after the backup')")?;
    let mut setting = setting;
    setting.cluster.wait_archived()?;
    let before = setting.cluster.fingerprint()?;

    let entry = setting.entry(&report).await?;
    assert!(report.bad_pages.is_empty(), "{:?}", report.bad_pages);
    assert!(report.parts >= 6, "{} parts", report.parts);
    assert_eq!(report.files, entry.files());
    assert!(entry.stop_lsn() > entry.start_lsn());
    assert!(entry.facts().data_checksums);
    let oid = entry.facts().tablespaces[0].oid;
    assert_eq!(Path::new(&entry.facts().tablespaces[0].location), space);

    let listed = fs::read(setting.object(&entry, &entry.facts().file_list.name)?)?;
    let listed = zstd_decode(&setting.sandbox, &listed)?;
    let list = FileList::parse(&report.id, &listed)?;
    list.check_against(&entry)?;
    let has = |path: &str| list.files.iter().any(|file| file.path.as_bytes() == path.as_bytes());
    assert!(has("global/pg_control") && has("backup_label") && has("tablespace_map"));
    assert!(has(&format!("{unlogged}_init")) && !has(&unlogged));
    assert!(!has("base/pgsql_tmp9.9") && !has("pg_stat_tmp/junk") && !has("postmaster.pid"));
    let last = &entry.parts().iter().rfind(|part| part.tablespace.is_none()).unwrap().name;
    let in_last: Vec<_> =
        list.files.iter().filter(|file| file.part == *last).map(|file| file.path.to_string()).collect();
    assert_eq!(in_last, ["backup_label", "tablespace_map", "global/pg_control"]);

    setting.cluster.stop(Shutdown::Immediate)?;
    let restored = setting.restore_by_hand(&entry, "copy")?;
    setting.verify(&entry, &restored)?;
    for kept in ["pg_wal/archive_status", "pg_replslot", "pg_stat_tmp", "pg_tblspc"] {
        let metadata = fs::metadata(restored.join(kept))?;
        assert!(metadata.is_dir() && metadata.permissions().mode() & 0o7777 == 0o700, "{kept}");
    }
    assert_eq!(fs::metadata(restored.join("PG_VERSION"))?.uid(), setting.sandbox.account().uid());
    let copy = setting.recover("copy", &restored, &entry)?;
    let differences = before.differences(&copy.fingerprint()?);
    assert!(!differences.iter().any(|line| !line.contains("forgotten")), "{differences:?}");
    assert_eq!(copy.scalar("select count(*) from forgotten")?, "0", "unlogged tables come back empty");
    assert_eq!(
        fs::read_link(restored.join(format!("pg_tblspc/{oid}")))?,
        setting.sandbox.path().join(format!("copy-{oid}"))
    );
    copy.run("pg_amcheck", &["--all", "--install-missing", "--heapallindexed", "--progress"])?;
    Ok(())
}

fn zstd_decode(sandbox: &Sandbox, bytes: &[u8]) -> Result<Vec<u8>> {
    let path = sandbox.path().join("list.zst");
    fs::write(&path, bytes)?;
    let mut zstd = sandbox.account().command("zstd");
    zstd.args(["-dc"]).arg(&path);
    Ok(run(zstd)?.success()?.stdout.into_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_page_is_named_and_the_backup_still_made() -> Result<()> {
    let mut setting = Setting::new(small_segments())?;
    setting.cluster.exec("create table t as select generate_series(1, 5000) i")?;
    setting.cluster.exec("checkpoint")?;
    let path = setting.cluster.scalar("select pg_relation_filepath('t')")?;
    setting.cluster.stop(Shutdown::Fast)?;
    let file = setting.cluster.data_dir().join(&path);
    let mut bytes = fs::read(&file)?;
    bytes[3 * 8192 + 5000] ^= 0x40;
    // A position beyond all WAL: it must not pass for a page that changed during the backup.
    bytes[6 * 8192..6 * 8192 + 8].copy_from_slice(&[0x7f, 0, 0, 0, 0, 0, 0, 0]);
    fs::write(&file, &bytes)?;
    setting.cluster.start()?;
    let report = setting.backup().await?;
    let found: Vec<_> = report.bad_pages.iter().map(|page| (page.file.as_str(), page.block)).collect();
    assert_eq!(found, [(path.as_str(), 3), (path.as_str(), 6)], "{:?}", report.bad_pages);
    assert_eq!(setting.entry(&report).await?.facts().bad_pages, report.bad_pages);
    let entry = setting.entry(&report).await?;
    let restored = setting.restore_by_hand(&entry, "copy")?;
    setting.verify(&entry, &restored)
}

/// Brings WAL into a repository that PostgreSQL does not archive to, until cancelled.
async fn carry_wal(from: PathBuf, to: Store, end: CancellationToken) -> Result<()> {
    while !end.is_cancelled() {
        for entry in fs::read_dir(&from)? {
            let path = entry?.path();
            let name = path.file_name().context("a file without a name")?.to_string_lossy().into_owned();
            let Some(WalObject::File(file @ WalFile::Segment(_))) = WalObject::parse(&format!("wal/{name}"))
            else {
                continue;
            };
            let key = ObjectKey::wal(file);
            if to.stat(&key).await.is_err_and(|error| error.is_absent()) {
                to.create(&key, fs::read(&path)?.into()).await?;
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_goes_to_s3_in_several_requests_per_part() -> Result<()> {
    let mut setting = Setting::new(ClusterOptions::default())?;
    let server = S3Server::start(&setting.sandbox)?;
    server.client().create_locked_bucket("locked")?;
    let mut options = StoreOptions::new("s3://locked/one");
    options.s3.endpoint = Some(server.endpoint());
    options.s3.region = Some("us-east-1".to_owned());
    options.s3.path_style = true;
    options.s3.allow_http = true;
    options.s3.environment = AwsEnvironment::with_key_pair(ACCESS_KEY, SECRET_KEY);
    setting.store = Store::open(&options)?;
    // Text that zstd can't make small: 45 MB of it.
    setting.cluster.exec(
        "create table noise as select i, string_agg(md5(i::text || j::text), '') t \
         from generate_series(1, 1000) i, generate_series(1, 1400) j group by i",
    )?;
    let end = CancellationToken::new();
    let carrier = tokio::spawn(carry_wal(setting.repository.join("wal"), setting.store.clone(), end.clone()));
    let mut options = setting.options(&setting.cluster);
    options.part_bytes = 1 << 30;
    let report =
        backup::run(&setting.store, setting.identity, options, Progress::new(), CancellationToken::new())
            .await?;
    end.cancel();
    carrier.await??;

    let entry = setting.entry(&report).await?;
    assert!(entry.parts().iter().any(|part| part.stored_bytes > 20 << 20), "{:?}", entry.parts());
    // A copy in a directory, for the tools that know nothing of S3.
    for name in entry.parts().iter().map(|part| &part.name).chain([&entry.facts().manifest.name]) {
        let key = entry.object_key(name)?;
        let path = setting.repository.join(key.as_str());
        fs::create_dir_all(path.parent().context("a key without a folder")?)?;
        fs::write(path, setting.store.get(&key, 1 << 30).await?)?;
    }
    let restored = setting.restore_by_hand(&entry, "copy")?;
    setting.verify(&entry, &restored)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_backed_up() -> Result<()> {
    let mut setting = Setting::new(small_segments())?;
    setting.cluster.run("pgbench", &["-i", "-q", "-s", "1"])?;
    let mut standby = setting.cluster.standby(&setting.sandbox, "standby")?;
    standby.start()?;
    setting.cluster.run("pgbench", &["-t", "200"])?;
    let target = setting.cluster.scalar("select pg_current_wal_lsn()")?;
    wait::until_true("the standby to catch up", Duration::from_secs(60), || {
        Ok(standby.scalar(&format!("select pg_last_wal_replay_lsn() >= '{target}'"))? == "t")
    })?;
    setting.cluster.wait_archived()?;
    // The standby can't switch segments: the primary's WAL must move on meanwhile.
    let moving = async {
        loop {
            setting.cluster.exec("select pg_switch_wal()")?;
            setting.cluster.exec("create table moving (); drop table moving")?;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let report = tokio::select! {
        report = setting.backup_of(&standby, CancellationToken::new()) => report?,
        moved = moving => return moved,
    };
    let entry = setting.entry(&report).await?;
    assert!(entry.facts().from_standby);
    let before = setting.cluster.fingerprint()?;
    let restored = setting.restore_by_hand(&entry, "copy")?;
    setting.verify(&entry, &restored)?;
    fs::remove_file(restored.join("standby.signal"))?;
    let copy = setting.recover("copy", &restored, &entry)?;
    assert_eq!(before.differences(&copy.fingerprint()?), [""; 0]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_backup_leaves_no_entry_and_no_backup_mode() -> Result<()> {
    let setting = Setting::new(small_segments())?;
    setting.cluster.run("pgbench", &["-i", "-q", "-s", "5"])?;
    let cancel = CancellationToken::new();
    let progress = Progress::new();
    let options = BackupOptions { compression_level: 19, ..setting.options(&setting.cluster) };
    let running = backup::run(&setting.store, setting.identity, options, progress.clone(), cancel.clone());
    let in_the_middle = async {
        while progress.snapshot().bytes_done < 1 << 20 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        cancel.cancel();
    };
    let (result, ()) = tokio::join!(running, in_the_middle);
    assert!(matches!(result, Err(BackupError::Cancelled)), "{result:?}");
    assert!(!setting.has_catalog());
    wait::until_true("the session to end", Duration::from_secs(10), || {
        let sessions = "select count(*) from pg_stat_activity where application_name = 'wald backup'";
        Ok(setting.cluster.scalar(sessions)? == "0")
    })?;
    let log = setting.cluster.log_text();
    assert!(log.contains("aborting backup due to backend exiting before"), "{log}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_dropped_ends_backup_mode_too() -> Result<()> {
    let setting = Setting::new(small_segments())?;
    setting.cluster.run("pgbench", &["-i", "-q", "-s", "5"])?;
    let progress = Progress::new();
    let options = BackupOptions { compression_level: 19, ..setting.options(&setting.cluster) };
    let cancel = CancellationToken::new();
    let running = backup::run(&setting.store, setting.identity, options, progress.clone(), cancel);
    let in_the_middle = async {
        while progress.snapshot().bytes_done < 1 << 20 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        result = running => anyhow::bail!("it ended before it was dropped: {result:?}"),
        () = in_the_middle => {}
    }
    // The worker may still finish the buffer that it has in hand; then it stops.
    let sessions = "select count(*) from pg_stat_activity where application_name = 'wald backup'";
    wait::until_true("the session to end", Duration::from_secs(10), || {
        Ok(setting.cluster.scalar(sessions)? == "0")
    })?;
    let snapshot = progress.snapshot();
    assert!(snapshot.bytes_done < snapshot.bytes_total / 2, "the workers went on: {snapshot:?}");
    assert!(!setting.has_catalog());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_ends_ends_the_backup() -> Result<()> {
    let setting = Setting::new(small_segments())?;
    setting.cluster.run("pgbench", &["-i", "-q", "-s", "5"])?;
    let progress = Progress::new();
    let options = BackupOptions { compression_level: 19, ..setting.options(&setting.cluster) };
    let cancel = CancellationToken::new();
    let running = backup::run(&setting.store, setting.identity, options, progress.clone(), cancel);
    let in_the_middle = async {
        while progress.snapshot().bytes_done < 1 << 20 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        setting.cluster.exec(
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'wald backup'",
        )
    };
    let (result, ended) = tokio::join!(running, in_the_middle);
    ended?;
    assert!(matches!(result, Err(BackupError::SessionLost)), "{result:?}");
    assert!(!setting.has_catalog());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn wal_that_never_comes_prevents_the_entry() -> Result<()> {
    let mut setting = Setting::new(small_segments())?;
    setting.cluster.configure("archive_command = 'false'")?;
    setting.cluster.reload()?;
    let cancel = CancellationToken::new();
    let options = BackupOptions { wal_timeout: Duration::from_secs(2), ..setting.options(&setting.cluster) };
    let result = backup::run(&setting.store, setting.identity, options, Progress::new(), cancel).await;
    let text = result.map(|report| report.id.to_string()).unwrap_err().to_string();
    assert!(text.contains("is not in the repository") && text.contains("pg_stat_archiver"), "{text}");
    assert!(!setting.has_catalog());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_of_a_clone_in_the_repository_prevents_the_entry() -> Result<()> {
    let mut setting = Setting::new(small_segments())?;
    setting.cluster.wait_archived()?;
    setting.cluster.configure("archive_command = 'true'")?;
    setting.cluster.reload()?;
    wait::until_true("the setting", Duration::from_secs(10), || {
        Ok(setting.cluster.scalar("show archive_command")? == "true")
    })?;
    // What a clone would have archived under the names that come next.
    let current = setting.cluster.scalar("select pg_walfile_name(pg_current_wal_lsn())")?;
    let mut segment = SegmentName::parse(&current)?;
    for _ in 0..6 {
        let file = WalFile::Segment(segment);
        let bytes = usize::try_from(setting.identity.segment_size.bytes())?;
        let sealed = seal(file, setting.identity.system_id, &vec![7; bytes], Effort::Level(1))?;
        let object = sealed.pieces().collect();
        setting.store.create(&ObjectKey::wal(file), object).await?;
        segment = segment.next(setting.identity.segment_size).context("no further segment")?;
    }
    let text = setting.backup().await.map(|report| report.id.to_string()).unwrap_err().to_string();
    assert!(text.contains("a clone archives into this repository"), "{text}");
    assert!(!setting.has_catalog());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_backups_that_begin_at_once_are_two_backups() -> Result<()> {
    let setting = Setting::new(small_segments())?;
    let (one, other) = tokio::join!(setting.backup(), setting.backup());
    let (one, other) = (one?, other?);
    assert_ne!(one.id, other.id);
    for (report, name) in [(one, "one"), (other, "other")] {
        let entry = setting.entry(&report).await?;
        let restored = setting.restore_by_hand(&entry, name)?;
        setting.verify(&entry, &restored)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_together_is_refused_before_the_backup() -> Result<()> {
    let setting = Setting::new(small_segments())?;
    let other = Cluster::create(&setting.sandbox, "other", &small_segments())?;
    let run = |identity, options| {
        backup::run(&setting.store, identity, options, Progress::new(), CancellationToken::new())
    };
    let identity = setting.identity;
    let options = setting.options(&setting.cluster);

    let data_dir = other.data_dir().to_owned();
    let error = run(identity, BackupOptions { data_dir, ..options.clone() }).await.unwrap_err();
    assert!(matches!(error, BackupError::OtherDataDir { .. }), "{error}");

    let stranger = ClusterIdentity { system_id: "5".parse()?, ..identity };
    let error = run(stranger, options.clone()).await.unwrap_err();
    assert!(matches!(error, BackupError::OtherCluster { .. }), "{error}");

    // A copy of the directory has the same identity, and none of the server's checkpoints.
    let copy = setting.sandbox.dir("stale")?;
    fs::create_dir(copy.join("global"))?;
    fs::copy(setting.cluster.data_dir().join(ControlFile::PATH), copy.join(ControlFile::PATH))?;
    setting.cluster.exec("create table newer (i int)")?;
    let error = run(identity, BackupOptions { data_dir: copy, ..options.clone() }).await.unwrap_err();
    assert!(matches!(error, BackupError::OtherDirectory { .. }), "{error}");

    let mut setting = setting;
    setting.cluster.configure("archive_command = ''")?;
    setting.cluster.reload()?;
    let is_empty = "select setting = '' from pg_settings where name = 'archive_command'";
    wait::until_true(
        "the setting",
        Duration::from_secs(10),
        || Ok(setting.cluster.scalar(is_empty)? == "t"),
    )?;
    let error = setting.backup().await.unwrap_err();
    assert!(error.to_string().contains("archive_command"), "{error}");
    assert!(!setting.has_catalog());
    Ok(())
}
