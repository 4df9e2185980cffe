//! What `wald verify` finds, by name, and what it is silent about.

mod on_s3;

use anyhow::{Context, Result};
use serde_json::Value;
use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;
use wald::codec::open::{Expected, open};
use wald::codec::seal::{Effort, seal};
use wald_core::blake3_hex::Blake3Hex;
use wald_core::catalog::{CatalogEntry, CatalogFacts};
use wald_core::file_list::FileList;
use wald_core::wal_file::WalFile;
use wald_integration::postgres::Cluster;
use wald_integration::process::Process;
use wald_integration::scene::{Plot, Scene};
use wald_integration::wait;
use wald_integration::wald::{Settings, Wald};

const DEADLINE: Duration = Duration::from_secs(120);

/// `wald verify --json` and its report, which must come with this exit code.
fn verify(scene: &Scene, arguments: &[&str], code: i32) -> Result<Value> {
    let arguments: Vec<&str> = ["verify", "--json"].into_iter().chain(arguments.iter().copied()).collect();
    let ended = scene.agent.run(&arguments)?.exited_with(code)?;
    serde_json::from_str(&ended.stdout).with_context(|| format!("no JSON: {}", ended.said()))
}

/// The findings as (object, damage).
fn findings(report: &Value) -> Vec<(String, String)> {
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let findings = report["findings"].as_array().into_iter().flatten();
    findings.map(|finding| (text(finding, "object"), text(finding, "damage"))).collect()
}

fn finding<'a>(report: &'a Value, object: &str) -> Result<&'a Value> {
    let found = report["findings"].as_array().into_iter().flatten().find(|f| f["object"] == object);
    found.with_context(|| format!("{object} is not among the findings: {report:#}"))
}

/// A file of the repository that can be damaged and put back.
struct Victim {
    name: String,
    path: PathBuf,
    good: Vec<u8>,
}

impl Victim {
    fn new(scene: &Scene, name: &str) -> Result<Victim> {
        let path = scene.repository().join(name);
        let good = fs::read(&path).with_context(|| format!("reading {name}"))?;
        Ok(Victim { name: name.to_owned(), path, good })
    }

    fn write(&self, content: &[u8]) -> Result<()> {
        fs::write(&self.path, content).with_context(|| format!("writing {}", self.name))
    }

    fn remove(&self) -> Result<()> {
        fs::remove_file(&self.path).with_context(|| format!("removing {}", self.name))
    }

    fn restore(&self) -> Result<()> {
        self.write(&self.good)
    }
}

/// A cluster with two backups, and WAL before, between and behind them.
fn two_backups() -> Result<Scene> {
    let mut scene = Scene::open(Plot::small())?;
    scene
        .cluster
        .exec("create table t as select g, repeat(md5(g::text), 20) as x from generate_series(1, 5000) g")?;
    scene.agent.succeed(&["backup"])?;
    scene.write_segments(4)?;
    scene.agent.succeed(&["backup"])?;
    scene.write_segments(4)?;
    scene.cluster.wait_archived()?;
    // A ledger knows a file by its whole second: one that is damaged in the same looks like the one that was proven.
    std::thread::sleep(Duration::from_millis(1100));
    Ok(scene)
}

fn names(scene: &Scene, prefix: &str) -> Result<Vec<String>> {
    Ok(scene.place.objects(prefix)?.into_iter().map(|object| object.name).collect())
}

/// The segments' objects, in order.
fn segments(scene: &Scene) -> Result<Vec<String>> {
    let mut names = names(scene, "wal/")?;
    names.retain(|name| name.len() == "wal/000000010000000000000001.zst".len() && name.ends_with(".zst"));
    Ok(names)
}

fn entries(scene: &Scene) -> Result<Vec<CatalogEntry>> {
    let names = names(scene, "catalog/")?;
    names.iter().map(|name| Ok(CatalogEntry::parse(&scene.place.read(name)?)?)).collect()
}

fn object(entry: &CatalogEntry, name: &str) -> Result<String> {
    Ok(entry.object_key(name)?.to_string())
}

/// A promoted standby that archives into the same repository, after the old primary is gone.
fn fail_over(scene: &mut Scene) -> Result<(Cluster, Wald)> {
    let mut standby = scene.cluster.standby(&scene.sandbox, "standby")?;
    let promoted = Wald::configure(&scene.sandbox, "promoted", &standby, &scene.place, Settings::new())?;
    standby.set_environment(&promoted.environment());
    standby.configure(&format!("archive_command = '{}'", promoted.archive_command()))?;
    standby.start()?;
    scene.cluster.exec("create table before_the_failover ()")?;
    let lsn = scene.cluster.scalar("select pg_current_wal_flush_lsn()")?;
    wait::until_true("the standby to replay", DEADLINE, || {
        Ok(standby.scalar(&format!("select pg_last_wal_replay_lsn() >= '{lsn}'"))? == "t")
    })?;
    wait::until_true("the archive to have it all", DEADLINE, || Ok(scene.cluster.archive_backlog()? == 0))?;
    scene.cluster.kill_hard()?;
    standby.promote()?;
    for n in 0..4 {
        standby.exec(&format!(
            "create table after_{n} as select repeat('x', 500) from generate_series(1, 500)"
        ))?;
        standby.wait_archived()?;
    }
    Ok((standby, promoted))
}

#[test]
fn a_good_repository_with_a_failover_is_clean_and_the_next_night_reads_only_what_is_new() -> Result<()> {
    let mut scene = two_backups()?;
    let (mut standby, promoted) = fail_over(&mut scene)?;
    promoted.succeed(&["backup"])?;
    standby.wait_archived()?;
    let first = verify(&scene, &[], 0)?;
    assert_eq!(first["verdict"], "clean", "{first:#}");
    assert_eq!(first["new_objects"], first["provable_objects"], "{first:#}");
    assert!(first["new_objects"].as_u64().context("a number")? > 15, "{first:#}");
    assert!(first["read"]["raw_bytes"].as_u64().context("a number")? > 20 << 20, "{first:#}");

    standby.exec("create table later as select repeat('y', 500) from generate_series(1, 500)")?;
    let segment = standby.wait_archived()?;
    let second = verify(&scene, &[], 0)?;
    assert_eq!(second["new_objects"], 1, "{segment}: {second:#}");
    let due = second["due_objects"].as_u64().context("a number")?;
    let provable = second["provable_objects"].as_u64().context("a number")?;
    assert!((1..provable / 2).contains(&due), "the rotation reads a share: {second:#}");

    let full = verify(&scene, &["--full"], 0)?;
    assert_eq!(full["due_objects"], full["provable_objects"], "{full:#}");
    let presence = verify(&scene, &["--depth", "presence"], 0)?;
    assert_eq!(presence["read"]["objects"], 0, "{presence:#}");
    assert_eq!(names(&scene, "verify/")?.len(), 4);
    let people = scene.agent.succeed(&["verify"])?;
    assert!(people.stdout.contains("clean: nothing is wrong"), "{}", people.said());
    let record = fs::read_to_string(scene.sandbox.path().join("wald-state/runs/verify.json"))?;
    assert!(record.contains("\"good\"") && record.contains("clean; "), "{record}");
    standby.stop(wald_integration::postgres::Shutdown::Fast)
}

#[test]
fn damage_to_the_bytes_of_an_object_is_found_by_name_and_stays_found() -> Result<()> {
    let scene = two_backups()?;
    verify(&scene, &[], 0)?;
    let entry = entries(&scene)?.remove(0);
    let wal = segments(&scene)?;
    let wal = Victim::new(&scene, wal.get(wal.len() / 2).context("a segment")?)?;
    let part = Victim::new(&scene, &object(&entry, "base-0001.tar.zst")?)?;
    let list = Victim::new(&scene, &object(&entry, "files.json.zst")?)?;
    let manifest = Victim::new(&scene, &object(&entry, "backup_manifest")?)?;
    for victim in [&wal, &part, &list, &manifest] {
        let mut flipped = victim.good.clone();
        let middle = flipped.len() / 2;
        *flipped.get_mut(middle).context("a byte")? ^= 8;
        victim.write(&flipped)?;
        let report = verify(&scene, &[], 1)?;
        assert_eq!(findings(&report), [(victim.name.clone(), "content".to_owned())], "{report:#}");
        // Neither looking less closely nor another night makes it good.
        let report = verify(&scene, &["--depth", "presence"], 1)?;
        assert_eq!(findings(&report), [(victim.name.clone(), "content".to_owned())], "{report:#}");
        let report = verify(&scene, &[], 1)?;
        assert_eq!(report["suspect_objects"], 1, "{report:#}");
        assert_eq!(findings(&report), [(victim.name.clone(), "content".to_owned())], "{report:#}");
        victim.restore()?;
        verify(&scene, &[], 0)?;
    }
    for (victim, damage) in [(&wal, "content"), (&part, "size"), (&list, "size"), (&manifest, "size")] {
        victim.write(victim.good.get(..victim.good.len() - 7).context("some bytes")?)?;
        let report = verify(&scene, &[], 1)?;
        assert_eq!(findings(&report), [(victim.name.clone(), damage.to_owned())], "{report:#}");
        victim.restore()?;
    }
    verify(&scene, &[], 0)?;
    Ok(())
}

#[test]
fn objects_that_were_swapped_are_both_found() -> Result<()> {
    let scene = two_backups()?;
    let names = segments(&scene)?;
    let [one, other] = [3, 5].map(|back| names.get(names.len() - back).cloned().unwrap_or_default());
    let (one, other) = (Victim::new(&scene, &one)?, Victim::new(&scene, &other)?);
    one.write(&other.good)?;
    other.write(&one.good)?;
    let report = verify(&scene, &[], 1)?;
    let expected = [&other, &one].map(|victim| (victim.name.clone(), "content".to_owned()));
    assert_eq!(findings(&report), expected, "{report:#}");
    assert!(finding(&report, &one.name)?["problem"].as_str().context("text")?.contains("copied or renamed"));
    assert_eq!(finding(&report, &one.name)?["last_good"], Value::Null);
    Ok(())
}

#[test]
fn a_missing_segment_is_found_with_the_targets_that_it_costs() -> Result<()> {
    let scene = two_backups()?;
    verify(&scene, &[], 0)?;
    let names = segments(&scene)?;
    // Behind the second backup: nothing stands in for what follows.
    let late = Victim::new(&scene, names.get(names.len() - 3).context("a segment")?)?;
    late.remove()?;
    let windows = scene.agent.json(&["list"])?["recovery_windows"].clone();
    let until = windows[0]["until_lsn"].as_str().context("an LSN")?.to_owned();
    let report = verify(&scene, &[], 1)?;
    let found = finding(&report, &late.name)?;
    assert_eq!(found["damage"], "missing_wal", "{found:#}");
    assert_eq!(found["lost"][0]["from_lsn"], until.as_str(), "as wald list has it: {found:#}");
    assert!(found["last_good"].is_string(), "{found:#}");
    assert_eq!(report["lost_targets"], found["lost"]);
    let people = scene.agent.run(&["verify"])?.exited_with(1)?;
    assert!(
        people.stdout.contains("lost targets: ") && people.stdout.contains(&late.name),
        "{}",
        people.said()
    );
    late.restore()?;

    // In front of it the second backup serves what follows.
    let before = entries(&scene)?.get(1).context("a backup")?.start_lsn().get() >> 20;
    let early = format!("wal/{:08X}{:016X}.zst", 1, before - 2);
    let early = Victim::new(&scene, &early)?;
    early.remove()?;
    let report = verify(&scene, &[], 1)?;
    let stop = entries(&scene)?.get(1).context("a backup")?.stop_lsn().to_string();
    let found = finding(&report, &early.name)?;
    assert_eq!(found["lost"][0]["until_lsn"], stop, "{found:#}");
    early.restore()?;
    verify(&scene, &[], 0)?;
    Ok(())
}

#[test]
fn a_missing_history_is_found_and_so_is_a_missing_proof() -> Result<()> {
    let mut scene = two_backups()?;
    let (_standby, _) = fail_over(&mut scene)?;
    verify(&scene, &[], 0)?;
    let history = Victim::new(&scene, "wal/00000002.history")?;
    let proof = Victim::new(&scene, "wal/00000002.history.b3")?;
    history.remove()?;
    let report = verify(&scene, &[], 1)?;
    let found = finding(&report, &history.name)?;
    assert_eq!(
        (&found["damage"], &found["lost"][0]["timeline"]),
        (&"missing".into(), &2.into()),
        "{found:#}"
    );
    // Also without what earlier runs knew.
    fs::remove_dir_all(scene.repository().join("verify"))?;
    finding(&verify(&scene, &[], 1)?, &history.name)?;
    history.restore()?;
    proof.remove()?;
    finding(&verify(&scene, &[], 1)?, &proof.name)?;
    proof.restore()?;
    history.write(b"1\t0/9999999\tno recovery target specified\n")?;
    assert_eq!(findings(&verify(&scene, &[], 1)?), [(history.name.clone(), "content".to_owned())]);
    history.restore()?;
    verify(&scene, &[], 0)?;
    Ok(())
}

#[test]
fn a_wrong_record_is_found_in_an_object_whose_own_hash_is_right() -> Result<()> {
    let scene = two_backups()?;
    verify(&scene, &[], 0)?;
    let names = segments(&scene)?;
    let victim = Victim::new(&scene, names.get(names.len() - 3).context("a segment")?)?;
    let file = victim.name.trim_start_matches("wal/").trim_end_matches(".zst");
    let file = WalFile::parse(file)?;
    let system_id = entries(&scene)?.first().context("a backup")?.system_id();
    let mut raw = Vec::new();
    open(&victim.good, &Expected { file, system_id, raw_bytes_max: 1 << 20 }, &mut raw)?;
    for byte in raw.get_mut(20_000..20_016).context("some bytes")? {
        *byte ^= 0xFF;
    }
    let sealed = seal(file, system_id, &raw, Effort::Level(3))?;
    victim.write(&sealed.to_vec())?;
    verify(&scene, &["--depth", "content"], 0)?;
    let report = verify(&scene, &[], 1)?;
    assert_eq!(findings(&report), [(victim.name.clone(), "records".to_owned())], "{report:#}");
    let found = finding(&report, &victim.name)?;
    assert!(found["problems"][0].as_str().context("text")?.contains("record at"), "{found:#}");
    assert!(found["lost"][0]["from_lsn"].is_string(), "{found:#}");
    victim.restore()?;
    verify(&scene, &[], 0)?;
    Ok(())
}

/// Rebuilds a part with another content of one file, and every hash with it.
fn rebuild(scene: &Scene, entry: &CatalogEntry, path: &str, damage: impl Fn(&mut Vec<u8>)) -> Result<()> {
    let mut facts: CatalogFacts = entry.facts().clone();
    let list_name = object(entry, &facts.file_list.name)?;
    let text = zstd::decode_all(&*scene.place.read(&list_name)?)?;
    let mut list = FileList::parse(entry.id(), &text)?;
    let file = list.files.iter_mut().find(|file| file.path.to_string() == path).context("the file")?;
    let part = facts.parts.iter_mut().find(|part| part.name == file.part).context("its part")?;
    let part_name = object(entry, &part.name)?;
    let tar = zstd::decode_all(&*scene.place.read(&part_name)?)?;
    let mut builder = tar::Builder::new(Vec::new());
    for member in tar::Archive::new(&*tar).entries()? {
        let mut member = member?;
        let mut content = Vec::new();
        member.read_to_end(&mut content)?;
        if *member.path_bytes() == *path.as_bytes() {
            damage(&mut content);
            file.blake3 = Blake3Hex::of(&content);
        }
        let (mut header, name) = (member.header().clone(), member.path()?.into_owned());
        builder.append_data(&mut header, name, &*content)?;
    }
    let rebuilt = zstd::encode_all(&*builder.into_inner()?, 3)?;
    part.stored_bytes = u64::try_from(rebuilt.len())?;
    part.blake3 = Blake3Hex::of(&rebuilt);
    scene.place.tamper(&part_name, &rebuilt)?;
    let list = zstd::encode_all(list.print(entry.id()).as_bytes(), 3)?;
    facts.file_list.stored_bytes = u64::try_from(list.len())?;
    facts.file_list.blake3 = Blake3Hex::of(&list);
    scene.place.tamper(&list_name, &list)?;
    let json = CatalogEntry::new(facts)?.to_json()?;
    scene.place.tamper(&format!("catalog/{}.json", entry.id()), &json)
}

#[test]
fn a_damaged_data_page_is_found_though_every_hash_is_right() -> Result<()> {
    let scene = two_backups()?;
    verify(&scene, &[], 0)?;
    let entry = entries(&scene)?.remove(0);
    let path = scene.cluster.scalar("select pg_relation_filepath('pg_proc')")?;
    rebuild(&scene, &entry, &path, |content| {
        if let Some(byte) = content.get_mut(3 * 8192 + 5000) {
            *byte ^= 1;
        }
    })?;
    verify(&scene, &["--depth", "content"], 0)?;
    let report = verify(&scene, &[], 1)?;
    let part = object(&entry, "base-0001.tar.zst")?;
    assert_eq!(findings(&report), [(part.clone(), "pages".to_owned())], "{report:#}");
    let found = finding(&report, &part)?;
    let problem = found["problems"][0].as_str().context("text")?;
    assert!(problem.contains(&format!("{path} block 3")) && problem.contains("checksum"), "{problem}");
    // Until the second backup's end, only this one serves.
    let stop = entries(&scene)?.get(1).context("a backup")?.stop_lsn().to_string();
    assert_eq!(found["lost"][0]["until_lsn"], stop, "{found:#}");
    Ok(())
}

#[test]
fn an_entry_that_points_to_a_missing_part_is_found_and_an_unreadable_one_too() -> Result<()> {
    let scene = two_backups()?;
    let entry = entries(&scene)?.remove(1);
    let part = Victim::new(&scene, &object(&entry, "base-0001.tar.zst")?)?;
    part.remove()?;
    let report = verify(&scene, &[], 1)?;
    let found = finding(&report, &part.name)?;
    assert_eq!(found["damage"], "missing", "{found:#}");
    assert!(found["needed_by"].as_str().context("text")?.contains(&entry.id().to_string()));
    // The older backup with its WAL reaches every target.
    assert_eq!(found["lost"], serde_json::json!([]), "{found:#}");
    part.restore()?;
    let entry = Victim::new(&scene, &format!("catalog/{}.json", entry.id()))?;
    entry.write(b"{}")?;
    assert_eq!(finding(&verify(&scene, &[], 1)?, &entry.name)?["damage"], "unreadable");
    entry.restore()?;
    verify(&scene, &[], 0)?;
    entry.remove()?;
    assert_eq!(finding(&verify(&scene, &[], 1)?, &entry.name)?["damage"], "missing");
    Ok(())
}

#[test]
fn a_damaged_ledger_means_never_verified_and_is_no_error() -> Result<()> {
    let scene = two_backups()?;
    verify(&scene, &[], 0)?;
    for name in names(&scene, "verify/")? {
        scene.place.tamper(&name, b"nonsense")?;
    }
    let report = verify(&scene, &[], 0)?;
    assert_eq!(report["new_objects"], report["provable_objects"], "{report:#}");
    assert!(report["notes"][0].as_str().context("a note")?.contains("never proven"), "{report:#}");
    Ok(())
}

/// The configuration of a second wald for the same repository.
fn slow(scene: &Scene) -> Result<Wald> {
    let settings = Settings::new().set_text("verify", "rate_max", "1MiB");
    Wald::configure(&scene.sandbox, "slow", &scene.cluster, &scene.place, settings)
}

fn begin_to_read(scene: &Scene, wald: &Wald, name: &str) -> Result<Process> {
    let log = scene.sandbox.path().join(format!("{name}.log"));
    let process = Process::spawn(name, wald.command(&["verify"]), &log)?;
    wait::until_true("the verification to read", DEADLINE, || Ok(process.log_text().contains("reading ")))?;
    Ok(process)
}

#[test]
fn an_interrupted_run_is_incomplete_and_the_next_one_completes() -> Result<()> {
    let scene = two_backups()?;
    let slow = slow(&scene)?;
    let mut killed = begin_to_read(&scene, &slow, "killed")?;
    killed.kill_hard()?;
    assert_eq!(names(&scene, "verify/")?.len(), 0);
    let mut interrupted = begin_to_read(&scene, &slow, "interrupted")?;
    let ended = interrupted.stop(rustix::process::Signal::INT, DEADLINE)?;
    assert_eq!(ended.code(), Some(2), "{}", interrupted.log_text());
    assert!(interrupted.log_text().contains("INCOMPLETE"), "{}", interrupted.log_text());
    assert_eq!(names(&scene, "verify/")?.len(), 1);
    let report = verify(&scene, &[], 0)?;
    assert_eq!(report["unread"], serde_json::json!([]), "{report:#}");
    let report = verify(&scene, &[], 0)?;
    assert_eq!(report["new_objects"], 0, "{report:#}");
    Ok(())
}

#[test]
fn a_repository_that_can_not_be_reached_is_neither_clean_nor_damaged() -> Result<()> {
    let scene = two_backups()?;
    let away = scene.sandbox.path().join("away");
    fs::rename(scene.repository(), &away)?;
    let ended = scene.agent.run(&["verify"])?.exited_with(2)?;
    assert!(!ended.stdout.contains("FINDING") && !ended.stdout.contains("clean"), "{}", ended.said());
    fs::rename(&away, scene.repository())?;
    verify(&scene, &[], 0)?;
    scene.agent.run(&["verify", "--backup", "20200101T000000Z-full"])?.exited_with(2)?;
    let id = entries(&scene)?.remove(0).id().to_string();
    let one = verify(&scene, &["--backup", &id], 0)?;
    assert!(one["due_objects"].as_u64() < one["objects"].as_u64(), "{one:#}");
    Ok(())
}

/// The most memory that a program has had, in KiB.
fn peak_memory(scene: &Scene, name: &str, arguments: &[&str]) -> Result<(u64, String)> {
    let log = scene.sandbox.path().join(format!("{name}.log"));
    let mut process = Process::spawn(name, scene.agent.command(arguments), &log)?;
    let status = format!("/proc/{}/status", process.id());
    let mut peak = 0;
    while process.ended()?.is_none() {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let now = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
        peak = now.unwrap_or(0).max(peak);
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok((peak, process.log_text()))
}

/// Bytes that nothing compresses, the same every time.
fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut noise = Vec::with_capacity(bytes + 8);
    while noise.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        noise.extend_from_slice(&state.to_le_bytes());
    }
    noise.truncate(bytes);
    noise
}

#[test]
fn memory_does_not_grow_with_the_repository() -> Result<()> {
    const MEMORY_KIB_MAX: u64 = 200 << 10;
    const SEGMENTS: u64 = 100_000;
    let settings = Settings::new().set("verify", "workers", "8").set_text("backup", "part_size", "32MiB");
    let mut scene = Scene::open(Plot { settings, ..Plot::small() })?;
    // More parts than lanes, that hardly compress, and many files.
    let big = scene.cluster.data_dir().join("big");
    fs::create_dir(&big)?;
    for number in 0..15u64 {
        fs::write(big.join(format!("noise-{number}")), noise(30 << 20, number + 1))?;
    }
    for number in 0..20_000 {
        fs::write(big.join(format!("a-file-with-a-name-{number}")), b"x")?;
    }
    scene.sandbox.account().own(&big)?;
    for entry in fs::read_dir(&big)? {
        scene.sandbox.account().own(&entry?.path())?;
    }
    scene.agent.succeed(&["backup"])?;
    scene.cluster.wait_archived()?;
    let (peak, said) = peak_memory(&scene, "content", &["verify"])?;
    println!("450 MiB of noise and 20,000 files: {} MiB\n{said}", peak >> 10);
    assert!(said.contains("clean"), "{said}");
    assert!(peak < MEMORY_KIB_MAX, "{peak} KiB");

    // As many segments as a listing may have; they follow the real ones and are not read.
    let names = segments(&scene)?;
    let last = names.last().context("a segment")?.trim_start_matches("wal/").trim_end_matches(".zst");
    let last = wald_core::segment::SegmentName::parse(last)?;
    let size = wald_core::segment::SegmentSize::new(1 << 20)?;
    let first = last.number(size).context("a number")? + 1;
    for number in first..first + SEGMENTS {
        let name = wald_core::segment::SegmentName::from_number(last.timeline(), number, size);
        let name = name.context("a name")?;
        let path = scene.repository().join(format!("wal/{name}.zst"));
        fs::write(&path, b"x")?;
        scene.sandbox.account().own(&path)?;
    }
    for name in ["first", "second"] {
        let (peak, said) = peak_memory(&scene, name, &["verify", "--depth", "presence"])?;
        println!("{SEGMENTS} segments, {name} run: {} MiB\n{said}", peak >> 10);
        assert!(said.contains("clean"), "{said}");
        assert!(peak < MEMORY_KIB_MAX, "{peak} KiB");
    }
    let ledger = scene.place.objects("verify/")?.pop().context("a ledger")?;
    println!("{} holds {} bytes", ledger.name, ledger.bytes);
    Ok(())
}
