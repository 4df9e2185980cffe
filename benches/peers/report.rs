//! What is printed: Markdown for people, JSON for programs.

use crate::figures::{Column, Ratio, Row, Summary, Table};
use serde_json::{Map, Value, json};
use std::fmt::Write as _;
use std::fs;

/// Where it was measured.
#[derive(Debug, Clone)]
pub struct Machine {
    /// A line.
    pub text: String,
}

impl Machine {
    /// This one.
    pub fn here() -> Machine {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let (cpuinfo, meminfo) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
        let value = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let cores = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
        let kib: u64 = value(&meminfo, "MemTotal").trim_end_matches(" kB").parse().unwrap_or(0);
        let system = value(&read("/etc/os-release").replace('=', ":"), "PRETTY_NAME").replace('"', "");
        let kernel = read("/proc/sys/kernel/osrelease").trim().to_owned();
        let model = value(&cpuinfo, "model name");
        let text = format!("{cores} cores ({model}), {} GiB, {system}, Linux {kernel}", kib >> 20);
        Machine { text }
    }
}

/// A whole comparison.
#[derive(Debug, Clone)]
pub struct Report {
    /// When it began, in UTC.
    pub when: String,
    /// How it was started.
    pub command: String,
    /// Where.
    pub machine: Machine,
    /// How busy the machine was with other things when it began: runnable processes on average.
    pub load: String,
    /// The tools, with their settings.
    pub tools: Vec<(String, Vec<String>)>,
    /// Those that did not take part, and why.
    pub left_out: Vec<(String, String)>,
    /// What was measured.
    pub tables: Vec<Table>,
}

impl Report {
    /// For people.
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        let _ = writeln!(
            text,
            "Measured {} on {} (load before it began: {}), by `{}`.\n",
            self.when, self.machine.text, self.load, self.command
        );
        let _ = writeln!(text, "Median (least–most). `×` is the ratio of medians to the first row's.\n");
        for table in &self.tables {
            table_markdown(&mut text, table);
        }
        let _ = writeln!(text, "### Settings\n");
        for (name, lines) in &self.tools {
            let _ = writeln!(text, "- **{name}**: {}.", lines.join("; "));
        }
        for (name, why) in &self.left_out {
            let _ = writeln!(text, "- **{name}** did not take part: {}", one_line(why));
        }
        text
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let tools: Map<String, Value> =
            self.tools.iter().map(|(name, lines)| (name.clone(), json!(lines))).collect();
        let out: Map<String, Value> =
            self.left_out.iter().map(|(name, why)| (name.clone(), json!(why))).collect();
        let tables: Map<String, Value> =
            self.tables.iter().map(|table| (table.key.to_owned(), table_json(table))).collect();
        json!({
            "when": self.when, "command": self.command, "machine": self.machine.text,
            "load": self.load, "tools": tools, "left_out": out, "tables": tables,
        })
    }
}

fn table_markdown(text: &mut String, table: &Table) {
    let _ = writeln!(text, "### {}\n", table.title);
    let shown: Vec<&Column> = table
        .columns
        .iter()
        .filter(|column| table.rows.iter().any(|row| row.summary(column.key).is_some()))
        .collect();
    let mut heading = String::from("| |");
    let mut line = String::from("| --- |");
    for column in &shown {
        let _ = write!(heading, " {} |", column.title);
        line.push_str(" ---: |");
        if column.ratio == Ratio::Shown {
            heading.push_str(" × |");
            line.push_str(" ---: |");
        }
    }
    let _ = writeln!(text, "{heading}\n{line}");
    for row in table.rows.iter().filter(|row| !row.runs.is_empty()) {
        let _ = write!(text, "| {} |", row.name);
        for column in &shown {
            let summary = row.summary(column.key);
            let _ = write!(text, " {} |", summary.map_or_else(|| "–".to_owned(), |s| cell(s, column.digits)));
            if column.ratio == Ratio::Shown {
                let ratio = ratio_to_first(table, row, column.key);
                let _ = write!(text, " {} |", ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}")));
            }
        }
        text.push('\n');
    }
    text.push('\n');
    for note in &table.notes {
        let _ = writeln!(text, "{note}");
    }
    for (row, failure) in
        table.rows.iter().flat_map(|row| row.failures.iter().map(move |failure| (row, failure)))
    {
        let _ = writeln!(text, "- **{}** failed: {}", row.name, one_line(failure));
    }
    if !table.notes.is_empty() || table.rows.iter().any(|row| !row.failures.is_empty()) {
        text.push('\n');
    }
}

fn cell(summary: Summary, digits: usize) -> String {
    let Summary { median, least, most } = summary;
    let show = |value: f64| format!("{value:.digits$}");
    if show(least) == show(most) {
        show(median)
    } else {
        format!("{} ({}–{})", show(median), show(least), show(most))
    }
}

fn ratio_to_first(table: &Table, row: &Row, key: &str) -> Option<f64> {
    let first = table.rows.first()?.summary(key)?.median;
    (first > 0.0).then_some(row.summary(key)?.median / first)
}

fn table_json(table: &Table) -> Value {
    let row = |row: &Row| {
        let summary = |column: &Column| {
            let s = row.summary(column.key)?;
            let ratio = ratio_to_first(table, row, column.key);
            Some((
                column.key.to_owned(),
                json!({"median": s.median, "least": s.least, "most": s.most, "ratio": ratio}),
            ))
        };
        let summaries: Map<String, Value> = table.columns.iter().filter_map(summary).collect();
        json!({"name": row.name, "runs": row.runs, "summary": summaries, "failures": row.failures})
    };
    json!({"title": table.title, "notes": table.notes, "rows": table.rows.iter().map(row).collect::<Vec<_>>()})
}

/// The first lines of an error are enough for a list.
fn one_line(text: &str) -> String {
    let line: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).take(4).collect();
    line.join(" / ").chars().take(600).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_shows_medians_ranges_ratios_and_failures() {
        let column = Column { key: "seconds", title: "s", digits: 1, ratio: Ratio::Shown };
        let mut first = Row::new("wald");
        for seconds in [2.0, 1.0, 3.0] {
            first.add(Ok([("seconds", seconds)].into()));
        }
        let mut second = Row::new("other");
        second.add(Ok([("seconds", 4.0)].into()));
        second.add(Err(anyhow::anyhow!("it broke")));
        let table = Table {
            key: "drain",
            title: "Draining".to_owned(),
            notes: Vec::new(),
            columns: vec![column],
            rows: vec![first, second],
        };
        let mut text = String::new();
        table_markdown(&mut text, &table);
        assert!(text.contains("| wald | 2.0 (1.0–3.0) | 1.00 |\n| other | 4.0 | 2.00 |"), "{text}");
        assert!(text.contains("- **other** failed: it broke"), "{text}");
    }
}
