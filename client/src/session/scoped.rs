//! Answers that are made by a task of their own.

use futures::Stream;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

/// How many messages may wait for the daemon to read them.
const WAITING: usize = 8;

/// A stream that a task fills. The task ends with the stream, and its failure ends the stream.
#[derive(Debug)]
pub(crate) struct Scoped<T> {
    messages: mpsc::Receiver<T>,
    task: Option<AbortOnDropHandle<Result<(), Status>>>,
}

impl<T: Send + 'static> Scoped<T> {
    /// Runs a task that sends to the stream.
    pub(crate) fn run<F>(make: impl FnOnce(mpsc::Sender<T>) -> F) -> Self
    where
        F: Future<Output = Result<(), Status>> + Send + 'static,
    {
        let (sender, messages) = mpsc::channel(WAITING);
        let task = AbortOnDropHandle::new(tokio::spawn(make(sender)));
        Self { messages, task: Some(task) }
    }
}

impl<T> Stream for Scoped<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(message) = ready!(self.messages.poll_recv(context)) {
            return Poll::Ready(Some(Ok(message)));
        }
        // All that the task sent has been read; what is left is how it ended.
        let Some(task) = &mut self.task else { return Poll::Ready(None) };
        let ended = ready!(Pin::new(task).poll(context));
        self.task = None;
        match ended {
            Ok(Ok(())) => Poll::Ready(None),
            Ok(Err(status)) => Poll::Ready(Some(Err(status))),
            Err(_) => Poll::Ready(Some(Err(Status::internal("the client's service failed")))),
        }
    }
}
