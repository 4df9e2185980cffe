//! The project's own sources, read for the checks of `tests/tidy.rs`.
//!
//! What is looked at is code: comments, string literals and test modules are taken out first.

use crate::parts::checkout;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// The directories that hold packages, relative to the checkout.
pub const PACKAGE_DIRS: [&str; 5] = ["agent", "archive-cmd", "restore-cmd", "benches", "integration"];

/// One Rust file.
#[derive(Debug, Clone)]
pub struct Source {
    /// Relative to the checkout, for example `agent/core/src/lsn.rs`.
    pub path: PathBuf,
    /// All of it.
    pub text: String,
}

impl Source {
    /// Every Rust file of the project.
    pub fn all() -> Result<Vec<Source>> {
        let mut found = Vec::new();
        for dir in PACKAGE_DIRS {
            if checkout().join(dir).is_dir() {
                walk(Path::new(dir), &mut found)?;
            }
        }
        found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }

    /// The file's name without its extension.
    pub fn stem(&self) -> &str {
        self.path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default()
    }

    /// Whether the whole file is tests: a suite, or a test module moved out of its file.
    pub fn is_test(&self) -> bool {
        self.stem() == "tests" || self.path.components().any(|part| part.as_os_str() == "tests")
    }

    /// The text before the test module at its end.
    pub fn without_tests(&self) -> &str {
        let Some(at) = test_module(&self.text) else { return &self.text };
        self.text.get(..at).unwrap_or(&self.text)
    }

    /// What is compiled into the product: no tests, no comments, no string literals.
    pub fn code(&self) -> String {
        if self.is_test() { String::new() } else { strip(self.without_tests()) }
    }
}

/// Where `#[cfg(test)] mod ...` begins.
fn test_module(text: &str) -> Option<usize> {
    let mut from = 0;
    while let Some(found) = text.get(from..)?.find("#[cfg(test)]") {
        let at = from + found;
        let mut rest = text.get(at..)?.lines();
        rest.next();
        let after = rest.find(|line| !line.trim_start().starts_with("#[") && !line.trim().is_empty());
        if after.is_some_and(|line| line.trim_start().starts_with("mod ")) {
            return Some(at);
        }
        from = at + 1;
    }
    None
}

fn walk(dir: &Path, found: &mut Vec<Source>) -> Result<()> {
    let full = checkout().join(dir);
    for entry in fs::read_dir(&full).with_context(|| format!("listing {}", full.display()))? {
        let entry = entry.with_context(|| format!("listing {}", full.display()))?;
        let path = dir.join(entry.file_name());
        if entry.file_type().context("asking for a file's type")?.is_dir() {
            walk(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text =
                fs::read_to_string(entry.path()).with_context(|| format!("reading {}", path.display()))?;
            found.push(Source { path, text });
        }
    }
    Ok(())
}

/// Replaces comments and the content of literals by blanks.
fn strip(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skipped = comment(rest).or_else(|| literal(rest));
        let taken = match skipped {
            Some(bytes) => {
                code.push(' ');
                bytes
            }
            None => {
                code.push(first);
                first.len_utf8()
            }
        };
        rest = rest.get(taken..).unwrap_or_default();
    }
    code
}

/// The length of the comment that `text` starts with.
fn comment(text: &str) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if !text.starts_with("/*") {
        return None;
    }
    let (mut depth, mut at) = (0_u32, 0);
    loop {
        let rest = text.get(at..).unwrap_or_default();
        let step = if rest.starts_with("/*") {
            depth += 1;
            2
        } else if rest.starts_with("*/") {
            depth -= 1;
            2
        } else {
            rest.chars().next().map_or(0, char::len_utf8)
        };
        at += step;
        if depth == 0 || step == 0 {
            return Some(at);
        }
    }
}

/// The length of the string or character literal that `text` starts with.
fn literal(text: &str) -> Option<usize> {
    if let Some(body) = text.strip_prefix('"') {
        return Some(1 + end_of_quoted(body, '"'));
    }
    if let Some(body) = text.strip_prefix('\'') {
        // Without the second quote it is a lifetime.
        let mut chars = body.chars();
        let first = chars.next()?;
        let is_char = first == '\\' || chars.next() == Some('\'');
        return is_char.then(|| 1 + end_of_quoted(body, '\''));
    }
    let body = text.strip_prefix('r')?;
    let hashes = body.len() - body.trim_start_matches('#').len();
    let body = body.get(hashes..)?.strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    let end = body.find(&close).map_or(body.len(), |at| at + close.len());
    Some(1 + hashes + 1 + end)
}

fn end_of_quoted(body: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in body.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    body.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_taken_out_and_lifetimes_stay() {
        let text = "a // x\nb /* y /* z */ */ c \"q\\\"crate::no\" d 'e' '\\'' <'f> r#\"g\"h\"# i";
        let words: Vec<String> = strip(text).split_whitespace().map(str::to_owned).collect();
        assert_eq!(words, ["a", "b", "c", "d", "<'f>", "i"]);
    }

    #[test]
    fn a_file_is_cut_at_its_test_module_only() {
        let text = "#[cfg(test)]\nuse x;\nfn a() {}\n#[cfg(test)]\n#[allow(dead_code)]\nmod tests {}\n";
        let source = Source { path: PathBuf::from("agent/src/a.rs"), text: text.to_owned() };
        assert!(source.without_tests().ends_with("fn a() {}\n"));
    }
}
