//! Carries out a command line; the exit code says how it went.

use super::{
    Cli, Command, ConfigCommand, RepoCommand, RoleCommand, backup, connections, direct, expire, indexes, lag,
    list, options, promote, repo, restore, role, sessions, status, vacuum, verify,
};
use crate::clock::Clock;
use crate::config::{Config, ConfigError};
use crate::explain::chain;
use crate::recover::RecoverError;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;
use wald_client::shim::say;
use wald_core::lag::Severity;

/// Any failure of a command; it is shown once, in `run`.
pub(super) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Everything went well.
const OK: u8 = 0;
/// The command could not do what it was asked to.
const FAILED: u8 = 1;
/// The command line or the configuration is wrong.
const MISUSED: u8 = 2;

/// Runs `cli` and gives the process's exit code.
pub fn run(cli: &Cli) -> ExitCode {
    start_log(cli.verbose);
    let code = match &cli.command {
        // PostgreSQL reads these two exit codes; they have a table of their own.
        Command::ArchivePush { path } => direct::archive_push(&cli.config, path),
        Command::ArchiveGet { file, destination } => direct::archive_get(&cli.config, file, destination),
        command => match dispatch(cli, command) {
            Ok(code) => code,
            Err(error) => {
                say(&shown(error.as_ref()));
                match command {
                    // 1 and 2 would read as a warning and as critical.
                    Command::Lag(args) if args.is_check() => Severity::Unknown.exit_code(),
                    _ if is_misuse(error.as_ref()) => MISUSED,
                    _ => FAILED,
                }
            }
        },
    };
    ExitCode::from(code)
}

/// Whether the configuration or the command line is at fault.
fn is_misuse(error: &(dyn std::error::Error + 'static)) -> bool {
    let arguments = error.downcast_ref::<RecoverError>();
    error.is::<ConfigError>()
        || arguments
            .is_some_and(|error| matches!(error, RecoverError::Target(_) | RecoverError::Arguments(_)))
}

/// A configuration's errors stay a list; all else is one line.
fn shown(error: &(dyn std::error::Error + 'static)) -> String {
    match error.downcast_ref::<ConfigError>() {
        Some(error @ ConfigError::Values { .. }) => error.to_string(),
        _ => chain(error),
    }
}

fn dispatch(cli: &Cli, command: &Command) -> Result<u8, Failure> {
    let config = Config::load(&cli.config)?;
    match command {
        Command::Agent => {
            let agent = crate::supervise::run(options::agent(&config), Clock::System);
            let runtime = options::runtime()?;
            let ended = runtime.block_on(agent);
            // Work that was given up must not keep the process alive.
            runtime.shutdown_background();
            ended?;
            Ok(OK)
        }
        Command::Status(args) => status::status(&config, args),
        Command::Backup => backup::backup(&config),
        Command::List(args) => list::list(&config, args),
        Command::Expire(args) => expire::expire(&config, args),
        Command::Restore(args) => restore::restore(&config, args),
        Command::Verify(args) => verify::verify(&config, args),
        Command::Lag(args) => lag::lag(&config, args),
        Command::Vacuum(args) => vacuum::vacuum(&config, args),
        Command::Sessions(args) => sessions::sessions(&config, args),
        Command::Indexes(args) => indexes::indexes(&config, args),
        Command::Connections(args) => connections::connections(&config, args),
        Command::Promote(args) => promote::promote(&config, args),
        Command::Role(RoleCommand::Sql(args)) => role::sql(&config, args),
        Command::Repo(RepoCommand::Init) => repo::init(&config),
        Command::Config(ConfigCommand::Check) => {
            print!("{}", config.display());
            Ok(OK)
        }
        Command::Repo(RepoCommand::Check(args)) => repo::check(&config, args),
        // Handled before a configuration is read.
        Command::ArchivePush { .. } | Command::ArchiveGet { .. } => Ok(FAILED),
    }
}

/// The log goes to standard error, which systemd and PostgreSQL collect.
fn start_log(verbose: u8) {
    let default = match verbose {
        0 => "wald=info,warn",
        1 => "wald=debug,info",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_env("WALD_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let log =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // A log that can't be written must not become a panic.
    let log = log.log_internal_errors(false);
    // journald keeps the time itself.
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        log.without_time().with_ansi(false).init();
    } else {
        log.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init();
    }
}
