//! What the two shims share: their options, the call to the agent, and what happens when no
//! agent answers.
//!
//! Invariant: without a complete reply a shim never invents an outcome. It becomes (`exec`)
//! the command that does the same work without an agent; where that is turned off or not to
//! be had, the caller's `without_verdict` code says "try again" or "stop", never "done" and
//! never "there is no such file".

use crate::exchange::ask;
use std::env;
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use wald_core::protocol::Request;

/// Where the agent listens unless told otherwise.
pub const SOCKET_DEFAULT: &str = "/run/wald/wald.sock";
/// Overrides [`SOCKET_DEFAULT`].
pub const SOCKET_VARIABLE: &str = "WALD_SOCKET";

/// A shim's command line.
#[derive(Debug, PartialEq, Eq)]
pub struct ShimArgs {
    socket: PathBuf,
    config: Option<OsString>,
    fallback: Fallback,
    operands: Vec<OsString>,
}

/// What to do when no agent answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fallback {
    /// Become the `wald` command that works without an agent.
    Direct,
    /// Give up.
    None,
}

/// Why the command line can't be used, or that help was asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum ArgsError {
    /// `--help` or `--version`.
    Asked(&'static str),
    /// What is wrong with it.
    Wrong(String),
}

impl ShimArgs {
    /// Reads the arguments after the program's name. Help and version are given only when
    /// nothing else stands beside them: they end with 0, which PostgreSQL takes for done.
    pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Self, ArgsError> {
        let args: Vec<OsString> = args.into_iter().collect();
        if let [only] = args.as_slice() {
            match only.to_str() {
                Some("-h" | "--help") => return Err(ArgsError::Asked("help")),
                Some("-V" | "--version") => return Err(ArgsError::Asked("version")),
                _ => {}
            }
        }
        let mut socket = env::var_os(SOCKET_VARIABLE).map(PathBuf::from);
        let (mut config, mut fallback, mut operands) = (None, Fallback::Direct, Vec::new());
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let mut value =
                |name: &str| args.next().ok_or_else(|| ArgsError::Wrong(format!("{name} needs a value")));
            match arg.to_str() {
                Some("--socket") => socket = Some(value("--socket")?.into()),
                Some("--config") => config = Some(value("--config")?),
                Some("--no-fallback") => fallback = Fallback::None,
                Some(option) if option.starts_with('-') => {
                    return Err(ArgsError::Wrong(format!("unknown option {option}")));
                }
                _ => operands.push(arg),
            }
        }
        let socket = socket.unwrap_or_else(|| PathBuf::from(SOCKET_DEFAULT));
        Ok(Self { socket, config, fallback, operands })
    }

    /// What stands beside the options.
    pub fn operands(&self) -> &[OsString] {
        &self.operands
    }

    /// Asks the agent and gives the code to exit with. Without a verdict, becomes
    /// `wald <direct> <operands>`, and returns `without_verdict` only if that fails too.
    pub fn run(&self, request: &Request, timeout: Duration, direct: &str, without_verdict: u8) -> u8 {
        let error = match ask(&self.socket, request, timeout) {
            Ok(reply) => {
                if !reply.message.is_empty() {
                    say(&reply.message);
                }
                return reply.exit_code;
            }
            Err(error) => error,
        };
        if self.fallback == Fallback::None {
            say(&format!("{error}; --no-fallback is given, so nothing was done"));
            return without_verdict;
        }
        say(&format!("{error}; running wald {direct} instead"));
        let program = direct_program();
        let mut command = Command::new(&program);
        if let Some(config) = &self.config {
            command.arg("--config").arg(config);
        }
        let source = command.arg(direct).arg("--").args(&self.operands).exec();
        say(&format!("can't run {}: {source}; start the agent or install wald there", program.display()));
        without_verdict
    }
}

/// `path` as seen from the working directory, which for PostgreSQL's commands is the data
/// directory. Nothing is resolved: the agent looks at links itself.
pub fn absolute(path: &OsStr) -> std::io::Result<PathBuf> {
    let path = Path::new(path);
    if path.is_absolute() { Ok(path.to_owned()) } else { Ok(env::current_dir()?.join(path)) }
}

/// One line on standard error, which PostgreSQL's log collects. A log that can't be written
/// (a full disk) changes no outcome, so `eprintln!`, which panics then, is not used.
pub fn say(message: &str) {
    let _ = writeln!(std::io::stderr(), "wald: {message}");
}

/// Makes a panic end the process with `code`. Left alone it would end with 101, which a
/// recovery reads as "there is no such file", or by a signal, which kills the archiver.
pub fn end_panics_with(code: u8) {
    std::panic::set_hook(Box::new(move |panic| {
        say(&format!("a defect in wald: {panic}"));
        std::process::exit(i32::from(code));
    }));
}

/// `wald` beside the shim's own executable, else from `PATH`.
fn direct_program() -> PathBuf {
    let beside = env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join("wald")));
    beside.filter(|wald| wald.is_file()).unwrap_or_else(|| PathBuf::from("wald"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<ShimArgs, ArgsError> {
        ShimArgs::parse(args.iter().map(OsString::from))
    }

    #[test]
    fn options_and_operands_are_told_apart() {
        let args = parse(&["--socket", "/s", "pg_wal/x", "--no-fallback"]).unwrap();
        assert_eq!(args.socket, Path::new("/s"));
        assert_eq!(args.operands(), [OsString::from("pg_wal/x")]);
        assert_eq!(args.fallback, Fallback::None);
    }

    #[test]
    fn an_unknown_option_and_a_missing_value_are_refused() {
        assert!(matches!(parse(&["--sokcet", "/s"]), Err(ArgsError::Wrong(_))));
        assert!(matches!(parse(&["--socket"]), Err(ArgsError::Wrong(_))));
    }

    #[test]
    fn help_beside_a_file_is_refused_because_it_would_read_as_done() {
        assert_eq!(parse(&["--help"]), Err(ArgsError::Asked("help")));
        for args in [&["-h", "/run/wald.sock", "pg_wal/x"][..], &["--version", "pg_wal/x"], &["x", "--help"]]
        {
            assert!(matches!(parse(args), Err(ArgsError::Wrong(_))), "{args:?}");
        }
    }

    #[test]
    fn without_an_agent_and_without_fallback_the_given_code_is_the_answer() {
        let args = parse(&["--socket", "/nonexistent/wald.sock", "--no-fallback", "x"]).unwrap();
        let code = args.run(&Request::Status, Duration::from_secs(1), "archive-push", 1);
        assert_eq!(code, 1);
    }
}
