//! The socket file: one agent each, taken over when its owner is gone, open to few.
//!
//! Invariant: a lock file beside the socket is held for the agent's life, so two agents that
//! start at once can't both believe that the socket is stale.

use crate::fs::FsError;
use rustix::fs::{FlockOperation, Mode, flock};
use std::fs::File;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use tokio::net::{UnixListener, UnixStream};

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another agent holds it.
    #[error("another agent is running on {} (it holds {}); stop it first, or give this one its own agent.socket", socket.display(), lock.display())]
    Taken {
        /// The socket.
        socket: PathBuf,
        /// The lock file.
        lock: PathBuf,
    },
    /// Something that is not a socket has its name.
    #[error("{} exists and is not a socket; agent.socket must name a path of wald's own", socket.display())]
    NotASocket {
        /// The path.
        socket: PathBuf,
    },
    /// The file system said no.
    #[error(transparent)]
    Fs(#[from] FsError),
}

/// The right to a socket's name, before anybody listens on it.
pub struct SocketLock {
    socket: PathBuf,
    lock: File,
}

/// A listening socket and the users that it answers.
pub struct Listener {
    listener: UnixListener,
    allowed_uids: Vec<u32>,
    socket: PathBuf,
    _lock: File,
}

impl SocketLock {
    /// Takes the name; fails if another agent has it. As long as nobody listens, shims are
    /// refused at once and do the work themselves.
    pub fn take(socket: &Path) -> Result<Self, SocketError> {
        let lock_path = socket.with_extension("lock");
        let lock = File::create(&lock_path).map_err(|source| FsError::new("create", &lock_path, source))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| SocketError::Taken { socket: socket.to_owned(), lock: lock_path.clone() })?;
        Ok(Self { socket: socket.to_owned(), lock })
    }

    /// Listens; `allowed_uids` beside root and this process's own user.
    pub fn listen(self, allowed_uids: &[u32]) -> Result<Listener, SocketError> {
        let socket = self.socket.as_path();
        match std::fs::symlink_metadata(socket) {
            // Whoever made it is gone: the lock was free.
            Ok(metadata) if metadata.file_type().is_socket() => {
                std::fs::remove_file(socket).map_err(|source| FsError::new("remove", socket, source))?;
            }
            Ok(_) => return Err(SocketError::NotASocket { socket: socket.to_owned() }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(FsError::new("look at", socket, source).into()),
        }
        let listener =
            UnixListener::bind(socket).map_err(|source| FsError::new("listen on", socket, source))?;
        // Everybody may connect and is asked who he is: file modes can't name several users.
        rustix::fs::chmod(socket, Mode::from_raw_mode(0o666))
            .map_err(|source| FsError::new("change the mode of", socket, source))?;
        let mut allowed_uids = allowed_uids.to_vec();
        allowed_uids.extend([0, rustix::process::geteuid().as_raw()]);
        Ok(Listener { listener, allowed_uids, socket: self.socket, _lock: self.lock })
    }
}

impl Listener {
    /// The next connection; `None` for one of a user that is not allowed, which is closed.
    pub(super) async fn accept(&self) -> std::io::Result<Option<UnixStream>> {
        let (stream, _) = self.listener.accept().await?;
        let uid = stream.peer_cred()?.uid();
        if self.allowed_uids.contains(&uid) {
            return Ok(Some(stream));
        }
        tracing::warn!(
            uid,
            "refused a connection: add the user to agent.allow_uids if it may archive and restore"
        );
        Ok(None)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Failing to remove it is harmless: the next agent takes a stale socket over.
        let _ = std::fs::remove_file(&self.socket);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_second_agent_is_refused_and_a_stale_socket_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("wald.sock");
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        assert!(socket.exists(), "a stale socket file");
        let first = SocketLock::take(&socket).unwrap().listen(&[]).unwrap();
        assert!(matches!(SocketLock::take(&socket), Err(SocketError::Taken { .. })));
        drop(first);
        // A child that another test starts has the lock, too, until it executes its program.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        let second = loop {
            match SocketLock::take(&socket) {
                Ok(lock) => break lock,
                Err(error) => assert!(std::time::Instant::now() < deadline, "{error}"),
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        };
        assert!(second.listen(&[]).is_ok());
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("wald.sock");
        std::fs::write(&socket, "precious").unwrap();
        let lock = SocketLock::take(&socket).unwrap();
        assert!(matches!(lock.listen(&[]), Err(SocketError::NotASocket { .. })));
        assert_eq!(std::fs::read(&socket).unwrap(), b"precious");
    }
}
