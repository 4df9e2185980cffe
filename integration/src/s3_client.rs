//! A small signed S3 client, independent of the one that wald uses.
//!
//! The suites set up buckets with it, look at what wald stored, and play the rogue operator.
//! It speaks plain HTTP to loopback, one connection per request. Signing follows AWS Signature
//! Version 4 ("Authenticating Requests: Using the Authorization Header" in the S3 API reference).

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(60);
const REGION: &str = "us-east-1";

/// Where a server is, and who asks.
#[derive(Clone, Debug)]
pub struct S3Client {
    address: String,
    access_key: String,
    secret_key: String,
}

/// What the server answered.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status, for example 200 or 412.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, decoded.
    pub body: Vec<u8>,
}

impl Answer {
    /// One header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Itself if the status was 2xx.
    pub fn success(self) -> Result<Answer> {
        if (200..300).contains(&self.status) {
            return Ok(self);
        }
        bail!("the S3 server answered {}: {}", self.status, String::from_utf8_lossy(&self.body))
    }
}

impl S3Client {
    /// A client for the server at `address`, `host:port`.
    pub fn new(address: &str, access_key: &str, secret_key: &str) -> S3Client {
        S3Client {
            address: address.to_owned(),
            access_key: access_key.to_owned(),
            secret_key: secret_key.to_owned(),
        }
    }

    /// Makes a bucket with object lock, which brings versioning along.
    pub fn create_locked_bucket(&self, bucket: &str) -> Result<()> {
        let lock = [("x-amz-bucket-object-lock-enabled", "true")];
        self.request("PUT", &format!("/{bucket}"), &[], &lock, b"")?.success()?;
        Ok(())
    }

    /// Makes a plain bucket.
    pub fn create_bucket(&self, bucket: &str) -> Result<()> {
        self.request("PUT", &format!("/{bucket}"), &[], &[], b"")?.success()?;
        Ok(())
    }

    /// Stores an object, overwriting what is there.
    pub fn put(&self, bucket: &str, key: &str, body: &[u8]) -> Result<Answer> {
        self.request("PUT", &format!("/{bucket}/{key}"), &[], &[], body)
    }

    /// Reads an object; an absent one is an answer with status 404.
    pub fn get(&self, bucket: &str, key: &str) -> Result<Answer> {
        self.request("GET", &format!("/{bucket}/{key}"), &[], &[], b"")
    }

    /// All objects below a prefix, each with its size in bytes.
    pub fn list(&self, bucket: &str, prefix: &str) -> Result<Vec<(String, u64)>> {
        let mut found = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let mut query = vec![("list-type", "2"), ("prefix", prefix)];
            if let Some(token) = &token {
                query.push(("continuation-token", token));
            }
            let answer = self.request("GET", &format!("/{bucket}"), &query, &[], b"")?.success()?;
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            for entry in text.split("<Contents>").skip(1) {
                let key = element(entry, "Key").context("a listed object without a key")?;
                let bytes = element(entry, "Size").and_then(|size| size.parse().ok());
                found.push((key.to_owned(), bytes.context("a listed object without a size")?));
            }
            token = element(&text, "NextContinuationToken").map(str::to_owned);
            if token.is_none() {
                return Ok(found);
            }
        }
    }

    /// One signed request. Header names in lower case; path and query are encoded here.
    pub fn request(
        &self,
        method: &str,
        path: &str,
        query: &[(&str, &str)],
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answer> {
        let path = encode(path, Slash::Keep);
        let mut pairs: Vec<String> = query
            .iter()
            .map(|(k, v)| format!("{}={}", encode(k, Slash::Encode), encode(v, Slash::Encode)))
            .collect();
        pairs.sort();
        let query = pairs.join("&");
        let now = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
        let signed = self.signed_headers(method, &path, &query, headers, body, &now);

        let target = if query.is_empty() { path } else { format!("{path}?{query}") };
        let mut head =
            format!("{method} {target} HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
        for (name, value) in signed {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        head.push_str("\r\n");
        self.exchange(&head, body).with_context(|| format!("{method} http://{}{target}", self.address))
    }

    fn signed_headers(
        &self,
        method: &str,
        path: &str,
        query: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        now: &str,
    ) -> Vec<(String, String)> {
        let digest = hex(&Sha256::digest(body));
        let mut all: Vec<(String, String)> =
            headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        all.push(("host".to_owned(), self.address.clone()));
        all.push(("x-amz-content-sha256".to_owned(), digest.clone()));
        all.push(("x-amz-date".to_owned(), now.to_owned()));
        all.sort();
        let names = all.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>().join(";");
        let lines: String = all.iter().map(|(n, v)| format!("{n}:{}\n", v.trim())).collect();
        let canonical = format!("{method}\n{path}\n{query}\n{lines}\n{names}\n{digest}");

        let day = now.split_once('T').map_or(now, |(day, _)| day);
        let scope = format!("{day}/{REGION}/s3/aws4_request");
        let to_sign = format!("AWS4-HMAC-SHA256\n{now}\n{scope}\n{}", hex(&Sha256::digest(canonical)));
        let mut key = format!("AWS4{}", self.secret_key).into_bytes();
        for step in [day, REGION, "s3", "aws4_request"] {
            key = hmac_sha256(&key, step.as_bytes());
        }
        let signature = hex(&hmac_sha256(&key, to_sign.as_bytes()));
        let credential = format!("{}/{scope}", self.access_key);
        all.push((
            "authorization".to_owned(),
            format!("AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={names}, Signature={signature}"),
        ));
        all
    }

    fn exchange(&self, head: &str, body: &[u8]) -> Result<Answer> {
        let mut stream = TcpStream::connect(&self.address).context("connecting")?;
        stream.set_read_timeout(Some(TIMEOUT)).context("setting a deadline")?;
        stream.set_write_timeout(Some(TIMEOUT)).context("setting a deadline")?;
        stream.write_all(head.as_bytes()).context("sending the head")?;
        stream.write_all(body).context("sending the body")?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).context("reading the answer")?;
        parse_answer(&bytes).context("the answer is not HTTP")
    }
}

fn parse_answer(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(bytes.get(..end)?).into_owned();
    let rest = bytes.get(end + 4..)?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let chunked = headers.iter().any(|(n, v)| n == "transfer-encoding" && v.eq_ignore_ascii_case("chunked"));
    let body = if chunked { unchunk(rest)? } else { rest.to_vec() };
    Some(Answer { status, headers, body })
}

/// The text of the first XML element with this name; the keys that wald uses need no unescaping.
fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    Some(rest.split_once(&format!("</{name}>"))?.0)
}

fn unchunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|w| w == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(rest.get(..end)?).ok()?, 16).ok()?;
        let data = end + 2;
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(data..data.checked_add(size)?)?);
        rest = rest.get(data.checked_add(size)?.checked_add(2)?..)?;
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Slash {
    Keep,
    Encode,
}

fn encode(text: &str, slash: Slash) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        let plain =
            byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || (byte == b'/' && slash == Slash::Keep);
        if plain {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// HMAC as in RFC 2104, for keys of at most one block, which is all that signing uses.
fn hmac_sha256(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut block = if key.len() > 64 { Sha256::digest(key).to_vec() } else { key.to_vec() };
    block.resize(64, 0);
    let pad = |mask: u8| block.iter().map(|b| b ^ mask).collect::<Vec<u8>>();
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hmac_agrees_with_rfc_4231_test_case_2() {
        let mac = hmac_sha256(b"Jefe", b"what do ya want for nothing?");
        assert_eq!(hex(&mac), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }

    #[test]
    fn a_chunked_answer_is_put_together() {
        let raw = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        let answer = parse_answer(raw).unwrap();
        assert_eq!((answer.status, answer.body.as_slice()), (200, b"abcde".as_slice()));
    }

    #[test]
    fn a_key_keeps_its_slashes_and_a_query_does_not() {
        assert_eq!(encode("/b/a b+c", Slash::Keep), "/b/a%20b%2Bc");
        assert_eq!(encode("a/b", Slash::Encode), "a%2Fb");
    }
}
