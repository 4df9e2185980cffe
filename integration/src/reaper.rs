//! Leaves nothing behind, however the suite ends.
//!
//! One small shell per suite process waits on a pipe. Processes and paths are announced to it
//! and withdrawn when they are dropped in the ordinary way. When the suite dies, by Ctrl-C, by
//! SIGKILL or by a crash, the pipe closes, and the shell kills what is left and removes the
//! paths. It sits in a process group of its own, so that Ctrl-C at a terminal does not reach it.
//!
//! Processes are killed by id and by the process group that they lead, never by name.

use anyhow::{Context, Result};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock};

/// Reads announcements until the pipe closes, then cleans up. A second of polling gives
/// PostgreSQL's children time to notice that their parent is gone before files vanish.
const SCRIPT: &str = r#"
declare -A processes paths
while IFS=' ' read -r verb what; do
  case $verb in
    +process) processes[$what]=1 ;;
    -process) unset "processes[$what]" ;;
    +path) paths[$what]=1 ;;
    -path) unset "paths[$what]" ;;
  esac
done
for id in "${!processes[@]}"; do kill -9 -- "-$id" "$id" 2>/dev/null; done
for _ in 1 2 3 4 5; do
  for path in "${!paths[@]}"; do rm -rf -- "$path" 2>/dev/null; done
  left=0
  for path in "${!paths[@]}"; do [ -e "$path" ] && left=1; done
  [ $left = 0 ] && sleep 0.3
  for path in "${!paths[@]}"; do [ -e "$path" ] && left=1; done
  [ $left = 0 ] && break
  sleep 0.3
done
"#;

static REAPER: OnceLock<Mutex<Option<ChildStdin>>> = OnceLock::new();

/// Asks for `path` to be removed should the suite die. The path must hold no newline.
pub fn guard_path(path: &Path) -> Result<()> {
    say(&format!("+path {}", path.display()))
}

/// Withdraws [`guard_path`].
pub fn release_path(path: &Path) -> Result<()> {
    say(&format!("-path {}", path.display()))
}

/// Asks for the process `id` and the group that it leads to be killed should the suite die.
pub fn guard_process(id: u32) -> Result<()> {
    say(&format!("+process {id}"))
}

/// Withdraws [`guard_process`]; said as soon as the process has been waited for, before its id
/// can belong to somebody else.
pub fn release_process(id: u32) -> Result<()> {
    say(&format!("-process {id}"))
}

fn say(line: &str) -> Result<()> {
    let reaper = REAPER.get_or_init(|| Mutex::new(start().ok()));
    let mut guard = reaper.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let pipe = guard.as_mut().context("the clean-up shell could not be started: is bash installed?")?;
    pipe.write_all(format!("{line}\n").as_bytes()).context("announcing to the clean-up shell")
}

fn start() -> Result<ChildStdin> {
    let mut shell = Command::new("bash")
        .args(["-c", SCRIPT])
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .context("starting the clean-up shell")?;
    // It outlives this process by design, so nobody waits for it.
    shell.stdin.take().context("the clean-up shell has no standard input")
}
