//! An S3 server that is weaker than the one behind it, or grants less: each request is taken
//! apart, changed, signed again with the suite's own keys and passed on.
//!
//! That is how a suite meets what it has no server for: radosgw's habits without radosgw, a user
//! without one right, a clock that is wrong. What none of its weaknesses concerns is answered by
//! the real server. The client's signature is not checked here; that of the body's digest is.

use crate::s3_client::{Answer, S3Client};
use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// One way to be weak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weakness {
    /// `If-None-Match` is ignored: everything is overwritten.
    IgnoresIfNoneMatch,
    /// A lock that is asked for with an upload in parts is dropped.
    DropsLockOfUploads,
    /// A lock that is asked for with an object is dropped.
    DropsLockOfObjects,
    /// Neither a body's checksum nor its signed digest is looked at.
    IgnoresChecksums,
    /// The answer for a deleted object does not say that it was deleted.
    HidesDeleteMarkers,
    /// The server's clock is so many seconds off.
    ClockOff(i64),
    /// Objects that ask for a lock are refused.
    RefusesLockedObjects,
    /// Requests of this method are refused: with this parameter in the query, or for objects without
    /// any, where it is empty.
    Refuses(&'static str, &'static str),
}

/// A running weak store. It ends with the process.
#[derive(Debug)]
pub struct WeakStore {
    address: String,
    weaknesses: Arc<Mutex<Vec<Weakness>>>,
}

const TIMEOUT: Duration = Duration::from_secs(60);
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Headers that belong to one connection, or that signing makes anew.
const OWN_HEADERS: [&str; 9] = [
    "authorization",
    "connection",
    "content-length",
    "date",
    "host",
    "transfer-encoding",
    "x-amz-content-sha256",
    "x-amz-date",
    "expect",
];

struct Request {
    method: String,
    path: String,
    query: Vec<(String, String)>,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl WeakStore {
    /// Starts one on a free port, in front of the server that `client` speaks to.
    pub fn start(client: S3Client, weaknesses: &[Weakness]) -> Result<WeakStore> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("binding the weak store")?;
        let address = listener.local_addr().context("asking for its port")?.to_string();
        let weaknesses = Arc::new(Mutex::new(weaknesses.to_vec()));
        let shared = Arc::clone(&weaknesses);
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let (client, shared) = (client.clone(), Arc::clone(&shared));
                thread::spawn(move || {
                    // A client that hangs up early is not the server's failure.
                    let _ = serve(connection, &client, &shared);
                });
            }
        });
        Ok(WeakStore { address, weaknesses })
    }

    /// The URL for `[repository] endpoint`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on it has these weaknesses and no others.
    pub fn becomes(&self, weaknesses: &[Weakness]) {
        *self.weaknesses.lock().unwrap_or_else(PoisonError::into_inner) = weaknesses.to_vec();
    }
}

fn serve(mut connection: TcpStream, client: &S3Client, weaknesses: &Mutex<Vec<Weakness>>) -> Result<()> {
    connection.set_read_timeout(Some(TIMEOUT))?;
    let request = read(&mut connection)?;
    let weaknesses = weaknesses.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let answer = answer(&request, client, &weaknesses)?;
    let mut head = format!("HTTP/1.1 {} weak\r\nconnection: close\r\n", answer.status);
    // The answer to a HEAD tells the length of a body that it does not have.
    let is_head = request.method == "HEAD";
    for (name, value) in &answer.headers {
        let own = matches!(name.as_str(), "connection" | "transfer-encoding" | "content-length");
        if !own || (is_head && name == "content-length") {
            let _ = write!(head, "{name}: {value}\r\n");
        }
    }
    if !is_head {
        let _ = write!(head, "content-length: {}\r\n", answer.body.len());
    }
    connection.write_all(head.as_bytes())?;
    connection.write_all(b"\r\n")?;
    connection.write_all(&answer.body)?;
    Ok(())
}

fn answer(request: &Request, client: &S3Client, weaknesses: &[Weakness]) -> Result<Answer> {
    let has = |weakness| weaknesses.contains(&weakness);
    let asks = |name: &str| request.query.iter().any(|(known, _)| known == name);
    for weakness in weaknesses {
        let Weakness::Refuses(method, parameter) = weakness else { continue };
        let plain = request.query.is_empty() || asks("x-id");
        if request.method == *method && (asks(parameter) || (parameter.is_empty() && plain)) {
            return Ok(refusal("AccessDenied", "these keys have no right to that"));
        }
    }
    if has(Weakness::RefusesLockedObjects) && request.header("x-amz-object-lock-mode").is_some() {
        return Ok(refusal("AccessDenied", "these keys have no right to lock"));
    }
    if !has(Weakness::IgnoresChecksums) && !request.digest_is_right() {
        return Ok(refusal("XAmzContentSHA256Mismatch", "the body is not the one that was signed"));
    }
    let begins_upload = asks("uploads");
    let dropped = |name: &str| {
        let lock = name.starts_with("x-amz-object-lock");
        has(Weakness::IgnoresIfNoneMatch) && name == "if-none-match"
            || has(Weakness::DropsLockOfUploads) && lock && begins_upload
            || has(Weakness::DropsLockOfObjects) && lock && !begins_upload
            || has(Weakness::IgnoresChecksums)
                && (name.starts_with("x-amz-checksum") || name.starts_with("x-amz-sdk-checksum"))
    };
    let headers =
        request.headers.iter().filter(|(name, _)| !dropped(name) && !OWN_HEADERS.contains(&name.as_str()));
    let headers: Vec<(&str, &str)> = headers.map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let query: Vec<(&str, &str)> =
        request.query.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let mut answer = client.request(&request.method, &request.path, &query, &headers, &request.body)?;
    if has(Weakness::HidesDeleteMarkers) && answer.status == 404 {
        answer.headers.retain(|(name, _)| name != "x-amz-delete-marker");
    }
    for weakness in weaknesses {
        if let Weakness::ClockOff(seconds) = weakness {
            let date = (jiff::Timestamp::now() + jiff::SignedDuration::from_secs(*seconds))
                .strftime("%a, %d %b %Y %H:%M:%S GMT")
                .to_string();
            answer.headers.retain(|(name, _)| name != "date");
            answer.headers.push(("date".to_owned(), date));
        }
    }
    Ok(answer)
}

fn refusal(code: &str, message: &str) -> Answer {
    let status = if code == "AccessDenied" { 403 } else { 400 };
    let body =
        format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>{message}</Message></Error>");
    let date = jiff::Timestamp::now().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let headers = vec![("content-type".to_owned(), "application/xml".to_owned()), ("date".to_owned(), date)];
    Answer { status, headers, body: body.into_bytes() }
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn digest_is_right(&self) -> bool {
        let told = self.header("x-amz-content-sha256").unwrap_or("UNSIGNED-PAYLOAD");
        let mut found = String::new();
        for byte in Sha256::digest(&self.body) {
            let _ = write!(found, "{byte:02x}");
        }
        told == "UNSIGNED-PAYLOAD" || told == found
    }
}

fn read(connection: &mut TcpStream) -> Result<Request> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        connection.read_exact(&mut byte)?;
        head.extend_from_slice(&byte);
        if head.len() > HEAD_BYTES_MAX {
            bail!("a request's head without an end");
        }
    }
    let head = String::from_utf8(head).context("a request's head")?;
    let mut lines = head.trim_end().split("\r\n");
    let mut words = lines.next().context("a request line")?.split(' ');
    let (method, target) = (words.next().context("a method")?, words.next().context("a target")?);
    let header = |line: &str| {
        line.split_once(':').map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
    };
    let headers: Vec<(String, String)> = lines.filter_map(header).collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length = length.map_or(Ok(0), |(_, length)| length.parse::<usize>()).context("a length")?;
    let mut body = vec![0; length];
    connection.read_exact(&mut body)?;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(name), decode(value))
    };
    Ok(Request {
        method: method.to_owned(),
        path: decode(path),
        query: pairs.map(pair).collect(),
        headers,
        body,
    })
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes().iter();
    while let Some(byte) = rest.next() {
        let digits = || -> Option<u8> {
            let two = rest.as_slice().get(..2)?;
            u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok()
        };
        match (*byte == b'%').then(digits).flatten() {
            Some(decoded) => {
                bytes.push(decoded);
                rest.nth(1);
            }
            None => bytes.push(*byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_encoded_is_read_back() {
        assert_eq!(decode("/b/a%20b%2Bc%3D"), "/b/a b+c=");
        assert_eq!(decode("100%"), "100%");
    }
}
