//! `[http]`: where the agent shows its metrics.
//!
//! Invariant: an address that others can reach is refused unless there are TLS and basic
//! authentication: the figures tell of the database, and a password must not go over a line that
//! can be read.

use super::check::Checker;
use serde::Deserialize;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// As it stands in the file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawHttp {
    pub listen: Option<String>,
    pub tls_cert: Option<PathBuf>,
    pub tls_key: Option<PathBuf>,
    pub basic_auth_file: Option<PathBuf>,
}

/// Checked.
#[derive(Clone, Debug)]
pub struct Http {
    /// Where to listen; nowhere, where absent.
    pub listen: Option<SocketAddr>,
    /// The certificate with its chain, and its key, both PEM.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Who may ask: see [`crate::http`].
    pub basic_auth_file: Option<PathBuf>,
}

/// Not among the ports that Prometheus' exporters have by default
/// (<https://github.com/prometheus/prometheus/wiki/Default-port-allocations>), nor PostgreSQL's.
const PORT: u16 = 9899;
const NONE: &str = "none";
const LISTEN: &str = "http.listen";

pub(super) fn check(checker: &mut Checker, raw: RawHttp) -> Http {
    let listen = match raw.listen.as_deref() {
        None => Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), PORT)),
        Some(NONE) => None,
        Some(text) => match text.parse() {
            Ok(address) => Some(address),
            Err(_) => {
                let wanted =
                    "an address with a port, such as \"127.0.0.1:9899\" or \"[::1]:9899\", or \"none\"";
                checker.refuse(LISTEN, format!("{text:?}"), wanted);
                None
            }
        },
    };
    let path = |checker: &mut Checker, key, path: Option<PathBuf>| {
        if let Some(path) = path.as_ref().filter(|path| !path.is_absolute()) {
            checker.refuse(key, format!("{path:?}"), "an absolute path");
        }
        path
    };
    let certificate = path(checker, "http.tls_cert", raw.tls_cert);
    let key = path(checker, "http.tls_key", raw.tls_key);
    let basic_auth_file = path(checker, "http.basic_auth_file", raw.basic_auth_file);
    let tls = match (certificate, key) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        (Some(_), None) => {
            checker.refuse("http.tls_key", "(not set)", "the key of http.tls_cert");
            None
        }
        (None, Some(_)) => {
            checker.refuse("http.tls_cert", "(not set)", "the certificate of http.tls_key");
            None
        }
    };
    if let Some(address) = listen.filter(|address| !address.ip().is_loopback())
        && (tls.is_none() || basic_auth_file.is_none())
    {
        let wanted = "a loopback address such as \"127.0.0.1:9899\", or http.tls_cert, http.tls_key and \
                      http.basic_auth_file beside it";
        checker.refuse(LISTEN, format!("\"{address}\""), wanted);
    }
    Http { listen, tls, basic_auth_file }
}

impl Http {
    pub(super) fn write(&self, out: &mut String) -> std::fmt::Result {
        use std::fmt::Write as _;
        match self.listen {
            Some(address) => writeln!(out, "\n[http]\nlisten = \"{address}\"")?,
            None => writeln!(out, "\n[http]\nlisten = \"{NONE}\"")?,
        }
        if let Some((certificate, key)) = &self.tls {
            writeln!(out, "tls_cert = {certificate:?}\ntls_key = {key:?}")?;
        }
        if let Some(file) = &self.basic_auth_file {
            writeln!(out, "basic_auth_file = {file:?}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;
    use std::path::Path;

    fn parse(http: &str) -> Result<Config, String> {
        let text = format!("[repository]\nurl = \"file:///srv/wald\"\n[http]\n{http}");
        Config::parse(Path::new("wald.toml"), &text).map_err(|error| error.to_string())
    }

    const TLS: &str = "tls_cert = \"/c\"\ntls_key = \"/k\"\n";
    const AUTH: &str = "basic_auth_file = \"/a\"\n";

    #[test]
    fn others_can_only_reach_it_with_tls_and_a_password() {
        for address in ["0.0.0.0:9899", "[::]:9899", "192.0.2.1:9899"] {
            let listen = format!("listen = \"{address}\"\n");
            for with in ["", TLS, AUTH] {
                let error = parse(&format!("{listen}{with}")).unwrap_err();
                assert!(error.contains("http.listen"), "{error}");
            }
            assert!(parse(&format!("{listen}{TLS}{AUTH}")).is_ok());
        }
        for address in ["127.0.0.1:1", "127.1.2.3:9899", "[::1]:9899"] {
            assert!(parse(&format!("listen = \"{address}\"\n")).is_ok());
        }
    }

    #[test]
    fn half_of_tls_is_refused_and_what_is_no_address_too() {
        assert!(parse("tls_cert = \"/c\"\n").unwrap_err().contains("http.tls_key"));
        assert!(parse("tls_key = \"/k\"\n").unwrap_err().contains("http.tls_cert"));
        for text in ["9899", "localhost", "127.0.0.1", "off"] {
            assert!(parse(&format!("listen = \"{text}\"\n")).unwrap_err().contains("http.listen"), "{text}");
        }
        assert!(parse("listen = \"none\"\n").unwrap().http.listen.is_none());
    }
}
