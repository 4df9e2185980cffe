//! `wald-restore %f %p`: PostgreSQL's `restore_command`. Asks the agent to place one WAL file
//! and exits with its verdict: 0 placed, 1 not there, 200 stop the recovery.
//!
//! Invariant: whatever keeps this program from a verdict is never read as "not there" by a
//! recovery, because PostgreSQL would open the database too early.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;
use wald_client::outcome::{Asker, RestoreFinding, RestoreOutcome, restore_outcome};
use wald_client::protocol::Request;
use wald_client::shim::{ArgsError, ShimArgs, absolute, end_panics_with, say};

const USAGE: &str = "\
usage: wald-restore [--socket SOCKET] [--config FILE] [--no-fallback] FILE DESTINATION

  restore_command = 'wald-restore %f %p'

  FILE           the WAL file's name, as PostgreSQL gives it with %f
  DESTINATION    where to place it, as PostgreSQL gives it with %p
  --socket       the agent's socket (default: $WALD_SOCKET, else /run/wald/wald.sock)
  --config       passed on to `wald archive-get` when no agent answers
  --no-fallback  fail when no agent answers, instead of running `wald archive-get`

Exit codes: 0 placed, 1 the repository has no such file, 200 anything else
(on a standby: 1, so that it goes on streaming).";

/// Longer than `restore.patience` can be (an hour): the agent answers by then.
const REPLY_TIMEOUT: Duration = Duration::from_secs(3660);

fn main() -> ExitCode {
    end_panics_with(RestoreOutcome::Fatal.exit_code());
    let stop = ExitCode::from(without_verdict(Path::new(".")));
    let args = match ShimArgs::parse(std::env::args_os().skip(1)) {
        Ok(args) => args,
        Err(ArgsError::Asked("version")) => {
            println!("wald-restore {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        Err(ArgsError::Asked(_)) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(ArgsError::Wrong(what)) => {
            say(&format!("{what}\n{USAGE}"));
            return stop;
        }
    };
    let [name, destination] = args.operands() else {
        say(&format!("expected a file name and a destination, got {} words\n{USAGE}", args.operands().len()));
        return stop;
    };
    let Some(name) = name.to_str() else {
        say("the file name is not UTF-8, so it is not a WAL file's");
        return stop;
    };
    match absolute(destination) {
        Ok(destination) => {
            let data_dir = destination.parent().and_then(Path::parent).unwrap_or(Path::new("."));
            let code = without_verdict(data_dir);
            let request = Request::Restore { name: name.to_owned(), destination };
            ExitCode::from(args.run(&request, REPLY_TIMEOUT, "archive-get", code))
        }
        Err(source) => {
            say(&format!("can't tell the working directory: {source}"));
            stop
        }
    }
}

/// The code for "no verdict": what an unreachable repository gets.
fn without_verdict(data_dir: &Path) -> u8 {
    let standby = data_dir.join("standby.signal").exists();
    let asker = if standby { Asker::Standby } else { Asker::Recovery };
    restore_outcome(asker, RestoreFinding::Unreachable).exit_code()
}
