//! The target in PgBouncer's configuration file, replaced where it stands: every other byte of the
//! file stays as it is.
//!
//! A line of the section `[databases]` is `name = key=value key=value ...`; a value may stand in
//! single quotes, which are doubled inside (<https://www.pgbouncer.org/config.html>). A database
//! without `port` uses 5432. Lines of other sections, comments and databases with other targets
//! are not looked into any further.

/// Where a server is: an address, or the directory of its Unix socket, and a port.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Target {
    /// An address, a name, or an absolute directory.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "host={} port={}", self.host, self.port)
    }
}

/// The port where none is given.
const PORT_DEFAULT: u16 = 5432;

/// A file with its new target.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Replaced {
    /// The whole file.
    pub text: String,
    /// The databases whose target was replaced.
    pub replaced: Vec<String>,
    /// The databases that had the new target already.
    pub already: Vec<String>,
}

/// A key's value in a line: what it says, and the bytes that it takes.
struct Value {
    text: String,
    begin: usize,
    end: usize,
}

/// Replaces the target `from` of all databases in `text` by `to`.
pub fn replace_target(text: &str, from: &Target, to: &Target) -> Replaced {
    let mut out = String::with_capacity(text.len() + 64);
    let (mut replaced, mut already) = (Vec::new(), Vec::new());
    let mut in_databases = false;
    for line in text.split_inclusive('\n') {
        let content = line.trim();
        if let Some(section) = content.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            in_databases = section.eq_ignore_ascii_case("databases");
        }
        match in_databases.then(|| database_of(line)).flatten() {
            Some((name, target, host, port)) if target == *from => {
                out.push_str(&with_target(line, to, &host, port.as_ref()));
                replaced.push(name);
            }
            found => {
                already.extend(found.filter(|(_, target, ..)| target == to).map(|(name, ..)| name));
                out.push_str(line);
            }
        }
    }
    Replaced { text: out, replaced, already }
}

/// Name and target of a database's line; `None` for any other line and one without a host.
fn database_of(line: &str) -> Option<(String, Target, Value, Option<Value>)> {
    let content = line.trim_start();
    if content.starts_with([';', '#', '[', '%']) {
        return None;
    }
    let equals = line.find('=')?;
    let name = line.get(..equals)?.trim().to_owned();
    let (mut host, mut port) = (None, None);
    let mut at = equals + 1;
    while let Some((key, value)) = next_pair(line, &mut at) {
        match key.as_str() {
            "host" => host = Some(value),
            "port" => port = Some(value),
            _ => {}
        }
    }
    let host = host?;
    let number = match &port {
        Some(value) => value.text.parse().ok()?,
        None => PORT_DEFAULT,
    };
    Some((name, Target { host: host.text.clone(), port: number }, host, port))
}

/// The next `key=value` of a line from byte `at` on.
fn next_pair(line: &str, at: &mut usize) -> Option<(String, Value)> {
    let rest = line.get(*at..)?;
    let begin = *at + (rest.len() - rest.trim_start().len());
    let rest = line.get(begin..)?;
    let equals = begin + rest.find('=')?;
    let key = line.get(begin..equals)?.trim().to_owned();
    let after = line.get(equals + 1..)?;
    let value_begin = equals + 1 + (after.len() - after.trim_start_matches([' ', '\t']).len());
    let value = line.get(value_begin..)?;
    let (text, end) = match value.strip_prefix('\'') {
        Some(quoted) => {
            let (text, taken) = unquote(quoted)?;
            (text, value_begin + 1 + taken)
        }
        None => {
            let len = value.find(char::is_whitespace).unwrap_or(value.len());
            (value.get(..len)?.to_owned(), value_begin + len)
        }
    };
    *at = end;
    Some((key, Value { text, begin: value_begin, end }))
}

/// A quoted value after its first quote: what it says, and its bytes up to and with the last quote.
fn unquote(quoted: &str) -> Option<(String, usize)> {
    let mut text = String::new();
    let mut characters = quoted.char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        if character != '\'' {
            text.push(character);
        } else if characters.next_if(|(_, next)| *next == '\'').is_some() {
            text.push('\'');
        } else {
            return Some((text, at + 1));
        }
    }
    None
}

fn with_target(line: &str, to: &Target, host: &Value, port: Option<&Value>) -> String {
    let quoted_host = quote(&to.host);
    let port_text = to.port.to_string();
    let mut edits: Vec<(usize, usize, String)> = vec![(host.begin, host.end, quoted_host)];
    match port {
        Some(port) => edits.push((port.begin, port.end, port_text)),
        None if to.port == PORT_DEFAULT => {}
        None => edits.push((host.end, host.end, format!(" port={port_text}"))),
    }
    // From the back to the front: what is replaced does not move what comes before it.
    edits.sort_by_key(|(begin, end, _)| std::cmp::Reverse((*begin, *end)));
    let mut line = line.to_owned();
    for (begin, end, new) in edits {
        line.replace_range(begin..end, &new);
    }
    line
}

fn quote(value: &str) -> String {
    let plain = |c: char| !c.is_whitespace() && c != '\'' && c != '=';
    if !value.is_empty() && value.chars().all(plain) {
        value.to_owned()
    } else {
        format!("'{}'", value.replace('\'', "''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn target(host: &str, port: u16) -> Target {
        Target { host: host.to_owned(), port }
    }

    const FILE: &str = "; the pooler\n[databases]\r\napp = host=10.0.0.5 port=5432 dbname=app user='a b' \n\
        # old = host=10.0.0.5\n\tdirect=host = '10.0.0.5'  pool_size=3\nother = host=10.0.0.9 port=5432\n\
        * = host=10.0.0.5 port=5433\n[pgbouncer]\nlisten_addr = 10.0.0.5\nhost = 10.0.0.5";

    #[test]
    fn only_the_targets_change_and_every_other_byte_stays() {
        let new = replace_target(FILE, &target("10.0.0.5", 5432), &target("10.0.0.6", 6000));
        assert_eq!(new.replaced, ["app", "direct"]);
        let expected = FILE
            .replace("app = host=10.0.0.5 port=5432", "app = host=10.0.0.6 port=6000")
            .replace("'10.0.0.5'", "10.0.0.6 port=6000");
        assert_eq!(new.text, expected);
    }

    #[test]
    fn doing_it_again_changes_nothing_and_says_so() {
        let (from, to) = (target("10.0.0.5", 5432), target("/run/pg", 5432));
        let once = replace_target(FILE, &from, &to);
        let again = replace_target(&once.text, &from, &to);
        assert_eq!(again.text, once.text);
        assert!(again.replaced.is_empty());
        assert_eq!(again.already, ["app", "direct"]);
    }

    #[test]
    fn a_host_with_a_blank_or_a_quote_is_quoted_and_reads_back() {
        let (from, to) = (target("10.0.0.5", 5432), target("/run/it's here", 5432));
        let once = replace_target(FILE, &from, &to);
        assert_eq!(replace_target(&once.text, &to, &from).replaced, ["app", "direct"]);
    }

    proptest! {
        #[test]
        fn any_text_is_taken_without_panic_and_stays_without_the_target(text in "[\\PC\n]{0,200}") {
            let text = format!("[databases]\n{text}");
            let new = replace_target(&text, &target("no-such-host", 1), &target("x", 2));
            prop_assert_eq!(new.text, text);
        }

        #[test]
        fn there_and_back_is_the_same_file(name in "[a-z]{1,8}", port in 1u16..65535, extra in "[a-z]{1,5}=[a-z0-9]{1,5}") {
            let line = format!("[databases]\n{name} = {extra} host=h1 port={port} {extra}\n");
            let (a, b) = (target("h1", port), target("h2", 7));
            let there = replace_target(&line, &a, &b);
            prop_assert_eq!(replace_target(&there.text, &b, &a).text, line);
        }
    }
}
