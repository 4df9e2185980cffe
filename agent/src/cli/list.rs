//! `wald list`.

use super::options;
use super::run::Failure;
use crate::config::Config;
use crate::list::{ListArgs, Listing, collect};
use crate::repository::Repository;
use crate::store::Store;

/// Prints what the repository holds; exit 1 if something in it can't be read.
pub(super) fn list(config: &Config, args: &ListArgs) -> Result<u8, Failure> {
    let listing = read(config)?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&listing)?);
    } else {
        print!("{listing}");
    }
    Ok(if listing.unreadable.is_empty() { 0 } else { 1 })
}

/// Reads what the repository holds.
pub(super) fn read(config: &Config) -> Result<Listing, Failure> {
    options::runtime()?.block_on(async {
        let repository = Repository::open(Store::open(&config.repository)?).await?;
        Ok(collect(&repository).await?)
    })
}
