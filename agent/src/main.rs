//! `wald`: parses the command line and runs it.
//!
//! Invariant: PostgreSQL reads an exit code of 1 to 125 from `archive-get` as "there is no such
//! file" and ends its recovery. So a wrong command line (which clap ends with 2) and a panic
//! (101) are turned into a fatal code there.

use clap::Parser;
use std::process::ExitCode;
use wald_core::outcome::RestoreOutcome;

fn main() -> ExitCode {
    let for_recovery = std::env::args_os().any(|arg| arg == "archive-get");
    if for_recovery {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            report(panic);
            std::process::exit(i32::from(RestoreOutcome::Fatal.exit_code()));
        }));
    }
    match wald::cli::Cli::try_parse() {
        Ok(cli) => wald::cli::run(&cli),
        Err(error) => {
            let asked = !error.use_stderr();
            // Nothing is left to do if standard error is closed.
            let _ = error.print();
            match (asked, for_recovery) {
                (true, _) => ExitCode::SUCCESS,
                (false, true) => ExitCode::from(RestoreOutcome::Fatal.exit_code()),
                (false, false) => ExitCode::from(2),
            }
        }
    }
}
