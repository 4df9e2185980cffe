//! The command line.

use std::path::PathBuf;

/// What is printed for `--help`.
pub const USAGE: &str = "\
usage: benches/compare [options]

  --only LIST      subjects, of: drain, noise, replay, backup, waiting, command (default: all)
  --tools LIST     of: wald, wal-rus, wal-rus-fetch, pgbackrest, barman-cloud, wald-file, cp (default: all)
  --repeat N       rounds in which each tool has its turn (default 3)
  --segments N     segments to drain (default 100)
  --replay N       segments to replay (default 200)
  --workers N      files at the same time, for WAL (default 4)
  --scale N        pgbench's scale below the WAL: N times 100,000 accounts (default 50)
  --database N     size of the database that is backed up, in MiB (default 2700)
  --quick          a small run that shows that everything works; its numbers mean nothing
  --json FILE      write all numbers there as well
  --markdown FILE  write the tables there as well

Everything is in one temporary directory (below WALD_TMPDIR, else /tmp; about 15 GB), which is gone
afterwards. Progress goes to standard error, the tables to standard output.";

/// What the command line asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Subjects; none means all.
    pub only: Vec<String>,
    /// Tools; none means all.
    pub tools: Vec<String>,
    /// Rounds.
    pub repeat: u32,
    /// Segments to drain.
    pub segments: usize,
    /// Segments to replay.
    pub replay: usize,
    /// Files at the same time.
    pub workers: u32,
    /// pgbench's scale.
    pub scale: u32,
    /// In MiB.
    pub database: u64,
    /// Where JSON goes.
    pub json: Option<PathBuf>,
    /// Where Markdown goes.
    pub markdown: Option<PathBuf>,
}

/// The subjects, in their order.
pub const SUBJECTS: [&str; 6] = ["drain", "noise", "replay", "backup", "waiting", "command"];

impl Default for Options {
    fn default() -> Self {
        Self {
            only: Vec::new(),
            tools: Vec::new(),
            repeat: 3,
            segments: 100,
            replay: 200,
            workers: 4,
            scale: 50,
            database: 2700,
            json: None,
            markdown: None,
        }
    }
}

impl Options {
    /// `None` when only help was asked for.
    pub fn parse(words: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
        let words: Vec<String> = words.collect();
        let mut options = Options::default();
        if words.iter().any(|word| word == "--quick") {
            options = Options { repeat: 1, segments: 8, replay: 8, scale: 5, database: 120, ..options };
        }
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} wants a value"));
            match word.as_str() {
                "--quick" => {}
                "--only" => options.only = list(&value()?),
                "--tools" => options.tools = list(&value()?),
                "--repeat" => options.repeat = number(&word, &value()?)?,
                "--segments" => options.segments = number(&word, &value()?)?,
                "--replay" => options.replay = number(&word, &value()?)?,
                "--workers" => options.workers = number(&word, &value()?)?,
                "--scale" => options.scale = number(&word, &value()?)?,
                "--database" => options.database = number(&word, &value()?)?,
                "--json" => options.json = Some(PathBuf::from(value()?)),
                "--markdown" => options.markdown = Some(PathBuf::from(value()?)),
                "--help" | "-h" => return Ok(None),
                other => return Err(format!("there is no option {other}")),
            }
        }
        match options.only.iter().find(|subject| !SUBJECTS.contains(&subject.as_str())) {
            Some(unknown) => Err(format!("there is no subject {unknown}")),
            None => Ok(Some(options)),
        }
    }

    /// Whether a subject is wanted.
    pub fn wants(&self, subject: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|wanted| wanted == subject)
    }
}

fn list(value: &str) -> Vec<String> {
    value.split(',').map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

fn number<T: std::str::FromStr + PartialOrd + From<u8>>(option: &str, value: &str) -> Result<T, String> {
    let parsed = value.parse().ok().filter(|number| *number >= T::from(1));
    parsed.ok_or_else(|| format!("{option} wants a number from 1 on, not {value}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Option<Options>, String> {
        Options::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn a_quick_run_can_be_adjusted_wherever_the_word_stands() {
        let options = parse("--segments 12 --quick --only drain,replay").unwrap().unwrap();
        assert_eq!((options.segments, options.repeat), (12, 1));
        assert!(options.wants("replay") && !options.wants("backup"));
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert_eq!(parse("--only drian").unwrap_err(), "there is no subject drian");
        assert!(parse("--repeat 0").is_err() && parse("--repeat").is_err() && parse("--fast").is_err());
        assert_eq!(parse("--help").unwrap(), None);
    }
}
