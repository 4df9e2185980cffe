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

/// A listening socket and the users that it answers.
pub struct Listener {
    listener: UnixListener,
    allowed_uids: Vec<u32>,
    socket: PathBuf,
    _lock: File,
}

impl Listener {
    /// Listens on `socket`; `allowed_uids` beside root and this process's own user.
    pub fn bind(socket: &Path, allowed_uids: &[u32]) -> Result<Self, SocketError> {
        let lock_path = socket.with_extension("lock");
        let lock = File::create(&lock_path).map_err(|source| FsError::new("create", &lock_path, source))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| SocketError::Taken { socket: socket.to_owned(), lock: lock_path.clone() })?;
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
        Ok(Self { listener, allowed_uids, socket: socket.to_owned(), _lock: lock })
    }

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
        let first = Listener::bind(&socket, &[]).unwrap();
        assert!(matches!(Listener::bind(&socket, &[]), Err(SocketError::Taken { .. })));
        drop(first);
        assert!(Listener::bind(&socket, &[]).is_ok());
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("wald.sock");
        std::fs::write(&socket, "precious").unwrap();
        assert!(matches!(Listener::bind(&socket, &[]), Err(SocketError::NotASocket { .. })));
        assert_eq!(std::fs::read(&socket).unwrap(), b"precious");
    }
}
