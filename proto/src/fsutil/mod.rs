//! Copying a file tree over a stream of packets, from either end.

pub use crate::wire::fsutil::types::packet::PacketType;
pub use crate::wire::fsutil::types::{Packet, Stat, packet};
