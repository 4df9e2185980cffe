//! A forward proxy on loopback, as a company has between its hosts and the rest: what names it in
//! `http_proxy` asks it for whole URLs.
//!
//! It takes the request line's URL for the way, and every host for this machine, so that names
//! such as `bucket.localhost`, which not every resolver knows, can be reached. One request per
//! connection; `CONNECT` is passed through.

use anyhow::{Context, Result, bail};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// A running proxy. It ends with the process.
#[derive(Debug)]
pub struct ForwardProxy {
    address: String,
    seen: Arc<Mutex<Vec<String>>>,
}

const TIMEOUT: Duration = Duration::from_secs(60);
const HEAD_BYTES_MAX: usize = 64 << 10;

impl ForwardProxy {
    /// Starts one on a free port.
    pub fn start() -> Result<ForwardProxy> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("binding the proxy")?;
        let address = listener.local_addr().context("asking for the proxy's port")?.to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&seen);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let told = Arc::clone(&told);
                thread::spawn(move || {
                    // A client that hangs up early is not the proxy's failure.
                    let _ = pass(client, &told);
                });
            }
        });
        Ok(ForwardProxy { address, seen })
    }

    /// For `http_proxy`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The first lines of the requests so far, as `PUT http://host:port/key HTTP/1.1`.
    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn pass(mut client: TcpStream, seen: &Mutex<Vec<String>>) -> Result<()> {
    client.set_read_timeout(Some(TIMEOUT))?;
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte)?;
        head.extend_from_slice(&byte);
        if head.len() > HEAD_BYTES_MAX {
            bail!("a request's head without an end");
        }
    }
    let head = String::from_utf8(head).context("a request's head")?;
    let (line, headers) = head.split_once("\r\n").context("a request line")?;
    seen.lock().unwrap_or_else(PoisonError::into_inner).push(line.to_owned());
    let mut words = line.split(' ');
    let (method, target) = (words.next().context("a method")?, words.next().context("a target")?);
    let mut server = if method == "CONNECT" {
        let server = connect(target)?;
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
        server
    } else {
        let rest = target.strip_prefix("http://").context("not a request for a proxy")?;
        let (host, path) = rest.split_once('/').context("a URL without a path")?;
        let mut server = connect(host)?;
        // One request per connection, so that each is seen.
        let kept = |header: &&str| {
            let name = header.to_ascii_lowercase();
            !name.starts_with("connection:") && !name.starts_with("proxy-")
        };
        let headers: Vec<&str> = headers.trim_end().split("\r\n").filter(kept).collect();
        let headers = headers.join("\r\n");
        write!(server, "{method} /{path} HTTP/1.1\r\nconnection: close\r\n{headers}\r\n\r\n")?;
        server
    };
    let (mut from_client, mut to_server) = (client.try_clone()?, server.try_clone()?);
    thread::spawn(move || io::copy(&mut from_client, &mut to_server));
    io::copy(&mut server, &mut client)?;
    let _ = client.shutdown(Shutdown::Both);
    let _ = server.shutdown(Shutdown::Both);
    Ok(())
}

/// Every host is this machine.
fn connect(host: &str) -> Result<TcpStream> {
    let port = host.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or(80);
    Ok(TcpStream::connect(("127.0.0.1", port))?)
}
