//! Waits until a daemon says that it is ready, by systemd's notification protocol.

use std::fs::Permissions;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::process::{Process, readable};

/// The receiving end of `NOTIFY_SOCKET`.
pub struct ReadySocket {
    socket: UnixDatagram,
    path: PathBuf,
}

impl ReadySocket {
    /// Listens in `folder`.
    pub fn bind(folder: &Path) -> Self {
        let path = folder.join("notify");
        // Left there by an earlier start in the same folder.
        let _ = std::fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).expect("notification socket");
        // Whoever the daemon is run by.
        std::fs::set_permissions(&path, Permissions::from_mode(0o666)).expect("permissions");
        Self { socket, path }
    }

    /// What belongs into the daemon's `NOTIFY_SOCKET`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for `READY=1`; false if `process` ended or `limit` passed before.
    pub fn wait(&self, process: &Process, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut buffer = [0; 4096];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match readable(&[self.socket.as_fd(), process.ended()], left) {
                Some(0) => {
                    let size = self.socket.recv(&mut buffer).expect("notification");
                    if buffer[..size].split(|byte| *byte == b'\n').any(|line| line == b"READY=1") {
                        return true;
                    }
                }
                Some(_) | None => return false,
            }
        }
    }
}
