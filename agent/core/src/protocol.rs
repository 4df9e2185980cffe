//! What passes over the agent's socket: one request, a receipt, one reply, then the connection
//! closes.
//!
//! Invariants: sizes are bounded before anything is read; any bytes either decode or give an
//! error, never a panic; a reply that ends early is no reply.
//!
//! The receipt comes at once, the reply when the work is done: an agent that accepts connections
//! but is stuck is told from one that works.
//!
//! Request: `WALD`, version (u8), verb (u8), payload length (u16, big-endian), payload.
//! Receipt: `WAIT`.
//! Reply: `WALD`, version (u8), exit code (u8), message length (u32, big-endian), message.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What both sides open with.
pub const MAGIC: [u8; 4] = *b"WALD";
/// The receipt.
pub const RECEIPT: [u8; 4] = *b"WAIT";
/// The only version so far.
pub const VERSION: u8 = 1;
/// Bytes of a request before its payload.
pub const REQUEST_HEADER_BYTES: usize = 8;
/// Bytes of a reply before its message.
pub const REPLY_HEADER_BYTES: usize = 10;
/// The longest payload of a request: a WAL file's name and a path of `PATH_MAX`.
pub const REQUEST_PAYLOAD_BYTES_MAX: u16 = 4096 + 256;
/// The longest message of a reply; a status is the longest there is.
pub const REPLY_MESSAGE_BYTES_MAX: u32 = 1 << 20;

const VERB_ARCHIVE: u8 = b'A';
const VERB_RESTORE: u8 = b'R';
const VERB_STATUS: u8 = b'S';

/// What a client asks of the agent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    /// Archive this file; absolute path.
    Archive {
        /// The WAL file in `pg_wal`.
        path: PathBuf,
    },
    /// Bring the WAL file of this name to this absolute path.
    Restore {
        /// The bare name that PostgreSQL asked for (`%f`), not yet checked.
        name: String,
        /// Where to place it (`%p`).
        destination: PathBuf,
    },
    /// Say how the agent is, as JSON.
    Status,
}

/// The agent's answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    /// The code that the client exits with.
    pub exit_code: u8,
    /// What to tell a person; empty where there is nothing to say.
    pub message: String,
}

/// Bytes that are no request or no reply.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ProtocolError {
    /// They do not open with [`MAGIC`].
    NotWald,
    /// The other side speaks a version that this one does not know.
    Version(u8),
    /// A verb that this version does not have.
    Verb(u8),
    /// Longer than the limit, in bytes.
    TooLong(usize),
    /// Too short for what it announces, a relative path, or not UTF-8 where text is due.
    Malformed(&'static str),
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProtocolError::NotWald => f.write_str("the bytes on the socket are not wald's protocol"),
            ProtocolError::Version(version) => {
                write!(
                    f,
                    "the other side speaks protocol version {version}, this one {VERSION}: install the same wald on both"
                )
            }
            ProtocolError::Verb(verb) => write!(f, "unknown request 0x{verb:02x}"),
            ProtocolError::TooLong(bytes) => write!(f, "{bytes} bytes are more than the protocol allows"),
            ProtocolError::Malformed(what) => write!(f, "malformed message: {what}"),
        }
    }
}

impl std::error::Error for ProtocolError {}

/// A request's first bytes: the verb and how many bytes follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RequestHeader {
    verb: u8,
    payload_bytes: u16,
}

impl RequestHeader {
    /// Checks magic, version, verb and length.
    pub fn decode(bytes: &[u8; REQUEST_HEADER_BYTES]) -> Result<Self, ProtocolError> {
        let [m0, m1, m2, m3, version, verb, high, low] = *bytes;
        check_opening([m0, m1, m2, m3], version)?;
        if !matches!(verb, VERB_ARCHIVE | VERB_RESTORE | VERB_STATUS) {
            return Err(ProtocolError::Verb(verb));
        }
        let payload_bytes = u16::from_be_bytes([high, low]);
        if payload_bytes > REQUEST_PAYLOAD_BYTES_MAX {
            return Err(ProtocolError::TooLong(usize::from(payload_bytes)));
        }
        Ok(Self { verb, payload_bytes })
    }

    /// How many bytes of payload follow.
    pub fn payload_bytes(self) -> usize {
        usize::from(self.payload_bytes)
    }
}

impl Request {
    /// The bytes to send. Fails when a path or name is too long or not absolute.
    pub fn encode(&self) -> Result<Vec<u8>, ProtocolError> {
        let mut payload = Vec::new();
        let verb = match self {
            Request::Archive { path } => {
                payload.extend_from_slice(absolute(path)?);
                VERB_ARCHIVE
            }
            Request::Restore { name, destination } => {
                let length = u8::try_from(name.len()).map_err(|_| ProtocolError::TooLong(name.len()))?;
                payload.push(length);
                payload.extend_from_slice(name.as_bytes());
                payload.extend_from_slice(absolute(destination)?);
                VERB_RESTORE
            }
            Request::Status => VERB_STATUS,
        };
        let length = u16::try_from(payload.len())
            .ok()
            .filter(|length| *length <= REQUEST_PAYLOAD_BYTES_MAX)
            .ok_or(ProtocolError::TooLong(payload.len()))?;
        let mut bytes = Vec::with_capacity(REQUEST_HEADER_BYTES + payload.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&[VERSION, verb]);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&payload);
        Ok(bytes)
    }

    /// Reads the payload that `header` announced.
    pub fn decode(header: RequestHeader, payload: &[u8]) -> Result<Self, ProtocolError> {
        if payload.len() != header.payload_bytes() {
            return Err(ProtocolError::Malformed("the payload's length is not the announced one"));
        }
        match header.verb {
            VERB_ARCHIVE => Ok(Request::Archive { path: absolute_from(payload)? }),
            VERB_RESTORE => {
                let (length, rest) =
                    payload.split_first().ok_or(ProtocolError::Malformed("empty restore request"))?;
                let (name, path) = rest
                    .split_at_checked(usize::from(*length))
                    .ok_or(ProtocolError::Malformed("the file name is cut off"))?;
                let name = std::str::from_utf8(name)
                    .map_err(|_| ProtocolError::Malformed("the file name is not UTF-8"))?;
                Ok(Request::Restore { name: name.to_owned(), destination: absolute_from(path)? })
            }
            VERB_STATUS if payload.is_empty() => Ok(Request::Status),
            VERB_STATUS => Err(ProtocolError::Malformed("a status request has no payload")),
            verb => Err(ProtocolError::Verb(verb)),
        }
    }
}

impl Reply {
    /// The bytes to send; a message over the limit is cut at a character's border.
    pub fn encode(&self) -> Vec<u8> {
        let limit = usize::try_from(REPLY_MESSAGE_BYTES_MAX).unwrap_or(usize::MAX);
        let mut end = self.message.len().min(limit);
        while !self.message.is_char_boundary(end) {
            end -= 1;
        }
        let message = self.message.as_bytes().get(..end).unwrap_or_default();
        let length = u32::try_from(message.len()).unwrap_or(REPLY_MESSAGE_BYTES_MAX);
        let mut bytes = Vec::with_capacity(REPLY_HEADER_BYTES + message.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&[VERSION, self.exit_code]);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(message);
        bytes
    }

    /// Reads a reply's first bytes: exit code and length of the message.
    pub fn decode_header(bytes: &[u8; REPLY_HEADER_BYTES]) -> Result<(u8, usize), ProtocolError> {
        let [m0, m1, m2, m3, version, exit_code, l0, l1, l2, l3] = *bytes;
        check_opening([m0, m1, m2, m3], version)?;
        let length = u32::from_be_bytes([l0, l1, l2, l3]);
        let bytes = usize::try_from(length).unwrap_or(usize::MAX);
        if length > REPLY_MESSAGE_BYTES_MAX {
            return Err(ProtocolError::TooLong(bytes));
        }
        Ok((exit_code, bytes))
    }
}

fn check_opening(magic: [u8; 4], version: u8) -> Result<(), ProtocolError> {
    if magic != MAGIC {
        return Err(ProtocolError::NotWald);
    }
    if version != VERSION {
        return Err(ProtocolError::Version(version));
    }
    Ok(())
}

fn absolute(path: &Path) -> Result<&[u8], ProtocolError> {
    if path.is_absolute() {
        Ok(path.as_os_str().as_bytes())
    } else {
        Err(ProtocolError::Malformed("the path is not absolute"))
    }
}

fn absolute_from(bytes: &[u8]) -> Result<PathBuf, ProtocolError> {
    if bytes.contains(&0) {
        return Err(ProtocolError::Malformed("the path holds a zero byte"));
    }
    let path = PathBuf::from(OsStr::from_bytes(bytes));
    absolute(&path)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(bytes: &[u8]) -> Result<Request, ProtocolError> {
        let header = bytes.first_chunk().ok_or(ProtocolError::Malformed("short"))?;
        let header = RequestHeader::decode(header)?;
        Request::decode(header, &bytes[REQUEST_HEADER_BYTES..])
    }

    #[test]
    fn a_relative_path_is_neither_sent_nor_taken() {
        assert!(Request::Archive { path: "pg_wal/x".into() }.encode().is_err());
        assert!(decode(b"WALD\x01A\x00\x01x").is_err());
    }

    #[test]
    fn a_newer_version_is_named() {
        assert_eq!(RequestHeader::decode(b"WALD\x02A\x00\x00"), Err(ProtocolError::Version(2)));
    }

    #[test]
    fn a_message_over_the_limit_is_cut_at_a_character() {
        let message = "\u{e9}".repeat(600_000);
        let bytes = Reply { exit_code: 0, message }.encode();
        let (_, length) = Reply::decode_header(bytes.first_chunk().unwrap()).unwrap();
        assert_eq!(length, 1 << 20);
        assert!(std::str::from_utf8(&bytes[REPLY_HEADER_BYTES..]).is_ok());
    }

    proptest! {
        #[test]
        fn requests_round_trip(path in "/[^\\x00]{0,200}", name in "[0-9A-F]{0,24}", kind in 0..3) {
            let request = match kind {
                0 => Request::Archive { path: path.into() },
                1 => Request::Restore { name, destination: path.into() },
                _ => Request::Status,
            };
            prop_assert_eq!(decode(&request.encode().unwrap()).unwrap(), request);
        }

        #[test]
        fn replies_round_trip(exit_code: u8, message in "\\PC{0,100}") {
            let bytes = Reply { exit_code, message: message.clone() }.encode();
            let (code, length) = Reply::decode_header(bytes.first_chunk().unwrap()).unwrap();
            prop_assert_eq!(code, exit_code);
            prop_assert_eq!(&bytes[REPLY_HEADER_BYTES..], message.as_bytes());
            prop_assert_eq!(length, message.len());
        }

        #[test]
        fn any_bytes_decode_or_fail_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..64), verb in "[ARSX]") {
            let _ = decode(&bytes);
            let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
            let mut framed = [b"WALD\x01", verb.as_bytes(), &length].concat();
            framed.extend_from_slice(&bytes);
            let _ = decode(&framed);
        }
    }
}
