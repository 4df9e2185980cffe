//! `wald backup`.

use super::options;
use super::recorded::{Ended, recorded};
use super::run::Failure;
use crate::backup::{self, BackupReport, ClusterIdentity, Progress, progress};
use crate::config::Config;
use crate::repository::Repository;
use crate::runs::{RunEnd, RunKind};
use crate::store::Store;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Takes a backup; SIGINT and SIGTERM end it in order, without a catalog entry.
pub(super) fn backup(config: &Config) -> Result<u8, Failure> {
    recorded(config, RunKind::Backup, || take(config))
}

fn take(config: &Config) -> Result<Ended, Failure> {
    let options = options::backup(config, config.data_dir()?.to_owned());
    let report = options::runtime()?.block_on(async {
        let repository = Repository::open(Store::open(&config.repository)?).await?;
        let cluster =
            ClusterIdentity { system_id: repository.system_id(), segment_size: repository.segment_size() };
        let cancel = CancellationToken::new();
        let interrupted = tokio::spawn(cancel_on_signal(cancel.clone())?);
        let counters = Progress::new();
        let shown = tokio::spawn(progress::show(counters.clone()));
        let report = backup::run(repository.store(), cluster, options, counters, cancel).await;
        shown.abort();
        interrupted.abort();
        Ok::<BackupReport, Failure>(report?)
    })?;
    print(&report);
    // Damaged pages were copied as they are: the backup exists, and somebody must know.
    let damaged = report.bad_pages.len();
    let (code, end) = if damaged == 0 { (0, RunEnd::Good) } else { (1, RunEnd::Findings) };
    let summary = match damaged {
        0 => format!("{}: {} MiB stored", report.id, report.stored_bytes >> 20),
        pages => format!("{}: holds {pages} damaged pages of the server's data", report.id),
    };
    Ok(Ended { code, end, summary })
}

fn cancel_on_signal(cancel: CancellationToken) -> Result<impl Future<Output = ()>, Failure> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        eprintln!("wald: ending the backup; it will not exist");
        cancel.cancel();
    })
}

fn print(report: &BackupReport) {
    let mib = |bytes: u64| bytes >> 20;
    println!(
        "backup {} on timeline {}: {} files, {} MiB in {} parts of {} MiB together, in {:.1} s \
         ({:.1} s of it waiting for WAL)",
        report.id,
        report.timeline,
        report.files,
        mib(report.raw_bytes),
        report.parts,
        mib(report.stored_bytes),
        report.took.as_secs_f64(),
        report.waited_for_wal.as_secs_f64(),
    );
    println!("it can be restored to any point from {} ({}) on", report.stopped_at, report.stop_lsn);
    for page in &report.bad_pages {
        println!("DAMAGED PAGE: {} block {}", page.file, page.block);
    }
    if !report.bad_pages.is_empty() {
        println!(
            "The server's data is damaged, and so is what this backup restores; older backups may be whole: see `wald list`"
        );
    }
}
