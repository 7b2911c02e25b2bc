//! Requests to the kernel over a netlink socket (RFC 3549, `linux/netlink.h`).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with,
};

const HEADER: usize = 16;
const NESTED: u16 = 0x8000;

/// The kind of message that an acknowledgement is, and the flags of requests.
const ERROR: u16 = 2;
const REQUEST: u16 = 1;
const ACK: u16 = 4;

/// Makes something that must not be there yet.
pub(super) const CREATE: u16 = 0x400 | 0x200;

/// Adds to the end of a list.
pub(super) const APPEND: u16 = 0x400 | 0x800;

/// The kernel answers at once; this is for the case that it does not.
const PATIENCE: Duration = Duration::from_secs(5);

/// One request, with its attributes. Fixed parts and attributes are padded to four bytes.
#[derive(Debug, Clone)]
pub(super) struct Message(Vec<u8>);

impl Message {
    /// A request of a kind, to be acknowledged.
    pub(super) fn new(kind: u16, flags: u16) -> Self {
        Self::unacknowledged(kind, flags | ACK)
    }

    /// A request that the kernel does not answer.
    pub(super) fn unacknowledged(kind: u16, flags: u16) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | REQUEST).to_ne_bytes());
        Self(bytes)
    }

    /// Appends the fixed part with which a kind of request, or of attribute, begins.
    pub(super) fn fixed(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// Appends an attribute.
    pub(super) fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        self.0.extend_from_slice(&(4 + value.len() as u16).to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.fixed(value)
    }

    /// Appends an attribute that is a string.
    pub(super) fn text(self, kind: u16, value: &str) -> Self {
        self.attribute(kind, &[value.as_bytes(), b"\0"].concat())
    }

    /// Appends an attribute that consists of what `content` appends.
    pub(super) fn nested(self, kind: u16, content: impl FnOnce(Self) -> Self) -> Self {
        let start = self.0.len();
        let mut message = content(self.attribute(kind | NESTED, &[]));
        let length = (message.0.len() - start) as u16;
        message.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        message
    }

    fn flags(&self) -> u16 {
        u16::from_ne_bytes([self.0[6], self.0[7]])
    }

    fn number(&mut self, sequence: u32) {
        let length = self.0.len() as u32;
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
    }
}

/// What a socket speaks to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Family {
    /// Interfaces, addresses and routes.
    Route,
    /// The packet filter.
    Filter,
}

/// A socket that speaks to one family of the kernel, about the network namespace in which it was
/// opened.
#[derive(Debug)]
pub(super) struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

impl Socket {
    /// Opens one in the calling thread's network namespace.
    pub(super) fn open(family: Family) -> Result<Self, Errno> {
        let protocol = match family {
            Family::Route => None,
            Family::Filter => Some(netlink::NETFILTER),
        };
        let flags = SocketFlags::CLOEXEC;
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
        set_socket_timeout(&fd, Timeout::Recv, Some(PATIENCE))?;
        Ok(Self { fd, sequence: 0 })
    }

    /// Makes requests together and waits until all are acknowledged.
    ///
    /// # Errors
    /// The first one's reason that was refused. What comes before it may have been done.
    pub(super) fn request(
        &mut self,
        messages: impl IntoIterator<Item = Message>,
    ) -> Result<(), Errno> {
        let first = self.sequence.wrapping_add(1);
        let (mut bytes, mut unanswered) = (Vec::new(), 0_usize);
        for mut message in messages {
            self.sequence = self.sequence.wrapping_add(1);
            message.number(self.sequence);
            unanswered += usize::from(message.flags() & ACK != 0);
            bytes.extend(message.0);
        }
        sendto(&self.fd, &bytes, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        let mut buffer = [0; 8192];
        while unanswered > 0 {
            let (_, length) = recv(&self.fd, &mut buffer, RecvFlags::empty())?;
            for (sequence, code) in acknowledgements(&buffer[..length]) {
                // What an earlier request that failed has left unread is of no interest.
                if sequence.wrapping_sub(first) > self.sequence.wrapping_sub(first) {
                    continue;
                }
                if code != 0 {
                    return Err(Errno::from_raw_os_error(code.saturating_neg()));
                }
                unanswered = unanswered.saturating_sub(1);
            }
        }
        Ok(())
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Sequence number and result of each acknowledgement.
fn acknowledgements(mut bytes: &[u8]) -> Vec<(u32, i32)> {
    let word = |bytes: &[u8], at: usize| {
        bytes.get(at..at + 4).map(|word| [word[0], word[1], word[2], word[3]])
    };
    let mut found = Vec::new();
    while let Some(length) = word(bytes, 0).map(|word| u32::from_ne_bytes(word) as usize) {
        if length < HEADER || length > bytes.len() {
            break;
        }
        let (message, rest) = bytes.split_at(length.next_multiple_of(4).min(bytes.len()));
        let kind = u16::from_ne_bytes([message[4], message[5]]);
        if let (ERROR, Some(sequence), Some(code)) = (kind, word(message, 8), word(message, HEADER))
        {
            found.push((u32::from_ne_bytes(sequence), i32::from_ne_bytes(code)));
        }
        bytes = rest;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_nested_ones_count_what_is_in_them() {
        let message = Message::new(16, 0)
            .fixed(&[7; 4])
            .nested(3, |message| message.text(1, "ab").attribute(2, &[9]));
        let expected = [
            &[7, 7, 7, 7][..],
            &20_u16.to_ne_bytes(),
            &0x8003_u16.to_ne_bytes(),
            &7_u16.to_ne_bytes(),
            &1_u16.to_ne_bytes(),
            b"ab\0\0",
            &5_u16.to_ne_bytes(),
            &2_u16.to_ne_bytes(),
            &[9, 0, 0, 0],
        ];
        assert_eq!(message.0[HEADER..], expected.concat());
    }

    #[test]
    fn answers_that_make_no_sense_acknowledge_nothing() {
        for bytes in [&[][..], &[1], &[255; 16], &[0; 64]] {
            assert!(acknowledgements(bytes).is_empty(), "{bytes:?}");
        }
    }
}
