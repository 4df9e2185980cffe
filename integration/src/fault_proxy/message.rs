//! HTTP/1.1 as far as S3 clients and servers use it: heads, and bodies of known or chunked length.
//! <https://www.rfc-editor.org/rfc/rfc9112>

use std::io::{self, BufRead, Read, Write};

/// No head is longer; S3 allows 8 KiB of headers.
const HEAD_BYTES_MAX: u64 = 64 << 10;
/// No body of a suite is longer.
const BODY_BYTES_MAX: u64 = 1 << 30;

/// A request line or a status line, with its headers.
#[derive(Debug, Clone)]
pub(super) struct Head {
    line: String,
    headers: Vec<(String, String)>,
}

impl Head {
    /// A head without headers.
    pub(super) fn new(line: String) -> Head {
        Head { line, headers: Vec::new() }
    }

    /// Reads one; `None` where the connection ends before it begins.
    pub(super) fn read(from: &mut impl BufRead) -> io::Result<Option<Head>> {
        let mut from = from.take(HEAD_BYTES_MAX);
        let line = read_line(&mut from)?;
        if line.is_empty() {
            return Ok(None);
        }
        let mut head = Head::new(line);
        loop {
            let line = read_line(&mut from)?;
            if line.is_empty() {
                return Ok(Some(head));
            }
            let (name, value) = line.split_once(':').ok_or_else(|| wrong("a header without a colon"))?;
            head.headers.push((name.to_owned(), value.trim().to_owned()));
        }
    }

    /// Writes it, with the empty line that ends it.
    pub(super) fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let mut text = format!("{}\r\n", self.line);
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        to.write_all(text.as_bytes())
    }

    /// A header's value; its name in lower case.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// Sets a header, in the place of any that have its name.
    pub(super) fn set(&mut self, name: &str, value: impl Into<String>) {
        self.remove(name);
        self.headers.push((name.to_owned(), value.into()));
    }

    /// Takes a header away.
    pub(super) fn remove(&mut self, name: &str) {
        self.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
    }

    /// Of a request: its method.
    pub(super) fn method(&self) -> &str {
        self.line.split(' ').next().unwrap_or_default()
    }

    /// Of a request: its path, as it was sent.
    pub(super) fn path(&self) -> &str {
        self.target().split_once('?').map_or(self.target(), |(path, _)| path)
    }

    /// Of a request: what follows the `?`.
    pub(super) fn query(&self) -> &str {
        self.target().split_once('?').map_or("", |(_, query)| query)
    }

    /// Of a request: whether its query has a parameter.
    pub(super) fn has_parameter(&self, name: &str) -> bool {
        self.query().split('&').any(|pair| pair.split('=').next() == Some(name))
    }

    /// Of an answer: whether it has no body by its status.
    pub(super) fn is_bodiless(&self) -> bool {
        matches!(self.target(), "204" | "304")
    }

    /// The second word: a request's target, an answer's status.
    fn target(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or_default()
    }

    fn is_chunked(&self) -> bool {
        self.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"))
    }

    /// Reads the body of a request, or its first `bytes_max` bytes: the rest stays unread. A
    /// chunked body becomes one of known length, and the head says so.
    pub(super) fn read_request_body(
        &mut self,
        from: &mut impl BufRead,
        bytes_max: usize,
    ) -> io::Result<Vec<u8>> {
        if self.is_chunked() {
            let body = read_chunks(from)?;
            self.remove("transfer-encoding");
            self.set("Content-Length", body.len().to_string());
            return Ok(body);
        }
        let length = self.header("content-length").map_or(Ok(0), str::parse::<u64>);
        let length = length.map_err(|_| wrong("a length that is no number"))?;
        read_exactly(from, length.min(u64::try_from(bytes_max).unwrap_or(u64::MAX)))
    }

    /// Reads the body of an answer on a connection that ends with it. A chunked body becomes one
    /// of known length, and the head says so.
    pub(super) fn read_answer_body(&mut self, from: &mut impl BufRead) -> io::Result<Vec<u8>> {
        let body = if self.is_chunked() {
            read_chunks(from)?
        } else if let Some(length) = self.header("content-length") {
            read_exactly(from, length.parse().map_err(|_| wrong("a length that is no number"))?)?
        } else {
            let mut body = Vec::new();
            from.take(BODY_BYTES_MAX).read_to_end(&mut body)?;
            body
        };
        self.remove("transfer-encoding");
        self.set("Content-Length", body.len().to_string());
        Ok(body)
    }
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not HTTP: {what}"))
}

/// A line without its end; empty at the end of the connection.
fn read_line(from: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    line.truncate(line.trim_end_matches(['\r', '\n']).len());
    Ok(line)
}

fn read_exactly(from: &mut impl BufRead, length: u64) -> io::Result<Vec<u8>> {
    if length > BODY_BYTES_MAX {
        return Err(wrong("a body longer than any of a suite's"));
    }
    let mut body = Vec::new();
    from.take(length).read_to_end(&mut body)?;
    if u64::try_from(body.len()).ok() != Some(length) {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a body that breaks off"));
    }
    Ok(body)
}

fn read_chunks(from: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = read_line(from)?;
        let size = line.split(';').next().unwrap_or_default();
        let size = u64::from_str_radix(size, 16).map_err(|_| wrong("a chunk without a size"))?;
        body.extend(read_exactly(from, size)?);
        // The end of the chunk, or of the trailers, of which S3 sends none.
        read_line(from)?;
        if size == 0 {
            return Ok(body);
        }
    }
}
