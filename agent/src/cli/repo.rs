//! `wald repo init` and `wald repo check`.

use super::options;
use super::run::Failure;
use crate::clock::Clock;
use crate::config::Config;
use crate::repository::{Initialised, check as check_repository, init as init_repository};
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
    let outcome = options::runtime()?.block_on(init_repository(store, identity))?;
    let done = match outcome {
        Initialised::Made => "is now the repository",
        Initialised::Already => "was already the repository",
    };
    println!("{place} {done} of system {} ({})", control.system_id(), data_dir.display());
    Ok(0)
}

/// Tries the repository out.
pub(super) fn check(config: &Config) -> Result<u8, Failure> {
    let store = Store::open(&config.repository)?;
    let report = options::runtime()?.block_on(check_repository(&store, &Clock::System));
    println!("{report}");
    Ok(if report.is_good() { 0 } else { 1 })
}
