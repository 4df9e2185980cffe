//! Step 7: the report, as Markdown and JSON, below `<state_dir>/promotions/`; and the plan that
//! `--dry-run` prints.

use super::journal::{Facts, Journal, StepRecord};
use super::options::PromoteOptions;
use crate::control::state_file::StateFile;
use crate::fs::FsError;
use jiff::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use wald_core::promotion::Act;
use wald_core::promotion::condition::{Condition, Finding, Verdict};

/// Of the JSON.
const FORMAT: u32 = 1;

/// A promotion, told.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Version of this format.
    pub format: u32,
    /// Its name.
    pub id: String,
    /// `promoted`, `rolled_back` or `unfinished`.
    pub end: &'static str,
    /// Who began it.
    pub who: String,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// The old primary.
    pub old_primary: String,
    /// The new one.
    pub new_primary: String,
    /// The conditions as they were found.
    pub conditions: Vec<Finding>,
    /// Those that the operator said to go on without.
    pub forced: Vec<Condition>,
    /// The steps.
    pub steps: Vec<ReportedStep>,
    /// For how long clients could not write, in seconds, by wald's own clock.
    pub seconds_without_writes: Option<f64>,
    /// What was learned.
    pub facts: Facts,
    /// What is left to do, in order; commands are ready to paste.
    pub to_do: Vec<String>,
}

/// A step of a report.
#[derive(Clone, Debug, Serialize)]
pub struct ReportedStep {
    /// Which.
    pub step: Act,
    /// When it began.
    pub began_at: Timestamp,
    /// How long it took, in milliseconds; none if the run was killed in it.
    pub took_millis: Option<i64>,
    /// Why it failed, if it did.
    pub failed: Option<String>,
    /// What is worth knowing.
    pub notes: Vec<String>,
}

impl From<&StepRecord> for ReportedStep {
    fn from(step: &StepRecord) -> Self {
        let took = step.ended_at.map(|ended| ended.duration_since(step.began_at).as_millis());
        Self {
            step: step.act,
            began_at: step.began_at,
            took_millis: took.and_then(|millis| i64::try_from(millis).ok()),
            failed: step.failed.clone(),
            notes: step.notes.clone(),
        }
    }
}

impl Report {
    /// The report of a journal.
    pub fn of(journal: &Journal, options: &PromoteOptions) -> Self {
        // A pooler's file may hold passwords.
        let facts = Facts { files_before: BTreeMap::new(), ..journal.facts.clone() };
        let without = facts.writes_stopped_at.zip(facts.writes_back_at);
        let promoted = journal.ended.as_ref().map(|end| end.promoted);
        let forced = journal.findings.iter().filter(|finding| finding.verdict == Verdict::Forced);
        let mut forced: Vec<Condition> = forced.map(|finding| finding.condition).collect();
        forced.extend(journal.forced.iter().copied());
        forced.sort();
        forced.dedup();
        Self {
            format: FORMAT,
            id: journal.id.clone(),
            end: match promoted {
                Some(true) => "promoted",
                Some(false) => "rolled_back",
                None => "unfinished",
            },
            who: journal.who.clone(),
            started_at: journal.started_at,
            ended_at: journal.ended.as_ref().map(|end| end.at),
            old_primary: options.old.to_string(),
            new_primary: options.here.to_string(),
            conditions: journal.findings.clone(),
            forced,
            steps: journal.steps.iter().map(ReportedStep::from).collect(),
            seconds_without_writes: without.map(|(from, to)| to.duration_since(from).as_secs_f64()),
            to_do: if facts.timeline_after.is_some() { to_do(&facts, options) } else { Vec::new() },
            facts,
        }
    }

    /// Writes both forms; gives nothing back but where they could not be written.
    pub(super) fn write(&self, state_dir: &Path) -> Result<(), FsError> {
        StateFile::below(state_dir, &format!("promotions/{}.json", self.id)).replace(self)?;
        let path = state_dir.join(format!("promotions/{}.md", self.id));
        fs::write(&path, self.markdown()).map_err(|error| FsError::new("write", &path, error))
    }

    /// The report as Markdown.
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        // Writing to a String can't fail.
        let _ = self.write_markdown(&mut text);
        text
    }

    fn write_markdown(&self, out: &mut String) -> std::fmt::Result {
        let facts = &self.facts;
        writeln!(out, "# Promotion {}: {}\n", self.id, self.end.replace('_', " "))?;
        writeln!(out, "- by {}, begun {}", self.who, self.started_at)?;
        if let Some(ended) = self.ended_at {
            writeln!(out, "- ended {ended}")?;
        }
        writeln!(out, "- old primary: {}\n- new primary: {}", self.old_primary, self.new_primary)?;
        if let Some(fenced) = &facts.fenced {
            writeln!(out, "- the old primary is fenced: {fenced}")?;
        }
        match self.seconds_without_writes {
            Some(seconds) if facts.old_took_writes => writeln!(out, "- **{seconds:.2} s without writes**")?,
            Some(seconds) => writeln!(
                out,
                "- **clients were held for {seconds:.2} s**; the old primary took no writes before that, since when is \
                 not known"
            )?,
            None => writeln!(out, "- seconds without writes: not known")?,
        }
        if let Some(millis) = facts.lag_millis {
            writeln!(out, "- lag before the first step: {millis} ms")?;
        }
        self.write_positions(out)?;
        if !self.forced.is_empty() {
            writeln!(out, "- **forced:**")?;
            for condition in &self.forced {
                writeln!(out, "  - {condition}: {}", condition.risk())?;
            }
        }
        writeln!(out, "\n## Steps\n\n| step | began | took | what |\n| --- | --- | --- | --- |")?;
        for step in &self.steps {
            let took =
                step.took_millis.map_or_else(|| "(killed)".to_owned(), |millis| format!("{millis} ms"));
            let mut what = step.notes.join("; ");
            if let Some(failed) = &step.failed {
                what = format!("**failed: {failed}** {what}");
            }
            let what = what.replace('|', "\\|").replace('\n', " ");
            writeln!(
                out,
                "| {} | {} | {took} | {what} |",
                step.step,
                step.began_at.strftime("%H:%M:%S%.3f")
            )?;
        }
        writeln!(out, "\n## Conditions\n\n| condition | verdict | what was seen |\n| --- | --- | --- |")?;
        for finding in &self.conditions {
            let verdict = match finding.verdict {
                Verdict::Met => "met",
                Verdict::Unmet => "not met",
                Verdict::Forced => "**forced**",
            };
            writeln!(out, "| {} | {verdict} | {} |", finding.condition, finding.detail.replace('|', "\\|"))?;
        }
        if !self.to_do.is_empty() {
            writeln!(out, "\n## What is left to do\n")?;
            for (index, line) in self.to_do.iter().enumerate() {
                writeln!(out, "{}. {line}\n", index + 1)?;
            }
        }
        Ok(())
    }

    fn write_positions(&self, out: &mut String) -> std::fmt::Result {
        let facts = &self.facts;
        let show = |lsn: Option<wald_core::lsn::Lsn>| {
            lsn.map_or_else(|| "not known".to_owned(), |lsn| lsn.to_string())
        };
        if let Some(before) = facts.timeline_before {
            writeln!(
                out,
                "- before: timeline {before}; the old primary had written up to {}, this server had received {} and \
                 replayed {}",
                show(facts.primary_lsn),
                show(facts.received_lsn),
                show(facts.replayed_lsn)
            )?;
            if let (Some(written), Some(replayed)) = (facts.primary_lsn, facts.replayed_lsn) {
                writeln!(
                    out,
                    "- lag at the switch: {} bytes, by the last look at the old primary before its fence",
                    written.bytes_since(replayed)
                )?;
            }
        }
        if let Some(after) = facts.timeline_after {
            let (switch, first) = (show(facts.switch_lsn), show(facts.promoted_lsn));
            writeln!(out, "- after: timeline {after}, which begins at {switch}; first seen at {first}")?;
        }
        Ok(())
    }
}

/// What the operator does next.
fn to_do(facts: &Facts, options: &PromoteOptions) -> Vec<String> {
    let data = facts
        .old_data_directory
        .clone()
        .or_else(|| options.data_dir.as_ref().map(|path| path.to_string_lossy().into_owned()));
    let data = data.unwrap_or_else(|| "DATA_DIRECTORY".to_owned());
    let (here, old) = (&options.here, &options.old);
    vec![
        format!("Keep the old primary ({old}) down: if it starts as it is, there are two primaries."),
        format!(
            "Make it a standby of the new one: CHECKPOINT on the new primary first (pg_rewind reads its timeline from \
             the last checkpoint), then on the old primary's host, as the user of PostgreSQL, with the server \
             stopped (it needs wal_log_hints or data checksums, and a superuser on the source):\n\n   \
             ```\n   pg_rewind --target-pgdata={data} --source-server='host={} port={} user=postgres dbname=postgres' \
             --restore-target-wal --write-recovery-conf --progress\n   ```\n\n   pg_rewind also replaces the configuration files \
             in its data directory by the new primary's (Debian keeps them elsewhere): put its own back. Then start it, \
             and look at \
             `wald lag` on the new primary. (`--restore-target-wal` takes WAL that it lacks from the archive, with \
             the restore_command that its configuration has.)",
            here.host, here.port
        ),
        format!(
            "Lead the other standbys to the new primary: primary_conninfo = 'host={} port={} ...', reload. With \
             recovery_target_timeline = 'latest' they follow to the new timeline.",
            here.host, here.port
        ),
        "Look at synchronous_standby_names on the new primary: without a synchronous standby a later loss of this \
         server loses transactions."
            .to_owned(),
        "Take a base backup: `wald backup`. `wald list` shows whether WAL is missing at the end of the old timeline; \
         `wald archive-push pg_wal/NAME` on this host adds a segment that it has."
            .to_owned(),
        "Move the role: promotion.primary in this host's configuration still names the old primary.".to_owned(),
    ]
}

/// What would be done, in the order in which it would be.
pub fn plan_lines(options: &PromoteOptions) -> Vec<String> {
    let mut lines = Vec::new();
    for pooler in &options.routers.pgbouncer {
        lines.push(format!(
            "{}: PAUSE, for {} s at most",
            pooler.name(),
            options.pause_timeout.as_secs_f32()
        ));
    }
    for proxy in &options.routers.haproxy {
        lines.push(format!("{}: into maintenance", proxy.name()));
    }
    lines.push(match &options.fence_command {
        Some(command) => format!("fence the old primary ({}): {command}", options.old),
        None => {
            format!("prove that the old primary ({}) is down: no answer, and a silent archive", options.old)
        }
    });
    lines.push("wait until everything that it wrote is received and replayed".to_owned());
    lines.push(match &options.trigger_file {
        Some(path) => format!("make {}", path.display()),
        None => format!("SELECT pg_promote(true, {})", options.promote_timeout.as_secs()),
    });
    lines.push(
        "wait for the end of recovery, and for the new timeline's history in the repository".to_owned(),
    );
    for proxy in &options.routers.haproxy {
        let server = proxy.new_server.as_deref().unwrap_or(&proxy.server);
        let address = match proxy.new_server {
            Some(_) => String::new(),
            None => format!("address {} port {}, ", proxy.address.host, proxy.address.port),
        };
        lines.push(format!("{}: {server}: {address}ready", proxy.name()));
    }
    for pooler in &options.routers.pgbouncer {
        if let Some(path) = &pooler.config_file {
            lines.push(format!("{}: {} becomes {}, RELOAD", path.display(), pooler.from, pooler.to));
        }
        lines.push(format!("{}: RESUME", pooler.name()));
    }
    if let Some(command) = &options.secret_command {
        lines.push(format!("the secret: {command}"));
    }
    let tests = options.smoke_sql.len() + options.smoke_commands.len();
    let (schema, table) = &options.smoke_table;
    lines.push(format!("smoke tests: a sample row in {schema}.{table}, and {tests} of your own"));
    lines.push(format!("write the report below {}", options.state_dir.join("promotions").display()));
    lines
}
