//! A way to the S3 server that takes longer, and that is measured: a TCP relay on loopback which
//! holds back all bytes for half of the added latency in each direction, and counts them.
//!
//! Like a longer cable it delays and does not narrow: bytes that arrive while others wait are
//! delayed side by side. Opening a connection costs one more trip there and back, as it would.

use anyhow::{Context, Result};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

const CHUNK_BYTES: usize = 64 << 10;
/// What may be under way on one connection in one direction: 32 MiB.
const CHUNKS_MAX: usize = 512;

/// A running relay. It takes no new connections after its drop; the threads end with the
/// connections, and those with the programs that hold them.
#[derive(Debug)]
pub struct Relay {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    upstream: String,
    latency: Duration,
    closed: AtomicBool,
    sent: AtomicU64,
    received: AtomicU64,
}

impl Relay {
    /// Starts one in front of `upstream`, `host:port`; `latency` is that of a trip there and back.
    pub fn start(upstream: &str, latency: Duration) -> Result<Relay> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("binding the relay")?;
        let port = listener.local_addr().context("asking for the relay's port")?.port();
        let shared = Arc::new(Shared {
            upstream: upstream.to_owned(),
            latency,
            closed: AtomicBool::new(false),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
        });
        let accepted = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if accepted.closed.load(Ordering::Relaxed) {
                    break;
                }
                let shared = Arc::clone(&accepted);
                thread::spawn(move || {
                    // A connection that can't be made is the client's to notice.
                    let _ = join(client, &shared);
                });
            }
        });
        Ok(Relay { port, shared })
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How many bytes the server has sent through it so far.
    pub fn received(&self) -> u64 {
        self.shared.received.load(Ordering::Relaxed)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Relaxed);
        // Wakes the listener, so that it sees that it is to end.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

fn join(client: TcpStream, shared: &Arc<Shared>) -> Result<()> {
    // The handshake's own trip.
    thread::sleep(shared.latency);
    let server = TcpStream::connect(&shared.upstream)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (client_again, server_again) = (client.try_clone()?, server.try_clone()?);
    let (out, back) = (Arc::clone(shared), Arc::clone(shared));
    thread::spawn(move || pass(client, server, &out, |shared| &shared.sent));
    pass(server_again, client_again, &back, |shared| &shared.received);
    Ok(())
}

/// Moves bytes one way until either end is closed.
fn pass(from: TcpStream, to: TcpStream, shared: &Shared, counter: fn(&Shared) -> &AtomicU64) {
    let (sender, receiver) = sync_channel(CHUNKS_MAX);
    let writer = thread::spawn(move || write(to, &receiver));
    read(from, &sender, shared, counter);
    drop(sender);
    // It ends when all that was read is written; a panic in it has nobody to tell.
    let _ = writer.join();
}

fn read(
    mut from: TcpStream,
    sender: &SyncSender<(Instant, Vec<u8>)>,
    shared: &Shared,
    counter: fn(&Shared) -> &AtomicU64,
) {
    let mut buffer = vec![0; CHUNK_BYTES];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        counter(shared).fetch_add(u64::try_from(count).unwrap_or(0), Ordering::Relaxed);
        let chunk = buffer.get(..count).unwrap_or_default().to_vec();
        if sender.send((Instant::now() + shared.latency / 2, chunk)).is_err() {
            break;
        }
    }
}

fn write(mut to: TcpStream, receiver: &Receiver<(Instant, Vec<u8>)>) {
    while let Ok((due, chunk)) = receiver.recv() {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if to.write_all(&chunk).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_arrive_later_and_whole_and_are_counted() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let upstream = listener.local_addr().unwrap().to_string();
        thread::spawn(move || {
            let (mut server, _) = listener.accept().unwrap();
            let mut asked = [0; 4];
            server.read_exact(&mut asked).unwrap();
            server.write_all(&vec![7; 200_000]).unwrap();
        });
        let relay = Relay::start(&upstream, Duration::from_millis(20)).unwrap();
        let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, relay.port())).unwrap();
        let started = Instant::now();
        client.write_all(b"GET!").unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        assert_eq!((answer.len(), relay.received()), (200_000, 200_000));
        assert!(started.elapsed() >= Duration::from_millis(20));
    }
}
