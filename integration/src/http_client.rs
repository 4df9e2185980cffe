//! One HTTP request over a fresh connection, written by hand: what a scraper does, and what one
//! does that means no good.

use crate::account::clean_command;
use crate::parts;
use crate::run::{Finished, run_within};
use anyhow::{Context, Result};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status; 0 if there was no answer.
    pub status: u16,
    /// The headers, as they came, in lower case.
    pub head: String,
    /// What follows.
    pub body: String,
}

impl Answer {
    /// Reads an answer that is complete.
    pub fn parse(text: &str) -> Answer {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    /// The value of a sample that is written so, for example `wald_archive_backlog_files`.
    pub fn sample(&self, series: &str) -> Option<f64> {
        let value = |line: &str| line.strip_prefix(series)?.strip_prefix(' ')?.trim().parse().ok();
        self.body.lines().find_map(value)
    }
}

/// Sends `text` as it is and reads until the server closes.
pub fn exchange(address: SocketAddr, text: &str) -> Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_WITHIN)
        .with_context(|| format!("connecting to {address}"))?;
    stream.set_read_timeout(Some(ANSWER_WITHIN)).context("setting a time-out")?;
    stream.write_all(text.as_bytes()).context("sending a request")?;
    let mut answer = Vec::new();
    // A server that resets the connection has said all that it will.
    let _ = stream.read_to_end(&mut answer);
    Ok(Answer::parse(&String::from_utf8_lossy(&answer)))
}

/// A request without a body.
pub fn request(method: &str, path: &str, headers: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n")
}

/// `GET path`.
pub fn get(address: SocketAddr, path: &str) -> Result<Answer> {
    exchange(address, &request("GET", path, ""))
}

/// `GET path` over TLS, with the server's certificate checked against `ca`, by the stock `openssl`.
pub fn get_tls(address: SocketAddr, ca: &Path, path: &str, headers: &str) -> Result<Answer> {
    let mut command = clean_command("sh");
    command
        .args([
            "-c",
            "printf %s \"$1\" | \"$2\" s_client -quiet -verify_return_error -CAfile \"$3\" -connect \"$4\"",
            "sh",
        ])
        .arg(request("GET", path, headers))
        .arg(parts::tool("openssl")?)
        .arg(ca)
        .arg(address.to_string());
    let Finished { stdout, .. } = run_within(command, ANSWER_WITHIN)?;
    Ok(Answer::parse(&stdout))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_falls_into_its_parts() {
        let answer =
            Answer::parse("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\na 1\na_b{x=\"y\"} 2.5\n");
        assert_eq!(
            (answer.status, answer.sample("a"), answer.sample("a_b{x=\"y\"}")),
            (200, Some(1.0), Some(2.5))
        );
        assert!(answer.head.contains("content-type: text/plain") && answer.sample("b").is_none());
        assert_eq!(Answer::parse("").status, 0);
    }
}
