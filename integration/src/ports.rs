//! Free TCP ports on loopback, below the range that the kernel hands out for outgoing
//! connections, so that a port found free is not taken by somebody's client a moment later.
//!
//! The listeners are held until the very moment that a server is started on them. What remains
//! is a window of milliseconds: whoever starts a server tries again with other ports when it
//! ends at once. No port is handed out twice by one process: it may be reserved long before its server starts.

use anyhow::{Result, bail};
use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Mutex, PoisonError};

const FIRST: u16 = 12_000;
const COUNT: u16 = 18_000;
const TRIES: u32 = 1_000;

static HANDED_OUT: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// Ports that nobody else can take while this is held.
#[derive(Debug)]
pub struct Reserved {
    held: Vec<(u16, TcpListener)>,
}

impl Reserved {
    /// Reserves `count` ports.
    pub fn new(count: usize) -> Result<Reserved> {
        let mut held = Vec::new();
        for _ in 0..TRIES {
            if held.len() == count {
                return Ok(Reserved { held });
            }
            let port = random_port();
            let is_new = HANDED_OUT.lock().unwrap_or_else(PoisonError::into_inner).insert(port);
            if let Some(listener) =
                is_new.then(|| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()).flatten()
            {
                held.push((port, listener));
            }
        }
        bail!("no {count} free ports on loopback from {FIRST} on")
    }

    /// Gives them up and returns their numbers: for the command line that is run next.
    pub fn release(self) -> Vec<u16> {
        self.held.into_iter().map(|(port, _)| port).collect()
    }
}

fn random_port() -> u16 {
    // RandomState is seeded anew by the system for every instance.
    let random = RandomState::new().build_hasher().finish();
    let offset = u16::try_from(random % u64::from(COUNT)).unwrap_or(0);
    FIRST + offset
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_ports_differ_and_cannot_be_taken() {
        let reserved = Reserved::new(8).unwrap();
        let numbers: BTreeSet<u16> = reserved.held.iter().map(|(port, _)| *port).collect();
        assert_eq!(numbers.len(), 8);
        for port in numbers {
            assert!(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_err());
        }
    }
}
