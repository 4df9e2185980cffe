//! A proxy in front of the real S3 server that breaks what a suite tells it to break.
//!
//! The server behind it is real, and so a fault has its real consequences: an upload whose answer
//! is cut off *is* stored, and the client's next try meets it. Which requests are hit, how often
//! and how is a list of [`Rule`]s; what was asked is on record.
//!
//! Invariants:
//! - What no rule hits passes unchanged. The `Host` header above all: clients sign it, and the
//!   server computes the signature from the one that it receives.
//! - The record and `Debug` hold no secret: only headers that are known to be harmless, and no
//!   value of a query that carries a signature.
//! - Nothing outlives the proxy: its drop ends every connection, stalled ones too.

pub mod script;

mod message;
mod serve;

pub use script::{Failure, Fault, Requests, Rule, Seen, When};

use anyhow::{Context, Result};
use script::Script;
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How often what waits looks whether the proxy is to stop.
const POLL: Duration = Duration::from_millis(20);

/// A running proxy.
#[derive(Debug)]
pub struct FaultProxy {
    address: String,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

/// What the connections' threads have in common.
#[derive(Debug)]
struct Shared {
    /// The server behind, `host:port`.
    upstream: String,
    script: Mutex<Script>,
    stopping: AtomicBool,
    /// The clients' connections, to be ended from outside.
    clients: Mutex<HashMap<u64, TcpStream>>,
}

impl FaultProxy {
    /// Starts one on a free port of loopback, in front of `upstream`, `host:port`.
    pub fn start(upstream: &str) -> Result<FaultProxy> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("binding the fault proxy")?;
        let address = listener.local_addr().context("asking for the fault proxy's port")?.to_string();
        let shared = Arc::new(Shared {
            upstream: upstream.to_owned(),
            script: Mutex::default(),
            stopping: AtomicBool::new(false),
            clients: Mutex::default(),
        });
        let accepted = Arc::clone(&shared);
        let accepting = thread::spawn(move || accept(&listener, &accepted));
        Ok(FaultProxy { address, shared, accepting: Some(accepting) })
    }

    /// Where it listens, `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The URL for `[repository] endpoint`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Adds a rule behind those that are there: of several that hit a request the first counts.
    pub fn add(&self, requests: Requests, when: When, fault: Fault) {
        self.shared.script().rules.push(Rule::new(requests, when, fault));
    }

    /// Takes all rules away: from now on everything passes.
    pub fn clear(&self) {
        self.shared.script().rules.clear();
    }

    /// The requests so far, in the order in which they came, with what became of each.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.script().seen.clone()
    }

    /// How many requests met a fault so far.
    pub fn injected(&self) -> usize {
        self.shared.script().seen.iter().filter(|seen| seen.fault.is_some()).count()
    }

    /// Begins the record anew.
    pub fn forget(&self) {
        self.shared.script().seen.clear();
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        for client in self.shared.clients().values() {
            // One that is closed already is what was wanted.
            let _ = client.shutdown(Shutdown::Both);
        }
        // Wakes the thread that accepts, which then sees that it is to end.
        if TcpStream::connect(&self.address).is_ok()
            && let Some(accepting) = self.accepting.take()
        {
            let _ = accepting.join();
        }
    }
}

impl Shared {
    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn clients(&self) -> MutexGuard<'_, HashMap<u64, TcpStream>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for (number, client) in (0_u64..).zip(listener.incoming()) {
        if shared.is_stopping() {
            return;
        }
        // A client that left before it was heard.
        let Ok(client) = client else { continue };
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            if let Err(error) = guarded(number, client, &shared)
                && !is_a_broken_connection(&error)
            {
                eprintln!("fault proxy: {error}");
            }
            shared.clients().remove(&number);
        });
    }
}

/// Serves one connection, which [`FaultProxy`]'s drop can end at any time.
fn guarded(number: u64, client: TcpStream, shared: &Shared) -> io::Result<()> {
    shared.clients().insert(number, client.try_clone()?);
    if shared.is_stopping() {
        return Ok(());
    }
    serve::serve(client, shared)
}

/// What clients and servers that are killed in the middle of a test leave behind.
fn is_a_broken_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{
        BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, NotConnected, UnexpectedEof,
    };
    matches!(
        error.kind(),
        BrokenPipe | ConnectionAborted | ConnectionRefused | ConnectionReset | NotConnected | UnexpectedEof
    )
}

#[cfg(test)]
mod tests;
