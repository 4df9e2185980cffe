//! `wald`: parses the command line and runs it.
//!
//! Invariant: PostgreSQL reads an exit code of 1 to 125 from `archive-get` as "there is no such
//! file" and ends its recovery. So a wrong command line (which clap ends with 2) and a panic
//! (101) are turned into a fatal code there.

use clap::Parser;
use std::process::ExitCode;
use wald_core::outcome::RestoreOutcome;

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    let for_recovery = words.iter().any(|word| word == "archive-get");
    let for_archiver = words.iter().any(|word| word == "archive-push");
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
            // Nothing is left to do if standard error is closed.
            let _ = error.print();
            // Help is success, except where a file's name beside it shows that PostgreSQL asks: it
            // would read that as "done" or "placed".
            let asked = !error.use_stderr() && !((for_recovery || for_archiver) && words.len() > 2);
            match (asked, for_recovery) {
                (true, _) => ExitCode::SUCCESS,
                (false, true) => ExitCode::from(RestoreOutcome::Fatal.exit_code()),
                (false, false) => ExitCode::from(2),
            }
        }
    }
}
