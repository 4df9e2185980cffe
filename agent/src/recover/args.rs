//! The command line of `wald restore`.

use super::{Mode, RecoverError, RecoverOptions};
use clap::{Args, ValueEnum};
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use wald_core::backup_id::BackupId;
use wald_core::recovery_plan::{ArchiveMode, PlanRequest};
use wald_core::target::{
    Inclusion, RecoveryGoal, RecoveryTarget, RestorePoint, TargetAction, TimelineChoice, TransactionId,
    parse_time,
};

/// The options of `wald restore`.
#[derive(Args, Clone, Debug)]
pub struct RestoreArgs {
    /// The data directory to make; must be empty or not exist
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,
    /// What is not a target of its own: `immediate` ends recovery when the backup is consistent
    #[arg(long, value_name = "immediate", group = "a_target")]
    pub target: Option<NamedTarget>,
    /// Recover to the last commit at or before this time, such as "2026-11-22 18:00:00+00"
    #[arg(long, value_name = "TIME", group = "a_target")]
    pub target_time: Option<String>,
    /// Recover to this position in the WAL
    #[arg(long, value_name = "LSN", group = "a_target")]
    pub target_lsn: Option<String>,
    /// Recover to the end of this transaction
    #[arg(long, value_name = "XID", group = "a_target")]
    pub target_xid: Option<String>,
    /// Recover to this restore point (pg_create_restore_point)
    #[arg(long, value_name = "NAME", group = "a_target")]
    pub target_name: Option<String>,
    /// Stop just before the target instead of just after it
    #[arg(long)]
    pub target_exclusive: bool,
    /// The timeline to follow: latest, current (the backup's), or a number
    #[arg(long, value_name = "TIMELINE", default_value = "latest")]
    pub target_timeline: String,
    /// What the server does at the target: promote, pause or shutdown
    #[arg(long, value_name = "ACTION", default_value = "promote")]
    pub target_action: String,
    /// The backup to begin with; default: the newest that can reach the target
    #[arg(long, value_name = "ID")]
    pub backup: Option<String>,
    /// Put a tablespace into another directory; can be given several times
    #[arg(long, value_name = "OID=DIR")]
    pub tablespace_map: Vec<String>,
    /// Restore over an old data directory of the same cluster, keeping files that are unchanged
    #[arg(long)]
    pub delta: bool,
    /// Show the plan and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Whether the restored server archives: keep only if it takes the old one's place
    #[arg(long, value_name = "off|keep", default_value = "off")]
    pub archive_mode: ArchiveModeArg,
    /// How many parts are fetched and unpacked at the same time; default: restore.concurrency
    #[arg(long, value_name = "N")]
    pub jobs: Option<NonZeroUsize>,
}

/// Targets that need no value.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum NamedTarget {
    /// When the backup is consistent
    Immediate,
}

/// `--archive-mode`
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum ArchiveModeArg {
    /// Do not archive
    Off,
    /// As configured
    Keep,
}

/// How this `wald` was called, from which follows how the restored server calls it.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// The running program.
    pub program: PathBuf,
    /// The configuration, if it is not the default one.
    pub config: Option<PathBuf>,
    /// The agent's socket, if it is not the default one.
    pub socket: Option<PathBuf>,
    /// `--jobs` where it is not given.
    pub jobs: NonZeroUsize,
}

impl RestoreArgs {
    /// The options that the command line means.
    pub fn options(&self, invocation: &Invocation) -> Result<RecoverOptions, RecoverError> {
        let inclusion = if self.target_exclusive { Inclusion::Exclusive } else { Inclusion::Inclusive };
        let timeline = TimelineChoice::parse(&self.target_timeline)?;
        let action = TargetAction::parse(&self.target_action)?;
        let backup = self.backup.as_deref().map(BackupId::parse).transpose();
        let request = PlanRequest {
            goal: RecoveryGoal::new(self.recovery_target()?, inclusion, timeline, action)?,
            backup: backup.map_err(|error| RecoverError::Arguments(error.to_string()))?,
            restore_command: restore_command(invocation)?,
            archive_mode: match self.archive_mode {
                ArchiveModeArg::Off => ArchiveMode::Off,
                ArchiveModeArg::Keep => ArchiveMode::Keep,
            },
        };
        Ok(RecoverOptions {
            to: self.to.clone(),
            mode: if self.delta { Mode::Delta } else { Mode::Fresh },
            tablespace_map: tablespace_map(&self.tablespace_map)?,
            jobs: self.jobs.unwrap_or(invocation.jobs),
            request,
        })
    }

    fn recovery_target(&self) -> Result<RecoveryTarget, RecoverError> {
        Ok(if let Some(text) = &self.target_time {
            RecoveryTarget::Time(parse_time(text)?)
        } else if let Some(text) = &self.target_lsn {
            let lsn = text.parse();
            RecoveryTarget::Lsn(
                lsn.map_err(|error: wald_core::lsn::LsnError| RecoverError::Arguments(error.to_string()))?,
            )
        } else if let Some(text) = &self.target_xid {
            RecoveryTarget::Xid(TransactionId::parse(text)?)
        } else if let Some(text) = &self.target_name {
            RecoveryTarget::Name(RestorePoint::parse(text)?)
        } else {
            match self.target {
                Some(NamedTarget::Immediate) => RecoveryTarget::Immediate,
                None => RecoveryTarget::EndOfWal,
            }
        })
    }
}

fn tablespace_map(pairs: &[String]) -> Result<BTreeMap<u32, PathBuf>, RecoverError> {
    let mut map = BTreeMap::new();
    for pair in pairs {
        let wrong = |why: &str| {
            RecoverError::Arguments(format!("--tablespace-map \"{}\": {why}", pair.escape_default()))
        };
        let (oid, directory) = pair.split_once('=').ok_or_else(|| wrong("expected OID=DIR"))?;
        let oid =
            Some(oid).filter(|oid| oid.bytes().all(|b| b.is_ascii_digit())).and_then(|oid| oid.parse().ok());
        let oid = oid.ok_or_else(|| wrong("a tablespace is named by its OID (see wald list --json)"))?;
        if !directory.starts_with('/') {
            return Err(wrong("the directory must be an absolute path"));
        }
        if map.insert(oid, PathBuf::from(directory)).is_some() {
            return Err(wrong("this tablespace is mapped twice"));
        }
    }
    Ok(map)
}

/// The restored server's `restore_command`: the shim that stands beside this program, or where
/// there is none, this program itself, which does the same without the agent.
fn restore_command(invocation: &Invocation) -> Result<String, RecoverError> {
    let shim = invocation.program.with_file_name("wald-restore");
    let with_shim = shim.is_file();
    let program = if with_shim { &shim } else { &invocation.program };
    let mut command = word(program)?;
    if let Some(socket) = invocation.socket.as_ref().filter(|_| with_shim) {
        command.push_str(&format!(" --socket {}", word(socket)?));
    }
    if let Some(config) = &invocation.config {
        let config = std::path::absolute(config).unwrap_or_else(|_| config.clone());
        command.push_str(&format!(" --config {}", word(&config)?));
    }
    command.push_str(if with_shim { " %f %p" } else { " archive-get %f %p" });
    Ok(command)
}

/// A path as one word of a command that PostgreSQL substitutes and the shell splits.
fn word(path: &Path) -> Result<String, RecoverError> {
    let text = path.to_str().filter(|text| !text.chars().any(char::is_control)).ok_or_else(|| {
        let problem = format!("{} can't stand in restore_command: choose a plain path", path.display());
        RecoverError::Arguments(problem)
    })?;
    // PostgreSQL takes %% for a percent sign.
    let text = text.replace('%', "%%");
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-+@:=,%".contains(&b);
    Ok(if text.bytes().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: RestoreArgs,
    }

    fn invocation(program: &Path) -> Invocation {
        let jobs = NonZeroUsize::new(4).unwrap();
        Invocation { program: program.to_owned(), config: None, socket: None, jobs }
    }

    fn options(args: &[&str]) -> Result<RecoverOptions, String> {
        let all = ["wald", "--to", "/srv/restored"].iter().chain(args);
        let cli = Cli::try_parse_from(all).map_err(|error| error.to_string())?;
        cli.args.options(&invocation(Path::new("/usr/bin/wald"))).map_err(|error| error.to_string())
    }

    #[test]
    fn without_a_target_recovery_goes_to_the_end_of_wal_and_promotes() {
        let options = options(&[]).unwrap();
        assert_eq!(options.request.goal.target(), &RecoveryTarget::EndOfWal);
        assert_eq!(options.request.goal.action(), TargetAction::Promote);
        assert_eq!(options.mode, Mode::Fresh);
        assert_eq!(options.jobs.get(), 4);
    }

    #[test]
    fn every_kind_of_target_is_read_and_only_one_is_taken() {
        let target = |args: &[&str]| options(args).unwrap().request.goal.target().to_string();
        assert_eq!(target(&["--target-time", "2026-11-22 19:00:00+01"]), "time 2026-11-22 18:00:00+00");
        assert_eq!(target(&["--target-lsn", "0/3000000"]), "LSN 0/3000000");
        assert_eq!(target(&["--target-xid", "742"]), "transaction 742");
        assert_eq!(target(&["--target-name", "before"]), "restore point \"before\"");
        assert_eq!(target(&["--target", "immediate"]), "the end of the backup");
        assert!(
            options(&["--target-xid", "742", "--target", "immediate"])
                .unwrap_err()
                .contains("cannot be used with")
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_a_reason() {
        let refusal = |args: &[&str]| options(args).unwrap_err();
        assert!(refusal(&["--target-time", "2026-11-22 19:00:00"]).contains("has no zone"));
        assert!(refusal(&["--target-exclusive"]).contains("leave --target-exclusive out"));
        assert!(refusal(&["--target-timeline", "newest"]).contains("is not a timeline"));
        assert!(refusal(&["--backup", "yesterday"]).contains("not a backup's name"));
        assert!(refusal(&["--tablespace-map", "fast=/x"]).contains("named by its OID"));
        assert!(refusal(&["--tablespace-map", "1=x"]).contains("absolute path"));
        assert!(refusal(&["--tablespace-map", "1=/x", "--tablespace-map", "1=/y"]).contains("mapped twice"));
    }

    #[test]
    fn the_restore_command_uses_the_shim_beside_the_program() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("wald");
        let mut invocation = invocation(&program);
        invocation.config = Some(PathBuf::from("/etc/my wald's/100%.toml"));
        invocation.socket = Some(PathBuf::from("/tmp/s.sock"));
        let shown = program.display();
        let config = r"'/etc/my wald'\''s/100%%.toml'";
        assert_eq!(
            restore_command(&invocation).unwrap(),
            format!("{shown} --config {config} archive-get %f %p")
        );
        std::fs::write(dir.path().join("wald-restore"), "").unwrap();
        let expected = format!("{shown}-restore --socket /tmp/s.sock --config {config} %f %p");
        assert_eq!(restore_command(&invocation).unwrap(), expected);
    }
}
