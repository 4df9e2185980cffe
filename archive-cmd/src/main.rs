//! `wald-archive %p`: PostgreSQL's `archive_command`. Hands one WAL file to the agent and
//! exits with its verdict: 0 when the repository has confirmed the bytes, 1 otherwise.

use std::process::ExitCode;
use std::time::Duration;
use wald_client::outcome::ArchiveOutcome;
use wald_client::protocol::Request;
use wald_client::shim::{ArgsError, ShimArgs, absolute, end_panics_with, say};

const USAGE: &str = "\
usage: wald-archive [--socket SOCKET] [--config FILE] [--no-fallback] PATH

  archive_command = 'wald-archive %p'

  PATH           the WAL file, as PostgreSQL gives it with %p
  --socket       the agent's socket (default: $WALD_SOCKET, else /run/wald/wald.sock)
  --config       passed on to `wald archive-push` when no agent answers
  --no-fallback  fail when no agent answers, instead of running `wald archive-push`

Exit codes: 0 archived and durable, 1 not archived (PostgreSQL tries again).";

/// Longer than any limit of the agent's own: it answers within `archive.timeout`. Past it the
/// agent hangs, and asking again elsewhere is safe because nothing is ever overwritten.
const REPLY_TIMEOUT: Duration = Duration::from_secs(600);

fn main() -> ExitCode {
    let try_again = ArchiveOutcome::TryAgain.exit_code();
    end_panics_with(try_again);
    let args = match ShimArgs::parse(std::env::args_os().skip(1)) {
        Ok(args) => args,
        Err(ArgsError::Asked("version")) => {
            println!("wald-archive {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        Err(ArgsError::Asked(_)) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(ArgsError::Wrong(what)) => {
            say(&format!("{what}\n{USAGE}"));
            return ExitCode::from(try_again);
        }
    };
    let [path] = args.operands() else {
        say(&format!("expected one path, got {}\n{USAGE}", args.operands().len()));
        return ExitCode::from(try_again);
    };
    match absolute(path) {
        Ok(path) => {
            ExitCode::from(args.run(&Request::Archive { path }, REPLY_TIMEOUT, "archive-push", try_again))
        }
        Err(source) => {
            say(&format!("can't tell the working directory: {source}"));
            ExitCode::from(try_again)
        }
    }
}
