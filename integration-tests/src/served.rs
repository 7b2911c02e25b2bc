//! The part of a server on loopback that listens.

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

/// A port of loopback that is listened on until this is dropped.
pub(crate) struct Served {
    address: String,
    has_ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Served {
    /// Has each connection to `listener` answered in a thread of its own.
    pub(crate) fn start(
        listener: TcpListener,
        answer: impl Fn(&TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let address = address(&listener);
        let (has_ended, answer) = (Arc::<AtomicBool>::default(), Arc::new(answer));
        let ended = has_ended.clone();
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                let answer = answer.clone();
                // A client that leaves early is none of the server's business.
                thread::spawn(move || stream.map(|stream| drop(answer(&stream))));
            }
        });
        Self { address, has_ended, thread: Some(thread) }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.has_ended.store(true, Ordering::Relaxed);
        // Wakes it up.
        let _ = TcpStream::connect(&self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A free port of loopback.
pub(crate) fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").expect("a port on loopback")
}

/// Where it listens.
pub(crate) fn address(listener: &TcpListener) -> String {
    listener.local_addr().expect("the server's address").to_string()
}
