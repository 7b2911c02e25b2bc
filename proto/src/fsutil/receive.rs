//! The receiving end.

use super::{BadEntry, Packet, PacketType, Stat, Validator};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use std::collections::{HashSet, VecDeque};
use std::error::Error;
use std::future::Future;
use std::time::Duration;
use thiserror::Error;
use tokio::sync::mpsc;
use tonic::Status;

/// How long to try to tell the other end what went wrong here, and then to let it go.
const FAREWELL: Duration = Duration::from_secs(1);

/// What a receiver does with a tree.
///
/// The calls come one after the other, in the order of the packets; contents of several files may
/// interleave. While one waits nothing more is read from the stream, which is how a slow disk slows
/// the sender down.
pub trait Sink: Send {
    /// What it may fail with.
    type Error: Error + Send + Sync + 'static;

    /// Takes an entry, which has passed the [`Validator`], and says whether its content is wanted.
    ///
    /// Only regular files have content; for others the answer does not count.
    fn entry(
        &mut self,
        id: u32,
        stat: Stat,
    ) -> impl Future<Output = Result<bool, Self::Error>> + Send;

    /// Takes the next piece of the content of an entry that was wanted; never empty.
    fn data(
        &mut self,
        id: u32,
        data: Bytes,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// The content of an entry is complete.
    fn end(&mut self, id: u32) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// All entries and contents have come; the sender is told when this returns.
    fn finish(&mut self) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// Why a tree was not received.
#[derive(Debug, Error)]
pub enum ReceiveError<E: Error + 'static> {
    /// The sink failed.
    #[error(transparent)]
    Sink(E),
    /// The other end gave up, and says why.
    #[error("the sender gave up: {0}")]
    Sender(String),
    /// The other end announced an entry that no walk can give.
    #[error("the sender is not to be trusted: {0}")]
    Entry(#[from] BadEntry),
    /// There are more entries than the protocol can count, or one after the last.
    #[error("the sender announced too many entries")]
    TooMany,
    /// Content of an entry that was not asked for, or is complete.
    #[error("the sender sent content of entry {0}, which is not expected")]
    UnexpectedData(u32),
    /// The other end sent what only a receiver may send, or ended too early.
    #[error("the sender sent a packet of type {0} where it cannot")]
    UnexpectedPacket(i32),
    /// The stream broke.
    #[error("the connection to the sender broke: {}", .0.message())]
    Stream(#[source] Box<Status>),
    /// The stream ended before the copy did.
    #[error("the sender went away")]
    Closed,
}

/// Receives a tree into a sink.
///
/// Returns when both ends have said that the copy is complete. A failure here is told to the other
/// end too.
pub async fn receive<S, K>(
    incoming: &mut S,
    outgoing: mpsc::Sender<Packet>,
    sink: &mut K,
) -> Result<(), ReceiveError<K::Error>>
where
    S: Stream<Item = Result<Packet, Status>> + Unpin,
    K: Sink,
{
    let mut state = State {
        sink,
        validator: Validator::default(),
        entries: 0,
        walked: false,
        requests: VecDeque::new(),
        open: HashSet::new(),
    };
    let result = state.run(incoming, &outgoing).await;
    match &result {
        Ok(()) | Err(ReceiveError::Sender(_) | ReceiveError::Stream(_) | ReceiveError::Closed) => {}
        Err(error) => {
            // The other end must read this before it sees the stream cut; that it does so is shown
            // by its end of the stream. If it takes long, it will have to do without.
            let farewell = async {
                if outgoing.send(Packet::error(error)).await.is_ok() {
                    while let Some(Ok(_)) = incoming.next().await {}
                }
            };
            let _ = tokio::time::timeout(FAREWELL, farewell).await;
        }
    }
    result
}

struct State<'a, K> {
    sink: &'a mut K,
    validator: Validator,
    entries: u32,
    walked: bool,
    /// Wanted, and not yet asked for. Unbounded by itself, but never more than the entries: waiting
    /// here for the sender to read could wait for ever, since it may wait for us to read.
    requests: VecDeque<u32>,
    /// Wanted, and not yet complete.
    open: HashSet<u32>,
}

impl<K: Sink> State<'_, K> {
    async fn run<S>(
        &mut self,
        incoming: &mut S,
        outgoing: &mpsc::Sender<Packet>,
    ) -> Result<(), ReceiveError<K::Error>>
    where
        S: Stream<Item = Result<Packet, Status>> + Unpin,
    {
        while !(self.walked && self.open.is_empty()) {
            tokio::select! {
                permit = outgoing.reserve(), if !self.requests.is_empty() => {
                    match (permit, self.requests.pop_front()) {
                        (Ok(permit), Some(id)) => permit.send(Packet::request(id)),
                        // What the stream has to say about its end is more than this.
                        _ => self.requests.clear(),
                    }
                }
                packet = next(incoming) => self.handle(packet?).await?,
            }
        }
        self.sink.finish().await.map_err(ReceiveError::Sink)?;
        outgoing.send(Packet::fin()).await.map_err(|_| ReceiveError::Closed)?;
        let last = next(incoming).await?;
        match last.r#type() {
            PacketType::PacketFin => Ok(()),
            PacketType::PacketErr => Err(sender_error(&last)),
            _ => Err(ReceiveError::UnexpectedPacket(last.r#type)),
        }
    }

    async fn handle(&mut self, packet: Packet) -> Result<(), ReceiveError<K::Error>> {
        match packet.r#type() {
            PacketType::PacketStat => {
                if let Some(stat) = packet.stat {
                    return self.entry(stat).await;
                }
                self.walked = true;
                Ok(())
            }
            PacketType::PacketData => self.data(packet.id, packet.data).await,
            PacketType::PacketErr => Err(sender_error(&packet)),
            PacketType::PacketReq | PacketType::PacketFin => {
                Err(ReceiveError::UnexpectedPacket(packet.r#type))
            }
        }
    }

    async fn entry(&mut self, stat: Stat) -> Result<(), ReceiveError<K::Error>> {
        if self.walked {
            return Err(ReceiveError::TooMany);
        }
        self.validator.check(&stat)?;
        let id = self.entries;
        self.entries = id.checked_add(1).ok_or(ReceiveError::TooMany)?;
        let has_content = stat.go_mode().is_regular();
        let wanted = self.sink.entry(id, stat).await.map_err(ReceiveError::Sink)?;
        if wanted && has_content {
            self.requests.push_back(id);
            self.open.insert(id);
        }
        Ok(())
    }

    async fn data(&mut self, id: u32, data: Bytes) -> Result<(), ReceiveError<K::Error>> {
        if !self.open.contains(&id) {
            return Err(ReceiveError::UnexpectedData(id));
        }
        if data.is_empty() {
            self.open.remove(&id);
            return self.sink.end(id).await.map_err(ReceiveError::Sink);
        }
        self.sink.data(id, data).await.map_err(ReceiveError::Sink)
    }
}

async fn next<S, E>(incoming: &mut S) -> Result<Packet, ReceiveError<E>>
where
    S: Stream<Item = Result<Packet, Status>> + Unpin,
    E: Error + 'static,
{
    incoming
        .next()
        .await
        .ok_or(ReceiveError::Closed)?
        .map_err(|status| ReceiveError::Stream(Box::new(status)))
}

fn sender_error<E: Error + 'static>(packet: &Packet) -> ReceiveError<E> {
    ReceiveError::Sender(String::from_utf8_lossy(&packet.data).into_owned())
}
