//! A stream of messages in each direction as one stream of bytes.

use crate::control::BytesMessage;
use bytes::{Buf, Bytes, BytesMut};
use futures::{Stream, StreamExt, ready};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard, PollSender};
use tonic::Status;

/// What one message carries at most. Fewer, larger messages cost less; two megabytes in flight
/// ([`CHUNKS`]) are enough to keep both ends busy.
const CHUNK: usize = 128 << 10;

/// How many messages may wait for the transport; a writer waits when there are as many.
const CHUNKS: usize = 16;

/// The messages that a [`Tunnel`] writes, for the transport to send.
pub type Outgoing = ReceiverStream<BytesMessage>;

/// One end of a session's connection.
pub struct Tunnel {
    incoming: Pin<Box<dyn Stream<Item = Result<BytesMessage, Status>> + Send>>,
    unread: Bytes,
    outgoing: PollSender<BytesMessage>,
    unsent: BytesMut,
    _closed: DropGuard,
}

impl Tunnel {
    /// Makes a connection of the messages that come in, and of those that are to go out.
    ///
    /// The token is cancelled when the tunnel has been dropped.
    pub fn new<S>(incoming: S) -> (Self, Outgoing, CancellationToken)
    where
        S: Stream<Item = Result<BytesMessage, Status>> + Send + 'static,
    {
        let (sender, receiver) = mpsc::channel(CHUNKS);
        let closed = CancellationToken::new();
        let tunnel = Self {
            incoming: Box::pin(incoming),
            unread: Bytes::new(),
            outgoing: PollSender::new(sender),
            unsent: BytesMut::new(),
            _closed: closed.clone().drop_guard(),
        };
        (tunnel, ReceiverStream::new(receiver), closed)
    }

    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unsent.is_empty() {
            return Poll::Ready(Ok(()));
        }
        ready!(self.outgoing.poll_reserve(context)).map_err(|_| gone())?;
        let data = self.unsent.split().freeze();
        let sent = self.outgoing.send_item(BytesMessage { data });
        Poll::Ready(sent.map_err(|_| gone()))
    }

    /// Takes what fits into the message that is being filled, after sending a full one.
    fn poll_fill(
        &mut self,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.unsent.len() >= CHUNK {
            ready!(self.poll_send(context))?;
        }
        let mut taken = 0;
        for slice in slices {
            let room = CHUNK - self.unsent.len();
            let part = &slice[..slice.len().min(room)];
            self.unsent.extend_from_slice(part);
            taken += part.len();
        }
        Poll::Ready(Ok(taken))
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the other end of the session is gone")
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.unread.is_empty() {
            match ready!(self.incoming.poll_next_unpin(context)) {
                Some(Ok(message)) => self.unread = message.data,
                Some(Err(status)) => return Poll::Ready(Err(io::Error::other(status))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let count = self.unread.len().min(buffer.remaining());
        buffer.put_slice(&self.unread[..count]);
        self.unread.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_fill(context, &[IoSlice::new(data)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_fill(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_send(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(context))?;
        self.outgoing.close();
        Poll::Ready(Ok(()))
    }
}
