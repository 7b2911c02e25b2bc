//! The sending end.

use super::{Packet, PacketType, Stat};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use prost::Message;
use std::collections::HashMap;
use std::error::Error;
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::Status;

/// How much of a file one packet carries. Receivers take up to 4 MiB; beyond this size a packet
/// gets no cheaper, while each one that waits in a channel costs memory.
pub const DATA_SIZE: usize = 256 << 10;

/// Threads that read files. Opening and reading small files from the page cache keeps about two
/// busy; more of them hide a slow disk.
const READERS: usize = 4;

/// How long to try to tell the other end what went wrong here.
const FAREWELL: Duration = Duration::from_secs(1);

/// A tree that can be sent. All of it is called on threads that may block.
pub trait Tree: Send + Sync + 'static {
    /// What a walk may fail with.
    type Error: Error + Send + Sync + 'static;
    /// The content of a file.
    type File: Read;

    /// The entries in the order of their components, directories before what is in them.
    fn entries(&self) -> impl Iterator<Item = Result<Stat, Self::Error>>;

    /// Opens a file that the walk gave.
    ///
    /// # Errors
    /// A file that has vanished since the walk is sent as an empty one; any other error ends the
    /// copy.
    fn open(&self, path: &str) -> io::Result<Self::File>;
}

/// Why a tree was not sent.
#[derive(Debug, Error)]
pub enum SendError {
    /// The walk failed.
    #[error("walking the tree: {0}")]
    Walk(#[source] Box<dyn Error + Send + Sync>),
    /// There are more entries than the protocol can count.
    #[error("the tree has more than {} entries", u32::MAX)]
    TooLarge,
    /// A file could not be read.
    #[error("reading {path:?}: {source}")]
    Read {
        /// The file, relative to the tree.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The other end gave up, and says why.
    #[error("the receiver gave up: {0}")]
    Receiver(String),
    /// The other end asked for an entry that has no content, twice for the same, or for none.
    #[error("the receiver asked for entry {0}, which it cannot have")]
    BadRequest(u32),
    /// The other end sent what only a sender may send.
    #[error("the receiver sent a packet of type {0}")]
    UnexpectedPacket(i32),
    /// The stream broke.
    #[error("the connection to the receiver broke: {}", .0.message())]
    Stream(#[source] Box<Status>),
    /// The stream ended before the copy did.
    #[error("the receiver went away")]
    Closed,
    /// A thread of the sender died.
    #[error("the sender failed")]
    Internal(#[source] tokio::task::JoinError),
}

/// Sends a tree: its entries, then the content of those that the other end asks for.
///
/// `progress` is told the size of each packet. A failure here is told to the other end too.
/// Dropping the future ends the copy; its threads stop when `outgoing` is no longer read.
pub async fn send<T, S>(
    tree: Arc<T>,
    incoming: &mut S,
    outgoing: mpsc::Sender<Packet>,
    progress: impl Fn(usize) + Send + Sync + 'static,
) -> Result<(), SendError>
where
    T: Tree,
    S: Stream<Item = Result<Packet, Status>> + Unpin,
{
    let shared = Arc::new(Shared {
        tree,
        outgoing: outgoing.clone(),
        files: Mutex::default(),
        stopped: AtomicBool::new(false),
        progress,
    });
    let _stop = StopOnDrop(Arc::clone(&shared));

    let (requests, queue) = std::sync::mpsc::channel();
    let queue = Arc::new(Mutex::new(queue));
    let mut tasks = JoinSet::new();
    {
        let shared = Arc::clone(&shared);
        tasks.spawn_blocking(move || shared.walk());
    }
    for _ in 0..READERS {
        let (shared, queue) = (Arc::clone(&shared), Arc::clone(&queue));
        tasks.spawn_blocking(move || shared.read_files(&queue));
    }

    let result = drive(&shared, incoming, requests, &mut tasks).await;
    match &result {
        Ok(()) => outgoing.send(Packet::fin()).await.map_err(|_| SendError::Closed),
        Err(SendError::Receiver(_) | SendError::Stream(_) | SendError::Closed) => result,
        Err(error) => {
            // If it cannot be told in time, the end of the stream says enough.
            let _ = outgoing.send_timeout(Packet::error(error), FAREWELL).await;
            result
        }
    }
}

type Tasks = JoinSet<Result<(), SendError>>;

/// A file that was announced.
struct Announced {
    path: String,
    size: usize,
}

/// A file to read, and its number.
type Request = (u32, Announced);

/// Answers the other end until it says that it has all.
async fn drive<T, S, P>(
    shared: &Shared<T, P>,
    incoming: &mut S,
    requests: std::sync::mpsc::Sender<Request>,
    tasks: &mut Tasks,
) -> Result<(), SendError>
where
    T: Tree,
    S: Stream<Item = Result<Packet, Status>> + Unpin,
{
    loop {
        let packet = tokio::select! {
            packet = incoming.next() => packet
                .ok_or(SendError::Closed)?
                .map_err(|status| SendError::Stream(Box::new(status)))?,
            Some(done) = tasks.join_next() => {
                done.map_err(SendError::Internal)??;
                continue;
            }
        };
        match packet.r#type() {
            // Each file can be asked for once, so the queue is bounded by the walk.
            PacketType::PacketReq => {
                let file = shared.take_file(packet.id).ok_or(SendError::BadRequest(packet.id))?;
                // The readers only end before the queue when one of them failed, which the
                // tasks tell.
                let _ = requests.send((packet.id, file));
            }
            PacketType::PacketFin => break,
            PacketType::PacketErr => {
                let reason = String::from_utf8_lossy(&packet.data).into_owned();
                return Err(SendError::Receiver(reason));
            }
            PacketType::PacketStat | PacketType::PacketData => {
                return Err(SendError::UnexpectedPacket(packet.r#type));
            }
        }
    }
    drop(requests);
    while let Some(done) = tasks.join_next().await {
        done.map_err(SendError::Internal)??;
    }
    Ok(())
}

struct Shared<T, P> {
    tree: Arc<T>,
    outgoing: mpsc::Sender<Packet>,
    /// Files that were announced and not yet asked for.
    files: Mutex<HashMap<u32, Announced>>,
    stopped: AtomicBool,
    progress: P,
}

/// Ends the threads of a copy that nobody waits for any more.
struct StopOnDrop<T, P>(Arc<Shared<T, P>>);

impl<T, P> Drop for StopOnDrop<T, P> {
    fn drop(&mut self) {
        self.0.stopped.store(true, Ordering::Relaxed);
    }
}

impl<T: Tree, P: Fn(usize) + Send + Sync> Shared<T, P> {
    fn walk(&self) -> Result<(), SendError> {
        let mut id: u32 = 0;
        for stat in self.tree.entries() {
            let stat = stat.map_err(|error| SendError::Walk(Box::new(error)))?;
            if stat.go_mode().is_regular() {
                let file = Announced {
                    path: stat.path.clone(),
                    size: usize::try_from(stat.size).unwrap_or(0),
                };
                self.lock_files().insert(id, file);
            }
            id = id.checked_add(1).ok_or(SendError::TooLarge)?;
            self.send(Packet::stat(Some(stat)))?;
        }
        self.send(Packet::stat(None))
    }

    fn read_files(
        &self,
        queue: &Mutex<std::sync::mpsc::Receiver<Request>>,
    ) -> Result<(), SendError> {
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok((id, file)) = next else {
                return Ok(());
            };
            self.read_file(id, &file)?;
        }
    }

    fn read_file(&self, id: u32, file: &Announced) -> Result<(), SendError> {
        let failed = |source| SendError::Read { path: file.path.clone(), source };
        match self.tree.open(&file.path) {
            Ok(mut content) => {
                let mut expected = file.size;
                loop {
                    let data = read_piece(&mut content, expected).map_err(failed)?;
                    let is_last = data.len() < DATA_SIZE;
                    expected = expected.saturating_sub(data.len());
                    if !data.is_empty() {
                        self.send(Packet::data(id, data))?;
                    }
                    if is_last {
                        break;
                    }
                }
            }
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(failed(error)),
        }
        self.send(Packet::data(id, Bytes::new()))
    }

    fn send(&self, packet: Packet) -> Result<(), SendError> {
        if self.stopped.load(Ordering::Relaxed) {
            return Err(SendError::Closed);
        }
        (self.progress)(packet.encoded_len());
        self.outgoing.blocking_send(packet).map_err(|_| SendError::Closed)
    }
}

impl<T, P> Shared<T, P> {
    fn take_file(&self, id: u32) -> Option<Announced> {
        self.lock_files().remove(&id)
    }

    fn lock_files(&self) -> std::sync::MutexGuard<'_, HashMap<u32, Announced>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads up to [`DATA_SIZE`]; less is the end of the file.
///
/// Room for one byte more than expected lets the end be seen without growing.
fn read_piece(content: &mut impl Read, expected: usize) -> io::Result<Bytes> {
    let mut piece = Vec::with_capacity(expected.saturating_add(1).min(DATA_SIZE));
    content.take(DATA_SIZE as u64).read_to_end(&mut piece)?;
    Ok(piece.into())
}

/// A file that is no longer there, or a socket, which the walk announces as a file.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error())
}
