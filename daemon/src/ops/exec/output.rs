//! A step's output, on its way to the log.

use std::os::fd::OwnedFd;

use anyhow::Context as _;
use bytes::Bytes;
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;

use crate::solver::VertexProgress;

/// The reading end of one stream of a step.
pub(super) struct Output {
    stream: i64,
    receiver: Receiver,
}

impl Output {
    /// A pipe: its reading end, and the end that the step gets.
    pub(super) fn new(stream: i64) -> anyhow::Result<(Self, OwnedFd)> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).context("cannot make a pipe")?;
        rustix::io::ioctl_fionbio(&read, true)?;
        let receiver = Receiver::from_owned_fd(read)?;
        Ok((Self { stream, receiver }, write))
    }

    /// Passes on what comes, as it comes, until the last writer is gone.
    pub(super) async fn forward(mut self, progress: &VertexProgress) {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(count) = self.receiver.read(&mut buffer).await
            && count > 0
        {
            // The log is kept as long as the build: of few bytes no more than those.
            progress.log(self.stream, Bytes::copy_from_slice(&buffer[..count]));
        }
    }
}
