//! The operator's command line: what may be typed, and which module answers.
//!
//! Invariants: this is the only place beside `main` that sees the whole configuration; it
//! hands each module its own options. `archive-push` and `archive-get` end with the exit codes
//! of `wald_core::outcome`, whatever goes wrong: usage errors and panics included.

mod amount;
mod backup;
mod boost;
mod connections;
mod direct;
mod expire;
mod indexes;
mod lag;
mod list;
mod options;
mod promote;
mod recorded;
mod repo;
mod restore;
mod role;
mod run;
mod sessions;
mod status;
mod vacuum;
mod verify;

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

pub use expire::ExpireArgs;
pub use run::run;

/// Archives PostgreSQL's WAL and base backups to S3 under object lock, and brings them back.
#[derive(Debug, Parser)]
#[command(name = "wald", version, max_term_width = 100)]
pub struct Cli {
    /// The configuration file
    #[arg(long, global = true, env = "WALD_CONFIG", default_value = crate::config::DEFAULT_PATH)]
    pub config: PathBuf,
    /// Say more on standard error; twice for everything (or set WALD_LOG, as in `WALD_LOG=wald=debug`)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What `wald` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon behind archive_command and restore_command
    Agent,
    /// How the agent, the backups and the recovery window are
    Status(OutputArgs),
    /// Take a base backup
    Backup,
    /// Show backups, WAL with its gaps, and the recovery window
    List(crate::list::ListArgs),
    /// Extend the locks of what the recovery window needs, delete what it does not
    Expire(expire::ExpireArgs),
    /// Restore a backup into a directory and prepare recovery to a point in time
    Restore(Box<crate::recover::RestoreArgs>),
    /// Prove that what is stored can be restored; exit 0 clean, 1 findings, 2 not carried out
    Verify(crate::verify::VerifyArgs),
    /// How far behind replication is, and whether it is too far
    Lag(lag::LagArgs),
    /// Freeze age, dead rows and bloat; tune and boost autovacuum
    Vacuum(vacuum::VacuumArgs),
    /// Sessions by state and wait, who blocks whom, and who sleeps in a transaction
    Sessions(sessions::SessionsArgs),
    /// Indexes that are invalid, duplicate, unused or missing
    Indexes(indexes::IndexesArgs),
    /// Connections against their limits, and PgBouncer's pools
    Connections(connections::ConnectionsArgs),
    /// Promote this standby, in steps that can be resumed or taken back
    Promote(promote::PromoteArgs),
    /// The database role that wald needs
    #[command(subcommand)]
    Role(RoleCommand),
    /// Make or check the repository
    #[command(subcommand)]
    Repo(RepoCommand),
    /// Check the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Archive one WAL file without the agent (what wald-archive does when no agent answers)
    ArchivePush {
        /// The WAL file (%p)
        path: PathBuf,
    },
    /// Fetch one WAL file without the agent (what wald-restore does when no agent answers)
    ArchiveGet {
        /// The WAL file's name (%f)
        file: String,
        /// Where to place it (%p)
        destination: PathBuf,
    },
}

/// `wald repo …`
#[derive(Debug, Subcommand)]
pub enum RepoCommand {
    /// Make the repository: write whose it is into wald.json
    Init,
    /// Try whether the repository can be written, read and listed, and keeps its promises
    Check(RepoCheckArgs),
}

/// What `wald repo check` tries, and how it prints.
#[derive(Debug, Args)]
pub struct RepoCheckArgs {
    /// What these keys are for, which decides which missing right is an error
    #[arg(long = "for", value_enum, default_value_t)]
    pub purpose: crate::repository::Purpose,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// `wald role …`
#[derive(Debug, Subcommand)]
pub enum RoleCommand {
    /// Print the SQL that makes it, with the least rights
    Sql(role::RoleSqlArgs),
}

/// `wald config …`
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print the effective configuration, secrets hidden
    Check,
}

/// How to print.
#[derive(Debug, Args)]
pub struct OutputArgs {
    /// As JSON
    #[arg(long)]
    pub json: bool,
}
