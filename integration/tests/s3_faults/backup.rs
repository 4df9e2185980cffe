//! Base backups: one that is listed is whole, whatever failed; one that failed is not listed, and
//! what it left behind stands in no later one's way.

use super::{MIB, Stage, noise};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;
use wald_core::catalog::CatalogEntry;
use wald_integration::fault_proxy::{Failure, Fault, Requests, When};
use wald_integration::run::Finished;
use wald_integration::wald::Settings;

/// No backup of a suite takes longer.
const DEADLINE: Duration = Duration::from_secs(120);

/// A stage whose base backup has an object of more than one part.
fn stage(bucket: &str, retry_timeout: &str) -> Result<Stage> {
    let settings = Settings::new().set_text("backup", "wal_timeout", "60s");
    let stage = Stage::open_retrying(bucket, settings, retry_timeout)?;
    let file = stage.scene.cluster.data_dir().join("base/noise");
    fs::write(&file, noise(9 * MIB, 21))?;
    stage.scene.sandbox.account().own(&file)?;
    Ok(stage)
}

/// The objects of backups, but for the catalog's.
fn of_a_backup() -> Requests {
    Requests::all().path("-full/")
}

fn parts() -> Requests {
    Requests::parts().path("-full/")
}

fn completions() -> Requests {
    Requests::completions().path("-full/")
}

fn entry() -> Requests {
    Requests::creations().path("/catalog/")
}

fn manifest() -> Requests {
    Requests::creations().path("/backup_manifest")
}

impl Stage {
    /// `wald backup` while a fault is there, which it must have met.
    fn backup_despite(&self, requests: Requests, when: When, fault: Fault) -> Result<Finished> {
        self.proxy.clear();
        self.proxy.forget();
        self.proxy.add(requests, when, fault);
        let said = self.scene.agent.run_within(&["backup"], DEADLINE)?;
        self.proxy.clear();
        ensure!(self.proxy.injected() > 0, "the fault was never met: {}", said.said());
        Ok(said)
    }

    /// Every backup in the catalog, looked up past the proxy, has all of its objects with the sizes
    /// and the content that the entry speaks of; and `wald list` shows these backups and no other.
    /// The objects of those that were whole `before` can't change, and are not read again.
    fn whole_backups(&self, before: &BTreeSet<String>) -> Result<BTreeSet<String>> {
        let mut whole = before.clone();
        for stored in self.scene.place.objects("catalog/")? {
            if before.iter().any(|id| stored.name.contains(id)) {
                continue;
            }
            let entry = CatalogEntry::parse(&self.scene.place.read(&stored.name)?)?;
            let parts =
                entry.parts().iter().map(|part| (&part.name, part.stored_bytes, part.blake3.to_string()));
            let facts = entry.facts();
            let others = [&facts.manifest, &facts.file_list]
                .map(|object| (&object.name, object.stored_bytes, object.blake3.to_string()));
            for (name, bytes, hash) in parts.chain(others) {
                let content = self.scene.place.read(entry.object_key(name)?.as_str())?;
                ensure!(content.len() as u64 == bytes, "{name} of {} has another size", entry.id());
                ensure!(blake3::hash(&content).to_string() == hash, "{name} of {} is damaged", entry.id());
            }
            whole.insert(entry.id().to_string());
        }
        let listed: BTreeSet<String> = self.listed_backups()?.into_iter().collect();
        ensure!(listed == whole, "listed are {listed:?}, whole are {whole:?}");
        Ok(whole)
    }
}

#[test]
fn a_backup_that_failed_does_not_exist_and_the_next_one_does() -> Result<()> {
    let stage = stage("backup-faults", "500ms")?;
    let error = |code| Fault::OkWithError { code, carried_out: false };
    let mut before = BTreeSet::new();
    for (number, (requests, when, fault)) in [
        // A part that fails for ever, and one that never arrives whole.
        (parts(), When::After(1), Fault::Answer(Failure::INTERNAL_ERROR)),
        (parts(), When::After(1), Fault::CutRequest(1000)),
        // Credentials that expire in mid-upload.
        (of_a_backup(), When::After(5), Fault::Answer(Failure::EXPIRED_TOKEN)),
        (completions(), When::Always, error("InternalError")),
        (completions(), When::After(1), error("InvalidPart")),
        (manifest(), When::Always, Fault::Answer(Failure::CONFLICT)),
        (entry(), When::Always, Fault::Answer(Failure::SLOW_DOWN)),
        (entry(), When::Always, Fault::Answer(Failure::PRECONDITION_FAILED)),
        (entry(), When::Always, Fault::Answer(Failure::EXPIRED_TOKEN)),
        (entry(), When::Always, Fault::Page(200)),
    ]
    .into_iter()
    .enumerate()
    {
        let expired = fault == Fault::Answer(Failure::EXPIRED_TOKEN);
        let case = format!("{when:?} {fault:?}");
        let said = stage.backup_despite(requests, when, fault)?.exited_with(1).context(case.clone())?;
        assert!(!said.said().contains("can be restored"), "{case}: {}", said.said());
        assert_eq!(said.said().contains("access was refused"), expired, "{}", said.said());
        assert_eq!(stage.whole_backups(&before)?, before, "{case}");
        if number % 2 == 0 {
            continue;
        }
        // What two failures left behind, each in its way, is in nobody's.
        stage.scene.agent.succeed(&["backup"])?;
        let after = stage.whole_backups(&before)?;
        assert_eq!(after.len(), before.len() + 1, "{case}");
        before = after;
    }
    Ok(())
}

#[test]
fn a_backup_that_exists_is_told_to_exist_though_answers_were_lost() -> Result<()> {
    let stage = stage("backup-answers", "5s")?;
    let mut whole = BTreeSet::new();
    for (requests, when, fault) in [
        (parts(), When::First(2), Fault::CutAfter),
        (completions(), When::Always, Fault::CutAfter),
        (completions(), When::Always, Fault::OkWithError { code: "InvalidPart", carried_out: true }),
        (manifest(), When::First(1), Fault::Answer(Failure::CONFLICT)),
        (entry(), When::First(1), Fault::CutAfter),
        (entry(), When::First(1), Fault::StallAfter),
        (entry(), When::First(1), Fault::AnswerAfter(Failure::SLOW_DOWN)),
        (entry(), When::First(1), Fault::Answer(Failure::CONFLICT)),
    ] {
        let case = format!("{when:?} {fault:?}");
        stage.backup_despite(requests, when, fault)?.success().context(case.clone())?;
        let before = whole;
        whole = stage.whole_backups(&before)?;
        assert_eq!(whole.len(), before.len() + 1, "{case}");
    }
    // An answer that is lost for ever: the command may say that it failed, and the backup is whole.
    stage
        .backup_despite(entry(), When::Always, Fault::AnswerAfter(Failure::EXPIRED_TOKEN))?
        .exited_with(1)?;
    let before = whole;
    whole = stage.whole_backups(&before)?;
    assert_eq!(whole.len(), before.len() + 1);
    a_storm_slows_a_backup_down(&stage, &whole)
}

/// A third of all requests is told to slow down, those of the archiver too.
fn a_storm_slows_a_backup_down(stage: &Stage, before: &BTreeSet<String>) -> Result<()> {
    let (patient, proxy) =
        stage.another("patient", Settings::new().set_text("repository", "retry_timeout", "60s"))?;
    for proxy in [&proxy, &stage.proxy] {
        let when = When::Share { seed: 3, per_mille: 330 };
        proxy.add(Requests::all(), when, Fault::Answer(Failure::SLOW_DOWN));
    }
    patient.succeed(&["backup"])?;
    assert!(proxy.injected() > 5, "{} faults", proxy.injected());
    assert_eq!(stage.whole_backups(before)?.len(), before.len() + 1);
    Ok(())
}
