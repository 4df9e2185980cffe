//! Send one request, read one reply.
//!
//! Invariant: a reply is complete or it is an error; a connection that ends early is never
//! read as an answer.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;
use wald_core::protocol::{ProtocolError, RECEIPT, REPLY_HEADER_BYTES, Reply, Request};

/// Why there is no reply.
#[derive(Debug)]
pub enum ExchangeError {
    /// Nobody listens on the socket, or it may not be opened.
    Connect {
        /// The socket.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The connection broke, or the time-out passed, before the reply was complete.
    Broken {
        /// What the system said.
        source: io::Error,
    },
    /// The request can't be sent, or the reply is not wald's.
    Protocol(ProtocolError),
}

impl fmt::Display for ExchangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExchangeError::Connect { socket, source } => {
                write!(f, "no agent answers on {}: {source}", socket.display())
            }
            ExchangeError::Broken { source } => write!(f, "the agent gave no complete answer: {source}"),
            ExchangeError::Protocol(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ExchangeError {}

impl From<ProtocolError> for ExchangeError {
    fn from(error: ProtocolError) -> Self {
        ExchangeError::Protocol(error)
    }
}

/// How long the agent may take to say that it has the request.
const RECEIPT_TIMEOUT: Duration = Duration::from_secs(5);

/// Asks the agent behind `socket`; waits at most `timeout` for its reply once it has the request.
pub fn ask(socket: &Path, request: &Request, timeout: Duration) -> Result<Reply, ExchangeError> {
    let bytes = request.encode()?;
    let mut stream = UnixStream::connect(socket)
        .map_err(|source| ExchangeError::Connect { socket: socket.to_owned(), source })?;
    let broken = |source| ExchangeError::Broken { source };
    stream.set_read_timeout(Some(RECEIPT_TIMEOUT)).map_err(broken)?;
    stream.set_write_timeout(Some(RECEIPT_TIMEOUT)).map_err(broken)?;
    stream.write_all(&bytes).map_err(broken)?;
    let mut receipt = [0; RECEIPT.len()];
    stream.read_exact(&mut receipt).map_err(broken)?;
    if receipt != RECEIPT {
        return Err(ProtocolError::NotWald.into());
    }
    stream.set_read_timeout(Some(timeout)).map_err(broken)?;
    read_reply(&mut stream)
}

fn read_reply(stream: &mut impl Read) -> Result<Reply, ExchangeError> {
    let broken = |source| ExchangeError::Broken { source };
    let mut header = [0; REPLY_HEADER_BYTES];
    stream.read_exact(&mut header).map_err(broken)?;
    let (exit_code, length) = Reply::decode_header(&header)?;
    let mut message = vec![0; length];
    stream.read_exact(&mut message).map_err(broken)?;
    let message =
        String::from_utf8(message).map_err(|_| ProtocolError::Malformed("the message is not UTF-8"))?;
    Ok(Reply { exit_code, message })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_that_ends_early_is_no_reply() {
        let whole = Reply { exit_code: 0, message: "archived".to_owned() }.encode();
        assert!(read_reply(&mut whole.as_slice()).is_ok());
        for length in 0..whole.len() {
            assert!(read_reply(&mut &whole[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn an_agent_that_accepts_and_says_nothing_is_given_up_soon() {
        let socket = std::env::temp_dir().join(format!("wald-silent-{}.sock", std::process::id()));
        // Of a process with the same id that was killed.
        let _ = std::fs::remove_file(&socket);
        // Connections wait in its queue; nobody ever takes them.
        let silent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let asked = std::time::Instant::now();
        let error = ask(&socket, &Request::Status, Duration::from_secs(3600)).unwrap_err();
        assert!(matches!(error, ExchangeError::Broken { .. }), "{error}");
        assert!(asked.elapsed() < Duration::from_secs(60));
        drop(silent);
        std::fs::remove_file(&socket).unwrap();
    }

    #[test]
    fn a_missing_socket_is_named() {
        let error =
            ask(Path::new("/nonexistent/wald.sock"), &Request::Status, Duration::from_secs(1)).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/wald.sock"));
    }
}
