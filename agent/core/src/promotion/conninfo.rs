//! Where a libpq connection string leads, whatever else it holds.
//!
//! `pg_basebackup` writes keywords into `primary_conninfo` that only libpq knows, so a stricter
//! parser would refuse the whole. The format is `keyword = value`, with blanks around; a value in
//! single quotes has `\'` and `\\` for themselves
//! (<https://www.postgresql.org/docs/15/libpq-connect.html#LIBPQ-CONNSTRING>).

use super::pgbouncer_file::Target;
use std::iter::Peekable;
use std::str::Chars;

/// The port where none is given.
const PORT_DEFAULT: u16 = 5432;

/// The first host and port of a connection string of keywords; `None` if there is no host in it,
/// or it can't be read. `hostaddr` counts where there is no `host`.
pub fn target(conninfo: &str) -> Option<Target> {
    let (mut host, mut address, mut port) = (None, None, None);
    let mut rest = conninfo.chars().peekable();
    while let Some((keyword, value)) = next_pair(&mut rest) {
        match keyword.as_str() {
            "host" => host = Some(value),
            "hostaddr" => address = Some(value),
            "port" => port = Some(value),
            _ => {}
        }
    }
    if rest.peek().is_some() {
        return None;
    }
    let first = |list: String| list.split(',').next().map(str::trim).map(str::to_owned);
    let host = host.or(address).and_then(first).filter(|host| !host.is_empty())?;
    let port = match port.and_then(first).filter(|port| !port.is_empty()) {
        Some(port) => port.parse().ok()?,
        None => PORT_DEFAULT,
    };
    Some(Target { host, port })
}

fn skip_blanks(rest: &mut Peekable<Chars<'_>>) {
    while rest.next_if(|c| c.is_whitespace()).is_some() {}
}

/// The next pair; at the end `None`, with nothing left.
fn next_pair(rest: &mut Peekable<Chars<'_>>) -> Option<(String, String)> {
    skip_blanks(rest);
    let mut keyword = String::new();
    while let Some(c) = rest.next_if(|c| *c != '=' && !c.is_whitespace()) {
        keyword.push(c);
    }
    skip_blanks(rest);
    rest.next_if_eq(&'=')?;
    skip_blanks(rest);
    let quoted = rest.next_if_eq(&'\'').is_some();
    let mut value = String::new();
    loop {
        match rest.peek().copied() {
            Some('\'') if quoted => {
                rest.next();
                return Some((keyword, value));
            }
            Some('\\') => {
                rest.next();
                value.push(rest.next()?);
            }
            Some(c) if quoted || !c.is_whitespace() => {
                rest.next();
                value.push(c);
            }
            // A quote that is not closed leaves nothing that could be trusted.
            None if quoted => return None,
            _ => return Some((keyword, value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(conninfo: &str) -> Option<(String, u16)> {
        target(conninfo).map(|target| (target.host, target.port))
    }

    #[test]
    fn what_pg_basebackup_writes_is_read() {
        let written = "user=postgres passfile='/nonexistent/.pgpass' channel_binding=disable host='/tmp/a b' \
                       port=5433 sslmode=disable sslcompression=0 sslsni=1 krbsrvname=postgres \
                       target_session_attrs=any";
        assert_eq!(found(written), Some(("/tmp/a b".to_owned(), 5433)));
    }

    #[test]
    fn the_first_of_several_hosts_counts_and_the_default_port() {
        assert_eq!(found("host = a,b  port = 1,2"), Some(("a".to_owned(), 1)));
        assert_eq!(found("hostaddr=10.0.0.5"), Some(("10.0.0.5".to_owned(), 5432)));
        assert_eq!(found(r"host='it\'s'"), Some(("it's".to_owned(), 5432)));
        assert_eq!(found("user=x"), None);
        assert_eq!(found("host='open"), None);
        assert_eq!(found("host=a nonsense"), Some(("a".to_owned(), 5432)));
    }

    proptest! {
        #[test]
        fn any_text_is_taken_without_panic(text in "\\PC{0,60}") {
            let _ = target(&text);
        }
    }
}
