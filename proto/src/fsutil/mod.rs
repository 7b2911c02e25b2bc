//! Copying a file tree over a stream of packets, from either end.
//!
//! The sender walks its tree and announces each entry; the receiver asks for the content of the
//! files that it lacks while the walk goes on. [`send`] and [`receive`] are the two ends, over any
//! stream of [`Packet`]s; [`LocalTree`] is a directory with its filters, ready to be sent, and
//! [`Sink`] is what a receiver does with what it gets. [`Validator`] stands between a foreign
//! sender and every sink.

mod mode;
mod receive;
mod selection;
mod send;
mod validator;
mod walk;

pub use crate::wire::fsutil::types::packet::PacketType;
pub use crate::wire::fsutil::types::{Packet, Stat, packet};
pub use mode::GoMode;
pub use receive::{ReceiveError, Sink, receive};
pub use selection::{DirectoryRequest, Selection};
pub use send::{DATA_SIZE, SendError, Tree, send};
pub use validator::{BadEntry, Validator};
pub use walk::{LocalTree, Owner, Walk, WalkError};

impl Stat {
    /// The kind and permissions of the entry.
    pub fn go_mode(&self) -> GoMode {
        GoMode(self.mode)
    }

    /// Whether the entry is another name of an earlier file, which [`Self::linkname`] gives.
    pub fn is_hardlink(&self) -> bool {
        !self.linkname.is_empty() && !self.go_mode().is_dir() && !self.go_mode().is_symlink()
    }
}

impl Packet {
    /// Announces an entry; `None` ends the walk.
    pub fn stat(stat: Option<Stat>) -> Self {
        Self { stat, ..Self::of(PacketType::PacketStat) }
    }

    /// Asks for the content of an entry.
    pub fn request(id: u32) -> Self {
        Self { id, ..Self::of(PacketType::PacketReq) }
    }

    /// A piece of an entry's content; an empty one ends it.
    pub fn data(id: u32, data: bytes::Bytes) -> Self {
        Self { id, data, ..Self::of(PacketType::PacketData) }
    }

    /// Says that all has been received, or acknowledges that.
    pub fn fin() -> Self {
        Self::of(PacketType::PacketFin)
    }

    /// Ends the copy for a reason.
    pub fn error(reason: &impl std::fmt::Display) -> Self {
        Self { data: reason.to_string().into(), ..Self::of(PacketType::PacketErr) }
    }

    fn of(kind: PacketType) -> Self {
        Self { r#type: kind.into(), ..Self::default() }
    }
}

#[cfg(test)]
mod tests;
