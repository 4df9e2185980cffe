//! The pages of stored relations, held against base backups of a real PostgreSQL that was busy
//! meanwhile: silent on all of them, with data checksums and without, and never silent when a
//! page is damaged.

use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use wald_core::backup_label::BackupLabel;
use wald_core::control_file::ControlFile;
use wald_core::data_file::RelationFile;
use wald_core::data_page::{PAGE_BYTES, PageDamage, page_lsn};
use wald_core::file_proof::{FileProof, FileSums, part_path};
use wald_core::lsn::Lsn;
use wald_core::page_check::{PageChecksums, PageRules};
use wald_integration::postgres::{Cluster, ClusterOptions};
use wald_integration::sandbox::Sandbox;

/// Every kind of relation that PostgreSQL has, and its maps.
const RELATIONS: &str = "
    create table kinds (id serial primary key, n int, t text, p point, a int[]);
    insert into kinds (n, t, p, a)
        select i, repeat(md5(i::text), 1 + i % 200), point(i, -i), array[i, i % 7] from generate_series(1, 6000) i;
    create index on kinds using hash (n);
    create index on kinds using gin (a);
    create index on kinds using gist (p);
    create index on kinds using spgist (p);
    create index on kinds using brin (n);
    create unlogged table unlogged (n int primary key);
    insert into unlogged select generate_series(1, 5000);
    delete from kinds where id % 3 = 0;
    vacuum analyze kinds;
    update kinds set n = n + 1 where id % 5 = 0;
    checkpoint;";

/// The files of a backup by their paths in the data directory.
struct Backup {
    _sandbox: Sandbox,
    files: BTreeMap<String, Vec<u8>>,
    rules: PageRules,
}

fn read_files(root: &Path, below: &str, files: &mut BTreeMap<String, Vec<u8>>) -> Result<()> {
    for entry in fs::read_dir(root.join(below))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if below.is_empty() { name } else { format!("{below}/{name}") };
        if entry.file_type()?.is_dir() {
            read_files(root, &path, files)?;
        } else {
            files.insert(path, fs::read(entry.path())?);
        }
    }
    Ok(())
}

/// What PostgreSQL's manifest says about the WAL that the backup needs.
fn stop_of(manifest: &[u8]) -> Result<Lsn> {
    let manifest: serde_json::Value = serde_json::from_slice(manifest)?;
    let end = manifest.pointer("/WAL-Ranges/0/End-LSN").and_then(|end| end.as_str()).context("no end")?;
    Ok(end.parse()?)
}

impl Backup {
    fn take(checksums: PageChecksums) -> Result<Backup> {
        let sandbox = Sandbox::new()?;
        let options =
            ClusterOptions { data_checksums: checksums == PageChecksums::On, ..ClusterOptions::default() };
        let mut cluster = Cluster::create(&sandbox, "origin", &options)?;
        cluster.start()?;
        // One by one: a vacuum and a checkpoint can't be in a transaction with others.
        for statement in RELATIONS.split_inclusive(';') {
            cluster.exec(statement)?;
        }
        cluster.run("pgbench", &["--initialize", "--scale=3", "--quiet"])?;
        let target = sandbox.path().join("backup");
        let done = AtomicBool::new(false);
        let taken = thread::scope(|scope| {
            let load = scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    cluster.run("pgbench", &["--client=4", "--transactions=200", "--no-vacuum"])?;
                    cluster.exec("checkpoint")?;
                }
                anyhow::Ok(())
            });
            let target = target.to_string_lossy().into_owned();
            let taken = cluster.run(
                "pg_basebackup",
                &["--checkpoint=fast", "--no-sync", "--wal-method=none", "--max-rate=20M", "-D", &target],
            );
            done.store(true, Ordering::Relaxed);
            load.join().map_err(|_| anyhow::anyhow!("the load panicked"))??;
            taken
        });
        taken?;
        let mut files = BTreeMap::new();
        read_files(&target, "", &mut files)?;
        let file = |name: &str| files.get(name).with_context(|| format!("no {name}"));
        let control = ControlFile::parse(file(ControlFile::PATH)?)?;
        let label = BackupLabel::parse(&String::from_utf8_lossy(file("backup_label")?))?;
        ensure!((control.data_checksum_version() != 0) == (checksums == PageChecksums::On));
        let rules = PageRules {
            start: label.start(),
            stop: Some(stop_of(file("backup_manifest")?)?),
            blocks_per_segment: control.blocks_per_segment(),
            checksums,
        };
        Ok(Backup { _sandbox: sandbox, files, rules })
    }

    fn prove(&self, path: &str, content: &[u8]) -> FileSums {
        let mut proof = FileProof::new(&part_path(None, path), Some(self.rules));
        content.chunks(50_000).for_each(|piece| proof.feed(piece));
        proof.finish()
    }

    /// Whether the page at this offset is neither empty nor changed since the start: that one may
    /// be torn, and replay restores it.
    fn is_judged(&self, content: &[u8], at: usize) -> bool {
        let page = content.get(at..).and_then(|rest| rest.first_chunk::<PAGE_BYTES>());
        page.is_some_and(|page| {
            page.iter().any(|byte| *byte != 0) && page_lsn(page).is_none_or(|lsn| lsn < self.rules.start)
        })
    }

    fn relations(&self) -> impl Iterator<Item = (&String, &Vec<u8>)> {
        self.files.iter().filter(|(path, _)| RelationFile::parse(path).is_some())
    }

    /// No page of the backup is bad, and some were changed while it was taken.
    fn assert_sound(&self) {
        let (mut pages, mut newer) = (0, 0);
        for (path, content) in &self.files {
            let sums = self.prove(path, content);
            assert_eq!(sums.pages.bad, [], "{path}");
            assert_eq!(sums.bytes, content.len() as u64);
            assert_eq!(*sums.blake3.as_bytes(), *blake3::hash(content).as_bytes(), "{path}");
            newer += usize::from(sums.pages.newest.is_some());
            pages += if RelationFile::parse(path).is_some() { content.len() / PAGE_BYTES } else { 0 };
        }
        assert!(
            pages > 5000 && newer > 0,
            "{pages} pages, {newer} files changed meanwhile: too quiet a backup"
        );
    }
}

#[test]
fn every_damaged_page_of_a_cluster_with_checksums_is_found() -> Result<()> {
    let backup = Backup::take(PageChecksums::On)?;
    backup.assert_sound();
    let mut damaged = 0;
    for (path, content) in backup.relations() {
        let count = content.len() / PAGE_BYTES;
        for index in (0..count).step_by(1 + count / 4) {
            let mut content = content.clone();
            if !backup.is_judged(&content, index * PAGE_BYTES) {
                continue;
            }
            content[index * PAGE_BYTES + 8 + (index * 997) % (PAGE_BYTES - 8)] ^= 0x10;
            let bad: Vec<_> =
                backup.prove(path, &content).pages.bad.iter().map(|(index, _)| *index).collect();
            assert_eq!(bad, [u32::try_from(index)?], "{path}");
            damaged += 1;
        }
        // A page in another's place.
        if count > 1 && backup.is_judged(content, 0) {
            let mut content = content.clone();
            content.copy_within(0..PAGE_BYTES, PAGE_BYTES);
            let bad = backup.prove(path, &content[..2 * PAGE_BYTES]).pages.bad;
            assert!(matches!(bad.as_slice(), [(1, PageDamage::Checksum { .. })]), "{path}: {bad:?}");
        }
    }
    assert!(damaged > 300, "only {damaged} pages were damaged");
    Ok(())
}

#[test]
fn pages_without_checksums_are_held_against_what_a_header_must_be() -> Result<()> {
    let backup = Backup::take(PageChecksums::Off)?;
    backup.assert_sound();
    let mut damaged = 0;
    for (path, content) in backup.relations().filter(|(_, content)| content.len() >= PAGE_BYTES) {
        if !backup.is_judged(content, 0) {
            continue;
        }
        // pd_lower behind pd_upper, another page size, and a position that the log never reached.
        for (at, value) in [(13, 0x7F), (19, 0x40), (3, 0x7F)] {
            let mut content = content.clone();
            content[at] = value;
            let bad = backup.prove(path, &content).pages.bad;
            assert!(matches!(bad.as_slice(), [(0, _)]), "{path}: {bad:?}");
        }
        damaged += 1;
    }
    assert!(damaged > 100, "only {damaged} pages were damaged");
    Ok(())
}
