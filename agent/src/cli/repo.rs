//! `wald repo init` and `wald repo check`.

use super::run::Failure;
use super::{RepoCheckArgs, options};
use crate::clock::Clock;
use crate::config::Config;
use crate::repository::{CheckReport, Initialised, Purpose, Verdict, check_for, init as init_repository};
use crate::store::Store;
use wald_core::identity::Identity;

/// Makes the repository for the cluster in `cluster.data_dir`.
pub(super) fn init(config: &Config) -> Result<u8, Failure> {
    let data_dir = config.data_dir()?;
    let control = crate::cluster::read_control(data_dir)?;
    let identity = Identity::new(
        control.system_id(),
        control.segment_size(),
        Clock::System.now(),
        env!("CARGO_PKG_VERSION"),
    );
    let store = Store::open(&config.repository)?;
    let place = store.describe().to_owned();
    let (outcome, report) = options::runtime()?.block_on(async {
        let outcome = init_repository(store.clone(), identity).await?;
        // What the server keeps must be known before the first segment is archived.
        Ok::<_, Failure>((outcome, check_for(&store, &Clock::System, Purpose::Archive).await))
    })?;
    let done = match outcome {
        Initialised::Made => "is now the repository",
        Initialised::Already => "was already the repository",
    };
    println!("{place} {done} of system {} ({})", control.system_id(), data_dir.display());
    warn(&report);
    Ok(0)
}

/// What is worth knowing before anything rests on this repository. It is a repository all the same:
/// what is wrong can be put right, and `wald repo check` has the last word.
fn warn(report: &CheckReport) {
    let bad = report.findings().iter().filter(|finding| finding.verdict == Verdict::Bad);
    for finding in bad {
        println!("  BAD   {}", finding.text);
    }
    for weakness in report.guarantees().map(|seen| seen.explain_missing()).unwrap_or_default() {
        println!("  note  {weakness}");
    }
    if !report.is_good() {
        println!("Don't rely on it yet: put this right, then run `wald repo check`.");
    }
}

/// Tries the repository out.
pub(super) fn check(config: &Config, args: &RepoCheckArgs) -> Result<u8, Failure> {
    let store = Store::open(&config.repository)?;
    let report = options::runtime()?.block_on(check_for(&store, &Clock::System, args.purpose));
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("{report}");
    }
    Ok(if report.is_good() { 0 } else { 1 })
}
