//! Sending and receiving whole messages with descriptors over a SEQPACKET socket.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, fstat, memfd_create};
use rustix::io::{Errno, pread, write};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Descriptors in one message at most.
const MAX_FDS: usize = 24;

/// Longest message sent through the socket itself, below the default size of its buffer. Longer
/// ones travel in a memory file.
const MAX_INLINE: usize = 64 * 1024;

const INLINE: u8 = 0;
const IN_MEMORY_FILE: u8 = 1;

/// A message in the form in which it is sent.
pub(crate) struct Encoded {
    bytes: Vec<u8>,
    memory_file: Option<OwnedFd>,
}

impl Encoded {
    /// Encodes `message`.
    pub(crate) fn new(message: &impl Serialize) -> Result<Self, Errno> {
        let mut bytes = vec![INLINE];
        bytes = postcard::to_extend(message, bytes).map_err(|_| Errno::INVAL)?;
        if bytes.len() <= MAX_INLINE {
            return Ok(Self { bytes, memory_file: None });
        }
        let file = memfd_create(c"kiln-request", MemfdFlags::CLOEXEC)?;
        let mut rest = &bytes[1..];
        while !rest.is_empty() {
            let written = write(&file, rest)?;
            rest = &rest[written..];
        }
        Ok(Self { bytes: vec![IN_MEMORY_FILE], memory_file: Some(file) })
    }

    /// Sends the message together with `fds`, whole or not at all.
    pub(crate) fn send(
        &self,
        socket: impl AsFd,
        fds: &[BorrowedFd<'_>],
        flags: SendFlags,
    ) -> Result<(), Errno> {
        let fds: Vec<_> =
            fds.iter().copied().chain(self.memory_file.as_ref().map(AsFd::as_fd)).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(Errno::TOOMANYREFS);
        }
        let flags = flags | SendFlags::NOSIGNAL;
        sendmsg(socket, &[IoSlice::new(&self.bytes)], &mut ancillary, flags).map(drop)
    }
}

/// Encodes and sends a message.
pub(crate) fn send(
    socket: impl AsFd,
    message: &impl Serialize,
    fds: &[BorrowedFd<'_>],
) -> Result<(), Errno> {
    Encoded::new(message)?.send(socket, fds, SendFlags::empty())
}

/// Where messages are received into; kept between calls.
pub(crate) struct Receiver {
    buffer: Box<[u8]>,
}

impl Receiver {
    /// For any message.
    pub(crate) fn new() -> Self {
        Self { buffer: vec![0; MAX_INLINE].into() }
    }

    /// Receives the next message and its descriptors, or nothing if the other end is closed.
    ///
    /// # Errors
    /// `BADMSG` if what came is no such message; the kernel's reason otherwise.
    pub(crate) fn receive<T: DeserializeOwned>(
        &mut self,
        socket: impl AsFd,
        flags: RecvFlags,
    ) -> Result<Option<(T, Vec<OwnedFd>)>, Errno> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = flags | RecvFlags::CMSG_CLOEXEC;
        let mut slices = [IoSliceMut::new(&mut self.buffer)];
        let received = recvmsg(socket, &mut slices, &mut ancillary, flags)?;
        let mut fds = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        let payload = match self.buffer[..received.bytes].split_first() {
            None => return Ok(None),
            Some((&INLINE, inline)) => postcard::from_bytes(inline),
            Some(_) => {
                let file = fds.pop().ok_or(Errno::BADMSG)?;
                postcard::from_bytes(&read_all(&file)?)
            }
        };
        Ok(Some((payload.map_err(|_| Errno::BADMSG)?, fds)))
    }
}

fn read_all(file: &OwnedFd) -> Result<Vec<u8>, Errno> {
    let size = usize::try_from(fstat(file)?.st_size).map_err(|_| Errno::FBIG)?;
    let mut content = vec![0; size];
    let mut filled = 0;
    while filled < size {
        match pread(file, &mut content[filled..], filled as u64)? {
            0 => return Err(Errno::BADMSG),
            n => filled += n,
        }
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zygote::socket_pair;

    #[test]
    fn messages_of_any_size_arrive_whole_with_their_descriptors() {
        for size in [0, 1, MAX_INLINE - 10, MAX_INLINE, 3 * 1024 * 1024] {
            let (ours, theirs) = socket_pair().unwrap();
            let sent = "x".repeat(size);
            send(&ours, &sent, &[ours.as_fd(), ours.as_fd()]).unwrap();
            let (received, fds) =
                Receiver::new().receive::<String>(&theirs, RecvFlags::empty()).unwrap().unwrap();
            assert_eq!(received.len(), size);
            assert_eq!(fds.len(), 2);
        }
    }

    #[test]
    fn a_closed_end_reads_as_no_message() {
        let (ours, theirs) = socket_pair().unwrap();
        drop(ours);
        let received = Receiver::new().receive::<String>(&theirs, RecvFlags::empty()).unwrap();
        assert!(received.is_none());
    }
}
