//! `wald role sql`.

use super::options;
use super::run::Failure;
use crate::config::Config;
use crate::control::role;
use crate::database::Database;
use clap::Args;
use std::time::Duration;

/// What is printed for when no server answers.
const VERSION_DEFAULT: u32 = 150_000;
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);

/// What `wald role sql` takes.
#[derive(Debug, Args)]
pub struct RoleSqlArgs {
    /// The role's name
    #[arg(long, default_value = "wald")]
    role: String,
}

/// Prints the SQL for the version of the server that answers.
pub(super) fn sql(config: &Config, args: &RoleSqlArgs) -> Result<u8, Failure> {
    let connection = &config.cluster.connection;
    let asked = options::runtime()?.block_on(Database::connect(connection, "role", STATEMENT_TIMEOUT));
    let version_num = match asked {
        Ok(database) => database.facts().version_num,
        Err(error) => {
            println!("-- No server answered ({error}): this is for PostgreSQL 15 and later.");
            VERSION_DEFAULT
        }
    };
    print!("{}", role::sql(&args.role, version_num));
    Ok(0)
}
