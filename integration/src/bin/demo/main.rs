//! The demo: a real PostgreSQL is archived, destroyed and brought back to a chosen second.
//!
//! Started by `integration/demo`, which builds wald first. Everything lives in one temporary
//! directory, and nothing is left of it, whether the demo ends well, badly or by a signal.
//! The exit code is 0 only if every table came back exactly as it was.

mod load;
mod report;
mod story;

use std::process::ExitCode;

const USAGE: &str = "\
usage: integration/demo [--s3] [--scale N] [--seconds N]

  --s3         keep the repository on a real S3 server with object lock, instead of in a directory
  --scale N    pgbench's scale: N times 100,000 accounts, about 15 MB each (default 20)
  --seconds N  how long pgbench runs in each of the three busy spells (default 6)

WALD_KEEP=1 in the environment keeps the temporary directory for a look.";

/// What the command line asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Where the repository is to be.
    pub repository: RepositoryKind,
    /// pgbench's scale.
    pub scale: u32,
    /// The length of a busy spell.
    pub spell_seconds: u32,
}

/// The two kinds of repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepositoryKind {
    /// A directory.
    Directory,
    /// A bucket with object lock.
    LockedBucket,
}

fn main() -> ExitCode {
    let options = match parse(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(wrong) => {
            eprintln!("{wrong}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match story::tell(options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("\nThe demo failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// `None` when only help was asked for.
fn parse(mut words: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
    let mut options = Options { repository: RepositoryKind::Directory, scale: 20, spell_seconds: 6 };
    while let Some(word) = words.next() {
        match word.as_str() {
            "--s3" => options.repository = RepositoryKind::LockedBucket,
            "--scale" => options.scale = number(&word, words.next())?,
            "--seconds" => options.spell_seconds = number(&word, words.next())?,
            "--help" | "-h" => return Ok(None),
            other => return Err(format!("the demo has no option {other}")),
        }
    }
    Ok(Some(options))
}

fn number(option: &str, value: Option<String>) -> Result<u32, String> {
    let parsed = value.as_deref().and_then(|text| text.parse().ok()).filter(|n| (1..=10_000).contains(n));
    parsed.ok_or_else(|| format!("{option} takes a number from 1 to 10000"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Option<Options>, String> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn options_are_read_and_wrong_ones_refused() {
        let options = parsed("--s3 --scale 3").unwrap().unwrap();
        assert_eq!((options.repository, options.scale), (RepositoryKind::LockedBucket, 3));
        assert_eq!(parsed("--help"), Ok(None));
        for wrong in ["--scale", "--scale x", "--scale 0", "--s4"] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }
}
